//! What connections ask of the actor.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::mqtt::{ClientId, PacketId, TopicFilter};
use crate::node::connections::ConnectionId;
use crate::node::mailbox::Mailbox;
use crate::session::Follow;

#[derive(Debug)]
pub(super) enum Command {
    Follow {
        connection: ConnectionId,
        client_id: ClientId,
        mailbox: Arc<Mailbox>,
        packet_id: PacketId,
        filters: Vec<Follow>,
    },
    Unfollow {
        connection: ConnectionId,
        packet_id: PacketId,
        filters: Vec<TopicFilter>,
    },
    Gone(ConnectionId),
    /// The mailbox of a lagging connection has room again.
    Room(ConnectionId),
}

/// Bounded by the sessions: each may have a few SUBSCRIBEs unanswered, wants room once and goes once. A channel would
/// make a connection wait for the actor, or lose that it went.
#[derive(Debug, Default)]
pub(super) struct Commands {
    waiting: Mutex<Vec<Command>>,
    closed: std::sync::atomic::AtomicBool,
    some: Notify,
}

impl Commands {
    fn push(&self, command: Command) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.some.notify_one();
    }

    /// All that wait, in order, as soon as there is one; `None` when the actor is to end. Cancel safe.
    pub(super) async fn take(&self) -> Option<Vec<Command>> {
        loop {
            let batch = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !batch.is_empty() {
                return Some(batch);
            }
            if self.closed.load(std::sync::atomic::Ordering::Acquire) {
                return None;
            }
            self.some.notified().await;
        }
    }
}

/// How the rest of the node speaks to the actor. Never waits.
#[derive(Clone, Debug)]
pub struct FanoutHandle {
    commands: Arc<Commands>,
}

impl FanoutHandle {
    pub(super) fn new(commands: Arc<Commands>) -> Self {
        Self { commands }
    }

    /// Brings subscriptions in force; [`super::super::mailbox::Notice::Followed`] says when.
    pub fn follow(
        &self,
        connection: ConnectionId,
        client_id: ClientId,
        mailbox: Arc<Mailbox>,
        packet_id: PacketId,
        filters: Vec<Follow>,
    ) {
        self.commands.push(Command::Follow { connection, client_id, mailbox, packet_id, filters });
    }

    /// Takes subscriptions out of force; [`super::super::mailbox::Notice::Unfollowed`] says when.
    pub fn unfollow(&self, connection: ConnectionId, packet_id: PacketId, filters: Vec<TopicFilter>) {
        self.commands.push(Command::Unfollow { connection, packet_id, filters });
    }

    /// The connection ended.
    pub fn gone(&self, connection: ConnectionId) {
        self.commands.push(Command::Gone(connection));
    }

    /// The connection's mailbox has room again.
    pub fn room(&self, connection: ConnectionId) {
        self.commands.push(Command::Room(connection));
    }

    /// Ends the actor once it has done what was asked before.
    pub fn close(&self) {
        self.commands.closed.store(true, std::sync::atomic::Ordering::Release);
        self.commands.some.notify_one();
    }
}
