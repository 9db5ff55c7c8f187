//! The ledger of `mqtt.cluster`: which nodes there are, which are dead, who fences them, what cannot be changed.

use std::collections::BTreeMap;

use super::ids::Incarnation;
use super::record::Ignored;
use super::record::cluster::{ClusterKey, Fingerprint, KafkaTopic, Node, decode_by};
use crate::route::partition::murmur2;

/// How many of a node's last heartbeats are remembered: enough to count missed rounds.
const BEATS_REMEMBERED: usize = 16;

/// When a node is taken for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Heartbeats of the observer without one of the node.
    pub rounds: usize,
    /// Log time without a heartbeat, milliseconds.
    pub silence_ms: i64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { rounds: 5, silence_ms: 10_000 }
    }
}

/// What a record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterApplied {
    /// A heartbeat.
    Beat {
        /// Whose.
        incarnation: Incarnation,
        /// Which.
        beat: u64,
        /// The first that was seen of it.
        is_new: bool,
        /// Its last: it ended by itself.
        left: bool,
    },
    /// A node was declared dead.
    Evicted {
        /// Who is dead.
        incarnation: Incarnation,
        /// Who says so.
        by: Incarnation,
        /// Nobody said so before: `by` is to fence.
        is_first: bool,
    },
    /// A node's writes are refused from here on.
    Fenced {
        /// Whose.
        incarnation: Incarnation,
        /// Who did it.
        by: Incarnation,
    },
    /// A kafka topic got its number.
    KafkaTopic {
        /// Topic id.
        topic_id: u128,
    },
    /// What cannot be changed.
    Fingerprint(Fingerprint),
    /// A tombstone.
    Gone(ClusterKey),
    /// A record that means nothing to this version.
    Ignored(Ignored),
}

/// A node as its heartbeats tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The last heartbeat.
    pub node: Node,
    /// When it was appended, log time.
    pub append_ms: i64,
    /// Where the last heartbeats are, the newest last.
    beats: Vec<i64>,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Members {
    nodes: BTreeMap<Incarnation, Member>,
    /// By the dead, then in the order of the log: where it was said, by whom.
    evictions: BTreeMap<Incarnation, Vec<(i64, Incarnation)>>,
    fenced: BTreeMap<Incarnation, Incarnation>,
    kafka_topics: BTreeMap<u128, KafkaTopic>,
    fingerprint: Option<Fingerprint>,
    log_now_ms: i64,
}

impl Members {
    /// Takes the record at `offset`, which Kafka appended at `append_ms`. Records come in the order of their offsets.
    pub fn apply(&mut self, offset: i64, append_ms: i64, key: &[u8], value: Option<&[u8]>) -> ClusterApplied {
        self.log_now_ms = self.log_now_ms.max(append_ms);
        let key = match ClusterKey::decode(key) {
            Ok(key) => key,
            Err(why) => return ClusterApplied::Ignored(why),
        };
        let applied = value.and_then(|value| self.put(offset, append_ms, key, value));
        applied.unwrap_or_else(|| {
            self.remove(key);
            if value.is_some() { ClusterApplied::Ignored(Ignored::Value) } else { ClusterApplied::Gone(key) }
        })
    }

    fn put(&mut self, offset: i64, append_ms: i64, key: ClusterKey, value: &[u8]) -> Option<ClusterApplied> {
        Some(match key {
            ClusterKey::Fingerprint => {
                let fingerprint = Fingerprint::decode(value)?;
                self.fingerprint = Some(fingerprint);
                ClusterApplied::Fingerprint(fingerprint)
            }
            ClusterKey::KafkaTopic(topic_id) => {
                self.kafka_topics.insert(topic_id, KafkaTopic::decode(value)?);
                ClusterApplied::KafkaTopic { topic_id }
            }
            ClusterKey::Node(incarnation) => {
                let node = Node::decode(value)?;
                let (beat, left) = (node.beat, node.left);
                let before = self.nodes.remove(&incarnation);
                let is_new = before.is_none();
                let mut beats = before.map(|member| member.beats).unwrap_or_default();
                if beats.len() == BEATS_REMEMBERED {
                    beats.remove(0);
                }
                beats.push(offset);
                self.nodes.insert(incarnation, Member { node, append_ms, beats });
                ClusterApplied::Beat { incarnation, beat, is_new, left }
            }
            ClusterKey::Eviction { node: incarnation, by } => {
                decode_by(value)?;
                let said = self.evictions.entry(incarnation).or_default();
                let is_first = said.is_empty();
                said.retain(|(_, other)| *other != by);
                said.push((offset, by));
                ClusterApplied::Evicted { incarnation, by, is_first }
            }
            ClusterKey::Fenced(incarnation) => {
                let by = decode_by(value)?;
                self.fenced.insert(incarnation, by);
                ClusterApplied::Fenced { incarnation, by }
            }
        })
    }

