//! CONNECT and CONNACK, in every version.

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Packet, QoS};

use crate::fixture::{Place, TestNode};
use crate::packets::{ALL_VERSIONS, V5, V31, V311, V311_AND_V5, connect, publish, subscribe};
use crate::raw::RawClient;

on_both_journals![
    a_connect_of_every_version_is_accepted_without_a_session,
    the_first_packet_must_be_connect,
    a_second_connect_ends_the_connection,
    another_protocol_name_is_closed_without_an_answer,
    an_unknown_level_is_refused_and_closed,
    reserved_connect_flags_end_the_connection,
    an_empty_client_id_is_refused_where_it_must_be,
    an_empty_client_id_with_a_clean_session_is_served,
    a_client_id_of_23_characters_is_accepted,
    a_client_id_that_is_too_long_is_refused,
    a_connect_above_its_limit_is_closed_before_it_is_whole,
    no_connect_in_time_ends_the_connection,
    a_newer_connection_takes_the_client_id_over,
    a_take_over_across_versions_ends_the_older_connection,
    subscriptions_do_not_outlive_a_clean_session,
    packets_behind_connect_are_served_without_waiting_for_connack,
    user_name_and_password_are_taken_and_not_needed,
    disconnect_ends_the_connection,
];

/// [MQTT-3.2.0-1, 3.2.0-2, 3.2.2-2]
fn a_connect_of_every_version_is_accepted_without_a_session(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::open(&node, version);
        client.send_connect(&connect(version, "a"));
        client.expect_connack(|connack| {
            assert_eq!((connack.reason, connack.session_present), (ReasonCode::Success, false));
        });
        client.expect_nothing_before_pingresp();
    }
}

/// [MQTT-3.1.0-1]
fn the_first_packet_must_be_connect(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let publish = Packet::Publish(publish("a", b"b"));
        for packet in [Packet::PingReq, publish, subscribe(1, "a", QoS::AtMostOnce)] {
            let mut client = RawClient::open(&node, version);
            client.send(&packet);
            client.expect_closed();
        }
    }
}

/// [MQTT-3.1.0-2]
fn a_second_connect_ends_the_connection(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::connected(&node, version, "twice");
        client.send_connect(&connect(version, "twice"));
        client.expect_end(ReasonCode::ProtocolError);
    }
}

/// [MQTT-3.1.2-1]
fn another_protocol_name_is_closed_without_an_answer(place: &Place) {
    let node = place.start();
    for name in [&b"MQXX"[..], b"mqtt", b"AMQP", b"HTTP"] {
        let mut client = RawClient::open(&node, V311);
        let mut bytes = vec![0x10, 13, 0, 4];
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&[4, 2, 0, 60, 0, 1, b'a']);
        client.send_bytes(&bytes);
        client.expect_closed();
    }
}

/// [MQTT-3.1.2-2]: a level above 5 is answered in MQTT 5, others with return code 1.
fn an_unknown_level_is_refused_and_closed(place: &Place) {
    let node = place.start();
    for (level, version) in [(3, V311), (6, V5), (0, V311)] {
        let mut client = RawClient::open(&node, version);
        client.send_bytes(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 60, 0, 1, b'a']);
        client.expect_connack(|connack| {
            assert_eq!((connack.reason, connack.session_present), (ReasonCode::UnsupportedProtocolVersion, false));
        });
        client.expect_closed();
    }
}

/// [MQTT-3.1.2-3]: the lowest bit of the connect flags is reserved.
fn reserved_connect_flags_end_the_connection(place: &Place) {
    let node = place.start();
    let mut client = RawClient::open(&node, V311);
    client.send_bytes(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 3, 0, 60, 0, 1, b'a']);
    client.expect_closed();
    let mut client = RawClient::open(&node, V5);
    client.send_bytes(&[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 3, 0, 60, 0, 0, 1, b'a']);
    client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::MalformedPacket));
    client.expect_closed();
}

/// [MQTT-3.1.3-8, 3.1.3-9 of 3.1.1]: without a clean session there must be an id. 3.1 always wants one.
fn an_empty_client_id_is_refused_where_it_must_be(place: &Place) {
    let node = place.start();
    for (version, clean_start) in [(V311, false), (V31, true), (V31, false)] {
        let mut client = RawClient::open(&node, version);
        let mut asked = connect(version, "");
        asked.clean_start = clean_start;
        client.send_connect(&asked);
        client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::ClientIdentifierNotValid));
        client.expect_closed();
    }
}

/// [MQTT-3.1.3-6, 3.1.3-7]: each of them gets an id of its own.
fn an_empty_client_id_with_a_clean_session_is_served(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut first = RawClient::connected(&node, version, "");
        let mut second = RawClient::connected(&node, version, "");
        first.expect_nothing_before_pingresp();
        second.expect_nothing_before_pingresp();
    }
}

