//! What was on its way when a connection broke: sent again, with the same ids, and nothing twice (MQTT5 §4.4).

use std::num::NonZeroU16;

use millrace::mqtt::packet::{Connect, Packet, ProtocolVersion, Publish, QoS};

use crate::fixture::{Place, TestNode};
use crate::packets::{ALL_VERSIONS, V5, V311, V311_AND_V5, ack, lasting, packet_id, publish_1, publish_2};
use crate::raw::{Message, RawClient};

on_both_journals![
    unacknowledged_messages_come_again_in_order_with_their_ids,
    new_messages_come_behind_those_that_come_again_and_under_other_ids,
    a_qos_2_message_without_pubrec_comes_again_with_its_id,
    after_pubrec_only_pubrel_comes_again,
    after_pubcomp_nothing_comes_again,
    what_was_acknowledged_behind_an_open_qos_2_message_does_not_come_again,
    a_pubrec_that_comes_before_the_message_is_sent_again_is_answered,
    what_comes_again_keeps_to_the_new_receive_maximum,
    an_acknowledgement_of_what_came_again_is_for_good,
    nothing_of_a_clean_session_comes_again,
    a_publish_that_got_no_pubrec_is_one_record,
    a_publish_that_got_its_pubrec_is_one_record,
    a_pubrel_that_got_no_pubcomp_is_answered,
    an_id_that_was_released_is_a_new_message,
    a_qos_1_publish_that_got_no_puback_is_acknowledged,
    many_unreleased_publishes_survive_many_breaks,
];

/// A subscriber whose session lasts, and a publisher.
fn pair<'a>(node: &TestNode, version: ProtocolVersion, client_id: &'a str) -> (Connect<'a>, RawClient, RawClient) {
    let asked = lasting(version, client_id);
    let mut subscriber = RawClient::connected_with(node, &asked);
    subscriber.subscribe("a", QoS::ExactlyOnce);
    (asked, subscriber, RawClient::connected(node, V5, "publisher"))
}

fn name(version: ProtocolVersion) -> String {
    format!("subscriber-{version:?}")
}

fn id_of(message: &Message) -> u16 {
    message.delivery.packet_id().unwrap().get()
}

#[track_caller]
fn expect_again(client: &mut RawClient, before: &Message) {
    let again = client.expect_unacknowledged();
    assert_eq!(again, Message { dup: true, ..before.clone() });
}

fn unacknowledged(client: &mut RawClient, count: usize) -> Vec<Message> {
    (0..count).map(|_| client.expect_unacknowledged()).collect()
}

/// [MQTT-4.4.0-1, 4.6.0-1, 3.3.1-1]
fn unacknowledged_messages_come_again_in_order_with_their_ids(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let client_id = name(version);
        let (asked, mut subscriber, mut publisher) = pair(&node, version, &client_id);
        (0..10).for_each(|number| publisher.publish("a", number.to_string()));
        let mut open = unacknowledged(&mut subscriber, 10);
        for _ in 0..2 {
            subscriber.acknowledge(&open.remove(0));
        }
        for _ in 0..3 {
            subscriber.expect_nothing_before_pingresp();
            subscriber.vanish(&node);
            subscriber = RawClient::connected_with(&node, &asked);
            for message in &open {
                expect_again(&mut subscriber, message);
            }
        }
        for message in &open {
            subscriber.acknowledge(message);
        }
        publisher.publish("a", "marker");
        assert!(!subscriber.expect_text("a", "marker").dup);
    }
}

/// [MQTT-4.6.0-1, 2.2.1-4]
fn new_messages_come_behind_those_that_come_again_and_under_other_ids(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let client_id = name(version);
        let (asked, mut subscriber, mut publisher) = pair(&node, version, &client_id);
        (0..3).for_each(|number| publisher.publish("a", number.to_string()));
        let open = unacknowledged(&mut subscriber, 3);
        subscriber.vanish(&node);
        (3..6).for_each(|number| publisher.publish("a", number.to_string()));
        let mut subscriber = RawClient::connected_with(&node, &asked);
        for message in &open {
            expect_again(&mut subscriber, message);
        }
        for number in 3..6 {
            let message = subscriber.expect_unacknowledged();
            assert_eq!((message.text(), message.dup), (number.to_string().as_str(), false));
            assert!(!open.iter().any(|other| id_of(other) == id_of(&message)), "{message:?}");
        }
    }
}

