//! Retained messages (MQTT5 §3.3.1.3): set, replaced, cleared, looked up, on every node, and written by Kafka programs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use millrace::mqtt::packet::{ProtocolVersion, Publish, QoS, RetainHandling, SubscribeOptions};
use millrace::mqtt::properties::UserProperties;

use crate::fixture::{Place, TestNode};
use crate::packets::{ALL_VERSIONS, V5, V311, options, publish};
use crate::raw::RawClient;
use crate::the_log::{ForeignRecord, record};

on_both_journals![
    a_new_subscriber_gets_what_is_retained_with_the_flag,
    the_newest_one_counts,
    an_empty_payload_clears,
    what_has_no_retain_flag_changes_nothing,
    a_subscriber_that_was_there_gets_it_as_a_message,
    a_filter_brings_every_topic_that_matches,
    wildcards_do_not_reach_topics_under_dollar,
    retain_handling_says_when,
    a_subscription_that_is_replaced_gets_it_again,
    the_lower_qos_counts,
    properties_come_along_and_the_expiry_is_counted_down,
    what_has_expired_is_not_handed_out,
    no_local_keeps_a_clients_own_away,
    each_subscription_gets_its_own_with_its_id,
    every_node_has_it,
    a_node_that_starts_has_it,
    more_than_a_mailbox_holds_comes_complete,
    what_a_kafka_program_writes_is_retained,
    what_a_kafka_program_clears_is_cleared,
    a_retain_header_in_a_message_topic_retains_nothing,
    a_new_subscriber_misses_nothing_and_gets_nothing_twice_while_others_publish,
];

/// A topic that shows what came before it.
const END: &str = "end";

/// Publishes with the retain flag and waits for the PUBACK.
#[track_caller]
fn retain(publisher: &mut RawClient, topic: &str, payload: &str) {
    publisher.publish_with(&Publish { retain: true, ..publish(topic, payload.as_bytes()) });
}

/// Everything that was published to be retained before, by whomever on `from`, is in force on `on`: its record is before
/// that of a message retained now.
#[track_caller]
fn settle(from: &TestNode, on: &TestNode) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let topic = format!("settled/{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut client = RawClient::connected(from, V311, &topic);
    retain(&mut client, &topic, "here");
    let mut reader = RawClient::subscribed(on, V311, &topic, QoS::AtMostOnce);
    assert!(reader.expect_text(&topic, "here").retain);
    // It is not to be found by other tests' wildcards.
    retain(&mut client, &topic, "");
}

/// All that a new subscription brings; none of it below `settled`.
#[track_caller]
fn found(node: &TestNode, version: ProtocolVersion, filter: &str) -> Vec<(String, String)> {
    let mut client = RawClient::subscribed(node, version, END, QoS::AtMostOnce);
    client.subscribe(filter, QoS::AtMostOnce);
    all_of(&mut client)
}

/// What a client was sent until now that has subscribed to [`END`]: a snapshot is handed over at once, before what is
/// published after SUBACK.
#[track_caller]
fn all_of(client: &mut RawClient) -> Vec<(String, String)> {
    let mut found = Vec::new();
    client.publish_unanswered(END, "");
    loop {
        let message = client.expect_message();
        if message.topic == END {
            return found;
        }
        if !message.topic.starts_with("settled/") {
            assert!(message.retain, "{message:?}");
            found.push((message.topic.clone(), message.text().to_owned()));
        }
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(topic, payload)| (topic.to_owned(), payload.to_owned())).collect()
}

/// [MQTT-3.3.1-5, 3.3.1-8, 3.3.1-9]
fn a_new_subscriber_gets_what_is_retained_with_the_flag(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        retain(&mut publisher, "a/b", "kept");
        publisher.publish("a/c", "not kept");
        let mut subscriber = RawClient::subscribed(&node, version, END, QoS::AtLeastOnce);
        subscriber.subscribe("a/#", QoS::AtLeastOnce);
        let message = subscriber.expect_text("a/b", "kept");
        assert_eq!((message.retain, message.qos(), message.dup), (true, QoS::AtLeastOnce, false));
        assert_eq!(all_of(&mut subscriber), []);
    }
}

fn the_newest_one_counts(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    for payload in ["one", "two", "three"] {
        retain(&mut publisher, "a", payload);
    }
    settle(&node, &node);
    assert_eq!(found(&node, V311, "a"), pairs(&[("a", "three")]));
}

