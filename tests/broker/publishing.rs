//! PUBLISH from clients and its acknowledgement.

use std::num::NonZeroU16;

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Ack, Packet, ProtocolVersion, Publish, QoS};

use crate::fixture::Place;
use crate::packets::{ALL_VERSIONS, V5, V311, V311_AND_V5, ack, connect, packet_id, publish, publish_1};
use crate::raw::RawClient;

on_both_journals![
    a_publish_of_qos_0_is_delivered_and_not_acknowledged,
    a_publish_of_qos_1_is_acknowledged_and_delivered,
    every_byte_of_the_payload_arrives,
    messages_of_a_topic_arrive_in_the_order_of_the_publishes,
    pubacks_come_in_the_order_of_the_publishes,
    more_publishes_than_the_receive_maximum_slow_a_client_of_3_down,
    more_publishes_than_the_receive_maximum_end_a_connection_of_5,
    a_duplicate_is_delivered_without_its_dup_flag,
    a_packet_id_can_be_used_again_after_its_puback,
    a_topic_under_dollar_is_not_published,
    a_topic_with_a_wildcard_ends_the_connection,
    an_empty_topic_ends_the_connection,
    a_topic_alias_stands_for_its_topic,
    a_topic_alias_can_be_given_another_topic,
    an_unknown_or_too_high_topic_alias_ends_the_connection,
    a_topic_alias_belongs_to_its_connection,
    a_packet_above_the_limit_ends_only_its_connection,
    a_packet_of_exactly_the_limit_is_taken,
    a_pubrel_of_an_unknown_id_is_answered,
    a_subscription_id_from_a_client_is_refused,
    too_many_user_properties_are_refused,
];

/// [MQTT-4.3.1-1]
fn a_publish_of_qos_0_is_delivered_and_not_acknowledged(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "a/b", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.send_publish(&publish("a/b", b"hello"));
        let message = subscriber.expect_text("a/b", "hello");
        assert_eq!((message.qos(), message.dup, message.retain), (QoS::AtMostOnce, false, false));
        publisher.expect_nothing_before_pingresp();
    }
}

/// [MQTT-4.3.2-4, 3.3.4-1]
fn a_publish_of_qos_1_is_acknowledged_and_delivered(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "a/b", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.send_publish(&publish_1(65_535, "a/b", b"hello"));
        publisher.expect_puback(65_535);
        let message = subscriber.expect_text("a/b", "hello");
        assert_eq!((message.qos(), message.dup, message.retain), (QoS::AtLeastOnce, false, false));
    }
}

/// MQTT5 §3.3.3: the payload is the application's, also an empty one [MQTT-3.3.1-4 is about the flags alone].
fn every_byte_of_the_payload_arrives(place: &Place) {
    let node = place.start();
    let all_bytes: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for payload in [&b""[..], &[0], &all_bytes, &large] {
            publisher.publish("a", payload);
            let message = subscriber.expect_message();
            assert!(message.payload == payload, "{} of {} bytes came", message.payload.len(), payload.len());
        }
    }
}

/// [MQTT-4.6.0-5, 4.6.0-6]: within a topic, whatever the QoS.
fn messages_of_a_topic_arrive_in_the_order_of_the_publishes(place: &Place) {
    let node = place.start_with(&[("topics.messages.partitions", "4")]);
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::subscribed(&node, version, "t/+", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        let topics = ["t/0", "t/1", "t/2", "t/3", "t/4"];
        for number in 0..60_u16 {
            let (topic, text) = (topics[usize::from(number) % topics.len()], number.to_string());
            match number % 2 {
                0 => publisher.send_publish(&publish(topic, text.as_bytes())),
                _ => publisher.send_publish(&publish_1(number, topic, text.as_bytes())),
            }
        }
        let mut last = [None; 5];
        for _ in 0..60 {
            let message = subscriber.expect_message();
            let topic = topics.iter().position(|topic| *topic == message.topic).unwrap();
            let number: u16 = message.text().parse().unwrap();
            assert!(last[topic] < Some(number), "{number} after {:?}", last[topic]);
            last[topic] = Some(number);
        }
    }
}

/// [MQTT-4.6.0-2], although partitions finish in any order.
fn pubacks_come_in_the_order_of_the_publishes(place: &Place) {
    let node = place.start_with(&[("topics.messages.partitions", "8")]);
    for version in ALL_VERSIONS {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for round in 0..20_u16 {
            let ids: Vec<u16> = (1..=50).map(|n| round * 50 + n).collect();
            let bytes: Vec<u8> = ids.iter().flat_map(|id| publisher.wire(&numbered(*id))).collect();
            publisher.send_bytes(&bytes);
            for id in ids {
                publisher.expect_puback(id);
            }
        }
    }
}