/// [MQTT-4.4.0-1, 3.3.1-1]
fn a_qos_2_message_without_pubrec_comes_again_with_its_id(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let client_id = name(version);
        let (asked, mut subscriber, mut publisher) = pair(&node, version, &client_id);
        (0..5).for_each(|number| publisher.publish_exactly_once("a", number.to_string()));
        let open = unacknowledged(&mut subscriber, 5);
        for _ in 0..3 {
            subscriber.vanish(&node);
            subscriber = RawClient::connected_with(&node, &asked);
            for message in &open {
                expect_again(&mut subscriber, message);
            }
        }
        for message in &open {
            subscriber.acknowledge(message);
        }
        publisher.publish_exactly_once("a", "marker");
        assert!(!subscriber.expect_text("a", "marker").dup);
    }
}

/// [MQTT-4.4.0-1, 4.3.3-6]: the client has the message and must not get it again.
fn after_pubrec_only_pubrel_comes_again(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let client_id = name(version);
        let (asked, mut subscriber, mut publisher) = pair(&node, version, &client_id);
        (0..3).for_each(|number| publisher.publish_exactly_once("a", number.to_string()));
        let open = unacknowledged(&mut subscriber, 3);
        // The last one has no PUBREC.
        for message in &open[..2] {
            subscriber.receive_id(id_of(message));
            subscriber.expect_pubrel(id_of(message));
        }
        for _ in 0..3 {
            subscriber.vanish(&node);
            subscriber = RawClient::connected_with(&node, &asked);
            for message in &open[..2] {
                subscriber.expect_pubrel(id_of(message));
            }
            expect_again(&mut subscriber, &open[2]);
        }
        for message in &open[..2] {
            subscriber.complete_id(id_of(message));
        }
        subscriber.acknowledge(&open[2]);
        publisher.publish_exactly_once("a", "marker");
        assert!(!subscriber.expect_text("a", "marker").dup);
    }
}

/// MQTT5 §4.3.3
fn after_pubcomp_nothing_comes_again(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let client_id = name(version);
        let (asked, mut subscriber, mut publisher) = pair(&node, version, &client_id);
        for round in 0..5 {
            publisher.publish_exactly_once("a", round.to_string());
            assert!(!subscriber.expect_text("a", &round.to_string()).dup);
            subscriber.expect_nothing_before_pingresp();
            subscriber.vanish(&node);
            subscriber = RawClient::connected_with(&node, &asked);
        }
        publisher.publish_exactly_once("a", "marker");
        subscriber.expect_text("a", "marker");
    }
}

/// MQTT5 §4.3.2, §4.3.3: QoS 1 and 2 do not wait for each other.
fn what_was_acknowledged_behind_an_open_qos_2_message_does_not_come_again(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let client_id = name(version);
        let (asked, mut subscriber, mut publisher) = pair(&node, version, &client_id);
        publisher.publish_exactly_once("a", "open");
        let open = subscriber.expect_unacknowledged();
        publisher.publish("a", "1");
        subscriber.expect_text("a", "1");
        publisher.publish_exactly_once("a", "2");
        subscriber.expect_text("a", "2");
        subscriber.expect_nothing_before_pingresp();
        for _ in 0..3 {
            subscriber.vanish(&node);
            subscriber = RawClient::connected_with(&node, &asked);
            expect_again(&mut subscriber, &open);
            subscriber.expect_nothing_before_pingresp();
        }
        subscriber.acknowledge(&open);
        publisher.publish("a", "marker");
        subscriber.expect_text("a", "marker");
    }
}

/// A client that keeps its state goes on where it was as soon as it has CONNACK.
fn a_pubrec_that_comes_before_the_message_is_sent_again_is_answered(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let client_id = name(version);
        let (asked, mut subscriber, mut publisher) = pair(&node, version, &client_id);
        publisher.publish_exactly_once("a", "1");
        let id = id_of(&subscriber.expect_unacknowledged());
        subscriber.vanish(&node);
        let mut subscriber = RawClient::open(&node, version);
        let packets = [Packet::Connect(Box::new(asked)), Packet::PubRec(ack(packet_id(id)))];
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| subscriber.wire(packet)).collect();
        subscriber.send_bytes(&bytes);
        subscriber.expect_connack(|connack| assert!(connack.session_present));
        // The message may have been on its way already.
        let frame = subscriber.expect();
        if matches!(frame.packet(), Packet::Publish(_)) {
            subscriber.expect_pubrel(id);
        } else {
            assert!(matches!(frame.packet(), Packet::PubRel(rel) if rel.packet_id.get() == id));
        }
        subscriber.complete_id(id);
        publisher.publish_exactly_once("a", "marker");
        subscriber.expect_text("a", "marker");
    }
}

