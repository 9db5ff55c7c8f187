//! Records that other programs write, and how they reach MQTT clients (`docs/records.md`).

use millrace::mqtt::packet::QoS;
use millrace::route::partition::partition_of;

use crate::fixture::Place;
use crate::packets::{V5, V311, V311_AND_V5};
use crate::raw::RawClient;
use crate::the_log::{ForeignRecord, record};

on_both_journals![
    a_publish_is_one_plain_record,
    a_plain_record_is_delivered_at_the_granted_qos,
    foreign_headers_become_user_properties,
    headers_of_ours_may_be_written_by_others,
    headers_that_mean_nothing_are_left_out_and_counted,
    a_tombstone_changes_nothing,
    an_empty_value_is_an_empty_payload,
    a_record_without_a_topic_for_a_key_is_not_delivered,
    a_fence_is_not_delivered,
    an_aborted_transaction_is_not_delivered,
    a_committed_transaction_is_delivered,
    records_of_others_and_of_clients_keep_one_order,
    a_record_in_a_wrong_partition_reaches_exact_subscribers_once_it_is_known,
    two_nodes_see_each_others_messages,
];

/// The value is the payload, the key is the topic, and no header is more than it must be.
fn a_publish_is_one_plain_record(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        RawClient::connected(&node, version, "sensor-7").publish("house/kitchen", "21.5");
    }
    let records = place.read(&place.default_topic());
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some("house/kitchen"), Some(&b"21.5"[..])));
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        assert_eq!(headers, [("mqtt-publisher", &b"sensor-7"[..]), ("mqtt-qos", b"1")]);
    }
}

fn a_plain_record_is_delivered_at_the_granted_qos(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        for granted in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut subscriber = RawClient::subscribed(&node, version, "plain/+", granted);
            place.write(&place.default_topic(), &[record("plain/1", "value")]);
            let message = subscriber.expect_text("plain/1", "value");
            assert_eq!((message.qos(), message.retain, message.dup), (granted, false, false));
            assert_eq!(message.user_properties, []);
        }
    }
}

fn foreign_headers_become_user_properties(place: &Place) {
    let node = place.start();
    let mut new = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut old = RawClient::subscribed(&node, V311, "a", QoS::AtLeastOnce);
    let headers = vec![("Traceparent", b"00-1".to_vec()), ("empty", vec![]), ("unit", "°C".into())];
    place.write(&place.default_topic(), &[ForeignRecord { headers, ..record("a", "x") }]);
    let properties = new.expect_text("a", "x").user_properties;
    let wanted = [("Traceparent", "00-1"), ("empty", ""), ("unit", "°C")];
    assert_eq!(properties, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    old.expect_text("a", "x");
}

fn headers_of_ours_may_be_written_by_others(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let headers = vec![
        ("mqtt-content-type", b"text/plain".to_vec()),
        ("mqtt-correlation-data", vec![0, 0xFF]),
        ("mqtt-payload-format", b"1".to_vec()),
        ("mqtt-qos", b"0".to_vec()),
        ("mqtt-response-topic", b"answers".to_vec()),
        ("mqtt-user-mqtt-x", b"y".to_vec()),
    ];
    place.write(&place.default_topic(), &[ForeignRecord { headers, ..record("a", "x") }]);
    let message = subscriber.expect_text("a", "x");
    assert_eq!(message.qos(), QoS::AtMostOnce);
    assert_eq!(message.content_type.as_deref(), Some("text/plain"));
    assert_eq!(message.correlation_data.as_deref(), Some(&[0, 0xFF][..]));
    assert_eq!(message.payload_is_utf8, Some(true));
    assert_eq!(message.response_topic.as_deref(), Some("answers"));
    assert_eq!(message.user_properties, [("mqtt-x".to_owned(), "y".to_owned())]);
}

/// The rest of the message is delivered.
fn headers_that_mean_nothing_are_left_out_and_counted(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let headers = vec![
        ("binary", vec![0xFF, 0xFE]),
        ("fine", b"yes".to_vec()),
        ("long", vec![b'x'; 65_536]),
        ("mqtt-expires-at", b"soon".to_vec()),
        ("mqtt-payload-format", b"2".to_vec()),
        ("mqtt-qos", b"3".to_vec()),
        ("mqtt-response-topic", b"a/#".to_vec()),
        ("mqtt-unknown-to-us", b"x".to_vec()),
        ("null-character", vec![b'a', 0]),
    ];
    place.write(&place.default_topic(), &[ForeignRecord { headers, ..record("a", "x") }]);
    let message = subscriber.expect_text("a", "x");
    assert_eq!(message.user_properties, [("fine".to_owned(), "yes".to_owned())]);
    assert_eq!((message.qos(), message.expiry_s), (QoS::AtLeastOnce, None));
    assert_eq!((message.payload_is_utf8, message.response_topic), (None, None));
    assert!(node.metric("millrace_record_headers_ignored_total") >= 7.0);
}

fn a_tombstone_changes_nothing(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    let tombstone = ForeignRecord { value: None, ..record("a", "") };
    place.write(&place.default_topic(), &[record("a", "1"), tombstone, record("a", "2")]);
    subscriber.expect_text("a", "1");
    subscriber.expect_text("a", "2");
}

fn an_empty_value_is_an_empty_payload(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V311, "a", QoS::AtLeastOnce);
    place.write(&place.default_topic(), &[record("a", "")]);
    subscriber.expect_text("a", "");
}

