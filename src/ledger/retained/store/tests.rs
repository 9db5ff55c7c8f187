use proptest::prelude::*;

use super::*;
use crate::ledger::arbitrary::origin;
use crate::ledger::ids::{Origin, Place};
use crate::ledger::retained::matches;
use crate::message::{Content, Stamp};
use crate::mqtt::QoS;
use crate::mqtt::packet::PublishProperties;

const HERE: Place = Place { topic: 1, partition: 0 };

pub fn message(topic: &str, payload: &str) -> Message {
    let properties = PublishProperties::default();
    let content = Content { qos: QoS::AtLeastOnce, retain: true, properties: &properties, payload: payload.as_bytes() };
    Message::new(topic, content, Stamp::default())
}

fn ranked(offset: i64) -> Rank {
    Rank { era: 0, source: Some(Origin { place: HERE, offset }), foreign: 0 }
}

/// A store that is fed by hand; a second passes with each record.
struct Log {
    store: Store,
    end: i64,
}

impl Log {
    fn new(rules: Rules) -> Self {
        Self { store: Store::new(rules, 4), end: 0 }
    }

    fn put(&mut self, topic: &str, rank: Option<Rank>, payload: &str) -> Applied {
        self.end += 1;
        let message = (!payload.is_empty()).then(|| message(topic, payload));
        self.store.apply(Record { offset: self.end, append_ms: self.end * 1_000, topic, rank, message })
    }

    fn payload(&self, topic: &str) -> Option<String> {
        let payload = self.store.get(topic)?.message()?.payload();
        Some(String::from_utf8(payload.to_vec()).unwrap())
    }

    fn found(&self, filter: &str) -> Vec<String> {
        let filter = TopicFilter::parse(filter).unwrap();
        let (mut found, mut cursor) = (Vec::new(), Cursor::Start);
        while let Some((next, entry)) = self.store.next_match(&filter, &cursor) {
            found.push(entry.message().unwrap().topic().to_owned());
            cursor = next;
        }
        found
    }
}

#[test]
fn the_record_of_the_highest_rank_counts_in_whatever_order_they_come() {
    let mut log = Log::new(Rules::ALL);
    assert!(log.put("a", Some(ranked(5)), "five").raised);
    let late = log.put("a", Some(ranked(3)), "three");
    assert_eq!((late.raised, late.best), (false, ranked(5)));
    assert_eq!(log.payload("a").as_deref(), Some("five"));
    assert_eq!(log.store.astray(|_| true), ["a"]);
    assert!(!log.put("a", Some(ranked(5)), "five").raised, "a repair is nothing new");
    assert!(log.store.astray(|_| true).is_empty());
    log.put("a", Some(ranked(7)), "");
    assert_eq!(log.payload("a"), None);
    log.put("a", Some(ranked(6)), "six");
    assert_eq!(log.payload("a"), None, "a clear has a rank, too");
}

#[test]
fn without_its_rule_an_older_record_wins() {
    let mut log = Log::new(Rules::without(Rule::R2));
    log.put("a", Some(ranked(5)), "five");
    log.put("a", Some(ranked(3)), "three");
    assert_eq!(log.payload("a").as_deref(), Some("three"));
}

#[test]
fn a_foreign_record_counts_as_the_newest_until_a_newer_message_comes() {
    let mut log = Log::new(Rules::ALL);
    log.put("a", Some(ranked(5)), "five");
    let foreign = log.put("a", None, "foreign");
    assert!(foreign.raised && foreign.is_foreign);
    assert_eq!(foreign.rank, Rank { foreign: 3, ..ranked(5) });
    assert_eq!(log.store.unranked(|_| true), ["a"]);
    log.put("a", Some(ranked(5)), "five");
    assert_eq!(log.payload("a").as_deref(), Some("foreign"));
    let rewritten = log.put("a", Some(foreign.rank), "foreign");
    assert!(!rewritten.raised);
    assert!(log.store.unranked(|_| true).is_empty());
    log.put("a", Some(ranked(6)), "six");
    assert_eq!(log.payload("a").as_deref(), Some("six"));
    log.put("a", None, "");
    assert_eq!(log.payload("a"), None, "a foreign tombstone clears");
}

#[test]
fn a_topic_that_moved_to_another_partition_goes_on() {
    let elsewhere = Origin { place: Place { topic: 0, partition: 0 }, offset: 2 };
    let mut log = Log::new(Rules::ALL);
    log.put("a", Some(ranked(5)), "before");
    let best = log.store.get("a").map(Entry::best);
    assert_eq!(Rank::of_found(elsewhere, best), None);
    log.put("a", Some(Rank::of_new(elsewhere, best)), "after");
    assert_eq!(log.payload("a").as_deref(), Some("after"));
    log.put("a", Some(ranked(6)), "late");
    assert_eq!(log.payload("a").as_deref(), Some("after"));
}

/// R6
#[test]
fn a_clear_is_remembered_for_as_long_as_something_older_may_land() {
    for (rules, remembered) in [(Rules::ALL, true), (Rules::without(Rule::R6), false)] {
        let mut log = Log::new(rules);
        log.put("a", Some(ranked(5)), "");
        log.put("b", Some(ranked(1)), "b");
        log.put("a", Some(ranked(3)), "three");
        assert_eq!(log.payload("a").is_none(), remembered);
    }
    let mut log = Log::new(Rules::ALL);
    log.put("a", Some(ranked(5)), "");
    log.end += FORGET_CLEARED_MS / 1_000;
    log.put("b", Some(ranked(6)), "b");
    assert_eq!(log.store.len(), 1);
}

