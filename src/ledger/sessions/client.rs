//! The records of one session.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::{Applied, At, ClaimKind};
use crate::ledger::ids::{Epoch, Incarnation, Nonce};
use crate::ledger::record::{self, ClientKey, Ignored, PartKind, Slot};
use crate::ledger::rules::{Rule, Rules};
use crate::ledger::state::{Inbound, Life, Part, SessionState};

/// The last record of each key of one session.
///
/// There are as many of these as there are sessions: vectors are kept exactly as long as they must be, and nothing is kept
/// of a value that no answer needs.
#[derive(Debug, Default)]
pub(super) struct Client {
    runs: Vec<Run>,
}

/// What is under the keys of one nonce.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) nonce: Nonce,
    pub(super) claim: Option<Claim>,
    pub(super) set: Option<Set>,
    pub(super) parts: Vec<PartRecord>,
    pub(super) last: Option<Box<[u8]>>,
    /// Under the key of the set is one of an earlier generation, which counts for nothing and is to be removed.
    pub(super) is_stray: bool,
}

/// H or K.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) incarnation: Incarnation,
    /// Of a keeper's.
    pub(super) expected: Option<Nonce>,
    /// Where it was seen first.
    pub(super) first: i64,
    /// Where it was seen last.
    pub(super) offset: i64,
}

/// S, part *set*: what is asked for often, and the value.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) epoch: Epoch,
    pub(super) incarnation: Incarnation,
    pub(super) version: u32,
    pub(super) offset: i64,
    pub(super) append_ms: i64,
    pub(super) life: Life,
    pub(super) expiry_s: u32,
    /// Of the will of its connection.
    pub(super) will_delay_s: Option<u32>,
    has_due: bool,
    has_unresolved: bool,
    pub(super) value: Box<[u8]>,
}

/// S, another part.
#[derive(Debug)]
pub(super) struct PartRecord {
    pub(super) kind: PartKind,
    pub(super) version: u32,
    pub(super) append_ms: i64,
    has_unresolved: bool,
    has_due: bool,
    pub(super) value: Box<[u8]>,
}

/// A record's value, read.
pub(super) enum Content {
    Claim(record::ClaimRecord),
    Set(Set),
    /// A set of an earlier generation: it was on its way when `mqtt.sessions` was made again.
    Stray,
    Part(PartRecord),
    Last(Box<[u8]>),
}

/// Which indices a session is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watch {
    /// Without a connection: when something is to be done about it.
    pub(super) due_ms: Option<i64>,
    /// Otherwise: who owns it.
    pub(super) held_by: Option<(Incarnation, Wait)>,
    /// It may have records to remove.
    pub(super) ended: bool,
}

/// How long a node must be gone before something is to be done about a session that it held: seconds and one more; 0 if
/// its set does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wait(u32);

impl Wait {
    /// Of those whose set says something, the least.
    pub(super) const SAID: Self = Self(1);

    const fn seconds(seconds: u32) -> Self {
        Self(seconds.saturating_add(1))
    }

    /// `gone_ms`: since when the node is gone, log time.
    pub(super) const fn is_over(self, gone_ms: i64, log_ms: i64) -> bool {
        let seconds = self.0.saturating_sub(1) as i64;
        self.0 < u32::MAX && gone_ms.saturating_add(seconds * 1_000) <= log_ms
    }
}

