//! A session that goes on after an earlier connection.

use super::*;

const FORMER: Nonce = Nonce([1; 16]);
const OLDER: Nonce = Nonce([2; 16]);

fn of(nonce: Nonce, number: u32, packet_id: u16) -> Token {
    Token { nonce, number, packet_id }
}

/// A nonce that ended without a word.
fn unresolved(nonce: Nonce) -> Unresolved {
    Unresolved { nonce, incarnation: Incarnation([8; 16]), high: 0, pending: vec![], released: vec![], looked: vec![] }
}

/// A session whose earlier connections left these.
fn left(held: &[u16], unresolved: Vec<Unresolved>) -> SessionState {
    let held = held.iter().map(|&packet_id| id(packet_id)).collect();
    SessionState { inbound: Inbound { held, unresolved, ..Inbound::default() }, ..SessionState::default() }
}

fn resumed(state: SessionState) -> Script {
    Script::durable(ProtocolVersion::V5, Some(state))
}

fn again(topic: &str, packet_id: u16) -> Packet<'_> {
    let Packet::Publish(first) = publish(topic, qos2(packet_id)) else { unreachable!() };
    Packet::Publish(Publish { dup: true, ..first })
}

/// What an effect asks the log, in short.
fn asks(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Append { token, .. } => Some(format!("append {}", token.map_or(0, |token| token.packet_id))),
            Effect::AppendKept { token, .. } => Some(format!("kept {}", token.map_or(0, |token| token.packet_id))),
            Effect::LookUp { sequence, topic, .. } => Some(format!("look {topic} {sequence}")),
            _ => None,
        })
        .collect()
}

fn looked_up(script: &mut Script, sequence: u64, found: &[Token]) -> Vec<Effect> {
    script.input(Input::LookedUp { sequence, place: PLACE, found: found.to_vec() })
}

fn inbound(effects: &[Effect]) -> Inbound {
    let (_, Part::Inbound(inbound)) = persist(effects) else { panic!("{effects:?}") };
    inbound
}

const NOTHING: [&str; 0] = [];

// -- QoS 2 from the client -------------------------------------------------------------------------------------------

#[test]
fn an_inherited_id_is_answered_and_not_appended_and_its_pubrel_recorded() {
    for packet in [again("a", 5), publish("a", qos2(5))] {
        let mut script = resumed(left(&[5], vec![unresolved(FORMER)]));
        let effects = script.packet(packet);
        assert_eq!((asks(&effects), sent(&effects)), (vec![], vec!["PUBREC 5".to_owned()]));
    }
    let mut script = resumed(left(&[5, 6], vec![]));
    let effects = script.packet(pubrel(5));
    assert_eq!((sent(&effects), inbound(&effects).held), (vec![], vec![id(6)]));
    assert_eq!(sent(&script.persisted(persist(&effects).0)), ["PUBCOMP 5"]);
}

/// Q2
#[test]
fn dup_with_an_unknown_id_is_looked_for_and_without_it_is_new() {
    let mut script = resumed(left(&[], vec![unresolved(FORMER)]));
    assert_eq!(asks(&script.packet(publish("a", qos2(4)))), ["append 4"]);
    let effects = script.packet(again("a", 5));
    assert_eq!((asks(&effects), sent(&effects)), (vec!["look a 1".to_owned()], vec![]));
    let effects = looked_up(&mut script, 1, &[]);
    assert_eq!((asks(&effects), sent(&effects)), (vec!["kept 5".to_owned()], vec![]));
}

#[test]
fn what_is_found_is_answered_and_not_appended() {
    let mut script = resumed(left(&[], vec![unresolved(FORMER)]));
    script.packet(again("a", 5));
    let effects = looked_up(&mut script, 1, &[of(FORMER, 1, 5), of(FORMER, 2, 6), of(OLDER, 3, 7)]);
    assert_eq!((asks(&effects), sent(&effects)), (vec![], vec!["PUBREC 5".to_owned()]));
    assert_eq!(sent(&script.packet(again("a", 6))), ["PUBREC 6"], "it was found by the way");
    assert_eq!(asks(&script.packet(again("a", 7))), ["look a 2"], "nobody asked for that nonce");
}

