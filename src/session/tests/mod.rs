//! Scripts: packets and outcomes in, effects out.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one kind of effect")]
#![expect(clippy::needless_pass_by_value, reason = "scripts read better with packets given away")]

mod connecting;
mod delivering;
mod delivering_exactly_once;
mod holding_back;
mod parting;
mod publishing;
mod publishing_exactly_once;
mod recording;
mod resuming;
mod subscribing;
mod walking_in;
mod walking_out;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::*;
use crate::ledger::ids::{Incarnation, Nonce, Origin, Place, Token};
use crate::ledger::state::{
    Inbound, Life, OpenDelivery, Outbound, Part, Position, SessionState, SubscriptionState, Unresolved,
    Will as LedgerWill,
};
use crate::message::{Content, Message, Stamp};
use crate::mqtt::head::Sender;
use crate::mqtt::packet::{
    Ack, Connect, ConnectProperties, Delivery as WireDelivery, Disconnect, Publish, PublishProperties, QoS,
    ReasonProperties, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe, Will,
};
use crate::mqtt::properties::UserProperties;
use crate::mqtt::{PacketId, TopicFilter, decode, encode};

const WALL_MS: i64 = 1_700_000_000_000;

/// One session with its time; every packet goes through the codec, as it would on a socket.
struct Script {
    session: Session,
    now: Instant,
    version: ProtocolVersion,
}

#[expect(clippy::disallowed_methods, reason = "any instant is a start of time")]
fn epoch() -> Instant {
    Instant::now()
}

fn connect(version: ProtocolVersion) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        client_id: "car-1",
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn will() -> Will<'static> {
    Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "cars/1/gone",
        payload: b"bye",
        delay_s: None,
        properties: PublishProperties::default(),
    }
}

fn publish(topic: &str, delivery: WireDelivery) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        delivery,
        retain: false,
        topic,
        properties: PublishProperties::default(),
        payload: b"42",
    })
}

fn qos1(id: u16) -> WireDelivery {
    WireDelivery::AtLeastOnce(PacketId::new(id).unwrap())
}

fn message(topic: &str, qos: QoS) -> Message {
    let properties = PublishProperties::default();
    let content = Content { qos, retain: false, properties: &properties, payload: b"42" };
    Message::new(topic, content, Stamp { wall_ms: WALL_MS, ..Stamp::default() })
}

impl Script {
    fn new(version: ProtocolVersion) -> Self {
        Self::with_settings(version, Settings::default())
    }

    fn with_settings(version: ProtocolVersion, settings: Settings) -> Self {
        let now = epoch();
        Self { session: Session::new(Arc::new(settings), now, 7), now, version }
    }

    /// A script whose client is connected.
    fn connected(version: ProtocolVersion) -> Self {
        let mut script = Self::new(version);
        script.connect(connect(version));
        script
    }

    fn connect(&mut self, connect: Connect<'_>) -> Vec<Effect> {
        let effects = self.packet(Packet::Connect(Box::new(connect)));
        match effects.as_slice() {
            [Effect::Claim(wish)] => self.grant(new_session(wish)),
            _ => effects,
        }
    }

    fn grant(&mut self, grant: Grant) -> Vec<Effect> {
        self.input(Input::Granted(Box::new(grant)))
    }

    /// A script whose client has a session that outlives the connection, new or `state`.
    fn durable(version: ProtocolVersion, state: Option<SessionState>) -> Self {
        Self::resumed(version, state, true).0
    }

    /// The same, with what CONNACK came with.
    fn resumed(version: ProtocolVersion, state: Option<SessionState>, settled: bool) -> (Self, Vec<Effect>) {
        let mut script = Self::new(version);
        let effects = script.packet(Packet::Connect(Box::new(durable_connect(version))));
        let [Effect::Claim(wish)] = effects.as_slice() else { panic!("{effects:?}") };
        let mut grant = new_session(wish);
        grant.settled = settled;
        if let Some(state) = state {
            grant.session_present = true;
            grant.state = Box::new(SessionState { expiry_s: wish.expiry_s, ..state });
        }
        let effects = script.grant(grant);
        (script, effects)
    }

    fn persisted(&mut self, sequence: u64) -> Vec<Effect> {
        self.input(Input::Persisted(sequence))
    }

    /// Ends the connection and takes what it leaves.
    fn parting(&mut self, end: Input<'_>) -> Parting {
        self.input(end);
        *self.session.take_parting().expect("a claimed session")
    }

    fn packet(&mut self, packet: Packet<'_>) -> Vec<Effect> {
        let mut frame = BytesMut::new();
        encode::packet(&packet, self.version, usize::MAX, &mut frame).unwrap();
        match decode::packet(&frame, self.session.version(), Sender::Client) {
            Ok(packet) => self.input(Input::Packet(packet)),
            Err(error) => self.input(Input::Malformed(error)),
        }
    }

    fn input(&mut self, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Effects::default();
        self.session.handle(self.now, input, &mut effects);
        drain(effects)
    }

    fn written(&mut self, sequence: u64) -> Vec<Effect> {
        self.input(Input::Appended { sequence, outcome: AppendOutcome::Written })
    }

    fn deliver(&mut self, topic: &str, qos: QoS) -> Vec<Effect> {
        self.input(Input::Deliver { delivery: delivery(message(topic, qos), qos), wall_ms: WALL_MS })
    }

    /// Delivers the message at this offset of [`PLACE`].
    fn deliver_at(&mut self, offset: i64, qos: QoS) -> Vec<Effect> {
        let origin = Some(at(offset));
        let delivery = Delivery { origin, tick: tick_of(offset), ..delivery(message("a", qos), qos) };
        self.input(Input::Deliver { delivery, wall_ms: WALL_MS })
    }

