//! Records that travel together, as a batch does.

use bytes::Bytes;

use crate::journal::batch::encode::{Deltas, body_len, put_record};
use crate::journal::{Refusal, Ticket};
use crate::message::RecordRef;

/// Appends of one incarnation to one partition, encoded as they came.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) bytes: Vec<u8>,
    pub(super) tickets: Vec<Ticket>,
    pub(super) records_count: u32,
    pub(super) base_timestamp_ms: i64,
    /// The kafka topic will not take it: a group of one.
    pub(super) doomed: Option<Refusal>,
    /// Which append of its incarnation the first one was.
    pub(super) first_taken: u64,
    /// When it was taken.
    pub(super) taken_at_ms: i64,
    /// What its appends were charged.
    pub(super) charged_bytes: usize,
}

impl Group {
    /// Encodes a record at the end; says how many bytes to charge for it.
    pub(super) fn push(&mut self, record: &RecordRef<'_>, ticket: Option<Ticket>) -> usize {
        if self.records_count == 0 {
            self.base_timestamp_ms = record.timestamp_ms;
        }
        let offset = i32::try_from(self.records_count).unwrap_or(i32::MAX);
        let deltas = Deltas { offset, timestamp_ms: record.timestamp_ms.wrapping_sub(self.base_timestamp_ms) };
        let before = self.bytes.len();
        put_record(&mut self.bytes, record, deltas, body_len(record, deltas));
        self.records_count += 1;
        self.tickets.extend(ticket);
        let charge = self.bytes.len() - before + size_of::<Ticket>();
        self.charged_bytes += charge;
        charge
    }

    pub(super) fn seal(self) -> Sealed {
        Sealed {
            records: Bytes::from(self.bytes),
            records_count: self.records_count,
            base_timestamp_ms: self.base_timestamp_ms,
        }
    }
}

/// A group's records, ready to be stored (more than once, if need be).
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) records: Bytes,
    pub(super) records_count: u32,
    pub(super) base_timestamp_ms: i64,
}

impl Sealed {
    /// Some records of a foreign program.
    pub(super) fn of(records: &[RecordRef<'_>]) -> Self {
        let mut group = Group::default();
        for record in records {
            group.push(record, None);
        }
        group.seal()
    }
}