impl Content {
    /// `None`: the value means nothing in this generation.
    pub(super) fn decode(slot: Slot, value: &[u8], generation: u32) -> Option<Self> {
        Some(match slot {
            Slot::Claim => Self::Claim(record::decode_claim(value)?),
            Slot::KeeperClaim => Self::Claim(record::decode_keeper_claim(value)?),
            Slot::Set => {
                let set = record::decode_set(value)?;
                match set.epoch.generation.cmp(&generation) {
                    Ordering::Less => return Some(Self::Stray),
                    // Whoever wrote it knows more than this node: not for it to touch.
                    Ordering::Greater => return None,
                    Ordering::Equal => {}
                }
                Self::Set(Set {
                    epoch: set.epoch,
                    incarnation: set.incarnation,
                    version: set.version,
                    offset: 0,
                    append_ms: 0,
                    life: set.state.life,
                    expiry_s: set.state.expiry_s,
                    will_delay_s: set.state.will.map(|will| will.delay_s),
                    has_due: !set.state.due.is_empty(),
                    has_unresolved: !set.state.inbound.unresolved.is_empty(),
                    value: value.into(),
                })
            }
            Slot::Part(kind) => {
                let (version, part) = record::decode_part(kind, value)?;
                let has_unresolved = matches!(&part, Part::Inbound(inbound) if !inbound.unresolved.is_empty());
                let has_due = matches!(&part, Part::Due(due) if !due.is_empty());
                Self::Part(PartRecord { kind, version, append_ms: 0, has_unresolved, has_due, value: value.into() })
            }
            Slot::Final => {
                record::decode_last(value)?;
                Self::Last(value.into())
            }
        })
    }
}

impl Client {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(super) fn run(&self, nonce: Nonce) -> Option<&Run> {
        self.runs.iter().find(|run| run.nonce == nonce)
    }

    /// The only way in.
    pub(super) fn put(&mut self, key: &ClientKey, nonce: Nonce, content: Content, at: At, rules: Rules) -> Applied {
        let client = key.clone();
        let index = self.runs.iter().position(|run| run.nonce == nonce).unwrap_or_else(|| {
            self.runs.reserve_exact(1);
            self.runs.push(Run { nonce, claim: None, set: None, parts: Vec::new(), last: None, is_stray: false });
            self.runs.len() - 1
        });
        let Some(run) = self.runs.get_mut(index) else { return Applied::Final { client, nonce } };
        match content {
            Content::Claim(claim) => {
                let repeated = run.claim.is_some();
                let first = run.claim.as_ref().map_or(at.offset, |claim| claim.first);
                let (incarnation, expected) = (claim.incarnation, claim.expected);
                run.claim = Some(Claim { incarnation, expected, first, offset: at.offset });
                let kind = if expected.is_some() { ClaimKind::Keeper } else { ClaimKind::Connection };
                let counted = self.owner(rules).is_some_and(|owner| owner.nonce == nonce);
                Applied::Claimed { client, nonce, kind, counted, repeated }
            }
            Content::Set(set) => {
                let version = set.version;
                run.set = Some(Set { offset: at.offset, append_ms: at.append_ms, ..set });
                run.is_stray = false;
                run.drop_old_values();
                Applied::Set { client, nonce, version }
            }
            Content::Stray => {
                run.set = None;
                run.is_stray = true;
                Applied::Ignored(Ignored::Generation)
            }
            Content::Part(part) => {
                let (kind, version) = (part.kind, part.version);
                let part = PartRecord { append_ms: at.append_ms, ..part };
                if let Some(other) = run.parts.iter_mut().find(|other| other.kind == kind) {
                    *other = part;
                } else {
                    run.parts.reserve_exact(1);
                    run.parts.push(part);
                }
                run.drop_old_values();
                Applied::Part { client, nonce, part: kind, version }
            }
            Content::Last(value) => {
                run.last = Some(value);
                Applied::Final { client, nonce }
            }
        }
    }

    /// A tombstone.
    pub(super) fn remove(&mut self, nonce: Nonce, slot: Slot) {
        let Some(index) = self.runs.iter().position(|run| run.nonce == nonce) else { return };
        let Some(run) = self.runs.get_mut(index) else { return };
        match slot {
            Slot::Claim if run.claim.as_ref().is_some_and(|claim| claim.expected.is_none()) => run.claim = None,
            Slot::KeeperClaim if run.claim.as_ref().is_some_and(|claim| claim.expected.is_some()) => run.claim = None,
            Slot::Claim | Slot::KeeperClaim => {}
            Slot::Set => {
                run.set = None;
                run.is_stray = false;
            }
            Slot::Part(kind) => run.parts.retain(|part| part.kind != kind),
            Slot::Final => run.last = None,
        }
        if run.is_left_over() && !run.is_stray && run.parts.is_empty() && run.last.is_none() {
            self.runs.remove(index);
            self.runs.shrink_to_fit();
        }
    }