#[test]
fn a_clear_behind_which_something_older_lies_is_not_forgotten() {
    let mut log = Log::new(Rules::ALL);
    log.put("a", Some(ranked(5)), "");
    log.put("a", Some(ranked(3)), "three");
    log.end += FORGET_CLEARED_MS / 1_000;
    log.put("b", Some(ranked(6)), "b");
    assert_eq!(log.store.astray(|_| true), ["a"]);
    assert!(log.store.get("a").is_some());
}

/// [MQTT-4.7.2-1]
#[test]
fn wildcards_do_not_reach_topics_that_begin_with_a_dollar_sign() {
    let mut log = Log::new(Rules::ALL);
    for topic in ["$SYS/a", "$", "a", "a/$b", "%"] {
        log.put(topic, Some(ranked(1)), "x");
    }
    assert_eq!(log.found("#"), ["%", "a", "a/$b"]);
    assert_eq!(log.found("+"), ["%", "a"]);
    assert_eq!(log.found("$SYS/#"), ["$SYS/a"]);
    assert_eq!(log.found("a/+"), ["a/$b"]);
}

#[test]
fn a_filter_looks_only_at_what_it_can_match() {
    let mut log = Log::new(Rules::ALL);
    for n in 0..1_000 {
        log.put(&format!("a/{n}/b"), Some(ranked(1)), "x");
        log.put(&format!("b/{n}/b"), Some(ranked(1)), "x");
    }
    assert_eq!(log.found("a/7/+"), ["a/7/b"]);
    assert_eq!(log.found("b/7/#"), ["b/7/b"]);
    assert_eq!(log.found("c/#"), [""; 0]);
    let (filter, mut looked) = (TopicFilter::parse("b/77/b").unwrap(), 0);
    let mut from = String::new();
    while let Some((key, _)) =
        log.store.topics.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded)).next()
    {
        looked += 1;
        match step(&filter, key) {
            Step::Match => from = format!("{key}\0"),
            Step::Seek(next) => from = next,
            Step::End => break,
        }
    }
    assert!(looked <= 5, "{looked} of 2000 looked at");
}

fn topic() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab$!]{0,2}", 1..4)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("not empty", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop_oneof![Just("+".to_owned()), "[ab$!]{0,2}"];
    (proptest::collection::vec(level, 1..4), any::<bool>()).prop_filter_map("a filter", |(mut levels, all)| {
        if all {
            levels.push("#".to_owned());
        }
        TopicFilter::parse(&levels.join("/")).ok()
    })
}

/// The text of MQTT5 §4.7, level by level.
fn by_the_book(filter: &TopicFilter, topic: &str) -> bool {
    let first = filter.levels().next().unwrap();
    if topic.starts_with('$') && (first == "+" || first == "#") {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.levels() {
        if wanted == "#" {
            return true;
        }
        let Some(level) = levels.next() else { return false };
        if wanted != "+" && wanted != level {
            return false;
        }
    }
    levels.next().is_none()
}

/// A rank, or none of a foreign record, and a payload.
fn records() -> impl Strategy<Value = Vec<(&'static str, Option<Rank>, &'static str)>> {
    let rank = proptest::option::weighted(
        0.8,
        (0..2_u32, origin()).prop_map(|(era, source)| Rank { era, source: Some(source), foreign: 0 }),
    );
    let topic = prop_oneof![Just("a"), Just("b")];
    proptest::collection::vec((topic, rank, prop_oneof![Just(""), Just("x"), Just("y")]), 0..20)
}

proptest! {
    #[test]
    fn a_look_up_finds_what_matches_by_the_book_and_each_once(
        topics in proptest::collection::btree_set(topic(), 0..30),
        filter in filter(),
    ) {
        let mut log = Log::new(Rules::ALL);
        for topic in &topics {
            log.put(topic, Some(ranked(1)), "x");
            prop_assert_eq!(matches(&filter, topic), by_the_book(&filter, topic));
        }
        let mut found = log.found(filter.as_str());
        found.sort();
        let expected: Vec<_> = topics.into_iter().filter(|topic| by_the_book(&filter, topic)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn once_repaired_and_ranked_the_compacted_log_answers_as_the_whole_one(records in records()) {
        let mut whole = Log::new(Rules::ALL);
        let mut last = BTreeMap::new();
        for (topic, rank, payload) in records {
            let applied = whole.put(topic, rank, payload);
            last.insert(topic, (whole.end, rank, payload));
            // What the writer and the keeper do, R3 and the rewrite.
            let entry = whole.store.get(topic).unwrap();
            if applied.is_foreign || !entry.is_settled() {
                let (best, payload) = (entry.best(), whole.payload(topic).unwrap_or_default());
                whole.put(topic, Some(best), &payload);
                let payload = match payload.as_str() { "" => "", "x" => "x", _ => "y" };
                last.insert(topic, (whole.end, Some(best), payload));
            }
        }
        let mut compacted = Log::new(Rules::ALL);
        for (topic, (offset, rank, payload)) in last {
            compacted.end = offset - 1;
            compacted.put(topic, rank, payload);
            prop_assert_eq!(compacted.payload(topic), whole.payload(topic));
            prop_assert_eq!(compacted.store.get(topic).unwrap().best(), whole.store.get(topic).unwrap().best());
        }
    }
}
