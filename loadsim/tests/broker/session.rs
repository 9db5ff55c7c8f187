//! Sessions that may outlive their connections.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{Shutdown, TcpStream};

use bytes::BytesMut;
use millrace::mqtt::packet::{Ack, Connect, PublishProperties, ReasonProperties};
use millrace::mqtt::{Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, TopicFilter, encode};
use millrace::route::trie::Trie;

/// All sessions, found by client id.
#[derive(Default)]
pub struct Sessions {
    filters: Trie<usize, QoS>,
    all: Vec<Session>,
    places: BTreeMap<String, usize>,
}

struct Session {
    stream: Option<TcpStream>,
    connection: u64,
    version: ProtocolVersion,
    lasts: bool,
    next_id: u16,
    /// Not done with, in order.
    open: Vec<Out>,
    /// Ids of QoS 2 of the client, from PUBLISH to PUBREL.
    received: BTreeSet<PacketId>,
}

/// A message to a client.
struct Out {
    id: PacketId,
    qos: QoS,
    topic: String,
    payload: Vec<u8>,
    /// PUBREC came.
    is_received: bool,
}

impl Sessions {
    /// Its place, and whether it was there.
    pub fn connect(&mut self, connect: &Connect<'_>, stream: TcpStream, connection: u64) -> (usize, bool) {
        let lasts = match connect.version {
            ProtocolVersion::V5 => connect.properties.session_expiry_s.unwrap_or(0) > 0,
            ProtocolVersion::V31 | ProtocolVersion::V311 => !connect.clean_start,
        };
        let known = self.places.get(connect.client_id).copied().filter(|_| !connect.clean_start);
        let place = known.unwrap_or(self.all.len());
        if known.is_none() {
            let (open, received, version) = (Vec::new(), BTreeSet::new(), connect.version);
            self.all.push(Session { stream: None, connection, version, lasts, next_id: 0, open, received });
            self.places.insert(connect.client_id.to_owned(), place);
        }
        let session = &mut self.all[place];
        (session.stream, session.connection) = (Some(stream), connection);
        (place, known.is_some())
    }

    /// What was open is sent again.
    pub fn resume(&mut self, place: usize) {
        let session = &mut self.all[place];
        for out in std::mem::take(&mut session.open) {
            session.transmit(&out, true);
            session.open.push(out);
        }
    }

    pub fn is_here(&self, place: usize, connection: u64) -> bool {
        let session = &self.all[place];
        session.connection == connection && session.stream.is_some()
    }

    pub fn on_disconnected(&mut self, place: usize, connection: u64) {
        let Some(session) = self.all.get_mut(place).filter(|session| session.connection == connection) else {
            return;
        };
        session.stream = None;
        if !session.lasts {
            self.places.retain(|_, of_client| *of_client != place);
        }
    }

    /// Cuts every connection, and forgets every session if told so.
    pub fn cut_all(&mut self, forgets: bool) {
        for stream in self.all.iter_mut().filter_map(|session| session.stream.take()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if forgets {
            self.places.clear();
            self.filters = Trie::default();
        }
    }

    pub fn subscribe(&mut self, place: usize, filter: &str, qos: QoS) {
        self.filters.insert(&TopicFilter::parse(filter).unwrap(), place, qos);
    }

    /// A message of a client; false if it was taken before.
    pub fn received(&mut self, place: usize, delivery: Delivery) -> bool {
        match delivery {
            Delivery::AtMostOnce | Delivery::AtLeastOnce(_) => true,
            Delivery::ExactlyOnce(id) => self.all[place].received.insert(id),
        }
    }

    /// Forgets what a client sent.
    pub fn unreceived(&mut self, place: usize, delivery: Delivery) {
        if let Delivery::ExactlyOnce(id) = delivery {
            self.released(place, id);
        }
    }

    pub fn released(&mut self, place: usize, id: PacketId) {
        self.all[place].received.remove(&id);
    }

    /// PUBACK, PUBREC or PUBCOMP of a client.
    pub fn answered(&mut self, place: usize, id: PacketId) {
        let session = &mut self.all[place];
        let Some(at) = session.open.iter().position(|out| out.id == id) else { return };
        if session.open[at].qos == QoS::ExactlyOnce && !session.open[at].is_received {
            session.open[at].is_received = true;
            let version = session.version;
            session.stream.iter_mut().for_each(|stream| send(stream, version, &Packet::PubRel(ack(id))));
        } else {
            session.open.remove(at);
        }
    }

    /// To everybody who subscribed to the topic.
    pub fn deliver(&mut self, topic: &str, payload: &[u8]) {
        let mut receivers = Vec::new();
        self.filters.matches(topic, |place, qos| receivers.push((place, *qos)));
        for (place, qos) in receivers {
            let session = &mut self.all[place];
            session.next_id = session.next_id % u16::MAX + 1;
            let (id, topic, payload) = (PacketId::new(session.next_id).unwrap(), topic.to_owned(), payload.to_owned());
            let out = Out { id, qos, topic, payload, is_received: false };
            session.transmit(&out, false);
            if qos > QoS::AtMostOnce && (session.lasts || session.stream.is_some()) {
                session.open.push(out);
            }
        }
    }
}

impl Session {
    fn transmit(&mut self, out: &Out, dup: bool) {
        let Some(stream) = &mut self.stream else { return };
        if out.is_received {
            return send(stream, self.version, &Packet::PubRel(ack(out.id)));
        }
        let delivery = match out.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(out.id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(out.id),
        };
        let (topic, payload) = (&*out.topic, &*out.payload);
        let properties = PublishProperties::default();
        let publish = Publish { dup, delivery, retain: false, topic, properties, payload };
        send(stream, self.version, &Packet::Publish(publish));
    }
}

pub fn ack(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() }
}

pub fn send(stream: &mut TcpStream, version: ProtocolVersion, packet: &Packet<'_>) {
    let mut out = BytesMut::new();
    encode::packet(packet, version, usize::MAX, &mut out).unwrap();
    // The client may be gone.
    let _ = stream.write_all(&out);
}
