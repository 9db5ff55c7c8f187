//! The ledger of one partition of `mqtt.sessions`.
//!
//! It holds the last record of each key, values as they are in Kafka, and answers who owns what, what a claim inherits,
//! which sessions need a keeper and which keys may go. Every answer is made of these records alone, so a node that read
//! the compacted log answers as one that was there.
//!
//! A ledger has a generation (F1, [`super::generations`]), and a set counts if it has the same. One of an earlier generation
//! was written for a kafka topic that is gone and landed here because Kafka is told names; its offset says nothing. What
//! carries no generation needs none:
//!
//! * **H, K**: the epoch of a claim is where it is *here*. A late H costs its client a connection and no state; a late K is
//!   void, because what it expects is not here.
//! * **A part** counts beside a set of its nonce. No nonce that wrote for another life has a set that counts: a node gives
//!   all of them up before it reads this one.
//! * **F** says that nothing of its nonce is on its way, which stays true.
//! * **W** speaks of offsets of messages, which did not change, and counts for sets of its own node. Of one node they land in
//!   their order, and an older one is only more careful.

mod answers;
mod client;
mod litter;
mod table;

use std::collections::{BTreeMap, BTreeSet};

pub use answers::{Absent, ClaimInfo, Inherited, Owner};

use self::client::{Content, Wait, Watch};
use self::table::{Number, Table};
use super::ids::{Epoch, Incarnation, Nonce};
use super::record::{self, ClientKey, Ignored, Key, PartKind, Slot, Watermark};
use super::rules::Rules;

/// What a record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// H or K: somebody claims the session.
    Claimed {
        /// Whose session.
        client: ClientKey,
        /// The claim.
        nonce: Nonce,
        /// Of a connection or of a keeper.
        kind: ClaimKind,
        /// The nonce owns the session now; `false` only for a keeper's claim that is void (K1).
        counted: bool,
        /// The claim was there already: the same record landed twice.
        repeated: bool,
    },
    /// S, part *set*.
    Set {
        /// Whose session.
        client: ClientKey,
        /// Who wrote it.
        nonce: Nonce,
        /// The nonce's version of its state.
        version: u32,
    },
    /// S, another part.
    Part {
        /// Whose session.
        client: ClientKey,
        /// Who wrote it.
        nonce: Nonce,
        /// Which part.
        part: PartKind,
        /// The nonce's version of its state.
        version: u32,
    },
    /// F: the nonce has nothing in flight and never will.
    Final {
        /// Whose session.
        client: ClientKey,
        /// The nonce.
        nonce: Nonce,
    },
    /// W.
    Watermark {
        /// Whose.
        incarnation: Incarnation,
    },
    /// A tombstone.
    Gone {
        /// Whose session.
        client: ClientKey,
        /// Of which claim.
        nonce: Nonce,
        /// Which record.
        what: Slot,
    },
    /// The tombstone of a W.
    WatermarkGone {
        /// Whose.
        incarnation: Incarnation,
    },
    /// A record that means nothing to this version.
    Ignored(Ignored),
}

/// Who claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimKind {
    /// H: a connection; counts always.
    Connection,
    /// K: a keeper for an absent client; counts only after the claim that it expects.
    Keeper,
}

/// The ledger of one partition.
#[derive(Debug, Default)]
pub struct Sessions {
    generation: u32,
    rules: Rules,
    clients: Table,
    watermarks: BTreeMap<Incarnation, Watermark>,
    /// Sessions without a connection, by the log time at which something is to be done about them.
    due: BTreeSet<(i64, Number)>,
    /// The others that have an owner, by its node and in the order in which they need a keeper once it is gone.
    held: BTreeMap<Incarnation, BTreeSet<(Wait, Number)>>,
    /// Sessions with records that somebody may have to remove.
    ended: BTreeSet<Number>,
    /// How many records refer to a node's watermark.
    referred: BTreeMap<Incarnation, u32>,
}

impl Sessions {
    /// An empty ledger. `generation` is that of the kafka topic that is read (F1); `rules` is [`Rules::ALL`] outside simulations.
    pub fn new(generation: u32, rules: Rules) -> Self {
        Self { generation, rules, ..Self::default() }
    }

