//! TCP is a stream: packets come in any pieces, and broken ones cost only their own connection.

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Packet, QoS};

use crate::fixture::Place;
use crate::packets::{ALL_VERSIONS, V5, V311, V311_AND_V5, connect, publish, publish_1, subscribe};
use crate::raw::RawClient;

on_both_journals![
    packets_may_come_byte_by_byte,
    a_whole_conversation_may_come_in_one_write,
    half_a_packet_is_held_while_others_go_on,
    a_packet_may_end_in_the_middle_of_a_write,
    a_broken_packet_ends_its_connection_and_no_other,
    an_overlong_length_is_refused,
    a_length_of_five_bytes_is_refused,
    text_that_is_not_utf_8_is_refused,
    a_null_character_is_refused,
    an_unknown_property_is_refused,
    what_comes_before_a_broken_packet_is_done,
    a_connection_that_is_cut_within_a_packet_loses_that_packet_only,
    many_clients_come_and_go,
];

/// MQTT5 §4.2: an ordered stream of bytes, nothing more.
fn packets_may_come_byte_by_byte(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::open(&node, version);
        let packets =
            [Packet::Connect(Box::new(connect(version, "slow"))), subscribe(1, "a", QoS::AtMostOnce), Packet::PingReq];
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| client.wire(packet)).collect();
        bytes.chunks(1).for_each(|byte| client.send_bytes(byte));
        client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::Success));
        client.expect();
        client.expect();
        let bytes = client.wire(&Packet::Publish(publish("a", b"bytes")));
        bytes.chunks(1).for_each(|byte| client.send_bytes(byte));
        client.expect_text("a", "bytes");
    }
}

/// MQTT5 §3.1.4: a client may send before CONNACK has come.
fn a_whole_conversation_may_come_in_one_write(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::subscribed(&node, version, "a/#", QoS::AtLeastOnce);
        let client_id = format!("hasty-{version:?}");
        let mut client = RawClient::open(&node, version);
        let packets = [
            Packet::Connect(Box::new(connect(version, &client_id))),
            subscribe(1, "b", QoS::AtLeastOnce),
            Packet::Publish(publish_1(2, "a/1", b"1")),
            Packet::Publish(publish("a/1", b"2")),
            Packet::PingReq,
            crate::packets::disconnect(ReasonCode::Success),
        ];
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| client.wire(packet)).collect();
        client.send_bytes(&bytes);
        client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::Success));
        subscriber.expect_text("a/1", "1");
        subscriber.expect_text("a/1", "2");
    }
}

/// A client that is slow to send costs nobody else anything.
fn half_a_packet_is_held_while_others_go_on(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        let mut halting = RawClient::connected(&node, version, "halting");
        let mut fluent = RawClient::connected(&node, version, "fluent");
        let bytes = halting.wire(&Packet::Publish(publish_1(5, "a", b"halting")));
        for cut in 1..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            halting.send_bytes(first);
            fluent.publish("a", "fluent");
            subscriber.expect_text("a", "fluent");
            halting.send_bytes(second);
            halting.expect_puback(5);
            subscriber.expect_text("a", "halting");
        }
    }
}

/// One and a half packets in one write.
fn a_packet_may_end_in_the_middle_of_a_write(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V311, "a");
    let large = vec![b'x'; 150_000];
    let whole = client.wire(&Packet::Publish(publish_1(1, "a", &large)));
    let next = client.wire(&Packet::Publish(publish_1(2, "a", &large)));
    let (first, second) = next.split_at(80_000);
    client.send_bytes(&[&whole, first].concat());
    client.expect_puback(1);
    client.send_bytes(second);
    client.expect_puback(2);
}

/// [MQTT-4.8.0-1, 4.13.1-1]: reason, close, and nobody else notices.
fn a_broken_packet_ends_its_connection_and_no_other(place: &Place) {
    let node = place.start();
    let mut bystander = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let broken: [(&[u8], ReasonCode); 6] = [
        // Packet type 0.
        (&[0x00, 0], ReasonCode::MalformedPacket),
        // QoS 3 [MQTT-3.3.1-4].
        (&[0x36, 5, 0, 1, b'a', 0, 1], ReasonCode::MalformedPacket),
        // DUP with QoS 0 [MQTT-3.3.1-2].
        (&[0x38, 4, 0, 1, b'a', 0], ReasonCode::MalformedPacket),
        // PINGREQ with a body.
        (&[0xC0, 1, 0], ReasonCode::MalformedPacket),
        // A topic longer than its packet.
        (&[0x30, 4, 0, 99, b'a', 0], ReasonCode::MalformedPacket),
        // PUBREL with wrong flags [MQTT-3.6.1-1].
        (&[0x60, 2, 0, 1], ReasonCode::MalformedPacket),
    ];
    for version in V311_AND_V5 {
        for (bytes, reason) in broken {
            let mut client = RawClient::connected(&node, version, "broken");
            client.send_bytes(bytes);
            client.expect_end(reason);
        }
    }
    RawClient::connected(&node, V5, "publisher").publish("a", "fine");
    bystander.expect_text("a", "fine");
}

