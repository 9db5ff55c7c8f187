//! The node watermark W: one record per (node incarnation, session partition) every few seconds stands in for one position
//! record per session. One session, one message partition, node A in two incarnations A1 and A2 (a restart; A1's queued
//! writes may land later, A1 may even live on), the client is first on A1, reconnects to A2.
//!
//! ```text
//! State      end of the message log; what the client acked; per incarnation its own view and its queue of session records;
//!            the session log: H{incarnation}, P{incarnation, position, following}, W{incarnation, offset}
//! Position   as any claimer computes it: the last P of the highest epoch that wrote one; is it `following`, then
//!            max(P.position, last W of the SAME incarnation), else P.position
//! Adversary  every interleaving; every incarnation stops or goes on at any step; queued records land late (in order)
//! Rules      W1 attach (P{following}) only when acked >= the last W emitted by this incarnation
//!            W2 a W never exceeds what any following session acked
//!            W3 detach (P{position, not following}) on disconnect, slowness and fencing enters the queue BEFORE the
//!               next W
//!            W4 P and W go through one producer into one partition: the log has them in the order of the queue
//!            W5 W carries the incarnation (its producer id or start nonce), P too; a W of another incarnation never
//!               applies
//! Property   nothing_skipped   at every prefix of the log a claimer resumes at or before what the client acked
//! Must pass  good
//! Must fail  apply_to_detached, attach_early, w_before_detach, other_topic, by_node_name
//! ```

use crate::search::{Model, Steps, fails, passes};
use crate::small::List;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Good,
    ApplyToDetached,
    AttachEarly,
    WBeforeDetach,
    OtherTopic,
    ByNodeName,
}
use Variant::{ApplyToDetached, AttachEarly, ByNodeName, Good, OtherTopic, WBeforeDetach};

