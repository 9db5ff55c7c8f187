//! A broker in a few threads that can be told to misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use bytes::{Buf, BytesMut};
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::packet::{Ack, ConnAck, ConnAckProperties, ReasonProperties, SubAck};
use millrace::mqtt::{
    Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, TopicFilter, decode, encode,
};
use millrace::route::trie::Trie;

/// What goes wrong, with every n-th message where there is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// Acknowledged, never delivered.
    Drop(u64),
    /// Delivered twice.
    Duplicate(u64),
    /// Delivered after the next one.
    Swap(u64),
    /// Acknowledged as a failure, not delivered.
    Reject(u64),
    /// The publisher's connection is closed at the n-th message.
    HangUp(u64),
    /// Every CONNECT is refused.
    RefuseConnect,
    /// Every SUBSCRIBE is refused.
    RefuseSubscribe,
}

pub struct Broker {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    fault: Fault,
    state: Mutex<State>,
    subscribed: Condvar,
}

#[derive(Default)]
struct State {
    filters: Trie<usize, QoS>,
    subscribers: Vec<Subscriber>,
    messages: u64,
    /// Held back by [`Fault::Swap`]: topic and payload.
    held: Option<(String, Vec<u8>)>,
}

struct Subscriber {
    stream: TcpStream,
    version: ProtocolVersion,
    packet_id: u16,
}

impl Broker {
    /// Listens on a free port of the loopback interface, as long as the test runs.
    pub fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { fault, state: Mutex::default(), subscribed: Condvar::new() });
        let for_connections = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), Arc::clone(&for_connections));
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || Connection { stream, version: None, shared }.run());
            }
        });
        Self { address, shared }
    }

    pub fn wait_for_subscribers(&self, count: usize) {
        let state = self.shared.lock();
        drop(self.shared.subscribed.wait_while(state, |state| state.subscribers.len() < count).unwrap());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

struct Connection {
    stream: TcpStream,
    version: Option<ProtocolVersion>,
    shared: Arc<Shared>,
}

impl Connection {
    fn run(mut self) {
        let mut buffer = BytesMut::new();
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = self.stream.read(&mut chunk) {
            buffer.extend_from_slice(&chunk[..read]);
            while let Some(head) = frame_head(&buffer, self.version, Sender::Client, usize::MAX).unwrap() {
                let Some(frame) = buffer.get(..head.frame_bytes()) else { break };
                let packet = decode::packet(frame, self.version, Sender::Client).unwrap();
                if self.handle(&packet).is_none() {
                    return;
                }
                buffer.advance(head.frame_bytes());
            }
        }
    }

    /// `None` ends the connection.
    fn handle(&mut self, packet: &Packet<'_>) -> Option<()> {
        let fault = self.shared.fault;
        if let Packet::Connect(connect) = packet {
            self.version = Some(connect.version);
            let is_refused = fault == Fault::RefuseConnect;
            let reason = if is_refused { ReasonCode::NotAuthorized } else { ReasonCode::Success };
            let properties = ConnAckProperties::default();
            self.answer(&Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties })));
        } else if let Packet::Subscribe(subscribe) = packet {
            let wanted = subscribe.filters[0];
            let is_refused = fault == Fault::RefuseSubscribe;
            let granted = ReasonCode::from_u8(wanted.options.qos.as_u8()).unwrap();
            let reason = if is_refused { ReasonCode::UnspecifiedError } else { granted };
            let (packet_id, properties) = (subscribe.packet_id, ReasonProperties::default());
            self.answer(&Packet::SubAck(SubAck { packet_id, properties, reasons: vec![reason].into() }));
            self.subscribe(wanted.filter, wanted.options.qos);
        } else if let Packet::Publish(publish) = packet {
            return self.publish(publish);
        } else if *packet == Packet::PingReq {
            self.answer(&Packet::PingResp);
        } else if let Packet::Disconnect(_) = packet {
            return None;
        }
        Some(())
    }

    fn subscribe(&self, filter: &str, qos: QoS) {
        let (stream, version) = (self.stream.try_clone().unwrap(), self.version.unwrap());
        let mut state = self.shared.lock();
        let index = state.subscribers.len();
        state.subscribers.push(Subscriber { stream, version, packet_id: 0 });
        state.filters.insert(&TopicFilter::parse(filter).unwrap(), index, qos);
        self.shared.subscribed.notify_all();
    }

    fn publish(&mut self, publish: &Publish<'_>) -> Option<()> {
        let (shared, mut reason) = (Arc::clone(&self.shared), ReasonCode::Success);
        let mut state = shared.lock();
        state.messages += 1;
        let number = state.messages;
        let is_nth = |nth: u64| number.is_multiple_of(nth);
        match shared.fault {
            Fault::Drop(nth) if is_nth(nth) => {}
            Fault::Reject(nth) if is_nth(nth) => reason = ReasonCode::QuotaExceeded,
            Fault::HangUp(nth) if is_nth(nth) => return None,
            Fault::Swap(nth) if is_nth(nth) => {
                state.held = Some((publish.topic.to_owned(), publish.payload.to_owned()));
            }
            fault @ (Fault::Nothing
            | Fault::Drop(_)
            | Fault::Duplicate(_)
            | Fault::Swap(_)
            | Fault::Reject(_)
            | Fault::HangUp(_)
            | Fault::RefuseConnect
            | Fault::RefuseSubscribe) => {
                state.deliver(publish.topic, publish.payload);
                if matches!(fault, Fault::Duplicate(nth) if is_nth(nth)) {
                    state.deliver(publish.topic, publish.payload);
                }
                if let Some((topic, payload)) = state.held.take() {
                    state.deliver(&topic, &payload);
                }
            }
        }
        drop(state);
        if let Delivery::AtLeastOnce(packet_id) = publish.delivery {
            self.answer(&Packet::PubAck(Ack { packet_id, reason, properties: ReasonProperties::default() }));
        }
        Some(())
    }

    fn answer(&mut self, packet: &Packet<'_>) {
        send(&mut self.stream, self.version.unwrap(), packet);
    }
}

impl State {
    fn deliver(&mut self, topic: &str, payload: &[u8]) {
        let mut receivers = Vec::new();
        self.filters.matches(topic, |index, qos| receivers.push((index, *qos)));
        for (index, qos) in receivers {
            let subscriber = &mut self.subscribers[index];
            subscriber.packet_id = subscriber.packet_id % u16::MAX + 1;
            let delivery = match qos {
                QoS::AtMostOnce => Delivery::AtMostOnce,
                QoS::AtLeastOnce | QoS::ExactlyOnce => {
                    Delivery::AtLeastOnce(PacketId::new(subscriber.packet_id).unwrap())
                }
            };
            let properties = millrace::mqtt::packet::PublishProperties::default();
            let publish = Publish { dup: false, delivery, retain: false, topic, properties, payload };
            send(&mut subscriber.stream, subscriber.version, &Packet::Publish(publish));
        }
    }
}

fn send(stream: &mut TcpStream, version: ProtocolVersion, packet: &Packet<'_>) {
    let mut out = BytesMut::new();
    encode::packet(packet, version, usize::MAX, &mut out).unwrap();
    // The client may be gone.
    let _ = stream.write_all(&out);
}
