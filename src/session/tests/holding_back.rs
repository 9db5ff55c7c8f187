//! F11: what a client publishes while appends of its earlier connections may still land.

use std::num::NonZeroU16;

use super::*;

/// Topics, sequences and token numbers of the publishes that were held back and are appended now.
fn kept(effects: &[Effect]) -> Vec<(String, u64, Option<u32>)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::AppendKept { sequence, publish, token } => {
                let topic = publish.publish().unwrap().topic.to_owned();
                Some((topic, *sequence, token.map(|token| token.number)))
            }
            _ => None,
        })
        .collect()
}

fn risks(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::LateAppendRisk)).count()
}

fn appends_now(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Append { .. }))
}

fn unsettled(version: ProtocolVersion) -> Script {
    Script::resumed(version, None, false).0
}

#[test]
fn publishes_wait_until_every_lower_nonce_is_final_or_fenced() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut script = unsettled(version);
        for packet in [publish("a", qos1(1)), publish("b", qos2(2)), publish("c", qos1(3))] {
            assert!(script.packet(packet).is_empty());
        }
        assert!(appends_now(&script.packet(publish("d", WireDelivery::AtMostOnce))), "QoS 0 does not wait");
        let effects = script.input(Input::Settled(vec![]));
        let topics: Vec<_> = kept(&effects).into_iter().map(|(topic, _, token)| (topic, token)).collect();
        assert_eq!(topics, [("a".to_owned(), None), ("b".to_owned(), Some(1)), ("c".to_owned(), None)]);
        assert_eq!(risks(&effects), 0);
        assert_eq!(sent(&script.written(kept(&effects)[1].1)), ["PUBREC 2"]);
        assert_eq!(sent(&script.written(kept(&effects)[0].1)), ["PUBACK 1"]);
        assert!(appends_now(&script.packet(publish("a", qos1(4)))), "nothing waits any more");
    }
}

#[test]
fn qos_1_waits_no_longer_than_it_is_told_and_the_risk_is_counted() {
    let mut script = unsettled(ProtocolVersion::V5);
    script.packet(publish("a", qos1(1)));
    script.packet(publish("b", qos2(2)));
    assert!(script.wait(Duration::from_millis(1_999)).is_empty());
    let effects = script.wait(Duration::from_millis(1));
    assert_eq!((kept(&effects).len(), risks(&effects)), (1, 1));
    let effects = script.packet(publish("a", qos1(3)));
    assert_eq!((appends_now(&effects), risks(&effects)), (true, 1));
    assert!(script.packet(publish("b", qos2(4))).is_empty(), "QoS 2 waits on");
    let effects = script.input(Input::Settled(vec![]));
    assert_eq!((kept(&effects).len(), risks(&effects)), (2, 0));
    assert_eq!(risks(&script.packet(publish("a", qos1(5)))), 0);
}

#[test]
fn qos_1_can_be_told_to_wait_for_ever() {
    let settings = Settings { hold_back_ms: u32::MAX, ..Settings::default() };
    let mut script = Script::with_settings(ProtocolVersion::V311, settings);
    let effects =
        script.packet(Packet::Connect(Box::new(Connect { keep_alive_s: 0, ..durable_connect(ProtocolVersion::V311) })));
    let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
    script.grant(Grant { settled: false, ..new_session(wish) });
    script.packet(publish("a", qos1(1)));
    assert_eq!(script.session.poll_timeout(), None);
    assert_eq!(kept(&script.input(Input::Settled(vec![]))).len(), 1);
}

#[test]
fn the_receive_maximum_bounds_what_is_held_back() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let settings = Settings { receive_maximum: NonZeroU16::new(2).unwrap(), ..Settings::default() };
        let mut script = Script::with_settings(version, settings);
        let effects = script.packet(Packet::Connect(Box::new(durable_connect(version))));
        let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
        script.grant(Grant { settled: false, ..new_session(wish) });
        script.packet(publish("a", qos1(1)));
        script.packet(publish("a", qos2(2)));
        if version == ProtocolVersion::V5 {
            let effects = script.packet(publish("a", qos2(3)));
            assert_eq!(disconnect_reason(&effects), Some(ReasonCode::ReceiveMaximumExceeded));
        } else {
            assert!(!script.session.wants_input());
            script.input(Input::Settled(vec![]));
            script.written(0);
            assert!(script.session.wants_input());
        }
    }
}

/// F6
#[test]
fn what_is_held_back_when_the_session_is_lost_is_never_appended() {
    let mut script = unsettled(ProtocolVersion::V5);
    script.packet(publish("a", qos1(1)));
    script.packet(publish("a", qos2(2)));
    let parting = script.parting(Input::TakenOver);
    assert_eq!((parting.outstanding, parting.state.inbound), (vec![], Inbound::default()));
    assert!(script.input(Input::Settled(vec![])).is_empty());
    assert!(script.wait(Duration::from_secs(3)).is_empty());
}

#[test]
fn a_topic_alias_is_resolved_when_the_publish_comes() {
    let mut script = unsettled(ProtocolVersion::V5);
    let aliased = |topic, packet_id| {
        let properties = PublishProperties { topic_alias: NonZeroU16::new(1), ..PublishProperties::default() };
        let Packet::Publish(plain) = publish(topic, qos1(packet_id)) else { unreachable!() };
        Packet::Publish(Publish { properties, ..plain })
    };
    for (topic, packet_id) in [("a", 1), ("", 2), ("b", 3)] {
        script.packet(aliased(topic, packet_id));
    }
    let topics: Vec<_> = kept(&script.input(Input::Settled(vec![]))).into_iter().map(|(topic, ..)| topic).collect();
    assert_eq!(topics, ["a", "a", "b"]);
}

#[test]
fn a_clean_session_holds_back_too() {
    let mut script = Script::new(ProtocolVersion::V311);
    let effects = script.packet(Packet::Connect(Box::new(connect(ProtocolVersion::V311))));
    let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
    script.grant(Grant { settled: false, ..new_session(wish) });
    assert!(script.packet(publish("a", qos1(1))).is_empty());
    assert_eq!(kept(&script.input(Input::Settled(vec![]))).len(), 1);
}

#[test]
fn a_held_back_publish_that_fails_is_answered_like_any_other() {
    let mut script = unsettled(ProtocolVersion::V5);
    script.packet(publish("a", qos1(1)));
    script.packet(publish("a", qos2(2)));
    let effects = script.input(Input::Settled(vec![]));
    let refused = AppendOutcome::Refused(ReasonCode::QuotaExceeded);
    let answers: Vec<_> = kept(&effects)
        .into_iter()
        .flat_map(|(_, sequence, _)| sent(&script.input(Input::Appended { sequence, outcome: refused })))
        .collect();
    assert_eq!(answers, ["PUBACK 1 0x97", "PUBREC 2 0x97"]);
}
