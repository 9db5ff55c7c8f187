//! The protocol as client libraries have it, without a socket: packets in, packets and acts out. Its state outlives the
//! connection: what is not acknowledged is sent again with the same packet id, and ids of QoS 2 are remembered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::BytesMut;
use millrace::mqtt::packet::{
    Ack, Connect, ConnectProperties, Delivery, Disconnect, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonProperties, Subscribe, SubscribeFilter, SubscribeOptions, Will,
};
use millrace::mqtt::properties::UserProperties;
use millrace::mqtt::{ReasonCode, encode};

use super::cast::{Ids, Part, Publishing, Role, Subscribing, publisher_of, topic, will_topic};
use super::history::{Act, ClientNo, TopicNo};

const KEEP_ALIVE_S: u16 = 60;
const SESSION_EXPIRY_S: u32 = 3600;
const SUBSCRIBE_ID: PacketId = PacketId::new(1).unwrap();

/// What is to be done.
#[derive(Debug, Default)]
pub struct Out {
    /// To be noted, in this order, before the bytes are sent.
    pub acts: Vec<Act>,
    pub bytes: BytesMut,
}

/// One client.
#[derive(Debug)]
pub struct Machine {
    client: ClientNo,
    part: Part,
    /// A CONNACK came once: there should be a session.
    has_connected: bool,
    has_tried: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Publisher(Publisher),
    Subscriber(Subscriber),
    Mortal,
}

impl Machine {
    pub fn new(client: ClientNo, part: Part) -> Self {
        let state = match &part.role {
            Role::Publisher(publishing) => State::Publisher(Publisher::new(*publishing)),
            Role::Subscriber(subscribing) => State::Subscriber(Subscriber::new(subscribing.clone())),
            Role::Mortal(_) => State::Mortal,
        };
        Self { client, part, has_connected: false, has_tried: false, state }
    }

    pub fn version(&self) -> ProtocolVersion {
        self.part.version
    }

    /// CONNECT. Sessions of MQTT 3.1.1 are either clean or last, those of MQTT 5 begin clean and then last.
    pub fn connect(&mut self, out: &mut Out) {
        let is_v5 = self.part.version == ProtocolVersion::V5;
        let own_will = will_topic(self.client);
        let will = match &self.part.role {
            Role::Mortal(dying) => Some(Will {
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: &own_will,
                payload: b"gone",
                delay_s: is_v5.then_some(dying.delay_s),
                properties: PublishProperties::default(),
            }),
            Role::Publisher(_) | Role::Subscriber(_) => None,
        };
        let receive_maximum = match &self.part.role {
            Role::Subscriber(subscribing) if is_v5 => Some(subscribing.receive_maximum),
            Role::Subscriber(_) | Role::Publisher(_) | Role::Mortal(_) => None,
        };
        let session_expiry_s = is_v5.then_some(SESSION_EXPIRY_S);
        let connect = Connect {
            version: self.part.version,
            clean_start: is_v5 && !self.has_connected,
            keep_alive_s: KEEP_ALIVE_S,
            client_id: &self.part.id,
            will,
            username: None,
            password: None,
            properties: ConnectProperties { session_expiry_s, receive_maximum, ..ConnectProperties::default() },
        };
        out.acts.push(Act::Connecting);
        write(&Packet::Connect(Box::new(connect)), self.part.version, &mut out.bytes);
    }

    /// CONNACK with success came.
    pub fn on_connected(&mut self, session_present: bool, out: &mut Out) {
        out.acts.push(Act::Connected { session_present });
        if session_present && !self.has_tried {
            out.acts.push(Act::Odd("a session for a client that never was here".to_owned()));
        }
        if session_present && !self.has_connected && self.part.version == ProtocolVersion::V5 {
            out.acts.push(Act::Odd("a session after a clean start [MQTT-3.2.2-2]".to_owned()));
        }
        self.has_connected = true;
        let version = self.part.version;
        match &mut self.state {
            State::Publisher(publisher) => publisher.on_connected(self.client, session_present, version, out),
            State::Subscriber(subscriber) => subscriber.on_connected(session_present, version, out),
            State::Mortal => {}
        }
    }

