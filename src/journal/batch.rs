//! A batch of stored records, walked lazily.

use bytes::Bytes;

use super::{Offset, Partition};
use crate::message::Header;

/// Records of one partition that were stored together, decompressed, still encoded (Kafka record format v2 without
/// the batch header).
#[derive(Clone, Debug)]
pub struct Batch {
    /// Whose.
    pub partition: Partition,
    /// Offset of the batch header.
    pub base_offset: Offset,
    /// The offset after the batch's last one, whether or not that record still exists.
    pub next_offset: Offset,
    /// The first offset that was asked for: records before it are not handed out.
    pub from: Offset,
    /// Producer id of the writer, −1 for none.
    pub producer_id: i64,
    /// Milliseconds; base of the records' timestamp deltas.
    pub base_timestamp_ms: i64,
    /// Set when the kafka topic stamps records with LogAppendTime: then it is every record's timestamp.
    pub append_time_ms: Option<i64>,
    /// How many records the batch header says there are.
    pub records_count: u32,
    /// The encoded records.
    pub records: Bytes,
}

/// One record, its value and headers not yet looked at.
#[derive(Clone, Copy, Debug)]
pub struct StoredRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Record key.
    pub key: Option<&'a [u8]>,
    /// What follows the key: value length, value, headers.
    rest: &'a [u8],
}
impl<'a> StoredRecord<'a> {
    /// Record value; `None` is a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        let _ = self.rest;
        todo!("journal")
    }
    /// Headers in order. A name that is not UTF-8 is skipped.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + 'a {
        let _ = self.rest;
        std::iter::empty()
    }
}
impl Batch {
    /// The records from [`Batch::from`] on, in offset order.
    pub fn iter(&self) -> impl Iterator<Item = StoredRecord<'_>> + '_ {
        std::iter::empty()
    }
}
