//! The connections of this node by number: where outcomes of appends find their way back.

use std::sync::{Arc, PoisonError, RwLock};

use slab::Slab;

use super::mailbox::Mailbox;

/// Names one connection of this node for as long as the process lives: slots are reused, ids are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

impl ConnectionId {
    /// As one number, for tickets.
    pub const fn as_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// Back from [`ConnectionId::as_u64`].
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    pub const fn from_u64(number: u64) -> Self {
        Self { slot: number as u32, generation: (number >> 32) as u32 }
    }
}

/// The table. Read for every group of acknowledgements, written when connections come and go.
#[derive(Debug)]
pub struct Connections {
    connections_max: usize,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Slab<(u32, Arc<Mailbox>)>,
    last_generation: u32,
}

impl Connections {
    /// An empty table that takes at most `connections_max`.
    pub fn new(connections_max: usize) -> Self {
        Self { connections_max, table: RwLock::default() }
    }

    /// Adds a connection; `None` when the table is full.
    pub fn add(&self, mailbox: Arc<Mailbox>) -> Option<ConnectionId> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.slots.len() >= self.connections_max {
            return None;
        }
        table.last_generation = table.last_generation.wrapping_add(1);
        let generation = table.last_generation;
        let slot = u32::try_from(table.slots.insert((generation, mailbox))).ok()?;
        Some(ConnectionId { slot, generation })
    }

    /// Takes a connection out.
    pub fn remove(&self, id: ConnectionId) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let slot = id.slot as usize;
        if table.slots.get(slot).is_some_and(|(generation, _)| *generation == id.generation) {
            table.slots.remove(slot);
        }
    }

    /// Looks up several connections under one lock.
    pub fn with<R>(&self, work: impl FnOnce(&dyn Fn(ConnectionId) -> Option<Arc<Mailbox>>) -> R) -> R {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        work(&|id| {
            let (generation, mailbox) = table.slots.get(id.slot as usize)?;
            (*generation == id.generation).then(|| Arc::clone(mailbox))
        })
    }

    /// Every mailbox, in slot order.
    pub fn all(&self) -> Vec<Arc<Mailbox>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.slots.iter().map(|(_, (_, mailbox))| Arc::clone(mailbox)).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