    /// The connection, or the attempt at one, is over.
    pub fn on_disconnected(&mut self) {
        self.has_tried = true;
        if let State::Subscriber(subscriber) = &mut self.state {
            subscriber.answers.clear();
            subscriber.unanswered.clear();
        }
    }

    /// Any packet after CONNACK.
    pub fn handle(&mut self, packet: &Packet<'_>, out: &mut Out) {
        let version = self.part.version;
        match (&mut self.state, packet) {
            (_, Packet::PingResp) => {}
            (State::Publisher(publisher), Packet::PubAck(ack)) => publisher.on_puback(ack, out),
            (State::Publisher(publisher), Packet::PubRec(ack)) => publisher.on_pubrec(ack, version, out),
            (State::Publisher(publisher), Packet::PubComp(ack)) => publisher.on_pubcomp(ack, out),
            (State::Subscriber(subscriber), Packet::SubAck(suback)) => subscriber.on_suback(&suback.reasons, out),
            (State::Subscriber(subscriber), Packet::Publish(publish)) => subscriber.on_publish(publish, version, out),
            (State::Subscriber(subscriber), Packet::PubRel(ack)) => subscriber.on_pubrel(ack, version, out),
            (_, other) => out.acts.push(Act::Odd(format!("the broker sent {other:?}"))),
        }
    }

    /// The next message, if there is room for it.
    pub fn publish(&mut self, out: &mut Out) {
        if let State::Publisher(publisher) = &mut self.state {
            publisher.publish(self.client, self.part.version, out);
        }
    }

    /// Acknowledgements that were held back.
    pub fn answer(&mut self, out: &mut Out) {
        if let State::Subscriber(subscriber) = &mut self.state {
            subscriber.answer(out);
        }
    }

    /// Whether nothing waits for an answer.
    pub fn is_idle(&self) -> bool {
        match &self.state {
            State::Publisher(publisher) => publisher.open.is_empty(),
            State::Subscriber(_) | State::Mortal => true,
        }
    }

    /// Whether it is subscribed, if it is a subscriber.
    pub fn is_ready(&self) -> bool {
        match &self.state {
            State::Publisher(_) | State::Mortal => self.has_connected,
            State::Subscriber(subscriber) => subscriber.is_subscribed,
        }
    }
}

/// PINGREQ.
pub fn ping(version: ProtocolVersion, out: &mut Out) {
    write(&Packet::PingReq, version, &mut out.bytes);
}

/// DISCONNECT.
pub fn disconnect(version: ProtocolVersion, out: &mut Out) {
    let properties = ReasonProperties::default();
    let reason = ReasonCode::Success;
    let disconnect = Disconnect { reason, session_expiry_s: None, server_reference: None, properties };
    write(&Packet::Disconnect(disconnect), version, &mut out.bytes);
}

// ---- publishing

#[derive(Debug)]
struct Publisher {
    publishing: Publishing,
    next_number: u64,
    last_id: u16,
    /// In the order of their first transmission.
    open: VecDeque<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    id: PacketId,
    /// PUBREC came: PUBREL is what is to be repeated.
    is_received: bool,
}

impl Publisher {
    fn new(publishing: Publishing) -> Self {
        Self { publishing, next_number: 0, last_id: 0, open: VecDeque::new() }
    }

    fn on_connected(&mut self, client: ClientNo, session_present: bool, version: ProtocolVersion, out: &mut Out) {
        if !session_present {
            out.acts.extend(self.open.drain(..).map(|open| Act::GivenUp { number: open.number }));
        }
        for open in &self.open {
            if open.is_received {
                write(&Packet::PubRel(ack(open.id)), version, &mut out.bytes);
            } else {
                send(*open, true, self.publishing.qos, client, version, out);
            }
        }
    }

    fn publish(&mut self, client: ClientNo, version: ProtocolVersion, out: &mut Out) {
        if self.open.len() < self.publishing.window {
            let open = Open { number: self.next_number, id: self.free_id(), is_received: false };
            self.next_number += 1;
            self.open.push_back(open);
            send(open, false, self.publishing.qos, client, version, out);
        }
    }

