//! What the encoder leaves out, maps and refuses.

use std::borrow::Cow;

use bytes::BytesMut;
use millrace::mqtt::encode::{self, EncodeError};
use millrace::mqtt::head::Sender;
use millrace::mqtt::packet::{
    Ack, Auth, ConnAck, ConnAckProperties, Disconnect, PublishProperties, ReasonProperties, SubAck, Subscribe,
    SubscribeFilter, SubscribeOptions, UnsubAck,
};
use millrace::mqtt::properties::{SubscriptionIds, UserProperties};
use millrace::mqtt::{Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, decode};

const V5: ProtocolVersion = ProtocolVersion::V5;
const V311: ProtocolVersion = ProtocolVersion::V311;
const V31: ProtocolVersion = ProtocolVersion::V31;
const ID: PacketId = PacketId::new(1).unwrap();
const NO_LIMIT: usize = usize::MAX;

fn bytes(packet: &Packet<'_>, version: ProtocolVersion, limit: usize) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::from(&b"before"[..]);
    let result = encode::packet(packet, version, limit, &mut out);
    assert_eq!(&out[..6], b"before");
    assert!(result.is_ok() || out.len() == 6, "on an error nothing is written");
    result.map(|()| out[6..].to_vec())
}

fn both_properties() -> ReasonProperties<'static> {
    ReasonProperties { reason_string: Some("reason"), user_properties: UserProperties::Pairs(&[("k", "v")]) }
}

fn publish<'a>(topic: &'a str, properties: PublishProperties<'a>) -> Publish<'a> {
    Publish { dup: false, delivery: Delivery::AtMostOnce, retain: false, topic, properties, payload: b"x" }
}

fn connack(reason: ReasonCode) -> Packet<'static> {
    let properties = ConnAckProperties { receive_maximum: None, ..ConnAckProperties::default() };
    Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties }))
}

/// MQTT5 §3.4.2.2.2, §3.4.2.2.3: first the reason string goes, then the user properties, then it does not fit.
#[test]
fn answers_shrink_to_what_the_receiver_takes() {
    let ack = || Ack { packet_id: ID, reason: ReasonCode::NotAuthorized, properties: both_properties() };
    let answers = [
        Packet::PubAck(ack()),
        Packet::PubRec(ack()),
        Packet::PubRel(ack()),
        Packet::PubComp(ack()),
        Packet::SubAck(SubAck {
            packet_id: ID,
            properties: both_properties(),
            reasons: Cow::Borrowed(&[ReasonCode::Success]),
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: ID,
            properties: both_properties(),
            reasons: Cow::Borrowed(&[ReasonCode::Success]),
        }),
        Packet::Disconnect(Disconnect {
            reason: ReasonCode::SessionTakenOver,
            session_expiry_s: None,
            server_reference: None,
            properties: both_properties(),
        }),
        Packet::Auth(Auth {
            reason: ReasonCode::ContinueAuthentication,
            method: Some("K"),
            data: None,
            properties: both_properties(),
        }),
        Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            reason: ReasonCode::NotAuthorized,
            properties: ConnAckProperties {
                reason_string: Some("reason"),
                user_properties: UserProperties::Pairs(&[("k", "v")]),
                ..ConnAckProperties::default()
            },
        })),
    ];
    for answer in &answers {
        let whole = bytes(answer, V5, NO_LIMIT).unwrap();
        assert_eq!(encode::packet_bytes(answer, V5), Ok(whole.len()));
        assert_eq!(bytes(answer, V5, whole.len()).unwrap(), whole);
        let without_reason_string = bytes(answer, V5, whole.len() - 1).unwrap();
        assert_eq!(without_reason_string.len(), whole.len() - 9, "{answer:?}");
        let neither = bytes(answer, V5, without_reason_string.len() - 1).unwrap();
        assert!(neither.len() <= without_reason_string.len() - 7, "{answer:?}");
        let too_small = bytes(answer, V5, neither.len() - 1);
        let (limit, bytes) = (neither.len() - 1, neither.len());
        assert_eq!(too_small, Err(EncodeError::PacketTooLarge { bytes, limit }));
    }
}

#[test]
fn an_answer_that_lost_its_properties_takes_its_shortest_form() {
    let ack = Ack { packet_id: ID, reason: ReasonCode::NotAuthorized, properties: both_properties() };
    assert_eq!(bytes(&Packet::PubAck(ack), V5, 5).unwrap(), b"\x40\x03\x00\x01\x87");
    let disconnect = Disconnect {
        reason: ReasonCode::SessionTakenOver,
        session_expiry_s: None,
        server_reference: None,
        properties: both_properties(),
    };
    assert_eq!(bytes(&Packet::Disconnect(disconnect), V5, 3).unwrap(), b"\xE0\x01\x8E");
}

