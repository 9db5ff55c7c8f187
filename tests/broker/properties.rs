//! The MQTT 5 properties of a message on their way through a record.

use std::collections::BTreeMap;

use millrace::clock;
use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Delivery, Publish, PublishProperties, QoS};
use millrace::mqtt::properties::UserProperties;

use crate::fixture::Place;
use crate::packets::{V5, V311, packet_id, publish};
use crate::raw::RawClient;
use crate::the_log::{ForeignRecord, record};

on_both_journals![
    every_property_arrives_as_it_was_published,
    a_message_without_properties_arrives_without,
    user_properties_keep_their_order_and_duplicates,
    user_properties_named_like_our_headers_arrive,
    properties_are_left_out_for_3_1_1,
    correlation_data_may_hold_any_byte,
    payload_format_0_and_1_arrive,
    a_message_expiry_is_counted_down,
    a_message_expiry_never_grows,
    an_expired_message_is_not_delivered,
    properties_lie_in_the_record_as_headers,
    a_broken_response_topic_ends_the_connection,
    a_property_that_may_come_once_may_not_come_twice,
];

/// [MQTT-3.3.2-4, 3.3.2-15, 3.3.2-16, 3.3.2-17, 3.3.2-18, 3.3.2-20]
fn every_property_arrives_as_it_was_published(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let mut message = publish("a", "grüße".as_bytes());
    message.properties = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry_s: Some(1_000),
        response_topic: Some("answers/to/me"),
        correlation_data: Some(b"\x00\x01\xff"),
        user_properties: UserProperties::Pairs(&[("k", "v")]),
        content_type: Some("text/plain"),
        ..PublishProperties::default()
    };
    publisher.publish_with(&message);
    let got = subscriber.expect_text("a", "grüße");
    assert_eq!(got.payload_is_utf8, Some(true));
    assert!((1..=1_000).contains(&got.expiry_s.unwrap()), "{:?}", got.expiry_s);
    assert_eq!(got.response_topic.as_deref(), Some("answers/to/me"));
    assert_eq!(got.correlation_data.as_deref(), Some(&b"\x00\x01\xff"[..]));
    assert_eq!(got.user_properties, [("k".to_owned(), "v".to_owned())]);
    assert_eq!(got.content_type.as_deref(), Some("text/plain"));
}

/// Neither a property of ours nor one of the transport shows.
fn a_message_without_properties_arrives_without(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    for version in [V311, V5] {
        RawClient::connected(&node, version, "publisher").publish("a", "x");
        let got = subscriber.expect_text("a", "x");
        assert_eq!((got.payload_is_utf8, got.expiry_s, got.content_type), (None, None, None));
        assert_eq!((got.response_topic, got.correlation_data), (None, None));
        assert_eq!((got.user_properties, got.subscription_ids), (vec![], vec![]));
    }
}

