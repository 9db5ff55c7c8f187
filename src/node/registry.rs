//! One connection per client id on this node [MQTT-3.1.4-3].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::connections::ConnectionId;
use super::mailbox::{Mailbox, Notice};
use crate::mqtt::ClientId;

/// Client id → the connection that has it. The newest wins.
#[derive(Debug, Default)]
pub struct Registry {
    owners: Mutex<HashMap<ClientId, (ConnectionId, Arc<Mailbox>)>>,
}

impl Registry {
    /// Makes `id` the client's only connection; the one before is told. True if there was one.
    pub fn register(&self, client_id: ClientId, id: ConnectionId, mailbox: Arc<Mailbox>) -> bool {
        let before = self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(client_id, (id, mailbox));
        if let Some((_, old)) = &before {
            old.post(Notice::TakenOver);
        }
        before.is_some()
    }

    /// Takes the client id away from `id`, if it still has it.
    pub fn unregister(&self, client_id: &ClientId, id: ConnectionId) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.get(client_id).is_some_and(|(owner, _)| *owner == id) {
            owners.remove(client_id);
        }
    }

    /// How many client ids have a connection.
    pub fn len(&self) -> usize {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