#[test]
fn dup_with_nothing_in_doubt_is_new() {
    let mut script = resumed(left(&[], vec![]));
    assert_eq!(asks(&script.packet(again("a", 5))), ["append 5"]);
    let mut script = Script::durable(ProtocolVersion::V5, None);
    assert_eq!(asks(&script.packet(again("a", 5))), ["append 5"]);
}

#[test]
fn nothing_is_looked_for_before_every_lower_nonce_is_final_or_fenced() {
    let (mut script, _) = Script::resumed(ProtocolVersion::V5, Some(left(&[], vec![unresolved(FORMER)])), false);
    assert!(script.packet(again("a", 5)).is_empty());
    assert_eq!(asks(&script.input(Input::Settled(vec![(FORMER, None)]))), ["look a 1"]);
    assert_eq!(sent(&looked_up(&mut script, 1, &[of(FORMER, 1, 5)])), ["PUBREC 5"]);
}

#[test]
fn a_nonce_that_said_what_it_holds_is_not_looked_for() {
    let (mut script, _) = Script::resumed(ProtocolVersion::V5, Some(left(&[3], vec![unresolved(FORMER)])), false);
    script.packet(again("a", 5));
    script.packet(again("a", 6));
    let exact = Inbound { high: 9, held: vec![id(5)], ..Inbound::default() };
    let effects = script.input(Input::Settled(vec![(FORMER, Some(exact))]));
    assert_eq!((asks(&effects), sent(&effects)), (vec!["kept 6".to_owned()], vec!["PUBREC 5".to_owned()]));
    let state = inbound(&script.packet(pubrel(5)));
    assert_eq!((state.held, state.unresolved), (vec![id(3)], vec![]));
}

#[test]
fn publishes_with_one_topic_share_a_look_up_and_keep_their_order() {
    let mut script = resumed(left(&[], vec![unresolved(FORMER)]));
    assert_eq!(asks(&script.packet(again("a", 1))), ["look a 1"]);
    assert_eq!(asks(&script.packet(again("b", 2))), ["look b 2"]);
    assert_eq!(asks(&script.packet(again("a", 3))), NOTHING);
    assert_eq!(asks(&script.packet(publish("c", qos2(4)))), NOTHING, "it waits behind the others");
    assert_eq!(asks(&script.packet(publish("c", qos1(9)))), ["append 0"], "QoS 1 does not");
    let other = Input::LookedUp { sequence: 2, place: Place { topic: 1, partition: 1 }, found: vec![] };
    assert_eq!(asks(&script.input(other)), NOTHING);
    assert_eq!(asks(&looked_up(&mut script, 1, &[])), ["kept 1", "kept 2", "kept 3", "kept 4"]);
}

/// Q4
#[test]
fn pubrel_as_the_first_packet_releases_the_id_of_every_nonce_in_doubt() {
    let mut script = resumed(left(&[], vec![unresolved(OLDER), unresolved(FORMER)]));
    let effects = script.packet(pubrel(5));
    assert_eq!(sent(&effects), NOTHING);
    let state = inbound(&effects);
    assert!(state.unresolved.iter().all(|entry| entry.released == [id(5)]), "{state:?}");
    assert_eq!(sent(&script.persisted(persist(&effects).0)), ["PUBCOMP 5"]);
    // The id is used again, on a third node this time.
    let mut script = resumed(left(&[], state.unresolved));
    script.packet(again("a", 5));
    assert_eq!(asks(&looked_up(&mut script, 1, &[of(OLDER, 1, 5), of(FORMER, 1, 5)])), ["kept 5"]);
}

#[test]
fn pubrel_of_an_id_in_doubt_does_not_wait_for_the_fence_and_what_was_said_later_does_not_undo_it() {
    let (mut script, _) = Script::resumed(ProtocolVersion::V5, Some(left(&[], vec![unresolved(FORMER)])), false);
    let effects = script.packet(pubrel(5));
    assert_eq!(sent(&script.persisted(persist(&effects).0)), ["PUBCOMP 5"]);
    let exact = Inbound { high: 1, held: vec![id(5)], ..Inbound::default() };
    script.input(Input::Settled(vec![(FORMER, Some(exact))]));
    assert_eq!(asks(&script.packet(publish("a", qos2(5)))), ["append 5"]);
}