/// [MQTT-3.3.2-18]
fn user_properties_keep_their_order_and_duplicates(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("a", ""), ("", "x"), ("ü", "→"), ("b", "0")];
    let mut message = publish("a", b"x");
    message.properties.user_properties = UserProperties::Pairs(&pairs);
    publisher.publish_with(&message);
    let got = subscriber.expect_message();
    assert_eq!(got.user_properties, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// A client can neither forge our headers nor lose a property that is named like one.
fn user_properties_named_like_our_headers_arrive(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let pairs =
        [("mqtt-qos", "0"), ("mqtt-fence", "1"), ("mqtt-expires-at", "1"), ("mqtt-user-mqtt-qos", "2"), ("mqtt-", "")];
    let mut message = publish("a", b"x");
    message.properties.user_properties = UserProperties::Pairs(&pairs);
    publisher.publish_with(&message);
    let got = subscriber.expect_message();
    assert_eq!(got.user_properties, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!((got.qos(), got.expiry_s), (QoS::AtLeastOnce, None));
}

/// 3.1.1 has none; `expect_message` decodes the packet as 3.1.1, so a property would be part of the payload.
fn properties_are_left_out_for_3_1_1(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V311, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let mut message = publish("a", b"plain");
    message.properties.content_type = Some("text/plain");
    message.properties.user_properties = UserProperties::Pairs(&[("k", "v")]);
    publisher.publish_with(&message);
    subscriber.expect_text("a", "plain");
}

/// MQTT5 §3.3.2.3.6: binary data, also none at all.
fn correlation_data_may_hold_any_byte(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let all_bytes: Vec<u8> = (0..=255).rev().collect();
    for data in [&b""[..], &[0], &all_bytes] {
        let mut message = publish("a", b"x");
        message.properties.correlation_data = Some(data);
        publisher.publish_with(&message);
        assert_eq!(subscriber.expect_message().correlation_data.as_deref(), Some(data));
    }
}

/// [MQTT-3.3.2-4]: 0 is not the same as absent.
fn payload_format_0_and_1_arrive(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for format in [Some(false), Some(true), None] {
        let mut message = publish("a", b"x");
        message.properties.payload_is_utf8 = format;
        publisher.publish_with(&message);
        assert_eq!(subscriber.expect_message().payload_is_utf8, format);
    }
}

fn expiring(text: &str, at_ms: i64) -> ForeignRecord {
    ForeignRecord { headers: vec![("mqtt-expires-at", at_ms.to_string().into_bytes())], ..record("a", text) }
}

/// [MQTT-3.3.2-6]: what was published long ago goes out with what is left.
fn a_message_expiry_is_counted_down(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    place.write(&place.default_topic(), &[expiring("soon", clock::wall_ms() + 100_000)]);
    let left_s = subscriber.expect_text("a", "soon").expiry_s.unwrap();
    assert!((1..=100).contains(&left_s), "{left_s}");
}

/// [MQTT-3.3.2-6]: also of messages that arrive while others are being sent.
fn a_message_expiry_never_grows(place: &Place) {
    const ROUNDS: u16 = 100;
    const WINDOW: u16 = 50;
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let mut message = publish("a", b"x");
    message.properties.message_expiry_s = Some(600);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..ROUNDS {
                for id in 1..=WINDOW {
                    let delivery = Delivery::AtLeastOnce(packet_id(id));
                    publisher.send_publish(&Publish { delivery, ..message.clone() });
                }
                (1..=WINDOW).for_each(|id| publisher.expect_puback(id));
            }
        });
        for _ in 0..ROUNDS * WINDOW {
            let left_s = subscriber.expect_message().expiry_s.unwrap();
            assert!(left_s <= 600, "{left_s}");
        }
    });
}

/// [MQTT-3.3.2-5]
fn an_expired_message_is_not_delivered(place: &Place) {
    let node = place.start();
    let mut subscribers = [V311, V5].map(|version| RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce));
    place.write(&place.default_topic(), &[expiring("late", clock::wall_ms() - 1), record("a", "marker")]);
    subscribers[0].expect_text("a", "marker");
    subscribers[1].expect_text("a", "marker");
}

/// `docs/records.md`: the names are a contract with programs on the Kafka side.
fn properties_lie_in_the_record_as_headers(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "meter-7");
    let mut message = publish("a/b", b"21.5");
    message.properties = PublishProperties {
        payload_is_utf8: Some(true),
        response_topic: Some("answers"),
        correlation_data: Some(b"\xff\x00"),
        user_properties: UserProperties::Pairs(&[("unit", "C"), ("mqtt-qos", "9")]),
        content_type: Some("text/plain"),
        ..PublishProperties::default()
    };
    publisher.publish_with(&message);
    let records = place.read(&place.default_topic());
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some("a/b"), Some(&b"21.5"[..])));
    let wanted: BTreeMap<String, Vec<u8>> = [
        ("mqtt-qos", &b"1"[..]),
        ("mqtt-payload-format", b"1"),
        ("mqtt-response-topic", b"answers"),
        ("mqtt-correlation-data", b"\xff\x00"),
        ("mqtt-content-type", b"text/plain"),
        ("mqtt-publisher", b"meter-7"),
        ("unit", b"C"),
        ("mqtt-user-mqtt-qos", b"9"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_vec()))
    .into();
    assert_eq!(record.headers, wanted);
}

/// [MQTT-3.3.2-13, 3.3.2-14]
fn a_broken_response_topic_ends_the_connection(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let mut message = publish("a", b"x");
    message.properties.response_topic = Some("answers/#");
    publisher.send_publish(&message);
    publisher.expect_end(ReasonCode::ProtocolError);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    publisher.send_bytes(&[0x30, 9, 0, 1, b'a', 5, 0x08, 0, 2, 0xC3, 0x28]);
    publisher.expect_end(ReasonCode::MalformedPacket);
}

/// MQTT5 §2.2.2: a protocol error, except for user properties.
fn a_property_that_may_come_once_may_not_come_twice(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    publisher.send_bytes(&[0x30, 8, 0, 1, b'a', 4, 0x01, 0, 0x01, 0]);
    publisher.expect_end(ReasonCode::ProtocolError);
}
