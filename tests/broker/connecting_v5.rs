//! CONNECT, CONNACK and DISCONNECT as only MQTT 5 has them.

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Packet, QoS};
use millrace::mqtt::properties::UserProperties;

use crate::fixture::Place;
use crate::packets::{V5, connect, disconnect};
use crate::raw::RawClient;

on_both_journals![
    connack_tells_the_limits_of_the_server,
    an_assigned_client_id_is_told_and_can_be_used,
    a_keep_alive_above_the_limit_is_lowered_and_told,
    a_keep_alive_within_the_limit_is_not_mentioned,
    enhanced_authentication_is_refused,
    an_auth_packet_without_a_method_ends_the_connection,
    a_broken_connect_gets_its_reason,
    a_zero_receive_maximum_is_refused,
    user_properties_of_connect_are_harmless,
    problem_information_may_be_declined,
    an_expiry_that_appears_only_in_disconnect_is_a_protocol_error,
    a_reason_of_the_server_alone_in_disconnect_is_refused,
    a_packet_type_of_the_server_alone_is_refused,
    connack_of_mqtt_5_is_at_most_what_the_client_takes,
];

/// MQTT5 §3.2.2.3 [MQTT-3.2.2-9, 3.2.2-13].
fn connack_tells_the_limits_of_the_server(place: &Place) {
    let node = place.start_with(&[
        ("limits.receive_maximum", "7"),
        ("limits.packet_bytes_max", "20KiB"),
        ("limits.topic_alias_maximum", "3"),
    ]);
    let mut client = RawClient::open(&node, V5);
    client.send_connect(&connect(V5, "a"));
    client.expect_connack(|connack| {
        let told = &connack.properties;
        assert_eq!(told.receive_maximum.map(std::num::NonZero::get), Some(7));
        assert_eq!(told.maximum_packet_bytes, Some(20 * 1024));
        assert_eq!(told.topic_alias_maximum, Some(3));
        assert_eq!(told.shared_subscription_available, Some(false));
        // Absent means 2, as asked, and yes.
        assert_eq!(told.maximum_qos, None);
        assert_eq!(told.session_expiry_s, None);
        assert_ne!(told.retain_available, Some(false));
        assert_ne!(told.wildcard_subscription_available, Some(false));
        assert_ne!(told.subscription_ids_available, Some(false));
        assert_eq!(told.assigned_client_id, None);
    });
}

/// [MQTT-3.1.3-6, 3.1.3-7, 3.2.2-16]
fn an_assigned_client_id_is_told_and_can_be_used(place: &Place) {
    let node = place.start();
    let assigned = |client: &mut RawClient| {
        let mut id = None;
        client.expect_connack(|connack| id = connack.properties.assigned_client_id.map(str::to_owned));
        id.unwrap()
    };
    let mut first = RawClient::open(&node, V5);
    first.send_connect(&connect(V5, ""));
    let id = assigned(&mut first);
    let mut second = RawClient::open(&node, V5);
    second.send_connect(&connect(V5, ""));
    assert_ne!(assigned(&mut second), id);

    let mut third = RawClient::connected(&node, V5, &id);
    first.expect_end(ReasonCode::SessionTakenOver);
    third.expect_nothing_before_pingresp();
    second.expect_nothing_before_pingresp();
}

/// [MQTT-3.1.2-21, 3.2.2-21, 3.2.2-22]: no keep-alive at all is above the limit, too.
fn a_keep_alive_above_the_limit_is_lowered_and_told(place: &Place) {
    let node = place.start_with(&[("limits.keep_alive_max", "2m")]);
    for asked_s in [0, 121, u16::MAX] {
        let mut client = RawClient::open(&node, V5);
        let mut asked = connect(V5, "a");
        asked.keep_alive_s = asked_s;
        client.send_connect(&asked);
        client.expect_connack(|connack| assert_eq!(connack.properties.server_keep_alive_s, Some(120)));
    }
}

/// [MQTT-3.2.2-22]: then the client's own counts.
fn a_keep_alive_within_the_limit_is_not_mentioned(place: &Place) {
    let node = place.start_with(&[("limits.keep_alive_max", "2m")]);
    for asked_s in [1, 120] {
        let mut client = RawClient::open(&node, V5);
        let mut asked = connect(V5, "a");
        asked.keep_alive_s = asked_s;
        client.send_connect(&asked);
        client.expect_connack(|connack| assert_eq!(connack.properties.server_keep_alive_s, None));
    }
}

/// [MQTT-4.12.0-1]: a method that the server does not have is answered with 0x8C.
fn enhanced_authentication_is_refused(place: &Place) {
    let node = place.start();
    let mut client = RawClient::open(&node, V5);
    let mut asked = connect(V5, "a");
    asked.properties.authentication_method = Some("SCRAM-SHA-256");
    asked.properties.authentication_data = Some(b"n,,n=user");
    client.send_connect(&asked);
    client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::BadAuthenticationMethod));
    client.expect_closed();
}