fn numbered(id: u16) -> Packet<'static> {
    const TOPICS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
    Packet::Publish(publish_1(id, TOPICS[usize::from(id) % TOPICS.len()], b"x"))
}

/// 3.x has no word for it: the socket is read when there is room again.
fn more_publishes_than_the_receive_maximum_slow_a_client_of_3_down(place: &Place) {
    let node = place.start_with(&[("limits.receive_maximum", "5")]);
    for version in [crate::packets::V31, V311] {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        let bytes: Vec<u8> = (1..=500).flat_map(|id| publisher.wire(&numbered(id))).collect();
        publisher.send_bytes(&bytes);
        (1..=500).for_each(|id| publisher.expect_puback(id));
        publisher.expect_nothing_before_pingresp();
    }
}

/// [MQTT-3.3.4-8, 3.3.4-9]
fn more_publishes_than_the_receive_maximum_end_a_connection_of_5(place: &Place) {
    let node = place.start_with(&[("limits.receive_maximum", "3")]);
    let mut within = RawClient::connected(&node, V5, "within");
    let bytes: Vec<u8> = (1..=3).flat_map(|id| within.wire(&numbered(id))).collect();
    within.send_bytes(&bytes);
    (1..=3).for_each(|id| within.expect_puback(id));

    let mut beyond = RawClient::connected(&node, V5, "beyond");
    // In one packet of TCP: no PUBACK can come between them.
    let bytes: Vec<u8> = (1..=4).flat_map(|id| beyond.wire(&numbered(id))).collect();
    beyond.send_bytes(&bytes);
    beyond.expect_end(ReasonCode::ReceiveMaximumExceeded);
    within.expect_nothing_before_pingresp();
}

/// [MQTT-3.3.1-3]
fn a_duplicate_is_delivered_without_its_dup_flag(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.publish_with(&Publish { dup: true, ..publish_1(1, "a", b"again") });
        assert!(!subscriber.expect_text("a", "again").dup);
    }
}

/// [MQTT-2.2.1-5, 4.3.2-5]
fn a_packet_id_can_be_used_again_after_its_puback(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for text in ["1", "2", "3"] {
            publisher.send_publish(&publish_1(9, "a", text.as_bytes()));
            publisher.expect_puback(9);
            subscriber.expect_text("a", text);
        }
    }
}

/// MQTT5 §4.7.2: clients do not exchange messages under `$`. 3.x has no reason code: acknowledged and dropped.
fn a_topic_under_dollar_is_not_published(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "$SYS/#", QoS::AtLeastOnce);
        subscriber.subscribe("marker", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.send_publish(&publish_1(1, "$SYS/uptime", b"x"));
        let refused = if version == V5 { ReasonCode::TopicNameInvalid } else { ReasonCode::Success };
        publisher.expect_puback_with(1, refused);
        publisher.publish("marker", "m");
        subscriber.expect_text("marker", "m");
    }
}

/// [MQTT-3.3.2-2, 4.7.1-1]
fn a_topic_with_a_wildcard_ends_the_connection(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        for topic in ["a/+", "#", "a/b#"] {
            let mut publisher = RawClient::connected(&node, version, "publisher");
            publisher.send_publish(&publish(topic, b"x"));
            publisher.expect_end(ReasonCode::TopicNameInvalid);
        }
    }
}

/// [MQTT-4.7.3-1]; MQTT5 §3.3.2.1 allows it only with a topic alias.
fn an_empty_topic_ends_the_connection(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        let empty = if version == V5 { [0x30, 4, 0, 0, 0, b'x'] } else { [0x30, 4, 0, 0, b'x', b'x'] };
        publisher.send_bytes(&empty);
        publisher.expect_end(ReasonCode::ProtocolError);
    }
}

fn with_alias<'a>(topic: &'a str, alias: u16, payload: &'a [u8]) -> Publish<'a> {
    let mut publish = publish(topic, payload);
    publish.properties.topic_alias = NonZeroU16::new(alias);
    publish
}

/// [MQTT-3.3.2-7, 3.3.2-12]; the subscriber, who announced no aliases, gets none [MQTT-3.1.2-27].
fn a_topic_alias_stands_for_its_topic(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    publisher.publish_with(&with_alias("long/topic", 16, b"1"));
    publisher.publish_with(&with_alias("other", 1, b"2"));
    publisher.publish_with(&with_alias("", 16, b"3"));
    publisher.send_publish(&with_alias("", 1, b"4"));
    for (topic, text) in [("long/topic", "1"), ("other", "2"), ("long/topic", "3"), ("other", "4")] {
        subscriber.expect_text(topic, text);
    }
}