struct Watermark {
    variant: Variant,
    messages: u8,
    attaches: u8,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Down,
    Claiming,
    Detached,
    Following,
    Gone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Record {
    #[default]
    H,
    P(Position),
    W {
        offset: u8,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Position {
    offset: u8,
    following: bool,
}

/// An incarnation of node A.
#[derive(Clone, Copy, Default, Hash)]
struct Node {
    phase: Phase,
    /// What the client acked, as this node knows it.
    acked: u8,
    /// The last W.
    emitted: u8,
    queue: List<Record, 8>,
    /// `w_before_detach`: the detach is still owed.
    owed: bool,
    /// Attaches left.
    left: u8,
}

/// What the session log says.
#[derive(Clone, Copy, Default, Hash)]
struct Ledger {
    /// The last P of each incarnation.
    position: [Option<Position>; 2],
    /// The last W of each incarnation.
    mark: [u8; 2],
    /// The position at A2's claim.
    claimed: Option<u8>,
}

#[derive(Clone, Copy, Hash)]
struct State {
    end: u8,
    acked: u8,
    nodes: List<Node, 2>,
    ledger: Ledger,
}

impl Model for Watermark {
    type State = State;

    fn initial(&self) -> State {
        let node = |phase| Node { phase, left: self.attaches, ..Node::default() };
        let ledger = Ledger { position: [Some(Position::default()), None], ..Ledger::default() };
        State { end: 0, acked: 0, nodes: List::of(&[node(Phase::Detached), node(Phase::Down)]), ledger }
    }

    fn steps(&self, state: &State, out: &mut Steps<State>) {
        if state.end < self.messages {
            let end = state.end + 1;
            out.may(State { end, ..*state }, || format!("message {end}"));
        }
        for (me, node) in state.nodes.numbered() {
            let mut incarnation = Incarnation { model: self, state, me, node, out };
            incarnation.connection();
            incarnation.marks();
            incarnation.queue();
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        let resumed = self.position(state.ledger);
        let lost = resumed > state.acked;
        lost.then(|| format!("LOSS: resumes after {resumed}, the client acked {}", state.acked))
    }
}

impl Watermark {
    fn position(&self, ledger: Ledger) -> u8 {
        let owner = usize::from(ledger.position[1].is_some());
        let Position { offset, following } = ledger.position[owner].unwrap_or_default();
        let [first, second] = ledger.mark;
        let mark = if self.variant == ByNodeName { first.max(second) } else { ledger.mark[owner] }; // W5
        if following || self.variant == ApplyToDetached { offset.max(mark) } else { offset }
    }
}

/// One incarnation in one state.
struct Incarnation<'a> {
    model: &'a Watermark,
    state: &'a State,
    me: u8,
    node: Node,
    out: &'a mut Steps<State>,
}

impl Incarnation<'_> {
    fn is(&self, variant: Variant) -> bool {
        self.model.variant == variant
    }

    fn step(&mut self, label: &str, node: Node) {
        let next = State { nodes: self.state.nodes.put(self.me, node), ..*self.state };
        self.change(label, next);
    }

    fn change(&mut self, label: &str, next: State) {
        let incarnation = self.me + 1;
        self.out.will(next, || format!("{label} (A{incarnation})"));
    }

    fn is_connected(&self) -> bool {
        let sits = matches!(self.node.phase, Phase::Detached | Phase::Following);
        sits && (self.me == 1 || self.state.nodes.at(1).phase == Phase::Down)
    }

    fn connection(&mut self) {
        let Self { state, me, node, .. } = *self;
        if node.phase == Phase::Down && me == 1 {
            let claiming =
                Node { phase: Phase::Claiming, queue: List::of(&[Record::H]), left: node.left, ..Node::default() };
            let next = State { nodes: state.nodes.put(me, claiming), ..*state };
            self.out.may(next, || "client reconnects".to_owned());
        }
        if let Some(acked) = state.ledger.claimed
            && node.phase == Phase::Claiming
            && node.queue.is_empty()
        {
            let queue = List::of(&[Record::P(Position { offset: acked, following: false })]);
            self.step("take-over", Node { phase: Phase::Detached, acked, queue, ..node });
        }
        if !self.is_connected() {
            return;
        }
        if node.acked < state.end {
            let node = Node { acked: node.acked + 1, ..node };
            let nodes = state.nodes.put(me, node);
            self.change("client acks", State { acked: state.acked.max(node.acked), nodes, ..*state });
        }
        let in_time = node.acked >= node.emitted || self.is(AttachEarly); // W1
        if node.phase == Phase::Detached && node.left > 0 && in_time {
            let queue = node.queue.with(Record::P(Position { offset: node.acked, following: true }));
            self.step("attach", Node { phase: Phase::Following, queue, left: node.left - 1, ..node });
        }
    }

    fn marks(&mut self) {
        let Self { state, me, node, .. } = *self;
        if matches!(node.phase, Phase::Following | Phase::Detached | Phase::Gone) {
            let offset = if node.phase == Phase::Following { node.acked } else { state.end }; // W2
            if offset > node.emitted {
                let queue = node.queue.with(Record::W { offset });
                self.step("W", Node { emitted: offset, queue, ..node });
            }
        }
        let connected = self.is_connected();
        let superseded = me == 0 && state.ledger.claimed.is_some();
        let detached = node.queue.with(Record::P(Position { offset: node.acked, following: false }));
        if node.phase == Phase::Following && (connected || superseded) {
            let phase = if connected && node.left > 0 { Phase::Detached } else { Phase::Gone };
            if self.is(WBeforeDetach) {
                self.step("slow, disconnected or fenced; detaches later", Node { phase, owed: true, ..node });
            } else {
                self.step("slow, disconnected or fenced: detaches", Node { phase, queue: detached, ..node }); // W3
            }
        }
        if node.owed {
            self.step("detaches", Node { queue: detached, owed: false, ..node });
        }
    }

    /// W4
    fn queue(&mut self) {
        let Self { model, state, me, node, .. } = *self;
        for (index, record) in node.queue.numbered() {
            let is_w = matches!(record, Record::W { .. });
            let earlier = node.queue.before(index);
            let behind_w = earlier.iter().any(|other| matches!(other, Record::W { .. }));
            let same = std::mem::discriminant(&record);
            let first_of_kind = !earlier.iter().any(|other| std::mem::discriminant(other) == same);
            if index > 0 && !(self.is(OtherTopic) && (is_w || behind_w) && first_of_kind) {
                continue;
            }
            let mut ledger = state.ledger;
            match record {
                Record::H => ledger.claimed = Some(model.position(ledger)),
                Record::P(position) => ledger.position[usize::from(me)] = Some(position),
                Record::W { offset } => ledger.mark[usize::from(me)] = offset,
            }
            let nodes = state.nodes.put(me, Node { queue: node.queue.without(index), ..node });
            let next = State { nodes, ledger, ..*state };
            self.out.will(next, || format!("{record:?} of A{} lands", me + 1));
        }
    }
}

fn watermark(variant: Variant) -> Watermark {
    Watermark { variant, messages: 2, attaches: 1 }
}

mod good {
    use super::*;

    #[test]
    fn two_messages_and_one_attach_per_incarnation() {
        passes(&watermark(Good), 52_917);
    }
}

mod broken {
    use super::*;

    #[test]
    fn apply_to_detached() {
        fails(&watermark(ApplyToDetached), "LOSS", 3);
    }

    #[test]
    fn attach_early() {
        fails(&watermark(AttachEarly), "LOSS", 5);
    }

    #[test]
    fn w_before_detach() {
        fails(&watermark(WBeforeDetach), "LOSS", 6);
    }

    #[test]
    fn other_topic() {
        fails(&watermark(OtherTopic), "LOSS", 6);
    }

    #[test]
    fn by_node_name() {
        fails(&watermark(ByNodeName), "LOSS", 9);
    }
}
