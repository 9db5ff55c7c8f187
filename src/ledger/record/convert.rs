//! State as values ↔ state as protobuf. The ways back are total: `None` is a value that means nothing to this version.

use super::{SetRecord, wire};
use crate::ledger::ids::{Epoch, Incarnation, Nonce, Origin, Place};
use crate::ledger::state::{
    DueWill, Inbound, Life, OpenDelivery, Outbound, Position, SessionState, SubscriptionState, Unresolved, Will,
};
use crate::mqtt::packet::{RetainHandling, SubscribeOptions};
use crate::mqtt::{PacketId, QoS, TopicFilter};

/// Numbers of [`Life`].
mod life {
    pub(super) const CONNECTED: u32 = 0;
    pub(super) const DISCONNECTED: u32 = 1;
    pub(super) const DELETED: u32 = 2;
}

/// Bits of a subscription's options, as in a SUBSCRIBE packet (MQTT5 §3.8.3.1).
mod option {
    pub(super) const QOS: u32 = 0b0000_0011;
    pub(super) const NO_LOCAL: u32 = 0b0000_0100;
    pub(super) const RETAIN_AS_PUBLISHED: u32 = 0b0000_1000;
    pub(super) const RETAIN_HANDLING: u32 = 0b0011_0000;
    pub(super) const IF_NEW: u32 = 0b0001_0000;
    pub(super) const NEVER: u32 = 0b0010_0000;
}

pub(super) fn set(epoch: Epoch, incarnation: Incarnation, version: u32, state: &SessionState) -> wire::Set {
    wire::Set {
        generation: epoch.generation,
        offset: epoch.offset,
        incarnation: incarnation.0.to_vec(),
        version,
        expiry_s: state.expiry_s,
        identity: state.identity.to_string(),
        life: match state.life {
            Life::Connected => life::CONNECTED,
            Life::Disconnected { .. } => life::DISCONNECTED,
            Life::Deleted => life::DELETED,
        },
        since_ms: match state.life {
            Life::Disconnected { since_ms } => since_ms,
            Life::Connected | Life::Deleted => 0,
        },
        will: state.will.as_ref().map(will),
        due: state.due.iter().map(due).collect(),
        subscriptions: state.subscriptions.iter().map(subscription).collect(),
        position: present(&state.position).map(position),
        inbound: present(&state.inbound).map(inbound),
        outbound: present(&state.outbound).map(outbound),
    }
}

pub(super) fn set_back(set: wire::Set) -> Option<SetRecord> {
    let state = SessionState {
        expiry_s: set.expiry_s,
        identity: set.identity.into(),
        life: match set.life {
            life::CONNECTED => Life::Connected,
            life::DISCONNECTED => Life::Disconnected { since_ms: set.since_ms },
            life::DELETED => Life::Deleted,
            _ => return None,
        },
        will: match set.will {
            Some(will) => Some(will_back(will)?),
            None => None,
        },
        due: each(set.due, due_back)?,
        subscriptions: each(set.subscriptions, |subscription| subscription_back(&subscription))?,
        position: position_back(set.position.unwrap_or_default())?,
        inbound: inbound_back(set.inbound.unwrap_or_default())?,
        outbound: outbound_back(set.outbound.unwrap_or_default())?,
    };
    Some(SetRecord {
        epoch: Epoch { generation: set.generation, offset: set.offset },
        incarnation: incarnation_back(&set.incarnation)?,
        version: set.version,
        state,
    })
}

/// `None` for what is as empty as an absent field.
fn present<T: Default + PartialEq>(value: &T) -> Option<&T> {
    Some(value).filter(|value| **value != T::default())
}

fn will(will: &Will) -> wire::Will {
    wire::Will { nonce: will.nonce.0.to_vec(), delay_s: will.delay_s, publish: will.publish.to_vec() }
}

fn will_back(will: wire::Will) -> Option<Will> {
    Some(Will { nonce: nonce_back(&will.nonce)?, delay_s: will.delay_s, publish: will.publish.into() })
}

