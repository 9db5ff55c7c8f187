//! SUBSCRIBE and UNSUBSCRIBE.

use super::*;

fn subscribe<'a>(id: u16, filters: &[(&'a str, QoS)]) -> Packet<'a> {
    let filters = filters
        .iter()
        .map(|&(filter, qos)| SubscribeFilter { filter, options: SubscribeOptions { qos, ..Default::default() } })
        .collect();
    Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(id).unwrap(),
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters,
    })
}

fn unsubscribe<'a>(id: u16, filters: &[&'a str]) -> Packet<'a> {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: PacketId::new(id).unwrap(),
        user_properties: UserProperties::default(),
        filters: filters.to_vec(),
    })
}

fn followed(packet_id: u16) -> Input<'static> {
    Input::Followed { packet_id: id(packet_id), from: vec![], starts: Vec::new() }
}

fn unfollowed(packet_id: u16) -> Input<'static> {
    Input::Unfollowed { packet_id: id(packet_id), from: vec![] }
}

fn suback(effects: &[Effect]) -> Option<Vec<ReasonCode>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send(Outgoing::SubAck { reasons, .. } | Outgoing::UnsubAck { reasons, .. }) => Some(reasons.clone()),
        _ => None,
    })
}

#[test]
fn suback_waits_until_the_subscriptions_are_in_force() {
    let mut script = Script::connected(ProtocolVersion::V5);
    let effects = script.packet(subscribe(3, &[("a/+", QoS::AtLeastOnce), ("b", QoS::AtMostOnce)]));
    assert!(matches!(effects.as_slice(), [Effect::Follow { filters, .. }] if filters.len() == 2));
    let effects = script.input(followed(3));
    assert_eq!(suback(&effects), Some(vec![ReasonCode::GrantedQoS1, ReasonCode::Success]));
}

#[test]
fn what_was_asked_for_is_granted() {
    let mut script = Script::connected(ProtocolVersion::V311);
    script.packet(subscribe(3, &[("a", QoS::ExactlyOnce)]));
    let effects = script.input(followed(3));
    assert_eq!(suback(&effects), Some(vec![ReasonCode::GrantedQoS2]));
}

#[test]
fn each_filter_has_its_own_reason() {
    let mut script = Script::connected(ProtocolVersion::V5);
    let filters = [("a/#/b", QoS::AtMostOnce), ("$share/g/a", QoS::AtMostOnce), ("fine", QoS::AtMostOnce)];
    let effects = script.packet(subscribe(3, &filters));
    assert!(matches!(effects.as_slice(), [Effect::Follow { filters, .. }] if filters.len() == 1));
    let effects = script.input(followed(3));
    let expected =
        vec![ReasonCode::TopicFilterInvalid, ReasonCode::SharedSubscriptionsNotSupported, ReasonCode::Success];
    assert_eq!(suback(&effects), Some(expected));
}

#[test]
fn a_subscribe_without_one_good_filter_is_answered_at_once() {
    let mut script = Script::connected(ProtocolVersion::V5);
    let effects = script.packet(subscribe(3, &[("$share/g/a", QoS::AtMostOnce)]));
    assert_eq!(suback(&effects), Some(vec![ReasonCode::SharedSubscriptionsNotSupported]));
}

#[test]
fn subscriptions_are_bounded_and_a_repeated_filter_counts_once() {
    let settings = Settings { subscriptions_max: 1, ..Settings::default() };
    let mut script = Script::with_settings(ProtocolVersion::V5, settings);
    script.connect(connect(ProtocolVersion::V5));
    for id in [1, 2] {
        script.packet(subscribe(id, &[("a", QoS::AtMostOnce)]));
        let effects = script.input(followed(id));
        assert_eq!(suback(&effects), Some(vec![ReasonCode::Success]));
    }
    assert_eq!(suback(&script.packet(subscribe(3, &[("b", QoS::AtMostOnce)]))), Some(vec![ReasonCode::QuotaExceeded]));
}

#[test]
fn unsubscribe_names_what_did_not_exist() {
    let mut script = Script::connected(ProtocolVersion::V5);
    script.packet(subscribe(1, &[("a", QoS::AtMostOnce)]));
    script.input(followed(1));
    let effects = script.packet(unsubscribe(2, &["a", "b"]));
    assert!(matches!(effects.as_slice(), [Effect::Unfollow { filters, .. }] if filters.len() == 1));
    let effects = script.input(unfollowed(2));
    assert_eq!(suback(&effects), Some(vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted]));
}

#[test]
fn a_client_with_many_unanswered_subscribes_is_not_read() {
    let settings = Settings { subscribe_packets_max: 2, ..Settings::default() };
    let mut script = Script::with_settings(ProtocolVersion::V311, settings);
    script.connect(connect(ProtocolVersion::V311));
    script.packet(subscribe(1, &[("a", QoS::AtMostOnce)]));
    assert!(script.session.wants_input());
    script.packet(subscribe(2, &[("b", QoS::AtMostOnce)]));
    assert!(!script.session.wants_input());
    script.input(followed(1));
    assert!(script.session.wants_input());
}
