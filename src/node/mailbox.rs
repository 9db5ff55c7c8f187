//! What waits for one connection: outcomes of its appends, answers to its questions, messages for its client.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::ledger::ids::{Nonce, Place, Token};
use crate::ledger::state::Inbound;
use crate::mqtt::{PacketId, QoS, ReasonCode};
use crate::session::{AppendOutcome, Delivery, Grant, Starts};

/// Instead of a tick: there is nothing that has one.
pub const NO_TICK: u32 = u32::MAX;

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
///
/// A `from` is the session's whole position: where each partition that its subscriptions touch goes on, lowered to what
/// waits in this mailbox when the notice is taken out. What the session has taken out before and still owes the client
/// it lowers it to itself. Empty for a session that does not outlive its connection.
#[derive(Clone, Debug)]
pub enum Notice {
    /// The filters of a SUBSCRIBE are in force.
    Followed {
        /// Of the SUBSCRIBE.
        packet_id: PacketId,
        /// The position with them.
        from: Vec<(Place, i64)>,
        /// Where the new ones start. Empty for a session that does not outlive its connection.
        starts: Starts,
    },
    /// The filters of an UNSUBSCRIBE are out of force.
    Unfollowed {
        /// Of the UNSUBSCRIBE.
        packet_id: PacketId,
        /// The position without them.
        from: Vec<(Place, i64)>,
    },
    /// The session starts or ceases to follow the node's watermark, or its position changed for another reason: to be
    /// written (DESIGN §5.1).
    Positions {
        /// Whether the watermark counts from now on.
        following: bool,
        /// The position.
        from: Vec<(Place, i64)>,
    },
    /// The session is the connection's.
    Granted(Box<Grant>),
    /// It is not, for this reason.
    Denied(ReasonCode),
    /// The part with this sequence was written and read back.
    Persisted(u64),
    /// Every lower nonce is final or fenced; with the state of those that ended with a final record.
    Settled(Vec<(Nonce, Option<Inbound>)>),
    /// One partition was looked through.
    LookedUp {
        /// Of the question.
        sequence: u64,
        /// Which partition.
        place: Place,
        /// The tokens that are there.
        found: Vec<Token>,
    },
    /// What is not recorded yet of QoS 2 from the client is to be recorded.
    Tick,
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
    deliveries_max: u32,
    delivery_bytes_max: u32,
    /// The oldest tick of what was taken out and is not acknowledged; lowered only under the lock.
    unacked_tick: AtomicU32,
    unrecorded_tick: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waker: Option<Waker>,
    outcomes: Vec<(u64, AppendOutcome)>,
    notices: Vec<Notice>,
    deliveries: VecDeque<Delivery>,
    delivery_bytes: usize,
    /// Somebody waits to be told that there is room for so many bytes; 0: nobody.
    room_wanted: u32,
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
        Self {
            deliveries_max: saturated(limits.deliveries_max),
            delivery_bytes_max: saturated(limits.delivery_bytes_max),
            unacked_tick: AtomicU32::new(NO_TICK),
            unrecorded_tick: AtomicU32::new(NO_TICK),
            state: Mutex::default(),
        }
    }

    /// Adds an outcome; returns the waker to be called once the whole group is added.
    pub fn push_outcome(&self, sequence: u64, outcome: AppendOutcome) -> Option<Waker> {
        let mut state = self.lock();
        state.outcomes.push((sequence, outcome));
        state.waker.take()
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
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
        if !self.has_room(&state, bytes) {
            return (Pushed::Full, None);
        }
        state.delivery_bytes += bytes;
        state.deliveries.push_back(delivery);
        (Pushed::Taken, state.waker.take())
    }

    /// [`Mailbox::push_delivery`] of something that can wait: it takes no more than half of the room.
    pub fn push_behind(&self, delivery: Delivery) -> (Pushed, Option<Waker>) {
        if !self.has_half_free(&self.lock()) {
            return (Pushed::Full, None);
        }
        self.push_delivery(delivery)
    }

    /// Asks to be told (by [`Mailbox::pop_delivery`]) when half of the room is free again and a message of `bytes` has
    /// room. True if it is already so.
    pub fn want_room(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        let free = self.has_half_free(&state) && self.has_room(&state, bytes);
        state.room_wanted = if free { 0 } else { saturated(bytes).max(1) };
        free
    }

    fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.deliveries.len() < self.deliveries_max as usize
            && (state.delivery_bytes + bytes <= self.delivery_bytes_max as usize || state.deliveries.is_empty())
    }

    fn has_half_free(&self, state: &State) -> bool {
        state.deliveries.len() * 2 <= self.deliveries_max as usize
            && state.delivery_bytes * 2 <= self.delivery_bytes_max as usize
    }

    /// Takes all outcomes and notices; `waker` is called when something new comes.
    pub fn take(&self, waker: &Waker) -> Taken {
        let mut state = self.lock();
        match &mut state.waker {
            Some(known) => known.clone_from(waker),
            none @ None => *none = Some(waker.clone()),
        }
        let mut notices = std::mem::take(&mut state.notices);
        for notice in &mut notices {
            match notice {
                Notice::Followed { from, .. } | Notice::Unfollowed { from, .. } | Notice::Positions { from, .. } => {
                    lower_to_waiting(&state, from);
                }
                Notice::Granted(_)
                | Notice::Denied(_)
                | Notice::Persisted(_)
                | Notice::Settled(_)
                | Notice::LookedUp { .. }
                | Notice::Tick
                | Notice::TakenOver
                | Notice::ShuttingDown
                | Notice::Evicted(_) => {}
            }
        }
        Taken { outcomes: std::mem::take(&mut state.outcomes), notices }
    }

    /// Takes the next message. The flag is true once when somebody asked for room and there is some now.
    pub fn pop_delivery(&self) -> (Option<Delivery>, bool) {
        let mut state = self.lock();
        let delivery = state.deliveries.pop_front();
        if let Some(delivery) = &delivery {
            state.delivery_bytes = state.delivery_bytes.saturating_sub(delivery.bytes());
            if delivery.qos > QoS::AtMostOnce && delivery.tick < self.unacked_tick.load(Ordering::Relaxed) {
                self.unacked_tick.store(delivery.tick, Ordering::Relaxed);
            }
        }
        if state.deliveries.is_empty() {
            // An idle connection holds no buffers.
            state.deliveries = VecDeque::new();
        }
        let wanted = state.room_wanted as usize;
        let room = wanted > 0 && self.has_half_free(&state) && self.has_room(&state, wanted);
        if room {
            state.room_wanted = 0;
        }
        (delivery, room)
    }

    /// How far the session is, to be said at the end of each turn of its connection: the oldest tick of the messages
    /// that were taken out and not acknowledged ([`Delivery::tick`]), and the oldest tick of its own QoS 2 publishes
    /// that are not recorded; [`NO_TICK`] where there is none.
    pub fn set_progress(&self, unacked_tick: u32, unrecorded_tick: u32) {
        // Only the connection takes messages out, so nothing was lowered since it looked.
        self.unacked_tick.store(unacked_tick, Ordering::Relaxed);
        self.unrecorded_tick.store(unrecorded_tick, Ordering::Relaxed);
    }

    /// The oldest tick of a message of QoS 1 or 2 that waits here or is not acknowledged; [`NO_TICK`] if there is none.
    pub fn oldest_tick(&self) -> u32 {
        let state = self.lock();
        let waiting = must_arrive(&state).map(|delivery| delivery.tick).min();
        waiting.unwrap_or(NO_TICK).min(self.unacked_tick.load(Ordering::Relaxed))
    }

    /// The oldest tick of the client's QoS 2 publishes that are not recorded; [`NO_TICK`] if there is none.
    pub fn oldest_token_tick(&self) -> u32 {
        self.unrecorded_tick.load(Ordering::Relaxed)
    }

    /// Lowers a position to what waits here, also after [`Mailbox::close`].
    pub fn lower(&self, from: &mut [(Place, i64)]) {
        lower_to_waiting(&self.lock(), from);
    }

    /// The connection is gone: nothing is taken any more. What waits is kept until its position was found.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn must_arrive(state: &State) -> impl Iterator<Item = &Delivery> {
    state.deliveries.iter().filter(|delivery| delivery.qos > QoS::AtMostOnce)
}