pub(super) fn due(due: &DueWill) -> wire::DueWill {
    wire::DueWill { will: Some(will(&due.will)), from: Some(origin(due.from)) }
}

pub(super) fn due_back(due: wire::DueWill) -> Option<DueWill> {
    Some(DueWill { will: will_back(due.will?)?, from: origin_back(due.from) })
}

pub(super) fn subscription(subscription: &SubscriptionState) -> wire::Subscription {
    let options = subscription.options;
    let flag = |is: bool, bit: u32| if is { bit } else { 0 };
    let handling = match options.retain_handling {
        RetainHandling::Always => 0,
        RetainHandling::IfNew => option::IF_NEW,
        RetainHandling::Never => option::NEVER,
    };
    wire::Subscription {
        filter: subscription.filter.as_str().to_owned(),
        options: u32::from(options.qos.as_u8())
            | flag(options.no_local, option::NO_LOCAL)
            | flag(options.retain_as_published, option::RETAIN_AS_PUBLISHED)
            | handling,
        id: subscription.id,
        starts: marks(&subscription.starts),
    }
}

pub(super) fn subscription_back(subscription: &wire::Subscription) -> Option<SubscriptionState> {
    let bits = subscription.options;
    let options = SubscribeOptions {
        qos: QoS::from_u8(u8::try_from(bits & option::QOS).ok()?)?,
        no_local: bits & option::NO_LOCAL != 0,
        retain_as_published: bits & option::RETAIN_AS_PUBLISHED != 0,
        retain_handling: match bits & option::RETAIN_HANDLING {
            0 => RetainHandling::Always,
            option::IF_NEW => RetainHandling::IfNew,
            option::NEVER => RetainHandling::Never,
            _ => return None,
        },
    };
    let filter = TopicFilter::parse(&subscription.filter).ok()?;
    Some(SubscriptionState { filter, options, id: subscription.id, starts: marks_back(&subscription.starts)? })
}

pub(super) fn position(position: &Position) -> wire::Position {
    let in_flight =
        |(id, from): &(PacketId, Origin)| wire::InFlight { packet_id: id.get().into(), origin: Some(origin(*from)) };
    wire::Position {
        following: position.following,
        from: marks(&position.from),
        in_flight: position.in_flight.iter().map(in_flight).collect(),
    }
}

pub(super) fn position_back(position: wire::Position) -> Option<Position> {
    let in_flight = |flying: wire::InFlight| Some((packet_id_back(flying.packet_id)?, origin_back(flying.origin)));
    Some(Position {
        following: position.following,
        from: marks_back(&position.from)?,
        in_flight: each(position.in_flight, in_flight)?,
    })
}

pub(super) fn inbound(inbound: &Inbound) -> wire::Inbound {
    wire::Inbound {
        high: inbound.high,
        held: packet_ids(&inbound.held),
        pending: pending(&inbound.pending),
        unresolved: inbound.unresolved.iter().map(unresolved).collect(),
    }
}

pub(super) fn inbound_back(inbound: wire::Inbound) -> Option<Inbound> {
    Some(Inbound {
        high: inbound.high,
        held: each(inbound.held, packet_id_back)?,
        pending: each(inbound.pending, pending_back)?,
        unresolved: each(inbound.unresolved, unresolved_back)?,
    })
}

fn unresolved(unresolved: &Unresolved) -> wire::Unresolved {
    wire::Unresolved {
        nonce: unresolved.nonce.0.to_vec(),
        incarnation: unresolved.incarnation.0.to_vec(),
        high: unresolved.high,
        pending: pending(&unresolved.pending),
        released: packet_ids(&unresolved.released),
        looked: places(&unresolved.looked),
    }
}

fn unresolved_back(unresolved: wire::Unresolved) -> Option<Unresolved> {
    Some(Unresolved {
        nonce: nonce_back(&unresolved.nonce)?,
        incarnation: incarnation_back(&unresolved.incarnation)?,
        high: unresolved.high,
        pending: each(unresolved.pending, pending_back)?,
        released: each(unresolved.released, packet_id_back)?,
        looked: places_back(&unresolved.looked),
    })
}