#[test]
fn tokens_that_the_record_calls_released_are_not_found_and_pending_ones_are() {
    let entry = Unresolved { high: 3, pending: vec![(2, id(2))], ..unresolved(FORMER) };
    for (number, is_found) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut script = resumed(left(&[], vec![entry.clone()]));
        script.packet(again("a", number));
        let effects = looked_up(&mut script, 1, &[of(FORMER, u32::from(number), number)]);
        assert_eq!(sent(&effects).len(), usize::from(is_found), "token {number}");
        assert_eq!(asks(&effects).len(), usize::from(!is_found), "token {number}");
    }
}

#[test]
fn what_was_found_in_a_partition_once_is_not_found_again() {
    let mut script = resumed(left(&[], vec![unresolved(FORMER)]));
    script.packet(again("a", 5));
    looked_up(&mut script, 1, &[of(FORMER, 1, 5)]);
    let effects = script.packet(pubrel(5));
    assert_eq!(inbound(&effects).unresolved[0].looked, [PLACE]);
    script.persisted(persist(&effects).0);
    script.packet(again("a", 5));
    assert_eq!(asks(&looked_up(&mut script, 2, &[of(FORMER, 1, 5)])), ["kept 5"]);
}

/// What `FORMER` learned of `OLDER` is newer than what `OLDER` said at its end.
#[test]
fn the_youngest_nonce_is_believed_about_older_ones() {
    let both = vec![unresolved(OLDER), unresolved(FORMER)];
    let (mut script, _) = Script::resumed(ProtocolVersion::V5, Some(left(&[], both)), false);
    let older = Inbound { high: 2, held: vec![id(5), id(6)], ..Inbound::default() };
    let former = Inbound { held: vec![id(6)], ..Inbound::default() };
    script.input(Input::Settled(vec![(OLDER, Some(older)), (FORMER, Some(former))]));
    assert_eq!(sent(&script.packet(again("a", 6))), ["PUBREC 6"]);
    assert_eq!(asks(&script.packet(publish("a", qos2(5)))), ["append 5"], "it was completed with FORMER");
}

/// Found by a random walk: the lower nonce does not know that its successor completed the exchange.
#[test]
fn an_inherited_id_that_was_released_stays_so_when_a_lower_nonce_still_calls_it_held() {
    let (mut script, _) = Script::resumed(ProtocolVersion::V5, Some(left(&[5], vec![unresolved(FORMER)])), false);
    let (record, _) = persist(&script.packet(pubrel(5)));
    script.persisted(record);
    let exact = Inbound { high: 1, held: vec![id(5)], ..Inbound::default() };
    script.input(Input::Settled(vec![(FORMER, Some(exact))]));
    assert_eq!(asks(&script.packet(publish("a", qos2(5)))), ["append 5"]);
}

#[test]
fn a_nonce_that_was_looked_for_is_not_believed_any_more() {
    let entry = Unresolved { looked: vec![PLACE], ..unresolved(FORMER) };
    let (mut script, _) = Script::resumed(ProtocolVersion::V5, Some(left(&[], vec![entry])), false);
    let exact = Inbound { high: 1, held: vec![id(5)], ..Inbound::default() };
    script.input(Input::Settled(vec![(FORMER, Some(exact))]));
    assert_eq!(asks(&script.packet(publish("a", qos2(5)))), ["append 5"], "it was found, answered and completed");
}

#[test]
fn a_nonce_that_is_not_exact_stays_in_doubt() {
    let (mut script, _) = Script::resumed(ProtocolVersion::V5, Some(left(&[], vec![unresolved(FORMER)])), false);
    let pending = Inbound { high: 1, pending: vec![(1, id(5))], ..Inbound::default() };
    script.input(Input::Settled(vec![(FORMER, Some(pending))]));
    assert_eq!(asks(&script.packet(again("a", 5))), ["look a 1"]);
}

#[test]
fn the_next_nonce_inherits_what_is_held_and_looks_for_the_rest() {
    let inbound =
        Inbound { high: 4, held: vec![id(1)], pending: vec![(4, id(2))], unresolved: vec![unresolved(OLDER)] };
    let incarnation = Incarnation([6; 16]);
    let next = succeed(inbound, FORMER, incarnation);
    let former = Unresolved { incarnation, high: 4, pending: vec![(4, id(2))], ..unresolved(FORMER) };
    let expected = Inbound { held: vec![id(1)], unresolved: vec![unresolved(OLDER), former], ..Inbound::default() };
    assert_eq!(next, expected);
}

