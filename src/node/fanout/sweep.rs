//! One reader per partition for all subscribers that lag there.
//!
//! Like an elevator: a sweep goes from the lowest wanted offset up to the tail and takes along everybody whose position
//! it passes. Who has no room gets off and waits for the next sweep; so does who is behind the sweep that is under way.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::journal::{Offset, Partition};
use crate::node::connections::ConnectionId;

/// The sweeps of all partitions.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    partitions: BTreeMap<Partition, Sweep>,
    /// Where there may be something to do, each once.
    work: VecDeque<Partition>,
    questions: u64,
}

#[derive(Debug, Default)]
struct Sweep {
    /// Who wants to be read for, from where on.
    wanted: BTreeMap<ConnectionId, Offset>,
    /// How far the sweep has come, and where it ends: at the tail as it was when the sweep began, so that those who fall
    /// behind at the tail do not keep it there for ever.
    at: Offset,
    until: Offset,
    /// The question to the journal that is under way.
    asked: Option<u64>,
    queued: bool,
}

/// What is to be done about a partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// They are where the tail is, and are no longer in the sweep.
    pub(super) arrived: Vec<ConnectionId>,
    /// From where to read.
    pub(super) read: Option<Offset>,
}

impl Sweeps {
    pub(super) fn join(&mut self, partition: Partition, connection: ConnectionId, from: Offset) {
        self.partitions.entry(partition).or_default().wanted.insert(connection, from);
        self.wake(partition);
    }

    /// Where it was.
    pub(super) fn leave(&mut self, partition: Partition, connection: ConnectionId) -> Option<Offset> {
        let sweep = self.partitions.get_mut(&partition)?;
        let was_at = sweep.wanted.remove(&connection);
        self.tidy(partition);
        was_at
    }

    /// Where it is.
    pub(super) fn position(&self, partition: Partition, connection: ConnectionId) -> Option<Offset> {
        self.partitions.get(&partition)?.wanted.get(&connection).copied()
    }

