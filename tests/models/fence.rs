//! The session fence: claims, state sets and keeper claims of ONE client in ONE partition of the session log.
//!
//! ```text
//! State      log of the partition; writes in flight (a bag: they land in any order, arbitrarily late); one entry per
//!            claimer; told: bits of state the outside world was told about (CONNACK, SUBACK, PUBCOMP, will published ...).
//! Records    H{nonce} claim of a CONNECT, key (H, nonce)     K{nonce, expected nonce} claim of a keeper, key (K, nonce)
//!            S{nonce, epoch, version, data} state set, key (S, nonce)
//!            T{nonce} tombstones: S, and by a CONNECT also H or K
//! Claimers   a string such as `CCK`: C = a connection attempt on a node of its own, K = a keeper acting for an absent
//!            client.
//! Adversary  every interleaving; a node may stop for ever at any step or go on as a zombie; H may land twice (duplicates).
//! Rules      F1 the last counted claim owns the session; its epoch is the offset of the nonce's first claim record
//!            F2 act on a claim only after the own tail passed it     F3 inherit the set with the highest epoch
//!            F4 the take-over set is ONE record, its key has the nonce
//!            F5 tell the world only what was read back while owner
//!            F6 fenced once, fenced for ever    F7 tombstones of lower epochs only after F5 of the own set
//!            F8 a session exists if a set exists
//!            K1 K counts only if the last counted claim before it in the log is the expected nonce; else it has no
//!               effect at all
//!            K2 K has a key of its own with its own nonce (never the key of H), and is never appended twice
//!            K3 a claim record (H or K) is tombstoned only after F5 of a set whose claim is an H of higher offset, never
//!               by a keeper: a K names an earlier claim as expected (the other case, no set left at all: `session_end`)
//! Property   durable     what the world was told is in the state a claimer would recover from the COMPACTED log
//!            not_robbed  a client that was told CONNACK, is not gone, and after whose H no other H landed, is the owner
//!            compaction  the compacted log names the same owner as the whole log
//! Must pass  good, rotate_on_ambiguous (an append of unknown outcome gives the nonce up)
//! Must fail  key_without_nonce, no_owner_check, tombstone_before_own_set, inherit_last_written, duplicate_state_writes,
//!            split_set, keeper_unconditional, keeper_uses_key_of_h, keeper_tombstones_claims, keeper_lands_twice
//! ```

use std::collections::BTreeMap;

use crate::search::{Model, Steps, fails, passes};
use crate::small::List;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Good,
    RotateOnAmbiguous,
    KeyWithoutNonce,
    NoOwnerCheck,
    TombstoneBeforeOwnSet,
    InheritLastWritten,
    DuplicateStateWrites,
    SplitSet,
    KeeperUnconditional,
    KeeperUsesKeyOfH,
    KeeperTombstonesClaims,
    KeeperLandsTwice,
}
use Variant::{
    DuplicateStateWrites, Good, InheritLastWritten, KeeperLandsTwice, KeeperTombstonesClaims, KeeperUnconditional,
    KeeperUsesKeyOfH, KeyWithoutNonce, NoOwnerCheck, RotateOnAmbiguous, SplitSet, TombstoneBeforeOwnSet,
};

struct Fence {
    variant: Variant,
    claimers: &'static [u8],
    /// State changes per claimer.
    operations: u8,
    duplicates: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Record {
    H {
        who: u8,
    },
    K {
        who: u8,
        expected: u8,
    },
    S {
        who: u8,
        epoch: u8,
        version: u8,
        data: u8,
    },
    /// `split_set`: the base part of a set.
    B {
        who: u8,
        epoch: u8,
    },
    T {
        nonce: u8,
        by_client: bool,
    },
}

impl Default for Record {
    fn default() -> Self {
        Record::H { who: 0 }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Idle,
    Claiming,
    /// The set of this version is written and not read back.
    Waiting,
    Active,
    Fenced,
}

#[derive(Clone, Copy, Default, Hash)]
struct Node {
    phase: Phase,
    claim: u8,
    data: u8,
    version: u8,
    /// Operations left.
    left: u8,
    /// Tombstones are written.
    cleaned: bool,
    /// The client is gone.
    gone: bool,
}

const FENCED: Node = Node { phase: Phase::Fenced, claim: 0, data: 0, version: 0, left: 0, cleaned: true, gone: false };

#[derive(Clone, Copy, Hash)]
struct State {
    log: List<Record, 20>,
    flight: List<Record, 10>,
    nodes: List<Node, 3>,
    told: u8,
    /// Duplicates left.
    spare: u8,
}

/// A state set that compaction leaves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    epoch: u8,
    data: u8,
    offset: u8,
}

impl Model for Fence {
    type State = State;