/// [MQTT-3.3.1-6, 3.3.1-7]
fn an_empty_payload_clears(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    retain(&mut publisher, "a", "kept");
    retain(&mut publisher, "b", "kept");
    settle(&node, &node);
    let mut subscriber = RawClient::subscribed(&node, V311, "a", QoS::AtLeastOnce);
    subscriber.expect_text("a", "kept");
    retain(&mut publisher, "a", "");
    // To who is there it comes as a message without the flag.
    assert!(!subscriber.expect_text("a", "").retain);
    settle(&node, &node);
    assert_eq!(found(&node, V311, "+"), pairs(&[("b", "kept")]));
    retain(&mut publisher, "a", "again");
    settle(&node, &node);
    assert_eq!(found(&node, V311, "+"), pairs(&[("a", "again"), ("b", "kept")]));
}

/// [MQTT-3.3.1-8]
fn what_has_no_retain_flag_changes_nothing(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    retain(&mut publisher, "a", "kept");
    publisher.publish("a", "passing");
    publisher.publish("a", "");
    settle(&node, &node);
    assert_eq!(found(&node, V311, "a"), pairs(&[("a", "kept")]));
}

/// [MQTT-3.3.1-12, 3.3.1-13]
fn a_subscriber_that_was_there_gets_it_as_a_message(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    let mut plain = RawClient::subscribed(&node, V5, END, QoS::AtLeastOnce);
    plain.subscribe("a", QoS::AtLeastOnce);
    let mut faithful = RawClient::subscribed(&node, V5, END, QoS::AtLeastOnce);
    let as_published = SubscribeOptions { retain_as_published: true, ..options(QoS::AtLeastOnce) };
    faithful.subscribe_to(None, "a", as_published);
    retain(&mut publisher, "a", "kept");
    assert!(!plain.expect_text("a", "kept").retain);
    assert!(faithful.expect_text("a", "kept").retain);
    settle(&node, &node);
    assert_eq!((all_of(&mut plain), all_of(&mut faithful)), (vec![], vec![]));
}

fn a_filter_brings_every_topic_that_matches(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    for topic in ["a", "a/b", "a/b/c", "a!", "a/!", "b/b", "/b"] {
        retain(&mut publisher, topic, "x");
    }
    settle(&node, &node);
    for (filter, topics) in [
        ("a", &["a"][..]),
        ("a/#", &["a", "a/!", "a/b", "a/b/c"]),
        ("a/+", &["a/!", "a/b"]),
        ("+/b", &["/b", "a/b", "b/b"]),
        ("+/b/#", &["/b", "a/b", "a/b/c", "b/b"]),
        ("+/+/c", &["a/b/c"]),
        ("c/#", &[]),
    ] {
        let found: Vec<String> = found(&node, V311, filter).into_iter().map(|(topic, _)| topic).collect();
        assert_eq!(found, topics, "{filter}");
    }
}

/// [MQTT-4.7.2-1]
fn wildcards_do_not_reach_topics_under_dollar(place: &Place) {
    let node = place.start();
    place.write(&place.kafka_topic("retained"), &[record("$own/a", "x"), record("a", "y")]);
    settle(&node, &node);
    assert_eq!(found(&node, V311, "#"), pairs(&[("a", "y")]));
    assert_eq!(found(&node, V311, "+/a"), []);
    assert_eq!(found(&node, V311, "$own/#"), pairs(&[("$own/a", "x")]));
}

/// MQTT5 §3.8.3.1: [MQTT-3.3.1-9, 3.3.1-10, 3.3.1-11]
fn retain_handling_says_when(place: &Place) {
    let node = place.start();
    retain(&mut RawClient::connected(&node, V311, "publisher"), "a", "kept");
    settle(&node, &node);
    let mut client = RawClient::subscribed(&node, V5, END, QoS::AtLeastOnce);
    let kept = || pairs(&[("a", "kept")]);
    for (retain_handling, expected) in [
        (RetainHandling::Never, vec![]),
        (RetainHandling::IfNew, vec![]),
        (RetainHandling::Always, kept()),
        (RetainHandling::Always, kept()),
    ] {
        client.subscribe_to(None, "a", SubscribeOptions { retain_handling, ..options(QoS::AtLeastOnce) });
        assert_eq!(all_of(&mut client), expected, "{retain_handling:?}");
    }
    client.unsubscribe(&["a"]);
    let if_new = SubscribeOptions { retain_handling: RetainHandling::IfNew, ..options(QoS::AtLeastOnce) };
    client.subscribe_to(None, "a", if_new);
    assert_eq!(all_of(&mut client), kept());
}

/// [MQTT-3.8.4-3]: also after it came as a message, and what is published next is not lost.
fn a_subscription_that_is_replaced_gets_it_again(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    let mut client = RawClient::subscribed(&node, V311, "a", QoS::AtLeastOnce);
    retain(&mut publisher, "a", "kept");
    client.expect_text("a", "kept");
    settle(&node, &node);
    client.subscribe("a", QoS::AtMostOnce);
    let again = client.expect_text("a", "kept");
    assert_eq!((again.retain, again.qos()), (true, QoS::AtMostOnce));
    retain(&mut publisher, "a", "next");
    assert!(!client.expect_text("a", "next").retain);
}

