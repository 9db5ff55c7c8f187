//! Appends: from an incarnation's open groups into the log, and their outcomes back.

use std::collections::{BTreeMap, VecDeque};

use super::group::{Group, Sealed};
use super::log::{IncarnationId, Place};
use super::partition::{Fate, Writing};
use super::tails::TailId;
use super::{Limits, MemoryLog};
use crate::journal::batch::encode::record_len_max;
use crate::journal::{AckGroup, NotTaken, Offset, Outcome, Partition, Refusal, Ticket, TopicIndex};
use crate::message::RecordRef;

/// An incarnation writes with this epoch; fences are above it.
const EPOCH: i16 = 0;

/// What became of a group of appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Where they were to go.
    pub partition: Partition,
    /// What became of them.
    pub outcome: Outcome,
    /// In the order of the appends.
    pub tickets: Vec<Ticket>,
}

impl Acked {
    /// As the journal hands it out.
    pub fn group(&self) -> AckGroup<'_> {
        AckGroup { partition: self.partition, outcome: self.outcome, tickets: &self.tickets }
    }
}

/// Whether an incarnation may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Closed,
    Fenced,
    /// Its process is gone: nobody hears its outcomes.
    Crashed,
}

#[derive(Debug)]
pub(super) struct Incarnation {
    pub(super) names: Vec<String>,
    pub(super) slots: Vec<Option<usize>>,
    pub(super) producer_id: i64,
    pub(super) standing: Standing,
    pub(super) pending_bytes: usize,
    /// Since when nothing passes between it and the log.
    pub(super) cut_off_at_ms: Option<i64>,
    /// How many appends were taken.
    taken: u64,
    /// An append was not taken, and not half of the budget has become free since.
    full: bool,
    pub(super) lanes: BTreeMap<Partition, Lane>,
    /// Groups to these kafka topics take at least so long, in milliseconds.
    pub(super) slow: BTreeMap<TopicIndex, u32>,
    acks: VecDeque<Acked>,
}

impl Incarnation {
    pub(super) fn new(names: Vec<String>, producer_id: i64) -> Self {
        Self {
            names,
            slots: Vec::new(),
            producer_id,
            standing: Standing::Open,
            pending_bytes: 0,
            cut_off_at_ms: None,
            taken: 0,
            full: false,
            lanes: BTreeMap::new(),
            slow: BTreeMap::new(),
            acks: VecDeque::new(),
        }
    }

    pub(super) fn slot(&self, topic: TopicIndex) -> Option<usize> {
        self.slots.get(usize::from(topic.0)).copied().flatten()
    }
}

/// An incarnation's way into one partition: one group at a time, so that order holds.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) open: VecDeque<Group>,
    pub(super) under_way: Option<UnderWay>,
    /// Answered `Unknown`; they may still land, in this order, as long as nothing later of this lane has.
    late: VecDeque<Late>,
    /// In [`MemoryLog::ready`].
    pub(super) queued: bool,
}

impl Lane {
    fn push(
        &mut self,
        record: &RecordRef<'_>,
        ticket: Ticket,
        doomed: Option<Refusal>,
        taken: Taken,
        limits: &Limits,
    ) -> usize {
        if let Some(group) = self.open.back_mut()
            && doomed.is_none()
            && group.doomed.is_none()
            && group.bytes.len() < limits.group_bytes
        {
            return group.push(record, Some(ticket));
        }
        let mut group = Group { doomed, first_taken: taken.count, taken_at_ms: taken.at_ms, ..Group::default() };
        let charge = group.push(record, Some(ticket));
        self.open.push_back(group);
        charge
    }
}

/// Which append of its incarnation it is, and when it was taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    count: u64,
    at_ms: i64,
}

/// A group on its way.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) serial: u64,
    pub(super) sealed: Sealed,
    pub(super) tickets: Vec<Ticket>,
    first_taken: u64,
    pub(super) taken_at_ms: i64,
    pub(super) charged_bytes: usize,
    course: Course,
    /// Set once it has reached the log.
    landed: Option<Result<Offset, Refusal>>,
    /// What does not happen as long as its incarnation is cut off.
    pub(super) held: Option<Held>,
}

/// What is held up between an incarnation and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// The group itself.
    Arrival,
    /// The answer to it.
    Answer,
}

/// What will become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Written,
    Refused(Refusal),
    UnknownLanded,
    UnknownLost,
    UnknownLate,
}

#[derive(Debug)]
struct Late {
    serial: u64,
    sealed: Sealed,
}

/// What happens at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Arrive { id: IncarnationId, partition: Partition, serial: u64 },
    Answer { id: IncarnationId, partition: Partition, serial: u64 },
    LandLate { id: IncarnationId, partition: Partition, serial: u64 },
    WakeTail(TailId),
    Expire { id: IncarnationId },
}

