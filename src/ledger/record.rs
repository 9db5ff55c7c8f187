//! What the records of `mqtt.sessions` look like: binary keys ([`key()`]), protobuf values (`docs/records.proto`).
//!
//! Writing a record is two calls, one for the key, one for the value. Reading gives `None` for a value that this version
//! cannot understand; unknown fields are passed over.

pub mod cluster;
mod convert;
mod key;
mod wire;

use prost::Message;

use super::ids::{Epoch, Incarnation, Nonce, Place};
use super::state::{Inbound, Part, SessionState};

pub use key::{ClientKey, Key, PartKind, Slot, SubjectType, VERSION, key, parse, partition_of_session, watermark_key};

/// Why a record changed nothing, or left nothing under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// The key is of another version.
    Version,
    /// Nobody here knows this kind, subject or part.
    Kind,
    /// The key is malformed.
    Key,
    /// The value means nothing; what was under the key before is gone, as it will be after compaction.
    Value,
    /// A set of an earlier generation of `mqtt.sessions` (F1); what was under the key before is gone.
    Generation,
}

/// A claim of a connection, H.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimRecord {
    /// The node that claims.
    pub incarnation: Incarnation,
    /// Of a keeper's claim, K: it counts only if this is the last claim before it that counts.
    pub expected: Option<Nonce>,
}

/// The whole state of a nonce, S.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetRecord {
    /// The nonce's epoch.
    pub epoch: Epoch,
    /// The node that wrote it.
    pub incarnation: Incarnation,
    /// Counts what the nonce wrote, sets and parts together.
    pub version: u32,
    /// The state.
    pub state: SessionState,
}

/// F: a nonce accepts nothing more, and nothing of it is in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWord {
    /// The exact final QoS 2 state, if its node knew it.
    pub inbound: Option<Inbound>,
    /// The client said goodbye, or its node sent it away: the will that was armed under this nonce is not to be published,
    /// also by a claim that came before the set that says so.
    pub no_will: bool,
}

/// A node's watermark in a partition of `mqtt.sessions`, W (DESIGN §5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    /// Every following session of the node acknowledged what is before. Sorted by place.
    pub done: Vec<(Place, i64)>,
    /// Every token of the node's sessions before it is released or in a record that was read back. Sorted by place.
    pub tokens: Vec<(Place, i64)>,
}

/// Value of H.
pub fn claim(incarnation: Incarnation) -> Vec<u8> {
    wire::Claim { incarnation: incarnation.0.to_vec() }.encode_to_vec()
}

/// Value of K: a keeper claims if the last claim that counts is still `expected`.
pub fn keeper_claim(incarnation: Incarnation, expected: Nonce) -> Vec<u8> {
    wire::KeeperClaim { incarnation: incarnation.0.to_vec(), expected: expected.0.to_vec() }.encode_to_vec()
}

/// Value of S, part *set*. `version` rises with every record of state that the nonce writes.
pub fn set(epoch: Epoch, incarnation: Incarnation, version: u32, state: &SessionState) -> Vec<u8> {
    convert::set(epoch, incarnation, version, state).encode_to_vec()
}

/// Value of S, any other part.
pub fn part(version: u32, part: &Part) -> Vec<u8> {
    match part {
        Part::Subscriptions(subscriptions, position) => wire::SubscriptionsPart {
            version,
            subscriptions: subscriptions.iter().map(convert::subscription).collect(),
            position: Some(convert::position(position)),
        }
        .encode_to_vec(),
        Part::Position(position) => {
            wire::PositionPart { version, position: Some(convert::position(position)) }.encode_to_vec()
        }
        Part::Inbound(inbound) => {
            wire::InboundPart { version, inbound: Some(convert::inbound(inbound)) }.encode_to_vec()
        }
        Part::Outbound(outbound) => {
            wire::OutboundPart { version, outbound: Some(convert::outbound(outbound)) }.encode_to_vec()
        }
        Part::Due(due) => wire::DuePart { version, due: due.iter().map(convert::due).collect() }.encode_to_vec(),
    }
}

/// Value of F.
pub fn last(word: &LastWord) -> Vec<u8> {
    wire::Final { inbound: word.inbound.as_ref().map(convert::inbound), no_will: word.no_will }.encode_to_vec()
}

/// Value of W.
pub fn watermark(watermark: &Watermark) -> Vec<u8> {
    wire::Watermark { done: convert::marks(&watermark.done), tokens: convert::marks(&watermark.tokens) }.encode_to_vec()
}

/// Of H.
pub fn decode_claim(value: &[u8]) -> Option<ClaimRecord> {
    let claim = wire::Claim::decode(value).ok()?;
    Some(ClaimRecord { incarnation: convert::incarnation_back(&claim.incarnation)?, expected: None })
}

/// Of K.
pub fn decode_keeper_claim(value: &[u8]) -> Option<ClaimRecord> {
    let claim = wire::KeeperClaim::decode(value).ok()?;
    let expected = Some(convert::nonce_back(&claim.expected)?);
    Some(ClaimRecord { incarnation: convert::incarnation_back(&claim.incarnation)?, expected })
}

/// Of S, part *set*.
pub fn decode_set(value: &[u8]) -> Option<SetRecord> {
    convert::set_back(wire::Set::decode(value).ok()?)
}

/// Of S, any other part: its version and the part.
pub fn decode_part(kind: PartKind, value: &[u8]) -> Option<(u32, Part)> {
    Some(match kind {
        PartKind::Subscriptions => {
            let part = wire::SubscriptionsPart::decode(value).ok()?;
            let subscriptions =
                convert::each(part.subscriptions, |subscription| convert::subscription_back(&subscription))?;
            let position = convert::position_back(part.position.unwrap_or_default())?;
            (part.version, Part::Subscriptions(subscriptions, position))
        }
        PartKind::Position => {
            let part = wire::PositionPart::decode(value).ok()?;
            (part.version, Part::Position(convert::position_back(part.position.unwrap_or_default())?))
        }
        PartKind::Inbound => {
            let part = wire::InboundPart::decode(value).ok()?;
            (part.version, Part::Inbound(convert::inbound_back(part.inbound.unwrap_or_default())?))
        }
        PartKind::Outbound => {
            let part = wire::OutboundPart::decode(value).ok()?;
            (part.version, Part::Outbound(convert::outbound_back(part.outbound.unwrap_or_default())?))
        }
        PartKind::Due => {
            let part = wire::DuePart::decode(value).ok()?;
            (part.version, Part::Due(convert::each(part.due, convert::due_back)?))
        }
    })
}

/// Of F.
pub fn decode_last(value: &[u8]) -> Option<LastWord> {
    let last = wire::Final::decode(value).ok()?;
    let inbound = match last.inbound {
        Some(inbound) => Some(convert::inbound_back(inbound)?),
        None => None,
    };
    Some(LastWord { inbound, no_will: last.no_will })
}

/// Of W.
pub fn decode_watermark(value: &[u8]) -> Option<Watermark> {
    let watermark = wire::Watermark::decode(value).ok()?;
    Some(Watermark { done: convert::marks_back(&watermark.done)?, tokens: convert::marks_back(&watermark.tokens)? })
}

impl Part {
    /// Which part it is.
    pub const fn kind(&self) -> PartKind {
        match self {
            Self::Subscriptions(..) => PartKind::Subscriptions,
            Self::Position(_) => PartKind::Position,
            Self::Inbound(_) => PartKind::Inbound,
            Self::Outbound(_) => PartKind::Outbound,
            Self::Due(_) => PartKind::Due,
        }
    }
}

#[cfg(test)]
mod tests;
