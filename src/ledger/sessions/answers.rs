//! What is asked about sessions.

use std::borrow::Borrow;

use super::client::{Claim, Client, Run};
use super::table::Number;
use super::{ClaimKind, Sessions};
use crate::ledger::ids::{Epoch, Incarnation, Nonce};
use crate::ledger::record::{self, ClientKey, LastWord, Watermark};
use crate::ledger::rules::{Rule, Rules};
use crate::ledger::state::{Life, Position, SessionState};

/// Who owns a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The claim.
    pub nonce: Nonce,
    /// Its epoch.
    pub epoch: Epoch,
    /// A connection's or a keeper's.
    pub kind: ClaimKind,
    /// Its node.
    pub incarnation: Incarnation,
}

/// A claim that has not been removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimInfo {
    /// The claim.
    pub nonce: Nonce,
    /// Its epoch.
    pub epoch: Epoch,
    /// A connection's or a keeper's.
    pub kind: ClaimKind,
    /// Its node.
    pub incarnation: Incarnation,
    /// `false`: a keeper's claim that is void (K1).
    pub counted: bool,
    /// F: it has nothing in flight and never will.
    pub is_final: bool,
}

/// What a claim takes over (F3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// Who wrote it.
    pub nonce: Nonce,
    /// That nonce's epoch.
    pub epoch: Epoch,
    /// That nonce's node.
    pub incarnation: Incarnation,
    /// Where the set is.
    pub set_offset: i64,
    /// When the last record of this state was appended, log time.
    pub append_ms: i64,
    /// Parts and watermark merged in.
    pub state: SessionState,
}

/// A session without a connection, or one whose node is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Whose session.
    pub client: ClientKey,
    /// Who owns it: what a keeper's claim expects.
    pub owner: Nonce,
    /// The owner's node.
    pub incarnation: Incarnation,
    /// What the set with the highest epoch says.
    pub life: Life,
    /// Seconds it outlives its connection; `u32::MAX`: for ever.
    pub expiry_s: u32,
    /// Will Delay Interval of the will of its last connection, if that is still to be published.
    pub will_delay_s: Option<u32>,
    /// Wills are due that may not be published yet.
    pub has_due: bool,
    /// Since when there is no connection, log time; while its node did not say so: when the set was appended.
    pub since_ms: i64,
    /// When its will or its end is due, log time; `None` while its node did not say that it is disconnected.
    pub due_ms: Option<i64>,
}

impl Sessions {
    /// The owner (F1, K1).
    pub fn owner(&self, client: &ClientKey) -> Option<Owner> {
        let run = self.clients.get(client)?.owner(self.rules)?;
        let claim = run.claim.as_ref()?;
        let (nonce, incarnation) = (run.nonce, claim.incarnation);
        Some(Owner { nonce, epoch: run.epoch(self.generation)?, kind: kind_of(claim.expected), incarnation })
    }

    /// The claims of a session, in the order of the log.
    pub fn claims(&self, client: &ClientKey) -> Vec<ClaimInfo> {
        let Some(records) = self.clients.get(client) else { return Vec::new() };
        let info = |(run, claim, counted): (&Run, &Claim, bool)| ClaimInfo {
            nonce: run.nonce,
            epoch: run.epoch(self.generation).unwrap_or_default(),
            kind: kind_of(claim.expected),
            incarnation: claim.incarnation,
            counted,
            is_final: run.last.is_some(),
        };
        records.history(self.rules).into_iter().map(info).collect()
    }

    /// F of a nonce, if it was written.
    pub fn last_word(&self, client: &ClientKey, nonce: Nonce) -> Option<LastWord> {
        let last = self.clients.get(client)?.run(nonce)?.last.as_ref()?;
        record::decode_last(last)
    }

    /// The claims below an epoch that are neither final nor of a fenced node: something of theirs may still land.
    pub fn open_below(&self, client: &ClientKey, below: Epoch, fenced: &dyn Fn(Incarnation) -> bool) -> Vec<ClaimInfo> {
        let Some(records) = self.clients.get(client) else { return Vec::new() };
        let mut open = self.claims(client);
        open.retain(|claim| {
            let is_open = !claim.is_final && !fenced(claim.incarnation);
            claim.epoch < below && is_open && (claim.counted || !is_void(records, claim.nonce, self.rules))
        });
        open
    }

    /// Whether there are such claims (F11, V4, Q2).
    pub fn lower_open(&self, client: &ClientKey, below: Epoch, fenced: &dyn Fn(Incarnation) -> bool) -> bool {
        !self.open_below(client, below, fenced).is_empty()
    }