/// [MQTT-1.5.5-1]
fn an_overlong_length_is_refused(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "a");
    client.send_bytes(&[0xC0, 0x80, 0x00]);
    client.expect_end(ReasonCode::MalformedPacket);
}

/// MQTT5 §2.1.4: four bytes at most.
fn a_length_of_five_bytes_is_refused(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut client = RawClient::connected(&node, version, "a");
        client.send_bytes(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
        client.expect_end(ReasonCode::MalformedPacket);
    }
}

/// [MQTT-1.5.4-1]
fn text_that_is_not_utf_8_is_refused(place: &Place) {
    let node = place.start();
    for topic in [[0xC3, 0x28, b'x'], [0xED, 0xA0, 0x80], [b'x', b'x', 0xFF]] {
        let [a, b, c] = topic;
        let mut client = RawClient::connected(&node, V311, "a");
        client.send_bytes(&[0x30, 6, 0, 3, a, b, c, b'p']);
        client.expect_closed();
        let mut client = RawClient::connected(&node, V5, "a");
        client.send_bytes(&[0x30, 7, 0, 3, a, b, c, 0, b'p']);
        client.expect_end(ReasonCode::MalformedPacket);
    }
}

/// [MQTT-1.5.4-2]
fn a_null_character_is_refused(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V311, "a");
    client.send_bytes(&[0x30, 5, 0, 2, b'a', 0, b'p']);
    client.expect_closed();
    let mut client = RawClient::connected(&node, V5, "a");
    client.send_bytes(&[0x30, 6, 0, 2, b'a', 0, 0, b'p']);
    client.expect_end(ReasonCode::MalformedPacket);
}

/// MQTT5 §2.2.2.2
fn an_unknown_property_is_refused(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "a");
    client.send_bytes(&[0x30, 6, 0, 1, b'a', 2, 0x7F, 0]);
    client.expect_end(ReasonCode::MalformedPacket);
}

/// What was whole and right in the same write is not lost.
fn what_comes_before_a_broken_packet_is_done(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::subscribed(&node, version, "a", QoS::AtLeastOnce);
        let mut client = RawClient::connected(&node, version, "broken");
        let good = client.wire(&Packet::Publish(publish("a", b"good")));
        client.send_bytes(&[&good[..], &[0x00, 0x00]].concat());
        subscriber.expect_text("a", "good");
        client.expect_end(ReasonCode::MalformedPacket);
    }
}

/// Half a PUBLISH is no PUBLISH.
fn a_connection_that_is_cut_within_a_packet_loses_that_packet_only(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V311, "a", QoS::AtLeastOnce);
    let mut client = RawClient::connected(&node, V311, "cut");
    let packets = [b"whole", b"half!"].map(|payload| client.wire(&Packet::Publish(publish("a", payload))));
    let bytes = packets.concat();
    client.send_bytes(&bytes[..bytes.len() - 1]);
    subscriber.expect_text("a", "whole");
    client.break_off();
    RawClient::connected(&node, V311, "publisher").publish("a", "marker");
    subscriber.expect_text("a", "marker");
}

/// Nothing of one connection sticks to the next.
fn many_clients_come_and_go(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    for round in 0..200 {
        let version = ALL_VERSIONS[round % 3];
        let mut client = RawClient::connected(&node, version, &format!("client-{}", round % 5));
        let text = round.to_string();
        match round % 4 {
            0 => client.publish("a", &text),
            1 => client.subscribe("#", QoS::AtLeastOnce),
            2 => client.send_bytes(&[0x30, 100, 0]),
            _ => {}
        }
        if round % 4 == 0 {
            subscriber.expect_text("a", &text);
        }
        client.break_off();
    }
    subscriber.expect_nothing_before_pingresp();
}
