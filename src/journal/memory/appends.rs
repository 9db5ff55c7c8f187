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
    /// How many appends were taken.
    taken: u64,
    /// An append was not taken, and not half of the budget has become free since.
    full: bool,
    lanes: BTreeMap<Partition, Lane>,
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
            taken: 0,
            full: false,
            lanes: BTreeMap::new(),
            acks: VecDeque::new(),
        }
    }

    pub(super) fn slot(&self, topic: TopicIndex) -> Option<usize> {
        self.slots.get(usize::from(topic.0)).copied().flatten()
    }
}

/// An incarnation's way into one partition: one group at a time, so that order holds.
#[derive(Debug, Default)]
struct Lane {
    open: VecDeque<Group>,
    under_way: Option<UnderWay>,
    /// Answered `Unknown`; it may still land, as long as nothing later of this lane has.
    late: Option<Late>,
    /// In [`MemoryLog::ready`].
    queued: bool,
}

impl Lane {
    fn push(
        &mut self,
        record: &RecordRef<'_>,
        ticket: Ticket,
        doomed: Option<Refusal>,
        taken: u64,
        limits: &Limits,
    ) -> usize {
        if let Some(group) = self.open.back_mut()
            && doomed.is_none()
            && group.doomed.is_none()
            && group.bytes.len() < limits.group_bytes
        {
            return group.push(record, Some(ticket));
        }
        let mut group = Group { doomed, first_taken: taken, ..Group::default() };
        let charge = group.push(record, Some(ticket));
        self.open.push_back(group);
        charge
    }
}

/// A group on its way.
#[derive(Debug)]
struct UnderWay {
    serial: u64,
    slot: Option<usize>,
    sealed: Sealed,
    tickets: Vec<Ticket>,
    first_taken: u64,
    charged_bytes: usize,
    course: Course,
    /// Set once it has reached the log.
    landed: Option<Result<Offset, Refusal>>,
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
    slot: Option<usize>,
    sealed: Sealed,
}

