//! What connections ask of the actor.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::journal::{Outcome, Partition, Ticket};
use crate::ledger::ids::Place;
use crate::mqtt::{ClientId, PacketId, TopicFilter};
use crate::node::connections::ConnectionId;
use crate::node::mailbox::Mailbox;
use crate::session::{Follow, Parting};

#[derive(Debug)]
pub(super) enum Command {
    Follow {
        subscriber: Subscriber,
        packet_id: PacketId,
        filters: Vec<Follow>,
    },
    Unfollow {
        connection: ConnectionId,
        packet_id: PacketId,
        filters: Vec<TopicFilter>,
    },
    Resume {
        subscriber: Subscriber,
        filters: Vec<Follow>,
        from: Vec<(Place, i64)>,
    },
    Gone {
        connection: ConnectionId,
        parting: Option<Box<Parting>>,
    },
    /// Outcomes of appends find their way.
    Begin,
    /// A retain-flagged publish is in the log.
    Retain(Ticket),
    /// Nobody knows whether a retain-flagged publish is in the log.
    DoubtRetain(Ticket, Partition),
    /// What became of an append to `mqtt.retained`.
    Retained(u64, Outcome),
    /// The mailbox of a lagging connection has room again.
    Room(ConnectionId),
}

/// Who subscribes.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) connection: ConnectionId,
    pub(super) client_id: ClientId,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) durable: bool,
}

/// Bounded by the sessions: each may have a few SUBSCRIBEs unanswered, resumes once, wants room once and goes once. A
/// channel would make a connection wait for the actor, or lose that it went.
#[derive(Debug, Default)]
pub(super) struct Commands {
    waiting: Mutex<Vec<Command>>,
    closed: AtomicBool,
    ended: AtomicBool,
    some: Notify,
}

impl Commands {
    fn push(&self, command: Command) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.some.notify_one();
    }

    /// Resolves when there may be something to take. Cancel safe.
    pub(super) async fn some(&self) {
        self.some.notified().await;
    }

    /// All that wait, in order; `None` when there is nothing and the actor is to end.
    pub(super) fn take(&self) -> Option<Vec<Command>> {
        let batch = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        (!batch.is_empty() || !self.closed.load(Ordering::Acquire)).then_some(batch)
    }

    /// The actor does nothing any more.
    pub(super) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// How the rest of the node speaks to the actor. Never waits.
#[derive(Clone, Debug)]
pub struct FanoutHandle {
    commands: Arc<Commands>,
    tick: Arc<AtomicU32>,
}

impl FanoutHandle {
    pub(super) fn new(commands: Arc<Commands>, tick: Arc<AtomicU32>) -> Self {
        Self { commands, tick }
    }

    /// Brings subscriptions in force; [`super::super::mailbox::Notice::Followed`] says when. `durable`: the session
    /// outlives its connection, so its position matters. One that begins like this follows the watermark from the start.
    pub fn follow(
        &self,
        connection: ConnectionId,
        client_id: ClientId,
        mailbox: Arc<Mailbox>,
        packet_id: PacketId,
        filters: Vec<Follow>,
        durable: bool,
    ) {
        let subscriber = Subscriber { connection, client_id, mailbox, durable };
        self.commands.push(Command::Follow { subscriber, packet_id, filters });
    }

    /// Takes subscriptions out of force; [`super::super::mailbox::Notice::Unfollowed`] says when.
    pub fn unfollow(&self, connection: ConnectionId, packet_id: PacketId, filters: Vec<TopicFilter>) {
        self.commands.push(Command::Unfollow { connection, packet_id, filters });
    }

    /// Brings all subscriptions of an inherited session in force and hands over what is in the log from `from` on. A
    /// partition that is not in `from` did not exist then. To be called before any other subscription of the connection;
    /// it does not follow the watermark until [`super::super::mailbox::Notice::Positions`] says so.
    pub fn resume(
        &self,
        connection: ConnectionId,
        client_id: ClientId,
        mailbox: Arc<Mailbox>,
        filters: Vec<Follow>,
        from: Vec<(Place, i64)>,
        durable: bool,
    ) {
        let subscriber = Subscriber { connection, client_id, mailbox, durable };
        self.commands.push(Command::Resume { subscriber, filters, from });
    }

    /// The connection ended, and its mailbox is closed. What it leaves behind goes on to
    /// [`super::Reports::parted`], with the position filled in.
    pub fn gone(&self, connection: ConnectionId, parting: Option<Box<Parting>>) {
        self.commands.push(Command::Gone { connection, parting });
    }

    /// Outcomes of appends find their way here: retained messages may begin.
    pub fn begin(&self) {
        self.commands.push(Command::Begin);
    }

    /// A retain-flagged publish is in the log (R1).
    pub fn retain(&self, ticket: Ticket) {
        self.commands.push(Command::Retain(ticket));
    }

    /// Nobody knows whether a retain-flagged publish is in the log.
    pub(in crate::node) fn doubt_retain(&self, ticket: Ticket, partition: Partition) {
        self.commands.push(Command::DoubtRetain(ticket, partition));
    }

    /// What became of an append to `mqtt.retained`.
    pub(in crate::node) fn retained(&self, sequence: u64, outcome: Outcome) {
        self.commands.push(Command::Retained(sequence, outcome));
    }

    /// The connection's mailbox has room again.
    pub fn room(&self, connection: ConnectionId) {
        self.commands.push(Command::Room(connection));
    }

    /// Counts the watermarks: what was handed over at a tick is older than the sample taken at the next one. Never 0.
    pub fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Ends the actor once it has done what was asked before.
    pub fn close(&self) {
        self.commands.closed.store(true, Ordering::Release);
        self.commands.some.notify_one();
    }

    /// Whether it has ended: nothing is appended to `mqtt.retained` any more.
    pub fn has_ended(&self) -> bool {
        self.commands.ended.load(Ordering::Acquire)
    }
}
