//! QoS 2 to the client.

use std::num::NonZeroU16;

use super::*;

fn outbound(part: Part) -> Outbound {
    let Part::Outbound(outbound) = part else { panic!("{part:?}") };
    outbound
}

fn open(packet_id: u16, offset: i64, released: bool) -> OpenDelivery {
    OpenDelivery { packet_id: id(packet_id), origin: at(offset), released }
}

fn durable() -> Script {
    Script::durable(ProtocolVersion::V5, None)
}

/// Delivers the message at this offset and has it recorded: what that sent.
fn deliver_recorded(script: &mut Script, offset: i64) -> Vec<String> {
    let (record, _) = persist(&script.deliver_at(offset, QoS::ExactlyOnce));
    sent(&script.persisted(record))
}

/// [MQTT-4.3.3-1 to 4.3.3-5]
#[test]
fn the_id_is_recorded_before_the_publish_and_its_release_before_the_pubrel() {
    for version in [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut script = Script::durable(version, None);
        let effects = script.deliver_at(10, QoS::ExactlyOnce);
        assert_eq!(sent(&effects), [] as [&str; 0]);
        let (record, part) = persist(&effects);
        assert_eq!(outbound(part), Outbound { open: vec![open(1, 10, false)], sent_to: vec![(PLACE, 10)] });
        assert_eq!(sent(&script.persisted(record)), ["PUBLISH 1 q2"]);
        let effects = script.packet(pubrec(1));
        assert_eq!(sent(&effects), [] as [&str; 0]);
        let (record, part) = persist(&effects);
        assert_eq!(outbound(part).open, [open(1, 10, true)]);
        assert_eq!(sent(&script.persisted(record)), ["PUBREL 1"]);
        assert!(script.packet(pubcomp(1)).is_empty(), "the end is recorded with something else");
        let (_, part) = persist(&script.deliver_at(11, QoS::ExactlyOnce));
        assert_eq!(outbound(part), Outbound { open: vec![open(2, 11, false)], sent_to: vec![(PLACE, 11)] });
    }
}

#[test]
fn a_session_that_ends_with_its_connection_records_nothing() {
    let mut script = Script::connected(ProtocolVersion::V311);
    let effects = script.deliver_at(10, QoS::ExactlyOnce);
    assert_eq!((sent(&effects), persists(&effects)), (vec!["PUBLISH 1 q2".to_owned()], vec![]));
    let effects = script.packet(pubrec(1));
    assert_eq!((sent(&effects), persists(&effects)), (vec!["PUBREL 1".to_owned()], vec![]));
    assert!(script.packet(pubcomp(1)).is_empty());
}

/// [MQTT-4.3.3-4]
#[test]
fn a_pubrec_that_refuses_ends_the_exchange() {
    let mut script = durable();
    deliver_recorded(&mut script, 10);
    let effects = script.packet(Packet::PubRec(ack(1, ReasonCode::QuotaExceeded)));
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(sent(&script.packet(pubrec(1))), ["PUBREL 1 0x92"]);
    let (_, part) = persist(&script.deliver_at(11, QoS::ExactlyOnce));
    assert_eq!(outbound(part).open, [open(2, 11, false)]);
}

#[test]
fn a_pubrec_for_nothing_is_told_so_unless_it_refuses() {
    let mut script = Script::connected(ProtocolVersion::V5);
    script.deliver_at(10, QoS::AtLeastOnce);
    for packet_id in [1, 8] {
        assert_eq!(sent(&script.packet(pubrec(packet_id))), [format!("PUBREL {packet_id} 0x92")]);
        assert!(script.packet(Packet::PubRec(ack(packet_id, ReasonCode::UnspecifiedError))).is_empty());
    }
    assert_eq!(script.session.oldest_tick(), Some(1), "the message with QoS 1 still waits for PUBACK");
}

#[test]
fn a_pubrec_again_is_answered_again_once_its_release_is_recorded() {
    let mut script = durable();
    deliver_recorded(&mut script, 10);
    let (record, _) = persist(&script.packet(pubrec(1)));
    assert!(script.packet(pubrec(1)).is_empty());
    assert_eq!(sent(&script.persisted(record)), ["PUBREL 1"]);
    assert_eq!(sent(&script.packet(pubrec(1))), ["PUBREL 1"]);
}

#[test]
fn only_the_right_packet_moves_an_exchange_on() {
    let mut script = durable();
    deliver_recorded(&mut script, 10);
    script.packet(Packet::PubAck(ack(1, ReasonCode::Success)));
    script.packet(pubcomp(1));
    let (record, _) = persist(&script.packet(pubrec(1)));
    script.packet(pubcomp(1));
    assert_eq!(sent(&script.persisted(record)), ["PUBREL 1"]);
}

/// MQTT5 §4.9
#[test]
fn the_window_is_returned_by_puback_pubcomp_and_a_refusal_but_not_by_pubrec() {
    let mut script = Script::new(ProtocolVersion::V5);
    let properties = ConnectProperties { receive_maximum: NonZeroU16::new(1), ..ConnectProperties::default() };
    script.connect(Connect { properties, ..connect(ProtocolVersion::V5) });
    script.deliver_at(10, QoS::ExactlyOnce);
    assert!(!script.session.wants_deliveries());
    script.packet(pubrec(1));
    assert!(!script.session.wants_deliveries());
    script.packet(pubcomp(1));
    assert!(script.session.wants_deliveries());
    script.deliver_at(11, QoS::ExactlyOnce);
    script.packet(Packet::PubRec(ack(2, ReasonCode::UnspecifiedError)));
    assert!(script.session.wants_deliveries());
    script.deliver_at(12, QoS::AtLeastOnce);
    assert!(!script.session.wants_deliveries());
    script.packet(Packet::PubAck(ack(3, ReasonCode::UnspecifiedError)));
    assert!(script.session.wants_deliveries());
    for _ in 0..2 {
        script.packet(pubcomp(1));
    }
    script.deliver_at(13, QoS::AtLeastOnce);
    assert!(!script.session.wants_deliveries(), "a PUBCOMP for nothing opens nothing");
}