/// [MQTT-3.8.4-8]
fn the_lower_qos_counts(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    publisher.send_publish(&Publish { retain: true, ..publish("zero", b"x") });
    retain(&mut publisher, "one", "x");
    settle(&node, &node);
    for (topic, granted, expected) in [
        ("zero", QoS::AtLeastOnce, QoS::AtMostOnce),
        ("one", QoS::AtMostOnce, QoS::AtMostOnce),
        ("one", QoS::AtLeastOnce, QoS::AtLeastOnce),
    ] {
        let mut subscriber = RawClient::subscribed(&node, V311, topic, granted);
        assert_eq!(subscriber.expect_text(topic, "x").qos(), expected);
    }
}

/// [MQTT-3.3.2-4, 3.3.2-6, 3.3.2-15 to 3.3.2-20]
fn properties_come_along_and_the_expiry_is_counted_down(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let mut message = Publish { retain: true, ..publish("a", b"text") };
    message.properties.payload_is_utf8 = Some(true);
    message.properties.message_expiry_s = Some(1_000);
    message.properties.content_type = Some("text/plain");
    message.properties.response_topic = Some("answers");
    message.properties.correlation_data = Some(b"17");
    message.properties.user_properties = UserProperties::Pairs(&[("mqtt-rank", "mine"), ("b", "2"), ("b", "1")]);
    publisher.publish_with(&message);
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let message = subscriber.expect_text("a", "text");
    assert_eq!(message.payload_is_utf8, Some(true));
    assert!(message.expiry_s.is_some_and(|left| (1..=1_000).contains(&left)), "{:?}", message.expiry_s);
    assert_eq!(message.content_type.as_deref(), Some("text/plain"));
    assert_eq!(message.response_topic.as_deref(), Some("answers"));
    assert_eq!(message.correlation_data.as_deref(), Some(&b"17"[..]));
    let properties = [("mqtt-rank", "mine"), ("b", "2"), ("b", "1")];
    assert_eq!(message.user_properties, properties.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// [MQTT-3.3.2-5]
fn what_has_expired_is_not_handed_out(place: &Place) {
    let node = place.start();
    let header = |at: i64| vec![("mqtt-expires-at", at.to_string().into_bytes())];
    let long_ago = ForeignRecord { headers: header(1), ..record("a/old", "x") };
    let in_time = ForeignRecord { headers: header(i64::MAX / 2), ..record("a/new", "x") };
    place.write(&place.kafka_topic("retained"), &[long_ago, in_time]);
    settle(&node, &node);
    assert_eq!(found(&node, V5, "a/#"), pairs(&[("a/new", "x")]));
}

/// [MQTT-3.8.3-3]
fn no_local_keeps_a_clients_own_away(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "self");
    retain(&mut client, "a/mine", "x");
    retain(&mut RawClient::connected(&node, V5, "other"), "a/theirs", "x");
    settle(&node, &node);
    client.subscribe_to(None, "a/#", SubscribeOptions { no_local: true, ..options(QoS::AtLeastOnce) });
    client.expect_text("a/theirs", "x");
    client.expect_nothing_before_pingresp();
}

/// [MQTT-3.3.4-3, 3.3.4-4]
fn each_subscription_gets_its_own_with_its_id(place: &Place) {
    let node = place.start();
    retain(&mut RawClient::connected(&node, V311, "publisher"), "a", "x");
    settle(&node, &node);
    let mut client = RawClient::connected(&node, V5, "client");
    client.subscribe_to(Some(7), "a", options(QoS::AtLeastOnce));
    assert_eq!(client.expect_text("a", "x").subscription_ids, [7]);
    client.subscribe_to(Some(8), "+", options(QoS::AtLeastOnce));
    assert_eq!(client.expect_text("a", "x").subscription_ids, [8]);
}

fn every_node_has_it(place: &Place) {
    let (one, other) = (place.start(), place.start());
    let mut publisher = RawClient::connected(&one, V311, "publisher");
    retain(&mut publisher, "a", "from one");
    settle(&one, &other);
    assert_eq!(found(&other, V311, "a"), pairs(&[("a", "from one")]));
    retain(&mut RawClient::connected(&other, V311, "publisher too"), "a", "from the other");
    settle(&other, &one);
    assert_eq!(found(&one, V311, "a"), pairs(&[("a", "from the other")]));
    retain(&mut publisher, "a", "");
    settle(&one, &other);
    assert_eq!(found(&other, V311, "a"), []);
}

fn a_node_that_starts_has_it(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    retain(&mut publisher, "a", "kept");
    retain(&mut publisher, "b", "kept");
    retain(&mut publisher, "b", "");
    settle(&node, &node);
    drop(node);
    let node = place.start();
    assert_eq!(found(&node, V311, "#"), pairs(&[("a", "kept")]));
}

fn more_than_a_mailbox_holds_comes_complete(place: &Place) {
    const TOPICS: u32 = 300;
    let node = place.start_with(&[("limits.queue_packets_max", "10")]);
    let records: Vec<_> = (0..TOPICS).map(|n| record(&format!("many/{n:03}"), "x")).collect();
    place.write(&place.kafka_topic("retained"), &records);
    settle(&node, &node);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut subscriber = RawClient::subscribed(&node, V311, "many/#", qos);
        for n in 0..TOPICS {
            assert_eq!(subscriber.expect_text(&format!("many/{n:03}"), "x").qos(), qos);
        }
    }
}

