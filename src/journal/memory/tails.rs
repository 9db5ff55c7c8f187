//! Tails: who follows what, from where, and what there is to tell.

use std::collections::{BTreeMap, VecDeque};

use super::appends::Due;
use super::log::{IncarnationId, Place};
use super::partition::Step;
use super::{FaultPlan, MemoryLog};
use crate::journal::{Ends, Isolation, Offset, Partition, TailEvent, TopicIndex};

/// One tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TailId(pub u64);

#[derive(Debug)]
pub(super) struct TailState {
    pub(super) owner: IncarnationId,
    isolation: Isolation,
    following: BTreeMap<Partition, Following>,
    /// Partitions where there may be something new, each once.
    ready: VecDeque<Partition>,
    /// Told before anything else.
    events: VecDeque<TailEvent>,
    /// It hears nothing before.
    pub(super) silent_until_ms: i64,
}

#[derive(Debug)]
struct Following {
    slot: usize,
    next: i64,
    /// The ends last told, or known from what was handed out since.
    told: Option<Ends>,
    queued: bool,
}

impl MemoryLog {
    /// A tail that follows nothing yet.
    pub fn open_tail(&mut self, owner: IncarnationId, isolation: Isolation) -> TailId {
        let id = TailId(self.next_serial());
        let state = TailState {
            owner,
            isolation,
            following: BTreeMap::new(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            silent_until_ms: i64::MIN,
        };
        self.tails.insert(id, state);
        id
    }

    /// Ends a tail.
    pub fn close_tail(&mut self, id: TailId) {
        if let Some(state) = self.tails.remove(&id) {
            for (partition, following) in state.following {
                self.forget_follower(id, partition, following.slot);
            }
        }
        self.woken.remove(&id);
    }

    pub(super) fn close_tails_of(&mut self, owner: IncarnationId) {
        let mut ids = Vec::new();
        ids.extend(self.tails.iter().filter(|(_, tail)| tail.owner == owner).map(|(&id, _)| id));
        for id in ids {
            self.close_tail(id);
        }
    }

    pub(super) fn wake_tails_of(&mut self, owner: IncarnationId) {
        let tails = self.tails.iter().filter(|(_, tail)| tail.owner == owner);
        self.woken.extend(tails.map(|(&id, _)| id));
    }

    /// Follow `partition` from `from` on.
    pub fn follow(&mut self, id: TailId, partition: Partition, from: Offset) {
        self.unfollow(id, partition);
        let Some(tail) = self.tails.get_mut(&id) else { return };
        let incarnation = self.incarnations.get(tail.owner.0);
        let slot = incarnation.and_then(|incarnation| incarnation.slot(partition.topic));
        let log = slot.and_then(|slot| self.topics.get_mut(slot)?.partitions.get_mut(partition.number as usize));
        if let (Some(slot), Some(log)) = (slot, log) {
            log.followers.push((id, partition));
            tail.following.insert(partition, Following { slot, next: from.0, told: None, queued: true });
            tail.ready.push_back(partition);
        } else {
            tail.events.push_back(TailEvent::Gap { partition, why: "the partition does not exist".into() });
        }
        self.woken.insert(id);
    }

    /// Stop following. Events about the partition that were not yet handed out are dropped.
    pub fn unfollow(&mut self, id: TailId, partition: Partition) {
        let Some(tail) = self.tails.get_mut(&id) else { return };
        tail.events.retain(|event| !concerns(event, partition));
        if let Some(following) = tail.following.remove(&partition) {
            if following.queued {
                tail.ready.retain(|&other| other != partition);
            }
            self.forget_follower(id, partition, following.slot);
        }
    }

    /// The next event of a tail; `None` until it is woken again ([`MemoryLog::poll_woken`]).
    pub fn poll_tail(&mut self, id: TailId) -> Option<TailEvent> {
        let owner = self.tails.get(&id)?.owner;
        if self.is_cut_off(owner) {
            return None;
        }
        let tail = self.tails.get_mut(&id)?;
        if let Some(event) = tail.events.pop_front() {
            return Some(event);
        }
        if tail.silent_until_ms > self.now_ms {
            return None;
        }
        while let Some(partition) = self.tails.get_mut(&id).and_then(|tail| tail.ready.pop_front()) {
            if let Some(event) = self.read_on(id, partition) {
                self.delay_tail(id);
                return Some(event);
            }
        }
        None
    }

    /// A tail that may have something to say again, each once. A simulation that polls all tails need not ask.
    pub fn poll_woken(&mut self) -> Option<TailId> {
        self.woken.pop_first()
    }

    /// What a tail finds in one partition; whatever it is, the tail has moved past it.
    fn read_on(&mut self, id: TailId, partition: Partition) -> Option<TailEvent> {
        let tail = self.tails.get_mut(&id)?;
        let following = tail.following.get_mut(&partition)?;
        following.queued = false;
        let log = self.topics.get(following.slot)?.partitions.get(partition.number as usize)?;
        let (position, ends) = (Offset(following.next), log.ends());
        let event = match log.step(following.next, tail.isolation) {
            Step::Below => TailEvent::BelowLogStart { partition, position, log_start: ends.log_start },
            Step::Beyond => TailEvent::Rewound { partition, position, end: ends.high_watermark },
            Step::Nothing if following.told == Some(ends) => return None,
            Step::Nothing => TailEvent::Progress { partition, next: position, ends },
            Step::Skip(next) => TailEvent::Progress { partition, next: Offset(next), ends },
            Step::Batch(_) if self.dice.chance(self.plan.tail_gap_permille) => {
                TailEvent::Gap { partition, why: "the fault plan wanted a gap".into() }
            }
            Step::Batch(batch) => TailEvent::Batch(batch.hand_out(partition, following.next)),
        };
        let next = match &event {
            TailEvent::Batch(batch) => batch.next_offset,
            TailEvent::Progress { next, .. } => *next,
            TailEvent::BelowLogStart { .. }
            | TailEvent::Rewound { .. }
            | TailEvent::Recreated { .. }
            | TailEvent::PartitionsAdded { .. }
            | TailEvent::Gap { .. } => {
                self.unfollow(id, partition);
                return Some(event);
            }
        };
        following.next = next.0;
        following.told = Some(ends);
        following.queued = true;
        tail.ready.push_back(partition);
        Some(event)
    }

    fn delay_tail(&mut self, id: TailId) {
        let FaultPlan { tail_delay_permille, tail_delay_ms_max, .. } = self.plan;
        if self.dice.chance(tail_delay_permille) {
            let delay_ms = self.dice.up_to(tail_delay_ms_max);
            if let Some(tail) = self.tails.get_mut(&id) {
                tail.silent_until_ms = self.now_ms + i64::from(delay_ms);
                self.schedule(delay_ms, Due::WakeTail(id));
            }
        }
    }

    /// Something changed in a partition: its followers look again.
    pub(super) fn wake_followers(&mut self, place: Place) {
        let Self { topics, tails, woken, .. } = self;
        let log = topics.get(place.slot).and_then(|topic| topic.partitions.get(place.number as usize));
        for &(id, partition) in log.into_iter().flat_map(|log| &log.followers) {
            let Some(tail) = tails.get_mut(&id) else { continue };
            let Some(following) = tail.following.get_mut(&partition) else { continue };
            if !following.queued {
                following.queued = true;
                tail.ready.push_back(partition);
            }
            woken.insert(id);
        }
    }

    /// Where each follower of a partition is.
    pub(super) fn followers(&self, place: Place) -> Vec<(TailId, Partition, i64)> {
        let log = self.topics.get(place.slot).and_then(|topic| topic.partitions.get(place.number as usize));
        let position = |id, partition| {
            Some(self.tails.get(&id)?.following.get(&partition)?.next).map(|next| (id, partition, next))
        };
        log.into_iter().flat_map(|log| &log.followers).filter_map(|&(id, partition)| position(id, partition)).collect()
    }

    /// A tail loses its place in a partition.
    pub(super) fn break_off(&mut self, id: TailId, partition: Partition, event: TailEvent) {
        self.unfollow(id, partition);
        self.tell(id, event);
    }

    /// Tells each tail that follows a partition of the kafka topic in `slot`, once.
    pub(super) fn tell_followers(&mut self, slot: usize, event: impl Fn(TopicIndex) -> TailEvent) {
        let mut told = Vec::new();
        for (&id, tail) in &self.tails {
            let topic = tail.following.iter().find(|(_, following)| following.slot == slot);
            told.extend(topic.map(|(partition, _)| (id, event(partition.topic))));
        }
        for (id, event) in told {
            self.tell(id, event);
        }
    }

    fn tell(&mut self, id: TailId, event: TailEvent) {
        if let Some(tail) = self.tails.get_mut(&id) {
            tail.events.push_back(event);
            self.woken.insert(id);
        }
    }

    fn forget_follower(&mut self, id: TailId, partition: Partition, slot: usize) {
        if let Some(log) = self.partition_mut(Place { slot, number: partition.number }) {
            log.followers.retain(|&follower| follower != (id, partition));
        }
    }
}

/// Whether `event` is about this one partition. What concerns a whole kafka topic stays.
fn concerns(event: &TailEvent, partition: Partition) -> bool {
    match event {
        TailEvent::Batch(batch) => batch.partition == partition,
        TailEvent::Progress { partition: whose, .. }
        | TailEvent::BelowLogStart { partition: whose, .. }
        | TailEvent::Rewound { partition: whose, .. }
        | TailEvent::Gap { partition: whose, .. } => *whose == partition,
        TailEvent::Recreated { .. } | TailEvent::PartitionsAdded { .. } => false,
    }
}