/// [MQTT-3.1.2-11.3, 4.9.0-1]: Receive Maximum is a connection's.
fn what_comes_again_keeps_to_the_new_receive_maximum(place: &Place) {
    let node = place.start();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let client_id = format!("subscriber-{qos:?}");
        let (mut asked, mut subscriber, mut publisher) = pair(&node, V5, &client_id);
        for number in 0..5 {
            match qos {
                QoS::AtMostOnce | QoS::AtLeastOnce => publisher.publish("a", number.to_string()),
                QoS::ExactlyOnce => publisher.publish_exactly_once("a", number.to_string()),
            }
        }
        let open = unacknowledged(&mut subscriber, 5);
        subscriber.vanish(&node);
        asked.properties.receive_maximum = NonZeroU16::new(1);
        let mut subscriber = RawClient::connected_with(&node, &asked);
        for message in &open {
            expect_again(&mut subscriber, message);
            subscriber.expect_nothing_before_pingresp();
            subscriber.acknowledge(message);
        }
        subscriber.expect_nothing_before_pingresp();
    }
}

/// MQTT5 §4.3.2
fn an_acknowledgement_of_what_came_again_is_for_good(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let client_id = name(version);
        let (asked, mut subscriber, mut publisher) = pair(&node, version, &client_id);
        (0..4).for_each(|number| publisher.publish("a", number.to_string()));
        let mut open = unacknowledged(&mut subscriber, 4);
        while !open.is_empty() {
            subscriber.vanish(&node);
            subscriber = RawClient::connected_with(&node, &asked);
            for message in &open {
                expect_again(&mut subscriber, message);
            }
            subscriber.acknowledge(&open.remove(0));
            subscriber.expect_nothing_before_pingresp();
        }
        subscriber.vanish(&node);
        let mut subscriber = RawClient::connected_with(&node, &asked);
        publisher.publish("a", "marker");
        subscriber.expect_text("a", "marker");
    }
}

/// [MQTT-4.1.0-1]
fn nothing_of_a_clean_session_comes_again(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::connected(&node, version, "clean");
        subscriber.subscribe("a", QoS::ExactlyOnce);
        let mut publisher = RawClient::connected(&node, V5, "publisher");
        publisher.publish("a", "1");
        publisher.publish_exactly_once("a", "2");
        unacknowledged(&mut subscriber, 2);
        subscriber.vanish(&node);
        let mut subscriber = RawClient::connected(&node, version, "clean");
        subscriber.subscribe("a", QoS::ExactlyOnce);
        publisher.publish("a", "marker");
        assert!(!subscriber.expect_text("a", "marker").dup);
    }
}

fn records(place: &Place) -> usize {
    place.read(&place.default_topic()).len()
}

/// [MQTT-4.4.0-1, 4.3.3-10]: the client never heard of its publish, and sends it again.
fn a_publish_that_got_no_pubrec_is_one_record(place: &Place) {
    let node = place.start();
    let mut wanted = 0;
    for (version, politely) in ALL_VERSIONS.into_iter().flat_map(|version| [(version, true), (version, false)]) {
        let client_id = format!("publisher-{version:?}-{politely}");
        let asked = lasting(version, &client_id);
        let mut publisher = RawClient::connected_with(&node, &asked);
        for id in 1..=10 {
            publisher.send_publish(&publish_2(id, "a", b"x"));
        }
        if politely {
            publisher.vanish(&node);
        } else {
            // Perhaps nothing of it was read, and perhaps it is still being read.
            publisher.break_off();
        }
        let mut publisher = RawClient::connected_with(&node, &asked);
        for id in 1..=10 {
            publisher.send_publish(&Publish { dup: true, ..publish_2(id, "a", b"x") });
        }
        (1..=10).for_each(|id| publisher.expect_pubrec(id));
        (1..=10).for_each(|id| publisher.release(id));
        (1..=10).for_each(|id| publisher.expect_pubcomp(id));
        wanted += 10;
        assert_eq!(records(place), wanted, "{version:?}");
    }
}

