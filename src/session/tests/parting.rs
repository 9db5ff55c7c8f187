//! What a connection leaves behind.

use super::*;

fn disconnect(reason: ReasonCode, session_expiry_s: Option<u32>) -> Packet<'static> {
    Packet::Disconnect(Disconnect {
        reason,
        session_expiry_s,
        server_reference: None,
        properties: ReasonProperties::default(),
    })
}

fn with_will(version: ProtocolVersion) -> Script {
    let mut script = Script::new(version);
    script.connect(Connect { will: Some(will()), ..durable_connect(version) });
    script
}

#[test]
fn the_will_is_left_unless_the_client_said_goodbye_or_the_node_goes() {
    type End = fn(&mut Script) -> Vec<Effect>;
    let ends: [(End, PartCause, bool); 8] = [
        (|script| script.input(Input::SocketClosed), PartCause::Broken, true),
        (|script| script.wait(Duration::from_secs(90)), PartCause::Broken, true),
        (|script| script.input(Input::Evicted(ReasonCode::QuotaExceeded)), PartCause::Broken, true),
        (|script| script.packet(disconnect(ReasonCode::DisconnectWithWill, None)), PartCause::Broken, true),
        (|script| script.packet(Packet::Connect(Box::new(connect(ProtocolVersion::V5)))), PartCause::Broken, true),
        (|script| script.input(Input::TakenOver), PartCause::Fenced, true),
        (|script| script.packet(disconnect(ReasonCode::Success, None)), PartCause::Normal, false),
        (|script| script.input(Input::ShuttingDown), PartCause::Drained, false),
    ];
    for (index, (end, cause, has_will)) in ends.into_iter().enumerate() {
        let mut script = with_will(ProtocolVersion::V5);
        end(&mut script);
        script.input(Input::SocketClosed);
        script.input(Input::TakenOver);
        let parting = script.session.take_parting().expect("a claimed session");
        assert_eq!((parting.cause, parting.state.will.is_some()), (cause, has_will), "end {index}");
        let life = if cause == PartCause::Fenced { Life::Connected } else { Life::Disconnected { since_ms: 0 } };
        assert_eq!(parting.state.life, life, "end {index}");
        assert!(script.session.take_parting().is_none(), "once only, end {index}");
    }
}

#[test]
fn nothing_is_left_before_the_end_and_by_who_had_no_session() {
    let mut script = with_will(ProtocolVersion::V311);
    assert!(script.session.take_parting().is_none());

    let mut script = Script::new(ProtocolVersion::V5);
    script.connect(Connect { client_id: "", ..connect(ProtocolVersion::V5) });
    script.input(Input::SocketClosed);
    assert!(script.session.take_parting().is_none(), "no claim was written");

    let mut script = Script::new(ProtocolVersion::V5);
    script.packet(Packet::Connect(Box::new(durable_connect(ProtocolVersion::V5))));
    script.input(Input::SocketClosed);
    assert!(script.session.take_parting().is_none(), "the claim was not granted");
}

#[test]
fn a_claimed_session_without_a_future_leaves_that_it_is_to_end() {
    let mut script = Script::connected(ProtocolVersion::V311);
    script.packet(publish("a", qos1(3)));
    let parting = script.parting(Input::SocketClosed);
    assert_eq!((parting.cause, parting.state.expiry_s), (PartCause::Broken, 0));
    assert_eq!(parting.outstanding, [Outstanding { sequence: 0, token: None }]);
}

/// MQTT5 §3.14.2.2.2
#[test]
fn disconnect_may_change_the_expiry_within_the_cap_and_not_give_life_to_a_session_without() {
    let cap_s = Settings::default().session_expiry_s_max;
    for (asked_s, expiry_s) in [(None, 3_600), (Some(0), 0), (Some(7), 7), (Some(u32::MAX), cap_s)] {
        let mut script = Script::durable(ProtocolVersion::V5, None);
        script.packet(disconnect(ReasonCode::Success, asked_s));
        assert_eq!(script.session.take_parting().unwrap().state.expiry_s, expiry_s, "{asked_s:?}");
    }
    let mut script = Script::connected(ProtocolVersion::V5);
    let effects = script.packet(disconnect(ReasonCode::Success, Some(1)));
    assert_eq!(disconnect_reason(&effects), Some(ReasonCode::ProtocolError));
    assert_eq!(script.session.take_parting().unwrap().cause, PartCause::Broken);
}

