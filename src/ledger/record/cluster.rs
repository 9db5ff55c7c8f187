//! Records of `mqtt.cluster`.

use prost::Message;

use super::{Ignored, VERSION, convert, wire};
use crate::ledger::ids::{Incarnation, Nonce};

/// The second byte of a key in `mqtt.cluster`. The numbers never change; 6 is kept for bans.
mod kind {
    pub(super) const FINGERPRINT: u8 = 1;
    pub(super) const KAFKA_TOPIC: u8 = 2;
    pub(super) const NODE: u8 = 3;
    pub(super) const EVICTION: u8 = 4;
    pub(super) const FENCED: u8 = 5;
    pub(super) const GENERATION: u8 = 7;
}

/// A key of `mqtt.cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterKey {
    /// What cannot be changed.
    Fingerprint,
    /// A kafka topic, by its topic id: two of the same number must both stay visible.
    KafkaTopic(u128),
    /// A node's heartbeat.
    Node(Incarnation),
    /// Somebody declares a node dead. Both are in the key: the first in the log decides who fences, and compaction would
    /// keep only the last of one key.
    Eviction {
        /// Who is dead.
        node: Incarnation,
        /// Who says so.
        by: Incarnation,
    },
    /// A node's writes are refused by Kafka from here on (F9).
    Fenced(Incarnation),
    /// Somebody asks for a generation of `mqtt.sessions`. Each append has a name of its own, so that none ever takes the
    /// place of another: see [`crate::ledger::generations`].
    Generation {
        /// The kafka topic's id.
        topic_id: u128,
        /// Names the record.
        name: Nonce,
    },
}

/// A node's heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// As configured.
    pub node_id: Box<str>,
    /// The producer id that it writes with: what has to be fenced.
    pub producer_id: i64,
    /// Counts its heartbeats.
    pub beat: u64,
    /// When it started, milliseconds since the Unix epoch by its own clock; for people.
    pub started_ms: i64,
    /// Its last record: it ended by itself and has nothing in flight. As good as fenced.
    pub left: bool,
}

/// A kafka topic and the number that positions name it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaTopic {
    /// See [`crate::ledger::ids::topic_number`].
    pub number: u32,
    /// Name.
    pub name: Box<str>,
    /// Number of partitions.
    pub partitions: u32,
}

/// The generation of `mqtt.sessions` that its topic id is to have (F1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// Counted from 0.
    pub number: u32,
}

/// What cannot be changed after the first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Partitions of `mqtt.sessions`.
    pub sessions_partitions: u32,
    /// Partitions of `mqtt.retained`.
    pub retained_partitions: u32,
}

impl ClusterKey {
    /// The key as bytes.
    pub fn encode(self) -> Vec<u8> {
        let (kind, subject) = match self {
            Self::Fingerprint => (kind::FINGERPRINT, Vec::new()),
            Self::KafkaTopic(topic_id) => (kind::KAFKA_TOPIC, topic_id.to_be_bytes().to_vec()),
            Self::Node(node) => (kind::NODE, node.0.to_vec()),
            Self::Eviction { node, by } => (kind::EVICTION, [node.0, by.0].concat()),
            Self::Fenced(node) => (kind::FENCED, node.0.to_vec()),
            Self::Generation { topic_id, name } => (kind::GENERATION, [topic_id.to_be_bytes(), name.0].concat()),
        };
        [&[VERSION, kind], &subject[..]].concat()
    }

    /// The way back.
    ///
    /// # Errors
    /// Why this version passes over it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Ignored> {
        let [version, rest @ ..] = bytes else { return Err(Ignored::Key) };
        if *version != VERSION {
            return Err(Ignored::Version);
        }
        let [kind, subject @ ..] = rest else { return Err(Ignored::Key) };
        match (*kind, subject) {
            (kind::FINGERPRINT, []) => Ok(Self::Fingerprint),
            (kind::KAFKA_TOPIC, subject) => Ok(Self::KafkaTopic(u128::from_be_bytes(array(subject)?))),
            (kind::NODE, subject) => Ok(Self::Node(Incarnation(array(subject)?))),
            (kind::FENCED, subject) => Ok(Self::Fenced(Incarnation(array(subject)?))),
            (kind::EVICTION, subject) => {
                let (node, by) = subject.split_first_chunk::<16>().ok_or(Ignored::Key)?;
                Ok(Self::Eviction { node: Incarnation(*node), by: Incarnation(array(by)?) })
            }
            (kind::GENERATION, subject) => {
                let (topic_id, name) = subject.split_first_chunk::<16>().ok_or(Ignored::Key)?;
                Ok(Self::Generation { topic_id: u128::from_be_bytes(*topic_id), name: Nonce(array(name)?) })
            }
            (kind::FINGERPRINT, _) => Err(Ignored::Key),
            _ => Err(Ignored::Kind),
        }
    }
}

fn array(bytes: &[u8]) -> Result<[u8; 16], Ignored> {
    bytes.try_into().map_err(|_| Ignored::Key)
}

impl Node {
    /// The value as bytes.
    pub fn encode(&self) -> Vec<u8> {
        wire::Node {
            id: self.node_id.to_string(),
            producer_id: self.producer_id,
            beat: self.beat,
            started_ms: self.started_ms,
            left: self.left,
        }
        .encode_to_vec()
    }

    /// The way back; `None` for what means nothing.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let node = wire::Node::decode(value).ok()?;
        let (producer_id, beat, started_ms, left) = (node.producer_id, node.beat, node.started_ms, node.left);
        Some(Self { node_id: node.id.into(), producer_id, beat, started_ms, left })
    }
}

impl KafkaTopic {
    /// The value as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (name, partitions) = (self.name.to_string(), self.partitions);
        wire::KafkaTopic { number: self.number, name, partitions }.encode_to_vec()
    }

    /// The way back; `None` for what means nothing.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let topic = wire::KafkaTopic::decode(value).ok()?;
        Some(Self { number: topic.number, name: topic.name.into(), partitions: topic.partitions })
    }
}

impl Fingerprint {
    /// The value as bytes.
    pub fn encode(&self) -> Vec<u8> {
        wire::Fingerprint {
            sessions_partitions: self.sessions_partitions,
            retained_partitions: self.retained_partitions,
        }
        .encode_to_vec()
    }

    /// The way back; `None` for what means nothing.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let wire::Fingerprint { sessions_partitions, retained_partitions } = wire::Fingerprint::decode(value).ok()?;
        Some(Self { sessions_partitions, retained_partitions })
    }
}

impl Generation {
    /// The value as bytes.
    pub fn encode(self) -> Vec<u8> {
        wire::Generation { number: self.number }.encode_to_vec()
    }

    /// The way back; `None` for what means nothing.
    pub fn decode(value: &[u8]) -> Option<Self> {
        Some(Self { number: wire::Generation::decode(value).ok()?.number })
    }
}

/// Value of an eviction and of a fence: who wrote it.
pub fn by(incarnation: Incarnation) -> Vec<u8> {
    wire::By { incarnation: incarnation.0.to_vec() }.encode_to_vec()
}

/// The way back.
pub fn decode_by(value: &[u8]) -> Option<Incarnation> {
    convert::incarnation_back(&wire::By::decode(value).ok()?.incarnation)
}