/// [MQTT-4.3.3-10]
fn a_publish_that_got_its_pubrec_is_one_record(place: &Place) {
    let node = place.start();
    for (round, version) in (1..).zip(ALL_VERSIONS) {
        let client_id = format!("publisher-{version:?}");
        let asked = lasting(version, &client_id);
        let mut publisher = RawClient::connected_with(&node, &asked);
        publisher.send_publish(&publish_2(7, "a", b"x"));
        publisher.expect_pubrec(7);
        for _ in 0..3 {
            publisher.break_off();
            publisher = RawClient::connected_with(&node, &asked);
            publisher.send_publish(&Publish { dup: true, ..publish_2(7, "a", b"x") });
            publisher.expect_pubrec(7);
        }
        publisher.release(7);
        publisher.expect_pubcomp(7);
        assert_eq!(records(place), round);
    }
}

/// [MQTT-4.4.0-1]
fn a_pubrel_that_got_no_pubcomp_is_answered(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let client_id = format!("publisher-{version:?}");
        let asked = lasting(version, &client_id);
        for round in 0..10 {
            let mut publisher = RawClient::connected_with(&node, &asked);
            publisher.send_publish(&publish_2(7, "a", b"x"));
            publisher.expect_pubrec(7);
            publisher.release(7);
            publisher.break_off();
            let mut publisher = RawClient::connected_with(&node, &asked);
            publisher.release(7);
            // Whether the first one was read or not: 0x92 says that the id is free, which is what the client wants.
            let frame = publisher.expect();
            let comp = matches!(frame.packet(), Packet::PubComp(comp) if comp.packet_id.get() == 7);
            assert!(comp, "{:?} in round {round}", frame.packet());
            publisher.vanish(&node);
        }
    }
    assert_eq!(records(place), 20);
}

/// [MQTT-4.3.3-12]: after PUBREL the same id stands for another message, also on the next connection.
fn an_id_that_was_released_is_a_new_message(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let client_id = format!("publisher-{version:?}");
        let asked = lasting(version, &client_id);
        let mut publisher = RawClient::connected_with(&node, &asked);
        for _ in 0..5 {
            publisher.send_publish(&publish_2(7, "a", b"x"));
            publisher.expect_pubrec(7);
            publisher.release(7);
            publisher.expect_pubcomp(7);
            publisher.break_off();
            publisher = RawClient::connected_with(&node, &asked);
        }
        // DUP: it was sent before, and lost on its way.
        publisher.send_publish(&Publish { dup: true, ..publish_2(7, "a", b"x") });
        publisher.expect_pubrec(7);
        publisher.release(7);
        publisher.expect_pubcomp(7);
    }
    assert_eq!(records(place), 12);
}

/// [MQTT-4.4.0-1, 4.3.2-4]: it may be there twice, and must be there once.
fn a_qos_1_publish_that_got_no_puback_is_acknowledged(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let client_id = format!("publisher-{version:?}");
        let asked = lasting(version, &client_id);
        let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected_with(&node, &asked);
        publisher.send_publish(&publish_1(7, "a", b"x"));
        publisher.break_off();
        let mut publisher = RawClient::connected_with(&node, &asked);
        publisher.send_publish(&Publish { dup: true, ..publish_1(7, "a", b"x") });
        publisher.expect_puback(7);
        subscriber.expect_text("a", "x");
    }
}

/// The ids of a client that releases late, as some do.
fn many_unreleased_publishes_survive_many_breaks(place: &Place) {
    const IDS: u16 = 60;
    let node = place.start_with(&[("topics.messages.partitions", "4")]);
    let asked = lasting(V311, "publisher");
    let topics = ["a", "b", "c", "d", "e"];
    let topic = |id: u16| topics[usize::from(id) % topics.len()];
    let mut publisher = RawClient::connected_with(&node, &asked);
    for id in 1..=IDS {
        publisher.send_publish(&publish_2(id, topic(id), b"x"));
        if id % 10 == 0 {
            publisher.break_off();
            publisher = RawClient::connected_with(&node, &asked);
            for id in 1..=id {
                publisher.send_publish(&Publish { dup: true, ..publish_2(id, topic(id), b"x") });
            }
            (1..=id).for_each(|id| publisher.expect_pubrec(id));
        }
    }
    (1..=IDS).for_each(|id| publisher.release(id));
    (1..=IDS).for_each(|id| publisher.expect_pubcomp(id));
    assert_eq!(records(place), usize::from(IDS));
}