#[test]
fn everything_that_outlives_the_connection_is_left() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    let options = SubscribeOptions { qos: QoS::ExactlyOnce, ..Default::default() };
    for (packet_id, filter) in [(1, "a"), (2, "not/in/force")] {
        script.packet(Packet::Subscribe(Subscribe {
            packet_id: id(packet_id),
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: vec![SubscribeFilter { filter, options }],
        }));
    }
    let effects = script.input(Input::Followed { packet_id: id(1), from: vec![(PLACE, 1)], starts: Vec::new() });
    script.persisted(persist(&effects).0);
    script.deliver_at(10, QoS::AtLeastOnce);
    script.deliver_at(11, QoS::ExactlyOnce);
    script.deliver_at(12, QoS::AtLeastOnce);
    script.packet(publish("b", qos1(1)));
    script.packet(publish("b", qos2(2)));
    let parting = script.parting(Input::SocketClosed);
    let filters: Vec<_> = parting.state.subscriptions.iter().map(|state| state.filter.as_str()).collect();
    assert_eq!(filters, ["a"]);
    assert_eq!(parting.unacked, [(id(1), at(10)), (id(3), at(12))]);
    let open = OpenDelivery { packet_id: id(2), origin: at(11), released: false };
    assert_eq!(parting.state.outbound, Outbound { open: vec![open], sent_to: vec![(PLACE, 11)] });
    assert_eq!(parting.state.inbound, Inbound { high: 1, pending: vec![(1, id(2))], ..Inbound::default() });
    assert_eq!(parting.state.expiry_s, 3_600);
    assert_eq!(parting.outstanding.len(), 2);
}

#[test]
fn a_parting_is_final_when_every_append_has_a_certain_outcome() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    script.packet(publish("a", qos1(1)));
    for packet_id in [2, 3, 4] {
        script.packet(publish("a", qos2(packet_id)));
    }
    let mut parting = script.parting(Input::SocketClosed);
    let sequences: Vec<_> = parting.outstanding.iter().map(|append| append.sequence).collect();
    parting.on_appended(sequences[0], AppendOutcome::Written);
    parting.on_appended(sequences[2], AppendOutcome::Written);
    parting.on_appended(sequences[1], AppendOutcome::Refused(ReasonCode::QuotaExceeded));
    assert!(!parting.is_final());
    assert_eq!(
        parting.state.inbound,
        Inbound { high: 3, held: vec![id(3)], pending: vec![(3, id(4))], ..Inbound::default() }
    );
    let mut other = parting.clone();
    other.on_appended(sequences[3], AppendOutcome::Unknown);
    assert!(!other.is_final(), "it may still land");
    assert_eq!(other.state.inbound.pending, [(3, id(4))]);
    parting.on_appended(sequences[3], AppendOutcome::Written);
    assert!(parting.is_final());
    assert_eq!(parting.state.inbound, Inbound { high: 3, held: vec![id(3), id(4)], ..Inbound::default() });
}

#[test]
fn an_outcome_after_the_end_and_before_the_parting_counts() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    let effects = script.packet(publish("a", qos2(2)));
    let Some(Effect::Append { sequence: Some(sequence), .. }) = effects.first() else { panic!("{effects:?}") };
    script.input(Input::SocketClosed);
    assert!(script.written(*sequence).is_empty());
    let parting = script.session.take_parting().unwrap();
    assert_eq!((parting.state.inbound.held, parting.outstanding), (vec![id(2)], vec![]));
}
