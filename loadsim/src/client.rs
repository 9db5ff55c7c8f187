//! The protocol of one connection, without I/O: frames in, packets to write and an [`Event`] out.

use std::collections::BTreeSet;

use bytes::BytesMut;
use millrace::mqtt::decode::{self, DecodeError};
use millrace::mqtt::encode::{self, EncodeError};
use millrace::mqtt::head::{PacketType, Sender};
use millrace::mqtt::packet::{
    Ack, ConnAck, Connect, ConnectProperties, Disconnect, ReasonProperties, SubAck, Subscribe, SubscribeFilter,
    SubscribeOptions,
};
use millrace::mqtt::properties::UserProperties;
use millrace::mqtt::{Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode};

use crate::inflight::Sent;
use crate::publisher::{Line, Publisher, ack};

/// The largest packet that is taken from the broker.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The packet id of the only SUBSCRIBE.
const SUBSCRIBE_ID: PacketId = PacketId(std::num::NonZeroU16::MIN);

/// What the connection is for.
#[derive(Debug)]
pub enum Role {
    /// Is there, and pings.
    Idle,
    /// Connects again and again, to measure that; `lasts`: to one session, else to a clean one each time.
    Probe {
        /// Whether its session outlives its connection.
        lasts: bool,
    },
    /// Subscribes to one filter.
    Subscriber(Box<Subscriber>),
    /// Publishes to one topic.
    Publisher(Box<Publisher>),
}

/// One subscriber. Its index in the run is that of its connection: subscribers come first.
#[derive(Debug)]
pub struct Subscriber {
    /// What it subscribes to.
    pub filter: Box<str>,
    /// The quality of service it asks for.
    pub qos: QoS,
    /// The session has the subscription.
    is_subscribed: bool,
    /// Packet ids of QoS 2, from PUBLISH to PUBREL.
    received: BTreeSet<PacketId>,
}

impl Subscriber {
    /// Has not subscribed.
    pub fn new(filter: Box<str>, qos: QoS) -> Self {
        Self { filter, qos, is_subscribed: false, received: BTreeSet::new() }
    }
}

/// What a client asks for in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// Of the first connection; later ones go on with the session, if it lasts.
    pub clean_start: bool,
    /// MQTT 5; 0: the session ends with its connection.
    pub expiry_s: u32,
}

impl Lasting {
    /// A session for one connection.
    pub const NOT: Self = Self { clean_start: true, expiry_s: 0 };

    /// Whether the session outlives a connection.
    pub fn is(self, version: ProtocolVersion) -> bool {
        match version {
            ProtocolVersion::V5 => self.expiry_s > 0,
            ProtocolVersion::V31 | ProtocolVersion::V311 => !self.clean_start,
        }
    }
}

/// What CONNACK said about the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Continuity {
    /// It began, as was asked for or to be expected.
    #[default]
    New,
    /// It goes on.
    Resumed,
    /// It should go on, and is not there.
    Lost,
}

/// How far the conversation has come.
///
/// ```text
/// Connecting ──CONNACK──▶ Ready
///      └──CONNACK, a subscriber──▶ Subscribing ──SUBACK──▶ Ready
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// CONNECT is, or will be, on its way.
    Connecting,
    /// SUBSCRIBE is on its way.
    Subscribing,
    /// Does what it is for.
    Ready,
}

