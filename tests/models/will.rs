//! A will is published exactly once, whoever ends up publishing it. The will of ONE connection (of nonce 0, no will delay).
//!
//! ```text
//! State      session log with its flight (claims and sets as in `fence`), message log M (only this will's token), per
//!            claimer its view, appends to M in flight, the nonces that are final (F) or fenced (F9).
//! Claimers   nonce 0 is the connection itself: when its socket breaks it publishes its own will, or stops anywhere. Then
//!            a string such as `KC`: K a keeper (claims with K{expected}), C a CONNECT (claims with H), each on a node of
//!            its own.
//! Will state in the set: ARMED, `due` with will_from (offset in M), DONE. Inherited at the own claim: highest epoch (F3).
//! Adversary  every interleaving; every node but the last owner may die at any step; session records land in any order;
//!            an append to M lands any time later until its node is fenced; a node does not notice at once that it was
//!            superseded.
//! Rules      K1-K3 of `fence`
//!            V1 whoever owns the session publishes the will that is due: the connection's node, a keeper, or the next
//!               CONNECT
//!            V2 first write will_from = end of M into the own set {due}, read it back as owner (F5), only then append
//!            V3 who inherits `due` keeps the inherited will_from
//!            V4 look for the token from will_from to the high watermark, and append only if it is not there; do both
//!               only after EVERY lower nonce is final or fenced (not just the one before)
//!            V5 a nonce writes F when it knows that it is superseded and has no append in flight; then it appends
//!               nothing more
//! Property   at_most_once  the token is never twice in M
//!            published     at rest, the owner being alive, it is there once
//! Must pass  good
//! Must fail  no_fence, no_look_up, own_will_from, unrecorded_append, former_only, void_keeper_acts
//! ```

use crate::search::{Model, Steps, fails, passes};
use crate::small::{List, Set};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Good,
    NoFence,
    NoLookUp,
    OwnWillFrom,
    UnrecordedAppend,
    FormerOnly,
    VoidKeeperActs,
}
use Variant::{FormerOnly, Good, NoFence, NoLookUp, OwnWillFrom, UnrecordedAppend, VoidKeeperActs};

struct Will {
    variant: Variant,
    /// Without nonce 0, which is a connection.
    claimers: &'static [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Progress {
    Armed,
    Due { will_from: u8 },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Record {
    H { who: u8 },
    K { who: u8, expected: u8 },
    S { who: u8, epoch: u8, will: Progress },
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
    /// The socket of the connection has not broken yet.
    Armed,
    /// The own set is written and not read back.
    Recording,
    /// To be looked for and appended.
    Due,
    Appended,
    Done,
    Void,
    Over,
    Dead,
}

#[derive(Clone, Copy, Default, Hash)]
struct Node {
    phase: Phase,
    claim: Option<u8>,
    will: Option<Progress>,
}

#[derive(Clone, Copy, Hash)]
struct State {
    log: List<Record, 14>,
    flight: List<Record, 8>,
    /// M: who appended the token.
    messages: List<u8, 4>,
    appends: List<u8, 4>,
    nodes: List<Node, 3>,
    /// Final or fenced.
    done: Set,
}

impl Model for Will {
    type State = State;

    fn initial(&self) -> State {
        let first = Node { phase: Phase::Armed, claim: Some(0), will: Some(Progress::Armed) };
        State {
            log: List::of(&[Record::H { who: 0 }, Record::S { who: 0, epoch: 0, will: Progress::Armed }]),
            flight: List::default(),
            messages: List::default(),
            appends: List::default(),
            nodes: self.claimers.iter().fold(List::of(&[first]), |nodes, _| nodes.with(Node::default())),
            done: Set::default(),
        }
    }