#[test]
fn nonces_that_said_their_last_word_are_in_doubt_no_longer_than_until_the_next_claim() {
    let said = |held: &[u16], unresolved| Some(Inbound { high: 3, unresolved, ..left(held, vec![]).inbound });
    let released = Unresolved { released: vec![id(7)], ..unresolved(FORMER) };
    let mut inbound = left(&[2], vec![unresolved(OLDER), released]).inbound;
    believe_ended(&mut inbound, &[(FORMER, said(&[1, 7], vec![unresolved(OLDER)]))]);
    assert_eq!(inbound, left(&[1, 2], vec![unresolved(OLDER)]).inbound, "7 was released since");
    let pending = Some(Inbound { pending: vec![(1, id(5))], ..Inbound::default() });
    believe_ended(&mut inbound, &[(OLDER, pending)]);
    assert_eq!(inbound.unresolved, [unresolved(OLDER)], "it did not say all");
    believe_ended(&mut inbound, &[(OLDER, said(&[], vec![]))]);
    assert_eq!(inbound, left(&[1, 2], vec![]).inbound);
}

// -- messages to the client ------------------------------------------------------------------------------------------

fn subscription(filter: &str) -> SubscriptionState {
    let filter = TopicFilter::parse(filter).unwrap();
    SubscriptionState {
        filter,
        options: SubscribeOptions { qos: QoS::ExactlyOnce, ..Default::default() },
        id: None,
        starts: Vec::new(),
    }
}

fn open(packet_id: u16, offset: i64, released: bool) -> OpenDelivery {
    OpenDelivery { packet_id: id(packet_id), origin: at(offset), released }
}

/// A session at offset 20 with one subscription.
fn at_20(open: Vec<OpenDelivery>, in_flight: Vec<(PacketId, Origin)>) -> SessionState {
    let sent_to = open.iter().map(|open| (PLACE, open.origin.offset)).next_back().into_iter().collect();
    SessionState {
        subscriptions: vec![subscription("a")],
        position: Position { following: true, from: vec![(PLACE, 20)], in_flight },
        outbound: Outbound { open, sent_to },
        ..SessionState::default()
    }
}

fn resume(effects: &[Effect]) -> (Vec<String>, Vec<(Place, i64)>) {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Resume { filters, from } => {
            assert!(filters.iter().all(|follow| !follow.is_new));
            Some((filters.iter().map(|follow| follow.filter.as_str().to_owned()).collect(), from.clone()))
        }
        _ => None,
    });
    found.expect("a Resume")
}

#[test]
fn connack_is_followed_by_the_pubrels_that_are_owed_and_then_by_messages() {
    for version in [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5] {
        let state = at_20(vec![open(3, 7, true), open(4, 9, false), open(5, 8, true)], vec![]);
        let (script, effects) = Script::resumed(version, Some(state), true);
        assert_eq!(sent(&effects), ["CONNACK 0x00 true", "PUBREL 3", "PUBREL 5"]);
        assert_eq!(resume(&effects), (vec!["a".to_owned()], vec![(PLACE, 9)]), "the open message is read again");
        assert!(matches!(effects.last(), Some(Effect::Resume { .. })));
        assert!(script.session.wants_deliveries());
    }
}

#[test]
fn subscriptions_are_resumed_with_the_starts_that_the_position_has_not_come_to() {
    let mut state = at_20(vec![], vec![]);
    state.subscriptions[0].starts = vec![(PLACE, 25)];
    state.subscriptions.push(SubscriptionState { starts: vec![(PLACE, 15)], ..subscription("b") });
    let (_, effects) = Script::resumed(ProtocolVersion::V5, Some(state), true);
    let Some(Effect::Resume { filters, .. }) = effects.last() else { panic!("{effects:?}") };
    let starts: Vec<_> = filters.iter().map(|follow| follow.starts.clone()).collect();
    assert_eq!(starts, [vec![(PLACE, 25)], vec![]]);
}

