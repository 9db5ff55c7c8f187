//! Whether an incarnation and the log hear each other.
//!
//! An incarnation that is cut off stands for a process that stands still, and for a network that fails between a node and
//! Kafka: nothing reaches the log from it by its own doing and nothing comes back. What had already set out is either held
//! somewhere on its way, or gets through while the answer does not. A fence meanwhile stops what is held.

use std::time::Duration;

use super::MemoryLog;
use super::appends::{Due, Held};
use super::log::IncarnationId;
use crate::journal::{JournalError, Outcome, Partition, Refusal, TopicIndex};

impl MemoryLog {
    /// Cuts an incarnation off until [`MemoryLog::reconnect`]: its appends are held, by coins where they are; its tails
    /// hear nothing; its questions are not answered. What waits longer than
    /// [`FaultPlan::append_deadline_ms`](super::FaultPlan::append_deadline_ms) has its outcome all the same.
    pub fn cut_off(&mut self, id: IncarnationId) {
        let now_ms = self.now_ms;
        let Some(incarnation) = self.incarnations.get_mut(id.0) else { return };
        if incarnation.cut_off_at_ms.is_some() {
            return;
        }
        incarnation.cut_off_at_ms = Some(now_ms);
        let of_others = |(of, _): &(IncarnationId, Partition)| *of != id;
        let waiting: Vec<Partition> =
            self.ready.iter().filter(|lane| !of_others(lane)).map(|(_, partition)| *partition).collect();
        self.ready.retain(of_others);
        for partition in waiting {
            if self.dice.coin() {
                self.set_out(id, partition, Some(Held::Arrival));
            } else if let Some(lane) = self.lane_mut(id, partition) {
                lane.queued = false;
            }
        }
        self.schedule_expiry(id);
    }

    /// They hear each other again.
    pub fn reconnect(&mut self, id: IncarnationId) {
        let Some(incarnation) = self.incarnations.get_mut(id.0) else { return };
        if incarnation.cut_off_at_ms.take().is_none() {
            return;
        }
        let (mut held, mut waiting) = (Vec::new(), Vec::new());
        for (&partition, lane) in &mut incarnation.lanes {
            if let Some(group) = &mut lane.under_way {
                held.extend(group.held.take().map(|held| (partition, group.serial, held)));
            } else if !lane.open.is_empty() && !lane.queued {
                lane.queued = true;
                waiting.push((id, partition));
            }
        }
        self.ready.extend(waiting);
        for (partition, serial, held) in held {
            match held {
                Held::Arrival => {
                    let delay_ms = self.dice.up_to(self.plan.append_delay_ms_max);
                    self.schedule(delay_ms, Due::Arrive { id, partition, serial });
                }
                Held::Answer => {
                    let delay_ms = self.dice.up_to(self.plan.ack_delay_ms_max);
                    self.schedule(delay_ms, Due::Answer { id, partition, serial });
                }
            }
        }
        self.wake_tails_of(id);
    }

    /// From now on each group of appends of an incarnation to this kafka topic takes so long to reach the log; 0: as others.
    pub fn slow_down(&mut self, id: IncarnationId, topic: &str, by_ms: u32) {
        let Some(incarnation) = self.incarnations.get_mut(id.0) else { return };
        let index = incarnation.names.iter().position(|name| name == topic);
        if let Some(index) = index.and_then(|index| u16::try_from(index).ok()) {
            incarnation.slow.insert(TopicIndex(index), by_ms);
        }
    }

    pub(super) fn slowness_ms(&self, id: IncarnationId, topic: TopicIndex) -> u32 {
        self.incarnations.get(id.0).and_then(|incarnation| incarnation.slow.get(&topic)).copied().unwrap_or(0)
    }

    /// The tails that an incarnation has now hear nothing for so long; everything else of it goes on.
    pub fn deafen(&mut self, id: IncarnationId, for_ms: u32) {
        let until_ms = self.now_ms + i64::from(for_ms);
        let mut silenced = Vec::new();
        for (&tail, state) in self.tails.iter_mut().filter(|(_, state)| state.owner == id) {
            state.silent_until_ms = state.silent_until_ms.max(until_ms);
            silenced.push(tail);
        }
        silenced.into_iter().for_each(|tail| self.schedule(for_ms, Due::WakeTail(tail)));
    }

    /// Whether an incarnation is cut off.
    pub fn is_cut_off(&self, id: IncarnationId) -> bool {
        self.cut_off_at_ms(id).is_some()
    }

    /// Since when it has heard nothing.
    pub(super) fn silent_for(&self, id: IncarnationId) -> Duration {
        let since_ms = self.cut_off_at_ms(id).map_or(0, |at_ms| self.now_ms - at_ms);
        Duration::from_millis(since_ms.max(0).unsigned_abs())
    }

    /// Decides whether a question of an incarnation goes unanswered.
    ///
    /// # Errors
    /// It does.
    pub fn may_answer_to(&mut self, id: IncarnationId, doing: &str) -> Result<(), JournalError> {
        if self.is_cut_off(id) {
            return Err(JournalError::Unavailable { doing: doing.into() });
        }
        self.may_answer(doing)
    }

    /// The deadline of appends that an incarnation took before it was cut off, or since.
    pub(super) fn on_expiry(&mut self, id: IncarnationId) {
        if !self.is_cut_off(id) {
            return;
        }
        let limit_ms = self.now_ms - i64::from(self.plan.append_deadline_ms);
        let Some(incarnation) = self.incarnations.get_mut(id.0) else { return };
        let (mut unsent, mut sent) = (Vec::new(), Vec::new());
        for (&partition, lane) in &mut incarnation.lanes {
            let overdue = lane.under_way.take_if(|group| group.held.is_some() && group.taken_at_ms <= limit_ms);
            sent.extend(overdue.map(|group| (partition, group)));
            while let Some(group) = lane.open.pop_front_if(|group| group.taken_at_ms <= limit_ms) {
                unsent.push((partition, group));
            }
        }
        for (partition, group) in sent {
            // Nobody knows where it is. What never arrived lies somewhere on its way.
            let (tickets, charged_bytes) = (group.tickets, group.charged_bytes);
            if group.held == Some(Held::Arrival) {
                self.make_late(id, partition, group.sealed);
            }
            self.settle(id, partition, Outcome::Unknown, tickets, charged_bytes);
        }
        for (partition, group) in unsent {
            self.settle(id, partition, Outcome::Refused(Refusal::Deadline), group.tickets, group.charged_bytes);
        }
        self.schedule_expiry(id);
    }

    /// Sees to it that the oldest append of an incarnation that is cut off ends in time.
    pub(super) fn schedule_expiry(&mut self, id: IncarnationId) {
        let deadline_ms = i64::from(self.plan.append_deadline_ms);
        let Some(incarnation) = self.incarnations.get(id.0) else { return };
        let oldest = incarnation.lanes.values().flat_map(|lane| {
            let under_way = lane.under_way.iter().map(|group| group.taken_at_ms);
            under_way.chain(lane.open.front().map(|group| group.taken_at_ms))
        });
        if deadline_ms > 0
            && let Some(taken_at_ms) = oldest.min()
        {
            // At least a millisecond: what is under way and not held yet will be a moment later.
            let after_ms = u32::try_from(taken_at_ms + deadline_ms - self.now_ms).unwrap_or(0).max(1);
            self.schedule(after_ms, Due::Expire { id });
        }
    }

    fn cut_off_at_ms(&self, id: IncarnationId) -> Option<i64> {
        self.incarnations.get(id.0)?.cut_off_at_ms
    }
}
