//! What waits for one connection: outcomes of its appends, answers to its questions, messages for its client.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::mqtt::{PacketId, ReasonCode};
use crate::session::{AppendOutcome, Delivery};

/// Bounds of one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Most messages that wait.
    pub deliveries_max: usize,
    /// Most bytes of messages that wait; one larger message alone is taken.
    pub delivery_bytes_max: usize,
}

impl Default for MailboxLimits {
    fn default() -> Self {
        Self { deliveries_max: 1_000, delivery_bytes_max: 1024 * 1024 }
    }
}

/// Something that the node tells a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The filters of a SUBSCRIBE are in force.
    Followed(PacketId),
    /// The filters of an UNSUBSCRIBE are out of force.
    Unfollowed(PacketId),
    /// The client id connected again.
    TakenOver,
    /// This node shuts down.
    ShuttingDown,
    /// The connection is to end for this reason.
    Evicted(ReasonCode),
}

/// Whether a message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits for the connection.
    Taken,
    /// There is no room.
    Full,
    /// The connection is gone.
    Gone,
}

/// Bounded by [`MailboxLimits`] for messages, by the session's own windows for outcomes and notices.
#[derive(Debug)]
pub struct Mailbox {
    limits: MailboxLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waker: Option<Waker>,
    outcomes: Vec<(u64, AppendOutcome)>,
    notices: Vec<Notice>,
    deliveries: VecDeque<Delivery>,
    delivery_bytes: usize,
    /// Somebody waits to be told that there is room again.
    room_wanted: bool,
    closed: bool,
}

/// What a connection takes out at one wake-up.
#[derive(Debug, Default)]
pub struct Taken {
    /// Outcomes of appends, in the order in which they were decided.
    pub outcomes: Vec<(u64, AppendOutcome)>,
    /// In the order in which they were posted.
    pub notices: Vec<Notice>,
}

impl Mailbox {
    /// An empty one.
    pub fn new(limits: MailboxLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Adds an outcome; returns the waker to be called once the whole group is added.
    pub fn push_outcome(&self, sequence: u64, outcome: AppendOutcome) -> Option<Waker> {
        let mut state = self.lock();
        state.outcomes.push((sequence, outcome));
        state.waker.take()
    }

    /// Adds a notice and wakes the connection.
    pub fn post(&self, notice: Notice) {
        let mut state = self.lock();
        state.notices.push(notice);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes the connection for nothing in particular: it has something to poll.
    pub fn post_nothing(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Adds a message; with it comes the waker to be called once the whole batch is added.
    pub fn push_delivery(&self, delivery: Delivery) -> (Pushed, Option<Waker>) {
        let mut state = self.lock();
        if state.closed {
            return (Pushed::Gone, None);
        }
        let bytes = delivery.bytes();
        let over = state.deliveries.len() >= self.limits.deliveries_max
            || (state.delivery_bytes + bytes > self.limits.delivery_bytes_max && !state.deliveries.is_empty());
        if over {
            return (Pushed::Full, None);
        }
        state.delivery_bytes += bytes;
        state.deliveries.push_back(delivery);
        (Pushed::Taken, state.waker.take())
    }

    /// Asks to be told (by [`Mailbox::pop_delivery`]) when half of the room is free again. True if it is already.
    pub fn want_room(&self) -> bool {
        let mut state = self.lock();
        let free = self.has_half_free(&state);
        state.room_wanted = !free;
        free
    }

    fn has_half_free(&self, state: &State) -> bool {
        state.deliveries.len() * 2 <= self.limits.deliveries_max
            && state.delivery_bytes * 2 <= self.limits.delivery_bytes_max
    }

    /// Takes all outcomes and notices; `waker` is called when something new comes.
    pub fn take(&self, waker: &Waker) -> Taken {
        let mut state = self.lock();
        match &mut state.waker {
            Some(known) => known.clone_from(waker),
            none @ None => *none = Some(waker.clone()),
        }
        Taken { outcomes: std::mem::take(&mut state.outcomes), notices: std::mem::take(&mut state.notices) }
    }

    /// Takes the next message. The flag is true once when somebody asked for room and there is some now.
    pub fn pop_delivery(&self) -> (Option<Delivery>, bool) {
        let mut state = self.lock();
        let delivery = state.deliveries.pop_front();
        if let Some(delivery) = &delivery {
            state.delivery_bytes = state.delivery_bytes.saturating_sub(delivery.bytes());
        }
        if state.deliveries.is_empty() {
            // An idle connection holds no buffers.
            state.deliveries = VecDeque::new();
        }
        let room = state.room_wanted && self.has_half_free(&state);
        if room {
            state.room_wanted = false;
        }
        (delivery, room)
    }

    /// The connection is gone: nothing is taken any more.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.deliveries = VecDeque::new();
        state.delivery_bytes = 0;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