/// [MQTT-4.12.0-7]: who did not authenticate so may not send AUTH.
fn an_auth_packet_without_a_method_ends_the_connection(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "a");
    // Re-authenticate, with the method "x".
    client.send_bytes(&[0xF0, 6, 0x19, 4, 0x15, 0, 1, b'x']);
    client.expect_end(ReasonCode::ProtocolError);
}

/// [MQTT-3.1.4-1, 3.1.4-2, 4.13.1-1]: MQTT 5 has a reason for everything, so CONNACK names it.
fn a_broken_connect_gets_its_reason(place: &Place) {
    let node = place.start();
    // Clean start, keep-alive 60, then properties and client id.
    let cases: [(&[u8], ReasonCode); 4] = [
        // U+0000 in the client id [MQTT-1.5.4-2].
        (&[0, 0, 1, 0], ReasonCode::MalformedPacket),
        // Not UTF-8 [MQTT-1.5.4-1].
        (&[0, 0, 2, 0xC3, 0x28], ReasonCode::MalformedPacket),
        // Session expiry twice (§3.1.2.11.2).
        (&[10, 0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1, 0, 1, b'a'], ReasonCode::ProtocolError),
        // Bytes behind the end.
        (&[0, 0, 1, b'a', 9], ReasonCode::MalformedPacket),
    ];
    for (tail, reason) in cases {
        let mut client = RawClient::open(&node, V5);
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60];
        body.extend_from_slice(tail);
        let mut bytes = vec![0x10, u8::try_from(body.len()).unwrap()];
        bytes.extend_from_slice(&body);
        client.send_bytes(&bytes);
        client.expect_connack(|connack| assert_eq!((connack.reason, connack.session_present), (reason, false)));
        client.expect_closed();
    }
}

/// MQTT5 §3.1.2.11.3
fn a_zero_receive_maximum_is_refused(place: &Place) {
    let node = place.start();
    let mut client = RawClient::open(&node, V5);
    client.send_bytes(&[0x10, 17, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 3, 0x21, 0, 0, 0, 1, b'a']);
    client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::ProtocolError));
    client.expect_closed();
}

/// MQTT5 §3.1.2.11.8: their meaning is not defined by the protocol.
fn user_properties_of_connect_are_harmless(place: &Place) {
    let node = place.start();
    let mut asked = connect(V5, "a");
    let pairs = [("a", "1"), ("a", "2"), ("", "")];
    asked.properties.user_properties = UserProperties::Pairs(&pairs);
    RawClient::connected_with(&node, &asked).expect_nothing_before_pingresp();
}

/// [MQTT-3.1.2-28, 3.1.2-29]: no answer has a reason string or user property then; `expect_*` decodes all of it.
fn problem_information_may_be_declined(place: &Place) {
    let node = place.start();
    let mut asked = connect(V5, "a");
    asked.properties.request_problem_information = Some(false);
    asked.properties.request_response_information = Some(true);
    let mut client = RawClient::open(&node, V5);
    client.send_connect(&asked);
    client.expect_connack(|connack| {
        assert_eq!(connack.reason, ReasonCode::Success);
        // [MQTT-3.1.2-28] lets a server decline.
        assert_eq!(connack.properties.response_information, None);
    });
    let id = client.next_id();
    client.send(&crate::packets::subscribe(id, "a/#/b", QoS::AtMostOnce));
    let frame = client.expect();
    let Packet::SubAck(suback) = frame.packet() else { panic!("no SUBACK") };
    assert_eq!((suback.properties.reason_string, suback.properties.user_properties.is_empty()), (None, true));
}

/// [MQTT-3.14.2-2]
fn an_expiry_that_appears_only_in_disconnect_is_a_protocol_error(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "a");
    client.send_bytes(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]);
    client.expect_end(ReasonCode::ProtocolError);
}

/// [MQTT-3.14.2-1]: 0x8B, Server shutting down, is not the client's to say.
fn a_reason_of_the_server_alone_in_disconnect_is_refused(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "a");
    client.send(&disconnect(ReasonCode::ServerShuttingDown));
    client.expect_end(ReasonCode::ProtocolError);
}

/// MQTT5 §2.1.2, table 2-1.
fn a_packet_type_of_the_server_alone_is_refused(place: &Place) {
    let node = place.start();
    for bytes in [&[0x20, 3, 0, 0, 0][..], &[0x90, 4, 0, 1, 0, 0], &[0xB0, 4, 0, 1, 0, 0], &[0xD0, 0]] {
        let mut client = RawClient::connected(&node, V5, "a");
        client.send_bytes(bytes);
        client.expect_end(ReasonCode::ProtocolError);
    }
}

/// [MQTT-3.1.2-24]: the smallest Maximum Packet Size that a CONNACK fits in is kept to.
fn connack_of_mqtt_5_is_at_most_what_the_client_takes(place: &Place) {
    let node = place.start();
    let mut asked = connect(V5, "small");
    asked.properties.maximum_packet_bytes = Some(40);
    let mut client = RawClient::open(&node, V5);
    client.send_connect(&asked);
    let frame = client.expect();
    assert!(client.wire(&frame.packet()).len() <= 40);
    client.expect_nothing_before_pingresp();
}