/// [MQTT-3.1.3-5]
fn a_client_id_of_23_characters_is_accepted(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        RawClient::connected(&node, version, "0123456789abcdefghijKLM").expect_nothing_before_pingresp();
    }
}

fn a_client_id_that_is_too_long_is_refused(place: &Place) {
    let node = place.start_with(&[("limits.client_id_bytes_max", "24")]);
    for (version, length) in [(V311, 25), (V5, 25), (V31, 24)] {
        let mut client = RawClient::open(&node, version);
        client.send_connect(&connect(version, &"x".repeat(length)));
        client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::ClientIdentifierNotValid));
        client.expect_closed();
    }
}

/// A client that is not known yet gets no memory for what it announces.
fn a_connect_above_its_limit_is_closed_before_it_is_whole(place: &Place) {
    let node = place.start_with(&[("limits.connect_bytes_max", "200")]);
    let mut client = RawClient::open(&node, V311);
    // 128 MiB are announced.
    client.send_bytes(&[0x10, 0x80, 0x80, 0x80, 0x40, 0, 4, b'M', b'Q', b'T', b'T', 4]);
    client.expect_closed();
    RawClient::connected(&node, V311, &"x".repeat(100)).expect_nothing_before_pingresp();
}

/// [MQTT-3.1.4-1 of 3.1.1, §3.1.4]: neither silence nor half a CONNECT holds a connection.
fn no_connect_in_time_ends_the_connection(place: &Place) {
    let node = place.start_with(&[("limits.connect_timeout", "300ms")]);
    let mut silent = RawClient::open(&node, V311);
    let mut half = RawClient::open(&node, V5);
    half.send_bytes(&[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5]);
    silent.expect_closed();
    half.expect_closed();
}

/// [MQTT-3.1.4-3]: MQTT 5 is told 0x8E.
fn a_newer_connection_takes_the_client_id_over(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut older = RawClient::connected(&node, version, "one");
        let mut newer = RawClient::connected(&node, version, "one");
        older.expect_end(ReasonCode::SessionTakenOver);
        newer.expect_nothing_before_pingresp();
        let mut newest = RawClient::connected(&node, version, "one");
        newer.expect_end(ReasonCode::SessionTakenOver);
        newest.expect_nothing_before_pingresp();
    }
}

/// [MQTT-3.1.4-3]
fn a_take_over_across_versions_ends_the_older_connection(place: &Place) {
    let node = place.start();
    for (old, new) in [(V311, V5), (V5, V311), (V31, V5)] {
        let mut older = RawClient::connected(&node, old, "one");
        let mut newer = RawClient::connected(&node, new, "one");
        older.expect_end(ReasonCode::SessionTakenOver);
        newer.expect_nothing_before_pingresp();
    }
}

/// [MQTT-3.1.2-4, 3.1.2-6 of 3.1.1]: neither after DISCONNECT nor after a take-over.
fn subscriptions_do_not_outlive_a_clean_session(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for version in V311_AND_V5 {
        let mut first = RawClient::connected(&node, version, "subscriber");
        first.subscribe("old", QoS::AtLeastOnce);
        let mut second = RawClient::connected(&node, version, "subscriber");
        first.expect_end(ReasonCode::SessionTakenOver);
        second.subscribe("new", QoS::AtLeastOnce);
        publisher.publish("old", "1");
        publisher.publish("new", "2");
        second.expect_text("new", "2");
    }
}

/// [MQTT-3.1.4-5, §3.1.4 non-normative]: a client need not wait for CONNACK.
fn packets_behind_connect_are_served_without_waiting_for_connack(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::open(&node, version);
        let packets = [
            Packet::Connect(Box::new(connect(version, "eager"))),
            subscribe(1, "eager", QoS::AtLeastOnce),
            Packet::PingReq,
        ];
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| client.wire(packet)).collect();
        client.send_bytes(&bytes);
        client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::Success));
        // PINGRESP may overtake the SUBACK, which waits for where the subscription starts.
        let mut answers = [client.expect(), client.expect()].map(|frame| frame.packet().packet_type());
        answers.sort();
        assert_eq!(answers, [millrace::mqtt::head::PacketType::SubAck, millrace::mqtt::head::PacketType::PingResp]);
    }
}

/// Anonymous access is on; credentials are no error.
fn user_name_and_password_are_taken_and_not_needed(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut asked = connect(version, "named");
        asked.username = Some("somebody");
        asked.password = Some(&[0, 0xff, 1]);
        RawClient::connected_with(&node, &asked).expect_nothing_before_pingresp();
    }
}

/// [MQTT-3.14.4-1, 3.14.4-2] are the client's; the server closes, too.
fn disconnect_ends_the_connection(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::connected(&node, version, "leaving");
        client.send(&crate::packets::disconnect(ReasonCode::Success));
        client.expect_closed();
        is_still_served(&node);
    }
}

fn is_still_served(node: &TestNode) {
    RawClient::connected(node, V311, "bystander").expect_nothing_before_pingresp();
}
