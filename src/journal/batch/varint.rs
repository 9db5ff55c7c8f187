//! Kafka's variable-length integers: zigzag, seven bits a byte, least significant first.

/// The longest encoding of an `i64`.
const VARINT_BYTES_MAX: usize = 10;

/// Takes a number off the front of `input`; `None` (and `input` as it was) if there is none.
#[inline]
pub fn take(input: &mut &[u8]) -> Option<i64> {
    let (&first, rest) = input.split_first()?;
    if first < 0x80 {
        *input = rest;
        return Some(unzigzag(u64::from(first)));
    }
    take_long(input)
}

fn take_long(input: &mut &[u8]) -> Option<i64> {
    let mut folded = 0_u64;
    for (index, &byte) in input.iter().take(VARINT_BYTES_MAX).enumerate() {
        let shift = 7 * index;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        folded |= bits << shift;
        if byte < 0x80 {
            *input = input.get(index + 1..)?;
            return Some(unzigzag(folded));
        }
    }
    None
}

/// Takes a number that must fit an `i32`.
#[inline]
pub fn take_i32(input: &mut &[u8]) -> Option<i32> {
    i32::try_from(take(input)?).ok()
}

/// Takes a length and that many bytes: `Some(None)` for the length −1, which stands for null.
#[inline]
pub fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match take(input)? {
        -1 => Some(None),
        length => {
            let (bytes, rest) = input.split_at_checked(usize::try_from(length).ok()?)?;
            *input = rest;
            Some(Some(bytes))
        }
    }
}

/// Appends a number.
#[inline]
pub fn put(out: &mut Vec<u8>, number: i64) {
    let mut folded = zigzag(number);
    while folded >= 0x80 {
        out.push(low_bits(folded) | 0x80);
        folded >>= 7;
    }
    out.push(low_bits(folded));
}

/// How many bytes [`put`] appends.
#[inline]
pub fn len(number: i64) -> usize {
    let bits = 64 - (zigzag(number) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[inline]
fn low_bits(folded: u64) -> u8 {
    (folded & 0x7f) as u8
}

#[inline]
fn zigzag(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

#[inline]
fn unzigzag(folded: u64) -> i64 {
    (folded >> 1).cast_signed() ^ -((folded & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        for (number, bytes) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = Vec::new();
            put(&mut out, number);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn an_overlong_or_unfinished_number_is_refused() {
        assert_eq!(take(&mut &[0x80; 11][..]), None);
        assert_eq!(take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]), None);
        assert_eq!(take(&mut &[0x80][..]), None);
        assert_eq!(take(&mut &[][..]), None);
        assert_eq!(take_bytes(&mut &[0x03, 0x00][..]), None, "−2 is no length");
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(number: i64, after: Vec<u8>) {
            let mut out = Vec::new();
            put(&mut out, number);
            prop_assert_eq!(out.len(), len(number));
            out.extend_from_slice(&after);
            let mut input = &out[..];
            prop_assert_eq!(take(&mut input), Some(number));
            prop_assert_eq!(input, &after[..]);
        }
    }
}
