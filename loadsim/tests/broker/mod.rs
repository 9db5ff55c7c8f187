//! A broker in a few threads that can be told to misbehave.

mod session;

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use bytes::{Buf, BytesMut};
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::packet::{ConnAck, ConnAckProperties, ReasonProperties, SubAck};
use millrace::mqtt::{Delivery, Packet, ProtocolVersion, Publish, ReasonCode, decode};

use self::session::{Sessions, ack, send};

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
    /// Every connection is cut at the n-th message, once: `Lost` before it is taken, else after it is, and before it
    /// is answered.
    Cut(u64, Cut),
}

/// What a cut costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The message, which was not answered.
    Message,
    /// The answer.
    Answer,
    /// The answer, and the memory of it: what is sent again is taken again.
    Memory,
    /// The answer, and all sessions.
    Sessions,
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
    sessions: Sessions,
    subscribed: usize,
    messages: u64,
    /// Held back by [`Fault::Swap`]: topic and payload.
    held: Option<(String, Vec<u8>)>,
}

impl Broker {
    /// Listens on a free port of the loopback interface, as long as the test runs.
    pub fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { fault, state: Mutex::default(), subscribed: Condvar::new() });
        let for_connections = Arc::clone(&shared);
        thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming()) {
                let (stream, shared) = (stream.unwrap(), Arc::clone(&for_connections));
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || Connection { number, stream, version: None, client: 0, shared }.run());
            }
        });
        Self { address, shared }
    }

    pub fn wait_for_subscribers(&self, count: usize) {
        let state = self.shared.lock();
        drop(self.shared.subscribed.wait_while(state, |state| state.subscribed < count).unwrap());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

struct Connection {
    number: u64,
    stream: TcpStream,
    version: Option<ProtocolVersion>,
    /// Place of its session.
    client: usize,
    shared: Arc<Shared>,
}

impl Connection {
    fn run(mut self) {
        let mut buffer = BytesMut::new();
        let mut chunk = [0; 4096];
        'connection: while let Ok(read @ 1..) = self.stream.read(&mut chunk) {
            buffer.extend_from_slice(&chunk[..read]);
            while let Some(head) = frame_head(&buffer, self.version, Sender::Client, usize::MAX).unwrap() {
                let Some(frame) = buffer.get(..head.frame_bytes()) else { break };
                let packet = decode::packet(frame, self.version, Sender::Client).unwrap();
                if self.handle(&packet).is_none() {
                    break 'connection;
                }
                buffer.advance(head.frame_bytes());
            }
        }
        let _ = self.stream.shutdown(Shutdown::Both);
        self.shared.lock().sessions.on_disconnected(self.client, self.number);
    }

    /// `None` ends the connection.
    fn handle(&mut self, packet: &Packet<'_>) -> Option<()> {
        let (fault, shared) = (self.shared.fault, Arc::clone(&self.shared));
        if let Packet::Connect(connect) = packet {
            self.version = Some(connect.version);
            let is_refused = fault == Fault::RefuseConnect;
            let reason = if is_refused { ReasonCode::NotAuthorized } else { ReasonCode::Success };
            let stream = self.stream.try_clone().unwrap();
            let mut state = shared.lock();
            let (client, session_present) = state.sessions.connect(connect, stream, self.number);
            self.client = client;
            let (properties, session_present) = (ConnAckProperties::default(), session_present && !is_refused);
            self.answer(&Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties })));
            state.sessions.resume(client);
        } else if let Packet::Subscribe(subscribe) = packet {
            let wanted = subscribe.filters[0];
            let is_refused = fault == Fault::RefuseSubscribe;
            let granted = ReasonCode::from_u8(wanted.options.qos.as_u8()).unwrap();
            let reason = if is_refused { ReasonCode::UnspecifiedError } else { granted };
            let (packet_id, properties) = (subscribe.packet_id, ReasonProperties::default());
            let mut state = shared.lock();
            self.answer(&Packet::SubAck(SubAck { packet_id, properties, reasons: vec![reason].into() }));
            state.sessions.subscribe(self.client, wanted.filter, wanted.options.qos);
            state.subscribed += 1;
            shared.subscribed.notify_all();
        } else if let Packet::Publish(publish) = packet {
            return self.publish(publish);
        } else if let Packet::PubRel(released) = packet {
            shared.lock().sessions.released(self.client, released.packet_id);
            self.answer(&Packet::PubComp(ack(released.packet_id)));
        } else if let Packet::PubAck(answer) | Packet::PubRec(answer) | Packet::PubComp(answer) = packet {
            shared.lock().sessions.answered(self.client, answer.packet_id);
        } else if *packet == Packet::PingReq {
            self.answer(&Packet::PingResp);
        } else if let Packet::Disconnect(_) = packet {
            return None;
        }
        Some(())
    }

    fn publish(&mut self, publish: &Publish<'_>) -> Option<()> {
        let (shared, mut reason) = (Arc::clone(&self.shared), ReasonCode::Success);
        let mut state = shared.lock();
        if !state.sessions.is_here(self.client, self.number) {
            return None;
        }
        if !state.sessions.received(self.client, publish.delivery) {
            self.acknowledge(publish.delivery, reason);
            return Some(());
        }
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
            Fault::Cut(nth, cut) if number == nth => {
                if cut == Cut::Message {
                    state.sessions.unreceived(self.client, publish.delivery);
                } else {
                    state.sessions.deliver(publish.topic, publish.payload);
                }
                if cut == Cut::Memory {
                    state.sessions.unreceived(self.client, publish.delivery);
                }
                state.sessions.cut_all(cut == Cut::Sessions);
                return None;
            }
            fault @ (Fault::Nothing
            | Fault::Drop(_)
            | Fault::Duplicate(_)
            | Fault::Swap(_)
            | Fault::Reject(_)
            | Fault::HangUp(_)
            | Fault::RefuseConnect
            | Fault::RefuseSubscribe
            | Fault::Cut(..)) => {
                state.sessions.deliver(publish.topic, publish.payload);
                if matches!(fault, Fault::Duplicate(nth) if is_nth(nth)) {
                    state.sessions.deliver(publish.topic, publish.payload);
                }
                if let Some((topic, payload)) = state.held.take() {
                    state.sessions.deliver(&topic, &payload);
                }
            }
        }
        drop(state);
        self.acknowledge(publish.delivery, reason);
        Some(())
    }

    fn acknowledge(&mut self, delivery: Delivery, reason: ReasonCode) {
        match delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => {
                let packet = Packet::PubAck(millrace::mqtt::packet::Ack { reason, ..ack(id) });
                self.answer(&packet);
            }
            Delivery::ExactlyOnce(id) => {
                let packet = Packet::PubRec(millrace::mqtt::packet::Ack { reason, ..ack(id) });
                self.answer(&packet);
            }
        }
    }

    fn answer(&mut self, packet: &Packet<'_>) {
        send(&mut self.stream, self.version.unwrap(), packet);
    }
}
