//! One record into bytes: Kafka record format v2.

use super::varint;
use crate::message::RecordRef;

/// The most bytes the length in front of a record takes: the longest varint of an `i32`.
pub const LENGTH_PREFIX_BYTES_MAX: usize = 5;

/// A record's place in its batch, which is part of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deltas {
    /// Offset minus the batch's base offset.
    pub offset: i32,
    /// Timestamp minus the batch's base timestamp.
    pub timestamp_ms: i64,
}

/// The encoded size of `record` without the length in front.
#[inline]
pub fn body_len(record: &RecordRef<'_>, deltas: Deltas) -> usize {
    let mut bytes = 1 + varint::len(deltas.timestamp_ms) + varint::len(i64::from(deltas.offset));
    bytes += field_len(record.key) + field_len(record.value) + varint::len(wide(record.headers.len()));
    for header in record.headers {
        bytes += field_len(Some(header.name.as_bytes())) + field_len(header.value);
    }
    bytes
}

/// The most bytes `record` takes in any batch.
pub fn record_len_max(record: &RecordRef<'_>) -> usize {
    LENGTH_PREFIX_BYTES_MAX + body_len(record, Deltas { offset: i32::MAX, timestamp_ms: i64::MIN })
}

/// Appends `record`; `body_len` must be what [`body_len`] said of it.
#[inline]
pub fn put_record(out: &mut Vec<u8>, record: &RecordRef<'_>, deltas: Deltas, body_len: usize) {
    out.reserve(LENGTH_PREFIX_BYTES_MAX + body_len);
    varint::put(out, wide(body_len));
    out.push(0);
    varint::put(out, deltas.timestamp_ms);
    varint::put(out, i64::from(deltas.offset));
    put_field(out, record.key);
    put_field(out, record.value);
    varint::put(out, wide(record.headers.len()));
    for header in record.headers {
        put_field(out, Some(header.name.as_bytes()));
        put_field(out, header.value);
    }
}

#[inline]
fn field_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint::len(wide(bytes.len())) + bytes.len())
}

#[inline]
fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::put(out, -1),
        Some(bytes) => {
            varint::put(out, wide(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}

/// A slice is never longer than `isize::MAX`.
#[inline]
fn wide(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
