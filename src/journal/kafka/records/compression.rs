//! What a batch's records may be compressed with. All five are read; LZ4 is written.

use std::fmt::Display;
use std::io::Read;

use bytes::Bytes;

use super::HEADER_BYTES;
use super::lz4::Frame;

/// Of a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// Raw, or framed as the Java client does.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

/// Why records do not decompress.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// They would take more bytes than allowed.
    #[error("it would take more than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// They are not what they should be.
    #[error("{0}")]
    Malformed(String),
}

impl Compression {
    pub(super) fn of_attributes(attributes: i16) -> Option<Self> {
        match attributes & 0x7 {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) fn attributes(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Decompresses the records of a batch to at most `bytes_max`. Uncompressed ones are shared, not copied.
    pub(super) fn decompress(self, body: &Bytes, bytes_max: usize) -> Result<Bytes, DecompressError> {
        match self {
            Self::None if body.len() <= bytes_max => Ok(body.clone()),
            Self::None => Err(DecompressError::TooLarge { bytes_max }),
            Self::Gzip => read_out(flate2::read::MultiGzDecoder::new(&body[..]), body.len(), bytes_max),
            Self::Snappy => snappy(body, bytes_max),
            Self::Lz4 => match Frame::parse(body) {
                Some(frame) => frame.read(bytes_max).map(Bytes::from),
                None => read_out(lz4_flex::frame::FrameDecoder::new(&body[..]), body.len(), bytes_max),
            },
            Self::Zstd => zstd(body, bytes_max),
        }
    }
}

pub(super) fn malformed(why: impl Display) -> DecompressError {
    DecompressError::Malformed(format!("{why}"))
}

/// Reads a decompressor to its end, allocating only what really comes.
fn read_out(from: impl Read, body_len: usize, bytes_max: usize) -> Result<Bytes, DecompressError> {
    let mut out = Vec::with_capacity(body_len.saturating_mul(3).min(bytes_max));
    read_into(&mut out, from, bytes_max)?;
    Ok(Bytes::from(out))
}

fn read_into(out: &mut Vec<u8>, from: impl Read, bytes_max: usize) -> Result<(), DecompressError> {
    let left = bytes_max.saturating_sub(out.len());
    let read = from.take((left as u64).saturating_add(1)).read_to_end(out).map_err(malformed)?;
    if read > left { Err(DecompressError::TooLarge { bytes_max }) } else { Ok(()) }
}

/// What the Java client puts before its snappy blocks: this, then two version numbers of four bytes.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

fn snappy(body: &[u8], bytes_max: usize) -> Result<Bytes, DecompressError> {
    let mut out = Vec::new();
    if !body.starts_with(XERIAL_MAGIC) {
        snappy_block(&mut out, body, bytes_max)?;
        return Ok(Bytes::from(out));
    }
    let mut rest = body.get(XERIAL_HEADER_BYTES..).ok_or_else(|| malformed("the snappy frame is cut off"))?;
    while !rest.is_empty() {
        let (length, after) =
            rest.split_first_chunk::<4>().ok_or_else(|| malformed("the length of a snappy block is cut off"))?;
        let (block, after) = after
            .split_at_checked(u32::from_be_bytes(*length) as usize)
            .ok_or_else(|| malformed("a snappy block is cut off"))?;
        snappy_block(&mut out, block, bytes_max)?;
        rest = after;
    }
    Ok(Bytes::from(out))
}

/// No element of the snappy format makes more than 64 bytes of three.
const SNAPPY_RATIO_MAX: usize = 22;

fn snappy_block(out: &mut Vec<u8>, block: &[u8], bytes_max: usize) -> Result<(), DecompressError> {
    let length = snap::raw::decompress_len(block).map_err(malformed)?;
    if length > bytes_max.saturating_sub(out.len()) {
        return Err(DecompressError::TooLarge { bytes_max });
    }
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(malformed("a snappy block claims to be larger than it can be"));
    }
    let start = out.len();
    out.resize(start + length, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let written = snap::raw::Decoder::new().decompress(block, room).map_err(malformed)?;
    out.truncate(start + written);
    Ok(())
}

/// Windows above what the zstd library itself takes by default are refused.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

fn zstd(body: &[u8], bytes_max: usize) -> Result<Bytes, DecompressError> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let mut decoder = ruzstd::decoding::FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
        let before = rest.len();
        let frame = ruzstd::decoding::StreamingDecoder::new_with_decoder(&mut rest, decoder).map_err(malformed)?;
        read_into(&mut out, frame, bytes_max)?;
        if rest.len() == before {
            return Err(malformed("a zstd frame without bytes"));
        }
    }
    Ok(Bytes::from(out))
}

/// The start of an LZ4 frame: magic, version 1 with independent blocks and no checksums, blocks of at most 64 KiB, and
/// the checksum of those two bytes.
const LZ4_FRAME_START: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const LZ4_FRAME_END: [u8; 4] = [0; 4];
const LZ4_UNCOMPRESSED: u32 = 1 << 31;
/// Just short of 64 KiB: positions in the compressor's table fit 16 bits.
const LZ4_BLOCK_BYTES: usize = 64 * 1024 - 2;

/// Compresses what follows the gap for the header, behind such a gap. `None` if that does not save an eighth.
pub(super) fn lz4_after_gap(plain: &[u8]) -> Option<Vec<u8>> {
    let records = plain.get(HEADER_BYTES..)?;
    let worth_it = plain.len() - plain.len() / 8;
    let mut table = lz4_flex::block::CompressTable::small();
    let mut out = Vec::with_capacity(worth_it + lz4_flex::block::get_maximum_output_size(LZ4_BLOCK_BYTES));
    out.resize(HEADER_BYTES, 0);
    out.extend_from_slice(&LZ4_FRAME_START);
    for block in records.chunks(LZ4_BLOCK_BYTES) {
        put_lz4_block(&mut out, block, &mut table)?;
        if out.len() + LZ4_FRAME_END.len() > worth_it {
            return None;
        }
    }
    out.extend_from_slice(&LZ4_FRAME_END);
    Some(out)
}

fn put_lz4_block(out: &mut Vec<u8>, block: &[u8], table: &mut lz4_flex::block::CompressTable) -> Option<()> {
    let length_at = out.len();
    let start = length_at + 4;
    out.resize(start + lz4_flex::block::get_maximum_output_size(block.len()), 0);
    let room = out.get_mut(start..)?;
    let written = lz4_flex::block::compress_into_with_table(block, room, table).ok()?;
    let length = if written < block.len() {
        out.truncate(start + written);
        u32::try_from(written).ok()?
    } else {
        out.truncate(start);
        out.extend_from_slice(block);
        u32::try_from(block.len()).ok()? | LZ4_UNCOMPRESSED
    };
    out.get_mut(length_at..start)?.copy_from_slice(&length.to_le_bytes());
    Some(())
}
