//! Retained messages, scheme Y: the node that appended a retain-flagged message writes the retained record. One topic (key).
//!
//! ```text
//! State      message log M (appender, did the appender get the ack); retained log R (src, rank); per node: alive, dead or
//!            fenced, newest outstanding obligation, lowest incomplete one, record in flight, record landed and not yet
//!            read back, durable mark, the dead node it stands in for. Nodes 0 and 1 serve publishers, node 2 is there to
//!            be a keeper.
//! Messages   a string such as `RC`: R = a payload to retain, C = empty payload (clears: a tombstone with src).
//! Order      a record's rank is (src, foreign): foreign = 0, or the offset in R of a record written by a foreign Kafka
//!            program, which has no src and counts as (highest src so far, own offset); a repair carries the winner's
//!            rank, foreign part included
//! Adversary  every interleaving; a node dies at any step (so do keepers); a dead node's writes land any time later until
//!            it is fenced.
//! Rules      R1 after the ack of its append at offset o the node writes retained{src = o}; one record per key is in
//!               flight, then the newest outstanding follows; a complete record of src s settles every own obligation up
//!               to s: those are DROPPED, never written; nothing need be written either when the node already read a
//!               record of higher or equal src
//!            R2 readers keep the record of the highest rank
//!            R3 the writer reads its record back; if a record of higher rank came before it, it writes that winner again
//!               (with the winner's rank), until no record of higher rank precedes its own
//!            R4a mark retained_done of a node: below it all own obligations, R3 included, are complete and read back. It
//!               never passes an own append that is unresolved
//!            R4b when a node is dead: F9 first, then a keeper writes the highest retain-flagged message of
//!               M[mark .. high watermark] (obligation like its own, R3 included), then records the dead node's duty as
//!               done. It may leave the write out only if the LAST record of the key is the highest (a node with own
//!               obligations only: if any record is high enough)
//!            R4c an obligation taken over counts as the keeper's own: its own mark is not raised until it is complete and
//!               read back (it need not be lowered: a late write of the keeper can only hide a message above what it
//!               scanned)
//!            R6 Kafka removes a tombstone, and nodes forget it, only when every write that was outstanding when it landed
//!               is resolved: delete.retention > append deadline + eviction + F9, and a node that lags further exits (see
//!               `is_resolved`)
//! Property   fresh     at rest a reader of the compacted R finds the retain-flagged message with the highest offset, or
//!                      none if that is a clear
//!            together  (with a foreign record) at rest a fresh reader finds what live readers have
//!            (the repairs end: every repair has a strictly higher rank than the record it repairs, and ranks are
//!            finitely many)
//! Must pass  good, foreign
//! Must fail  older_one_kept (R1), no_repair (R3), mark_before_read_back, mark_passes_unacked (R4a), no_fence,
//!            keeper_trusts_highest (R4b), keeper_mark_runs_ahead (R4c), tombstone_removed_early (R6)
//! ```

use crate::search::{Model, Steps, fails, passes};
use crate::small::List;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Good,
    Foreign,
    NoRepair,
    OlderOneKept,
    MarkBeforeReadBack,
    MarkPassesUnacked,
    NoFence,
    KeeperTrustsHighest,
    KeeperMarkRunsAhead,
    TombstoneRemovedEarly,
}
use Variant::{
    Foreign, Good, KeeperMarkRunsAhead, KeeperTrustsHighest, MarkBeforeReadBack, MarkPassesUnacked, NoFence, NoRepair,
    OlderOneKept, TombstoneRemovedEarly,
};

