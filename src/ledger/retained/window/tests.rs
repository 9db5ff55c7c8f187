use super::*;
use crate::ledger::arbitrary::incarnation;
use crate::ledger::ids::Place;
use crate::ledger::retained::store::Record;
use crate::ledger::retained::store::tests::message;

const HERE: Place = Place { topic: 1, partition: 0 };
const START: i64 = 10;

fn ranked(offset: i64) -> Rank {
    Rank { era: 0, source: Some(Origin { place: HERE, offset }), foreign: 0 }
}

/// A node that reads `mqtt.retained`, and one new subscription.
struct Subscriber {
    store: Store,
    marks: Marks,
    window: Window,
    end: i64,
    got: Vec<String>,
}

impl Subscriber {
    fn new(rules: Rules, stored: &[(&str, i64, &str)]) -> Self {
        let filter = TopicFilter::parse("#").unwrap();
        let window = Window::new(rules, filter, [(HERE, START)].into(), [0]);
        let store = Store::new(Rules::ALL, 1);
        let mut subscriber = Self { store, marks: Marks::default(), window, end: 0, got: Vec::new() };
        for (topic, offset, payload) in stored {
            subscriber.apply(topic, *offset, payload);
        }
        subscriber
    }

    fn apply(&mut self, topic: &str, offset: i64, payload: &str) -> Applied {
        self.end += 1;
        let message = (!payload.is_empty()).then(|| message(topic, payload));
        self.store.apply(Record { offset: self.end, append_ms: 0, topic, rank: Some(ranked(offset)), message })
    }

    fn late(&mut self, topic: &str, offset: i64, payload: &str) {
        let applied = self.apply(topic, offset, payload);
        if self.window.wants_late(0, topic, &applied, !payload.is_empty()) {
            self.got.push(format!("{topic}={payload}"));
        }
    }

    fn live(&mut self, topic: &str, offset: i64) {
        self.window.on_sent(topic, Origin { place: HERE, offset });
    }

    fn walk(&mut self) -> &mut Self {
        while self.walk_one() {}
        self
    }

    fn walk_one(&mut self) -> bool {
        let Some((cursor, entry)) = self.window.next(&self.store) else { return false };
        let message = entry.message().unwrap();
        self.got.push(format!("{}={}", message.topic(), String::from_utf8_lossy(message.payload())));
        self.window.walked(cursor);
        true
    }

    fn mark(&mut self, offset: i64) {
        self.marks.apply(0, incarnation(1), Some(vec![(HERE, offset)]));
        self.window.on_marks(&self.marks, incarnation(1), 0);
    }
}

/// R5b
#[test]
fn the_snapshot_has_what_is_before_the_start_and_is_no_clear() {
    let stored = [("a", 3, "old"), ("b", START, "comes live"), ("c", 4, "")];
    let mut subscriber = Subscriber::new(Rules::ALL, &stored);
    assert_eq!(subscriber.walk().got, ["a=old"]);
    let mut subscriber = Subscriber::new(Rules::without(Rule::R5), &stored);
    assert_eq!(subscriber.walk().got, ["a=old", "b=comes live"], "without the rule it comes twice");
}

/// R5c
#[test]
fn what_is_recorded_late_is_sent_until_the_marks_have_passed_the_start() {
    for (rules, late) in [(Rules::ALL, true), (Rules::without(Rule::R5), false)] {
        let mut subscriber = Subscriber::new(rules, &[]);
        subscriber.walk();
        subscriber.late("a", 9, "nine");
        assert_eq!(!subscriber.got.is_empty(), late);
    }
    let mut subscriber = Subscriber::new(Rules::ALL, &[]);
    subscriber.walk().mark(START - 1);
    subscriber.late("a", 8, "eight");
    subscriber.late("a", 8, "eight");
    subscriber.late("a", START, "comes live");
    assert!(!subscriber.window.is_over());
    subscriber.mark(START);
    assert!(subscriber.window.is_over());
    subscriber.late("b", 9, "nine");
    assert_eq!(subscriber.got, ["a=eight"]);
}

#[test]
fn nothing_older_follows_what_was_sent_live() {
    let mut subscriber = Subscriber::new(Rules::ALL, &[("stored", 1, "x")]);
    subscriber.live("late", START);
    subscriber.live("stored", START + 1);
    subscriber.live("before", START - 1);
    assert!(subscriber.walk().got.is_empty());
    subscriber.late("late", 5, "x");
    subscriber.late("before", 6, "x");
    assert_eq!(subscriber.got, ["before=x"]);
}

/// R5d
#[test]
fn a_late_clear_is_sent_to_who_was_sent_a_payload() {
    let mut subscriber = Subscriber::new(Rules::ALL, &[("a", 3, "old")]);
    subscriber.walk();
    subscriber.late("a", 5, "");
    subscriber.late("b", 6, "");
    subscriber.late("a", 7, "");
    assert_eq!(subscriber.got, ["a=old", "a="]);
}

#[test]
fn what_the_walk_has_yet_to_reach_is_not_sent_twice() {
    let mut subscriber = Subscriber::new(Rules::ALL, &[("a", 1, "one"), ("c", 1, "one")]);
    assert!(subscriber.walk_one());
    subscriber.late("b", 2, "two");
    subscriber.late("a", 3, "three");
    subscriber.walk();
    assert_eq!(subscriber.got, ["a=one", "a=three", "b=two", "c=one"]);
}

#[test]
fn a_window_closes_in_the_end_and_says_so() {
    let mut subscriber = Subscriber::new(Rules::ALL, &[]);
    subscriber.walk();
    assert_eq!((0..100).filter(|_| subscriber.window.on_tick()).count(), 1);
    assert!(subscriber.window.is_over());
}

#[test]
fn too_many_live_topics_end_the_late_ones_and_cost_no_more_memory() {
    let mut subscriber = Subscriber::new(Rules::ALL, &[]);
    subscriber.walk();
    (0..TOPICS_MAX + 10).for_each(|n| subscriber.live(&n.to_string(), START));
    assert_eq!(subscriber.window.sent.len(), TOPICS_MAX + 1);
    subscriber.late("a", 5, "x");
    assert!(subscriber.got.is_empty());
}
