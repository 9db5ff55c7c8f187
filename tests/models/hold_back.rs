//! F11, the hold-back rule: what one client publishes to one topic ends with its last message, across take-overs.
//!
//! ```text
//! State      one client that publishes 1 .. messages to one topic (QoS 1, resends what is unacked, in order, after a
//!            reconnect; at most `window` in flight), connections 0, 1, ... each on another node; per node its queue of
//!            appends (first in, first out: one idempotent producer, one partition); the topic's log.
//! Adversary  the connection breaks at any step; a superseded node goes on appending what it had accepted; queued
//!            appends land any time later until the node is fenced (F9) or has nothing in flight (F); both may come
//!            arbitrarily late.
//! Rules      F11 the successor keeps incoming QoS 1 and QoS 2 publishes of the session back (no append) until EVERY
//!                lower nonce is final or fenced. F of a nonce means: it accepts nothing more and none of its appends
//!                is in flight.
//! Property   last_is_last  at rest, and whenever the client has all its acks, the last record is the client's last
//!                          message
//!            in_order      a message whose successor was acked to the client is never appended again
//! Must pass  good
//! Must fail  no_hold_back, former_only (waits for the nonce right before its own only)
//! ```

use crate::search::{Model, Steps, fails, passes};
use crate::small::List;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Good,
    NoHoldBack,
    FormerOnly,
}
use Variant::{FormerOnly, Good, NoHoldBack};

struct HoldBack {
    variant: Variant,
    messages: u8,
    connections: u8,
    window: u8,
}

#[derive(Clone, Copy, Hash)]
struct State {
    log: List<u8, 16>,
    client: Client,
    nodes: List<Node, 4>,
}

#[derive(Clone, Copy, Hash)]
struct Client {
    connection: u8,
    acked: u8,
    sent: u8,
    /// A message landed whose successor was acked before.
    late: bool,
}

#[derive(Clone, Copy, Default, Hash)]
struct Node {
    /// Not yet read from the socket.
    packets: List<u8, 4>,
    /// Appends in flight.
    queue: List<u8, 4>,
    /// Final or fenced.
    done: bool,
}

impl Model for HoldBack {
    type State = State;

    fn initial(&self) -> State {
        let client = Client { connection: 0, acked: 0, sent: 0, late: false };
        let nodes = (0..self.connections).fold(List::default(), |nodes, _| nodes.with(Node::default()));
        State { log: List::default(), client, nodes }
    }

    fn steps(&self, state: &State, out: &mut Steps<State>) {
        let &State { client, nodes, .. } = state;
        if client.sent < self.messages && client.sent - client.acked < self.window {
            let (node, sent) = (nodes.at(client.connection), client.sent + 1);
            let node = Node { packets: node.packets.with(sent), ..node };
            let next = State { client: Client { sent, ..client }, nodes: nodes.put(client.connection, node), ..*state };
            out.will(next, || format!("client publishes {sent}"));
        }
        if client.connection + 1 < self.connections {
            let packets = (client.acked + 1..=client.sent).fold(List::default(), List::with);
            let connection = client.connection + 1;
            let nodes = nodes.put(connection, Node { packets, ..Node::default() });
            let next = State { client: Client { connection, ..client }, nodes, ..*state };
            out.may(next, || format!("connection breaks, client reconnects, sends {packets:?} again"));
        }
        for me in 0..=client.connection {
            self.node_steps(state, me, out);
        }
    }

    fn broken(&self, &State { log, client, .. }: &State) -> Option<String> {
        if client.late {
            return Some(format!("OUT OF ORDER: {log:?}"));
        }
        let stale = client.acked == self.messages && log.last() != Some(&self.messages);
        stale.then(|| format!("STALE: all acked, the log is {log:?}"))
    }

    fn at_rest(&self, &State { log, client, .. }: &State) -> Option<String> {
        let good = log.last() == Some(&self.messages) && client.acked == self.messages;
        (!good).then(|| format!("STUCK or STALE: {log:?}"))
    }
}

impl HoldBack {
    fn node_steps(&self, state: &State, me: u8, out: &mut Steps<State>) {
        let &State { log, client, nodes } = state;
        let node = nodes.at(me);
        let lowest = if self.variant == FormerOnly { me.saturating_sub(1) } else { 0 };
        let may_append =
            self.variant == NoHoldBack || nodes.before(me)[usize::from(lowest)..].iter().all(|node| node.done);
        if let Some(&first) = node.packets.first()
            && may_append
            && !node.done
        {
            let node = Node { packets: node.packets.without(0), queue: node.queue.with(first), ..node };
            out.will(State { nodes: nodes.put(me, node), ..*state }, || format!("node {me} appends {first}"));
        }
        if let Some(&first) = node.queue.first() {
            let acked = if me == client.connection { client.acked.max(first) } else { client.acked };
            let client = Client { acked, late: client.late || first < client.acked, ..client };
            let nodes = nodes.put(me, Node { queue: node.queue.without(0), ..node });
            out.will(State { log: log.with(first), client, nodes }, || format!("{first} of node {me} lands"));
        }
        if me < client.connection && !node.done {
            let next = State { nodes: nodes.put(me, Node { done: true, ..Node::default() }), ..*state };
            out.will(next, || format!("node {me} is fenced (F9)"));
            if node.queue.is_empty() {
                out.will(next, || format!("node {me} is final (F)"));
            }
        }
    }
}

fn hold_back(variant: Variant, messages: u8, connections: u8, window: u8) -> HoldBack {
    HoldBack { variant, messages, connections, window }
}

mod good {
    use super::*;

    #[test]
    fn three_messages_over_three_connections() {
        passes(&hold_back(Good, 3, 3, 2), 507);
    }

    #[test]
    fn four_messages_three_in_flight_over_four_connections() {
        passes(&hold_back(Good, 4, 4, 3), 8371);
    }
}

mod broken {
    use super::*;

    #[test]
    fn no_hold_back() {
        fails(&hold_back(NoHoldBack, 2, 2, 2), "OUT OF ORDER", 9);
    }

    #[test]
    fn former_only() {
        fails(&hold_back(FormerOnly, 2, 3, 2), "OUT OF ORDER", 11);
    }
}
