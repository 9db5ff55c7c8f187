//! QoS 2 in both directions within one connection (MQTT5 §4.3.3).

use std::num::NonZeroU16;

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Ack, Packet, PacketId, Publish, QoS};

use crate::fixture::Place;
use crate::packets::{ALL_VERSIONS, V5, V311, V311_AND_V5, ack, connect, packet_id, publish, publish_1, publish_2};
use crate::raw::RawClient;
use crate::the_log::record;

on_both_journals![
    a_publish_of_qos_2_is_one_record_and_one_delivery,
    a_publish_that_is_sent_again_is_not_appended_again,
    a_packet_id_is_free_after_pubcomp,
    pubrecs_and_pubcomps_come_in_the_order_of_what_they_answer,
    unreleased_publishes_use_up_the_receive_maximum,
    a_pubrel_before_pubrec_or_after_pubcomp_does_no_harm,
    a_topic_under_dollar_is_not_published_with_qos_2_either,
    the_lower_qos_of_message_and_subscription_counts,
    a_plain_record_is_delivered_with_qos_2,
    qos_2_messages_keep_to_the_clients_receive_maximum,
    pubrels_come_in_the_order_of_the_pubrecs,
    a_pubrec_that_is_sent_again_gets_its_pubrel_again,
    a_pubrec_that_refuses_ends_the_delivery,
    messages_of_every_qos_arrive_in_order,
];

fn records(place: &Place) -> usize {
    place.read(&place.default_topic()).len()
}

/// [MQTT-4.3.3-8 to 4.3.3-13]; a Kafka program, too, sees it once.
fn a_publish_of_qos_2_is_one_record_and_one_delivery(place: &Place) {
    let node = place.start();
    for (round, version) in (1..).zip(ALL_VERSIONS) {
        let mut subscriber = RawClient::subscribed(&node, version, "a/b", QoS::ExactlyOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.send_publish(&publish_2(65_535, "a/b", b"hello"));
        publisher.expect_pubrec(65_535);
        publisher.release(65_535);
        publisher.expect_pubcomp(65_535);
        let message = subscriber.expect_text("a/b", "hello");
        assert_eq!((message.qos(), message.dup, message.retain), (QoS::ExactlyOnce, false, false));
        subscriber.expect_nothing_before_pingresp();
        let stored = place.read(&place.default_topic());
        assert_eq!(stored.len(), round);
        // docs/records.md: the token is what tells it from its repetition.
        assert!(stored.iter().all(|record| record.headers.contains_key("mqtt-token")), "{stored:?}");
    }
}

/// [MQTT-4.3.3-10, 4.3.3-12]: until PUBREL it is the same message, with DUP or, wrongly, without.
fn a_publish_that_is_sent_again_is_not_appended_again(place: &Place) {
    let node = place.start();
    for (round, version) in (1..).zip(ALL_VERSIONS) {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::ExactlyOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        let first = publish_2(7, "a", b"once");
        publisher.send_publish(&first);
        publisher.expect_pubrec(7);
        for dup in [true, true, false] {
            publisher.send_publish(&Publish { dup, ..first.clone() });
            publisher.expect_pubrec(7);
        }
        publisher.release(7);
        publisher.expect_pubcomp(7);
        publisher.publish("a", "marker");
        subscriber.expect_text("a", "once");
        subscriber.expect_text("a", "marker");
        assert_eq!(records(place), round * 2);
    }
}

/// [MQTT-2.2.1-5]: also with DUP, which says nothing about the id's last use.
fn a_packet_id_is_free_after_pubcomp(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::ExactlyOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for (text, dup) in [("1", false), ("2", false), ("3", true)] {
            publisher.send_publish(&Publish { dup, ..publish_2(9, "a", text.as_bytes()) });
            publisher.expect_pubrec(9);
            publisher.release(9);
            publisher.expect_pubcomp(9);
            subscriber.expect_text("a", text);
        }
    }
}

