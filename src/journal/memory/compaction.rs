//! Compaction: of each key the last record stays.

use std::collections::HashMap;

use super::partition::{Fate, PartitionLog, StoredBatch};
use crate::journal::{Isolation, Offset, Partition, TopicIndex};

/// A batch's records do not depend on whose they are.
const ANY: Partition = Partition { topic: TopicIndex(0), number: 0 };

impl PartitionLog {
    /// Leaves of each key the last record before the last stable offset; of tombstones only those written after
    /// `tombstones_after_ms`; everything from the first batch on that was written after `lag_from_ms`; nothing of aborted transactions and nothing without a key. Offsets stay, so there are
    /// holes. A batch left empty is kept if `keep_empty` says so, as Kafka does for the last batch of a producer.
    pub(super) fn compact(&mut self, tombstones_after_ms: i64, lag_from_ms: i64, mut keep_empty: impl FnMut() -> bool) {
        let young = self.batches.iter().find(|batch| batch.written_at_ms > lag_from_ms).map(|batch| batch.base);
        let readable = self.readable_end(Isolation::ReadCommitted);
        let stable = young.map_or(readable, |young| young.min(readable));
        let views: Vec<_> = self.batches.iter().map(|batch| batch.hand_out(ANY, i64::MIN)).collect();
        let mut last = HashMap::new();
        for (batch, view) in self.batches.iter().zip(&views) {
            if batch.base < stable && batch.fate != Fate::Aborted {
                last.extend(view.iter().filter_map(|record| Some((record.key?, record.offset))));
            }
        }
        let mut kept = Vec::with_capacity(self.batches.len());
        for (batch, view) in self.batches.iter().zip(&views) {
            if batch.base >= stable {
                kept.push(batch.clone());
                continue;
            }
            let tombstones = batch.written_at_ms > tombstones_after_ms;
            let stays = |key: Option<&[u8]>, offset: Offset, is_tombstone: bool| {
                key.is_some_and(|key| last.get(key) == Some(&offset))
                    && (tombstones || !is_tombstone)
                    && batch.fate != Fate::Aborted
            };
            let left = rewritten(batch, view, stays);
            if left.records_count > 0 || keep_empty() {
                kept.push(left);
            }
        }
        self.batches = kept.into();
        self.stored_bytes = self.batches.iter().map(StoredBatch::cost_bytes).sum();
        self.compacted_bytes = self.stored_bytes;
    }
}

/// The batch with the records that stay, each with the bytes it had: their deltas are still right.
fn rewritten(
    batch: &StoredBatch,
    view: &crate::journal::Batch,
    stays: impl Fn(Option<&[u8]>, Offset, bool) -> bool,
) -> StoredBatch {
    let mut left = Vec::new();
    let mut records_count = 0;
    let mut records = view.iter();
    let mut start = 0;
    while let Some(record) = records.next() {
        let end = view.records.len() - records.left_bytes();
        if stays(record.key, record.offset, record.value().is_none()) {
            left.extend_from_slice(view.records.get(start..end).unwrap_or_default());
            records_count += 1;
        }
        start = end;
    }
    if records_count == batch.records_count {
        return batch.clone();
    }
    StoredBatch { records: left.into(), records_count, ..batch.clone() }
}
