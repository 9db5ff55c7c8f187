//! Record batches as they stand on the wire and in Kafka's log (format v2).
//!
//! Reading: [`BatchWalk`] splits the record set of a Fetch response into [`RawBatch`]es (checksum checked, still
//! compressed); [`RawBatch::open`] makes a [`Batch`] of one. Writing: [`OpenBatch`] takes records, [`OpenBatch::seal`]
//! makes the bytes of a Produce request of them.

mod compression;
mod control;
mod lz4;
mod open;

pub use compression::{Compression, DecompressError};
pub use control::ControlKind;
pub use open::{DoesNotFit, OpenBatch, SealedBatch};

use bytes::{Buf, Bytes};

use crate::journal::batch::Malformed;
use crate::journal::{Batch, Offset, Partition};

/// Bytes of a batch header.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the part of a batch that its length field counts.
const LENGTH_END: usize = 12;
/// Where the part that the checksum covers begins.
const CHECKED_FROM: usize = 21;
/// Where the magic byte is, in every version of the format.
const MAGIC_AT: usize = 16;
/// The format written since Kafka 0.11.
const MAGIC: i8 = 2;

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record, as first written.
    pub base_offset: i64,
    /// Bytes of the whole batch, header included.
    pub batch_bytes: usize,
    /// Epoch of the leader that took it.
    pub leader_epoch: i32,
    /// CRC32C of everything from the attributes on.
    pub checksum: u32,
    /// How the records are compressed.
    pub compression: Compression,
    /// `max_timestamp_ms` is the append time of every record.
    pub log_append_time: bool,
    /// Part of a transaction.
    pub transactional: bool,
    /// Holds control records, no data.
    pub control: bool,
    /// Offset of the last record, as first written, minus `base_offset`.
    pub last_offset_delta: i32,
    /// Base of the timestamp deltas.
    pub base_timestamp_ms: i64,
    /// The highest timestamp.
    pub max_timestamp_ms: i64,
    /// Of the writer, −1 for none.
    pub producer_id: i64,
    /// Of the writer, −1 for none.
    pub producer_epoch: i16,
    /// Of the first record, −1 for none.
    pub base_sequence: i32,
    /// How many records are in the batch now.
    pub records_count: u32,
}

impl BatchHeader {
    /// Parses the first [`HEADER_BYTES`] of `bytes`.
    ///
    /// # Errors
    /// Fewer bytes, another format version, or numbers that cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordsError> {
        let mut fields = bytes;
        let short = |_| RecordsError::Header { base_offset: -1, what: "it is cut off" };
        let base_offset = fields.try_get_i64().map_err(short)?;
        let length = fields.try_get_i32().map_err(short)?;
        let leader_epoch = fields.try_get_i32().map_err(short)?;
        let magic = fields.try_get_i8().map_err(short)?;
        if magic != MAGIC {
            return Err(RecordsError::OldFormat { base_offset, magic });
        }
        if fields.len() < HEADER_BYTES - MAGIC_AT - 1 {
            return Err(RecordsError::Header { base_offset, what: "it is cut off" });
        }
        let checksum = fields.get_u32();
        let attributes = fields.get_i16();
        let last_offset_delta = fields.get_i32();
        let base_timestamp_ms = fields.get_i64();
        let max_timestamp_ms = fields.get_i64();
        let producer_id = fields.get_i64();
        let producer_epoch = fields.get_i16();
        let base_sequence = fields.get_i32();
        let records_count = fields.get_i32();

        let refuse = |what| RecordsError::Header { base_offset, what };
        let batch_bytes = usize::try_from(length).map_err(|_| refuse("its length is negative"))?;
        let batch_bytes = batch_bytes.saturating_add(LENGTH_END);
        if batch_bytes < HEADER_BYTES {
            return Err(refuse("its length is shorter than a header"));
        }
        if base_offset < 0 || last_offset_delta < 0 || base_offset.checked_add(1 << 32).is_none() {
            return Err(refuse("its offsets cannot be"));
        }
        let records_count = u32::try_from(records_count).map_err(|_| refuse("its record count is negative"))?;
        Ok(Self {
            base_offset,
            batch_bytes,
            leader_epoch,
            checksum,
            compression: Compression::of_attributes(attributes)
                .ok_or(refuse("it uses a compression that does not exist"))?,
            log_append_time: attributes & LOG_APPEND_TIME != 0,
            transactional: attributes & TRANSACTIONAL != 0,
            control: attributes & CONTROL != 0,
            last_offset_delta,
            base_timestamp_ms,
            max_timestamp_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            records_count,
        })
    }

    /// Where a reader goes on after this batch, whatever compaction left of it.
    pub fn next_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta)).saturating_add(1)
    }
}