    fn initial(&self) -> State {
        let node = Node { left: self.operations, ..Node::default() };
        let nodes = self.claimers.iter().fold(List::default(), |nodes, _| nodes.with(node));
        State { log: List::default(), flight: List::default(), nodes, told: 0, spare: self.duplicates }
    }

    fn steps(&self, state: &State, out: &mut Steps<State>) {
        self.flight_steps(state, out);
        let history = self.owners(&state.log);
        for (who, node) in state.nodes.numbered() {
            let mut claimer = Claimer { model: self, state, history: &history, who, node, out };
            claimer.steps();
            claimer.tombstones();
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        if state.told & !self.recovered(&state.log) != 0 {
            return Some("LOSS: told to the world, not recoverable".to_owned());
        }
        let history = self.owners(&state.log);
        let owner = history.last()?;
        if !self.claimers.contains(&b'K') {
            return None;
        }
        for (who, node) in state.nodes.numbered() {
            let connected = node.phase == Phase::Active || (node.phase == Phase::Waiting && node.version > 0);
            let claimed_after = |record: &Record| matches!(record, Record::H { who: other } if *other != who);
            let sits = connected && !self.is_keeper(who) && !node.gone;
            if sits && *owner != Some(who) && !state.log.since(node.claim).iter().any(claimed_after) {
                return Some("ROBBED: a connected client lost its session to a keeper".to_owned());
            }
        }
        let again = self.owners(&self.compacted_claims(&state.log)).last().copied().flatten();
        let differs = self.variant != KeeperUnconditional && again != *owner;
        differs.then(|| "COMPACTION: the compacted log names another owner".to_owned())
    }
}

impl Fence {
    fn is_keeper(&self, who: u8) -> bool {
        self.claimers[usize::from(who)] == b'K'
    }

    /// The owner after every record (F1, K1).
    fn owners(&self, log: &[Record]) -> Vec<Option<u8>> {
        let mut owner = None;
        let mut history = Vec::with_capacity(log.len());
        for record in log {
            match *record {
                Record::H { who } => owner = Some(who),
                Record::K { who, expected } if owner == Some(expected) || self.variant == KeeperUnconditional => {
                    owner = Some(who);
                }
                Record::K { .. } | Record::S { .. } | Record::B { .. } | Record::T { .. } => {}
            }
            history.push(owner);
        }
        history
    }

    /// The claims that a reader sees who starts after compaction: the last record per key, tombstones gone.
    fn compacted_claims(&self, log: &List<Record, 20>) -> Vec<Record> {
        let key = |kind, who| if self.variant == KeeperUsesKeyOfH { (b'1', 0) } else { (kind, who) };
        let mut last = BTreeMap::new();
        for (offset, record) in log.numbered() {
            match record {
                Record::H { who } => drop(last.insert(key(b'H', who), offset)),
                Record::K { who, .. } => drop(last.insert(key(b'K', who), offset)),
                Record::T { nonce, by_client } if by_client || self.variant == KeeperTombstonesClaims => {
                    last.remove(&(b'H', nonce));
                    last.remove(&(b'K', nonce));
                }
                Record::S { .. } | Record::B { .. } | Record::T { .. } => {}
            }
        }
        let mut offsets: Vec<_> = last.into_values().collect();
        offsets.sort_unstable();
        offsets.into_iter().map(|offset| log.at(offset)).collect()
    }

    /// The state sets that compaction leaves, by nonce.
    fn sets(&self, log: &[Record]) -> [Option<Kept>; 3] {
        let mut found = [None; 3];
        for (offset, record) in (0..).zip(log) {
            match *record {
                Record::S { who, epoch, data, .. } => {
                    let key = if self.variant == KeyWithoutNonce { 0 } else { who };
                    found[usize::from(key)] = Some(Kept { epoch, data, offset });
                }
                Record::B { who, epoch } => {
                    found[usize::from(who)].get_or_insert(Kept { epoch, data: 0, offset });
                }
                Record::T { nonce, .. } => found[usize::from(nonce)] = None,
                Record::H { .. } | Record::K { .. } => {}
            }
        }
        found
    }

    fn recovered(&self, log: &[Record]) -> u8 {
        let found = self.sets(log).into_iter().flatten();
        let newest =
            if self.variant == InheritLastWritten { found.max_by_key(|kept| kept.offset) } else { found.max() }; // F3
        newest.map_or(0, |kept| kept.data)
    }