/// [MQTT-4.4.0-1]
#[test]
fn an_open_message_is_sent_again_with_its_id_and_what_is_before_the_position_is_not() {
    let mut script = resumed(at_20(vec![open(4, 9, false), open(5, 11, false)], vec![]));
    assert_eq!(sent(&script.deliver_at(9, QoS::ExactlyOnce)), ["PUBLISH 4 q2 dup"]);
    for (offset, qos) in [(10, QoS::ExactlyOnce), (10, QoS::AtLeastOnce), (10, QoS::AtMostOnce)] {
        assert!(script.deliver_at(offset, qos).is_empty());
    }
    assert_eq!(sent(&script.deliver_at(11, QoS::ExactlyOnce)), ["PUBLISH 5 q2 dup"]);
    assert!(script.deliver_at(19, QoS::AtLeastOnce).is_empty());
    assert_eq!(sent(&script.deliver_at(20, QoS::AtLeastOnce)), ["PUBLISH 6 q1"]);
    let effects = script.packet(pubrec(4));
    let (record, Part::Outbound(state)) = persist(&effects) else { panic!("{effects:?}") };
    assert_eq!(state.open, [open(4, 9, true), open(5, 11, false)]);
    assert_eq!(sent(&script.persisted(record)), ["PUBREL 4"]);
}

#[test]
fn a_message_with_qos_2_that_was_complete_is_not_sent_again() {
    let mut script = resumed(at_20(vec![open(4, 25, false)], vec![]));
    assert!(script.deliver_at(24, QoS::ExactlyOnce).is_empty(), "25 was sent after it, and it is not open any more");
    assert_eq!(sent(&script.deliver_at(24, QoS::AtLeastOnce)), ["PUBLISH 5 q1"], "QoS 1 goes by the position alone");
    assert_eq!(sent(&script.deliver_at(25, QoS::ExactlyOnce)), ["PUBLISH 4 q2 dup"]);
    assert_eq!(persists(&script.deliver_at(26, QoS::ExactlyOnce)).len(), 1);
}

#[test]
fn a_message_in_flight_with_qos_1_is_sent_again_with_its_id() {
    let mut script = resumed(at_20(vec![], vec![(id(7), at(20)), (id(8), at(22))]));
    assert_eq!(sent(&script.deliver_at(20, QoS::AtLeastOnce)), ["PUBLISH 7 q1 dup"]);
    assert_eq!(sent(&script.deliver_at(21, QoS::AtLeastOnce)), ["PUBLISH 9 q1"]);
    assert_eq!(sent(&script.deliver_at(22, QoS::AtLeastOnce)), ["PUBLISH 8 q1 dup"]);
    assert_eq!(script.session.oldest_tick(), Some(2));
    for packet_id in [7, 8, 9] {
        script.packet(Packet::PubAck(ack(packet_id, ReasonCode::Success)));
    }
    assert_eq!(script.session.oldest_tick(), None);
}

#[test]
fn ids_that_are_to_be_sent_again_are_not_given_to_other_messages() {
    let mut script = resumed(at_20(vec![open(1, 5, false)], vec![(id(u16::MAX), at(30)), (id(2), at(31))]));
    let ids: Vec<_> = (0..2).flat_map(|_| sent(&script.deliver("x", QoS::AtLeastOnce))).collect();
    assert_eq!(ids, ["PUBLISH 3 q1", "PUBLISH 4 q1"]);
}

#[test]
fn what_is_owed_from_before_uses_none_of_the_new_connections_window() {
    let state = at_20(vec![open(3, 7, true)], vec![]);
    let mut script = Script::new(ProtocolVersion::V5);
    let properties = ConnectProperties {
        session_expiry_s: Some(60),
        receive_maximum: std::num::NonZeroU16::new(1),
        ..ConnectProperties::default()
    };
    let asked = Connect { properties, ..durable_connect(ProtocolVersion::V5) };
    let effects = script.packet(Packet::Connect(Box::new(asked)));
    let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
    let state = Box::new(SessionState { expiry_s: wish.expiry_s, ..state });
    script.grant(Grant { session_present: true, state, ..new_session(wish) });
    assert!(script.session.wants_deliveries());
    script.deliver_at(20, QoS::AtLeastOnce);
    script.packet(pubcomp(3));
    assert!(!script.session.wants_deliveries());
}

#[test]
fn a_pubrec_before_the_message_was_sent_again_is_enough() {
    let mut script = resumed(at_20(vec![open(4, 9, false)], vec![]));
    let (record, _) = persist(&script.packet(pubrec(4)));
    assert_eq!(sent(&script.persisted(record)), ["PUBREL 4"]);
    assert!(script.deliver_at(9, QoS::ExactlyOnce).is_empty());
}

