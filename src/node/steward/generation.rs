//! Which generation of `mqtt.sessions` this node reads (F1), and how one gets its number (`ledger::generations`).
//!
//! **Fence, then ask.** A new kafka topic knows of no fence (F9). Nobody reads it before it has a generation, so whoever
//! asks for one first fences every node in it that is known to have ended: none of them adds to what others read, not even
//! a claim that would end a client's connection. `mqtt.cluster` was read up to an end that was asked for when the kafka topic
//! was already there; a node that is evicted behind that end is fenced in it as always.

use std::mem;

use super::core::{Core, Standing, Why};
use super::effect::{Effect, Log};
use crate::journal::Outcome;
use crate::ledger::claim::Event;
use crate::ledger::ids::{Epoch, Nonce};
use crate::ledger::record::cluster::{ClusterKey, Generation};
use crate::ledger::record::{self, ClientKey, LastWord, Slot};
use crate::ledger::sessions::{ClaimInfo, Sessions};

/// The life of `mqtt.sessions`.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Topic id and generation of what is read, or was read last.
    current: Option<(u128, u32)>,
    seeking: Seeking,
    /// Claims of this node that are found in the replay may be of the generation before.
    is_new: bool,
}

/// How a topic id gets its generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seeking {
    #[default]
    Idle,
    /// Nodes that ended are being fenced in it.
    Fencing { topic_id: u128 },
    /// They are.
    Fenced { topic_id: u128 },
    /// The record with this name was appended, and waits to be read back.
    Asked { topic_id: u128, name: Nonce },
}

impl Core {
    /// The generation of `mqtt.sessions` that is read, or was read last (F1).
    pub(super) fn generation(&self) -> u32 {
        self.life.current.map_or(0, |(_, generation)| generation)
    }

    /// The generation of the kafka topic with this id. While there is none, what is needed for one is done. To be called
    /// when `mqtt.cluster` was read to its end, and again whenever something may have changed.
    pub(super) fn seek_generation(&mut self, topic_id: u128) -> Option<u32> {
        if let Some(generation) = self.members.generations().of(topic_id) {
            self.life.seeking = Seeking::Idle;
            return Some(generation);
        }
        match self.life.seeking {
            Seeking::Fencing { topic_id: of } | Seeking::Asked { topic_id: of, .. } if of == topic_id => {}
            Seeking::Fenced { topic_id: of } if of == topic_id => self.ask_for_generation(topic_id),
            Seeking::Idle | Seeking::Fencing { .. } | Seeking::Fenced { .. } | Seeking::Asked { .. } => {
                let producer_ids = self.members.gone_producers();
                if producer_ids.is_empty() {
                    self.ask_for_generation(topic_id);
                } else {
                    self.life.seeking = Seeking::Fencing { topic_id };
                    self.effects.push(Effect::FenceAnew { topic_id, producer_ids });
                }
            }
        }
        None
    }

    pub(super) fn on_fenced_anew(&mut self, topic_id: u128) {
        if self.life.seeking == (Seeking::Fencing { topic_id }) {
            self.life.seeking = Seeking::Fenced { topic_id };
        }
    }

    fn ask_for_generation(&mut self, topic_id: u128) {
        let next = self.members.generations().next();
        let number = match self.life.current {
            // It is `mqtt.cluster` that is new.
            Some((of, generation)) if of == topic_id => next.max(generation),
            Some((_, generation)) => next.max(generation.saturating_add(1)),
            None => next,
        };
        let name = self.random_nonce();
        self.life.seeking = Seeking::Asked { topic_id, name };
        let key = ClusterKey::Generation { topic_id, name }.encode();
        self.append(Why::Generation(name), Log::Cluster, 0, key, Some(Generation { number }.encode()));
    }

    /// It may be in the log or not; the next record has another name.
    pub(super) fn on_generation_outcome(&mut self, name: Nonce, outcome: Outcome) {
        match outcome {
            Outcome::Written(_) => {}
            Outcome::Refused(_) | Outcome::Unknown => self.on_generation_asked(name),
        }
    }

    /// A record that asks for a generation was read. If it was ours and is void, it has to be asked for again.
    pub(super) fn on_generation_asked(&mut self, name: Nonce) {
        if let Seeking::Asked { topic_id, name: own } = self.life.seeking
            && own == name
        {
            self.life.seeking = Seeking::Fenced { topic_id };
        }
    }

