//! LZ4 frames as Kafka's clients write them: independent blocks without checksums. They are decompressed straight to
//! where they are read; a frame of any other kind is left to the general reader.

use super::compression::{DecompressError, malformed};

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Version 1 and independent blocks ...
const FLAGS: u8 = 0x60;
/// ... and, perhaps, the size of the content.
const CONTENT_SIZE: u8 = 0x08;
const UNCOMPRESSED: u32 = 1 << 31;
/// No block makes more of its bytes.
const RATIO_MAX: usize = 255;

/// A frame whose blocks are known to follow each other to its end.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    blocks: &'a [u8],
    block_bytes_max: usize,
    blocks_count: usize,
}

impl<'a> Frame<'a> {
    /// `None` if it is a frame of another kind, or more than one.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (&[magic @ .., flags, sizes], mut rest) = body.split_first_chunk::<6>()?;
        if magic != MAGIC || flags & !CONTENT_SIZE != FLAGS {
            return None;
        }
        let block_bytes_max = match sizes {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return None,
        };
        // The content's size is not needed; the header's checksum is covered by that of the batch.
        let skipped = if flags & CONTENT_SIZE == 0 { 1 } else { 9 };
        rest = rest.get(skipped..)?;
        let blocks = rest;
        let mut blocks_count = 0;
        while let Some(block) = take_block(&mut rest)? {
            blocks_count += 1;
            if block.bytes.len() > block_bytes_max {
                return None;
            }
        }
        rest.is_empty().then_some(Self { blocks, block_bytes_max, blocks_count })
    }

    /// Decompresses to at most `bytes_max`.
    pub(super) fn read(&self, bytes_max: usize) -> Result<Vec<u8>, DecompressError> {
        let mut rest = self.blocks;
        let expected = self.blocks_count.saturating_mul(self.block_bytes_max);
        let mut out = Vec::with_capacity(expected.min(self.blocks.len().saturating_mul(RATIO_MAX)).min(bytes_max));
        while let Some(Some(block)) = take_block(&mut rest) {
            let start = out.len();
            let left = bytes_max - start;
            if block.is_compressed {
                out.resize(start + self.block_bytes_max.min(left), 0);
                let room = out.get_mut(start..).unwrap_or_default();
                let written = match lz4_flex::block::decompress_into(block.bytes, room) {
                    Ok(written) => written,
                    Err(_) if left < self.block_bytes_max => return Err(DecompressError::TooLarge { bytes_max }),
                    Err(error) => return Err(malformed(error)),
                };
                out.truncate(start + written);
            } else if block.bytes.len() > left {
                return Err(DecompressError::TooLarge { bytes_max });
            } else {
                out.extend_from_slice(block.bytes);
            }
        }
        Ok(out)
    }
}

struct Block<'a> {
    bytes: &'a [u8],
    is_compressed: bool,
}

/// The next block, `Some(None)` at the end mark, `None` if it is cut off.
#[expect(clippy::option_option, reason = "cut off, at the end, or a block")]
fn take_block<'a>(rest: &mut &'a [u8]) -> Option<Option<Block<'a>>> {
    let (size, after) = rest.split_first_chunk::<4>()?;
    let size = u32::from_le_bytes(*size);
    if size == 0 {
        *rest = after;
        return Some(None);
    }
    let length = usize::try_from(size & !UNCOMPRESSED).ok()?;
    let (bytes, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(Some(Block { bytes, is_compressed: size & UNCOMPRESSED == 0 }))
}