struct Retained {
    variant: Variant,
    messages: &'static [u8],
    deaths: u8,
    /// How many nodes there are.
    count: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Rank {
    src: u8,
    foreign: u8,
}

/// A message in M. Its number, from 1 on, is its offset.
#[derive(Clone, Copy, Default, Hash)]
struct Message {
    appender: u8,
    acked: bool,
}

/// R as far as it matters.
#[derive(Clone, Copy, Default, Hash)]
struct Log {
    /// The highest rank so far: what live readers have.
    best: Rank,
    /// The rank of the last record: what compaction keeps.
    last: Rank,
    /// Kafka removed that last record, a tombstone.
    gone: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Life {
    #[default]
    Alive,
    Dead,
    Fenced,
    /// A keeper has done its duty.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Landed {
    own: Rank,
    /// The highest rank when it landed.
    winner: Rank,
}

/// Offsets count from 1 on; 0 is none.
#[derive(Clone, Copy, Default, Hash)]
struct Node {
    life: Life,
    /// The newest outstanding obligation.
    owed: u8,
    /// The lowest incomplete obligation.
    lowest: u8,
    flight: Option<Rank>,
    /// Not yet read back.
    landed: Option<Landed>,
    mark: u8,
    /// The dead node it stands in for.
    duty: Option<u8>,
}

#[derive(Clone, Copy, Hash)]
struct State {
    messages: List<Message, 3>,
    log: Log,
    nodes: List<Node, 3>,
    /// Deaths left.
    left: u8,
    /// The foreign record is still to come.
    foreign: bool,
}

impl State {
    fn alive(&self) -> impl Iterator<Item = u8> {
        self.nodes.numbered().filter(|(_, node)| node.life == Life::Alive).map(|(who, _)| who)
    }

    /// Offsets of appends whose ack this node did not get.
    fn unacked(&self, who: u8) -> impl Iterator<Item = u8> {
        let own = (1..).zip(self.messages.iter()).filter(move |(_, message)| message.appender == who && !message.acked);
        own.map(|(offset, _)| offset)
    }

    /// R6: nobody can still write, or read back, a record older than the tombstone of src.
    fn is_resolved(&self, src: u8) -> bool {
        self.nodes.numbered().all(|(who, node)| {
            let in_flight = node.flight.is_none_or(|rank| rank.src >= src);
            match node.life {
                Life::Alive => {
                    let acked = self.unacked(who).all(|offset| offset >= src);
                    let written = node.owed == 0 || node.owed >= src;
                    acked && written && in_flight && node.landed.is_none_or(|landed| landed.own.src >= src)
                }
                Life::Dead => in_flight,
                Life::Fenced | Life::Done => true,
            }
        })
    }
}

impl Model for Retained {
    type State = State;

    fn initial(&self) -> State {
        let nodes = (0..self.count).fold(List::default(), |nodes, _| nodes.with(Node::default()));
        let foreign = self.variant == Foreign;
        State { messages: List::default(), log: Log::default(), nodes, left: self.deaths, foreign }
    }

    fn steps(&self, state: &State, out: &mut Steps<State>) {
        for (who, node) in state.nodes.numbered() {
            let mut one = One { model: self, state, who, node, out };
            one.in_flight();
            one.taken_over();
            if node.life == Life::Alive {
                one.life();
                one.writing();
                one.marking();
            }
        }
        let Log { best, last, gone } = state.log;
        if state.foreign && !state.messages.is_empty() {
            let rank = Rank { src: best.src, foreign: 1 };
            let log = Log { best: rank, last: rank, gone: false };
            out.may(State { log, foreign: false, ..*state }, || "foreign record lands".to_owned());
        }
        let settled = || state.is_resolved(last.src) || self.variant == TombstoneRemovedEarly;
        if last == best && self.is_clear(last.src) && !gone && settled() {
            let log = Log { best: Rank::default(), last, gone: true };
            out.may(State { log, ..*state }, || format!("Kafka removes tombstone {}", last.src));
        }
    }