    /// From here on this kafka topic is read, which has so many partitions.
    pub(super) fn begin_generation(&mut self, topic_id: u128, generation: u32, partitions: u32) {
        let before = self.life.current.replace((topic_id, generation));
        let rules = self.rules;
        self.ledgers = (0..partitions).map(|_| Sessions::new(generation, rules)).collect();
        if before.is_some_and(|(before, _)| before != topic_id) {
            tracing::warn!(generation, "mqtt.sessions was made again: all sessions begin anew");
            self.life.is_new = true;
            self.give_up_generation();
        }
    }

    /// A claim of this node that it knows nothing of any more: a copy that was late, and landed because a new kafka topic does
    /// not know what it has seen before. Nothing of its nonce is on its way.
    pub(super) fn disown(&mut self, partition: u32, client: &ClientKey, nonce: Nonce) {
        let Some(ledger) = self.ledgers.get(partition as usize) else { return };
        let is_it = |claim: &ClaimInfo| claim.nonce == nonce && claim.incarnation == self.identity.incarnation;
        let is_open = ledger.claims(client).iter().any(|claim| is_it(claim) && !claim.is_final);
        // During a replay its last word may follow.
        if is_open && !matches!(self.standing, Standing::Replaying | Standing::Over) {
            let key = record::key(client, nonce, Slot::Final);
            self.append_unwatched(Log::Sessions, partition, key, Some(record::last(&LastWord::default())));
        }
    }

    /// The same, once a new kafka topic was read for the first time.
    pub(super) fn disown_what_landed(&mut self) {
        if !mem::take(&mut self.life.is_new) {
            return;
        }
        let mut landed = Vec::new();
        for (partition, ledger) in (0..).zip(&self.ledgers) {
            for client in ledger.clients() {
                let claims =
                    ledger.claims(client).into_iter().filter(|claim| !self.by_nonce.contains_key(&claim.nonce));
                landed.extend(claims.map(|claim| (partition, client.clone(), claim.nonce)));
            }
        }
        for (partition, client, nonce) in landed {
            self.disown(partition, &client, nonce);
        }
    }

