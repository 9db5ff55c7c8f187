//! QoS 2 from the client.

use std::num::NonZeroU16;

use super::*;

const VERSIONS: [ProtocolVersion; 3] = [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5];

/// Sequences and tokens of the appends among the effects.
fn appends(effects: &[Effect]) -> Vec<(u64, Token)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Append { sequence, token, .. } => Some((sequence.unwrap(), token.unwrap())),
            _ => None,
        })
        .collect()
}

fn token(number: u32, packet_id: u16) -> Token {
    Token { nonce: NONCE, number, packet_id }
}

/// Publishes and has it appended: the sequence and what that sent.
fn publish_written(script: &mut Script, packet_id: u16) -> Vec<String> {
    let effects = script.packet(publish("a", qos2(packet_id)));
    let (sequence, _) = appends(&effects)[0];
    sent(&script.written(sequence))
}

fn again(packet_id: u16) -> Packet<'static> {
    let Packet::Publish(first) = publish("a", qos2(packet_id)) else { unreachable!() };
    Packet::Publish(Publish { dup: true, ..first })
}

fn inbound(part: Part) -> Inbound {
    let Part::Inbound(inbound) = part else { panic!("{part:?}") };
    inbound
}

fn outcome(script: &mut Script, sequence: u64, outcome: AppendOutcome) -> Vec<Effect> {
    script.input(Input::Appended { sequence, outcome })
}

/// [MQTT-4.3.3-8]
#[test]
fn pubrec_is_sent_only_after_the_append_and_pubcomp_only_after_the_record() {
    for version in VERSIONS {
        let mut script = Script::durable(version, None);
        let effects = script.packet(publish("a", qos2(5)));
        let [(sequence, first)] = appends(&effects)[..] else { panic!("{effects:?}") };
        assert_eq!((sent(&effects), first), (vec![], token(1, 5)));
        let effects = script.written(sequence);
        assert_eq!(sent(&effects), ["PUBREC 5"]);
        assert_eq!(persists(&effects), [], "a token costs no record");
        let effects = script.packet(pubrel(5));
        assert_eq!(sent(&effects), [] as [&str; 0]);
        let (record, part) = persist(&effects);
        assert_eq!(inbound(part), Inbound { high: 1, ..Inbound::default() });
        assert_eq!(sent(&script.persisted(record)), ["PUBCOMP 5"]);
    }
}

#[test]
fn a_session_that_ends_with_its_connection_writes_nothing() {
    for version in VERSIONS {
        let mut script = Script::connected(version);
        assert_eq!(publish_written(&mut script, 5), ["PUBREC 5"]);
        let effects = script.packet(pubrel(5));
        assert_eq!((sent(&effects), persists(&effects)), (vec!["PUBCOMP 5".to_owned()], vec![]));
        assert!(script.input(Input::Tick).is_empty());
        assert_eq!(script.session.oldest_token_tick(), None);
    }
}

/// [MQTT-4.3.3-10]
#[test]
fn an_id_that_is_in_the_log_is_answered_and_not_appended() {
    for version in VERSIONS {
        let mut script = Script::durable(version, None);
        publish_written(&mut script, 5);
        for packet in [again(5), publish("a", qos2(5))] {
            let effects = script.packet(packet);
            assert_eq!((appends(&effects), sent(&effects)), (vec![], vec!["PUBREC 5".to_owned()]));
        }
    }
}

#[test]
fn an_id_that_waits_for_its_append_gets_one_pubrec() {
    let mut script = Script::durable(ProtocolVersion::V311, None);
    let effects = script.packet(publish("a", qos2(5)));
    assert!(script.packet(again(5)).is_empty());
    assert_eq!(sent(&script.written(appends(&effects)[0].0)), ["PUBREC 5"]);
}

/// [MQTT-4.3.3-12]
#[test]
fn an_id_is_a_new_message_once_it_was_completed() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    publish_written(&mut script, 5);
    let (record, _) = persist(&script.packet(pubrel(5)));
    script.persisted(record);
    let effects = script.packet(publish("a", qos2(5)));
    assert_eq!(appends(&effects)[0].1, token(2, 5));
}