    /// F1, K1: the last claim that counts. Before the last H nothing matters; of the keepers' claims behind it each
    /// counts if it expects the last that counted.
    pub(super) fn owner(&self, rules: Rules) -> Option<&Run> {
        let connections = self.claims().filter(|(_, claim)| claim.expected.is_none());
        let mut owner = if rules.holds(Rule::F1) {
            connections.max_by_key(|(_, claim)| claim.offset)
        } else {
            connections.min_by_key(|(_, claim)| claim.offset)
        };
        let mut at = owner.map_or(i64::MIN, |(_, claim)| claim.offset);
        let after = |at| {
            let later = self.claims().filter(move |(_, claim)| claim.expected.is_some() && claim.offset > at);
            later.min_by_key(|(_, claim)| claim.offset)
        };
        while let Some((run, claim)) = after(at) {
            at = claim.offset;
            if !rules.holds(Rule::K1) || owner.is_some_and(|(owner, _)| claim.expected == Some(owner.nonce)) {
                owner = Some((run, claim));
            }
        }
        owner.map(|(run, _)| run)
    }

    /// Claims in the order of the log, each with whether it counts (K1).
    pub(super) fn history(&self, rules: Rules) -> Vec<(&Run, &Claim, bool)> {
        let mut claims: Vec<_> = self.claims().map(|(run, claim)| (run, claim, true)).collect();
        claims.sort_unstable_by_key(|(_, claim, _)| claim.offset);
        let mut owner = None;
        for (run, claim, counted) in &mut claims {
            *counted = claim.expected.is_none() || claim.expected == owner || !rules.holds(Rule::K1);
            if *counted {
                owner = Some(run.nonce);
            }
        }
        claims
    }

    /// F3: the set with the highest epoch.
    pub(super) fn highest(&self, rules: Rules) -> Option<(&Run, &Set)> {
        let sets = self.runs.iter().filter_map(|run| run.set.as_ref().map(|set| (run, set)));
        if rules.holds(Rule::F3) {
            sets.max_by_key(|(_, set)| (set.epoch, set.offset))
        } else {
            sets.max_by_key(|(_, set)| set.offset)
        }
    }

    pub(super) fn epoch_of(&self, nonce: Nonce, generation: u32) -> Option<Epoch> {
        self.run(nonce)?.epoch(generation)
    }

    fn claims(&self) -> impl Iterator<Item = (&Run, &Claim)> {
        self.runs.iter().filter_map(|run| run.claim.as_ref().map(|claim| (run, claim)))
    }

    pub(super) fn watch(&self, rules: Rules) -> Watch {
        let set = self.highest(rules);
        let is_over = set.is_some_and(|(run, set)| run.is_over(set));
        let owner = self.owner(rules).filter(|_| !is_over);
        let own_set = set.filter(|(run, _)| owner.is_some_and(|owner| owner.nonce == run.nonce));
        let absent = own_set.filter(|(_, set)| set.life != Life::Connected);
        let wait = || own_set.map(|(run, set)| run.wait(set)).unwrap_or_default();
        let held_by = || owner.and_then(|run| Some((run.claim.as_ref()?.incarnation, wait())));
        Watch {
            due_ms: absent.and_then(|(run, set)| run.due_ms(set)),
            held_by: if absent.is_some() { None } else { held_by() },
            ended: match set {
                Some(_) => is_over || self.runs.iter().any(Run::has_left_over),
                None => self.runs.iter().any(|run| run.last.is_some() || run.has_left_over()),
            },
        }
    }