/// [MQTT-4.6.0-3, 4.6.0-4], although partitions finish in any order.
fn pubrecs_and_pubcomps_come_in_the_order_of_what_they_answer(place: &Place) {
    let node = place.start_with(&[("topics.messages.partitions", "8")]);
    for version in ALL_VERSIONS {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for round in 0..10_u16 {
            let ids: Vec<u16> = (1..=50).map(|n| round * 50 + n).collect();
            let topics = ["a", "b", "c", "d", "e", "f", "g"];
            let publish = |id: &u16| Packet::Publish(publish_2(*id, topics[usize::from(*id) % topics.len()], b"x"));
            let bytes: Vec<u8> = ids.iter().flat_map(|id| publisher.wire(&publish(id))).collect();
            publisher.send_bytes(&bytes);
            for id in &ids {
                publisher.expect_pubrec(*id);
            }
            let bytes: Vec<u8> =
                ids.iter().flat_map(|id| publisher.wire(&Packet::PubRel(ack(packet_id(*id))))).collect();
            publisher.send_bytes(&bytes);
            for id in &ids {
                publisher.expect_pubcomp(*id);
            }
        }
    }
}

/// [MQTT-3.3.4-8, 3.3.4-9] and MQTT5 §4.9: PUBREC gives nothing back, PUBCOMP does.
fn unreleased_publishes_use_up_the_receive_maximum(place: &Place) {
    let node = place.start_with(&[("limits.receive_maximum", "3")]);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for id in 1..=3 {
        publisher.send_publish(&publish_2(id, "a", b"x"));
        publisher.expect_pubrec(id);
    }
    // One that is sent again is not one more.
    publisher.send_publish(&Publish { dup: true, ..publish_2(3, "a", b"x") });
    publisher.expect_pubrec(3);
    publisher.release(2);
    publisher.expect_pubcomp(2);
    publisher.send_publish(&publish_1(4, "a", b"x"));
    publisher.expect_puback(4);
    publisher.send_publish(&publish_2(5, "a", b"x"));
    publisher.expect_pubrec(5);
    publisher.send_publish(&publish_1(6, "a", b"x"));
    publisher.expect_end(ReasonCode::ReceiveMaximumExceeded);
}

/// MQTT5 §4.3.3: an id that is not known is answered, with 0x92 in MQTT 5, so that the client comes to an end.
fn a_pubrel_before_pubrec_or_after_pubcomp_does_no_harm(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.publish_exactly_once("a", "x");
        publisher.release(1);
        let frame = publisher.expect();
        let Packet::PubComp(Ack { packet_id, reason, .. }) = frame.packet() else { panic!("no PUBCOMP") };
        let wanted = if version == V5 { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        assert_eq!((packet_id.get(), reason), (1, wanted));
        publisher.publish_exactly_once("a", "y");
    }
    assert_eq!(records(place), 2 * ALL_VERSIONS.len());
}

/// MQTT5 §4.7.2, §3.5.2.1: a PUBREC that refuses ends the exchange; 3.x has no word for it, so it goes on.
fn a_topic_under_dollar_is_not_published_with_qos_2_either(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.send_publish(&publish_2(1, "$SYS/uptime", b"x"));
        let frame = publisher.expect();
        let Packet::PubRec(Ack { packet_id, reason, .. }) = frame.packet() else { panic!("no PUBREC") };
        let refused = if version == V5 { ReasonCode::TopicNameInvalid } else { ReasonCode::Success };
        assert_eq!((packet_id.get(), reason), (1, refused));
        if version != V5 {
            publisher.release(1);
            publisher.expect_pubcomp(1);
        }
        publisher.send_publish(&publish_2(1, "a", b"x"));
        publisher.expect_pubrec(1);
    }
    assert_eq!(records(place), ALL_VERSIONS.len());
}

/// [MQTT-3.8.4-8]
fn the_lower_qos_of_message_and_subscription_counts(place: &Place) {
    const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for granted in ALL {
            let mut subscriber = RawClient::subscribed(&node, version, "a", granted);
            publisher.send_publish(&publish("a", b"0"));
            publisher.publish("a", "1");
            publisher.publish_exactly_once("a", "2");
            for (text, published) in ["0", "1", "2"].iter().zip(ALL) {
                assert_eq!(subscriber.expect_text("a", text).qos(), published.min(granted));
            }
        }
    }
}

/// docs/records.md: without a header the subscription alone decides.
fn a_plain_record_is_delivered_with_qos_2(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::subscribed(&node, version, "plain", QoS::ExactlyOnce);
        place.write(&place.default_topic(), &[record("plain", "x")]);
        assert_eq!(subscriber.expect_text("plain", "x").qos(), QoS::ExactlyOnce);
    }
}

fn ids_of_messages(subscriber: &mut RawClient, texts: &[&str]) -> Vec<u16> {
    let id = |text: &&str| {
        let message = subscriber.expect_unacknowledged();
        assert_eq!((message.text(), message.qos(), message.dup), (*text, QoS::ExactlyOnce, false));
        message.delivery.packet_id().map_or(0, PacketId::get)
    };
    texts.iter().map(id).collect()
}