#[test]
fn pubrel_of_an_unknown_id_is_answered_and_changes_nothing() {
    for durable in [false, true] {
        let mut script =
            if durable { Script::durable(ProtocolVersion::V5, None) } else { Script::connected(ProtocolVersion::V5) };
        let effects = script.packet(pubrel(4));
        assert_eq!((sent(&effects), persists(&effects)), (vec!["PUBCOMP 4 0x92".to_owned()], vec![]));
    }
}

#[test]
fn pubrel_again_gets_one_pubcomp_for_each_record() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    publish_written(&mut script, 5);
    let (record, _) = persist(&script.packet(pubrel(5)));
    assert!(script.packet(pubrel(5)).is_empty());
    assert_eq!(sent(&script.persisted(record)), ["PUBCOMP 5"]);
    assert_eq!(sent(&script.packet(pubrel(5))), ["PUBCOMP 5 0x92"]);
}

/// [MQTT-4.3.3-6]
#[test]
fn pubrel_before_pubrec_is_a_protocol_error() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    script.packet(publish("a", qos2(5)));
    assert_eq!(disconnect_reason(&script.packet(pubrel(5))), Some(ReasonCode::ProtocolError));
}

/// [MQTT-4.6.0-3]
#[test]
fn pubrecs_leave_in_the_order_of_the_publishes_and_do_not_hold_up_pubacks() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    let sequences: Vec<_> =
        [7, 3].into_iter().map(|packet_id| appends(&script.packet(publish("a", qos2(packet_id))))[0].0).collect();
    script.packet(publish("a", qos1(9)));
    assert_eq!(sent(&script.written(sequences[1])), [] as [&str; 0]);
    assert_eq!(sent(&script.written(0)), ["PUBACK 9"]);
    assert_eq!(sent(&script.written(sequences[0])), ["PUBREC 7", "PUBREC 3"]);
}

#[test]
fn a_refused_append_is_told_in_v5_and_ends_a_3x_connection() {
    for version in VERSIONS {
        let mut script = Script::durable(version, None);
        let (sequence, _) = appends(&script.packet(publish("a", qos2(5))))[0];
        let effects = outcome(&mut script, sequence, AppendOutcome::Refused(ReasonCode::QuotaExceeded));
        if version == ProtocolVersion::V5 {
            assert_eq!(sent(&effects), ["PUBREC 5 0x97"]);
            assert_eq!(appends(&script.packet(publish("a", qos2(5))))[0].1, token(2, 5), "the id is free");
        } else {
            assert_eq!((sent(&effects), closed(&effects)), (vec![], Some(CloseCause::AppendFailed)));
            let parting = script.parting(Input::SocketClosed);
            assert_eq!(parting.state.inbound, Inbound { high: 1, ..Inbound::default() });
        }
    }
}

#[test]
fn an_unknown_outcome_is_never_answered_and_stays_to_be_looked_for() {
    for version in VERSIONS {
        let mut script = Script::durable(version, None);
        let (sequence, _) = appends(&script.packet(publish("a", qos2(5))))[0];
        let effects = outcome(&mut script, sequence, AppendOutcome::Unknown);
        assert!(!sent(&effects).iter().any(|packet| packet.starts_with("PUBREC")));
        assert_eq!(closed(&effects), Some(CloseCause::AppendFailed));
        let parting = script.parting(Input::SocketClosed);
        assert_eq!(parting.state.inbound, Inbound { high: 1, pending: vec![(1, id(5))], ..Inbound::default() });
        assert_eq!((parting.outstanding.len(), parting.unknown, parting.is_final()), (0, 1, false));
    }
}

fn with_receive_maximum(version: ProtocolVersion, maximum: u16) -> Script {
    let settings =
        Settings { receive_maximum: NonZeroU16::new(maximum).unwrap(), exactly_once_max: 3, ..Settings::default() };
    let mut script = Script::with_settings(version, settings);
    script.connect(connect(version));
    script
}

/// MQTT5 §4.9, [MQTT-3.3.4-9]
#[test]
fn a_publish_counts_until_its_pubcomp_or_its_refusal() {
    let mut script = with_receive_maximum(ProtocolVersion::V5, 2);
    publish_written(&mut script, 1);
    let (sequence, _) = appends(&script.packet(publish("a", qos2(2))))[0];
    outcome(&mut script, sequence, AppendOutcome::Refused(ReasonCode::QuotaExceeded));
    publish_written(&mut script, 3);
    script.packet(pubrel(1));
    publish_written(&mut script, 4);
    let effects = script.packet(publish("a", qos1(5)));
    assert_eq!(disconnect_reason(&effects), Some(ReasonCode::ReceiveMaximumExceeded));
}

