//! F5: what is told only after it was read back; and how records are saved.

use super::*;

fn subscribe(packet_id: u16, filter: &str) -> Packet<'_> {
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters: vec![SubscribeFilter { filter, options }],
    })
}

fn unsubscribe(packet_id: u16, filter: &str) -> Packet<'_> {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        user_properties: UserProperties::default(),
        filters: vec![filter],
    })
}

fn followed(packet_id: u16, offset: i64) -> Input<'static> {
    Input::Followed { packet_id: id(packet_id), from: vec![(PLACE, offset)], starts: Vec::new() }
}

fn subscriptions(effects: &[Effect]) -> (u64, Vec<String>, Position) {
    let (sequence, Part::Subscriptions(list, position)) = persist(effects) else { panic!("{effects:?}") };
    (sequence, list.iter().map(|state| state.filter.as_str().to_owned()).collect(), position)
}

fn position(effects: &[Effect]) -> (u64, Position) {
    let (sequence, Part::Position(position)) = persist(effects) else { panic!("{effects:?}") };
    (sequence, position)
}

fn puback(packet_id: u16) -> Packet<'static> {
    Packet::PubAck(ack(packet_id, ReasonCode::Success))
}

fn positions(following: bool, offset: i64) -> Input<'static> {
    Input::Positions { following, from: vec![(PLACE, offset)] }
}

#[test]
fn suback_and_unsuback_wait_for_their_record() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    script.packet(subscribe(1, "a"));
    let effects = script.input(followed(1, 30));
    assert_eq!(sent(&effects), [] as [&str; 0]);
    let (record, filters, position) = subscriptions(&effects);
    let expected = Position { following: true, from: vec![(PLACE, 30)], in_flight: vec![] };
    assert_eq!((filters, position), (vec!["a".to_owned()], expected));
    assert_eq!(sent(&script.persisted(record)), ["SUBACK 1 0x01"]);

    script.packet(unsubscribe(2, "a"));
    let effects = script.input(Input::Unfollowed { packet_id: id(2), from: vec![] });
    let (record, filters, _) = subscriptions(&effects);
    assert_eq!((sent(&effects), filters), (vec![], vec![]));
    assert_eq!(sent(&script.persisted(record)), ["UNSUBACK 2 0x00"]);
}

#[test]
fn a_filter_without_a_start_is_in_no_record_and_what_comes_meanwhile_is_in_the_next() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    for (packet_id, filter) in [(1, "a"), (2, "b"), (3, "c")] {
        script.packet(subscribe(packet_id, filter));
    }
    let (first, filters, _) = subscriptions(&script.input(followed(2, 30)));
    assert_eq!(filters, ["b"]);
    assert!(script.input(followed(1, 31)).is_empty());
    assert!(script.input(followed(3, 32)).is_empty());
    let effects = script.persisted(first);
    assert_eq!(sent(&effects), ["SUBACK 2 0x01"]);
    let (second, filters, position) = subscriptions(&effects);
    assert_eq!((filters.len(), position.from), (3, vec![(PLACE, 32)]));
    assert_eq!(sent(&script.persisted(second)), ["SUBACK 1 0x01", "SUBACK 3 0x01"]);
}

#[test]
fn a_start_is_recorded_while_the_position_is_before_it() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    let starts_after = |effects: &[Effect]| {
        let (sequence, Part::Subscriptions(list, _)) = persist(effects) else { panic!("{effects:?}") };
        (sequence, list.into_iter().map(|state| state.starts).collect::<Vec<_>>())
    };
    let followed = |packet_id, filter, offset| {
        let (filter, start) = (TopicFilter::parse(filter).unwrap(), vec![(PLACE, offset)]);
        Input::Followed { packet_id: id(packet_id), from: start.clone(), starts: vec![(filter, start)] }
    };
    script.deliver_at(10, QoS::AtLeastOnce);
    script.packet(subscribe(1, "a"));
    let (first, starts) = starts_after(&script.input(followed(1, "a", 30)));
    assert_eq!(starts, [vec![(PLACE, 30)]], "the message at 10 is not acknowledged");
    script.persisted(first);
    script.packet(subscribe(2, "a"));
    let unchanged = Input::Followed { packet_id: id(2), from: vec![(PLACE, 31)], starts: Vec::new() };
    let (second, starts) = starts_after(&script.input(unchanged));
    assert_eq!(starts, [vec![(PLACE, 30)]], "a subscription that is changed goes on [MQTT-3.8.4-3]");
    script.persisted(second);
    script.packet(puback(1));
    script.packet(subscribe(3, "b"));
    let (_, starts) = starts_after(&script.input(followed(3, "b", 32)));
    assert_eq!(starts, [vec![], vec![]]);
}

