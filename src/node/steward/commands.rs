//! What connections and the fan-out ask of the steward.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::journal::{Outcome, Partition};
use crate::ledger::state::{Part, Unresolved};
use crate::node::connections::ConnectionId;
use crate::node::fanout::{Reports, WatermarkRound};
use crate::node::mailbox::Mailbox;
use crate::session::{AppendOutcome, Parting, Wish};

#[derive(Debug)]
pub(super) enum Command {
    Claim {
        connection: ConnectionId,
        mailbox: Arc<Mailbox>,
        wish: Box<Wish>,
    },
    Persist {
        connection: ConnectionId,
        sequence: u64,
        part: Box<Part>,
    },
    LookUp {
        connection: ConnectionId,
        sequence: u64,
        topic: Arc<str>,
        unresolved: Vec<Unresolved>,
    },
    Parted {
        connection: ConnectionId,
        parting: Option<Box<Parting>>,
    },
    /// An outcome of a connection that is gone.
    Late {
        connection: ConnectionId,
        sequence: u64,
        outcome: AppendOutcome,
    },
    /// What became of the steward's own appends.
    Outcome {
        sequence: u64,
        outcome: Outcome,
    },
    /// Appends in this partition of messages have an unknown fate.
    Unknown(Partition),
    Leave,
    Watermark(WatermarkRound),
}

/// Bounded by the sessions: each claims once, parts once, has one record of a kind and one look-up under way.
#[derive(Debug, Default)]
pub(super) struct Commands {
    waiting: Mutex<Vec<Command>>,
    closed: AtomicBool,
    some: Notify,
    /// Sessions that this node owns, or that still wait for something.
    owned: AtomicUsize,
}

impl Commands {
    fn push(&self, command: Command) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.some.notify_one();
    }

    pub(super) fn set_owned(&self, owned: usize) {
        self.owned.store(owned, Ordering::Release);
    }

    /// All that wait, in order, as soon as there is one; `None` when the actor is to end. Cancel safe.
    pub(super) async fn take(&self) -> Option<Vec<Command>> {
        loop {
            let batch = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !batch.is_empty() {
                return Some(batch);
            }
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            self.some.notified().await;
        }
    }
}

/// How the rest of the node speaks to the steward. Never waits.
#[derive(Clone, Debug)]
pub struct StewardHandle {
    commands: Arc<Commands>,
}

impl StewardHandle {
    pub(super) fn new(commands: Arc<Commands>) -> Self {
        Self { commands }
    }

    /// A client wants its session; the mailbox hears `Granted`, `Denied` or `TakenOver`.
    pub fn claim(&self, connection: ConnectionId, mailbox: Arc<Mailbox>, wish: Box<Wish>) {
        self.commands.push(Command::Claim { connection, mailbox, wish });
    }

    /// Writes a part of the session's state; the mailbox hears `Persisted` once it was read back as owner (F5).
    pub fn persist(&self, connection: ConnectionId, sequence: u64, part: Part) {
        self.commands.push(Command::Persist { connection, sequence, part: Box::new(part) });
    }

    /// Looks for tokens of `unresolved` in the partition of `topic`; the mailbox hears `LookedUp`.
    pub fn look_up(&self, connection: ConnectionId, sequence: u64, topic: Arc<str>, unresolved: Vec<Unresolved>) {
        self.commands.push(Command::LookUp { connection, sequence, topic, unresolved });
    }

    /// The connection ended; `None` if it never asked for a session.
    pub fn parted(&self, connection: ConnectionId, parting: Option<Box<Parting>>) {
        self.commands.push(Command::Parted { connection, parting });
    }

    /// What became of an append of a connection that is gone.
    pub fn late(&self, connection: ConnectionId, sequence: u64, outcome: AppendOutcome) {
        self.commands.push(Command::Late { connection, sequence, outcome });
    }

    /// What became of an append of the steward.
    pub fn outcome(&self, sequence: u64, outcome: Outcome) {
        self.commands.push(Command::Outcome { sequence, outcome });
    }

    /// Appends in a partition of messages have an unknown fate.
    pub fn unknown(&self, partition: Partition) {
        self.commands.push(Command::Unknown(partition));
    }

    /// Everything of this node is in the log: it says so, and nobody needs to fence it.
    pub fn leave(&self) {
        self.commands.push(Command::Leave);
    }

    /// Whether every session was brought to its end.
    pub fn is_idle(&self) -> bool {
        self.commands.owned.load(Ordering::Acquire) == 0
    }

    /// Ends the actor once it has done what was asked before.
    pub fn close(&self) {
        self.commands.closed.store(true, Ordering::Release);
        self.commands.some.notify_one();
    }
}

impl Reports for StewardHandle {
    fn parted(&self, connection: ConnectionId, parting: Box<Parting>) {
        Self::parted(self, connection, Some(parting));
    }

    fn watermark(&self, round: WatermarkRound) {
        self.commands.push(Command::Watermark(round));
    }
}
