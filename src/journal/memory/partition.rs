//! One partition: batches in offset order, with holes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::group::Sealed;
use super::tails::TailId;
use crate::journal::{Batch, Ends, Isolation, Offset, Partition};

/// What a batch costs beside its bytes.
const BATCH_OVERHEAD_BYTES: usize = 128;

/// A batch in the log.
#[derive(Clone, Debug)]
pub(super) struct StoredBatch {
    pub(super) base: i64,
    /// After its last record, whether or not that still exists.
    pub(super) next: i64,
    pub(super) producer_id: i64,
    pub(super) base_timestamp_ms: i64,
    /// When the log took it.
    pub(super) written_at_ms: i64,
    pub(super) stamped: bool,
    pub(super) records_count: u32,
    pub(super) records: Bytes,
    pub(super) fate: Fate,
}

/// What became of the transaction that a batch belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// None, or committed.
    Committed,
    Undecided,
    Aborted,
}

impl StoredBatch {
    pub(super) fn cost_bytes(&self) -> usize {
        self.records.len() + BATCH_OVERHEAD_BYTES
    }

    pub(super) fn hand_out(&self, partition: Partition, from: i64) -> Batch {
        Batch {
            partition,
            base_offset: Offset(self.base),
            next_offset: Offset(self.next),
            from: Offset(from),
            producer_id: self.producer_id,
            base_timestamp_ms: self.base_timestamp_ms,
            append_time_ms: self.stamped.then_some(self.written_at_ms),
            records_count: self.records_count,
            records: self.records.clone(),
        }
    }
}

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    pub(super) producer_id: i64,
    pub(super) now_ms: i64,
    pub(super) fate: Fate,
}

/// What a reader finds at an offset.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// Below the log's start.
    Below,
    /// Beyond the log's end.
    Beyond,
    /// A batch that ends after the offset.
    Batch(&'a StoredBatch),
    /// Nothing to read before this offset.
    Skip(i64),
    /// At the end.
    Nothing,
}

/// A partition's log.
#[derive(Debug, Default)]
pub(super) struct PartitionLog {
    pub(super) batches: VecDeque<StoredBatch>,
    pub(super) log_start: i64,
    pub(super) end: i64,
    pub(super) stored_bytes: usize,
    /// After the last compaction.
    pub(super) compacted_bytes: usize,
    /// Lowest epoch still accepted of producers that were fenced.
    fences: BTreeMap<i64, i16>,
    /// First offset of each producer's open transaction.
    open_transactions: BTreeMap<i64, i64>,
    pub(super) followers: Vec<(TailId, Partition)>,
}

impl PartitionLog {
    /// Puts records at the end; says at which offset.
    pub(super) fn append(&mut self, sealed: Sealed, writing: Writing, stamped: bool) -> i64 {
        let base = self.end;
        let Sealed { records, records_count, base_timestamp_ms } = sealed;
        let batch = StoredBatch {
            base,
            next: base + i64::from(records_count),
            producer_id: writing.producer_id,
            base_timestamp_ms,
            written_at_ms: writing.now_ms,
            stamped,
            records_count,
            records,
            fate: writing.fate,
        };
        if writing.fate == Fate::Undecided {
            self.open_transactions.entry(writing.producer_id).or_insert(base);
        }
        self.end = batch.next;
        self.stored_bytes += batch.cost_bytes();
        self.batches.push_back(batch);
        base
    }

    /// Uses up offsets with nothing that can be read: control records, or what compaction took.
    pub(super) fn skip(&mut self, offsets: u32) {
        self.end += i64::from(offsets);
    }

    /// Decides a producer's open transaction, with a control record.
    pub(super) fn end_transaction(&mut self, producer_id: i64, fate: Fate) {
        let Some(first) = self.open_transactions.remove(&producer_id) else { return };
        for batch in self.batches.iter_mut().filter(|batch| batch.base >= first) {
            if batch.producer_id == producer_id && batch.fate == Fate::Undecided {
                batch.fate = fate;
            }
        }
        self.skip(1);
    }

    /// From now on takes nothing of `producer_id` with an epoch below `epoch`. False if that or more was so before.
    pub(super) fn fence(&mut self, producer_id: i64, epoch: i16) -> bool {
        let before = self.fences.insert(producer_id, epoch);
        match before {
            Some(before) if before >= epoch => {
                self.fences.insert(producer_id, before);
                false
            }
            Some(_) | None => true,
        }
    }

    pub(super) fn is_fenced(&self, producer_id: i64, epoch: i16) -> bool {
        self.fences.get(&producer_id).is_some_and(|&lowest| epoch < lowest)
    }

    pub(super) fn ends(&self) -> Ends {
        Ends {
            log_start: Offset(self.log_start),
            last_stable: Offset(self.readable_end(Isolation::ReadCommitted)),
            high_watermark: Offset(self.end),
        }
    }

    pub(super) fn readable_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.end,
            Isolation::ReadCommitted => self.open_transactions.values().copied().min().unwrap_or(self.end),
        }
    }

    /// What is at `position`.
    pub(super) fn step(&self, position: i64, isolation: Isolation) -> Step<'_> {
        if position < self.log_start {
            return Step::Below;
        }
        if position > self.end {
            return Step::Beyond;
        }
        let end = self.readable_end(isolation);
        if position >= end {
            return Step::Nothing;
        }
        let index = self.batches.partition_point(|batch| batch.next <= position);
        match self.batches.get(index) {
            Some(batch) if batch.base >= end => Step::Skip(end),
            Some(batch) if batch.fate == Fate::Aborted && isolation == Isolation::ReadCommitted => {
                Step::Skip(batch.next)
            }
            Some(batch) => Step::Batch(batch),
            None => Step::Skip(end),
        }
    }

    /// Retention: what is before `offset` no longer exists.
    pub(super) fn delete_before(&mut self, offset: i64) {
        self.log_start = offset.clamp(self.log_start, self.end.max(self.log_start));
        while self.batches.front().is_some_and(|batch| batch.next <= self.log_start) {
            self.drop_front();
        }
    }

    /// Retention by size: the oldest batch no longer exists. False if there was none.
    pub(super) fn delete_oldest(&mut self) -> bool {
        let Some(next) = self.batches.front().map(|batch| batch.next) else { return false };
        self.drop_front();
        self.log_start = self.log_start.max(next);
        true
    }

    fn drop_front(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.stored_bytes -= batch.cost_bytes();
        }
    }

    /// Loses acknowledged records: all batches that reach beyond `end`.
    pub(super) fn lose_end(&mut self, end: i64) {
        while let Some(batch) = self.batches.pop_back_if(|batch| batch.next > end) {
            self.stored_bytes -= batch.cost_bytes();
            self.end = batch.base;
        }
        self.end = self.end.min(end.max(self.log_start));
        let end = self.end;
        self.open_transactions.retain(|_, first| *first < end);
    }
}