    fn wait(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        let mut effects = Effects::default();
        self.session.handle_timeout(self.now, &mut effects);
        drain(effects)
    }
}

/// The partition of the scripts' messages.
const PLACE: Place = Place { topic: 7, partition: 3 };
const NONCE: Nonce = Nonce([9; 16]);

fn at(offset: i64) -> Origin {
    Origin { place: PLACE, offset }
}

fn tick_of(offset: i64) -> u32 {
    u32::try_from(offset).unwrap() / 10
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn delivery(message: Message, qos: QoS) -> Delivery {
    Delivery { message, qos, retain: false, subscription_ids: smallvec::SmallVec::new(), origin: None, tick: 0 }
}

/// What the node grants to a client that has no session yet.
fn new_session(wish: &Wish) -> Grant {
    let will = wish.will.as_ref().map(|will| LedgerWill {
        nonce: NONCE,
        delay_s: will.delay_s,
        publish: will.publish.publish().unwrap().payload.into(),
    });
    let state = SessionState { expiry_s: wish.expiry_s, will, ..SessionState::default() };
    Grant { nonce: NONCE, session_present: false, state: Box::new(state), settled: true }
}

/// A CONNECT that asks for a session of an hour; 3.x asks for one without an end.
fn durable_connect(version: ProtocolVersion) -> Connect<'static> {
    let session_expiry_s = (version == ProtocolVersion::V5).then_some(3_600);
    let properties = ConnectProperties { session_expiry_s, ..ConnectProperties::default() };
    Connect { clean_start: false, properties, ..connect(version) }
}

fn ack(packet_id: u16, reason: ReasonCode) -> Ack<'static> {
    Ack { packet_id: id(packet_id), reason, properties: ReasonProperties::default() }
}

fn pubrec(packet_id: u16) -> Packet<'static> {
    Packet::PubRec(ack(packet_id, ReasonCode::Success))
}

fn pubrel(packet_id: u16) -> Packet<'static> {
    Packet::PubRel(ack(packet_id, ReasonCode::Success))
}

fn pubcomp(packet_id: u16) -> Packet<'static> {
    Packet::PubComp(ack(packet_id, ReasonCode::Success))
}

fn qos2(id: u16) -> WireDelivery {
    WireDelivery::ExactlyOnce(PacketId::new(id).unwrap())
}

/// The records among the effects.
fn persists(effects: &[Effect]) -> Vec<(u64, Part)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist { sequence, part } => Some((*sequence, part.clone())),
            _ => None,
        })
        .collect()
}

/// The one record among the effects.
fn persist(effects: &[Effect]) -> (u64, Part) {
    let records = persists(effects);
    assert_eq!(records.len(), 1, "{effects:?}");
    records.into_iter().next().unwrap()
}

/// What is sent, in short: `PUBLISH 1 q2 dup`, `PUBREC 1`, `PUBREC 1 0x97`.
fn sent(effects: &[Effect]) -> Vec<String> {
    let coded = |name: &str, packet_id: &PacketId, reason: &ReasonCode| match reason.as_u8() {
        0 => format!("{name} {packet_id}"),
        code => format!("{name} {packet_id} {code:#04x}"),
    };
    let listed = |name: &str, packet_id: &PacketId, reasons: &[ReasonCode]| {
        let all: Vec<_> = reasons.iter().map(|reason| format!("{:#04x}", reason.as_u8())).collect();
        format!("{name} {packet_id} {}", all.join(" "))
    };
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(outgoing) => Some(match outgoing {
                Outgoing::ConnAck(parts) => format!("CONNACK {:#04x} {}", parts.reason.as_u8(), parts.session_present),
                Outgoing::Publish { packet_id, dup, delivery, .. } => format!(
                    "PUBLISH {} q{}{}",
                    packet_id.map_or(0, PacketId::get),
                    delivery.qos.as_u8(),
                    if *dup { " dup" } else { "" }
                ),
                Outgoing::PubAck { packet_id, reason } => coded("PUBACK", packet_id, reason),
                Outgoing::PubRec { packet_id, reason } => coded("PUBREC", packet_id, reason),
                Outgoing::PubRel { packet_id, reason } => coded("PUBREL", packet_id, reason),
                Outgoing::PubComp { packet_id, reason } => coded("PUBCOMP", packet_id, reason),
                Outgoing::SubAck { packet_id, reasons } => listed("SUBACK", packet_id, reasons),
                Outgoing::UnsubAck { packet_id, reasons } => listed("UNSUBACK", packet_id, reasons),
                Outgoing::PingResp => "PINGRESP".to_owned(),
                Outgoing::Disconnect { reason } => format!("DISCONNECT {:#04x}", reason.as_u8()),
            }),
            _ => None,
        })
        .collect()
}

fn drain(mut effects: Effects) -> Vec<Effect> {
    std::iter::from_fn(|| effects.pop()).collect()
}

/// The acknowledgements among the effects, as (packet id, reason).
fn pubacks(effects: &[Effect]) -> Vec<(u16, ReasonCode)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(Outgoing::PubAck { packet_id, reason }) => Some((packet_id.get(), *reason)),
            _ => None,
        })
        .collect()
}

fn closed(effects: &[Effect]) -> Option<CloseCause> {
    effects.iter().find_map(|effect| match effect {
        Effect::Close(cause) => Some(*cause),
        _ => None,
    })
}

fn disconnect_reason(effects: &[Effect]) -> Option<ReasonCode> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send(Outgoing::Disconnect { reason }) => Some(*reason),
        _ => None,
    })
}