    fn steps(&self, state: &State, out: &mut Steps<State>) {
        for (index, record) in state.flight.numbered() {
            let next = State { log: state.log.with(record), flight: state.flight.without(index), ..*state };
            out.will(next, || format!("{record:?} lands"));
        }
        for (index, who) in state.appends.numbered() {
            let next = State { appends: state.appends.without(index), ..*state };
            if state.done.has(who) {
                out.will(next, || format!("append of {who} is refused"));
            } else {
                out.will(State { messages: state.messages.with(who), ..next }, || format!("append of {who} lands"));
            }
        }
        let history = owners(&state.log);
        for (who, node) in state.nodes.numbered() {
            Claimer { model: self, state, history: &history, who, node, out }.steps();
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        (state.messages.len() > 1).then(|| format!("TWICE: {:?}", state.messages))
    }

    fn at_rest(&self, state: &State) -> Option<String> {
        let owner = *owners(&state.log).last()?;
        let alive = state.nodes.at(owner).phase != Phase::Dead && !state.done.has(owner);
        (alive && state.messages.len() != 1).then(|| "NEVER published".to_owned())
    }
}

/// The owner after every record.
fn owners(log: &[Record]) -> Vec<u8> {
    let mut owner = 0;
    let mut history = Vec::with_capacity(log.len());
    for record in log {
        match *record {
            Record::H { who } => owner = who,
            Record::K { who, expected } if expected == owner => owner = who,
            Record::K { .. } | Record::S { .. } => {}
        }
        history.push(owner);
    }
    history
}

/// What the last set of the highest epoch says (F3).
fn inherited(log: &[Record]) -> Option<Progress> {
    let sets = log.iter().filter_map(|record| match *record {
        Record::S { epoch, will, .. } => Some((epoch, will)),
        Record::H { .. } | Record::K { .. } => None,
    });
    sets.max_by_key(|(epoch, _)| *epoch).map(|(_, will)| will)
}

/// One claimer in one state.
struct Claimer<'a> {
    model: &'a Will,
    state: &'a State,
    history: &'a [u8],
    who: u8,
    node: Node,
    out: &'a mut Steps<State>,
}

impl Claimer<'_> {
    fn is(&self, variant: Variant) -> bool {
        self.model.variant == variant
    }

    fn is_keeper(&self) -> bool {
        self.who > 0 && self.model.claimers[usize::from(self.who) - 1] == b'K'
    }

    fn after(&self, node: Node) -> State {
        State { nodes: self.state.nodes.put(self.who, node), ..*self.state }
    }

    fn step(&mut self, label: &str, next: State) {
        let (who, kind) = (self.who, if self.is_keeper() { 'K' } else { 'C' });
        self.out.will(next, || format!("{kind}{who} {label}"));
    }

    /// Writes the own set.
    fn record(&mut self, label: &str, claim: u8, will: Progress) {
        let record = Record::S { who: self.who, epoch: claim, will };
        let node = Node { phase: Phase::Recording, claim: Some(claim), will: Some(will) };
        let next = State { flight: self.state.flight.insert(record), ..self.after(node) };
        self.step(label, next);
    }

    fn steps(&mut self) {
        let Self { state, who, node, .. } = *self;
        let since_claim = self.history.iter().skip(node.claim.map_or(self.history.len(), usize::from));
        let superseded = since_claim.into_iter().any(|owner| *owner != who);
        if superseded && !state.done.has(who) {
            let done = state.done.with(who);
            self.step("is fenced (F9)", State { done, ..*state });
            if !state.appends.contains(&who) && matches!(node.phase, Phase::Over | Phase::Armed | Phase::Void) {
                let next = State { done, ..self.after(Node { phase: Phase::Over, ..node }) };
                self.step("writes F", next); // V5
            }
        }
        let at_end = matches!(node.phase, Phase::Over | Phase::Void | Phase::Dead);
        if !at_end && node.phase != Phase::Idle && usize::from(who) < self.model.claimers.len() {
            let next = self.after(Node { phase: Phase::Dead, ..node });
            self.out.may(next, || format!("{who} dies"));
        }
        match (node.phase, node.claim) {
            (Phase::Idle, _) => self.idle(),
            (Phase::Claiming, _) => self.claiming(),
            (Phase::Armed, Some(claim)) => self.armed(claim),
            (Phase::Recording, Some(claim)) => self.recording(claim),
            (Phase::Due, Some(claim)) => self.due(claim),
            (Phase::Appended, Some(claim)) => {
                if state.messages.contains(&who) {
                    self.record("append is acked", claim, Progress::Done);
                } else if !state.appends.contains(&who) {
                    let next = self.after(Node { phase: Phase::Over, ..node });
                    self.step("append was refused", next);
                }
            }
            (Phase::Armed | Phase::Recording | Phase::Due | Phase::Appended, None)
            | (Phase::Done | Phase::Void | Phase::Over | Phase::Dead, _) => {}
        }
    }

    fn idle(&mut self) {
        let Self { state, who, node, .. } = *self;
        let Some(&expected) = self.history.last() else { return };
        if who > 1 && state.nodes.at(who - 1).phase == Phase::Idle {
            return;
        }
        let claim = if self.is_keeper() { Record::K { who, expected } } else { Record::H { who } };
        if !self.is_keeper() || expected != who {
            let claiming = self.after(Node { phase: Phase::Claiming, ..node });
            self.step("claims", State { flight: state.flight.insert(claim), ..claiming });
        }
    }