#[test]
fn a_message_that_waits_for_its_record_uses_the_window_and_does_not_hold_up_qos_1() {
    let mut script = Script::new(ProtocolVersion::V5);
    let properties = ConnectProperties {
        receive_maximum: NonZeroU16::new(2),
        session_expiry_s: Some(60),
        ..ConnectProperties::default()
    };
    script.connect(Connect { properties, ..connect(ProtocolVersion::V5) });
    script.deliver_at(10, QoS::ExactlyOnce);
    assert_eq!(sent(&script.deliver_at(11, QoS::AtLeastOnce)), ["PUBLISH 2 q1"]);
    assert!(!script.session.wants_deliveries());
}

#[test]
fn one_record_is_on_its_way_and_the_next_takes_everything_newer() {
    let mut script = durable();
    let (first, _) = persist(&script.deliver_at(10, QoS::ExactlyOnce));
    for offset in [11, 12] {
        assert!(script.deliver_at(offset, QoS::ExactlyOnce).is_empty());
    }
    let effects = script.persisted(first);
    assert_eq!(sent(&effects), ["PUBLISH 1 q2"]);
    let (second, part) = persist(&effects);
    assert_eq!(outbound(part).open.len(), 3);
    assert!(script.packet(pubrec(1)).is_empty());
    let effects = script.persisted(second);
    assert_eq!(sent(&effects), ["PUBLISH 2 q2", "PUBLISH 3 q2"]);
    let (third, part) = persist(&effects);
    assert_eq!(outbound(part).open, [open(1, 10, true), open(2, 11, false), open(3, 12, false)]);
    assert_eq!(sent(&script.persisted(third)), ["PUBREL 1"]);
}

/// [MQTT-4.6.0-4]
#[test]
fn pubrels_leave_in_the_order_of_the_pubrecs() {
    let mut script = durable();
    for offset in [10, 11, 12] {
        deliver_recorded(&mut script, offset);
    }
    let (first, _) = persist(&script.packet(pubrec(2)));
    script.packet(pubrec(3));
    script.packet(pubrec(1));
    let effects = script.persisted(first);
    assert_eq!(sent(&effects), ["PUBREL 2"]);
    assert_eq!(sent(&script.persisted(persist(&effects).0)), ["PUBREL 3", "PUBREL 1"]);
}

#[test]
fn a_message_too_large_for_the_client_is_complete() {
    let mut script = durable();
    deliver_recorded(&mut script, 10);
    script.input(Input::Undeliverable(PacketId::new(1)));
    let (_, part) = persist(&script.deliver_at(11, QoS::ExactlyOnce));
    assert_eq!(outbound(part), Outbound { open: vec![open(2, 11, false)], sent_to: vec![(PLACE, 11)] });
}

/// W2
#[test]
fn qos_1_holds_the_watermark_back_until_its_puback_and_qos_2_until_its_record() {
    let mut script = durable();
    let (record, _) = persist(&script.deliver_at(10, QoS::ExactlyOnce));
    script.deliver_at(20, QoS::AtLeastOnce);
    script.deliver_at(30, QoS::AtLeastOnce);
    script.deliver_at(40, QoS::AtMostOnce);
    assert_eq!(script.session.oldest_tick(), Some(1));
    script.persisted(record);
    assert_eq!(script.session.oldest_tick(), Some(2));
    script.packet(Packet::PubAck(ack(2, ReasonCode::Success)));
    assert_eq!(script.session.oldest_tick(), Some(3));
    script.packet(Packet::PubAck(ack(3, ReasonCode::Success)));
    assert_eq!(script.session.oldest_tick(), None);
}

#[test]
fn a_retained_message_holds_no_watermark_back_and_its_id_is_recorded() {
    let mut script = durable();
    let (record, part) = persist(&script.deliver("a", QoS::ExactlyOnce));
    let state = outbound(part);
    assert_eq!((state.open.len(), state.sent_to), (1, vec![]));
    assert_eq!(script.session.oldest_tick(), None);
    assert_eq!(sent(&script.persisted(record)), ["PUBLISH 1 q2"]);

    let before = SessionState { outbound: Outbound { open: state.open, sent_to: vec![] }, ..SessionState::default() };
    let (_, effects) = Script::resumed(ProtocolVersion::V5, Some(before), true);
    assert_eq!(sent(&effects), ["CONNACK 0x00 true", "PUBREL 1"], "it cannot be sent again: its id is freed");
}

#[test]
fn an_expired_message_is_not_recorded() {
    let mut script = durable();
    let properties = PublishProperties { message_expiry_s: Some(1), ..PublishProperties::default() };
    let content = Content { qos: QoS::ExactlyOnce, retain: false, properties: &properties, payload: b"" };
    let message = Message::new("a", content, Stamp { wall_ms: WALL_MS - 1_000, ..Stamp::default() });
    let delivery = Delivery { origin: Some(at(1)), ..delivery(message, QoS::ExactlyOnce) };
    let effects = script.input(Input::Deliver { delivery, wall_ms: WALL_MS });
    assert!(matches!(effects.as_slice(), [Effect::Dropped(Drop::Expired)]));
}