    fn may_land_twice(&self, record: Record) -> bool {
        match record {
            Record::H { .. } => self.variant != KeeperLandsTwice,
            Record::S { .. } => self.variant == DuplicateStateWrites,
            Record::K { .. } => self.variant == KeeperLandsTwice,
            Record::B { .. } | Record::T { .. } => false,
        }
    }

    fn flight_steps(&self, state: &State, out: &mut Steps<State>) {
        let mut before = None;
        for (index, record) in state.flight.numbered() {
            if before.replace(record) == Some(record) {
                continue;
            }
            let landed = State { log: state.log.with(record), ..*state };
            let next = State { flight: state.flight.without(index), ..landed };
            out.will(next, || format!("{record:?} lands"));
            if state.spare == 0 {
                continue;
            }
            let spare = state.spare - 1;
            if self.may_land_twice(record) {
                out.will(State { spare, ..landed }, || format!("{record:?} lands, again later"));
            }
            if let Record::S { who, .. } = record
                && self.variant == RotateOnAmbiguous
            {
                let next = State { nodes: state.nodes.put(who, FENCED), spare, ..landed };
                out.will(next, || format!("{record:?} lands, outcome unknown"));
            }
        }
    }
}

/// One claimer in one state.
struct Claimer<'a> {
    model: &'a Fence,
    state: &'a State,
    history: &'a [Option<u8>],
    who: u8,
    node: Node,
    out: &'a mut Steps<State>,
}

impl Claimer<'_> {
    fn step(&mut self, label: &str, node: Node, writes: &[Record], telling: u8) {
        let Self { model, state, who, .. } = *self;
        let flight = writes.iter().fold(state.flight, |flight, record| flight.insert(*record));
        let told = state.told | telling;
        let next = State { flight, nodes: state.nodes.put(who, node), told, ..*state };
        self.out.will(next, || format!("{}{who} {label}", char::from(model.claimers[usize::from(who)])));
    }

    fn steps(&mut self) {
        match self.node.phase {
            Phase::Idle => self.idle(),
            Phase::Claiming => self.claiming(),
            Phase::Waiting => self.waiting(),
            Phase::Active => self.active(),
            Phase::Fenced => {}
        }
    }

    fn idle(&mut self) {
        let Self { model, state, who, node, .. } = *self;
        let before = who.checked_sub(1);
        let equal_before =
            |before| state.nodes.at(before).phase == Phase::Idle && model.is_keeper(before) == model.is_keeper(who);
        if before.is_some_and(equal_before) {
            return; // equal claimers start in order
        }
        let claiming = Node { phase: Phase::Claiming, cleaned: false, gone: false, ..node };
        if !model.is_keeper(who) {
            self.step("claims", claiming, &[Record::H { who }], 0);
        } else if let Some(&Some(expected)) = self.history.last()
            && (model.is_keeper(expected) || state.nodes.at(expected).gone)
        {
            self.step("claims", claiming, &[Record::K { who, expected }], 0);
        }
    }

    fn claiming(&mut self) {
        let Self { model, state, who, node, .. } = *self;
        let own = |record| match record {
            Record::H { who: of } | Record::K { who: of, .. } => of == who,
            Record::S { .. } | Record::B { .. } | Record::T { .. } => false,
        };
        let Some(mine) = state.log.find(own) else { return };
        if self.history[usize::from(mine)] != Some(who) {
            return self.step("claim is void", FENCED, &[], 0); // K1
        }
        let data = model.recovered(state.log.before(mine + 1)); // F2
        let node = Node { phase: Phase::Waiting, claim: mine, data, version: 0, cleaned: false, gone: false, ..node };
        let set = [Record::S { who, epoch: mine, version: 0, data }, Record::B { who, epoch: mine }];
        let parts = if model.variant == SplitSet { 2 } else { 1 };
        self.step("writes its set", node, &set[..parts], 0);
    }

    fn waiting(&mut self) {
        let Self { model, state, who, node, .. } = *self;
        let is_it = |record: &Record| match *record {
            Record::S { who: of, version, .. } => of == who && version == node.version,
            Record::B { who: of, .. } => of == who && node.version == 0,
            Record::H { .. } | Record::K { .. } | Record::T { .. } => false,
        };
        let parts = if model.variant == SplitSet && node.version == 0 { 2 } else { 1 };
        let Some(first) = state.log.find(|record| is_it(&record)) else { return };
        if state.log.iter().filter(|record| is_it(record)).count() < parts {
            return;
        }
        let since_claim = &self.history[usize::from(node.claim)..=usize::from(first)];
        if since_claim.iter().all(|owner| *owner == Some(who)) || model.variant == NoOwnerCheck {
            self.step("told", Node { phase: Phase::Active, ..node }, &[], node.data); // F5
        } else {
            self.step("is fenced", FENCED, &[], 0); // F6
        }
    }

