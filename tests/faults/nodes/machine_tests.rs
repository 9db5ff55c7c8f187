//! The clients of these runs keep to the protocol, and notice when a broker does not.

use std::num::NonZeroU16;

use bytes::BytesMut;
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::packet::{
    Ack, Delivery, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonProperties, SubAck,
};
use millrace::mqtt::{ReasonCode, decode};

use super::cast::{Ids, Part, Publishing, Role, Subscribing, topic};
use super::history::Act;
use super::machine::{Machine, Out};

const V5: ProtocolVersion = ProtocolVersion::V5;

fn publisher(qos: QoS, ids: Ids) -> Machine {
    connected(Role::Publisher(Publishing { qos, window: 3, ids }))
}

fn subscriber(receive_maximum: u16) -> Machine {
    let receive_maximum = NonZeroU16::new(receive_maximum).unwrap();
    let subscribing =
        Subscribing { filter: topic(0), topics: vec![0], qos: QoS::ExactlyOnce, receive_maximum, is_slow: true };
    let mut machine = connected(Role::Subscriber(subscribing));
    let (packet_id, properties) = (id(1), ReasonProperties::default());
    let suback = SubAck { packet_id, properties, reasons: vec![ReasonCode::GrantedQoS2].into() };
    assert_eq!(handle(&mut machine, &Packet::SubAck(suback)).acts, [Act::Subscribed]);
    machine
}

fn connected(role: Role) -> Machine {
    let mut machine = Machine::new(0, Part { id: "c".to_owned(), version: V5, role });
    machine.on_connected(false, &mut Out::default());
    machine
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn ack(packet_id: u16) -> Ack<'static> {
    Ack { packet_id: id(packet_id), reason: ReasonCode::Success, properties: ReasonProperties::default() }
}

fn handle(machine: &mut Machine, packet: &Packet<'_>) -> Out {
    let mut out = Out::default();
    machine.handle(packet, &mut out);
    out
}

fn message(packet_id: u16, number: &str, dup: bool) -> Packet<'_> {
    let delivery = Delivery::ExactlyOnce(id(packet_id));
    let properties = PublishProperties::default();
    Packet::Publish(Publish { dup, delivery, retain: false, topic: "nodes/0", properties, payload: number.as_bytes() })
}

/// What is in `bytes`, a word for each packet.
fn words(mut bytes: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(head) = frame_head(bytes, Some(V5), Sender::Client, usize::MAX).unwrap() {
        let (frame, rest) = bytes.split_at(head.frame_bytes());
        let packet = decode::packet(frame, Some(V5), Sender::Client).unwrap();
        let kind = format!("{:?}", packet.packet_type());
        words.push(if let Packet::Publish(publish) = packet {
            let dup = if publish.dup { " DUP" } else { "" };
            format!("{kind} {}{dup}", publish.delivery.packet_id().unwrap())
        } else if let Packet::PubRel(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) | Packet::PubAck(ack) = packet {
            format!("{kind} {}", ack.packet_id)
        } else {
            kind
        });
        bytes = rest;
    }
    words
}

fn odd(out: &Out) -> usize {
    out.acts.iter().filter(|act| matches!(act, Act::Odd(_))).count()
}

#[test]
fn what_is_open_is_sent_again_in_its_order_with_its_ids() {
    let mut machine = publisher(QoS::ExactlyOnce, Ids::Lowest);
    (0..3).for_each(|_| machine.publish(&mut Out::default()));
    handle(&mut machine, &Packet::PubRec(ack(1)));
    handle(&mut machine, &Packet::PubRec(ack(2)));
    assert_eq!(handle(&mut machine, &Packet::PubComp(ack(1))).acts, [Act::Completed { number: 0 }]);
    // The lowest id is free, and used again.
    machine.publish(&mut Out::default());
    machine.on_disconnected();
    let mut out = Out::default();
    machine.on_connected(true, &mut out);
    assert_eq!(words(&out.bytes), ["PubRel 2", "Publish 3 DUP", "Publish 1 DUP"]);
    assert!(!machine.is_idle());
}

#[test]
fn what_no_session_knows_is_given_up_and_its_number_never_used_again() {
    let mut machine = publisher(QoS::AtLeastOnce, Ids::Next);
    (0..2).for_each(|_| machine.publish(&mut Out::default()));
    machine.on_disconnected();
    let mut out = Out::default();
    machine.on_connected(false, &mut out);
    assert_eq!(out.acts[1..], [Act::GivenUp { number: 0 }, Act::GivenUp { number: 1 }]);
    assert!(out.bytes.is_empty() && machine.is_idle());
    let mut out = Out::default();
    machine.publish(&mut out);
    assert_eq!(out.acts, [Act::Sent { number: 2, id: 3, dup: false }]);
}

#[test]
fn answers_of_nothing_and_out_of_order_are_odd() {
    let mut machine = publisher(QoS::AtLeastOnce, Ids::Next);
    (0..2).for_each(|_| machine.publish(&mut Out::default()));
    assert_eq!(odd(&handle(&mut machine, &Packet::PubAck(ack(9)))), 1);
    assert_eq!(odd(&handle(&mut machine, &Packet::PubAck(ack(2)))), 1, "1 comes first");
    assert_eq!(odd(&handle(&mut machine, &Packet::PubAck(ack(1)))), 0);
    assert_eq!(odd(&handle(&mut machine, &Packet::PubAck(ack(1)))), 1, "it was answered");
    let mut machine = publisher(QoS::ExactlyOnce, Ids::Next);
    machine.publish(&mut Out::default());
    assert_eq!(odd(&handle(&mut machine, &Packet::PubComp(ack(1)))), 1, "PUBREC comes first");
}

#[test]
fn a_message_of_qos_2_is_new_once_across_connections() {
    let mut machine = subscriber(10);
    let is_new = |out: &Out| matches!(out.acts[0], Act::Received { is_new: true, .. });
    assert!(is_new(&handle(&mut machine, &message(5, "7", false))));
    machine.on_disconnected();
    machine.on_connected(true, &mut Out::default());
    let out = handle(&mut machine, &message(5, "7", true));
    assert!(!is_new(&out) && odd(&out) == 0);
    let mut out = Out::default();
    machine.answer(&mut out);
    assert_eq!(words(&out.bytes), ["PubRec 5"]);
    handle(&mut machine, &Packet::PubRel(ack(5)));
    let mut out = Out::default();
    machine.answer(&mut out);
    assert_eq!(words(&out.bytes), ["PubComp 5"]);
    assert!(is_new(&handle(&mut machine, &message(5, "8", false))), "the id is free");
}

#[test]
fn an_id_that_is_not_free_and_too_many_messages_are_odd() {
    let mut machine = subscriber(2);
    handle(&mut machine, &message(5, "7", false));
    machine.on_disconnected();
    machine.on_connected(true, &mut Out::default());
    assert_eq!(odd(&handle(&mut machine, &message(5, "8", true))), 1, "another message under the same id");
    assert_eq!(odd(&handle(&mut machine, &message(6, "9", false))), 0);
    assert_eq!(odd(&handle(&mut machine, &message(7, "10", false))), 1, "two at most");
}

#[test]
fn a_session_where_there_can_be_none_is_odd() {
    let role = Role::Publisher(Publishing { qos: QoS::AtLeastOnce, window: 1, ids: Ids::Next });
    let mut machine = Machine::new(0, Part { id: "c".to_owned(), version: V5, role });
    let mut out = Out { bytes: BytesMut::new(), ..Out::default() };
    machine.on_connected(true, &mut out);
    assert!(odd(&out) >= 1);
}