    fn claiming(&mut self) {
        let Self { state, who, node, .. } = *self;
        let own = |record| match record {
            Record::H { who: of } | Record::K { who: of, .. } => of == who,
            Record::S { .. } => false,
        };
        let Some(mine) = state.log.find(own) else { return };
        if self.history[usize::from(mine)] != who && !self.is(VoidKeeperActs) {
            let next = self.after(Node { phase: Phase::Void, ..node });
            return self.step("claim is void", next); // K1
        }
        let here = Progress::Due { will_from: state.messages.count() };
        match inherited(state.log.before(mine + 1)) {
            None | Some(Progress::Armed) => self.record("writes its set, the will is due", mine, here),
            Some(Progress::Due { .. }) if self.is(OwnWillFrom) => {
                self.record("writes its set, will_from is new", mine, here);
            }
            Some(will @ (Progress::Due { .. } | Progress::Done)) => self.record("writes its set", mine, will), // V3
        }
    }

    fn armed(&mut self, claim: u8) {
        let Self { state, who, .. } = *self;
        let will = Progress::Due { will_from: state.messages.count() };
        if self.is(UnrecordedAppend) {
            let node = Node { phase: Phase::Appended, claim: Some(claim), will: Some(will) };
            let flight = state.flight.insert(Record::S { who, epoch: claim, will });
            let next = State { flight, appends: state.appends.insert(who), ..self.after(node) };
            self.step("socket breaks, appends the will at once", next);
        } else {
            self.record("socket breaks, records the will", claim, will);
        }
    }

    fn recording(&mut self, claim: u8) {
        let Self { state, who, node, .. } = *self;
        let Some(will) = node.will else { return };
        let Some(back) = state.log.find(|record| record == Record::S { who, epoch: claim, will }) else { return };
        let since_claim = &self.history[usize::from(claim).min(usize::from(back) + 1)..=usize::from(back)];
        if since_claim.iter().any(|owner| *owner != who) && !self.is(VoidKeeperActs) {
            let next = self.after(Node { phase: Phase::Over, ..node });
            self.step("is fenced", next);
        } else {
            let phase = if will == Progress::Done { Phase::Done } else { Phase::Due };
            let next = self.after(Node { phase, ..node });
            self.step("read back as owner", next); // V2
        }
    }

    fn due(&mut self, claim: u8) {
        let Self { state, who, node, .. } = *self;
        let nodes = state.nodes.numbered();
        let mut lower: Vec<_> = nodes.filter(|(_, node)| node.claim.is_some_and(|of| of < claim)).collect();
        if self.is(FormerOnly) {
            lower.sort_by_key(|(_, node)| node.claim);
            lower.drain(..lower.len().saturating_sub(1));
        }
        if !lower.iter().all(|(nonce, _)| state.done.has(*nonce)) && !self.is(NoFence) {
            return; // V4
        }
        let from = match node.will {
            Some(Progress::Due { will_from }) => will_from,
            Some(Progress::Armed | Progress::Done) | None => return,
        };
        if !state.messages.since(from).is_empty() && !self.is(NoLookUp) {
            self.record("finds the token", claim, Progress::Done);
        } else {
            let appended = self.after(Node { phase: Phase::Appended, ..node });
            self.step("appends the will", State { appends: state.appends.insert(who), ..appended });
        }
    }
}

fn will(variant: Variant, claimers: &'static str) -> Will {
    Will { variant, claimers: claimers.as_bytes() }
}

mod good {
    use super::*;

    #[test]
    fn a_keeper_and_a_connection() {
        passes(&will(Good, "KC"), 28_483);
    }

    #[test]
    fn two_keepers() {
        passes(&will(Good, "KK"), 32_386);
    }

    #[test]
    fn two_connections() {
        passes(&will(Good, "CC"), 50_278);
    }
}

mod broken {
    use super::*;

    #[test]
    fn no_fence() {
        fails(&will(NoFence, "KK"), "TWICE", 12);
    }

    #[test]
    fn no_look_up() {
        fails(&will(NoLookUp, "KK"), "TWICE", 13);
    }

    #[test]
    fn own_will_from() {
        fails(&will(OwnWillFrom, "KK"), "TWICE", 13);
    }

    #[test]
    fn unrecorded_append() {
        fails(&will(UnrecordedAppend, "K"), "TWICE", 10);
    }

    #[test]
    fn former_only() {
        fails(&will(FormerOnly, "KK"), "TWICE", 16);
    }

    #[test]
    fn void_keeper_acts() {
        fails(&will(VoidKeeperActs, "KK"), "TWICE", 13);
    }
}
