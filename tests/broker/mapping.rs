//! Which kafka topic a publish goes to, and which ones a node reads.

use std::collections::BTreeSet;

use millrace::mqtt::packet::QoS;

use crate::fixture::{Place, TestNode};
use crate::packets::{V5, V311};
use crate::raw::RawClient;
use crate::the_log::record;

on_both_journals![
    the_first_rule_that_matches_decides_and_the_rest_goes_to_the_default,
    a_node_reads_only_what_its_subscribers_can_touch,
    a_node_without_subscribers_reads_nothing,
    an_exact_filter_reads_one_partition,
    a_key_template_is_read_back,
    a_record_in_a_kafka_topic_that_is_not_its_own_is_not_delivered,
];

const READ: &str = "millrace_tail_records_read_total";
const TOPICS: [&str; 4] = ["cars/speed/1", "cars/location/1", "cars/speed/1/2", "trains/speed/1"];

/// `cars/speed/+` → kafkaTopic1, `cars/#` → kafkaTopic2, the rest → the default.
fn start(place: &Place) -> TestNode {
    let (first, second) = (place.kafka_topic("kafkaTopic1"), place.kafka_topic("kafkaTopic2"));
    let rules = format!(
        "[{{filter=\"cars/speed/+\", kafka_topic=\"{first}\"}}, {{filter=\"cars/#\", kafka_topic=\"{second}\"}}]"
    );
    place.start_with(&[("mapping.rules", &rules)])
}

fn publish_all(node: &TestNode) {
    let mut publisher = RawClient::connected(node, V5, "publisher");
    for topic in TOPICS {
        publisher.publish(topic, "x");
    }
}

fn the_first_rule_that_matches_decides_and_the_rest_goes_to_the_default(place: &Place) {
    let node = start(place);
    publish_all(&node);
    let keys = |kafka_topic: &str| -> Vec<String> {
        place.read(kafka_topic).into_iter().filter_map(|record| record.key).collect()
    };
    assert_eq!(keys(&place.kafka_topic("kafkaTopic1")), ["cars/speed/1"]);
    assert_eq!(keys(&place.kafka_topic("kafkaTopic2")), ["cars/location/1", "cars/speed/1/2"]);
    assert_eq!(keys(&place.default_topic()), ["trains/speed/1"]);
}

/// What was read is counted record by record: a kafka topic that is read without need would show.
fn a_node_reads_only_what_its_subscribers_can_touch(place: &Place) {
    const ROUNDS: u32 = 20;
    // Each filter with what it brings, and with how many of the four records lie in the kafka topics that it touches.
    let cases: [(&str, &[&str], u32); 7] = [
        ("cars/speed/+", &["cars/speed/1"], 1),
        ("cars/#", &["cars/speed/1", "cars/location/1", "cars/speed/1/2"], 3),
        ("trains/#", &["trains/speed/1"], 1),
        ("cars/location/+", &["cars/location/1"], 2),
        ("cars/speed/+/+", &["cars/speed/1/2"], 2),
        ("+/speed/1", &["cars/speed/1", "trains/speed/1"], 2),
        ("#", &TOPICS, 4),
    ];
    for (filter, brings, read) in cases {
        let node = start(place);
        let mut subscriber = RawClient::subscribed(&node, V5, filter, QoS::AtLeastOnce);
        for _ in 0..ROUNDS {
            publish_all(&node);
            let got: BTreeSet<String> = brings.iter().map(|_| subscriber.expect_message().topic).collect();
            assert!(got.iter().eq(brings.iter().collect::<BTreeSet<_>>()), "{filter} brought {got:?}");
        }
        node.wait_for_metric(READ, f64::from(ROUNDS * read));
        publish_all(&node);
        for _ in brings {
            subscriber.expect_message();
        }
        node.wait_for_metric(READ, f64::from((ROUNDS + 1) * read));
    }
}

fn a_node_without_subscribers_reads_nothing(place: &Place) {
    let node = start(place);
    publish_all(&node);
    let mut subscriber = RawClient::subscribed(&node, V311, "cars/#", QoS::AtLeastOnce);
    subscriber.unsubscribe(&["cars/#"]);
    (0..10).for_each(|_| publish_all(&node));
    // A subscriber that left without a word.
    RawClient::subscribed(&node, V311, "cars/#", QoS::AtLeastOnce).break_off();
    node.wait_for_metric("millrace_subscriptions", 0.0);
    (0..10).for_each(|_| publish_all(&node));
    subscriber.subscribe("trains/#", QoS::AtLeastOnce);
    RawClient::connected(&node, V311, "publisher").publish("trains/1", "x");
    subscriber.expect_text("trains/1", "x");
    node.wait_for_metric(READ, 1.0);
}

/// One key lies in one partition.
fn an_exact_filter_reads_one_partition(place: &Place) {
    let node = place.start_with(&[("topics.messages.partitions", "4")]);
    let home = millrace::route::partition::partition_of(b"a/b", 4);
    let mut subscriber = RawClient::subscribed(&node, V5, "a/b", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let mut at_home = 0;
    for number in 0..40 {
        let topic = format!("t/{number}");
        publisher.publish(&topic, "x");
        at_home += u32::from(millrace::route::partition::partition_of(topic.as_bytes(), 4) == home);
        publisher.publish("a/b", "x");
        subscriber.expect_text("a/b", "x");
    }
    assert!((1..40).contains(&at_home));
    node.wait_for_metric(READ, f64::from(40 + at_home));
}

/// Both ways, and from programs that know only the key.
fn a_key_template_is_read_back(place: &Place) {
    let kafka_topic = place.kafka_topic("speed");
    let rules = format!("[{{filter=\"cars/{{vin}}/speed\", kafka_topic=\"{kafka_topic}\", key=\"{{vin}}\"}}]");
    let node = place.start_with(&[("mapping.rules", &rules)]);
    let mut exact = RawClient::subscribed(&node, V5, "cars/W1/speed", QoS::AtLeastOnce);
    let mut wild = RawClient::subscribed(&node, V311, "cars/+/speed", QoS::AtLeastOnce);
    RawClient::connected(&node, V5, "publisher").publish("cars/W1/speed", "80");
    place.write(&kafka_topic, &[record("W1", "90"), record("W1/2", "no topic"), record("W2", "50")]);
    for (subscriber, topics) in [(&mut exact, 2), (&mut wild, 3)] {
        let expected = [("cars/W1/speed", "80"), ("cars/W1/speed", "90"), ("cars/W2/speed", "50")];
        expected[..topics].iter().for_each(|(topic, text)| drop(subscriber.expect_text(topic, text)));
    }
    let keys: Vec<_> = place.read(&kafka_topic).into_iter().filter_map(|record| record.key).collect();
    assert_eq!(keys, ["W1", "W1", "W1/2", "W2"]);
}

/// Else it would be delivered or not by what others subscribe to.
fn a_record_in_a_kafka_topic_that_is_not_its_own_is_not_delivered(place: &Place) {
    let node = start(place);
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    place.write(&place.kafka_topic("kafkaTopic2"), &[record("trains/1", "stray"), record("cars/speed/1", "stray")]);
    place.write(&place.kafka_topic("kafkaTopic2"), &[record("cars/doors", "marker")]);
    subscriber.expect_text("cars/doors", "marker");
}