    /// There may be something to do: the tail has moved, or an answer came.
    pub(super) fn wake(&mut self, partition: Partition) {
        if let Some(sweep) = self.partitions.get_mut(&partition).filter(|s| !s.queued && s.asked.is_none()) {
            sweep.queued = true;
            self.work.push_back(partition);
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    pub(super) fn next_work(&mut self) -> Option<Partition> {
        let partition = self.work.pop_front()?;
        if let Some(sweep) = self.partitions.get_mut(&partition) {
            sweep.queued = false;
        }
        Some(partition)
    }

    /// `tail`: where the tail is. Who is ahead of it waits.
    pub(super) fn plan(&mut self, partition: Partition, tail: Offset) -> Plan {
        let Some(sweep) = self.partitions.get_mut(&partition) else { return Plan::default() };
        let arrived = sweep.wanted.iter().filter(|(_, from)| **from == tail).map(|(&connection, _)| connection);
        let arrived: Vec<_> = arrived.collect();
        for connection in &arrived {
            sweep.wanted.remove(connection);
        }
        let behind_tail = || sweep.wanted.values().copied().filter(|from| *from < tail);
        let ahead = behind_tail().filter(|from| (sweep.at..sweep.until).contains(from)).min();
        let read = ahead.or_else(|| behind_tail().min());
        if ahead.is_none() {
            sweep.until = tail;
        }
        if let Some(read) = read {
            sweep.at = read;
        }
        self.tidy(partition);
        Plan { arrived, read }
    }

    /// A question to the journal is asked; until [`Sweeps::answered`] nothing else is done about the partition.
    pub(super) fn asked(&mut self, partition: Partition) -> u64 {
        self.questions += 1;
        if let Some(sweep) = self.partitions.get_mut(&partition) {
            sweep.asked = Some(self.questions);
        }
        self.questions
    }

    /// False if nobody waits for that answer any more.
    pub(super) fn answered(&mut self, partition: Partition, question: u64) -> bool {
        let sweep = self.partitions.get_mut(&partition).filter(|sweep| sweep.asked == Some(question));
        let is_awaited = sweep.is_some();
        if let Some(sweep) = sweep {
            sweep.asked = None;
        }
        self.tidy(partition);
        self.wake(partition);
        is_awaited
    }

    /// Who is taken along by what was read, and from where on, in order of connections.
    pub(super) fn riders(&self, partition: Partition, read: &Range<Offset>) -> Vec<(ConnectionId, Offset)> {
        let wanted = self.partitions.get(&partition).map(|sweep| &sweep.wanted);
        let wanted = wanted.into_iter().flatten().map(|(&connection, &from)| (connection, from));
        wanted.filter(|(_, from)| read.contains(from)).collect()
    }

    /// `riders` have what was read.
    pub(super) fn passed(
        &mut self,
        partition: Partition,
        read: &Range<Offset>,
        riders: impl Iterator<Item = ConnectionId>,
    ) {
        let Some(sweep) = self.partitions.get_mut(&partition) else { return };
        for rider in riders {
            if let Some(from) = sweep.wanted.get_mut(&rider) {
                *from = read.end;
            }
        }
        sweep.at = read.end;
        self.wake(partition);
    }

    /// Moves everybody into what exists.
    pub(super) fn clamp(&mut self, partition: Partition, exists: &Range<Offset>) -> Clamped {
        let mut clamped = Clamped::default();
        let Some(sweep) = self.partitions.get_mut(&partition) else { return clamped };
        for from in sweep.wanted.values_mut() {
            clamped.add(clamp(from, exists));
        }
        self.wake(partition);
        clamped
    }

    /// The kafka topic or the interest in it is gone.
    pub(super) fn drop_partition(&mut self, partition: Partition) {
        self.partitions.remove(&partition);
        self.work.retain(|other| *other != partition);
    }

    fn tidy(&mut self, partition: Partition) {
        if self.partitions.get(&partition).is_some_and(|sweep| sweep.wanted.is_empty() && sweep.asked.is_none()) {
            self.partitions.remove(&partition);
            self.work.retain(|other| *other != partition);
        }
    }
}

/// What [`clamp`] did, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clamped {
    /// Positions that were before the log's start.
    pub(super) below: u64,
    /// Records that they missed for good, counted once for each.
    pub(super) lost: i64,
    /// Positions that were beyond the log's end.
    pub(super) beyond: u64,
}

impl Clamped {
    pub(super) fn add(&mut self, other: Self) {
        self.below += other.below;
        self.lost = self.lost.saturating_add(other.lost);
        self.beyond += other.beyond;
    }
}

/// Moves a position into what exists, ends included.
pub(super) fn clamp(from: &mut Offset, exists: &Range<Offset>) -> Clamped {
    if *from < exists.start {
        let lost = exists.start.0.saturating_sub(from.0);
        *from = exists.start;
        return Clamped { below: 1, lost, beyond: 0 };
    }
    if *from > exists.end {
        *from = exists.end;
        return Clamped { below: 0, lost: 0, beyond: 1 };
    }
    Clamped::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::TopicIndex;

    const P: Partition = Partition { topic: TopicIndex(0), number: 0 };
    const TAIL: Offset = Offset(100);

    fn connection(number: u64) -> ConnectionId {
        ConnectionId::from_u64(number)
    }

    fn sweeps(wanted: &[(u64, i64)]) -> Sweeps {
        let mut sweeps = Sweeps::default();
        for &(number, from) in wanted {
            sweeps.join(P, connection(number), Offset(from));
        }
        sweeps
    }

    /// Everybody in it takes what is read.
    fn pass(sweeps: &mut Sweeps, read: Range<i64>) {
        let read = Offset(read.start)..Offset(read.end);
        let riders = sweeps.riders(P, &read);
        sweeps.passed(P, &read, riders.into_iter().map(|(connection, _)| connection));
    }

    /// Reads ten offsets at once until there is nothing to read; the offsets read from.
    fn read_all(sweeps: &mut Sweeps) -> Vec<i64> {
        let mut reads = Vec::new();
        while sweeps.next_work().is_some() {
            if let Some(from) = sweeps.plan(P, TAIL).read {
                reads.push(from.0);
                pass(sweeps, from.0..(from.0 + 10).min(TAIL.0));
            }
        }
        reads
    }

    #[test]
    fn many_subscribers_cost_the_reads_of_one() {
        let all: Vec<_> = (0..10_000).map(|n| (n, 50)).collect();
        assert_eq!(read_all(&mut sweeps(&all)), [50, 60, 70, 80, 90]);
    }

    #[test]
    fn a_sweep_takes_along_whom_it_passes_and_skips_what_nobody_wants() {
        let mut sweeps = sweeps(&[(1, 80), (2, 20), (3, 85)]);
        assert_eq!(sweeps.plan(P, TAIL).read, Some(Offset(20)));
        pass(&mut sweeps, 20..30);
        sweeps.leave(P, connection(2));
        assert_eq!(sweeps.plan(P, TAIL).read, Some(Offset(80)), "nobody wants 30 to 80");
        assert_eq!(
            sweeps.riders(P, &(Offset(80)..Offset(90))),
            [(connection(1), Offset(80)), (connection(3), Offset(85))]
        );
    }

    #[test]
    fn who_is_behind_the_sweep_waits_for_the_next_one() {
        let mut sweeps = sweeps(&[(1, 80)]);
        assert_eq!(sweeps.plan(P, TAIL).read, Some(Offset(80)));
        pass(&mut sweeps, 80..90);
        sweeps.join(P, connection(2), Offset(70));
        assert_eq!(sweeps.plan(P, TAIL).read, Some(Offset(90)));
        pass(&mut sweeps, 90..100);
        assert_eq!(sweeps.plan(P, TAIL), Plan { arrived: vec![connection(1)], read: Some(Offset(70)) });
    }

    #[test]
    fn who_gets_off_does_not_ride_on_and_knows_where_it_was() {
        let mut sweeps = sweeps(&[(1, 50), (2, 50)]);
        let read = Offset(50)..Offset(60);
        sweeps.plan(P, TAIL);
        assert_eq!(sweeps.leave(P, connection(1)), Some(Offset(50)));
        sweeps.join(P, connection(1), Offset(55));
        sweeps.passed(P, &read, std::iter::once(connection(2)));
        assert_eq!(sweeps.position(P, connection(1)), Some(Offset(55)), "it had room again at once");
        assert_eq!(sweeps.position(P, connection(2)), Some(Offset(60)));
    }

    #[test]
    fn who_is_ahead_of_the_tail_waits_for_it() {
        let mut sweeps = sweeps(&[(1, 120)]);
        assert_eq!(sweeps.plan(P, TAIL), Plan::default());
        assert_eq!(sweeps.plan(P, Offset(120)), Plan { arrived: vec![connection(1)], read: None });
        assert!(sweeps.partitions.is_empty());
    }

    #[test]
    fn those_who_fall_behind_at_the_tail_do_not_keep_the_sweep_there() {
        let mut sweeps = sweeps(&[(1, 90)]);
        assert_eq!(sweeps.plan(P, TAIL).read, Some(Offset(90)));
        sweeps.join(P, connection(2), Offset(10));
        pass(&mut sweeps, 90..100);
        sweeps.join(P, connection(3), Offset(105));
        assert_eq!(sweeps.plan(P, Offset(110)).read, Some(Offset(10)), "the sweep that began at 90 is over");
    }

    #[test]
    fn while_a_question_is_under_way_no_other_is_asked() {
        let mut sweeps = sweeps(&[(1, 50)]);
        sweeps.next_work();
        let question = sweeps.asked(P);
        sweeps.join(P, connection(2), Offset(50));
        assert!(!sweeps.has_work());
        sweeps.leave(P, connection(1));
        sweeps.leave(P, connection(2));
        sweeps.join(P, connection(3), Offset(50));
        assert!(!sweeps.has_work(), "the question is remembered although nobody waited for a while");
        assert!(sweeps.answered(P, question));
        assert!(sweeps.has_work());
    }

    #[test]
    fn an_answer_about_a_log_that_is_gone_is_not_awaited() {
        let mut sweeps = sweeps(&[(1, 50)]);
        sweeps.next_work();
        let old = sweeps.asked(P);
        sweeps.drop_partition(P);
        sweeps.join(P, connection(1), Offset(0));
        assert_eq!(sweeps.next_work(), Some(P));
        let new = sweeps.asked(P);
        assert!(!sweeps.answered(P, old));
        assert!(sweeps.answered(P, new));
    }

    #[test]
    fn what_retention_removed_is_counted_once_for_each_who_wanted_it() {
        let mut sweeps = sweeps(&[(1, 50), (2, 60), (3, 80), (4, 130)]);
        let clamped = sweeps.clamp(P, &(Offset(70)..Offset(90)));
        assert_eq!(clamped, Clamped { below: 2, lost: 30, beyond: 1 });
        assert_eq!(sweeps.position(P, connection(1)), Some(Offset(70)));
        assert_eq!(sweeps.position(P, connection(3)), Some(Offset(80)));
        assert_eq!(sweeps.position(P, connection(4)), Some(Offset(90)));
    }
}