    fn at_rest(&self, state: &State) -> Option<String> {
        let (Log { best, last, gone }, newest) = (state.log, state.messages.count());
        if self.variant == Foreign {
            let apart = last != best || last.src != newest;
            return apart.then(|| format!("APART: fresh {last:?}, live {best:?}, newest message {newest}"));
        }
        let shown = if gone || self.is_clear(last.src) { 0 } else { last.src };
        let wanted = if self.is_clear(newest) { 0 } else { newest };
        (shown != wanted).then(|| format!("STALE: a fresh reader finds {shown}, newest is {newest}"))
    }
}

impl Retained {
    fn is_clear(&self, src: u8) -> bool {
        src > 0 && self.messages[usize::from(src) - 1] == b'C'
    }
}

/// One node in one state.
struct One<'a> {
    model: &'a Retained,
    state: &'a State,
    who: u8,
    node: Node,
    out: &'a mut Steps<State>,
}

impl One<'_> {
    fn is(&self, variant: Variant) -> bool {
        self.model.variant == variant
    }

    fn after(&self, node: Node) -> State {
        State { nodes: self.state.nodes.put(self.who, node), ..*self.state }
    }

    fn step(&mut self, next: State, label: impl FnOnce() -> String) {
        let who = self.who;
        self.out.will(next, || format!("{} (node {who})", label()));
    }

    fn in_flight(&mut self) {
        let Self { model, state, who, node, .. } = *self;
        let may_append = matches!(node.life, Life::Alive | Life::Dead);
        if state.messages.len() < model.messages.len()
            && who < 2
            && may_append
            && (who == 0 || !state.messages.is_empty())
        {
            let messages = state.messages.with(Message { appender: who, acked: false });
            self.out.may(State { messages, ..*state }, || format!("message {} lands (node {who})", messages.count()));
        }
        if let Some(own) = node.flight
            && node.life != Life::Fenced
        {
            let winner = state.log.best.max(own);
            let log = Log { best: winner, last: own, gone: false };
            let landed = Some(Landed { own, winner });
            let next = State { log, ..self.after(Node { flight: None, landed, ..node }) };
            self.step(next, || format!("{own:?} lands"));
        }
        if node.life == Life::Dead {
            let next = self.after(Node { life: Life::Fenced, flight: None, ..node });
            self.step(next, || "is fenced (F9)".to_owned());
        }
    }

    /// R4b
    fn taken_over(&mut self) {
        let Self { state, who, node, .. } = *self;
        if node.life != Life::Fenced && !(node.life == Life::Dead && self.is(NoFence)) {
            return;
        }
        for keeper in state.alive() {
            let other = state.nodes.at(keeper);
            if other.duty.is_some() || other.owed > 0 || other.flight.is_some() || other.landed.is_some() {
                continue;
            }
            let newest = state.messages.count();
            let owed = if newest > node.mark { newest } else { 0 };
            let lowest = if self.is(KeeperMarkRunsAhead) { 0 } else { owed }; // R4c
            let nodes = state.nodes.put(keeper, Node { owed, lowest, duty: Some(who), ..other });
            self.step(State { nodes, ..*state }, || format!("keeper {keeper} takes over, owes {owed}"));
        }
    }

    fn life(&mut self) {
        let Self { state, who, node, .. } = *self;
        if state.left > 0 && state.alive().count() > 1 {
            let dead = self.after(Node { life: Life::Dead, duty: None, ..node });
            self.out.may(State { left: state.left - 1, ..dead }, || format!("node {who} dies"));
        }
        if let Some(offset) = state.unacked(who).next() {
            let messages = state.messages.put(offset - 1, Message { appender: who, acked: true });
            let lowest = if node.lowest > 0 { node.lowest } else { offset };
            let next = self.after(Node { owed: node.owed.max(offset), lowest, ..node });
            self.step(State { messages, ..next }, || format!("ack of {offset}"));
        }
    }

