//! Bytes from programs that mean no good, or do not know better.

use super::*;

/// Reads everything there is, whatever it is.
fn devour(bytes: Bytes) {
    let length = bytes.len();
    let mut walk = BatchWalk::new(bytes);
    let mut batches = 0;
    for raw in walk.by_ref().flatten() {
        batches += 1;
        let _ = raw.control();
        if let Ok(batch) = raw.open(NOWHERE, Offset(0), MIB) {
            let records = batch.iter().inspect(|record| record.headers().for_each(drop)).count();
            assert!(records <= MIB);
            let _ = batch.check();
        }
    }
    assert!(batches <= length / HEADER_BYTES);
    assert!(walk.next().is_none());
}

/// With length, version and checksum put right, so that more than the checksum is tested.
fn plausible(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < HEADER_BYTES {
        return bytes;
    }
    let length = i32::try_from(bytes.len() - LENGTH_END).unwrap();
    bytes[0] &= 0x3f;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[MAGIC_AT] = 2;
    let checksum = crc32c::crc32c(&bytes[CHECKED_FROM..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    for compression in 0..5_u8 {
        for length in 0..64 {
            let mut bytes = vec![0xff; HEADER_BYTES + length];
            bytes[21..23].copy_from_slice(&[0, compression]);
            bytes[23] = 0x7f;
            bytes[57] = 0x7f;
            let bytes = Bytes::from(plausible(bytes));
            let taken = allocation_counter::measure(|| devour(bytes.clone()));
            assert!(taken.bytes_max < 4 * MIB as u64, "compression {compression}: {} bytes", taken.bytes_max);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        devour(bytes.clone().into());
        devour(plausible(bytes).into());
    }

    #[test]
    fn arbitrary_compressed_bytes(
        bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES..400),
        compression in 0_u8..5,
        magic: bool,
    ) {
        let mut bytes = bytes;
        bytes[21..23].copy_from_slice(&[0, compression]);
        let start: &[u8] = match compression {
            1 => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3],
            2 => b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0",
            3 => &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82],
            4 => &[0x28, 0xb5, 0x2f, 0xfd, 0x20],
            _ => &[],
        };
        if magic {
            bytes.splice(HEADER_BYTES..HEADER_BYTES, start.iter().copied());
        }
        devour(plausible(bytes).into());
    }

    #[test]
    fn mutated_batches(
        records in prop::collection::vec(owned(), 1..10),
        compression in 0_u8..5,
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        keep_checksum: bool,
    ) {
        let plain = sealed(&records, Compression::None).bytes;
        let mut bytes = match compression {
            0 => plain.to_vec(),
            kind => compressed::recompressed_as(&plain, kind).to_vec(),
        };
        for (index, byte) in mutations {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        devour(if keep_checksum { bytes } else { plausible(bytes) }.into());
    }
}
