//! Messages to the client.

use std::num::NonZeroU16;

use super::*;

fn ids(effects: &[Effect]) -> Vec<Option<u16>> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(Outgoing::Publish { packet_id, .. }) => Some(packet_id.map(PacketId::get)),
            _ => None,
        })
        .collect()
}

fn puback(id: u16) -> Packet<'static> {
    let packet_id = PacketId::new(id).unwrap();
    Packet::PubAck(Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() })
}

fn with_window(window: u16) -> Script {
    let mut script = Script::new(ProtocolVersion::V5);
    let properties = ConnectProperties { receive_maximum: NonZeroU16::new(window), ..ConnectProperties::default() };
    script.connect(Connect { properties, ..connect(ProtocolVersion::V5) });
    script
}

/// [MQTT-3.3.4-7]
#[test]
fn no_more_than_the_clients_receive_maximum_is_in_flight() {
    let mut script = with_window(2);
    assert_eq!(ids(&script.deliver("a", QoS::AtLeastOnce)), [Some(1)]);
    assert!(script.session.wants_deliveries());
    assert_eq!(ids(&script.deliver("a", QoS::AtLeastOnce)), [Some(2)]);
    assert!(!script.session.wants_deliveries());
    script.packet(puback(2));
    assert!(script.session.wants_deliveries());
    assert_eq!(ids(&script.deliver("a", QoS::AtLeastOnce)), [Some(3)]);
}

#[test]
fn the_servers_own_window_caps_a_greedy_client() {
    let mut script = with_window(u16::MAX);
    for _ in 0..64 {
        script.deliver("a", QoS::AtLeastOnce);
    }
    assert!(!script.session.wants_deliveries());
}

#[test]
fn an_id_in_flight_is_not_used_again_when_the_numbers_wrap() {
    let mut script = with_window(2);
    assert_eq!(ids(&script.deliver("a", QoS::AtLeastOnce)), [Some(1)]);
    for id in 2..=u16::MAX {
        assert_eq!(ids(&script.deliver("a", QoS::AtLeastOnce)), [Some(id)]);
        script.packet(puback(id));
    }
    assert_eq!(ids(&script.deliver("a", QoS::AtLeastOnce)), [Some(2)], "1 is still in flight");
}

#[test]
fn an_unknown_puback_is_ignored() {
    let mut script = with_window(1);
    script.deliver("a", QoS::AtLeastOnce);
    assert!(script.packet(puback(77)).is_empty());
    assert!(!script.session.wants_deliveries());
}

#[test]
fn qos_0_has_no_id_and_needs_no_window() {
    let mut script = with_window(1);
    assert_eq!(ids(&script.deliver("a", QoS::AtMostOnce)), [None]);
    assert!(script.session.wants_deliveries());
}

/// [MQTT-3.3.2-5]
#[test]
fn an_expired_message_is_dropped_and_uses_no_id() {
    let mut script = with_window(1);
    let properties = PublishProperties { message_expiry_s: Some(1), ..PublishProperties::default() };
    let content = Content { qos: QoS::AtLeastOnce, retain: false, properties: &properties, payload: b"" };
    let message = Message::new("a", content, Stamp { wall_ms: WALL_MS - 1_000, ..Stamp::default() });
    let delivery = delivery(message, QoS::AtLeastOnce);
    let effects = script.input(Input::Deliver { delivery, wall_ms: WALL_MS });
    assert!(matches!(effects.as_slice(), [Effect::Dropped(Drop::Expired)]));
    assert!(script.session.wants_deliveries());
}

/// [MQTT-3.1.2-25]
#[test]
fn a_message_too_large_for_the_client_frees_its_id() {
    let mut script = with_window(1);
    script.deliver("a", QoS::AtLeastOnce);
    let effects = script.input(Input::Undeliverable(PacketId::new(1)));
    assert!(matches!(effects.as_slice(), [Effect::Dropped(Drop::TooLarge)]));
    assert!(script.session.wants_deliveries());
}

#[test]
fn the_expiry_goes_out_counted_down() {
    let properties = PublishProperties { message_expiry_s: Some(10), ..PublishProperties::default() };
    let content = Content { qos: QoS::AtMostOnce, retain: false, properties: &properties, payload: b"x" };
    let message = Message::new("a", content, Stamp { wall_ms: WALL_MS - 4_000, ..Stamp::default() });
    let subscription_ids = smallvec::smallvec![7, 9];
    let delivery = Delivery { subscription_ids, ..delivery(message, QoS::AtMostOnce) };
    let outgoing = Outgoing::Publish { delivery, packet_id: None, dup: false, wall_ms: WALL_MS };
    let mut frame = BytesMut::new();
    outgoing.encode(ProtocolVersion::V5, usize::MAX, &mut frame).unwrap();
    let Ok(Packet::Publish(publish)) = decode::packet(&frame, Some(ProtocolVersion::V5), Sender::Server) else {
        panic!("a PUBLISH")
    };
    assert_eq!(publish.properties.message_expiry_s, Some(6));
    assert_eq!(publish.properties.subscription_ids.iter().collect::<Vec<_>>(), [7, 9]);
}
