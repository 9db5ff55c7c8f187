//! Retain-flagged publishes on their way to the log: what `mqtt.retained` is to say once they are there (R1).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::journal::{Offset, Partition, Ticket};
use crate::message::Message;

/// Tickets of QoS 0 publishes that are to be retained: they have no other owner.
pub const RETAINS: u64 = u64::MAX - 1;

/// One of them.
#[derive(Debug)]
pub struct Retain {
    /// The message as it is in the log.
    pub message: Message,
    /// Where it is in the log, once that is known.
    pub written: Option<(Partition, Offset)>,
    /// The sample that it belongs to.
    pub tick: u32,
}

/// Shared by the writer, which adds, and the fan-out, which takes.
#[derive(Debug, Default)]
pub struct Retains {
    waiting: Mutex<BTreeMap<Ticket, Retain>>,
    /// So that the path of every acknowledgement looks at one number only.
    count: AtomicUsize,
    tick: AtomicU32,
    next: AtomicU64,
}

impl Retains {
    /// A ticket for one that nobody waits for.
    pub fn ticket(&self) -> Ticket {
        Ticket { owner: RETAINS, sequence: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Adds a publish that is about to be appended.
    pub fn add(&self, ticket: Ticket, message: Message) {
        let mut waiting = self.lock();
        let tick = self.tick.load(Ordering::Acquire);
        waiting.insert(ticket, Retain { message, written: None, tick });
        self.count.store(waiting.len(), Ordering::Release);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// It is in the log; false if it is not one of these.
    pub fn on_written(&self, ticket: Ticket, partition: Partition, offset: Offset) -> bool {
        let mut waiting = self.lock();
        let Some(retain) = waiting.get_mut(&ticket) else { return false };
        retain.written = Some((partition, offset));
        true
    }

    /// Whether it is one of these.
    pub fn has(&self, ticket: Ticket) -> bool {
        self.lock().contains_key(&ticket)
    }

    /// Takes it out: it has become an obligation of the fan-out, or it was not written.
    pub fn take(&self, ticket: Ticket) -> Option<Retain> {
        let mut waiting = self.lock();
        let retain = waiting.remove(&ticket);
        self.count.store(waiting.len(), Ordering::Release);
        retain
    }

    /// From now on what is added belongs to this sample (R4a).
    pub fn set_tick(&self, tick: u32) {
        self.tick.store(tick, Ordering::Release);
    }

    /// The sample that the oldest one belongs to; `u32::MAX` if there is none.
    pub fn oldest_tick(&self) -> u32 {
        if self.is_empty() {
            return u32::MAX;
        }
        self.lock().values().map(|retain| retain.tick).min().unwrap_or(u32::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Ticket, Retain>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
