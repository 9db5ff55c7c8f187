//! PUBLISH from the client and its PUBACK.

use std::num::NonZeroU16;

use super::*;

/// The sequences of the appends among the effects.
fn appends(effects: &[Effect]) -> Vec<Option<u64>> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Append { sequence, .. } => Some(*sequence),
            _ => None,
        })
        .collect()
}

#[test]
fn puback_is_sent_only_after_the_append_is_durable() {
    for version in [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut script = Script::connected(version);
        let effects = script.packet(publish("cars/1", qos1(9)));
        assert_eq!((appends(&effects), pubacks(&effects)), (vec![Some(0)], vec![]));
        assert_eq!(pubacks(&script.written(0)), [(9, ReasonCode::Success)]);
    }
}

/// [MQTT-4.6.0-2]
#[test]
fn pubacks_leave_in_the_order_of_the_publishes() {
    let mut script = Script::connected(ProtocolVersion::V5);
    for id in [5, 3, 4] {
        script.packet(publish("cars/1", qos1(id)));
    }
    assert_eq!(pubacks(&script.written(2)), []);
    assert_eq!(pubacks(&script.written(0)), [(5, ReasonCode::Success)]);
    assert_eq!(pubacks(&script.written(1)), [(3, ReasonCode::Success), (4, ReasonCode::Success)]);
}

#[test]
fn an_unknown_outcome_is_never_acknowledged() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut script = Script::connected(version);
        script.packet(publish("cars/1", qos1(9)));
        let effects = script.input(Input::Appended { sequence: 0, outcome: AppendOutcome::Unknown });
        assert_eq!(pubacks(&effects), []);
        assert_eq!(closed(&effects), Some(CloseCause::AppendFailed));
        assert_eq!(pubacks(&script.written(0)), [], "nothing follows a close");
    }
}

#[test]
fn a_refused_append_is_told_in_v5_and_ends_a_311_connection() {
    let refused = Input::Appended { sequence: 0, outcome: AppendOutcome::Refused(ReasonCode::QuotaExceeded) };
    let mut script = Script::connected(ProtocolVersion::V5);
    script.packet(publish("cars/1", qos1(9)));
    assert_eq!(pubacks(&script.input(refused)), [(9, ReasonCode::QuotaExceeded)]);

    let refused = Input::Appended { sequence: 0, outcome: AppendOutcome::Refused(ReasonCode::QuotaExceeded) };
    let mut script = Script::connected(ProtocolVersion::V311);
    script.packet(publish("cars/1", qos1(9)));
    assert_eq!(closed(&script.input(refused)), Some(CloseCause::AppendFailed));
}

#[test]
fn qos_0_is_appended_and_never_acknowledged() {
    let mut script = Script::connected(ProtocolVersion::V311);
    let effects = script.packet(publish("cars/1", WireDelivery::AtMostOnce));
    assert_eq!((appends(&effects), pubacks(&effects)), (vec![None], vec![]));
}

/// [MQTT-3.3.4-9]
#[test]
fn a_v5_client_that_passes_the_receive_maximum_is_disconnected() {
    let settings = Settings { receive_maximum: NonZeroU16::new(2).unwrap(), ..Settings::default() };
    let mut script = Script::with_settings(ProtocolVersion::V5, settings);
    script.connect(connect(ProtocolVersion::V5));
    script.packet(publish("a", qos1(1)));
    script.packet(publish("a", qos1(2)));
    let effects = script.packet(publish("a", qos1(3)));
    assert_eq!(disconnect_reason(&effects), Some(ReasonCode::ReceiveMaximumExceeded));
}

#[test]
fn a_311_client_at_the_bound_is_not_read_until_an_append_is_durable() {
    let settings = Settings { receive_maximum: NonZeroU16::new(2).unwrap(), ..Settings::default() };
    let mut script = Script::with_settings(ProtocolVersion::V311, settings);
    script.connect(connect(ProtocolVersion::V311));
    script.packet(publish("a", qos1(1)));
    assert!(script.session.wants_input());
    script.packet(publish("a", qos1(2)));
    assert!(!script.session.wants_input());
    script.written(0);
    assert!(script.session.wants_input());
}

/// MQTT5 §4.7.2
#[test]
fn topics_of_the_server_cannot_be_published_to() {
    let mut script = Script::connected(ProtocolVersion::V5);
    let effects = script.packet(publish("$SYS/x", qos1(1)));
    assert_eq!((appends(&effects), pubacks(&effects)), (vec![], vec![(1, ReasonCode::TopicNameInvalid)]));
    let effects = script.packet(publish("$SYS/x", WireDelivery::AtMostOnce));
    assert!(matches!(effects.as_slice(), [Effect::Dropped(Drop::NotWritable)]));
}

#[test]
fn topics_beyond_the_bounds_are_refused_in_the_order_of_the_publishes() {
    let mut script = Script::connected(ProtocolVersion::V5);
    script.packet(publish("fine", qos1(1)));
    let deep = "a/".repeat(40);
    assert_eq!(pubacks(&script.packet(publish(&deep, qos1(2)))), [], "the first one is not decided yet");
    assert_eq!(pubacks(&script.written(0)), [(1, ReasonCode::Success), (2, ReasonCode::TopicNameInvalid)]);
}

fn aliased(topic: &str, alias: u16) -> Packet<'_> {
    let properties = PublishProperties { topic_alias: NonZeroU16::new(alias), ..PublishProperties::default() };
    Packet::Publish(Publish { dup: false, delivery: qos1(1), retain: false, topic, properties, payload: b"" })
}

fn alias_topic(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::Append { alias_topic, .. } => alias_topic.as_deref(),
        _ => None,
    })
}

#[test]
fn a_topic_alias_stands_for_the_topic_it_was_last_given() {
    let mut script = Script::connected(ProtocolVersion::V5);
    assert_eq!(alias_topic(&script.packet(aliased("cars/1", 16))), None);
    assert_eq!(alias_topic(&script.packet(aliased("", 16))), Some("cars/1"));
    script.packet(aliased("cars/2", 16));
    assert_eq!(alias_topic(&script.packet(aliased("", 16))), Some("cars/2"));
}

/// [MQTT-3.3.2-9]
#[test]
fn a_topic_alias_above_the_maximum_or_without_a_topic_is_refused() {
    for (alias, reason) in [(17, ReasonCode::TopicAliasInvalid), (3, ReasonCode::ProtocolError)] {
        let mut script = Script::connected(ProtocolVersion::V5);
        let topic = if alias == 17 { "cars/1" } else { "" };
        assert_eq!(disconnect_reason(&script.packet(aliased(topic, alias))), Some(reason));
    }
}

#[test]
fn retained_publishes_are_taken_in_every_version_and_with_every_qos() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for delivery in [WireDelivery::AtMostOnce, qos1(1), qos2(2)] {
            let mut script = Script::connected(version);
            let Packet::Publish(plain) = publish("a", delivery) else { unreachable!() };
            let effects = script.packet(Packet::Publish(Publish { retain: true, ..plain }));
            assert_eq!(appends(&effects).len(), 1, "{version:?} {delivery:?}");
        }
    }
}
