//! A batch of stored records, walked lazily.
//!
//! A record's framing (length, offset, key, value) is checked as the walk reaches it; its headers are only looked at
//! when asked for. The bytes come from foreign programs: what is malformed ends the walk, and [`Records::malformed`]
//! or [`Batch::check`] says why.

pub mod encode;
pub mod varint;

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
    /// Set when the kafka topic stamps records with `LogAppendTime`: then it is every record's timestamp.
    pub append_time_ms: Option<i64>,
    /// How many records the batch header says there are.
    pub records_count: u32,
    /// The encoded records.
    pub records: Bytes,
}

impl Batch {
    /// The records from [`Batch::from`] on, in offset order. Ends early at a malformed one: [`Records::malformed`].
    #[inline]
    pub fn iter(&self) -> Records<'_> {
        Records {
            rest: &self.records,
            left: self.records_count,
            last_delta: -1,
            deltas_end: self.next_offset.0.saturating_sub(self.base_offset.0),
            base_offset: self.base_offset.0,
            from: self.from.0,
            base_timestamp_ms: self.base_timestamp_ms,
            append_time_ms: self.append_time_ms,
            malformed: None,
        }
    }

    /// Looks at every record with its headers, those before [`Batch::from`] included.
    ///
    /// # Errors
    /// The first thing that is not as the format wants it.
    pub fn check(&self) -> Result<(), Malformed> {
        let mut records = self.iter();
        records.from = i64::MIN;
        while let Some(record) = records.next() {
            let mut headers = record.raw_headers();
            headers.by_ref().for_each(drop);
            if !headers.is_clean() {
                return Err(records.blame("its headers are malformed"));
            }
        }
        records.malformed.map_or(Ok(()), Err)
    }

    /// `part` of a record of this batch, kept alive by the whole batch instead of copied.
    pub fn slice(&self, part: &[u8]) -> Bytes {
        // Bytes::slice_ref panics on a slice of something else; that is answered with a copy.
        let start = (part.as_ptr() as usize).checked_sub(self.records.as_ptr() as usize);
        match start.and_then(|start| Some(start..start.checked_add(part.len())?)) {
            Some(range) if range.end <= self.records.len() => self.records.slice(range),
            _ => Bytes::copy_from_slice(part),
        }
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = StoredRecord<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// What is wrong with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch at offset {base_offset}, {left} records before its end: {what}")]
pub struct Malformed {
    /// Offset of the batch.
    pub base_offset: i64,
    /// How many records were still to come.
    pub left: u32,
    /// In words.
    pub what: &'static str,
}

/// Walks the records of a [`Batch`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: u32,
    last_delta: i64,
    deltas_end: i64,
    base_offset: i64,
    from: i64,
    base_timestamp_ms: i64,
    append_time_ms: Option<i64>,
    malformed: Option<Malformed>,
}

impl Records<'_> {
    /// Why the walk ended before the batch did, once it has.
    pub fn malformed(&self) -> Option<Malformed> {
        self.malformed
    }

    /// Bytes of records not yet walked.
    pub(crate) fn left_bytes(&self) -> usize {
        self.rest.len()
    }

    fn blame(&self, what: &'static str) -> Malformed {
        Malformed { base_offset: self.base_offset, left: self.left, what }
    }

    #[cold]
    fn end(&mut self, what: &'static str) {
        self.malformed = Some(self.blame(what));
        self.left = 0;
        self.rest = &[];
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = StoredRecord<'a>;

    #[inline]
    fn next(&mut self) -> Option<StoredRecord<'a>> {
        loop {
            if self.left == 0 {
                if !self.rest.is_empty() {
                    self.end("bytes follow the last record");
                }
                return None;
            }
            let Some(Some(body)) = varint::take_bytes(&mut self.rest) else {
                self.end("a record is longer than the batch");
                return None;
            };
            let Some(parsed) = Parsed::parse(body) else {
                self.end("a record's fields do not fit its length");
                return None;
            };
            let delta = parsed.offset_delta;
            if delta <= self.last_delta || delta >= self.deltas_end {
                self.end("a record's offset is out of order or outside of the batch");
                return None;
            }
            self.left -= 1;
            self.last_delta = delta;
            let offset = self.base_offset.saturating_add(delta);
            if offset < self.from {
                continue;
            }
            let timestamp_ms = match self.append_time_ms {
                Some(at) => at,
                None => self.base_timestamp_ms.wrapping_add(parsed.timestamp_delta),
            };
            let Parsed { key, value, headers, .. } = parsed;
            return Some(StoredRecord { offset: Offset(offset), timestamp_ms, key, value, headers });
        }
    }
}

impl std::iter::FusedIterator for Records<'_> {}

struct Parsed<'a> {
    timestamp_delta: i64,
    offset_delta: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl<'a> Parsed<'a> {
    #[inline]
    fn parse(body: &'a [u8]) -> Option<Self> {
        let (_attributes, mut rest) = body.split_first()?;
        let timestamp_delta = varint::take(&mut rest)?;
        let offset_delta = varint::take(&mut rest)?;
        let key = varint::take_bytes(&mut rest)?;
        let value = varint::take_bytes(&mut rest)?;
        Some(Self { timestamp_delta, offset_delta, key, value, headers: rest })
    }
}

/// One record; its headers are not yet looked at.
#[derive(Clone, Copy, Debug)]
pub struct StoredRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Record key.
    pub key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    /// Count of headers, then the headers.
    headers: &'a [u8],
}

impl<'a> StoredRecord<'a> {
    /// Record value; `None` is a tombstone.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// Headers in order, duplicates and null values kept. A name that is not UTF-8 is skipped; what follows a
    /// malformed header is not seen ([`Batch::check`] tells).
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        self.raw_headers().filter_map(|(name, value)| Some(Header { name: str::from_utf8(name).ok()?, value }))
    }

    /// Whether there are headers at all.
    #[inline]
    pub fn has_headers(&self) -> bool {
        self.headers.first().is_some_and(|&count| count != 0)
    }

    fn raw_headers(&self) -> RawHeaders<'a> {
        let mut rest = self.headers;
        match varint::take_i32(&mut rest).and_then(|count| u32::try_from(count).ok()) {
            Some(left) => RawHeaders { rest, left, broken: false },
            None => RawHeaders { rest, left: 0, broken: true },
        }
    }
}

/// Names as bytes, with values.
struct RawHeaders<'a> {
    rest: &'a [u8],
    left: u32,
    broken: bool,
}

impl RawHeaders<'_> {
    /// After the walk: all headers were there and nothing else.
    fn is_clean(&self) -> bool {
        !self.broken && self.rest.is_empty()
    }
}

impl<'a> Iterator for RawHeaders<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let header = match varint::take_bytes(&mut self.rest) {
            Some(Some(name)) => varint::take_bytes(&mut self.rest).map(|value| (name, value)),
            Some(None) | None => None,
        };
        if header.is_none() {
            self.left = 0;
            self.broken = true;
        }
        header
    }
}

#[cfg(test)]
mod tests;
