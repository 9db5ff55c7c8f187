//! Control records: how transactions end.

use bytes::Buf;

use super::{RawBatch, RecordsError};
use crate::journal::{Offset, Partition, TopicIndex};

/// A control record is a few bytes; no compressor makes more of it.
const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// What a control batch says of its producer's open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// Its records do not count.
    Abort,
    /// Its records count.
    Commit,
    /// Something that is no business of a reader.
    Other(i16),
}

/// The key of the batch's first record: version, then type.
pub(super) fn parse(batch: &RawBatch) -> Result<ControlKind, RecordsError> {
    let malformed = RecordsError::Control { base_offset: batch.header.base_offset };
    let nowhere = Partition { topic: TopicIndex(0), number: 0 };
    let opened = batch.open(nowhere, Offset(0), CONTROL_BYTES_MAX)?;
    let Some(mut key) = opened.iter().next().and_then(|record| record.key) else {
        return Err(malformed);
    };
    let (Ok(_version), Ok(kind)) = (key.try_get_i16(), key.try_get_i16()) else {
        return Err(malformed);
    };
    Ok(match kind {
        0 => ControlKind::Abort,
        1 => ControlKind::Commit,
        other => ControlKind::Other(other),
    })
}
