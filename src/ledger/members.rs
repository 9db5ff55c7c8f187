//! The ledger of `mqtt.cluster`: which nodes there are, which are dead, who fences them, what cannot be changed.

use std::collections::{BTreeMap, BTreeSet};

use super::generations::Generations;
use super::ids::{Incarnation, Nonce};
use super::record::Ignored;
use super::record::cluster::{ClusterKey, Fingerprint, Generation, KafkaTopic, Node, decode_by};
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
    /// Somebody asked for a generation of `mqtt.sessions`; [`Members::generations`] says what came of it.
    Generation {
        /// Names the record.
        name: Nonce,
    },
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
    generations: Generations,
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
            ClusterKey::Generation { topic_id, name } => {
                self.generations.apply(topic_id, Generation::decode(value)?.number);
                ClusterApplied::Generation { name }
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
            // What was handed out stays so.
            ClusterKey::Generation { .. } => {}
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

    /// The generations of `mqtt.sessions` (F1).
    pub const fn generations(&self) -> &Generations {
        &self.generations
    }

    /// The producers of nodes that ended, however they did.
    pub fn gone_producers(&self) -> Vec<i64> {
        let is_gone =
            |(incarnation, member): &(&Incarnation, &Member)| member.node.left || self.is_evicted(**incarnation);
        self.nodes.iter().filter(is_gone).map(|(_, member)| member.node.producer_id).collect()
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
        let over: BTreeSet<_> =
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::arbitrary::incarnation;
    use crate::ledger::record::cluster::by;

    /// A ledger that is fed by hand; a second passes with each record.
    #[derive(Default)]
    struct Log {
        members: Members,
        end: i64,
    }

    impl Log {
        fn put(&mut self, key: ClusterKey, value: Option<&[u8]>) -> ClusterApplied {
            self.end += 1;
            self.members.apply(self.end, self.end * 1_000, &key.encode(), value)
        }

        fn beat(&mut self, n: u8, beat: u64) -> ClusterApplied {
            self.put(ClusterKey::Node(incarnation(n)), Some(&Node { beat, ..Node::default() }.encode()))
        }

        fn beats(&mut self, nodes: std::ops::Range<u8>) {
            for n in nodes {
                self.beat(n, 1);
            }
        }

        fn leave(&mut self, n: u8) {
            self.put(ClusterKey::Node(incarnation(n)), Some(&Node { left: true, ..Node::default() }.encode()));
        }

        fn evict(&mut self, n: u8, who: u8) -> ClusterApplied {
            let key = ClusterKey::Eviction { node: incarnation(n), by: incarnation(who) };
            self.put(key, Some(&by(incarnation(who))))
        }

        fn fence(&mut self, n: u8, who: u8) -> ClusterApplied {
            self.put(ClusterKey::Fenced(incarnation(n)), Some(&by(incarnation(who))))
        }

        fn live(&self) -> Vec<Incarnation> {
            self.members.live().map(|(incarnation, _)| incarnation).collect()
        }

        fn to_fence(&self) -> Vec<(Incarnation, Option<Incarnation>)> {
            self.members.to_fence().collect()
        }
    }

    #[test]
    fn a_node_lives_until_it_leaves_or_is_evicted() {
        let mut log = Log::default();
        let first = ClusterApplied::Beat { incarnation: incarnation(1), beat: 1, is_new: true, left: false };
        assert_eq!(log.beat(1, 1), first);
        let _ = (log.beat(2, 1), log.beat(3, 1));
        let again = ClusterApplied::Beat { incarnation: incarnation(1), beat: 2, is_new: false, left: false };
        assert_eq!(log.beat(1, 2), again);
        assert_eq!(log.live(), [1, 2, 3].map(incarnation));
        log.leave(2);
        log.evict(3, 1);
        assert_eq!(log.live(), [incarnation(1)]);
        log.beat(3, 2);
        assert_eq!(log.live(), [incarnation(1)], "who was evicted does not come back");
        assert!(log.members.is_fenced(incarnation(2)) && !log.members.is_fenced(incarnation(3)));
        log.fence(3, 1);
        assert!(log.members.is_fenced(incarnation(3)));
    }

    #[test]
    fn the_first_who_evicts_is_to_fence_and_the_next_if_it_dies() {
        let mut log = Log::default();
        log.beats(1..5);
        let evicted = |by, is_first| ClusterApplied::Evicted { incarnation: incarnation(4), by, is_first };
        assert_eq!(log.evict(4, 2), evicted(incarnation(2), true));
        assert_eq!(log.evict(4, 1), evicted(incarnation(1), false));
        assert_eq!(log.to_fence(), [(incarnation(4), Some(incarnation(2)))]);
        log.evict(2, 1);
        let by_1 = Some(incarnation(1));
        assert_eq!(log.to_fence(), [(incarnation(2), by_1), (incarnation(4), by_1)]);
        log.leave(1);
        assert_eq!(log.to_fence(), [(incarnation(2), None), (incarnation(4), None)]);
        let overdue = log.members.overdue(incarnation(3), Patience::default());
        assert_eq!(overdue, [2, 4].map(incarnation), "somebody has to say it again");
        let _ = (log.evict(2, 3), log.evict(4, 3), log.fence(2, 3));
        assert_eq!(log.to_fence(), [(incarnation(4), Some(incarnation(3)))]);
    }

    #[test]
    fn a_node_is_overdue_after_enough_rounds_and_enough_log_time() {
        let overdue = |rounds: u64, every_ms: i64| {
            let mut members = Members::default();
            let node = |n| ClusterKey::Node(incarnation(n)).encode();
            members.apply(0, 0, &node(1), Some(&Node::default().encode()));
            members.apply(1, 0, &node(2), Some(&Node::default().encode()));
            for (beat, round) in (1..=rounds).zip(1_i64..) {
                members.apply(1 + round, round * every_ms, &node(1), Some(&Node { beat, ..Node::default() }.encode()));
            }
            members.overdue(incarnation(1), Patience::default())
        };
        assert_eq!(overdue(5, 2_000), [incarnation(2)]);
        assert_eq!(overdue(4, 5_000), [], "too few rounds: perhaps it is the observer who is late");
        assert_eq!(overdue(9, 1_000), [], "too short a time");
        assert_eq!(overdue(40, 1_000), [incarnation(2)]);
    }

    #[test]
    fn nobody_finds_itself_overdue_or_is_heard_without_a_heartbeat() {
        let mut log = Log::default();
        (0..40).for_each(|_| log.beats(1..2));
        assert_eq!(log.members.overdue(incarnation(1), Patience::default()), []);
        assert_eq!(log.members.overdue(incarnation(2), Patience::default()), []);
    }

    #[test]
    fn now_is_the_highest_append_time() {
        let mut members = Members::default();
        let key = ClusterKey::Fingerprint.encode();
        for (append_ms, now) in [(5, 5), (9, 9), (7, 9)] {
            members.apply(0, append_ms, &key, None);
            assert_eq!(members.log_now_ms(), now);
        }
    }

    #[test]
    fn keepers_share_the_partitions_and_a_death_moves_only_those_of_the_dead() {
        let mut log = Log::default();
        assert_eq!(log.members.keeper_of(0), None);
        log.beats(1..5);
        let keepers = |log: &Log| -> Vec<_> { (0..256).map(|n| log.members.keeper_of(n).unwrap()).collect() };
        let before = keepers(&log);
        for n in 1..5 {
            let share = before.iter().filter(|keeper| **keeper == incarnation(n)).count();
            assert!((32..128).contains(&share), "{n} keeps {share} of 256");
        }
        log.evict(3, 1);
        for (old, new) in before.iter().zip(keepers(&log)) {
            assert!(*old == new || *old == incarnation(3));
        }
    }

    #[test]
    fn what_cannot_be_changed_is_known_to_all() {
        let mut log = Log::default();
        let fingerprint = Fingerprint { sessions_partitions: 48, retained_partitions: 16 };
        let applied = log.put(ClusterKey::Fingerprint, Some(&fingerprint.encode()));
        assert_eq!(applied, ClusterApplied::Fingerprint(fingerprint));
        assert_eq!(log.members.fingerprint(), Some(fingerprint));
        let topic = |name: &str| KafkaTopic { number: 7, name: name.into(), partitions: 1 };
        log.put(ClusterKey::KafkaTopic(1), Some(&topic("one").encode()));
        assert_eq!(log.members.kafka_topic(1), Some(&topic("one")));
        assert_eq!(log.members.number_taken(7, 1), None);
        assert_eq!(log.members.number_taken(7, 2), Some(&topic("one")));
    }

    #[test]
    fn what_no_session_names_is_removed_the_fence_last() {
        let mut log = Log::default();
        let _ = (log.beat(1, 1), log.beat(2, 1), log.evict(2, 1), log.fence(2, 1), log.beat(3, 1), log.leave(3));
        assert_eq!(log.members.litter(&|_| true), Vec::<Vec<u8>>::new());
        let keys = [
            ClusterKey::Node(incarnation(2)),
            ClusterKey::Eviction { node: incarnation(2), by: incarnation(1) },
            ClusterKey::Fenced(incarnation(2)),
            ClusterKey::Node(incarnation(3)),
        ];
        assert_eq!(log.members.litter(&|_| false), keys.map(ClusterKey::encode));
        for key in keys {
            assert_eq!(log.put(key, None), ClusterApplied::Gone(key));
        }
        assert_eq!(log.members.litter(&|_| false), Vec::<Vec<u8>>::new());
        assert_eq!(log.live(), [incarnation(1)]);
    }

    proptest! {
        #[test]
        fn the_compacted_log_answers_as_the_whole(steps in proptest::collection::vec((0..5_u8, 0..4_u8, 0..4_u8), 0..40)) {
            let records: Vec<_> = steps.iter().map(|(what, n, who)| {
                let node = incarnation(*n);
                match what {
                    0 => (ClusterKey::Node(node), Some(Node { beat: 1, ..Node::default() }.encode())),
                    1 => (ClusterKey::Node(node), Some(Node { left: true, ..Node::default() }.encode())),
                    2 => (ClusterKey::Eviction { node, by: incarnation(*who) }, Some(by(incarnation(*who)))),
                    3 => (ClusterKey::Fenced(node), Some(by(incarnation(*who)))),
                    _ => (ClusterKey::Node(node), if *who == 0 { Some(vec![0xff]) } else { None }),
                }
            }).collect();
            let last: BTreeMap<_, _> = records.iter().enumerate().map(|(at, (key, _))| (*key, at)).collect();
            let replay = |whole: bool| {
                let mut members = Members::default();
                for (at, (key, value)) in records.iter().enumerate().filter(|(at, (key, _))| whole || last[key] == *at) {
                    members.apply(i64::try_from(at).unwrap(), 0, &key.encode(), value.as_deref());
                }
                let nodes: Vec<_> = (0..4).map(|n| {
                    let (node, keeper) = (incarnation(n), members.keeper_of(n.into()));
                    let member = members.member(node).map(|member| (member.node.clone(), member.append_ms));
                    (member, members.is_evicted(node), members.is_fenced(node), keeper)
                }).collect();
                (nodes, members.to_fence().collect::<Vec<_>>(), members.litter(&|_| false))
            };
            prop_assert_eq!(replay(true), replay(false));
        }
    }
}
