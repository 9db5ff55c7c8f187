//! Which partition a key belongs to: the arithmetic of the Java client's default partitioner, so that records of
//! Millrace and of ordinary Kafka producers with the same key meet in the same partition.

/// The partition of `key` among `partitions`; 0 where there is none to choose from.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff).checked_rem(partitions).unwrap_or(0)
}

/// `MurmurHash2`, 32 bits, with the seed that Kafka's Java client uses. The Java value is the same bits as an `i32`.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    #[expect(clippy::cast_possible_truncation, reason = "the algorithm takes the length modulo 2^32")]
    let mut h = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        h ^= tail.iter().rev().fold(0, |k, &b| (k << 8) | u32::from(b));
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Kafka's own `UtilsTest`.
    #[test]
    fn murmur2_gives_the_java_clients_answers() {
        for (text, answer) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()), answer.cast_unsigned(), "{text}");
        }
    }

    #[test]
    fn the_sign_bit_is_dropped_before_the_remainder() {
        assert_eq!(murmur2(b"21") >> 31, 1);
        assert_eq!(partition_of(b"21", 10), (murmur2(b"21") - (1 << 31)) % 10);
        assert_eq!(partition_of(b"abc", 1), 0);
        assert_eq!(partition_of(b"abc", 0), 0);
    }
}