    fn free_id(&mut self) -> PacketId {
        let used: BTreeSet<u16> = self.open.iter().map(|open| open.id.get()).collect();
        let after = match self.publishing.ids {
            Ids::Lowest => 0,
            Ids::Next => self.last_id,
        };
        let free = (after + 1..=u16::MAX).chain(1..=after).find(|id| !used.contains(id)).unwrap();
        self.last_id = free % u16::MAX;
        PacketId::new(free).unwrap()
    }

    fn on_puback(&mut self, ack: &Ack<'_>, out: &mut Out) {
        let Some(place) = self.answered(ack, QoS::AtLeastOnce, "PUBACK", out) else { return };
        let number = self.open.remove(place).unwrap().number;
        out.acts.push(if ack.reason.is_error() { Act::GivenUp { number } } else { Act::Acked { number } });
    }

    fn on_pubrec(&mut self, received: &Ack<'_>, version: ProtocolVersion, out: &mut Out) {
        let Some(place) = self.answered(received, QoS::ExactlyOnce, "PUBREC", out) else { return };
        let number = self.open[place].number;
        if received.reason.is_error() {
            self.open.remove(place);
            out.acts.push(Act::GivenUp { number });
            return;
        }
        self.open[place].is_received = true;
        out.acts.push(Act::Acked { number });
        write(&Packet::PubRel(ack(received.packet_id)), version, &mut out.bytes);
    }

    /// Which message is meant. Answers come in the order of the messages [MQTT-4.6.0-2], [MQTT-4.6.0-3].
    fn answered(&self, ack: &Ack<'_>, qos: QoS, kind: &str, out: &mut Out) -> Option<usize> {
        let id = ack.packet_id;
        let first = self.open.iter().position(|open| !open.is_received);
        let place = self.open.iter().position(|open| open.id == id && !open.is_received);
        if place.is_none() || qos != self.publishing.qos {
            out.acts.push(Act::Odd(format!("{kind} {id} that nothing waits for")));
            return None;
        }
        if place != first {
            out.acts.push(Act::Odd(format!("{kind} {id} before that of an earlier message")));
        }
        place
    }

    fn on_pubcomp(&mut self, ack: &Ack<'_>, out: &mut Out) {
        let place = self.open.iter().position(|open| open.id == ack.packet_id && open.is_received);
        match place.and_then(|place| self.open.remove(place)) {
            Some(open) => out.acts.push(Act::Completed { number: open.number }),
            None => out.acts.push(Act::Odd(format!("PUBCOMP {} that nothing waits for", ack.packet_id))),
        }
    }
}

fn send(open: Open, dup: bool, qos: QoS, client: ClientNo, version: ProtocolVersion, out: &mut Out) {
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(open.id),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(open.id),
    };
    let (topic, payload) = (topic(client), open.number.to_string());
    let properties = PublishProperties::default();
    let publish = Publish { dup, delivery, retain: false, topic: &topic, properties, payload: payload.as_bytes() };
    out.acts.push(Act::Sent { number: open.number, id: open.id.get(), dup });
    write(&Packet::Publish(publish), version, &mut out.bytes);
}

// ---- receiving

#[derive(Debug)]
struct Subscriber {
    subscribing: Subscribing,
    is_subscribed: bool,
    /// Messages of QoS 2 by packet id, from PUBLISH to PUBREL.
    received: BTreeMap<u16, (TopicNo, u64)>,
    /// What the broker has open on this connection: ids of QoS 1 not acknowledged, of QoS 2 not completed.
    unanswered: BTreeSet<u16>,
    /// Acknowledgements held back: the bytes, and the id that is free then.
    answers: Vec<(BytesMut, Option<u16>)>,
}

impl Subscriber {
    fn new(subscribing: Subscribing) -> Self {
        let (received, unanswered) = (BTreeMap::new(), BTreeSet::new());
        Self { subscribing, is_subscribed: false, received, unanswered, answers: Vec::new() }
    }