    /// The nodes whose watermarks the records of a nonce need.
    pub(super) fn references(&self, nonce: Nonce) -> SmallVec<[Incarnation; 2]> {
        let mut found = SmallVec::new();
        let Some(run) = self.run(nonce) else { return found };
        let mut of = |inbound: Inbound| found.extend(inbound.unresolved.iter().map(|entry| entry.incarnation));
        if let Some(set) = &run.set {
            match run.younger(PartKind::Inbound, set) {
                Some(part) if part.has_unresolved => {
                    if let Some((_, Part::Inbound(inbound))) = record::decode_part(part.kind, &part.value) {
                        of(inbound);
                    }
                }
                None if set.has_unresolved => {
                    if let Some(record) = record::decode_set(&set.value) {
                        of(record.state.inbound);
                    }
                }
                Some(_) | None => {}
            }
        }
        if let Some(inbound) =
            run.last.as_ref().and_then(|last| record::decode_last(last)).and_then(|last| last.inbound)
        {
            of(inbound);
        }
        found.extend(run.set.as_ref().map(|set| set.incarnation));
        found
    }
}

impl Run {
    /// That of its set; without one, where its claim was seen first.
    pub(super) fn epoch(&self, generation: u32) -> Option<Epoch> {
        let claimed = || self.claim.as_ref().map(|claim| Epoch { generation, offset: claim.first });
        self.set.as_ref().map(|set| set.epoch).or_else(claimed)
    }

    /// Whether wills are due: the set says so, or a younger part does.
    pub(super) fn has_due(&self, set: &Set) -> bool {
        self.younger(PartKind::Due, set).map_or(set.has_due, |part| part.has_due)
    }

    /// The part, if it counts beside this set.
    fn younger(&self, kind: PartKind, set: &Set) -> Option<&PartRecord> {
        self.parts.iter().find(|part| part.kind == kind && part.version > set.version)
    }

    /// Versions only rise: a part that is older than the set never counts again. That it is there is remembered, because
    /// its key has to be removed one day.
    fn drop_old_values(&mut self) {
        let Some(set) = &self.set else { return };
        for part in self.parts.iter_mut().filter(|part| part.version <= set.version) {
            part.value = Box::default();
        }
    }

    /// It was deleted, and nothing is left to be done for it.
    pub(super) fn is_over(&self, set: &Set) -> bool {
        set.life == Life::Deleted && !self.has_due(set)
    }

    /// Without a connection: when its will or its end is due, in log time.
    fn due_ms(&self, set: &Set) -> Option<i64> {
        let since_ms = set.since_ms();
        if self.has_due(set) {
            return Some(since_ms);
        }
        let after = |seconds: u32| since_ms.saturating_add(i64::from(seconds) * 1_000);
        let expires = (set.expiry_s != u32::MAX && set.life != Life::Deleted).then(|| after(set.expiry_s));
        [expires, set.will_delay_s.map(after)].into_iter().flatten().min()
    }

    /// With a connection: how long its node must be gone before its will or its end is due.
    fn wait(&self, set: &Set) -> Wait {
        if self.has_due(set) {
            return Wait::SAID;
        }
        Wait::seconds(set.will_delay_s.map_or(set.expiry_s, |delay_s| delay_s.min(set.expiry_s)))
    }

    /// Neither claim nor set: what is left of it is of no use.
    pub(super) fn is_left_over(&self) -> bool {
        self.claim.is_none() && self.set.is_none()
    }

    /// Whether anything of it is of no use.
    fn has_left_over(&self) -> bool {
        self.is_left_over() || self.is_stray
    }

    /// The state: the set with the younger parts in it (F4), and when the last of these records was appended.
    pub(super) fn state(&self) -> Option<(SessionState, i64)> {
        let set = self.set.as_ref()?;
        let mut state = record::decode_set(&set.value)?.state;
        let mut append_ms = set.append_ms;
        let mut parts: Vec<_> = self.parts.iter().filter(|part| part.version > set.version).collect();
        parts.sort_unstable_by_key(|part| part.version);
        for part in parts {
            if let Some((_, value)) = record::decode_part(part.kind, &part.value) {
                state.set_part(value);
                append_ms = append_ms.max(part.append_ms);
            }
        }
        Some((state, append_ms))
    }
}

impl Set {
    /// Since when there is no connection, log time.
    pub(super) const fn since_ms(&self) -> i64 {
        match self.life {
            Life::Disconnected { since_ms } if since_ms != 0 => since_ms,
            Life::Connected | Life::Disconnected { .. } | Life::Deleted => self.append_ms,
        }
    }
}