#[test]
fn a_3x_client_is_not_read_while_pubrecs_are_owed_but_while_pubrels_are() {
    let mut script = with_receive_maximum(ProtocolVersion::V311, 1);
    let (sequence, _) = appends(&script.packet(publish("a", qos2(1))))[0];
    assert!(!script.session.wants_input());
    script.written(sequence);
    assert!(script.session.wants_input(), "or its PUBREL would never come");
}

#[test]
fn a_3x_client_that_never_releases_is_ended_at_the_bound() {
    let mut script = with_receive_maximum(ProtocolVersion::V311, 64);
    for packet_id in 1..=3 {
        publish_written(&mut script, packet_id);
    }
    let effects = script.packet(publish("a", qos2(4)));
    assert_eq!(closed(&effects), Some(CloseCause::Protocol(ReasonCode::QuotaExceeded)));
}

#[test]
fn topics_of_the_server_are_refused_in_v5_and_swallowed_in_3x() {
    for version in VERSIONS {
        let mut script = Script::connected(version);
        let effects = script.packet(publish("$SYS/x", qos2(1)));
        assert_eq!(appends(&effects), []);
        if version == ProtocolVersion::V5 {
            assert_eq!(sent(&effects), ["PUBREC 1 0x90"]);
            assert_eq!(sent(&script.packet(pubrel(1))), ["PUBCOMP 1 0x92"]);
        } else {
            assert_eq!(sent(&effects), ["PUBREC 1"]);
            assert_eq!(sent(&script.packet(pubrel(1))), ["PUBCOMP 1"]);
        }
    }
}

#[test]
fn a_release_takes_everything_newer_into_the_next_record() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    for packet_id in 1..=4 {
        publish_written(&mut script, packet_id);
    }
    let (first, part) = persist(&script.packet(pubrel(1)));
    assert_eq!(inbound(part).held, [id(2), id(3), id(4)]);
    assert!(script.packet(pubrel(2)).is_empty() && script.packet(pubrel(3)).is_empty());
    let effects = script.persisted(first);
    assert_eq!(sent(&effects), ["PUBCOMP 1"]);
    let (second, part) = persist(&effects);
    assert_eq!(inbound(part), Inbound { high: 4, held: vec![id(4)], ..Inbound::default() });
    let effects = script.persisted(second);
    assert_eq!((sent(&effects), persists(&effects)), (vec!["PUBCOMP 2".to_owned(), "PUBCOMP 3".to_owned()], vec![]));
}

/// Q5
#[test]
fn a_token_holds_the_watermark_back_until_it_is_released_or_read_back_as_held() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    script.session.set_tick(4);
    let (first, _) = appends(&script.packet(publish("a", qos2(1))))[0];
    assert!(script.input(Input::Tick).is_empty(), "a record cannot say yet what is in the log");
    script.session.set_tick(5);
    let (second, _) = appends(&script.packet(publish("a", qos2(2))))[0];
    assert_eq!(script.session.oldest_token_tick(), Some(4));
    script.written(first);
    assert_eq!(script.session.oldest_token_tick(), Some(4));
    let (record, part) = persist(&script.input(Input::Tick));
    assert_eq!(inbound(part), Inbound { high: 2, held: vec![id(1)], pending: vec![(2, id(2))], ..Inbound::default() });
    assert_eq!(script.session.oldest_token_tick(), Some(4));
    script.persisted(record);
    assert_eq!(script.session.oldest_token_tick(), Some(5), "recorded as pending is not recorded");
    script.written(second);
    assert_eq!(script.session.oldest_token_tick(), Some(5));
    script.packet(pubrel(2));
    assert_eq!(script.session.oldest_token_tick(), None);
}

#[test]
fn a_tick_writes_nothing_that_is_recorded() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    publish_written(&mut script, 1);
    let (record, _) = persist(&script.input(Input::Tick));
    assert!(script.input(Input::Tick).is_empty(), "it is on its way");
    script.persisted(record);
    assert!(script.input(Input::Tick).is_empty());
}