fn what_a_kafka_program_writes_is_retained(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    retain(&mut publisher, "a", "from mqtt");
    settle(&node, &node);
    let theirs = ForeignRecord { headers: vec![("color", b"red".to_vec())], ..record("a", "from kafka") };
    place.write(&place.kafka_topic("retained"), &[theirs]);
    settle(&node, &node);
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let message = subscriber.expect_text("a", "from kafka");
    assert_eq!((message.retain, message.qos()), (true, QoS::AtLeastOnce));
    assert_eq!(message.user_properties, [("color".to_owned(), "red".to_owned())]);
    // It is written again with its rank, so that compaction keeps that, too.
    let stored = place.read(&place.kafka_topic("retained"));
    let last = stored.iter().rev().find(|stored| stored.key.as_deref() == Some("a")).unwrap();
    assert_eq!(last.value.as_deref(), Some(&b"from kafka"[..]));
    assert!(last.headers.contains_key("mqtt-rank") && last.headers.contains_key("mqtt-source"), "{last:?}");
    retain(&mut publisher, "a", "mqtt again");
    settle(&node, &node);
    assert_eq!(found(&node, V311, "a"), pairs(&[("a", "mqtt again")]));
}

fn what_a_kafka_program_clears_is_cleared(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    for topic in ["a", "b", "c"] {
        retain(&mut publisher, topic, "kept");
    }
    settle(&node, &node);
    let tombstone = ForeignRecord { key: Some(b"a".to_vec()), ..ForeignRecord::default() };
    place.write(&place.kafka_topic("retained"), &[tombstone, record("b", "")]);
    settle(&node, &node);
    assert_eq!(found(&node, V311, "+"), pairs(&[("c", "kept")]));
    drop(node);
    let node = place.start();
    assert_eq!(found(&node, V311, "+"), pairs(&[("c", "kept")]));
}

fn a_retain_header_in_a_message_topic_retains_nothing(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V311, "a", QoS::AtLeastOnce);
    let flagged = ForeignRecord { headers: vec![("mqtt-retain", b"1".to_vec())], ..record("a", "x") };
    place.write(&place.default_topic(), &[flagged]);
    subscriber.expect_text("a", "x");
    settle(&node, &node);
    assert_eq!(found(&node, V311, "a"), []);
}

/// R5 on a whole node: of each topic the numbers rise, and the last one is there.
fn a_new_subscriber_misses_nothing_and_gets_nothing_twice_while_others_publish(place: &Place) {
    const TOPICS: u32 = 5;
    const ROUNDS: u32 = 30;
    let node = place.start();
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut publisher = RawClient::connected(&node, V311, "publisher");
            for round in 1..=ROUNDS {
                for topic in 0..TOPICS {
                    retain(&mut publisher, &format!("t/{topic}"), &round.to_string());
                }
            }
        });
        let watching: Vec<_> = (0..4)
            .map(|n| {
                let node = &node;
                scope.spawn(move || {
                    for again in 0..4 {
                        let mut watcher = RawClient::connected(node, V311, &format!("watcher-{n}-{again}"));
                        watcher.subscribe("t/#", QoS::AtLeastOnce);
                        watch(&mut watcher, TOPICS, ROUNDS / 4 * (again + 1));
                    }
                })
            })
            .collect();
        publishing.join().unwrap();
        for watching in watching {
            watching.join().unwrap();
        }
    });
}

/// Until each topic has come to `round`.
fn watch(watcher: &mut RawClient, topics: u32, round: u32) {
    let mut last = vec![0_u32; topics as usize];
    let mut waits_for: BTreeSet<usize> = (0..last.len()).collect();
    while !waits_for.is_empty() {
        let message = watcher.expect_message();
        let topic: usize = message.topic.strip_prefix("t/").unwrap().parse().unwrap();
        let number: u32 = message.text().parse().unwrap();
        let before = std::mem::replace(&mut last[topic], number);
        let follows = if message.retain || before == 0 { number > before } else { number == before + 1 };
        assert!(follows, "t/{topic}: {number} after {before}, retained: {}", message.retain);
        if number >= round {
            waits_for.remove(&topic);
        }
    }
}
