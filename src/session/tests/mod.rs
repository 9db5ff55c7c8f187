//! Scripts: packets and outcomes in, effects out.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one kind of effect")]
#![expect(clippy::needless_pass_by_value, reason = "scripts read better with packets given away")]

mod connecting;
mod delivering;
mod publishing;
mod subscribing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::*;
use crate::message::{Content, Message, Stamp};
use crate::mqtt::head::Sender;
use crate::mqtt::packet::{
    Ack, Connect, ConnectProperties, Delivery as WireDelivery, Disconnect, Publish, PublishProperties, QoS,
    ReasonProperties, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe, Will,
};
use crate::mqtt::properties::UserProperties;
use crate::mqtt::{decode, encode};

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
        let mut effects = self.packet(Packet::Connect(Box::new(connect)));
        if let [Effect::Register(_)] = effects.as_slice() {
            effects = self.input(Input::Registered);
        }
        effects
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
        let delivery =
            Delivery { message: message(topic, qos), qos, retain: false, subscription_ids: smallvec::SmallVec::new() };
        self.input(Input::Deliver { delivery, wall_ms: WALL_MS })
    }

    fn wait(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        let mut effects = Effects::default();
        self.session.handle_timeout(self.now, &mut effects);
        drain(effects)
    }
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

fn has_will(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::AppendWill(_)))
}