    fn remove(&mut self, key: ClusterKey) {
        match key {
            ClusterKey::Fingerprint => self.fingerprint = None,
            ClusterKey::KafkaTopic(topic_id) => {
                self.kafka_topics.remove(&topic_id);
            }
            ClusterKey::Node(incarnation) => {
                self.nodes.remove(&incarnation);
            }
            ClusterKey::Eviction { node, by } => {
                if let Some(said) = self.evictions.get_mut(&node) {
                    said.retain(|(_, other)| *other != by);
                    if said.is_empty() {
                        self.evictions.remove(&node);
                    }
                }
            }
            ClusterKey::Fenced(incarnation) => {
                self.fenced.remove(&incarnation);
            }
        }
    }

    /// The highest append time seen: what "now" is for everybody who reads the log.
    pub const fn log_now_ms(&self) -> i64 {
        self.log_now_ms
    }

    /// What is known of a node.
    pub fn member(&self, incarnation: Incarnation) -> Option<&Member> {
        self.nodes.get(&incarnation)
    }

    /// Nodes that neither left nor were evicted.
    pub fn live(&self) -> impl Iterator<Item = (Incarnation, &Member)> {
        let lives =
            |(incarnation, member): &(&Incarnation, &Member)| !member.node.left && !self.is_evicted(**incarnation);
        self.nodes.iter().filter(lives).map(|(incarnation, member)| (*incarnation, member))
    }

    /// Whether a node was declared dead, fenced or not.
    pub fn is_evicted(&self, incarnation: Incarnation) -> bool {
        self.evictions.contains_key(&incarnation) || self.fenced.contains_key(&incarnation)
    }

    /// Whether nothing of a node can land any more: Kafka refuses its writes (F9), or it ended with nothing in flight.
    pub fn is_fenced(&self, incarnation: Incarnation) -> bool {
        let left = self.nodes.get(&incarnation).is_some_and(|member| member.node.left);
        left || self.fenced.contains_key(&incarnation)
    }

    /// Nodes that were evicted and are not fenced yet, each with who has to do it: the first who said so and was not
    /// evicted since; `None` if there is nobody left who said so.
    pub fn to_fence(&self) -> impl Iterator<Item = (Incarnation, Option<Incarnation>)> {
        let open = self.evictions.iter().filter(|(node, _)| !self.fenced.contains_key(*node));
        open.map(|(node, said)| {
            let alive = said.iter().find(|(_, by)| !self.is_evicted(*by) && !self.is_fenced(*by));
            (*node, alive.map(|(_, by)| *by))
        })
    }

    /// Nodes that `observer` should declare dead: live ones that missed too many of its heartbeats and were silent for
    /// too long in log time, and evicted ones that nobody is left to fence.
    pub fn overdue(&self, observer: Incarnation, patience: Patience) -> Vec<Incarnation> {
        let Some(own) = self.nodes.get(&observer) else { return Vec::new() };
        let is_overdue = |(incarnation, member): &(Incarnation, &Member)| {
            let last = member.beats.last().copied().unwrap_or(i64::MIN);
            let missed = own.beats.iter().filter(|beat| **beat > last).count();
            let silence_ms = own.append_ms.saturating_sub(member.append_ms);
            *incarnation != observer && missed >= patience.rounds && silence_ms >= patience.silence_ms
        };
        let silent = self.live().filter(is_overdue).map(|(incarnation, _)| incarnation);
        let orphaned = self.to_fence().filter(|(_, by)| by.is_none()).map(|(node, _)| node);
        silent.chain(orphaned).filter(|node| *node != observer).collect()
    }

    /// The keeper of a partition of `mqtt.sessions`: every node that has read as far finds the same, and a change of the
    /// members moves few partitions.
    pub fn keeper_of(&self, partition: u32) -> Option<Incarnation> {
        let weight = |incarnation: Incarnation| murmur2(&[&incarnation.0[..], &partition.to_be_bytes()].concat());
        self.live().map(|(incarnation, _)| incarnation).max_by_key(|incarnation| (weight(*incarnation), *incarnation))
    }

    /// What cannot be changed, once somebody wrote it.
    pub const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// A kafka topic by its topic id.
    pub fn kafka_topic(&self, topic_id: u128) -> Option<&KafkaTopic> {
        self.kafka_topics.get(&topic_id)
    }

    /// Another kafka topic that has the number already: a start with it is refused.
    pub fn number_taken(&self, number: u32, topic_id: u128) -> Option<&KafkaTopic> {
        self.kafka_topics.iter().find(|(id, topic)| **id != topic_id && topic.number == number).map(|(_, topic)| topic)
    }

    /// Records of nodes that are fenced or left and that no session names any more, in the order in which the tombstones
    /// go out.
    pub fn litter(&self, named: &dyn Fn(Incarnation) -> bool) -> Vec<Vec<u8>> {
        let over = self.nodes.keys().chain(self.fenced.keys()).chain(self.evictions.keys()).copied();
        let over: std::collections::BTreeSet<_> =
            over.filter(|incarnation| self.is_fenced(*incarnation) && !named(*incarnation)).collect();
        let mut keys = Vec::new();
        for node in over {
            keys.extend(self.nodes.get(&node).map(|_| ClusterKey::Node(node).encode()));
            let said = self.evictions.get(&node).into_iter().flatten();
            keys.extend(said.map(|(_, by)| ClusterKey::Eviction { node, by: *by }.encode()));
            keys.extend(self.fenced.get(&node).map(|_| ClusterKey::Fenced(node).encode()));
        }
        keys
    }
}