impl MemoryLog {
    /// Takes a record; its outcome comes from [`MemoryLog::poll_acks`] after [`MemoryLog::advance`].
    ///
    /// # Errors
    /// It was not taken: no outcome will come.
    pub fn append(
        &mut self,
        id: IncarnationId,
        ticket: Ticket,
        partition: Partition,
        record: &RecordRef<'_>,
    ) -> Result<(), NotTaken> {
        let now_ms = self.now_ms;
        let incarnation = self.incarnations.get_mut(id.0).ok_or(NotTaken::Closed)?;
        if incarnation.standing != Standing::Open {
            return Err(NotTaken::Closed);
        }
        let slot = incarnation.slot(partition.topic).ok_or(NotTaken::NoSuchPartition)?;
        let topic = self.topics.get(slot).ok_or(NotTaken::NoSuchPartition)?;
        if partition.number as usize >= topic.partitions.len() {
            return Err(NotTaken::NoSuchPartition);
        }
        let bytes = record_len_max(record);
        if bytes > self.limits.record_bytes_max {
            return Err(NotTaken::TooLarge);
        }
        if incarnation.pending_bytes + bytes > self.limits.append_bytes_max {
            incarnation.full = true;
            return Err(NotTaken::Full);
        }
        let lane = incarnation.lanes.entry(partition).or_default();
        incarnation.taken += 1;
        let doomed = topic.refusal(record, bytes);
        let taken = Taken { count: incarnation.taken, at_ms: now_ms };
        let was_idle = incarnation.pending_bytes == 0;
        incarnation.pending_bytes += lane.push(record, ticket, doomed, taken, &self.limits);
        if incarnation.cut_off_at_ms.is_some() {
            if was_idle {
                self.schedule_expiry(id);
            }
        } else if !lane.queued && lane.under_way.is_none() {
            lane.queued = true;
            self.ready.push_back((id, partition));
        }
        Ok(())
    }

    /// The next outcome for an incarnation.
    pub fn poll_acks(&mut self, id: IncarnationId) -> Option<Acked> {
        self.incarnations.get_mut(id.0)?.acks.pop_front()
    }

    /// Whether an append that was not taken for want of room would be taken now.
    pub fn has_room(&self, id: IncarnationId) -> bool {
        self.incarnations.get(id.0).is_none_or(|incarnation| !incarnation.full)
    }

    /// Whether everything taken of an incarnation has had its outcome ([`MemoryLog::poll_acks`] may still hold it).
    pub fn is_settled(&self, id: IncarnationId) -> bool {
        self.incarnations.get(id.0).is_none_or(|incarnation| incarnation.pending_bytes == 0)
    }

    /// How many appends of an incarnation were taken so far.
    pub fn taken(&self, id: IncarnationId) -> u64 {
        self.incarnations.get(id.0).map_or(0, |incarnation| incarnation.taken)
    }

    /// Whether the first `taken` appends of an incarnation have had their outcomes.
    pub fn is_settled_up_to(&self, id: IncarnationId, taken: u64) -> bool {
        self.incarnations.get(id.0).is_none_or(|incarnation| {
            incarnation.lanes.values().all(|lane| {
                let under_way = lane.under_way.as_ref().map(|group| group.first_taken);
                let waiting = lane.open.front().map(|group| group.first_taken);
                under_way.or(waiting).is_none_or(|first| first > taken)
            })
        })
    }

    /// Whether there are outcomes to poll for an incarnation.
    pub fn has_acks(&self, id: IncarnationId) -> bool {
        self.incarnations.get(id.0).is_some_and(|incarnation| !incarnation.acks.is_empty())
    }

    /// Takes no more appends of this incarnation; those taken get their outcomes.
    pub fn close(&mut self, id: IncarnationId) {
        if let Some(incarnation) = self.incarnations.get_mut(id.0)
            && incarnation.standing == Standing::Open
        {
            incarnation.standing = Standing::Closed;
        }
    }

    /// The incarnation's process is killed: no more outcomes, its tails end, what it had not sent is gone; what was under
    /// way may still land, now or within [`FaultPlan::late_ms_max`](super::FaultPlan::late_ms_max).
    pub fn crash(&mut self, id: IncarnationId) {
        let Some(incarnation) = self.incarnations.get_mut(id.0) else { return };
        incarnation.standing = Standing::Crashed;
        incarnation.cut_off_at_ms = None;
        incarnation.pending_bytes = 0;
        incarnation.full = false;
        incarnation.acks.clear();
        let mut under_way = Vec::new();
        for (&partition, lane) in &mut incarnation.lanes {
            lane.open.clear();
            under_way.extend(lane.under_way.take().map(|group| (partition, group)));
        }
        for (partition, UnderWay { sealed, course, landed, .. }) in under_way {
            let may_land = landed.is_none() && !matches!(course, Course::Refused(_) | Course::UnknownLost);
            if may_land && self.dice.coin() {
                self.make_late(id, partition, sealed);
            }
        }
        self.close_tails_of(id);
    }