/// What happens at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Arrive { id: IncarnationId, partition: Partition, serial: u64 },
    Answer { id: IncarnationId, partition: Partition, serial: u64 },
    LandLate { id: IncarnationId, partition: Partition, serial: u64 },
    WakeTail(TailId),
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
        incarnation.pending_bytes += lane.push(record, ticket, doomed, incarnation.taken, &self.limits);
        if !lane.queued && lane.under_way.is_none() {
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
        incarnation.pending_bytes = 0;
        incarnation.full = false;
        incarnation.acks.clear();
        let mut under_way = Vec::new();
        for (&partition, lane) in &mut incarnation.lanes {
            lane.open.clear();
            under_way.extend(lane.under_way.take().map(|group| (partition, group)));
        }
        for (partition, UnderWay { slot, sealed, course, landed, .. }) in under_way {
            let may_land = landed.is_none() && !matches!(course, Course::Refused(_) | Course::UnknownLost);
            if may_land && self.dice.coin() {
                self.make_late(id, partition, slot, sealed);
            }
        }
        self.close_tails_of(id);
    }

    /// The next group of a lane sets out.
    pub(super) fn send(&mut self, id: IncarnationId, partition: Partition) {
        let serial = self.next_serial();
        let Some(incarnation) = self.incarnations.get_mut(id.0) else { return };
        let slot = incarnation.slot(partition.topic);
        let Some(lane) = incarnation.lanes.get_mut(&partition) else { return };
        lane.queued = false;
        let Some(mut group) = lane.open.pop_front() else { return };
        let tickets = std::mem::take(&mut group.tickets);
        let Group { doomed, charged_bytes, first_taken, .. } = group;
        let course = doomed.map_or_else(|| self.draw_course(), Course::Refused);
        let sealed = group.seal();
        let under_way = UnderWay { serial, slot, sealed, tickets, first_taken, charged_bytes, course, landed: None };
        if let Some(lane) = self.lane_mut(id, partition) {
            lane.under_way = Some(under_way);
        }
        match self.dice.up_to(self.plan.append_delay_ms_max) {
            0 => self.on_arrival(id, partition, serial),
            delay_ms => self.schedule(delay_ms, Due::Arrive { id, partition, serial }),
        }
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
        let Some(mut group) = self.take_under_way(id, partition, serial) else { return };
        if matches!(group.course, Course::Written | Course::UnknownLanded) {
            let late = self.lane_mut(id, partition).and_then(|lane| lane.late.take());
            if let Some(late) = late
                && self.dice.coin()
            {
                self.land_unasked(id, partition, &late);
            }
            group.landed = Some(self.land(id, partition, group.slot, &group.sealed));
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
        let Some(group) = self.take_under_way(id, partition, serial) else { return };
        let outcome = match (group.course, group.landed) {
            (Course::Refused(refusal), _) | (Course::Written, Some(Err(refusal))) => Outcome::Refused(refusal),
            (Course::Written, Some(Ok(offset))) => Outcome::Written(offset),
            (Course::Written, None) | (Course::UnknownLanded | Course::UnknownLost | Course::UnknownLate, _) => {
                Outcome::Unknown
            }
        };
        if group.course == Course::UnknownLate {
            self.make_late(id, partition, group.slot, group.sealed);
        }
        self.settle(id, Acked { partition, outcome, tickets: group.tickets }, group.charged_bytes);
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
            let outcome = Outcome::Refused(Refusal::Fenced);
            self.settle(id, Acked { partition, outcome, tickets: group.tickets }, group.charged_bytes);
        }
    }

    fn settle(&mut self, id: IncarnationId, acked: Acked, charged_bytes: usize) {
        let Some(incarnation) = self.incarnations.get_mut(id.0) else { return };
        incarnation.pending_bytes = incarnation.pending_bytes.saturating_sub(charged_bytes);
        // Half: so that whoever waited for room finds enough of it for any record.
        if incarnation.pending_bytes <= self.limits.append_bytes_max / 2 {
            incarnation.full = false;
        }
        incarnation.acks.push_back(acked);
    }

    fn make_late(&mut self, id: IncarnationId, partition: Partition, slot: Option<usize>, sealed: Sealed) {
        let serial = self.next_serial();
        let Some(lane) = self.lane_mut(id, partition) else { return };
        lane.late = Some(Late { serial, slot, sealed });
        let delay_ms = self.dice.up_to(self.plan.late_ms_max);
        self.schedule(delay_ms, Due::LandLate { id, partition, serial });
    }

    /// A group lands that was answered `Unknown` or never answered.
    pub(super) fn on_late_landing(&mut self, id: IncarnationId, partition: Partition, serial: u64) {
        let late = self.lane_mut(id, partition).and_then(|lane| lane.late.take_if(|late| late.serial == serial));
        if let Some(late) = late {
            self.land_unasked(id, partition, &late);
        }
    }

    /// Nobody is told how it went: not even if it was refused.
    fn land_unasked(&mut self, id: IncarnationId, partition: Partition, late: &Late) {
        let _refused_or_not = self.land(id, partition, late.slot, &late.sealed);
    }

    /// A group becomes part of the log, unless its producer was fenced there or its partition is gone.
    fn land(
        &mut self,
        id: IncarnationId,
        partition: Partition,
        slot: Option<usize>,
        sealed: &Sealed,
    ) -> Result<Offset, Refusal> {
        let producer_id = self.producer_id(id);
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

    fn lane_mut(&mut self, id: IncarnationId, partition: Partition) -> Option<&mut Lane> {
        self.incarnations.get_mut(id.0)?.lanes.get_mut(&partition)
    }

    fn take_under_way(&mut self, id: IncarnationId, partition: Partition, serial: u64) -> Option<UnderWay> {
        self.lane_mut(id, partition)?.under_way.take_if(|group| group.serial == serial)
    }
}