#[test]
fn what_an_answer_must_say_stays() {
    let connack = Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnAckProperties {
            assigned_client_id: Some("auto"),
            reason_string: Some("reason"),
            ..ConnAckProperties::default()
        },
    }));
    let short = bytes(&connack, V5, 12).unwrap();
    let Ok(Packet::ConnAck(decoded)) = decode::packet(&short, Some(V5), Sender::Server) else { panic!() };
    assert_eq!(decoded.properties.assigned_client_id, Some("auto"));
    assert_eq!(decoded.properties.reason_string, None);
}

/// MQTT5 §3.3.2.3.7: the user properties of an application message belong to it.
#[test]
fn a_publish_never_shrinks() {
    let properties = PublishProperties { user_properties: UserProperties::Pairs(&[("k", "v")]), ..Default::default() };
    let packet = Packet::Publish(publish("t", properties));
    let whole = bytes(&packet, V5, NO_LIMIT).unwrap();
    let (bytes_needed, limit) = (whole.len(), whole.len() - 1);
    assert_eq!(bytes(&packet, V5, limit), Err(EncodeError::PacketTooLarge { bytes: bytes_needed, limit }));
}

#[test]
fn properties_and_reasons_do_not_exist_in_3() {
    let ack = Ack { packet_id: ID, reason: ReasonCode::NotAuthorized, properties: both_properties() };
    let properties = PublishProperties {
        message_expiry_s: Some(1),
        user_properties: UserProperties::Pairs(&[("k", "v")]),
        subscription_ids: SubscriptionIds::List(&[1]),
        ..Default::default()
    };
    let unsuback =
        UnsubAck { packet_id: ID, properties: both_properties(), reasons: Cow::Borrowed(&[ReasonCode::NotAuthorized]) };
    let disconnect = Disconnect {
        reason: ReasonCode::SessionTakenOver,
        session_expiry_s: Some(1),
        server_reference: None,
        properties: both_properties(),
    };
    for version in [V31, V311] {
        assert_eq!(bytes(&Packet::PubAck(ack.clone()), version, 4).unwrap(), b"\x40\x02\x00\x01");
        assert_eq!(bytes(&Packet::PubRel(ack.clone()), version, 4).unwrap(), b"\x62\x02\x00\x01");
        assert_eq!(bytes(&Packet::UnsubAck(unsuback.clone()), version, 4).unwrap(), b"\xB0\x02\x00\x01");
        assert_eq!(bytes(&Packet::Disconnect(disconnect.clone()), version, 2).unwrap(), b"\xE0\x00");
        assert_eq!(
            bytes(&Packet::Publish(publish("t", properties.clone())), version, 6).unwrap(),
            b"\x30\x04\x00\x01tx"
        );
    }
}

#[test]
fn every_failure_of_a_suback_is_0x80_in_3() {
    let reasons = [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized, ReasonCode::TopicFilterInvalid];
    let suback =
        Packet::SubAck(SubAck { packet_id: ID, properties: both_properties(), reasons: Cow::Borrowed(&reasons) });
    for version in [V31, V311] {
        assert_eq!(bytes(&suback, version, NO_LIMIT).unwrap(), b"\x90\x05\x00\x01\x01\x80\x80");
    }
}

/// MQTT 3.1.1 §3.2.2.3; where no code fits the connection is closed without a CONNACK.
#[test]
fn refusals_have_a_return_code_in_3_or_no_answer() {
    let codes = [
        (ReasonCode::Success, 0),
        (ReasonCode::UnsupportedProtocolVersion, 1),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::ServerUnavailable, 3),
        (ReasonCode::ServerBusy, 3),
        (ReasonCode::UseAnotherServer, 3),
        (ReasonCode::BadUserNameOrPassword, 4),
        (ReasonCode::NotAuthorized, 5),
        (ReasonCode::Banned, 5),
    ];
    for (reason, code) in codes {
        assert_eq!(bytes(&connack(reason), V311, NO_LIMIT).unwrap(), [0x20, 2, 0, code]);
        assert_eq!(bytes(&connack(reason), V31, NO_LIMIT).unwrap(), [0x20, 2, 0, code]);
    }
    for reason in [ReasonCode::MalformedPacket, ReasonCode::ProtocolError, ReasonCode::PacketTooLarge] {
        assert!(matches!(bytes(&connack(reason), V311, NO_LIMIT), Err(EncodeError::Inexpressible(_))));
        assert!(bytes(&connack(reason), V5, NO_LIMIT).is_ok());
    }
}

#[test]
fn session_present_has_no_place_in_3_1_nor_beside_a_refusal() {
    let packet = |reason| {
        let properties = ConnAckProperties::default();
        Packet::ConnAck(Box::new(ConnAck { session_present: true, reason, properties }))
    };
    assert_eq!(bytes(&packet(ReasonCode::Success), V31, NO_LIMIT).unwrap(), b"\x20\x02\x00\x00");
    assert_eq!(bytes(&packet(ReasonCode::Success), V311, NO_LIMIT).unwrap(), b"\x20\x02\x01\x00");
    assert!(bytes(&packet(ReasonCode::NotAuthorized), V311, NO_LIMIT).is_err());
    assert!(bytes(&packet(ReasonCode::NotAuthorized), V5, NO_LIMIT).is_err());
}