    /// Nothing of the sessions of the kafka topic before will ever be read back. Claims of theirs may have landed here: their
    /// nonces say their last words, all the same.
    fn give_up_generation(&mut self) {
        self.doubts.forget_states();
        for owned in self.owned.values_mut() {
            owned.claim.handle(Event::ForeignClaim { counted: true });
            owned.given_up = true;
            owned.has_set = false;
            owned.said_last = false;
            owned.awaited.clear();
            owned.epoch.get_or_insert(Epoch::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::core::{Identity, Limits};
    use super::super::effect::Input;
    use super::super::routes::Routes;
    use super::*;
    use crate::journal::memory::{FaultPlan, MemoryJournal, SharedLog};
    use crate::journal::{AckGroup, AckSink, Offset};
    use crate::ledger::ids::Incarnation;
    use crate::ledger::record::cluster::{Node, by};
    use crate::ledger::rules::Rules;
    use crate::route::mapping::Mapping;

    const OLD: u128 = 1;
    const NEW: u128 = 2;
    const OTHER: u128 = 3;

    struct Deaf;

    impl AckSink for Deaf {
        fn on_acks(&self, _: &AckGroup<'_>) {}
        fn flush(&self) {}
    }

    /// A core that reads a `mqtt.cluster` written by hand.
    struct Stage {
        core: Core,
        end: i64,
    }

    /// What was appended to ask for a generation.
    #[derive(Clone, PartialEq, Eq, Debug)]
    struct Ask {
        sequence: u64,
        key: Vec<u8>,
        value: Vec<u8>,
    }

    impl Stage {
        fn new() -> Self {
            let log = SharedLog::new(FaultPlan::default(), crate::journal::memory::Limits::default());
            let routes = Routes {
                journal: Arc::new(MemoryJournal::open(&log, vec!["m".to_owned()], Arc::new(Deaf))),
                mapping: Arc::new(Mapping::new(&[], "m").unwrap()),
                token_tick: Arc::default(),
            };
            let identity = Identity {
                incarnation: Incarnation([1; 16]),
                node_id: "one".to_owned(),
                producer_id: 1_001,
                started_ms: 0,
            };
            Self { core: Core::new(identity, Limits::default(), Rules::ALL, routes, 7), end: 0 }
        }

        fn read(&mut self, key: &[u8], value: &[u8]) {
            self.end += 1;
            let (offset, append_ms) = (self.end, self.end);
            let record = Input::Record { log: Log::Cluster, partition: 0, offset, append_ms, key, value: Some(value) };
            self.core.handle(record);
        }

        /// Another node's record.
        fn read_of_another(&mut self, topic_id: u128, number: u32) {
            self.end += 1;
            let name = Nonce([u8::try_from(self.end).unwrap(); 16]);
            self.read(&ClusterKey::Generation { topic_id, name }.encode(), &Generation { number }.encode());
        }

        fn read_own(&mut self, ask: &Ask) {
            self.core.handle(Input::Outcome { sequence: ask.sequence, outcome: Outcome::Written(Offset(self.end)) });
            self.read(&ask.key, &ask.value);
        }

        /// A node that was evicted.
        fn read_of_dead(&mut self, producer_id: i64) {
            let (dead, who) = (Incarnation([9; 16]), Incarnation([8; 16]));
            self.read(&ClusterKey::Node(dead).encode(), &Node { producer_id, ..Node::default() }.encode());
            self.read(&ClusterKey::Eviction { node: dead, by: who }.encode(), &by(who));
        }

        /// What the node asked for since the last look: with which number.
        fn asked(&mut self) -> Vec<(Ask, u32)> {
            let asked = |effect| {
                let Effect::Append { sequence, log: Log::Cluster, partition: 0, key, value } = effect else {
                    return None;
                };
                let value = value?;
                let number = Generation::decode(&value)?.number;
                Some((Ask { sequence, key, value }, number))
            };
            self.core.take_effects().into_iter().filter_map(asked).collect()
        }

        /// Seeks a generation and expects that it has to be asked for.
        fn ask(&mut self, topic_id: u128, number: u32) -> Ask {
            assert_eq!(self.core.seek_generation(topic_id), None);
            let [(ask, asked)] = &self.asked()[..] else { panic!("one record") };
            assert_eq!(*asked, number);
            assert_eq!((self.core.seek_generation(topic_id), self.asked()), (None, Vec::new()), "once is enough");
            ask.clone()
        }
    }

    #[tokio::test]
    async fn a_generation_is_used_once_its_record_was_read_back() {
        let mut stage = Stage::new();
        let ask = stage.ask(OLD, 0);
        stage.read_own(&ask);
        assert_eq!(stage.core.seek_generation(OLD), Some(0));
        let ask = stage.ask(NEW, 1);
        stage.read_of_another(NEW, 1);
        stage.read_own(&ask);
        assert_eq!((stage.core.seek_generation(NEW), stage.asked()), (Some(1), Vec::new()));
    }

    #[tokio::test]
    async fn who_came_too_late_asks_again_with_the_next_number() {
        let mut stage = Stage::new();
        let ask = stage.ask(NEW, 0);
        stage.read_of_another(OLD, 0);
        assert_eq!((stage.core.seek_generation(NEW), stage.asked()), (None, Vec::new()), "it may yet count");
        stage.read_own(&ask);
        let ask = stage.ask(NEW, 1);
        stage.read_own(&ask);
        assert_eq!(stage.core.seek_generation(NEW), Some(1));
    }

    #[tokio::test]
    async fn a_record_of_unknown_fate_is_followed_by_one_of_another_name() {
        let mut stage = Stage::new();
        let first = stage.ask(NEW, 0);
        stage.core.handle(Input::Outcome { sequence: first.sequence, outcome: Outcome::Unknown });
        let second = stage.ask(NEW, 0);
        assert_ne!(first.key, second.key);
        stage.read_own(&first);
        stage.read_of_another(OTHER, 1);
        stage.read_own(&second);
        assert_eq!(stage.core.seek_generation(NEW), Some(0));
    }

    #[tokio::test]
    async fn nodes_that_ended_are_fenced_before_a_new_kafka_topic_has_a_generation() {
        let mut stage = Stage::new();
        stage.read_of_dead(1_009);
        assert_eq!(stage.core.seek_generation(NEW), None);
        let effects = stage.core.take_effects();
        let [Effect::FenceAnew { topic_id: NEW, producer_ids }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(producer_ids, &[1_009]);
        assert_eq!((stage.core.seek_generation(NEW), stage.asked()), (None, Vec::new()), "they are not yet");
        stage.core.handle(Input::FencedAnew { topic_id: OLD });
        assert_eq!((stage.core.seek_generation(NEW), stage.asked()), (None, Vec::new()), "of another kafka topic");
        stage.core.handle(Input::FencedAnew { topic_id: NEW });
        stage.ask(NEW, 0);
    }

    #[tokio::test]
    async fn a_kafka_topic_keeps_its_generation_when_the_cluster_forgot_it() {
        let mut stage = Stage::new();
        stage.core.begin_generation(OLD, 4, 1);
        stage.ask(OLD, 4);
        stage.ask(NEW, 5);
        stage.core.begin_generation(NEW, 5, 3);
        assert_eq!((stage.core.generation(), stage.core.ledgers.len()), (5, 3));
    }
}