    /// Clients choose their ids: a seed that they do not know keeps them from choosing ids that slow the ledger down.
    /// Answers do not depend on it.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { clients: Table::with_seed(seed), ..self }
    }

    /// Takes the record at `offset`, which Kafka appended at `append_ms`. Records come in the order of their offsets.
    pub fn apply(&mut self, offset: i64, append_ms: i64, key: &[u8], value: Option<&[u8]>) -> Applied {
        match record::parse(key) {
            Ok(Key::Watermark(incarnation)) => self.apply_watermark(incarnation, value),
            Ok(Key::Of { subject, nonce, slot }) => {
                let content = value.map(|value| Content::decode(slot, value, self.generation));
                self.apply_to_client(subject, nonce, slot, content, At { offset, append_ms })
            }
            Err(why) => Applied::Ignored(why),
        }
    }

    fn apply_watermark(&mut self, incarnation: Incarnation, value: Option<&[u8]>) -> Applied {
        let Some(value) = value else {
            self.watermarks.remove(&incarnation);
            return Applied::WatermarkGone { incarnation };
        };
        if let Some(watermark) = record::decode_watermark(value) {
            self.watermarks.insert(incarnation, watermark);
            Applied::Watermark { incarnation }
        } else {
            self.watermarks.remove(&incarnation);
            Applied::Ignored(Ignored::Value)
        }
    }

    /// `content`: `None` for a tombstone, `Some(None)` for a value that means nothing.
    #[expect(clippy::option_option, reason = "three cases, used here only")]
    fn apply_to_client(
        &mut self,
        subject: &[u8],
        nonce: Nonce,
        slot: Slot,
        content: Option<Option<Content>>,
        at: At,
    ) -> Applied {
        let known = self.clients.find(subject);
        if known.is_none() && content.as_ref().is_none_or(Option::is_none) {
            return without(ClientKey::from_encoded(subject), nonce, slot, content.is_some());
        }
        let number = known.or_else(|| self.clients.insert(ClientKey::from_encoded(subject)));
        let Some((number, (key, client))) = number.and_then(|number| Some((number, self.clients.at_mut(number)?)))
        else {
            return Applied::Ignored(Ignored::Key);
        };
        let (before, referred) = (client.watch(self.rules), client.references(nonce));
        let has_value = content.is_some();
        let applied = if let Some(content) = content.flatten() {
            client.put(key, nonce, content, at, self.rules)
        } else {
            client.remove(nonce, slot);
            without(key.clone(), nonce, slot, has_value)
        };
        let (after, refers) = (client.watch(self.rules), client.references(nonce));
        if client.is_empty() {
            self.clients.remove(number);
        }
        self.watch(number, before, after);
        if referred != refers {
            refers.into_iter().for_each(|incarnation| *self.referred.entry(incarnation).or_default() += 1);
            referred.into_iter().for_each(|incarnation| uncount(&mut self.referred, incarnation));
        }
        applied
    }

    /// Moves a session from one index to another.
    fn watch(&mut self, client: Number, before: Watch, after: Watch) {
        if before == after {
            return;
        }
        if before.ended != after.ended {
            if after.ended {
                self.ended.insert(client);
            } else {
                self.ended.remove(&client);
            }
        }
        if let Some(due_ms) = before.due_ms {
            self.due.remove(&(due_ms, client));
        }
        if let Some(due_ms) = after.due_ms {
            self.due.insert((due_ms, client));
        }
        if before.held_by == after.held_by {
            return;
        }
        if let Some((incarnation, wait)) = before.held_by
            && let Some(held) = self.held.get_mut(&incarnation)
        {
            held.remove(&(wait, client));
            if held.is_empty() {
                self.held.remove(&incarnation);
            }
        }
        if let Some((incarnation, wait)) = after.held_by {
            self.held.entry(incarnation).or_default().insert((wait, client));
        }
    }

    /// The epoch of a nonce, if anything says it.
    pub fn epoch_of(&self, client: &ClientKey, nonce: Nonce) -> Option<Epoch> {
        self.clients.get(client)?.epoch_of(nonce, self.generation)
    }

    /// The last W of a node in this partition.
    pub fn watermark(&self, incarnation: Incarnation) -> Option<&Watermark> {
        self.watermarks.get(&incarnation)
    }

    /// Number of sessions that have any record.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether no session has a record.
    pub fn is_empty(&self) -> bool {
        self.clients.len() == 0
    }
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
struct At {
    offset: i64,
    append_ms: i64,
}

fn without(client: ClientKey, nonce: Nonce, what: Slot, has_value: bool) -> Applied {
    if has_value { Applied::Ignored(Ignored::Value) } else { Applied::Gone { client, nonce, what } }
}

fn uncount(referred: &mut BTreeMap<Incarnation, u32>, incarnation: Incarnation) {
    if let Some(count) = referred.get_mut(&incarnation) {
        *count -= 1;
        if *count == 0 {
            referred.remove(&incarnation);
        }
    }
}

#[cfg(test)]
mod tests;
