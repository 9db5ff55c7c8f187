//! Where records of one partition wait to be sent: the only thing that callers and the sender share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::clock;
use crate::journal::kafka::records::{HEADER_BYTES, OpenBatch};
use crate::journal::{NotTaken, Partition, Ticket};
use crate::message::RecordRef;

/// However little a kafka topic allows, batches are not cut into crumbs before they are sent.
const LEARNED_BATCH_BYTES_MIN: usize = 16 * 1024;

/// One partition's records.
#[derive(Debug)]
pub struct Slot {
    /// Whose.
    pub partition: Partition,
    /// The sender's name for it.
    pub lane: usize,
    records: Mutex<Records>,
    decided: AtomicU64,
}

#[derive(Debug)]
struct Records {
    open: OpenBatch,
    /// When the open batch got its first record.
    born: Instant,
    /// Older batches that got no further record.
    full: VecDeque<Unsealed>,
    batch_bytes_max: usize,
    /// A larger batch is not continued.
    enough_bytes: usize,
    /// The sender is told of a batch that gets this large.
    group_bytes: usize,
    /// Records ever taken.
    taken: u64,
    /// The sender looks here again without being told.
    attended: bool,
}

/// A batch that nobody adds to any more.
#[derive(Debug)]
pub struct Unsealed {
    /// The records.
    pub batch: OpenBatch,
    /// When its oldest record was appended.
    pub born: Instant,
    /// What it takes of the append budget.
    pub budget_bytes: usize,
}

/// What came of putting a record in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// The sender must be told.
    pub tell: bool,
}

impl Slot {
    /// An empty one.
    pub fn new(partition: Partition, lane: usize, batch_bytes_max: usize, group_bytes: usize) -> Self {
        let records = Records {
            open: OpenBatch::new(batch_bytes_max),
            born: clock::now(),
            full: VecDeque::new(),
            batch_bytes_max,
            enough_bytes: batch_bytes_max,
            group_bytes,
            taken: 0,
            attended: false,
        };
        Self { partition, lane, records: Mutex::new(records), decided: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes `record`. `is_closed` is asked, and `pending_bytes` raised, under the lock under which the sender takes
    /// records: closed slots stay empty, and nothing is settled before it is counted.
    pub fn put(
        &self,
        record: &RecordRef<'_>,
        ticket: Ticket,
        is_closed: impl Fn() -> bool,
        pending_bytes: &AtomicUsize,
    ) -> Result<Put, NotTaken> {
        let mut records = self.lock();
        if is_closed() {
            return Err(NotTaken::Closed);
        }
        let before = records.open.len_bytes();
        if before >= records.enough_bytes {
            records.turn_over();
        }
        let bytes = match records.open.push(record, ticket) {
            Ok(bytes) => bytes,
            Err(_) if !records.open.would_fit_alone(record) => return Err(NotTaken::TooLarge),
            Err(_) => {
                records.turn_over();
                records.open.push(record, ticket).map_err(|_| NotTaken::TooLarge)?
            }
        };
        if records.open.records_count() == 1 {
            records.born = clock::now();
        }
        records.taken += 1;
        pending_bytes.fetch_add(bytes, Ordering::Relaxed);
        let after = records.open.len_bytes();
        let is_group = before < records.group_bytes && after >= records.group_bytes;
        let tell = is_group || !records.attended;
        records.attended = true;
        Ok(Put { tell })
    }

    /// The oldest batch; the open one is exchanged for `spare`.
    pub fn take(&self, spare: &mut OpenBatch) -> Option<Unsealed> {
        let mut records = self.lock();
        if let Some(full) = records.full.pop_front() {
            return Some(full);
        }
        if records.open.is_empty() {
            return None;
        }
        let born = records.born;
        let fresh = std::mem::replace(spare, OpenBatch::new(0));
        let batch = std::mem::replace(&mut records.open, fresh);
        drop(records);
        let budget_bytes = batch.len_bytes() - HEADER_BYTES;
        Some(Unsealed { batch, born, budget_bytes })
    }

    /// The oldest batch if it was born at `limit` or before.
    pub fn take_born_before(&self, limit: Instant) -> Option<Unsealed> {
        let mut records = self.lock();
        if records.full.is_empty() && !records.open.is_empty() && records.born <= limit {
            records.turn_over();
        }
        records.full.pop_front_if(|full| full.born <= limit)
    }

    /// Whether anything waits here.
    pub fn has_records(&self) -> bool {
        let records = self.lock();
        !records.full.is_empty() || !records.open.is_empty()
    }

    /// Whether a batch waits that should not wait longer.
    pub fn has_group(&self) -> bool {
        let records = self.lock();
        !records.full.is_empty() || records.open.len_bytes() >= records.group_bytes
    }

    /// The sender turns away, unless there is something; false: there is.
    pub fn leave(&self) -> bool {
        let mut records = self.lock();
        records.attended = !records.full.is_empty() || !records.open.is_empty();
        !records.attended
    }

    /// Kafka found a batch too large: smaller ones from now on.
    pub fn learn_batch_bytes(&self, bytes: usize) {
        let mut records = self.lock();
        records.enough_bytes = records.enough_bytes.min(bytes.max(LEARNED_BATCH_BYTES_MIN));
    }

    /// `records` more have had their outcome.
    pub fn on_decided(&self, records: usize) {
        self.decided.fetch_add(records as u64, Ordering::Release);
    }

    /// Records ever taken.
    pub fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Records that have had their outcome.
    pub fn decided(&self) -> u64 {
        self.decided.load(Ordering::Acquire)
    }
}

impl Records {
    fn turn_over(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.open, OpenBatch::new(self.batch_bytes_max));
        let budget_bytes = batch.len_bytes() - HEADER_BYTES;
        self.full.push_back(Unsealed { batch, born: self.born, budget_bytes });
    }
}