/// Why a conversation ended; a sentence about the broker.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// CONNACK with a failure.
    #[error("the broker refused CONNECT: {0:?} (0x{code:02X})", code = .0.as_u8())]
    Refused(ReasonCode),
    /// SUBACK with a failure.
    #[error("the broker refused the subscription to `{filter}`: {reason:?} (0x{code:02X})", code = .reason.as_u8())]
    SubscriptionRefused {
        /// The filter.
        filter: Box<str>,
        /// Why.
        reason: ReasonCode,
    },
    /// The broker does not do the QoS that the run is about.
    #[error("the broker grants {granted:?} where {asked:?} was asked for")]
    LowerQoS {
        /// What the run wants.
        asked: QoS,
        /// What it would get.
        granted: QoS,
    },
    /// DISCONNECT of MQTT 5.
    #[error("the broker sent DISCONNECT: {0:?} (0x{code:02X})", code = .0.as_u8())]
    Disconnected(ReasonCode),
    /// A packet that cannot be read.
    #[error("the broker sent a broken packet: {0}")]
    Broken(#[from] DecodeError),
    /// A packet that makes no sense now.
    #[error("the broker sent {packet:?} while this client was {state:?}")]
    Unexpected {
        /// What came.
        packet: PacketType,
        /// When.
        state: State,
    },
    /// An acknowledgement of nothing.
    #[error("the broker acknowledged packet id {0}, which nothing waits for")]
    UnknownPacketId(PacketId),
    /// A session where none was asked for.
    #[error("the broker resumed a session after a clean start")]
    UncleanStart,
    /// PINGREQ without an answer.
    #[error("the broker did not answer PINGREQ within the keep-alive time")]
    NoPong,
    /// A packet that cannot be written.
    #[error("cannot send to this broker: {0}")]
    Encode(#[from] EncodeError),
}

/// What a frame leads to, besides what was written.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    /// Nothing to tell.
    Nothing,
    /// The client became ready. A publisher with a session that goes on has to send again what is not done with.
    Ready,
    /// A message of this publisher was answered.
    Answered {
        /// Which one.
        sent: Sent,
        /// Whether the broker took it.
        is_success: bool,
    },
    /// A message arrived.
    Message(Publish<'a>),
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// What it is for.
    pub role: Role,
    state: State,
    version: ProtocolVersion,
    lasting: Lasting,
    /// It was ready once.
    has_been: bool,
    continuity: Continuity,
    /// Messages that no session knows any more.
    given_up: u64,
    awaits_pong: bool,
    keep_alive_s: u16,
    /// What the broker takes.
    frame_bytes_max: u32,
}

impl Client {
    /// Has said nothing yet.
    pub fn new(role: Role, version: ProtocolVersion, keep_alive_s: u16, lasting: Lasting) -> Self {
        Self {
            role,
            state: State::Connecting,
            version,
            lasting,
            has_been: false,
            continuity: Continuity::New,
            given_up: 0,
            awaits_pong: false,
            keep_alive_s,
            frame_bytes_max: u32::MAX,
        }
    }

    /// How far the conversation has come.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it was ready once, on this connection or an earlier one.
    pub fn has_been_ready(&self) -> bool {
        self.has_been
    }

    /// What the last CONNACK said about the session.
    pub fn continuity(&self) -> Continuity {
        self.continuity
    }

    /// Takes the number of messages given up since the last time.
    pub fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// The connection is over; there will be another.
    pub fn on_disconnected(&mut self) {
        self.state = State::Connecting;
        self.awaits_pong = false;
    }

    /// How packets are written.
    pub fn line(&self) -> Line {
        let frame_bytes_max = usize::try_from(self.frame_bytes_max).unwrap_or(usize::MAX);
        Line { version: self.version, frame_bytes_max }
    }

    /// Seconds between pings; the broker may have chosen them. 0: none.
    pub fn keep_alive_s(&self) -> u16 {
        self.keep_alive_s
    }

    /// Writes CONNECT.
    ///
    /// # Errors
    /// A client id or credentials that are too long.
    pub fn connect(
        &self,
        client_id: &str,
        credentials: (Option<&str>, Option<&str>),
        out: &mut BytesMut,
    ) -> Result<(), ClientError> {
        let maximum_packet_bytes = u32::try_from(FRAME_BYTES_MAX).ok();
        let is_v5 = self.version == ProtocolVersion::V5;
        let session_expiry_s = Some(self.lasting.expiry_s).filter(|expiry_s| is_v5 && *expiry_s > 0);
        let connect = Connect {
            version: self.version,
            clean_start: self.starts_clean(),
            keep_alive_s: self.keep_alive_s,
            client_id,
            will: None,
            username: credentials.0,
            password: credentials.1.map(str::as_bytes),
            properties: ConnectProperties { maximum_packet_bytes, session_expiry_s, ..ConnectProperties::default() },
        };
        self.write(&Packet::Connect(Box::new(connect)), out)
    }

    /// Takes one whole frame from the broker and writes what it asks for.
    ///
    /// # Errors
    /// The end of the conversation.
    pub fn handle_frame<'a>(&mut self, frame: &'a [u8], out: &mut BytesMut) -> Result<Event<'a>, ClientError> {
        let packet = decode::packet(frame, Some(self.version), Sender::Server)?;
        match packet {
            Packet::Publish(publish) => self.on_publish(publish, out),
            Packet::PubAck(ack) => self.on_puback(&ack),
            Packet::PubRec(ack) => self.on_pubrec(&ack, out),
            Packet::PubRel(ack) => self.on_pubrel(&ack, out),
            Packet::PubComp(ack) => self.on_pubcomp(&ack),
            Packet::ConnAck(connack) => self.on_connack(&connack, out),
            Packet::SubAck(suback) => self.on_suback(&suback),
            Packet::PingResp => {
                self.awaits_pong = false;
                Ok(Event::Nothing)
            }
            Packet::Disconnect(disconnect) => Err(ClientError::Disconnected(disconnect.reason)),
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::Auth(_) => Err(self.unexpected(packet.packet_type())),
        }
    }

    /// Writes PINGREQ: nothing was sent for the keep-alive time.
    ///
    /// # Errors
    /// The one before was not answered.
    pub fn ping(&mut self, out: &mut BytesMut) -> Result<(), ClientError> {
        if self.awaits_pong {
            return Err(ClientError::NoPong);
        }
        self.awaits_pong = true;
        self.write(&Packet::PingReq, out)
    }

    /// Writes DISCONNECT.
    ///
    /// # Errors
    /// None that can happen.
    pub fn disconnect(&self, out: &mut BytesMut) -> Result<(), ClientError> {
        let disconnect = Disconnect {
            reason: ReasonCode::Success,
            session_expiry_s: None,
            server_reference: None,
            properties: ReasonProperties::default(),
        };
        self.write(&Packet::Disconnect(disconnect), out)
    }

    fn on_connack(&mut self, connack: &ConnAck<'_>, out: &mut BytesMut) -> Result<Event<'static>, ClientError> {
        if self.state != State::Connecting {
            return Err(self.unexpected(PacketType::ConnAck));
        }
        if connack.reason.is_error() {
            return Err(ClientError::Refused(connack.reason));
        }
        let properties = &connack.properties;
        self.keep_alive_s = properties.server_keep_alive_s.unwrap_or(self.keep_alive_s);
        self.frame_bytes_max = properties.maximum_packet_bytes.unwrap_or(u32::MAX);
        self.continuity = self.judge(connack.session_present)?;
        let is_resumed = self.continuity == Continuity::Resumed;
        let line = self.line();
        match &mut self.role {
            Role::Idle | Role::Probe { .. } => {}
            Role::Publisher(publisher) => {
                let granted = properties.maximum_qos.unwrap_or(QoS::ExactlyOnce);
                if granted < publisher.qos() {
                    return Err(ClientError::LowerQoS { asked: publisher.qos(), granted });
                }
                publisher.limit_window(properties.receive_maximum.map_or(u16::MAX, u16::from));
                if !is_resumed {
                    self.given_up += publisher.give_up() as u64;
                }
            }
            Role::Subscriber(subscriber) => {
                if !is_resumed {
                    subscriber.received.clear();
                    subscriber.is_subscribed = false;
                }
                if !subscriber.is_subscribed {
                    subscribe(subscriber, line, out)?;
                    self.state = State::Subscribing;
                    return Ok(Event::Nothing);
                }
            }
        }
        Ok(self.on_ready())
    }

    fn on_ready(&mut self) -> Event<'static> {
        self.state = State::Ready;
        self.has_been = true;
        Event::Ready
    }

    /// Later connections go on with the session.
    fn starts_clean(&self) -> bool {
        self.lasting.clean_start && !(self.has_been && self.lasting.is(self.version))
    }

    fn judge(&self, session_present: bool) -> Result<Continuity, ClientError> {
        match session_present {
            true if self.starts_clean() => Err(ClientError::UncleanStart),
            true => Ok(Continuity::Resumed),
            false if self.has_been && self.lasting.is(self.version) => Ok(Continuity::Lost),
            false => Ok(Continuity::New),
        }
    }

    fn on_suback(&mut self, suback: &SubAck<'_>) -> Result<Event<'static>, ClientError> {
        let (State::Subscribing, Role::Subscriber(subscriber)) = (self.state, &mut self.role) else {
            return Err(self.unexpected(PacketType::SubAck));
        };
        if suback.packet_id != SUBSCRIBE_ID {
            return Err(ClientError::UnknownPacketId(suback.packet_id));
        }
        let reason = suback.reasons.first().copied().unwrap_or(ReasonCode::UnspecifiedError);
        let Some(granted) = QoS::from_u8(reason.as_u8()) else {
            return Err(ClientError::SubscriptionRefused { filter: subscriber.filter.clone(), reason });
        };
        if granted < subscriber.qos {
            return Err(ClientError::LowerQoS { asked: subscriber.qos, granted });
        }
        subscriber.is_subscribed = true;
        Ok(self.on_ready())
    }

    fn on_publish<'a>(&mut self, publish: Publish<'a>, out: &mut BytesMut) -> Result<Event<'a>, ClientError> {
        let (false, Role::Subscriber(subscriber)) = (self.state == State::Connecting, &mut self.role) else {
            return Err(self.unexpected(PacketType::Publish));
        };
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => self.write(&Packet::PubAck(ack(id)), out)?,
            Delivery::ExactlyOnce(_) if subscriber.qos < QoS::ExactlyOnce => {
                return Err(self.unexpected(PacketType::Publish));
            }
            Delivery::ExactlyOnce(id) => {
                let is_new = subscriber.received.insert(id);
                self.write(&Packet::PubRec(ack(id)), out)?;
                if !is_new {
                    return Ok(Event::Nothing);
                }
            }
        }
        Ok(Event::Message(publish))
    }

    fn on_pubrel(&mut self, released: &Ack<'_>, out: &mut BytesMut) -> Result<Event<'static>, ClientError> {
        let Role::Subscriber(subscriber) = &mut self.role else { return Err(self.unexpected(PacketType::PubRel)) };
        // A session that goes on may release once more what was released.
        subscriber.received.remove(&released.packet_id);
        self.write(&Packet::PubComp(ack(released.packet_id)), out)?;
        Ok(Event::Nothing)
    }

    fn on_puback(&mut self, ack: &Ack<'_>) -> Result<Event<'static>, ClientError> {
        let Role::Publisher(publisher) = &mut self.role else { return Err(self.unexpected(PacketType::PubAck)) };
        if publisher.qos() != QoS::AtLeastOnce {
            return Err(self.unexpected(PacketType::PubAck));
        }
        let is_success = !ack.reason.is_error();
        let sent = publisher.on_ack(ack.packet_id, is_success);
        let sent = sent.ok_or(ClientError::UnknownPacketId(ack.packet_id))?;
        Ok(Event::Answered { sent, is_success })
    }

    fn on_pubrec(&mut self, received: &Ack<'_>, out: &mut BytesMut) -> Result<Event<'static>, ClientError> {
        let Role::Publisher(publisher) = &mut self.role else { return Err(self.unexpected(PacketType::PubRec)) };
        if publisher.qos() != QoS::ExactlyOnce {
            return Err(self.unexpected(PacketType::PubRec));
        }
        let (id, is_success) = (received.packet_id, !received.reason.is_error());
        let sent = if is_success { publisher.on_received(id) } else { publisher.on_ack(id, false) };
        let sent = sent.ok_or(ClientError::UnknownPacketId(id))?;
        if is_success {
            self.write(&Packet::PubRel(ack(id)), out)?;
        }
        Ok(Event::Answered { sent, is_success })
    }

    fn on_pubcomp(&mut self, ack: &Ack<'_>) -> Result<Event<'static>, ClientError> {
        let Role::Publisher(publisher) = &mut self.role else { return Err(self.unexpected(PacketType::PubComp)) };
        let completed = publisher.on_completed(ack.packet_id);
        completed.map(|_| Event::Nothing).ok_or(ClientError::UnknownPacketId(ack.packet_id))
    }

    fn write(&self, packet: &Packet<'_>, out: &mut BytesMut) -> Result<(), ClientError> {
        let Line { version, frame_bytes_max } = self.line();
        Ok(encode::packet(packet, version, frame_bytes_max, out)?)
    }

    fn unexpected(&self, packet: PacketType) -> ClientError {
        ClientError::Unexpected { packet, state: self.state }
    }
}

fn subscribe(subscriber: &Subscriber, line: Line, out: &mut BytesMut) -> Result<(), ClientError> {
    let options = SubscribeOptions { qos: subscriber.qos, ..SubscribeOptions::default() };
    let subscribe = Subscribe {
        packet_id: SUBSCRIBE_ID,
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters: vec![SubscribeFilter { filter: &subscriber.filter, options }],
    };
    Ok(encode::packet(&Packet::Subscribe(subscribe), line.version, line.frame_bytes_max, out)?)
}

#[cfg(test)]
mod tests;
