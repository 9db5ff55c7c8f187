//! The data representations of MQTT (MQTT5 §1.5): a cursor over the bytes of one frame.
//!
//! Every read either succeeds inside the frame or is an error; "incomplete" does not exist here,
//! because [`super::head::frame_head`] has seen the whole length before.

use super::decode::DecodeError;
use super::packet::PacketId;

/// The largest Variable Byte Integer (MQTT5 §1.5.5).
pub(super) const VARINT_MAX: u32 = 268_435_455;

/// A Variable Byte Integer as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct VarInt {
    pub value: u32,
    /// Bytes on the wire, 1 to 4.
    pub bytes: usize,
    /// Whether no shorter form exists [MQTT-1.5.5-1].
    pub is_minimal: bool,
}

/// Reads a Variable Byte Integer from the beginning of `buffer`; `Ok(None)` while it is incomplete.
#[inline]
pub(super) fn varint(buffer: &[u8]) -> Result<Option<VarInt>, DecodeError> {
    const fn low(byte: u8) -> u32 {
        (byte & 0x7F) as u32
    }
    Ok(Some(match *buffer {
        [a, ..] if a < 0x80 => VarInt { value: low(a), bytes: 1, is_minimal: true },
        [a, b, ..] if b < 0x80 => VarInt { value: low(a) | low(b) << 7, bytes: 2, is_minimal: b != 0 },
        [a, b, c, ..] if c < 0x80 => {
            VarInt { value: low(a) | low(b) << 7 | low(c) << 14, bytes: 3, is_minimal: c != 0 }
        }
        [a, b, c, d, ..] if d < 0x80 => {
            VarInt { value: low(a) | low(b) << 7 | low(c) << 14 | low(d) << 21, bytes: 4, is_minimal: d != 0 }
        }
        [_, _, _, _, ..] => return Err(DecodeError::malformed("a length or number of more than four bytes (§1.5.5)")),
        _ => return Ok(None),
    }))
}

/// Bytes that [`varint`] reads for `value` in its minimal form.
pub(super) const fn varint_bytes(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Whether any byte `is` what is looked for.
///
/// No early exit and blocks of a fixed size, the last one overlapping, so that it compiles to vector instructions:
/// strings on the wire are short and nearly always fine.
#[inline]
pub(super) fn any_byte(bytes: &[u8], is: impl Fn(u8) -> bool + Copy) -> bool {
    const BLOCK: usize = 16;
    let in_block = |block: &[u8]| block.iter().fold(false, |found, byte| found | is(*byte));
    let Some(last) = bytes.last_chunk::<BLOCK>() else { return in_block(bytes) };
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    blocks.iter().fold(in_block(last), |found, block| found | in_block(block))
}

/// What is left to read of a frame or of a property section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(past_the_end)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or_else(past_the_end)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(bytes))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or_else(past_the_end)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(bytes))
    }

    /// A Variable Byte Integer of MQTT 5, minimal [MQTT-1.5.5-1].
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let read = varint(self.rest)?.ok_or_else(past_the_end)?;
        if !read.is_minimal {
            return Err(DecodeError::malformed("a number in more bytes than it needs [MQTT-1.5.5-1]"));
        }
        self.take(read.bytes)?;
        Ok(read.value)
    }

    #[inline]
    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(past_the_end)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Binary Data (MQTT5 §1.5.6).
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let bytes = self.u16()?;
        self.take(usize::from(bytes))
    }

    /// A UTF-8 Encoded String (MQTT5 §1.5.4) in which U+0000 is still to be looked for.
    #[inline]
    pub(super) fn text_unchecked_for_null(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.binary()?).map_err(|_| not_utf8())
    }

    /// A UTF-8 Encoded String (MQTT5 §1.5.4).
    ///
    /// Control characters and non-characters, which a receiver may refuse, pass.
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let text = self.text_unchecked_for_null()?;
        if any_byte(text.as_bytes(), |byte| byte == 0) { Err(DecodeError::null_character()) } else { Ok(text) }
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or_else(zero_packet_id)
    }

    /// Refuses bytes after the last field.
    pub(super) fn expect_end(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::malformed("bytes after the last field of the packet")) }
    }
}

#[cold]
fn past_the_end() -> DecodeError {
    DecodeError::malformed("a field runs past the end of the packet")
}

#[cold]
fn not_utf8() -> DecodeError {
    DecodeError::malformed("a string is not UTF-8 [MQTT-1.5.4-1]")
}

#[cold]
fn zero_packet_id() -> DecodeError {
    DecodeError::protocol("packet identifier 0 [MQTT-2.2.1-3]")
}
