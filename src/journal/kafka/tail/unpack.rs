//! The record set of one partition, unpacked: batches to hand out, and where to go on.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::AbortedTransaction;

use crate::journal::kafka::records::{BatchWalk, ControlKind, RawBatch, RecordsError};
use crate::journal::{Batch, Isolation, Offset, Partition};

/// What is to be unpacked, and for whom.
#[derive(Debug)]
pub struct Packed {
    /// Whose records.
    pub partition: Partition,
    /// What was asked for.
    pub from: Offset,
    /// For whom.
    pub isolation: Isolation,
    /// Largest batch after decompression.
    pub bytes_max: usize,
    /// As Kafka lists them for this answer.
    pub aborted: Vec<AbortedTransaction>,
    /// As they came.
    pub records: Bytes,
}

/// What was in it.
#[derive(Debug)]
pub struct Unpacked {
    /// With records of interest.
    pub batches: Vec<Batch>,
    /// Where to go on: behind the last batch, whatever was in it.
    pub next: Offset,
    /// Of the last batch; −1 if there was none.
    pub leader_epoch: i32,
    /// Why it could not be unpacked further.
    pub error: Option<RecordsError>,
}

impl Packed {
    /// Unpacks as far as it goes.
    pub fn unpack(self) -> Unpacked {
        let mut unpacked = Unpacked { batches: Vec::new(), next: self.from, leader_epoch: -1, error: None };
        let mut aborted = Aborted::new(self.isolation, &self.aborted);
        for batch in BatchWalk::new(self.records.clone()) {
            let opened = batch.and_then(|batch| self.open(&batch, &mut aborted, &mut unpacked));
            match opened {
                Ok(Some(batch)) => unpacked.batches.push(batch),
                Ok(None) => {}
                Err(error) => {
                    unpacked.error = Some(error);
                    break;
                }
            }
        }
        unpacked
    }

    fn open(
        &self,
        raw: &RawBatch,
        aborted: &mut Aborted,
        unpacked: &mut Unpacked,
    ) -> Result<Option<Batch>, RecordsError> {
        let header = &raw.header;
        let is_aborted = aborted.covers(raw)?;
        let next = Offset(header.next_offset());
        // Kafka answers with whole batches: the first one may begin before what was asked for.
        let wanted = next > unpacked.next && !header.control && !is_aborted && header.records_count > 0;
        let opened = if wanted { Some(raw.open(self.partition, self.from, self.bytes_max)?) } else { None };
        if next > unpacked.next {
            unpacked.next = next;
            unpacked.leader_epoch = header.leader_epoch;
        }
        Ok(opened)
    }
}

/// Which producers are within a transaction that was aborted.
struct Aborted {
    /// Those to come, by first offset.
    ahead: VecDeque<(i64, i64)>,
    producers: BTreeSet<i64>,
}

impl Aborted {
    fn new(isolation: Isolation, listed: &[AbortedTransaction]) -> Self {
        let mut ahead: Vec<(i64, i64)> = match isolation {
            Isolation::ReadCommitted => listed.iter().map(|one| (one.first_offset, *one.producer_id)).collect(),
            Isolation::ReadUncommitted => Vec::new(),
        };
        ahead.sort_unstable();
        Self { ahead: ahead.into(), producers: BTreeSet::new() }
    }

    /// Whether the batch is part of an aborted transaction. To be asked of every batch, in order.
    fn covers(&mut self, raw: &RawBatch) -> Result<bool, RecordsError> {
        let header = &raw.header;
        while let Some((_, producer)) = self.ahead.pop_front_if(|(first, _)| *first < header.next_offset()) {
            self.producers.insert(producer);
        }
        if self.producers.is_empty() {
            return Ok(false);
        }
        if header.control {
            if raw.control()? == Some(ControlKind::Abort) {
                self.producers.remove(&header.producer_id);
            }
            return Ok(false);
        }
        Ok(header.transactional && self.producers.contains(&header.producer_id))
    }
}