fn lower_to_waiting(state: &State, from: &mut [(Place, i64)]) {
    if from.is_empty() {
        return;
    }
    for origin in must_arrive(state).filter_map(|delivery| delivery.origin) {
        if let Some((_, offset)) = from.iter_mut().find(|(place, _)| *place == origin.place) {
            *offset = origin.offset.min(*offset);
        }
    }
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;
    use crate::ledger::ids::Origin;
    use crate::message::{Content, Message, Stamp};
    use crate::mqtt::packet::PublishProperties;

    const HERE: Place = Place { topic: 7, partition: 1 };
    const THERE: Place = Place { topic: 7, partition: 2 };

    fn delivery(qos: QoS, place: Place, offset: i64, tick: u32, bytes: usize) -> Delivery {
        let payload = vec![0; bytes];
        let properties = PublishProperties::default();
        let content = Content { qos, retain: false, properties: &properties, payload: &payload };
        Delivery {
            message: Message::new("t", content, Stamp::default()),
            qos,
            retain: false,
            subscription_ids: SmallVec::new(),
            origin: Some(Origin { place, offset }),
            tick,
        }
    }

    fn push(mailbox: &Mailbox, qos: QoS, place: Place, offset: i64, tick: u32) -> Pushed {
        mailbox.push_delivery(delivery(qos, place, offset, tick, 1)).0
    }

    fn positions(mailbox: &Mailbox) -> Vec<(Place, i64)> {
        let mut taken = mailbox.take(Waker::noop()).notices;
        let Some(Notice::Positions { from, .. }) = taken.pop() else { panic!("no positions") };
        from
    }

    #[test]
    fn a_position_is_lowered_to_what_waits_when_it_is_taken_out() {
        let mailbox = Mailbox::new(MailboxLimits::default());
        push(&mailbox, QoS::AtMostOnce, HERE, 3, 1);
        push(&mailbox, QoS::AtLeastOnce, HERE, 5, 1);
        push(&mailbox, QoS::AtLeastOnce, HERE, 4, 1);
        mailbox.post(Notice::Positions { following: true, from: vec![(HERE, 9), (THERE, 2)] });
        assert_eq!(positions(&mailbox), [(HERE, 4), (THERE, 2)]);
        while mailbox.pop_delivery().0.is_some() {}
        mailbox.post(Notice::Positions { following: true, from: vec![(HERE, 9)] });
        assert_eq!(positions(&mailbox), [(HERE, 9)]);
    }

    #[test]
    fn what_waited_at_the_end_still_lowers_the_position() {
        let mailbox = Mailbox::new(MailboxLimits::default());
        push(&mailbox, QoS::ExactlyOnce, THERE, 5, 1);
        mailbox.close();
        assert_eq!(push(&mailbox, QoS::ExactlyOnce, THERE, 1, 1), Pushed::Gone);
        let mut from = [(HERE, 9), (THERE, 6)];
        mailbox.lower(&mut from);
        assert_eq!(from, [(HERE, 9), (THERE, 5)]);
    }

    #[test]
    fn the_oldest_tick_is_that_of_what_waits_or_was_taken_until_the_session_says_otherwise() {
        let mailbox = Mailbox::new(MailboxLimits::default());
        assert_eq!(mailbox.oldest_tick(), NO_TICK);
        push(&mailbox, QoS::AtMostOnce, HERE, 0, 1);
        assert_eq!(mailbox.oldest_tick(), NO_TICK);
        push(&mailbox, QoS::AtLeastOnce, HERE, 1, 4);
        push(&mailbox, QoS::AtLeastOnce, HERE, 2, 3);
        assert_eq!(mailbox.oldest_tick(), 3);
        while mailbox.pop_delivery().0.is_some() {}
        assert_eq!(mailbox.oldest_tick(), 3, "taken out is not acknowledged");
        mailbox.set_progress(4, 2);
        assert_eq!((mailbox.oldest_tick(), mailbox.oldest_token_tick()), (4, 2));
        mailbox.set_progress(NO_TICK, NO_TICK);
        assert_eq!((mailbox.oldest_tick(), mailbox.oldest_token_tick()), (NO_TICK, NO_TICK));
    }

    #[test]
    fn room_is_there_only_when_the_message_that_wants_it_fits() {
        let mailbox = Mailbox::new(MailboxLimits { deliveries_max: 10, delivery_bytes_max: 2_000 });
        mailbox.push_delivery(delivery(QoS::AtLeastOnce, HERE, 0, 1, 500));
        mailbox.push_delivery(delivery(QoS::AtLeastOnce, HERE, 1, 1, 100));
        let large = delivery(QoS::AtLeastOnce, HERE, 2, 1, 1_900);
        let bytes = large.bytes();
        assert_eq!(mailbox.push_delivery(large).0, Pushed::Full);
        assert!(!mailbox.want_room(bytes), "half is free, but not enough");
        assert!(!mailbox.pop_delivery().1);
        assert!(mailbox.pop_delivery().1, "the largest message has room in an empty mailbox");
    }
}
