//! A Produce request that borrows its batches: the codec would copy them.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::{HeaderVersion, StrBytes};

use crate::journal::kafka::wire::{self, Frame};

/// All in-sync replicas.
const ACKS_ALL: i16 = -1;
/// From this version on, lengths are varints and structures end in tags.
const FLEXIBLE_FROM: i16 = 9;

/// One kafka topic's batches.
#[derive(Debug)]
pub struct TopicBatches {
    /// The kafka topic.
    pub name: TopicName,
    /// Partition numbers with one batch each.
    pub batches: Vec<(i32, Bytes)>,
}

/// The request as a frame.
///
/// # Errors
/// The codec does not know the header.
pub fn frame(
    topics: &[TopicBatches],
    wait_ms: u32,
    version: i16,
    correlation: i32,
    client_id: &StrBytes,
) -> Result<Frame, String> {
    let header_version = ProduceRequest::header_version(version);
    let head = wire::begin(wire::PRODUCE, version, header_version, correlation, client_id)?;
    let mut writer = Writer { bytes: head, borrowed: Vec::new(), flexible: version >= FLEXIBLE_FROM };
    writer.null_string();
    writer.bytes.put_i16(ACKS_ALL);
    writer.bytes.put_i32(i32::try_from(wait_ms).unwrap_or(i32::MAX));
    writer.length(topics.len());
    for topic in topics {
        writer.string(&topic.name);
        writer.length(topic.batches.len());
        for (number, batch) in &topic.batches {
            writer.bytes.put_i32(*number);
            writer.length(batch.len());
            writer.borrow(batch);
            writer.tags();
        }
        writer.tags();
    }
    writer.tags();
    Ok(writer.finish(correlation))
}

struct Writer {
    /// Everything but the borrowed pieces.
    bytes: BytesMut,
    /// Pieces, and where in `bytes` they belong.
    borrowed: Vec<(usize, Bytes)>,
    flexible: bool,
}

impl Writer {
    fn null_string(&mut self) {
        if self.flexible { self.bytes.put_u8(0) } else { self.bytes.put_i16(-1) }
    }

    fn string(&mut self, text: &str) {
        if self.flexible {
            self.length(text.len());
        } else {
            self.bytes.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        }
        self.bytes.put_slice(text.as_bytes());
    }

    /// Of an array or of bytes.
    fn length(&mut self, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if !self.flexible {
            self.bytes.put_u32(length);
            return;
        }
        let mut rest = length.saturating_add(1);
        while rest >= 0x80 {
            self.bytes.put_u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.put_u8((rest & 0x7f) as u8);
    }

    fn tags(&mut self) {
        if self.flexible {
            self.bytes.put_u8(0);
        }
    }

    fn borrow(&mut self, piece: &Bytes) {
        self.borrowed.push((self.bytes.len(), piece.clone()));
    }

    fn finish(mut self, correlation: i32) -> Frame {
        wire::set_length(&mut self.bytes, self.borrowed.iter().map(|(_, piece)| piece.len()).sum());
        let bytes = self.bytes.freeze();
        let mut chunks = Vec::with_capacity(self.borrowed.len() * 2 + 1);
        let mut written = 0;
        for (at, piece) in self.borrowed {
            chunks.push(bytes.slice(written..at));
            chunks.push(piece);
            written = at;
        }
        chunks.push(bytes.slice(written..));
        chunks.retain(|chunk| !chunk.is_empty());
        Frame { correlation, chunks }
    }
}

#[cfg(test)]
mod tests;