/// One batch, its checksum checked, not yet decompressed.
#[derive(Clone, Debug)]
pub struct RawBatch {
    /// Its header.
    pub header: BatchHeader,
    /// Its records, compressed as the header says.
    pub body: Bytes,
}

impl RawBatch {
    /// Decompresses the records.
    ///
    /// # Errors
    /// They do not decompress, or to more than `bytes_max`.
    pub fn open(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Batch, RecordsError> {
        let header = &self.header;
        Ok(Batch {
            partition,
            base_offset: Offset(header.base_offset),
            next_offset: Offset(header.next_offset()),
            from,
            producer_id: header.producer_id,
            base_timestamp_ms: header.base_timestamp_ms,
            append_time_ms: header.log_append_time.then_some(header.max_timestamp_ms),
            records_count: header.records_count,
            records: header.compression.decompress(&self.body, bytes_max).map_err(|why| RecordsError::Decompress {
                base_offset: header.base_offset,
                compression: header.compression,
                why,
            })?,
        })
    }

    /// What a control batch says; `None` for a data batch, and for a control batch emptied by compaction.
    ///
    /// # Errors
    /// A control batch without a well-formed control record.
    pub fn control(&self) -> Result<Option<ControlKind>, RecordsError> {
        if self.header.control && self.header.records_count > 0 { control::parse(self).map(Some) } else { Ok(None) }
    }
}

/// Why a record set cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// Written before Kafka 0.11, or by something else altogether.
    #[error("the batch at offset {base_offset} has format version {magic}; only version 2 is read")]
    OldFormat {
        /// Whose.
        base_offset: i64,
        /// Its magic byte.
        magic: i8,
    },
    /// The header makes no sense.
    #[error("the header of the batch at offset {base_offset} is wrong: {what}")]
    Header {
        /// Whose; −1 if not even that is known.
        base_offset: i64,
        /// In words.
        what: &'static str,
    },
    /// The bytes are not those that were written.
    #[error(
        "the batch at offset {base_offset} is corrupt: its checksum is {found:08x}, its header says {expected:08x}"
    )]
    Checksum {
        /// Whose.
        base_offset: i64,
        /// In the header.
        expected: u32,
        /// Of the bytes.
        found: u32,
    },
    /// The records do not decompress.
    #[error("the batch at offset {base_offset} does not decompress ({compression:?}): {why}")]
    Decompress {
        /// Whose.
        base_offset: i64,
        /// How it was compressed.
        compression: Compression,
        /// In words.
        why: DecompressError,
    },
    /// The control record is not one.
    #[error("the control batch at offset {base_offset} is malformed")]
    Control {
        /// Whose.
        base_offset: i64,
    },
    /// A record is not one.
    #[error(transparent)]
    Record(#[from] Malformed),
}

/// Walks the batches of a record set. The last one may be cut off: it is left out ([`BatchWalk::is_cut_off`]). After an
/// error the walk is over.
#[derive(Clone, Debug)]
pub struct BatchWalk {
    rest: Bytes,
    cut_off: bool,
}

impl BatchWalk {
    /// Over the records field of one partition of a Fetch response.
    pub fn new(records: Bytes) -> Self {
        Self { rest: records, cut_off: false }
    }

    /// Whether the set ended within a batch, once the walk is over.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    fn take(&mut self) -> Result<Option<RawBatch>, RecordsError> {
        if self.rest.len() < HEADER_BYTES {
            // An old message may be shorter than a header of today: its version is the better reason.
            if let Some(magic) = self.rest.get(MAGIC_AT).map(|&byte| byte.cast_signed())
                && magic != MAGIC
            {
                return Err(RecordsError::OldFormat { base_offset: self.rest.get_i64(), magic });
            }
            self.cut_off = !self.rest.is_empty();
            return Ok(None);
        }
        let header = BatchHeader::parse(&self.rest)?;
        if self.rest.len() < header.batch_bytes {
            self.cut_off = true;
            return Ok(None);
        }
        let mut bytes = self.rest.split_to(header.batch_bytes);
        let found = crc32c::crc32c(bytes.get(CHECKED_FROM..).unwrap_or_default());
        if found != header.checksum {
            let BatchHeader { base_offset, checksum: expected, .. } = header;
            return Err(RecordsError::Checksum { base_offset, expected, found });
        }
        Ok(Some(RawBatch { header, body: bytes.split_off(HEADER_BYTES) }))
    }
}

impl Iterator for BatchWalk {
    type Item = Result<RawBatch, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let taken = self.take();
        if !matches!(taken, Ok(Some(_))) {
            self.rest = Bytes::new();
        }
        taken.transpose()
    }
}

#[cfg(test)]
mod tests;