    /// The next group of a lane sets out.
    pub(super) fn send(&mut self, id: IncarnationId, partition: Partition) {
        let Some(serial) = self.set_out(id, partition, None) else { return };
        let slow_ms = self.slowness_ms(id, partition.topic);
        match self.dice.up_to(self.plan.append_delay_ms_max).saturating_add(slow_ms) {
            0 => self.on_arrival(id, partition, serial),
            delay_ms => self.schedule(delay_ms, Due::Arrive { id, partition, serial }),
        }
    }

    /// The next group of a lane is under way.
    pub(super) fn set_out(&mut self, id: IncarnationId, partition: Partition, held: Option<Held>) -> Option<u64> {
        let serial = self.next_serial();
        let lane = self.lane_mut(id, partition)?;
        lane.queued = false;
        let mut group = lane.open.pop_front()?;
        let tickets = std::mem::take(&mut group.tickets);
        let Group { doomed, charged_bytes, first_taken, taken_at_ms, .. } = group;
        let course = doomed.map_or_else(|| self.draw_course(), Course::Refused);
        let sealed = group.seal();
        let under_way =
            UnderWay { serial, sealed, tickets, first_taken, taken_at_ms, charged_bytes, course, landed: None, held };
        self.lane_mut(id, partition)?.under_way = Some(under_way);
        Some(serial)
    }

    fn draw_course(&mut self) -> Course {
        let Self { plan, dice, .. } = self;
        if dice.chance(plan.refused_permille) {
            Course::Refused(match dice.up_to(2) {
                0 => Refusal::Deadline,
                1 => Refusal::NotAuthorized,
                _ => Refusal::Invalid,
            })
        } else if dice.chance(plan.unknown_landed_permille) {
            Course::UnknownLanded
        } else if dice.chance(plan.unknown_lost_permille) {
            Course::UnknownLost
        } else if dice.chance(plan.unknown_late_permille) {
            Course::UnknownLate
        } else {
            Course::Written
        }
    }

    /// A group reaches the leader of its partition, or would have.
    pub(super) fn on_arrival(&mut self, id: IncarnationId, partition: Partition, serial: u64) {
        let is_cut_off = self.is_cut_off(id);
        if self.under_way(id, partition, serial).is_none() {
            return;
        }
        if is_cut_off && self.dice.coin() {
            self.hold(id, partition, serial, Held::Arrival);
            return;
        }
        let Some(mut group) = self.take_under_way(id, partition, serial) else { return };
        if matches!(group.course, Course::Written | Course::UnknownLanded) {
            let late = self.lane_mut(id, partition).map(|lane| std::mem::take(&mut lane.late)).unwrap_or_default();
            for late in late {
                if self.dice.coin() {
                    self.land_unasked(id, partition, &late);
                }
            }
            group.landed = Some(self.land(id, partition, &group.sealed));
        }
        if let Some(lane) = self.lane_mut(id, partition) {
            lane.under_way = Some(group);
        }
        match self.dice.up_to(self.plan.ack_delay_ms_max) {
            0 => self.on_answer(id, partition, serial),
            delay_ms => self.schedule(delay_ms, Due::Answer { id, partition, serial }),
        }
    }

    /// Its outcome reaches the incarnation.
    pub(super) fn on_answer(&mut self, id: IncarnationId, partition: Partition, serial: u64) {
        if self.is_cut_off(id) {
            self.hold(id, partition, serial, Held::Answer);
            return;
        }
        let Some(group) = self.take_under_way(id, partition, serial) else { return };
        let outcome = match (group.course, group.landed) {
            (Course::Refused(refusal), _) | (Course::Written, Some(Err(refusal))) => Outcome::Refused(refusal),
            (Course::Written, Some(Ok(offset))) => Outcome::Written(offset),
            (Course::Written, None) | (Course::UnknownLanded | Course::UnknownLost | Course::UnknownLate, _) => {
                Outcome::Unknown
            }
        };
        if group.course == Course::UnknownLate {
            self.make_late(id, partition, group.sealed);
        }
        self.settle(id, partition, outcome, group.tickets, group.charged_bytes);
        if outcome == Outcome::Refused(Refusal::Fenced) {
            self.on_fenced(id);
        }
        let Some(lane) = self.lane_mut(id, partition) else { return };
        if !lane.open.is_empty() && !lane.queued {
            lane.queued = true;
            self.ready.push_back((id, partition));
        }
    }