/// No key, not UTF-8, not a topic: nobody's message, and no harm.
fn a_record_without_a_topic_for_a_key_is_not_delivered(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    let keys = [None, Some(vec![]), Some(vec![0xFF, 0xFE]), Some(b"a/+".to_vec()), Some(b"#".to_vec()), Some(vec![0])];
    let odd = keys.map(|key| ForeignRecord { key, ..record("", "odd") });
    place.write_to(&place.default_topic(), 0, &odd);
    place.write_to(&place.default_topic(), 0, &[record("a", "marker")]);
    subscriber.expect_text("a", "marker");
}

/// `mqtt-fence` is a mark between nodes.
fn a_fence_is_not_delivered(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    let fence = ForeignRecord { headers: vec![("mqtt-fence", vec![])], ..record("a", "fence") };
    place.write(&place.default_topic(), &[fence, record("a", "marker")]);
    subscriber.expect_text("a", "marker");
}

fn an_aborted_transaction_is_not_delivered(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    place.write_transaction(&place.default_topic(), false);
    RawClient::connected(&node, V5, "publisher").publish("txn/0", "marker");
    subscriber.expect_text("txn/0", "marker");
}

fn a_committed_transaction_is_delivered(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "txn/+", QoS::AtLeastOnce);
    place.write_transaction(&place.default_topic(), true);
    for number in 0..10 {
        let message = subscriber.expect_message();
        assert_eq!(message.topic, format!("txn/{number}"));
        assert!(message.text().starts_with(&format!("commit {number} ")), "{}", message.text());
    }
}

/// The partition's.
fn records_of_others_and_of_clients_keep_one_order(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for number in 0..10 {
        place.write(&place.default_topic(), &[record("a", &format!("foreign {number}"))]);
        publisher.publish("a", format!("client {number}"));
    }
    for number in 0..10 {
        subscriber.expect_text("a", &format!("foreign {number}"));
        subscriber.expect_text("a", &format!("client {number}"));
    }
}

/// An exact filter reads one partition until a record in another one shows that somebody partitions differently.
fn a_record_in_a_wrong_partition_reaches_exact_subscribers_once_it_is_known(place: &Place) {
    const PARTITIONS: u32 = 4;
    let node = place.start_with(&[("topics.messages.partitions", "4")]);
    let kafka_topic = place.default_topic();
    let home = partition_of(b"exact", PARTITIONS);
    let [watched, unwatched] = [1, 2].map(|distance| (home + distance) % PARTITIONS);
    let neighbour =
        (0..1_000).map(|n| format!("n/{n}")).find(|topic| partition_of(topic.as_bytes(), PARTITIONS) == watched);
    let mut exact = RawClient::subscribed(&node, V5, "exact", QoS::AtLeastOnce);
    let mut other = RawClient::subscribed(&node, V5, &neighbour.unwrap(), QoS::AtLeastOnce);
    assert!(node.metric("millrace_foreign_partitioner_total") < 1.0);

    place.write_to(&kafka_topic, watched, &[record("exact", "found by chance")]);
    exact.expect_text("exact", "found by chance");
    node.wait_for_metric("millrace_foreign_partitioner_total", 1.0);
    // From some moment on the other partitions are read; what lies there from then on is delivered.
    let mut number = 0;
    loop {
        place.write_to(&kafka_topic, unwatched, &[record("exact", &number.to_string())]);
        place.write_to(&kafka_topic, home, &[record("exact", "home")]);
        number += 1;
        if exact.expect_message().text() != "home" {
            break;
        }
        assert!(number < 1_000, "the partition is not read");
    }
    place.write_to(&kafka_topic, unwatched, &[record("exact", "now it is read")]);
    while exact.expect_message().text() != "now it is read" {}
    other.expect_nothing_before_pingresp();
}

fn two_nodes_see_each_others_messages(place: &Place) {
    let nodes = [place.start(), place.start()];
    let mut subscribers = nodes.each_ref().map(|node| RawClient::subscribed(node, V5, "a/#", QoS::AtLeastOnce));
    for (number, node) in nodes.iter().enumerate() {
        let text = format!("from {number}");
        RawClient::connected(node, V5, "publisher").publish("a/b", &text);
        for subscriber in &mut subscribers {
            subscriber.expect_text("a/b", &text);
        }
    }
}
