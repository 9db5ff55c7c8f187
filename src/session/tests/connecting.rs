//! CONNECT, keep-alive, DISCONNECT, wills.

use super::*;

fn connack(effects: &[Effect]) -> &ConnAckParts {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Send(Outgoing::ConnAck(parts)) => Some(&**parts),
        _ => None,
    });
    found.expect("a CONNACK")
}

#[test]
fn connack_comes_only_after_the_session_is_granted() {
    let mut script = Script::new(ProtocolVersion::V5);
    let effects = script.packet(Packet::Connect(Box::new(connect(ProtocolVersion::V5))));
    let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(wish.client_id.as_str(), "car-1");
    assert!(!script.session.wants_input());
    assert_eq!(sent(&script.grant(new_session(wish))), ["CONNACK 0x00 false"]);
    assert!(script.session.wants_input());
}

#[test]
fn connack_announces_the_limits_of_the_server() {
    let mut script = Script::new(ProtocolVersion::V5);
    let effects = script.connect(connect(ProtocolVersion::V5));
    let parts = connack(&effects);
    assert_eq!(parts.receive_maximum.map(std::num::NonZeroU16::get), Some(64));
    assert_eq!(parts.packet_bytes_max, Some(256 * 1024));
    assert_eq!(parts.topic_alias_maximum, 16);
    assert_eq!(
        (parts.session_expiry_s, parts.assigned_client_id.clone(), parts.server_keep_alive_s),
        (None, None, None)
    );
}

#[test]
fn an_empty_client_id_gets_an_assigned_one() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut script = Script::new(version);
        let effects = script.connect(Connect { client_id: "", ..connect(version) });
        let assigned = connack(&effects).assigned_client_id.clone().expect("an id");
        assert_eq!(Some(&assigned), script.session.client_id());
        assert_eq!(assigned.as_str(), "mr-00000000000000000000000000000007");
    }
}

/// [MQTT-3.1.3-8] of 3.1.1.
#[test]
fn an_empty_client_id_without_clean_session_is_refused_in_311() {
    let mut script = Script::new(ProtocolVersion::V311);
    let effects = script.connect(Connect { client_id: "", clean_start: false, ..connect(ProtocolVersion::V311) });
    assert_eq!(connack(&effects).reason, ReasonCode::ClientIdentifierNotValid);
    assert!(closed(&effects).is_some());
}

#[test]
fn client_ids_longer_than_allowed_are_refused() {
    for (version, client_id) in [
        (ProtocolVersion::V31, "a".repeat(24)),
        (ProtocolVersion::V311, "a".repeat(129)),
        (ProtocolVersion::V5, "a".repeat(129)),
    ] {
        let mut script = Script::new(version);
        let effects = script.connect(Connect { client_id: &client_id, ..connect(version) });
        assert_eq!(connack(&effects).reason, ReasonCode::ClientIdentifierNotValid, "{version:?}");
    }
}

#[test]
fn enhanced_authentication_is_refused_by_its_own_reason() {
    let mut script = Script::new(ProtocolVersion::V5);
    let properties = ConnectProperties { authentication_method: Some("SCRAM-SHA-256"), ..ConnectProperties::default() };
    let effects = script.connect(Connect { properties, ..connect(ProtocolVersion::V5) });
    assert_eq!(connack(&effects).reason, ReasonCode::BadAuthenticationMethod);
}

/// [MQTT-3.1.2-22]
#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_connection() {
    let mut script = Script::connected(ProtocolVersion::V5);
    assert!(script.wait(Duration::from_millis(89_999)).is_empty());
    let effects = script.wait(Duration::from_millis(1));
    assert_eq!(disconnect_reason(&effects), Some(ReasonCode::KeepAliveTimeout));
    assert_eq!(closed(&effects), Some(CloseCause::KeepAlive));
}

#[test]
fn every_packet_of_the_client_starts_the_keep_alive_anew() {
    let mut script = Script::connected(ProtocolVersion::V311);
    for _ in 0..5 {
        assert!(script.wait(Duration::from_mins(1)).is_empty());
        assert!(matches!(script.packet(Packet::PingReq).as_slice(), [Effect::Send(Outgoing::PingResp)]));
    }
}

