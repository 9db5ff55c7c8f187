//! The batch that records are appended to until it is sent.

use bytes::Bytes;

use super::{CHECKED_FROM, Compression, HEADER_BYTES, LENGTH_END, MAGIC, MAGIC_AT, compression};
use crate::journal::Ticket;
use crate::journal::batch::encode::{Deltas, LENGTH_PREFIX_BYTES_MAX, body_len, put_record, record_len_max};
use crate::message::RecordRef;

/// Below this, compression gains nothing worth its time.
const COMPRESS_FROM_BYTES: usize = 1024;
/// The first allocation of a batch that knows no predecessor.
const CAPACITY_BYTES_MIN: usize = 4 * 1024;

/// Records encoded straight into the bytes that will be sent, with the tickets of those who appended them.
///
/// It is used again and again: [`OpenBatch::seal`] leaves it empty.
#[derive(Debug)]
pub struct OpenBatch {
    /// A gap for the header, then the records; empty before the first record.
    bytes: Vec<u8>,
    tickets: Vec<Ticket>,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    bytes_max: usize,
    /// Size of the batch before this one: the best guess of what this one will need.
    last_bytes: usize,
    last_records: usize,
}

/// A batch ready to be sent, and sent again: the bytes never change.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    /// Header and records.
    pub bytes: Bytes,
    /// In the order of the records.
    pub tickets: Vec<Ticket>,
}

/// The record does not fit: seal the batch first; if it is empty, the record is too large for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record does not fit into the batch")]
pub struct DoesNotFit;

impl OpenBatch {
    /// A batch of at most `bytes_max` uncompressed bytes, header included. Allocates nothing yet.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            tickets: Vec::new(),
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            bytes_max: bytes_max.min(i32::MAX as usize),
            last_bytes: CAPACITY_BYTES_MIN,
            last_records: 0,
        }
    }

    /// Bytes so far, uncompressed, header included; 0 without records.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many records there are.
    pub fn records_count(&self) -> usize {
        self.tickets.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Whether `record` would go into this batch now.
    pub fn would_fit(&self, record: &RecordRef<'_>) -> bool {
        self.bytes.len().max(HEADER_BYTES).saturating_add(record_len_max(record)) <= self.bytes_max
    }

    /// Whether `record` would go into this batch were it empty.
    pub fn would_fit_alone(&self, record: &RecordRef<'_>) -> bool {
        HEADER_BYTES.saturating_add(record_len_max(record)) <= self.bytes_max
    }

    /// Encodes `record` at the end; says how many bytes it took.
    ///
    /// # Errors
    /// It does not fit; nothing has changed.
    #[inline]
    pub fn push(&mut self, record: &RecordRef<'_>, ticket: Ticket) -> Result<usize, DoesNotFit> {
        let offset = i32::try_from(self.tickets.len()).map_err(|_| DoesNotFit)?;
        let base_timestamp_ms = if offset == 0 { record.timestamp_ms } else { self.base_timestamp_ms };
        let deltas = Deltas { offset, timestamp_ms: record.timestamp_ms.wrapping_sub(base_timestamp_ms) };
        let body_len = body_len(record, deltas);
        let before = self.bytes.len().max(HEADER_BYTES);
        if before.saturating_add(body_len).saturating_add(LENGTH_PREFIX_BYTES_MAX) > self.bytes_max {
            return Err(DoesNotFit);
        }
        if offset == 0 {
            self.begin(record.timestamp_ms);
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(record.timestamp_ms);
        put_record(&mut self.bytes, record, deltas, body_len);
        self.tickets.push(ticket);
        Ok(self.bytes.len() - before)
    }

    #[cold]
    fn begin(&mut self, timestamp_ms: i64) {
        let bytes = (self.last_bytes + self.last_bytes / 8).max(CAPACITY_BYTES_MIN).min(self.bytes_max);
        self.bytes.reserve(bytes);
        self.tickets.reserve(self.last_records + self.last_records / 8);
        self.bytes.resize(HEADER_BYTES, 0);
        self.base_timestamp_ms = timestamp_ms;
        self.max_timestamp_ms = timestamp_ms;
    }

    /// Ends the batch: header and checksum are filled in, and it is compressed if that is wanted and helps. `None`
    /// without records. Afterwards this batch is empty.
    pub fn seal(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        compression: Compression,
    ) -> Option<SealedBatch> {
        if self.tickets.is_empty() {
            return None;
        }
        self.last_bytes = self.bytes.len();
        self.last_records = self.tickets.len();
        let tickets = std::mem::take(&mut self.tickets);
        let plain = std::mem::take(&mut self.bytes);
        let compressed = match compression {
            Compression::Lz4 if plain.len() > HEADER_BYTES + COMPRESS_FROM_BYTES => compression::lz4_after_gap(&plain),
            Compression::None | Compression::Gzip | Compression::Snappy | Compression::Lz4 | Compression::Zstd => None,
        };
        let (mut bytes, attributes) = match compressed {
            Some(bytes) => (bytes, Compression::Lz4.attributes()),
            None => (plain, Compression::None.attributes()),
        };
        // Both fit: the batch is bounded by i32::MAX bytes, and a record has at least one.
        let records_count = i32::try_from(tickets.len()).unwrap_or(i32::MAX);
        let length = i32::try_from(bytes.len() - LENGTH_END).unwrap_or(i32::MAX);

        patch(&mut bytes, 8, &length.to_be_bytes());
        patch(&mut bytes, 12, &(-1_i32).to_be_bytes());
        patch(&mut bytes, MAGIC_AT, &MAGIC.to_be_bytes());
        patch(&mut bytes, 21, &attributes.to_be_bytes());
        patch(&mut bytes, 23, &(records_count - 1).to_be_bytes());
        patch(&mut bytes, 27, &self.base_timestamp_ms.to_be_bytes());
        patch(&mut bytes, 35, &self.max_timestamp_ms.to_be_bytes());
        patch(&mut bytes, 43, &producer_id.to_be_bytes());
        patch(&mut bytes, 51, &producer_epoch.to_be_bytes());
        patch(&mut bytes, 53, &base_sequence.to_be_bytes());
        patch(&mut bytes, 57, &records_count.to_be_bytes());
        let checksum = crc32c::crc32c(bytes.get(CHECKED_FROM..).unwrap_or_default());
        patch(&mut bytes, 17, &checksum.to_be_bytes());
        Some(SealedBatch { bytes: Bytes::from(bytes), tickets })
    }
}

/// Writes a header field.
fn patch(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}
