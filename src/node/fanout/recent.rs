//! The end of the log, kept in memory: who lags only a little need not ask Kafka for it.

use std::collections::{BTreeMap, VecDeque};

use crate::journal::{Batch, Offset, Partition};

/// The latest batches of all followed partitions, oldest first to go, bounded in bytes.
#[derive(Debug)]
pub(super) struct Recent {
    bytes_max: usize,
    bytes: usize,
    partitions: BTreeMap<Partition, Kept>,
    /// Of each kept batch, oldest first; one that is no longer there was forgotten with its partition.
    order: VecDeque<(Partition, Offset)>,
}

#[derive(Debug)]
struct Kept {
    /// Every record from here to where the tail is, is here or stands for no message.
    since: Offset,
    batches: VecDeque<Batch>,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, partitions: BTreeMap::new(), order: VecDeque::new() }
    }

    /// The tail follows the partition from here on, whatever it did before.
    pub(super) fn start(&mut self, partition: Partition, from: Offset) {
        self.forget(partition);
        self.partitions.insert(partition, Kept { since: from, batches: VecDeque::new() });
    }

    /// The tail does not follow the partition any more.
    pub(super) fn forget(&mut self, partition: Partition) {
        let Some(kept) = self.partitions.remove(&partition) else { return };
        self.bytes -= kept.batches.iter().map(Batch::len).sum::<usize>();
        self.order.retain(|(whose, _)| *whose != partition);
    }

    /// The next batch of the tail.
    pub(super) fn add(&mut self, batch: Batch) {
        let partition = batch.partition;
        let Some(kept) = self.partitions.get_mut(&partition) else { return };
        self.bytes += batch.len();
        self.order.push_back((partition, batch.next_offset));
        kept.batches.push_back(batch);
        while self.bytes > self.bytes_max {
            let Some((oldest, _)) = self.order.pop_front() else { return };
            let Some(kept) = self.partitions.get_mut(&oldest) else { continue };
            if let Some(batch) = kept.batches.pop_front() {
                self.bytes -= batch.len();
                kept.since = batch.next_offset.max(kept.since);
            }
        }
    }

    /// The batches from `from` on, about `bytes_max` of them, and where they end; `tail` is where the tail is. `None` if
    /// they are no longer here.
    pub(super) fn read(
        &self,
        partition: Partition,
        from: Offset,
        tail: Offset,
        bytes_max: usize,
    ) -> Option<(Vec<Batch>, Offset)> {
        let kept = self.partitions.get(&partition).filter(|kept| from >= kept.since)?;
        let first = kept.batches.partition_point(|batch| batch.next_offset <= from);
        let (mut read, mut bytes) = (Vec::new(), 0);
        for batch in kept.batches.range(first..) {
            if bytes >= bytes_max {
                return Some((read, batch.base_offset.max(from)));
            }
            bytes += batch.len();
            read.push(batch.clone());
        }
        Some((read, tail))
    }
}

/// What keeping a batch costs.
trait Len {
    fn len(&self) -> usize;
}

impl Len for Batch {
    fn len(&self) -> usize {
        self.records.len() + size_of::<Batch>()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::journal::TopicIndex;

    const P: Partition = Partition { topic: TopicIndex(0), number: 0 };
    const Q: Partition = Partition { topic: TopicIndex(0), number: 1 };

    fn batch(partition: Partition, offsets: std::ops::Range<i64>, bytes: usize) -> Batch {
        Batch {
            partition,
            base_offset: Offset(offsets.start),
            next_offset: Offset(offsets.end),
            from: Offset(offsets.start),
            producer_id: -1,
            base_timestamp_ms: 0,
            append_time_ms: None,
            records_count: 0,
            records: Bytes::from(vec![0; bytes]),
        }
    }

    fn bases(recent: &Recent, partition: Partition, from: i64, tail: i64, bytes: usize) -> Option<(Vec<i64>, i64)> {
        let (batches, next) = recent.read(partition, Offset(from), Offset(tail), bytes)?;
        Some((batches.iter().map(|batch| batch.base_offset.0).collect(), next.0))
    }

    #[test]
    fn what_the_tail_handed_out_is_read_from_any_offset_in_it() {
        let mut recent = Recent::new(10_000);
        recent.start(P, Offset(10));
        recent.add(batch(P, 10..13, 100));
        recent.add(batch(P, 13..20, 100));
        assert_eq!(bases(&recent, P, 9, 25, 1_000), None, "that was before the tail began");
        assert_eq!(bases(&recent, P, 10, 25, 1_000), Some((vec![10, 13], 25)));
        assert_eq!(bases(&recent, P, 12, 25, 1), Some((vec![10], 13)));
        assert_eq!(bases(&recent, P, 13, 25, 1_000), Some((vec![13], 25)));
        assert_eq!(bases(&recent, P, 22, 25, 1_000), Some((vec![], 25)), "nothing but holes since the last batch");
        assert_eq!(bases(&recent, Q, 13, 25, 1_000), None);
    }

    #[test]
    fn the_oldest_goes_first_and_its_offsets_are_not_claimed_any_more() {
        let one = batch(P, 0..1, 100).len();
        let mut recent = Recent::new(2 * one);
        recent.start(P, Offset(0));
        recent.start(Q, Offset(0));
        recent.add(batch(P, 0..1, 100));
        recent.add(batch(Q, 0..1, 100));
        recent.add(batch(Q, 1..2, 100));
        assert_eq!(bases(&recent, P, 0, 1, 1_000), None);
        assert_eq!(bases(&recent, P, 1, 1, 1_000), Some((vec![], 1)));
        assert_eq!(bases(&recent, Q, 0, 2, 1_000), Some((vec![0, 1], 2)));
        recent.add(batch(Q, 2..3, 10 * one));
        assert_eq!(bases(&recent, Q, 2, 3, 1_000), None, "one that is larger than all room is not kept");
        assert_eq!(recent.bytes, 0);
    }

    #[test]
    fn a_tail_that_starts_elsewhere_makes_what_was_kept_worthless() {
        let mut recent = Recent::new(10_000);
        recent.start(P, Offset(0));
        recent.add(batch(P, 0..5, 100));
        recent.start(P, Offset(50));
        assert_eq!(bases(&recent, P, 2, 50, 1_000), None);
        recent.add(batch(P, 50..51, 100));
        recent.forget(P);
        assert_eq!(bases(&recent, P, 50, 51, 1_000), None);
        assert_eq!((recent.bytes, recent.order.len()), (0, 0));
    }
}