pub(super) fn outbound(outbound: &Outbound) -> wire::Outbound {
    let open = |delivery: &OpenDelivery| wire::OpenDelivery {
        packet_id: delivery.packet_id.get().into(),
        origin: Some(origin(delivery.origin)),
        released: delivery.released,
    };
    wire::Outbound { open: outbound.open.iter().map(open).collect(), sent_to: marks(&outbound.sent_to) }
}

pub(super) fn outbound_back(outbound: wire::Outbound) -> Option<Outbound> {
    let open = |delivery: wire::OpenDelivery| {
        let packet_id = packet_id_back(delivery.packet_id)?;
        Some(OpenDelivery { packet_id, origin: origin_back(delivery.origin), released: delivery.released })
    };
    Some(Outbound { open: each(outbound.open, open)?, sent_to: marks_back(&outbound.sent_to)? })
}

/// Offsets by place, those of one kafka topic together.
pub(super) fn marks(offsets: &[(Place, i64)]) -> Vec<wire::Marks> {
    let same_topic = offsets.chunk_by(|(a, _), (b, _)| a.topic == b.topic);
    let marks = same_topic.map(|run| wire::Marks {
        topic: run.first().map_or(0, |(place, _)| place.topic),
        partitions: run.iter().map(|(place, _)| place.partition).collect(),
        offsets: run.iter().map(|(_, offset)| *offset).collect(),
    });
    marks.collect()
}

pub(super) fn marks_back(marks: &[wire::Marks]) -> Option<Vec<(Place, i64)>> {
    if marks.iter().any(|marks| marks.partitions.len() != marks.offsets.len()) {
        return None;
    }
    let offsets = marks.iter().flat_map(|marks| {
        let places = marks.partitions.iter().map(|partition| Place { topic: marks.topic, partition: *partition });
        places.zip(marks.offsets.iter().copied())
    });
    Some(offsets.collect())
}

fn places(places: &[Place]) -> Vec<wire::Places> {
    let same_topic = places.chunk_by(|a, b| a.topic == b.topic);
    let places = same_topic.map(|run| wire::Places {
        topic: run.first().map_or(0, |place| place.topic),
        partitions: run.iter().map(|place| place.partition).collect(),
    });
    places.collect()
}

fn places_back(places: &[wire::Places]) -> Vec<Place> {
    let of = |places: &wire::Places| {
        let topic = places.topic;
        places.partitions.clone().into_iter().map(move |partition| Place { topic, partition })
    };
    places.iter().flat_map(of).collect()
}

fn origin(origin: Origin) -> wire::Origin {
    wire::Origin { topic: origin.place.topic, partition: origin.place.partition, offset: origin.offset }
}

fn origin_back(origin: Option<wire::Origin>) -> Origin {
    let origin = origin.unwrap_or_default();
    Origin { place: Place { topic: origin.topic, partition: origin.partition }, offset: origin.offset }
}

fn pending(pending: &[(u32, PacketId)]) -> Vec<wire::Pending> {
    pending.iter().map(|(number, id)| wire::Pending { number: *number, packet_id: id.get().into() }).collect()
}

fn pending_back(pending: wire::Pending) -> Option<(u32, PacketId)> {
    Some((pending.number, packet_id_back(pending.packet_id)?))
}

fn packet_ids(ids: &[PacketId]) -> Vec<u32> {
    ids.iter().map(|id| id.get().into()).collect()
}

fn packet_id_back(id: u32) -> Option<PacketId> {
    PacketId::new(u16::try_from(id).ok()?)
}

pub(super) fn nonce_back(bytes: &[u8]) -> Option<Nonce> {
    bytes.try_into().ok().map(Nonce)
}

pub(super) fn incarnation_back(bytes: &[u8]) -> Option<Incarnation> {
    bytes.try_into().ok().map(Incarnation)
}

/// All of them, or `None` if one means nothing.
pub(super) fn each<T, U>(items: Vec<T>, back: impl Fn(T) -> Option<U>) -> Option<Vec<U>> {
    items.into_iter().map(back).collect()
}
