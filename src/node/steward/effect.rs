//! What the steward's core asks of its shell, and what it hears.

use std::sync::Arc;

use crate::journal::{Outcome, Partition};
use crate::ledger::ids::{Incarnation, Nonce, Origin, Token};
use crate::node::connections::ConnectionId;
use crate::node::mailbox::{Mailbox, Notice};
use crate::session::OwnedPublish;

/// A kafka topic of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Log {
    Sessions,
    Cluster,
}

/// What happens outside.
#[derive(Debug)]
pub(super) enum Input<'a> {
    /// The own tail read a record.
    Record { log: Log, partition: u32, offset: i64, append_ms: i64, key: &'a [u8], value: Option<&'a [u8]> },
    /// What became of an append.
    Outcome { sequence: u64, outcome: Outcome },
    /// Ends of all message partitions, asked for as `ask`; `None`: no answer.
    Ends { ask: u64, ends: Vec<Origin> },
    /// What a look through a partition found.
    Scanned { scan: u64, found: Vec<Token> },
    /// A dead node's producer is fenced everywhere, or not yet.
    FencedAt { incarnation: Incarnation, everywhere: bool },
    /// The producers of nodes that ended are fenced in this `mqtt.sessions`, as far as Kafka lets this node.
    FencedAnew { topic_id: u128 },
}

/// What must happen outside, in order.
#[derive(Debug)]
pub(super) enum Effect {
    /// Append a state record; its outcome comes under `sequence`, which is 0 if nobody waits.
    Append { sequence: u64, log: Log, partition: u32, key: Vec<u8>, value: Option<Vec<u8>> },
    /// Append a will.
    AppendWill { sequence: u64, publish: OwnedPublish, token: Token, publisher: Arc<str> },
    /// Tell a connection.
    Tell { mailbox: Arc<Mailbox>, notice: Notice },
    /// Append a record that readers drop to a partition of messages.
    ProbeMessages { sequence: u64, partition: Partition },
    /// Ask where every message partition ends.
    AskEnds { ask: u64 },
    /// Look for tokens of `nonces` in `partition` from `from` to its high watermark.
    Scan { scan: u64, partition: Partition, from: i64, nonces: Vec<Nonce> },
    /// Fence a dead node's producer in every partition that a node may write.
    Fence { incarnation: Incarnation, producer_id: i64 },
    /// Fence producers in every partition of `mqtt.sessions`, which is new.
    FenceAnew { topic_id: u128, producer_ids: Vec<i64> },
    /// Every outcome of a connection that is gone is there.
    Drained(ConnectionId),
    /// May the node append, and take sessions over?
    Suspend(bool),
    /// This incarnation is over: the process must end.
    Exit { why: &'static str },
}
