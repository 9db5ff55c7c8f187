//! Where the writing code writes to: a counter first, the buffer then.

use bytes::{BufMut, BytesMut};

use super::EncodeError;
use crate::mqtt::wire;

/// The data representations of MQTT (MQTT5 §1.5), written.
pub(super) trait Sink {
    fn u8(&mut self, value: u8);
    fn u16(&mut self, value: u16);
    fn u32(&mut self, value: u32);
    /// A number up to 268,435,455.
    fn varint(&mut self, value: u32);
    /// A string or binary data; `field` names it in an error.
    fn binary(&mut self, field: &'static str, value: &[u8]);

    #[inline]
    fn text(&mut self, field: &'static str, value: &str) {
        self.binary(field, value.as_bytes());
    }
}

/// Counts, and remembers the first thing that cannot be written.
#[derive(Debug, Default)]
pub(super) struct Counter {
    bytes: usize,
    error: Option<EncodeError>,
}

impl Counter {
    /// The bytes counted.
    #[inline]
    pub(super) fn finish(self) -> Result<u32, EncodeError> {
        match (self.error, u32::try_from(self.bytes)) {
            (Some(error), _) => Err(error),
            (None, Ok(bytes)) if bytes <= wire::VARINT_MAX => Ok(bytes),
            (None, _) => Err(EncodeError::PacketTooLarge { bytes: self.bytes, limit: super::FRAME_BYTES_MAX }),
        }
    }

    #[inline]
    fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    #[cold]
    fn fail(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }
}

impl Sink for Counter {
    #[inline]
    fn u8(&mut self, _value: u8) {
        self.add(1);
    }

    #[inline]
    fn u16(&mut self, _value: u16) {
        self.add(2);
    }

    #[inline]
    fn u32(&mut self, _value: u32) {
        self.add(4);
    }

    #[inline]
    fn varint(&mut self, value: u32) {
        if value > wire::VARINT_MAX {
            self.fail(EncodeError::Inexpressible("a number above 268,435,455 (§1.5.5)"));
        }
        self.add(wire::varint_bytes(value));
    }

    #[inline]
    fn binary(&mut self, field: &'static str, value: &[u8]) {
        if value.len() > usize::from(u16::MAX) {
            self.fail(EncodeError::FieldTooLong(field));
        }
        self.add(value.len().saturating_add(2));
    }
}

/// The counter has been here before: whatever arrives fits.
impl Sink for BytesMut {
    #[inline]
    fn u8(&mut self, value: u8) {
        self.put_u8(value);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.put_u16(value);
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.put_u32(value);
    }

    #[inline]
    fn varint(&mut self, value: u32) {
        let [a, b, c, d] = varint_digits(value);
        match value {
            0..=0x7F => self.put_u8(a),
            0x80..=0x3FFF => self.put_slice(&[a | 0x80, b]),
            0x4000..=0x1F_FFFF => self.put_slice(&[a | 0x80, b | 0x80, c]),
            _ => self.put_slice(&[a | 0x80, b | 0x80, c | 0x80, d]),
        }
    }

    #[inline]
    fn binary(&mut self, _field: &'static str, value: &[u8]) {
        self.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        self.put_slice(value);
    }
}

/// The four digits to base 128, least first, without continuation bits.
#[inline]
pub(super) const fn varint_digits(value: u32) -> [u8; 4] {
    const fn digit(value: u32) -> u8 {
        (value & 0x7F).to_le_bytes()[0]
    }
    [digit(value), digit(value >> 7), digit(value >> 14), digit(value >> 21)]
}