    /// What a claim inherits as of now: to be asked when the own claim was applied and before anything else is (F2).
    /// A deleted session is inherited, too: its life says so.
    pub fn inherited(&self, client: &ClientKey) -> Option<Inherited> {
        let (run, set) = self.clients.get(client)?.highest(self.rules)?;
        let (mut state, append_ms) = run.state()?;
        if state.position.following {
            // W5: only the watermark of the node that wrote the position.
            let own = self.watermarks.get(&set.incarnation);
            let others = self.watermarks.values().filter(|_| !self.rules.holds(Rule::W5));
            own.into_iter().chain(others).for_each(|watermark| raise(&mut state.position, watermark));
        }
        Some(Inherited {
            nonce: run.nonce,
            epoch: set.epoch,
            incarnation: set.incarnation,
            set_offset: set.offset,
            append_ms,
            state,
        })
    }

    /// F8: whether the set with the highest epoch is a live one.
    pub fn session_exists(&self, client: &ClientKey) -> bool {
        let Some(records) = self.clients.get(client) else { return false };
        match records.highest(self.rules) {
            Some((_, set)) => set.life != Life::Deleted,
            None => !self.rules.holds(Rule::F8) && !records.is_empty(),
        }
    }

    /// Sessions that may need a keeper: those without a connection whose will or end is due by `log_ms`, earliest first,
    /// then those that belong to a node that is gone and has been for as long as their sets say. `gone`: since when it is,
    /// log time; `None`: it is not. Looks at no others, however many there are.
    pub fn absent(&self, log_ms: i64, gone: &dyn Fn(Incarnation) -> Option<i64>) -> impl Iterator<Item = Absent> {
        let left = self.held.iter().filter_map(|(incarnation, held)| Some((gone(*incarnation)?, held)));
        let left = left.flat_map(move |(gone_ms, held)| {
            held.iter().take_while(move |(wait, _)| wait.is_over(gone_ms, log_ms)).map(|(_, client)| *client)
        });
        self.due(log_ms).chain(left.filter_map(|client| self.absent_at(client)))
    }

    /// Sessions without a connection whose will or end is due by `log_ms`, earliest first.
    pub fn due(&self, log_ms: i64) -> impl Iterator<Item = Absent> {
        self.due
            .iter()
            .take_while(move |(due_ms, _)| *due_ms <= log_ms)
            .filter_map(|(_, client)| self.absent_at(*client))
    }

    /// Sessions that belong to a node and are not disconnected as far as the log knows.
    pub fn held_by(&self, incarnation: Incarnation) -> impl Iterator<Item = Absent> {
        self.held.get(&incarnation).into_iter().flatten().filter_map(|(_, client)| self.absent_at(*client))
    }

    /// The nodes that sessions belong to.
    pub fn holders(&self) -> impl Iterator<Item = Incarnation> {
        self.held.keys().copied()
    }

    /// One session as [`Sessions::absent`] tells it; `None` where there is no set or no owner.
    pub fn absent_of(&self, client: &ClientKey) -> Option<Absent> {
        self.absent_at(self.clients.find(client.borrow())?)
    }

    fn absent_at(&self, number: Number) -> Option<Absent> {
        let (client, records) = self.clients.at(number)?;
        let (owner, (run, set)) = (records.owner(self.rules)?, records.highest(self.rules)?);
        Some(Absent {
            client: client.clone(),
            owner: owner.nonce,
            incarnation: owner.claim.as_ref()?.incarnation,
            life: set.life,
            expiry_s: set.expiry_s,
            will_delay_s: set.will_delay_s,
            has_due: run.has_due(set),
            since_ms: set.since_ms(),
            due_ms: records.watch(self.rules).due_ms,
        })
    }

    /// All sessions, in an order that is the same in every replay of the same records.
    pub fn clients(&self) -> impl Iterator<Item = &ClientKey> {
        self.clients.iter().map(|(client, _)| client)
    }
}

/// A keeper's claim is known to be void only while what it expected is there, before it: else nobody can tell any more
/// whether it once counted.
pub(super) fn is_void(client: &Client, nonce: Nonce, rules: Rules) -> bool {
    let history = client.history(rules);
    let Some((_, claim, false)) = history.iter().find(|(run, ..)| run.nonce == nonce) else { return false };
    history.iter().any(|(run, other, _)| claim.expected == Some(run.nonce) && other.offset < claim.offset)
}

fn kind_of(expected: Option<Nonce>) -> ClaimKind {
    if expected.is_some() { ClaimKind::Keeper } else { ClaimKind::Connection }
}

/// Both are sorted by place.
fn raise(position: &mut Position, watermark: &Watermark) {
    for (place, offset) in &mut position.from {
        if let Ok(found) = watermark.done.binary_search_by_key(place, |(place, _)| *place)
            && let Some((_, done)) = watermark.done.get(found)
        {
            *offset = (*offset).max(*done);
        }
    }
}
