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

fn wish(version: ProtocolVersion, connect: Connect<'_>) -> Wish {
    let mut script = Script::new(version);
    let effects = script.packet(Packet::Connect(Box::new(connect)));
    let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
    Wish::clone(wish)
}

/// MQTT5 §3.1.2.11.2; 3.x has the clean flag alone.
#[test]
fn the_session_lives_as_long_as_was_asked_for_within_the_cap() {
    let cap_s = Settings::default().session_expiry_s_max;
    for (asked_s, granted_s) in [(None, 0), (Some(0), 0), (Some(9), 9), (Some(u32::MAX), cap_s)] {
        let properties = ConnectProperties { session_expiry_s: asked_s, ..ConnectProperties::default() };
        let asked = Connect { clean_start: false, properties, ..connect(ProtocolVersion::V5) };
        let wish = wish(ProtocolVersion::V5, asked.clone());
        assert_eq!((wish.clean_start, wish.expiry_s), (false, granted_s), "{asked_s:?}");
        let mut script = Script::new(ProtocolVersion::V5);
        let effects = script.connect(asked);
        let told = (asked_s.unwrap_or(0) != granted_s).then_some(granted_s);
        assert_eq!(connack(&effects).session_expiry_s, told, "{asked_s:?}");
        assert_eq!(script.session.is_durable(), granted_s > 0);
    }
    for (clean_start, granted_s) in [(true, 0), (false, cap_s)] {
        let wish = wish(ProtocolVersion::V311, Connect { clean_start, ..connect(ProtocolVersion::V311) });
        assert_eq!((wish.clean_start, wish.expiry_s), (clean_start, granted_s));
    }
}

#[test]
fn a_session_that_nobody_could_take_over_or_miss_needs_no_claim() {
    let version = ProtocolVersion::V5;
    let assigned = Connect { client_id: "", ..connect(version) };
    let properties = ConnectProperties { session_expiry_s: Some(1), ..ConnectProperties::default() };
    assert!(!wish(version, assigned.clone()).needs_claim());
    assert!(wish(version, connect(version)).needs_claim());
    assert!(wish(version, Connect { will: Some(will()), ..assigned.clone() }).needs_claim());
    assert!(wish(version, Connect { properties, ..assigned }).needs_claim());
}

#[test]
fn a_claim_that_is_denied_is_a_connect_that_is_refused() {
    for version in [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut script = Script::new(version);
        script.packet(Packet::Connect(Box::new(connect(version))));
        let effects = script.input(Input::Denied(ReasonCode::NotAuthorized));
        assert_eq!(sent(&effects), ["CONNACK 0x87 false"]);
        assert_eq!(closed(&effects), Some(CloseCause::Refused(ReasonCode::NotAuthorized)));
    }
}

#[test]
fn a_claim_that_takes_too_long_is_a_connect_that_is_refused() {
    let mut script = Script::new(ProtocolVersion::V5);
    let effects = script.packet(Packet::Connect(Box::new(connect(ProtocolVersion::V5))));
    let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
    assert!(script.wait(Duration::from_millis(4_999)).is_empty());
    assert_eq!(sent(&script.wait(Duration::from_millis(1))), ["CONNACK 0x88 false"]);
    assert!(script.grant(new_session(wish)).is_empty(), "too late");
}

#[test]
fn a_session_lost_before_connack_is_told_nothing() {
    let mut script = Script::new(ProtocolVersion::V5);
    script.packet(Packet::Connect(Box::new(connect(ProtocolVersion::V5))));
    let effects = script.input(Input::TakenOver);
    assert_eq!((sent(&effects), closed(&effects)), (vec![], Some(CloseCause::TakenOver)));
}

/// MQTT5 §3.2.2.3: what is absent is available.
#[test]
fn connack_says_what_is_not_available_and_nothing_of_what_is() {
    let mut script = Script::new(ProtocolVersion::V5);
    let effects = script.connect(connect(ProtocolVersion::V5));
    let Some(Effect::Send(outgoing)) = effects.first() else { panic!("{effects:?}") };
    let mut frame = BytesMut::new();
    outgoing.encode(ProtocolVersion::V5, usize::MAX, &mut frame).unwrap();
    let Ok(Packet::ConnAck(connack)) = decode::packet(&frame, Some(ProtocolVersion::V5), Sender::Server) else {
        panic!("a CONNACK")
    };
    let properties = connack.properties;
    assert_eq!((properties.maximum_qos, properties.retain_available), (None, None));
    assert_eq!(properties.shared_subscription_available, Some(false));
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