/// MQTT5 §3.3.2.3.4
fn a_topic_alias_can_be_given_another_topic(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    publisher.publish_with(&with_alias("first", 2, b"1"));
    publisher.publish_with(&with_alias("second", 2, b"2"));
    publisher.publish_with(&with_alias("", 2, b"3"));
    for (topic, text) in [("first", "1"), ("second", "2"), ("second", "3")] {
        subscriber.expect_text(topic, text);
    }
}

/// [MQTT-3.3.2-8, 3.3.2-9]
fn an_unknown_or_too_high_topic_alias_ends_the_connection(place: &Place) {
    let node = place.start();
    let cases = [("", 1, ReasonCode::ProtocolError), ("a", 17, ReasonCode::TopicAliasInvalid)];
    for (topic, alias, reason) in cases {
        let mut publisher = RawClient::connected(&node, V5, "publisher");
        publisher.send_publish(&with_alias(topic, alias, b"x"));
        publisher.expect_end(reason);
    }
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    // Alias 0 [MQTT-3.3.2-8].
    publisher.send_bytes(&[0x30, 8, 0, 1, b'a', 3, 0x23, 0, 0, b'x']);
    publisher.expect_end(ReasonCode::TopicAliasInvalid);
}

/// [MQTT-3.3.2-7]
fn a_topic_alias_belongs_to_its_connection(place: &Place) {
    let node = place.start();
    let mut first = RawClient::connected(&node, V5, "publisher");
    first.publish_with(&with_alias("a", 1, b"x"));
    let mut second = RawClient::connected(&node, V5, "publisher");
    second.send_publish(&with_alias("", 1, b"x"));
    second.expect_end(ReasonCode::ProtocolError);
}

/// [MQTT-3.2.2-15]
fn a_packet_above_the_limit_ends_only_its_connection(place: &Place) {
    let node = place.start_with(&[("limits.packet_bytes_max", "10KiB")]);
    let mut bystander = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    for version in ALL_VERSIONS {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        let bytes = publisher.wire(&Packet::Publish(publish("a", &[0; 10 * 1024])));
        publisher.try_send_bytes(&bytes);
        publisher.expect_end(ReasonCode::PacketTooLarge);
    }
    RawClient::connected(&node, V5, "publisher").publish("a", "fine");
    bystander.expect_text("a", "fine");
}

/// [MQTT-3.2.2-15]
fn a_packet_of_exactly_the_limit_is_taken(place: &Place) {
    const LIMIT: usize = 10 * 1024;
    let node = place.start_with(&[("limits.packet_bytes_max", "10KiB")]);
    for version in ALL_VERSIONS {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        let around = publisher.wire(&Packet::Publish(publish_1(1, "a", &[0; LIMIT / 2]))).len() - LIMIT / 2;
        let payload = vec![b'x'; LIMIT - around];
        assert_eq!(publisher.wire(&Packet::Publish(publish_1(1, "a", &payload))).len(), LIMIT);
        publisher.publish("a", &payload);
    }
}

/// MQTT5 §4.3.3: PUBCOMP, with 0x92 in MQTT 5, so that a client that mistakes us for an old session comes to an end.
fn a_pubrel_of_an_unknown_id_is_answered(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::connected(&node, version, "a");
        client.send(&Packet::PubRel(ack(packet_id(7))));
        let frame = client.expect();
        let Packet::PubComp(Ack { packet_id, reason, .. }) = frame.packet() else { panic!("no PUBCOMP") };
        let wanted = if version == V5 { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        assert_eq!((packet_id.get(), reason), (7, wanted));
    }
}

/// [MQTT-3.3.4-6]
fn a_subscription_id_from_a_client_is_refused(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    publisher.send_bytes(&[0x30, 7, 0, 1, b'a', 2, 0x0B, 5, b'x']);
    publisher.expect_end(ReasonCode::ProtocolError);
}

/// A limit of the server, as many as the configuration allows are fine.
fn too_many_user_properties_are_refused(place: &Place) {
    use millrace::mqtt::properties::UserProperties;
    let node = place.start_with(&[("limits.user_properties_max", "3")]);
    let pairs = [("n", "v"); 4];
    let with = |count: usize| {
        let mut publish = publish("a", b"x");
        publish.properties.user_properties = UserProperties::Pairs(&pairs[..count]);
        publish
    };
    let mut publisher = RawClient::connected_with(&node, &connect(ProtocolVersion::V5, "publisher"));
    publisher.publish_with(&with(3));
    publisher.send_publish(&with(4));
    publisher.expect_end(ReasonCode::QuotaExceeded);
}