#[test]
fn maximum_qos_2_is_said_by_saying_nothing() {
    let properties = ConnAckProperties { maximum_qos: Some(QoS::ExactlyOnce), ..Default::default() };
    let packet = Packet::ConnAck(Box::new(ConnAck { session_present: false, reason: ReasonCode::Success, properties }));
    assert_eq!(bytes(&packet, V5, NO_LIMIT).unwrap(), b"\x20\x03\x00\x00\x00");
}

#[test]
fn what_a_version_cannot_say_is_refused() {
    let alias = PublishProperties { topic_alias: std::num::NonZeroU16::new(1), ..Default::default() };
    let no_id = PublishProperties { subscription_ids: SubscriptionIds::List(&[0]), ..Default::default() };
    let big_id = PublishProperties { subscription_ids: SubscriptionIds::List(&[1 << 28]), ..Default::default() };
    let auth = Auth { reason: ReasonCode::Success, method: None, data: None, properties: ReasonProperties::default() };
    let auth_without_method = Auth { data: Some(b"x"), ..auth.clone() };
    let subscribe = |filters, subscription_id| {
        let user_properties = UserProperties::default();
        Packet::Subscribe(Subscribe { packet_id: ID, subscription_id, user_properties, filters })
    };
    let filter = SubscribeFilter { filter: "a", options: SubscribeOptions::default() };
    let cases = [
        (Packet::Auth(auth), V311),
        (Packet::Auth(auth_without_method), V5),
        (Packet::Publish(publish("", alias)), V311),
        (Packet::Publish(publish("", PublishProperties::default())), V5),
        (Packet::Publish(publish("a", no_id)), V5),
        (Packet::Publish(publish("a", big_id)), V5),
        (Packet::Publish(Publish { dup: true, ..publish("a", PublishProperties::default()) }), V5),
        (subscribe(vec![], None), V5),
        (subscribe(vec![filter], Some(0)), V5),
        (subscribe(vec![filter], Some(1 << 28)), V5),
    ];
    for (packet, version) in cases {
        let result = bytes(&packet, version, NO_LIMIT);
        assert!(matches!(result, Err(EncodeError::Inexpressible(_))), "{packet:?} {result:?}");
        assert!(encode::packet_bytes(&packet, version).is_err());
    }
}

#[test]
fn no_length_is_cut_to_sixteen_bits() {
    let text = "a".repeat(65_536);
    let pairs = [("k", text.as_str())];
    let properties = PublishProperties { user_properties: UserProperties::Pairs(&pairs), ..Default::default() };
    for packet in [publish(&text, PublishProperties::default()), publish("a", properties)] {
        assert!(matches!(bytes(&Packet::Publish(packet), V5, NO_LIMIT), Err(EncodeError::FieldTooLong(_))));
    }
    let reason = ReasonProperties { reason_string: Some(&text), ..Default::default() };
    let ack = Packet::PubAck(Ack { packet_id: ID, reason: ReasonCode::Success, properties: reason });
    assert_eq!(bytes(&ack, V5, NO_LIMIT), Err(EncodeError::FieldTooLong("the reason string")));
}

#[test]
fn no_packet_is_longer_than_its_length_can_say() {
    let payload = vec![0; 268_435_455];
    let too_long = Publish { payload: &payload, ..publish("a", PublishProperties::default()) };
    assert_eq!(
        encode::publish_bytes(&too_long, V311),
        Err(EncodeError::PacketTooLarge { bytes: 268_435_463, limit: 268_435_460 })
    );
    let longest = Publish { payload: &payload[3..], ..too_long };
    assert_eq!(encode::publish_bytes(&longest, V311), Ok(268_435_460));
}

/// The lengths at which the Remaining Length takes one byte more (MQTT5 §1.5.5).
#[test]
fn remaining_length_is_minimal() {
    for (payload_bytes, head) in [
        (124, &b"\x30\x7F"[..]),
        (125, b"\x30\x80\x01"),
        (16_380, b"\x30\xFF\x7F"),
        (16_381, b"\x30\x80\x80\x01"),
        (2_097_148, b"\x30\xFF\xFF\x7F"),
        (2_097_149, b"\x30\x80\x80\x80\x01"),
    ] {
        let payload = vec![0; payload_bytes];
        let packet = Packet::Publish(Publish { payload: &payload, ..publish("a", PublishProperties::default()) });
        let frame = bytes(&packet, V311, NO_LIMIT).unwrap();
        assert!(frame.starts_with(head), "{payload_bytes}");
        assert_eq!(frame.len(), head.len() + 3 + payload_bytes);
    }
}