/// [MQTT-3.3.4-9, 4.9.0-1, 4.9.0-2]: an exchange counts until PUBCOMP.
fn qos_2_messages_keep_to_the_clients_receive_maximum(place: &Place) {
    let node = place.start();
    let mut asked = connect(V5, "subscriber");
    asked.properties.receive_maximum = NonZeroU16::new(2);
    let mut subscriber = RawClient::connected_with(&node, &asked);
    subscriber.subscribe("a", QoS::ExactlyOnce);
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    for text in ["1", "2", "3", "4"] {
        publisher.publish_exactly_once("a", text);
    }
    let ids = ids_of_messages(&mut subscriber, &["1", "2"]);
    assert_ne!(ids[0], ids[1]);
    subscriber.expect_nothing_before_pingresp();
    subscriber.receive_id(ids[0]);
    subscriber.expect_pubrel(ids[0]);
    subscriber.expect_nothing_before_pingresp();
    subscriber.complete_id(ids[0]);
    ids_of_messages(&mut subscriber, &["3"]);
    subscriber.expect_nothing_before_pingresp();
}

/// [MQTT-4.6.0-4 of the receiver]: whatever the order of the PUBRECs is.
fn pubrels_come_in_the_order_of_the_pubrecs(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::ExactlyOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for text in ["1", "2", "3"] {
            publisher.publish_exactly_once("a", text);
        }
        let ids = ids_of_messages(&mut subscriber, &["1", "2", "3"]);
        let order = [ids[1], ids[0], ids[2]];
        for id in &order {
            subscriber.receive_id(*id);
        }
        for id in &order {
            subscriber.expect_pubrel(*id);
        }
        for id in &order {
            subscriber.complete_id(*id);
        }
        subscriber.expect_nothing_before_pingresp();
    }
}

/// MQTT5 §4.3.3: also one for an id that was never used; it must be possible to come to an end.
fn a_pubrec_that_is_sent_again_gets_its_pubrel_again(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::ExactlyOnce);
        RawClient::connected(&node, version, "publisher").publish_exactly_once("a", "1");
        let ids = ids_of_messages(&mut subscriber, &["1"]);
        for _ in 0..2 {
            subscriber.receive_id(ids[0]);
            subscriber.expect_pubrel(ids[0]);
        }
        subscriber.complete_id(ids[0]);
        subscriber.receive_id(999);
        let frame = subscriber.expect();
        let Packet::PubRel(Ack { packet_id, reason, .. }) = frame.packet() else { panic!("no PUBREL") };
        let wanted = if version == V5 { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        assert_eq!((packet_id.get(), reason), (999, wanted));
    }
}

/// MQTT5 §4.3.3, §4.9: a reason of 0x80 or more; the id and the window are free again.
fn a_pubrec_that_refuses_ends_the_delivery(place: &Place) {
    let node = place.start();
    let mut asked = connect(V5, "subscriber");
    asked.properties.receive_maximum = NonZeroU16::new(1);
    let mut subscriber = RawClient::connected_with(&node, &asked);
    subscriber.subscribe("a", QoS::ExactlyOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    publisher.publish_exactly_once("a", "1");
    publisher.publish_exactly_once("a", "2");
    let ids = ids_of_messages(&mut subscriber, &["1"]);
    let refusal = Ack { reason: ReasonCode::QuotaExceeded, ..ack(packet_id(ids[0])) };
    subscriber.send(&Packet::PubRec(refusal));
    subscriber.expect_text("a", "2");
    subscriber.expect_nothing_before_pingresp();
}

/// [MQTT-4.6.0-5, 4.6.0-6]; nothing is held back, because no publisher before had the client id.
fn messages_of_every_qos_arrive_in_order(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::ExactlyOnce);
        let mut publisher = RawClient::connected(&node, version, &format!("publisher-{version:?}"));
        for id in 1..=60_u16 {
            let text = id.to_string();
            match id % 3 {
                0 => publisher.send_publish(&publish("a", text.as_bytes())),
                1 => publisher.send_publish(&publish_1(id, "a", text.as_bytes())),
                _ => publisher.send_publish(&publish_2(id, "a", text.as_bytes())),
            }
        }
        for number in 1..=60 {
            subscriber.expect_text("a", &number.to_string());
        }
    }
}
