//! PUBLISH to clients: windows, packet ids, limits of the client.

use std::num::NonZeroU16;

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Packet, QoS};

use crate::fixture::Place;
use crate::packets::{V5, V311, V311_AND_V5, ack, connect, packet_id};
use crate::raw::RawClient;

on_both_journals![
    no_more_is_in_flight_than_the_client_takes,
    the_window_opens_with_each_puback,
    packet_ids_in_flight_differ,
    pubacks_in_another_order_are_taken,
    a_puback_of_an_unknown_id_is_harmless,
    a_pubrec_of_an_unknown_id_is_answered,
    a_failed_puback_still_settles_its_message,
    a_message_too_large_for_a_client_is_left_out_for_it,
    a_message_is_not_sent_again_on_the_same_connection,
    both_ways_at_once,
];

/// [MQTT-3.3.4-7, 4.9.0-1]
fn no_more_is_in_flight_than_the_client_takes(place: &Place) {
    let node = place.start();
    let mut asked = connect(V5, "narrow");
    asked.properties.receive_maximum = NonZeroU16::new(2);
    let mut narrow = RawClient::connected_with(&node, &asked);
    narrow.subscribe("a", QoS::AtLeastOnce);
    let mut wide = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    (0..5).for_each(|n| publisher.publish("a", n.to_string()));
    // Once another subscriber has all of them, they wait for this one, too.
    (0..5).for_each(|n| drop(wide.expect_text("a", &n.to_string())));
    let first = narrow.expect_unacknowledged();
    let second = narrow.expect_unacknowledged();
    assert_eq!((first.text(), second.text()), ("0", "1"));
    // [MQTT-4.9.0-2, 4.9.0-3]: other packets are not held up.
    narrow.expect_nothing_before_pingresp();
    narrow.subscribe("b", QoS::AtMostOnce);
    narrow.acknowledge(&first);
    let third = narrow.expect_unacknowledged();
    assert_eq!(third.text(), "2");
    narrow.expect_nothing_before_pingresp();
    for message in [second, third] {
        narrow.acknowledge(&message);
    }
    narrow.expect_text("a", "3");
    narrow.expect_text("a", "4");
}

/// [MQTT-4.9.0-1]: with a window of one, one after the other.
fn the_window_opens_with_each_puback(place: &Place) {
    let node = place.start();
    let mut asked = connect(V5, "one");
    asked.properties.receive_maximum = NonZeroU16::new(1);
    let mut one = RawClient::connected_with(&node, &asked);
    one.subscribe("a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    (0..50).for_each(|n| publisher.publish("a", n.to_string()));
    (0..50).for_each(|n| drop(one.expect_text("a", &n.to_string())));
}

/// [MQTT-2.2.1-4]
fn packet_ids_in_flight_differ(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        (0..40).for_each(|n| publisher.publish("a", n.to_string()));
        let mut ids: Vec<u16> =
            (0..40).map(|_| subscriber.expect_unacknowledged().delivery.packet_id().unwrap().get()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 40);
    }
}

/// [MQTT-4.6.0-2] is the client's duty; a client that errs loses nothing.
fn pubacks_in_another_order_are_taken(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for _ in 0..5 {
            (0..60).for_each(|n| publisher.publish("a", n.to_string()));
            let got: Vec<_> = (0..60).map(|_| subscriber.expect_unacknowledged()).collect();
            let texts: Vec<&str> = got.iter().map(super::raw::Message::text).collect();
            assert_eq!(texts, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
            got.iter().rev().for_each(|message| subscriber.acknowledge(message));
        }
    }
}

/// MQTT5 §4.3.2: nothing waits for it.
fn a_puback_of_an_unknown_id_is_harmless(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut client = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        client.send(&Packet::PubAck(ack(packet_id(4_711))));
        client.expect_nothing_before_pingresp();
        RawClient::connected(&node, version, "publisher").publish("a", "x");
        client.expect_text("a", "x");
    }
}

/// MQTT5 §4.3.3: PUBREL, with 0x92 in MQTT 5.
fn a_pubrec_of_an_unknown_id_is_answered(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut client = RawClient::connected(&node, version, "a");
        client.send(&Packet::PubRec(ack(packet_id(7))));
        let frame = client.expect();
        let Packet::PubRel(pubrel) = frame.packet() else { panic!("no PUBREL") };
        let wanted = if version == V5 { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        assert_eq!((pubrel.packet_id.get(), pubrel.reason), (7, wanted));
    }
}

/// [MQTT-4.4.0-2]: whatever its reason code, a PUBACK ends the exchange.
fn a_failed_puback_still_settles_its_message(place: &Place) {
    let node = place.start();
    let mut asked = connect(V5, "one");
    asked.properties.receive_maximum = NonZeroU16::new(1);
    let mut one = RawClient::connected_with(&node, &asked);
    one.subscribe("a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for text in ["1", "2"] {
        publisher.publish("a", text);
    }
    let first = one.expect_unacknowledged();
    let mut refused = ack(first.delivery.packet_id().unwrap());
    refused.reason = ReasonCode::UnspecifiedError;
    one.send(&Packet::PubAck(refused));
    one.expect_text("a", "2");
}

/// [MQTT-3.1.2-24, 3.1.2-25]: as if it had been delivered; for others it is.
fn a_message_too_large_for_a_client_is_left_out_for_it(place: &Place) {
    let node = place.start();
    let mut asked = connect(V5, "small");
    asked.properties.maximum_packet_bytes = Some(100);
    asked.properties.receive_maximum = NonZeroU16::new(1);
    let mut small = RawClient::connected_with(&node, &asked);
    small.subscribe("a", QoS::AtLeastOnce);
    let mut large = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    let long = "x".repeat(100);
    for text in [long.as_str(), "1", long.as_str(), long.as_str(), "2"] {
        publisher.publish("a", text);
        large.expect_text("a", text);
    }
    small.expect_text("a", "1");
    small.expect_text("a", "2");
}

/// [MQTT-4.4.0-1]: only a new connection of the same session would resend.
fn a_message_is_not_sent_again_on_the_same_connection(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.publish("a", "1");
        let unacknowledged = subscriber.expect_unacknowledged();
        publisher.publish("a", "2");
        subscriber.expect_text("a", "2");
        subscriber.expect_nothing_before_pingresp();
        subscriber.acknowledge(&unacknowledged);
        subscriber.expect_nothing_before_pingresp();
    }
}

/// Packet ids of both directions are apart (MQTT5 §2.2.1).
fn both_ways_at_once(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut client = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        for id in 1..=100 {
            let text = id.to_string();
            client.send_publish(&crate::packets::publish_1(id, "a", text.as_bytes()));
            let (mut acked, mut delivered) = (false, false);
            while !(acked && delivered) {
                let frame = client.expect();
                match frame.packet() {
                    Packet::PubAck(puback) => acked = puback.packet_id.get() == id,
                    Packet::Publish(message) => {
                        delivered = message.payload == text.as_bytes();
                        let id = message.delivery.packet_id().unwrap();
                        client.send(&Packet::PubAck(ack(id)));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