/// Because of retention, or because its subscription ended: the client may have it and waits for PUBREL.
#[test]
fn an_open_message_that_will_not_come_again_is_released_when_a_later_one_comes() {
    let mut script = resumed(at_20(vec![open(4, 9, false), open(5, 12, false)], vec![(id(6), at(21))]));
    let (record, Part::Outbound(state)) = persist(&script.deliver_at(10, QoS::ExactlyOnce)) else { panic!() };
    assert_eq!(state.open, [open(5, 12, false), open(4, 9, true)]);
    assert_eq!(sent(&script.persisted(record)), ["PUBREL 4"]);
    script.packet(pubcomp(4));
    let parting = script.parting(Input::SocketClosed);
    assert_eq!(parting.state.outbound.open, [open(5, 12, false)]);
    assert_eq!(parting.unacked, [(id(6), at(21))]);
}

#[test]
fn a_message_of_qos_0_that_overtakes_what_was_missed_says_nothing_of_it() {
    let mut script = resumed(at_20(vec![open(4, 9, false)], vec![(id(6), at(21))]));
    assert_eq!(sent(&script.deliver_at(25, QoS::AtMostOnce)), ["PUBLISH 0 q0"]);
    assert_eq!(sent(&script.deliver_at(9, QoS::ExactlyOnce)), ["PUBLISH 4 q2 dup"]);
    assert!(script.deliver_at(19, QoS::AtLeastOnce).is_empty(), "it is before the position");
    assert_eq!(sent(&script.deliver_at(21, QoS::AtLeastOnce)), ["PUBLISH 6 q1 dup"]);
}

#[test]
fn open_messages_that_did_not_come_are_released_when_the_session_has_caught_up() {
    let mut script = resumed(at_20(vec![open(4, 9, false), open(5, 32, false)], vec![]));
    let effects = script.input(Input::Positions { following: true, from: vec![(PLACE, 30)] });
    let records: Vec<_> = persists(&effects);
    let record = records.iter().find(|(_, part)| matches!(part, Part::Outbound(_))).unwrap().0;
    assert_eq!(sent(&script.persisted(record)), ["PUBREL 4"]);
    assert_eq!(sent(&script.deliver_at(32, QoS::ExactlyOnce)), ["PUBLISH 5 q2 dup"]);
}

#[test]
fn an_expired_message_whose_delivery_began_is_sent_again() {
    let mut script = resumed(at_20(vec![open(4, 9, false)], vec![]));
    let properties = PublishProperties { message_expiry_s: Some(1), ..PublishProperties::default() };
    let content = Content { qos: QoS::ExactlyOnce, retain: false, properties: &properties, payload: b"" };
    let message = Message::new("a", content, Stamp { wall_ms: WALL_MS - 5_000, ..Stamp::default() });
    let delivery = Delivery { origin: Some(at(9)), ..delivery(message, QoS::ExactlyOnce) };
    assert_eq!(sent(&script.input(Input::Deliver { delivery, wall_ms: WALL_MS })), ["PUBLISH 4 q2 dup"]);
}

#[test]
fn a_session_that_was_there_and_is_not_to_outlive_this_connection_is_resumed_and_writes_nothing() {
    let mut script = Script::new(ProtocolVersion::V5);
    let asked = Connect { clean_start: false, ..connect(ProtocolVersion::V5) };
    let effects = script.packet(Packet::Connect(Box::new(asked)));
    let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
    let mut state = at_20(vec![open(4, 9, false)], vec![]);
    state.inbound.unresolved = vec![unresolved(FORMER)];
    let effects = script.grant(Grant { session_present: true, state: Box::new(state), ..new_session(wish) });
    assert_eq!(sent(&effects), ["CONNACK 0x00 true"]);
    assert_eq!(resume(&effects).1, [(PLACE, 9)]);
    assert_eq!(sent(&script.deliver_at(9, QoS::ExactlyOnce)), ["PUBLISH 4 q2 dup"]);
    assert_eq!(sent(&script.packet(pubrec(4))), ["PUBREL 4"]);
    let effects = script.packet(pubrel(1));
    assert_eq!((sent(&effects), persists(&effects)), (vec!["PUBCOMP 1".to_owned()], vec![]));
    assert!(!script.session.is_durable());
}