    fn writing(&mut self) {
        let Self { state, node, .. } = *self;
        if node.owed > 0 && node.flight.is_none() && node.landed.is_none() {
            let next = self.after(Node { flight: Some(Rank { src: node.owed, foreign: 0 }), owed: 0, ..node });
            self.step(next, || format!("writes src {}", node.owed)); // R1
            let at_end = node.duty.is_none() || self.is(KeeperTrustsHighest) || state.log.last == state.log.best;
            if state.log.best.src >= node.owed && at_end {
                let next = self.after(Node { owed: 0, lowest: 0, ..node });
                self.step(next, || format!("{} is there already", node.owed));
            }
        }
        let Some(Landed { own, winner }) = node.landed else { return };
        if winner > own && !self.is(NoRepair) {
            let next = self.after(Node { landed: None, flight: Some(winner), ..node });
            self.step(next, || format!("reads back, repairs with {winner:?}")); // R3
        } else {
            let keeps = node.owed > own.src || (node.owed > 0 && self.is(OlderOneKept));
            let (owed, lowest) = if keeps { (node.owed, own.src + 1) } else { (0, 0) };
            let next = self.after(Node { landed: None, owed, lowest, ..node });
            self.step(next, || "reads back, complete".to_owned());
        }
    }

    /// R4a
    fn marking(&mut self) {
        let Self { state, who, node, .. } = *self;
        let mut limit = state.messages.count() + 1;
        if let Some(unacked) = state.unacked(who).next()
            && !self.is(MarkPassesUnacked)
        {
            limit = limit.min(unacked);
        }
        if node.lowest > 0 && !self.is(MarkBeforeReadBack) {
            limit = limit.min(node.lowest);
        }
        let mark = limit - 1;
        if mark > node.mark {
            self.out.may(self.after(Node { mark, ..node }), || format!("mark {mark} (node {who})"));
        }
        let idle = node.owed == 0 && node.flight.is_none() && node.landed.is_none() && node.lowest == 0;
        if let Some(dead) = node.duty
            && idle
        {
            let done = state.nodes.put(dead, Node { life: Life::Done, ..state.nodes.at(dead) });
            let nodes = done.put(who, Node { duty: None, ..node });
            self.step(State { nodes, ..*state }, || format!("duty for {dead} is done"));
        }
    }
}

fn retained(variant: Variant, messages: &'static str, deaths: u8, count: u8) -> Retained {
    Retained { variant, messages: messages.as_bytes(), deaths, count }
}

mod good {
    use super::*;

    #[test]
    fn two_messages_and_two_deaths() {
        passes(&retained(Good, "RR", 2, 3), 304_981);
    }

    #[test]
    fn a_message_a_clear_and_a_death() {
        passes(&retained(Good, "RC", 1, 3), 72_306);
    }

    #[test]
    fn three_messages_on_two_nodes() {
        passes(&retained(Good, "RRR", 1, 2), 22_605);
    }

    #[test]
    fn a_clear_between_messages_on_two_nodes() {
        passes(&retained(Good, "RCR", 1, 2), 27_440);
    }

    #[test]
    fn foreign() {
        passes(&retained(Foreign, "RR", 1, 2), 7067);
    }
}

mod broken {
    use super::*;

    #[test]
    fn no_repair() {
        fails(&retained(NoRepair, "RR", 0, 3), "STALE", 10);
    }

    #[test]
    fn older_one_kept() {
        fails(&retained(OlderOneKept, "RRR", 1, 2), "STALE", 21);
    }

    #[test]
    fn mark_before_read_back() {
        fails(&retained(MarkBeforeReadBack, "RR", 1, 3), "STALE", 7);
    }

    #[test]
    fn mark_passes_unacked() {
        fails(&retained(MarkPassesUnacked, "RR", 1, 3), "STALE", 6);
    }

    #[test]
    fn no_fence() {
        fails(&retained(NoFence, "RR", 1, 3), "STALE", 4);
    }

    #[test]
    fn keeper_trusts_highest() {
        fails(&retained(KeeperTrustsHighest, "RR", 1, 3), "STALE", 14);
    }

    #[test]
    fn keeper_mark_runs_ahead() {
        fails(&retained(KeeperMarkRunsAhead, "RR", 2, 3), "STALE", 18);
    }

    #[test]
    fn tombstone_removed_early() {
        fails(&retained(TombstoneRemovedEarly, "RC", 0, 3), "STALE", 11);
    }
}