    /// What the incarnation had not sent will never be.
    fn on_fenced(&mut self, id: IncarnationId) {
        let Some(incarnation) = self.incarnations.get_mut(id.0) else { return };
        incarnation.standing = Standing::Fenced;
        let mut unsent = Vec::new();
        for (&partition, lane) in &mut incarnation.lanes {
            unsent.extend(lane.open.drain(..).map(|group| (partition, group)));
        }
        for (partition, group) in unsent {
            self.settle(id, partition, Outcome::Refused(Refusal::Fenced), group.tickets, group.charged_bytes);
        }
    }

    /// A group has its outcome.
    pub(super) fn settle(
        &mut self,
        id: IncarnationId,
        partition: Partition,
        outcome: Outcome,
        tickets: Vec<Ticket>,
        charged_bytes: usize,
    ) {
        let Some(incarnation) = self.incarnations.get_mut(id.0) else { return };
        incarnation.pending_bytes = incarnation.pending_bytes.saturating_sub(charged_bytes);
        // Half: so that whoever waited for room finds enough of it for any record.
        if incarnation.pending_bytes <= self.limits.append_bytes_max / 2 {
            incarnation.full = false;
        }
        incarnation.acks.push_back(Acked { partition, outcome, tickets });
    }

    /// A group of which its incarnation knows nothing may land within a while.
    pub(super) fn make_late(&mut self, id: IncarnationId, partition: Partition, sealed: Sealed) {
        let serial = self.next_serial();
        let Some(lane) = self.lane_mut(id, partition) else { return };
        lane.late.push_back(Late { serial, sealed });
        let delay_ms = self.dice.up_to(self.plan.late_ms_max);
        self.schedule(delay_ms, Due::LandLate { id, partition, serial });
    }

    /// A group lands that was answered `Unknown` or never answered; of those before it none does any more.
    pub(super) fn on_late_landing(&mut self, id: IncarnationId, partition: Partition, serial: u64) {
        let late = self.lane_mut(id, partition).and_then(|lane| {
            let place = lane.late.iter().position(|late| late.serial == serial)?;
            lane.late.drain(..=place).next_back()
        });
        if let Some(late) = late {
            self.land_unasked(id, partition, &late);
        }
    }

    /// Nobody is told how it went: not even if it was refused.
    fn land_unasked(&mut self, id: IncarnationId, partition: Partition, late: &Late) {
        let _refused_or_not = self.land(id, partition, &late.sealed);
    }

    /// A group becomes part of the log, unless its producer was fenced there or its partition is gone. Kafka is told the
    /// kafka topic's name: that may have been created anew since the group set out.
    fn land(&mut self, id: IncarnationId, partition: Partition, sealed: &Sealed) -> Result<Offset, Refusal> {
        let producer_id = self.producer_id(id);
        let slot = self.incarnations.get(id.0).and_then(|incarnation| incarnation.slot(partition.topic));
        let place = Place { slot: slot.ok_or(Refusal::NoSuchPartition)?, number: partition.number };
        let log = self.partition_mut(place).ok_or(Refusal::NoSuchPartition)?;
        if log.is_fenced(producer_id, EPOCH) {
            return Err(Refusal::Fenced);
        }
        if self.dice.chance(self.plan.foreign_aborted_permille) {
            self.store_aborted_junk(place);
        }
        if self.dice.chance(self.plan.hole_permille) {
            let offsets = 1 + self.dice.up_to(9);
            self.skip_offsets(place, offsets);
        }
        let writing = Writing { producer_id, now_ms: self.now_ms, fate: Fate::Committed };
        let offset = self.store(place, sealed.clone(), writing);
        if self.dice.chance(self.plan.duplicated_permille) {
            self.store(place, sealed.clone(), writing);
        }
        self.keep_within_bounds(place);
        Ok(Offset(offset))
    }

    pub(super) fn lane_mut(&mut self, id: IncarnationId, partition: Partition) -> Option<&mut Lane> {
        self.incarnations.get_mut(id.0)?.lanes.get_mut(&partition)
    }

    fn under_way(&mut self, id: IncarnationId, partition: Partition, serial: u64) -> Option<&mut UnderWay> {
        self.lane_mut(id, partition)?.under_way.as_mut().filter(|group| group.serial == serial)
    }

    fn hold(&mut self, id: IncarnationId, partition: Partition, serial: u64, held: Held) {
        if let Some(group) = self.under_way(id, partition, serial) {
            group.held = Some(held);
        }
    }

    fn take_under_way(&mut self, id: IncarnationId, partition: Partition, serial: u64) -> Option<UnderWay> {
        self.lane_mut(id, partition)?.under_way.take_if(|group| group.serial == serial)
    }
}