#[test]
fn keep_alive_above_the_cap_is_granted_as_the_cap_in_v5_and_kept_in_311() {
    for keep_alive_s in [0, 5_000] {
        let mut script = Script::new(ProtocolVersion::V5);
        let effects = script.connect(Connect { keep_alive_s, ..connect(ProtocolVersion::V5) });
        assert_eq!(connack(&effects).server_keep_alive_s, Some(1_200));
        assert!(script.session.poll_timeout().is_some());
    }
    let mut script = Script::new(ProtocolVersion::V311);
    script.connect(Connect { keep_alive_s: 0, ..connect(ProtocolVersion::V311) });
    assert_eq!(script.session.poll_timeout(), None);
}

#[test]
fn a_connection_without_connect_is_closed() {
    let mut script = Script::new(ProtocolVersion::V311);
    assert!(script.wait(Duration::from_millis(4_999)).is_empty());
    assert_eq!(closed(&script.wait(Duration::from_millis(1))), Some(CloseCause::ConnectTimeout));
}

/// [MQTT-3.1.0-2]
#[test]
fn a_second_connect_is_a_protocol_error() {
    let mut script = Script::connected(ProtocolVersion::V5);
    let effects = script.packet(Packet::Connect(Box::new(connect(ProtocolVersion::V5))));
    assert_eq!(disconnect_reason(&effects), Some(ReasonCode::ProtocolError));
}

#[test]
fn the_will_keeps_everything_it_was_given() {
    let properties = PublishProperties {
        message_expiry_s: Some(9),
        content_type: Some("text/plain"),
        user_properties: UserProperties::Pairs(&[("a", "1"), ("a", "2")]),
        ..PublishProperties::default()
    };
    let mut script = Script::new(ProtocolVersion::V5);
    let given = Will { properties: properties.clone(), ..will() };
    let effects =
        script.packet(Packet::Connect(Box::new(Connect { will: Some(given), ..connect(ProtocolVersion::V5) })));
    let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
    let kept = wish.will.as_ref().unwrap().publish.publish().unwrap();
    assert_eq!((kept.topic, kept.payload, kept.delivery.qos()), ("cars/1/gone", &b"bye"[..], QoS::AtLeastOnce));
    assert_eq!(kept.properties, properties);
}

#[test]
fn a_will_that_cannot_be_kept_is_refused_at_connect() {
    for (will, reason) in [
        (Will { topic: "$SYS/x", ..will() }, ReasonCode::TopicNameInvalid),
        (Will { topic: &"a/".repeat(40), ..will() }, ReasonCode::TopicNameInvalid),
    ] {
        let mut script = Script::new(ProtocolVersion::V5);
        let effects = script.connect(Connect { will: Some(will), ..connect(ProtocolVersion::V5) });
        assert_eq!(connack(&effects).reason, reason);
    }
}

/// MQTT5 §3.14.2.2.2
#[test]
fn disconnect_cannot_give_a_session_a_life_it_did_not_ask_for() {
    let mut script = Script::connected(ProtocolVersion::V5);
    let Packet::Disconnect(plain) = disconnect(ReasonCode::Success) else { unreachable!() };
    let effects = script.packet(Packet::Disconnect(Disconnect { session_expiry_s: Some(1), ..plain }));
    assert_eq!(disconnect_reason(&effects), Some(ReasonCode::ProtocolError));
}

#[test]
fn the_connection_taken_over_is_told_so_in_v5_and_just_closed_in_311() {
    for (version, reason) in [(ProtocolVersion::V5, Some(ReasonCode::SessionTakenOver)), (ProtocolVersion::V311, None)]
    {
        let mut script = Script::connected(version);
        let effects = script.input(Input::TakenOver);
        assert_eq!(disconnect_reason(&effects), reason);
        assert_eq!(closed(&effects), Some(CloseCause::TakenOver));
    }
}

fn disconnect(reason: ReasonCode) -> Packet<'static> {
    Packet::Disconnect(Disconnect {
        reason,
        session_expiry_s: None,
        server_reference: None,
        properties: ReasonProperties::default(),
    })
}
