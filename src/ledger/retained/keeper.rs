//! What a dead node left undone (R4b): its keeper looks through the messages from the dead node's mark on, owes what it
//! finds as if it had appended it, and takes the mark away once all of that is complete.
//!
//! ```text
//!            the node is fenced (F9)            looked through             all is complete
//!  (a mark) ─────────────────────────▶ Looking ────────────────▶ Writing ──────────────────▶ (no mark)
//! ```
//! A partition of `mqtt.retained` that becomes the keeper's in the course of it makes it begin again, with that one.
//! A keeper that dies leaves the mark where it is, and the next one begins again: to write a record twice does no harm.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::{DUTY_TICK, Marks, Vector};
use super::writer::Writer;
use crate::ledger::ids::Incarnation;
use crate::ledger::rules::{Rule, Rules};

/// What the keeper asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look through every partition of messages for what the dead node appended with the retain flag, of topics that
    /// belong into one of `partitions` of `mqtt.retained`.
    Look {
        /// Who is dead.
        dead: Incarnation,
        /// Up to where it was complete; a partition that is missing is looked through as a whole.
        from: Vector,
        /// Of `mqtt.retained`.
        partitions: BTreeSet<u32>,
    },
    /// Take the dead node's marks away.
    Finish {
        /// Who is dead.
        dead: Incarnation,
        /// Of `mqtt.retained`.
        partitions: BTreeSet<u32>,
    },
}

/// The duties that this node has taken over.
#[derive(Debug)]
pub struct Keeper {
    rules: Rules,
    duties: BTreeMap<Incarnation, Duty>,
}

#[derive(Debug)]
struct Duty {
    partitions: BTreeSet<u32>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Looking,
    /// These topics are not complete yet.
    Writing(BTreeSet<Box<str>>),
    /// The marks are being taken away.
    Finishing,
}

impl Keeper {
    /// Has no duty.
    pub const fn new(rules: Rules) -> Self {
        Self { rules, duties: BTreeMap::new() }
    }

    /// R4c: whether the own mark must wait because a log is still being looked through.
    pub fn is_looking(&self) -> bool {
        self.duties.values().any(Duty::is_looking) && self.rules.holds(Rule::R4)
    }

    /// Takes duties over, and ends those that are done. `is_over`: nothing of that node can land any more. `is_kept`: this
    /// node is the keeper of that partition of `mqtt.retained`.
    pub fn poll(
        &mut self,
        marks: &Marks,
        writer: &Writer,
        is_over: impl Fn(Incarnation) -> bool,
        is_kept: impl Fn(u32) -> bool,
    ) -> Vec<Action> {
        let mut left: BTreeMap<Incarnation, (BTreeSet<u32>, Vector)> = BTreeMap::new();
        for partition in marks.partitions().filter(|partition| is_kept(*partition)) {
            for (dead, mark) in marks.in_partition(partition).filter(|(node, _)| is_over(*node)) {
                let (partitions, from) = left.entry(dead).or_insert_with(|| (BTreeSet::new(), mark.clone()));
                partitions.insert(partition);
                // The lowest of its marks; where one says nothing, all must be looked through.
                from.retain(|place, _| mark.contains_key(place));
                for (place, from) in from.iter_mut() {
                    *from = mark.get(place).map_or(*from, |done| *done.min(from));
                }
            }
        }
        self.duties.retain(|dead, _| left.contains_key(dead));
        let mut actions = Vec::new();
        for (dead, (partitions, from)) in left {
            // A partition that has become this node's since is looked for, too, once the look that is under way is over.
            let duty = self.duties.get_mut(&dead);
            if let Some(duty) = duty.filter(|duty| duty.is_looking() || partitions.is_subset(&duty.partitions)) {
                actions.extend(duty.finish(dead, writer));
                continue;
            }
            if self.rules.holds(Rule::R4) {
                actions.push(Action::Look { dead, from, partitions: partitions.clone() });
                self.duties.insert(dead, Duty { partitions, stage: Stage::Looking });
            } else {
                actions.push(Action::Finish { dead, partitions: partitions.clone() });
                self.duties.insert(dead, Duty { partitions, stage: Stage::Finishing });
            }
        }
        actions
    }

    /// Whether a look for a dead node's messages of these partitions of `mqtt.retained` is awaited: not if others have
    /// become its keeper meanwhile.
    pub fn is_awaited(&self, dead: Incarnation, partitions: &BTreeSet<u32>) -> bool {
        self.duties.get(&dead).is_some_and(|duty| duty.is_looking() && duty.partitions == *partitions)
    }

    /// The messages were looked through; what was found in `topics` is owed with [`DUTY_TICK`].
    pub fn on_looked(&mut self, dead: Incarnation, topics: BTreeSet<Box<str>>) {
        if let Some(duty) = self.duties.get_mut(&dead) {
            duty.stage = Stage::Writing(topics);
        }
    }

    /// What was asked for and has not happened is asked for again.
    pub fn on_tick(&mut self) {
        for duty in self.duties.values_mut() {
            if matches!(duty.stage, Stage::Finishing) {
                duty.stage = Stage::Writing(BTreeSet::new());
            }
        }
    }

    /// It did not come to an end: to be begun again.
    pub fn forget(&mut self, dead: Incarnation) {
        self.duties.remove(&dead);
    }
}

impl Duty {
    const fn is_looking(&self) -> bool {
        matches!(self.stage, Stage::Looking)
    }

    fn finish(&mut self, dead: Incarnation, writer: &Writer) -> Option<Action> {
        let Stage::Writing(topics) = &mut self.stage else { return None };
        topics.retain(|topic| writer.owes(topic, DUTY_TICK));
        if !topics.is_empty() {
            return None;
        }
        self.stage = Stage::Finishing;
        Some(Action::Finish { dead, partitions: self.partitions.clone() })
    }
}

#[cfg(test)]
mod tests;