    fn active(&mut self) {
        let Self { model, state, who, node, .. } = *self;
        if node.left > 0 {
            let data = node.data | 1 << (who * model.operations + model.operations - node.left);
            let (version, left) = (node.version + 1, node.left - 1);
            let set = Record::S { who, epoch: node.claim, version, data };
            self.step("changes state", Node { phase: Phase::Waiting, data, version, left, ..node }, &[set], 0);
        }
        let keeper_waits = |(who, node): (u8, Node)| node.phase == Phase::Idle && model.is_keeper(who);
        if !model.is_keeper(who) && !node.gone && state.nodes.numbered().any(keeper_waits) {
            self.step("client is gone", Node { gone: true, ..node }, &[], 0);
        }
    }

    /// F7
    fn tombstones(&mut self) {
        let Self { model, node, .. } = *self;
        let early = node.phase == Phase::Waiting && model.variant == TombstoneBeforeOwnSet;
        if node.cleaned || model.variant == KeyWithoutNonce || !(node.phase == Phase::Active || early) {
            return;
        }
        let by_client = !model.is_keeper(self.who);
        let sets = (0..).zip(model.sets(&self.state.log));
        let lower = sets.filter(|(_, kept)| kept.is_some_and(|kept| kept.epoch < node.claim));
        let tombstones: Vec<_> = lower.map(|(nonce, _)| Record::T { nonce, by_client }).collect();
        if !tombstones.is_empty() {
            self.step("tombstones", Node { cleaned: true, ..node }, &tombstones, 0);
        }
    }
}

fn fence(variant: Variant, claimers: &'static str, operations: u8, duplicates: u8) -> Fence {
    Fence { variant, claimers: claimers.as_bytes(), operations, duplicates }
}

mod good {
    use super::*;

    #[test]
    fn two_connections_that_change_state_twice_and_a_claim_that_lands_twice() {
        passes(&fence(Good, "CC", 2, 1), 20_660);
    }

    #[test]
    fn three_connections() {
        passes(&fence(Good, "CCC", 1, 0), 411_254);
    }

    #[test]
    fn two_connections_and_a_keeper() {
        passes(&fence(Good, "CCK", 1, 0), 381_762);
    }

    #[test]
    fn a_connection_and_two_keepers() {
        passes(&fence(Good, "CKK", 1, 0), 49_237);
    }

    #[test]
    fn rotate_on_ambiguous() {
        passes(&fence(RotateOnAmbiguous, "CC", 1, 1), 6951);
    }
}

mod broken {
    use super::*;

    #[test]
    fn key_without_nonce() {
        fails(&fence(KeyWithoutNonce, "CC", 1, 0), "LOSS", 12);
    }

    #[test]
    fn no_owner_check() {
        fails(&fence(NoOwnerCheck, "CC", 1, 0), "LOSS", 12);
    }

    #[test]
    fn tombstone_before_own_set() {
        fails(&fence(TombstoneBeforeOwnSet, "CC", 1, 0), "LOSS", 13);
    }

    #[test]
    fn inherit_last_written() {
        fails(&fence(InheritLastWritten, "CC", 1, 0), "LOSS", 12);
    }

    #[test]
    fn duplicate_state_writes() {
        fails(&fence(DuplicateStateWrites, "CC", 1, 1), "LOSS", 9);
    }

    #[test]
    fn split_set() {
        fails(&fence(SplitSet, "CCC", 1, 0), "LOSS", 13);
    }

    #[test]
    fn keeper_unconditional() {
        fails(&fence(KeeperUnconditional, "CCK", 0, 0), "ROBBED", 13);
    }

    #[test]
    fn keeper_uses_key_of_h() {
        fails(&fence(KeeperUsesKeyOfH, "CCK", 0, 0), "COMPACTION", 8);
    }

    #[test]
    fn keeper_tombstones_claims() {
        fails(&fence(KeeperTombstonesClaims, "CK", 0, 0), "COMPACTION", 13);
    }

    #[test]
    fn keeper_lands_twice() {
        fails(&fence(KeeperLandsTwice, "CKK", 0, 1), "COMPACTION", 11);
    }
}