    fn on_connected(&mut self, session_present: bool, version: ProtocolVersion, out: &mut Out) {
        if !session_present {
            self.received.clear();
            self.is_subscribed = false;
        }
        if !self.is_subscribed {
            let options = SubscribeOptions { qos: self.subscribing.qos, ..SubscribeOptions::default() };
            let filters = vec![SubscribeFilter { filter: &self.subscribing.filter, options }];
            let user_properties = UserProperties::default();
            let subscribe = Subscribe { packet_id: SUBSCRIBE_ID, subscription_id: None, user_properties, filters };
            write(&Packet::Subscribe(subscribe), version, &mut out.bytes);
        }
    }

    fn on_suback(&mut self, reasons: &[ReasonCode], out: &mut Out) {
        let granted: Vec<u8> = reasons.iter().map(|reason| reason.as_u8()).collect();
        if granted != [self.subscribing.qos.as_u8()] {
            out.acts.push(Act::Odd(format!("SUBACK grants {reasons:?}")));
        }
        self.is_subscribed = true;
        out.acts.push(Act::Subscribed);
    }

    fn on_publish(&mut self, publish: &Publish<'_>, version: ProtocolVersion, out: &mut Out) {
        let number = std::str::from_utf8(publish.payload).ok().and_then(|text| text.parse().ok());
        let (Some(topic), Some(number)) = (publisher_of(publish.topic), number) else {
            out.acts.push(Act::Odd(format!("a message of {} that nobody sent", publish.topic)));
            return;
        };
        let Some(id) = publish.delivery.packet_id() else {
            out.acts.push(Act::Odd(format!("message {number} of topic {topic} came with QoS 0")));
            return;
        };
        let is_exact = publish.delivery.qos() == QoS::ExactlyOnce;
        let known = self.received.get(&id.get()).copied().filter(|_| is_exact);
        if let Some(known) = known.filter(|known| *known != (topic, number) || !publish.dup) {
            let what = format!("{number} of topic {topic}, DUP {}", publish.dup);
            out.acts.push(Act::Odd(format!("id {id} comes with {what} while it is that of {known:?}")));
        }
        let (dup, is_new) = (publish.dup, known.is_none());
        out.acts.push(Act::Received { topic, number, id: id.get(), dup, is_new });
        if !self.unanswered.insert(id.get()) {
            out.acts.push(Act::Odd(format!("id {id} is used twice on one connection")));
        }
        if version == ProtocolVersion::V5 && self.unanswered.len() > self.subscribing.receive_maximum.get().into() {
            out.acts.push(Act::Odd("more messages than the receive maximum [MQTT-3.3.4-9]".to_owned()));
        }
        if is_exact {
            self.received.insert(id.get(), (topic, number));
            self.reply(&Packet::PubRec(ack(id)), None, version, out);
        } else {
            self.reply(&Packet::PubAck(ack(id)), Some(id.get()), version, out);
        }
    }

    fn on_pubrel(&mut self, released: &Ack<'_>, version: ProtocolVersion, out: &mut Out) {
        let id = released.packet_id;
        self.received.remove(&id.get());
        // The id is free for the broker as soon as it has PUBCOMP.
        self.unanswered.insert(id.get());
        self.reply(&Packet::PubComp(ack(id)), Some(id.get()), version, out);
    }

    fn reply(&mut self, packet: &Packet<'_>, free: Option<u16>, version: ProtocolVersion, out: &mut Out) {
        let mut bytes = BytesMut::new();
        write(packet, version, &mut bytes);
        self.answers.push((bytes, free));
        if !self.subscribing.is_slow {
            self.answer(out);
        }
    }

    fn answer(&mut self, out: &mut Out) {
        for (bytes, free) in self.answers.drain(..) {
            out.bytes.extend_from_slice(&bytes);
            if let Some(id) = free {
                self.unanswered.remove(&id);
            }
        }
    }
}

fn ack(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() }
}

fn write(packet: &Packet<'_>, version: ProtocolVersion, out: &mut BytesMut) {
    encode::packet(packet, version, usize::MAX, out).unwrap();
}