#[test]
fn a_filter_that_was_in_force_stays_in_the_records_while_it_is_changed() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    script.packet(subscribe(1, "a"));
    let (record, ..) = subscriptions(&script.input(followed(1, 30)));
    script.persisted(record);
    let effects = script.packet(subscribe(2, "a"));
    assert!(matches!(effects.as_slice(), [Effect::Follow { filters, .. }] if !filters[0].is_new));
    script.packet(subscribe(3, "b"));
    assert_eq!(subscriptions(&script.input(followed(3, 31))).1, ["a", "b"]);
}

#[test]
fn a_position_stops_at_the_first_message_that_is_neither_acknowledged_nor_recorded() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    for offset in [10, 11, 12] {
        script.deliver_at(offset, QoS::AtLeastOnce);
    }
    let (outbound, _) = persist(&script.deliver_at(13, QoS::ExactlyOnce));
    script.packet(puback(1));
    let (first, written) = position(&script.input(positions(false, 20)));
    assert_eq!(written, Position { following: false, from: vec![(PLACE, 11)], in_flight: vec![] });
    script.persisted(first);
    script.packet(puback(2));
    script.packet(puback(3));
    let (second, written) = position(&script.input(positions(true, 20)));
    assert_eq!(written, Position { following: true, from: vec![(PLACE, 13)], in_flight: vec![] });
    script.persisted(second);
    script.persisted(outbound);
    assert_eq!(position(&script.input(positions(true, 20))).1.from, [(PLACE, 20)], "its id stands for it now");
}

#[test]
fn a_subscription_of_a_session_that_does_not_keep_up_says_so() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    let (first, _) = position(&script.input(positions(false, 20)));
    script.packet(subscribe(1, "a"));
    let (_, _, written) = subscriptions(&script.input(followed(1, 30)));
    assert!(!written.following);
    let effects = script.persisted(first);
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn a_resumed_session_does_not_follow_before_it_is_told_and_keeps_its_ids_in_every_position() {
    let filter = TopicFilter::parse("a").unwrap();
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    let state = SessionState {
        subscriptions: vec![SubscriptionState { filter, options, id: None, starts: Vec::new() }],
        position: Position { following: true, from: vec![(PLACE, 5)], in_flight: vec![(id(9), at(5))] },
        ..SessionState::default()
    };
    let mut script = Script::durable(ProtocolVersion::V5, Some(state));
    script.packet(subscribe(1, "b"));
    let (_, filters, written) = subscriptions(&script.input(followed(1, 30)));
    assert_eq!(filters, ["a", "b"]);
    assert_eq!(written, Position { following: false, from: vec![(PLACE, 5)], in_flight: vec![(id(9), at(5))] });
}

/// W3
#[test]
fn a_position_waits_for_no_record_and_the_subscriptions_have_the_newest_too() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    script.packet(subscribe(1, "a"));
    script.packet(subscribe(2, "b"));
    let (first, ..) = subscriptions(&script.input(followed(1, 30)));
    assert!(script.input(followed(2, 31)).is_empty());
    assert_eq!(position(&script.input(positions(true, 40))).1.from, [(PLACE, 40)]);
    let (_, second) = position(&script.input(positions(false, 41)));
    assert_eq!((second.following, second.from), (false, vec![(PLACE, 41)]));
    let (_, _, written) = subscriptions(&script.persisted(first));
    assert_eq!((written.following, written.from), (false, vec![(PLACE, 41)]));
}

#[test]
fn a_session_that_ends_with_its_connection_writes_nothing() {
    let mut script = Script::connected(ProtocolVersion::V5);
    script.packet(subscribe(1, "a"));
    assert_eq!(sent(&script.input(followed(1, 30))), ["SUBACK 1 0x01"]);
    for input in [positions(true, 20), Input::Tick, Input::Persisted(0)] {
        assert!(script.input(input).is_empty());
    }
}

#[test]
fn a_record_that_was_not_asked_for_tells_nothing() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    script.packet(subscribe(1, "a"));
    let (record, ..) = subscriptions(&script.input(followed(1, 30)));
    assert!(script.persisted(record + 1).is_empty());
    assert_eq!(sent(&script.persisted(record)), ["SUBACK 1 0x01"]);
    assert!(script.persisted(record).is_empty());
}

/// F5, F6
#[test]
fn nothing_that_hangs_on_a_record_is_told_once_the_session_is_lost() {
    let mut script = Script::durable(ProtocolVersion::V5, None);
    script.packet(subscribe(1, "a"));
    let (record, ..) = subscriptions(&script.input(followed(1, 30)));
    let (outbound, _) = persist(&script.deliver_at(31, QoS::ExactlyOnce));
    script.input(Input::TakenOver);
    assert!(script.persisted(record).is_empty());
    assert!(script.persisted(outbound).is_empty());
    assert!(script.input(followed(1, 32)).is_empty());
    assert!(script.input(positions(true, 40)).is_empty());
}

/// What an idle session that outlives its connection costs besides the connection.
#[test]
fn the_durable_part_is_small() {
    assert!(size_of::<record::Durable>() <= 304, "{} bytes", size_of::<record::Durable>());
    assert!(size_of::<Session>() <= 224, "{} bytes", size_of::<Session>());
}
