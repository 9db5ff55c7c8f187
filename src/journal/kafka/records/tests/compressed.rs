//! Every compression that a foreign producer may use.

use std::io::Write;

use super::*;

/// The batch with its records compressed by `compress`, as a foreign producer would send it.
fn recompressed(plain: &Bytes, attributes: u8, compress: impl Fn(&[u8]) -> Vec<u8>) -> Bytes {
    let mut bytes = plain[..HEADER_BYTES].to_vec();
    bytes.extend(compress(&plain[HEADER_BYTES..]));
    let length = i32::try_from(bytes.len() - LENGTH_END).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] |= attributes;
    let checksum = crc32c::crc32c(&bytes[CHECKED_FROM..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

fn gzip(records: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(records).unwrap();
    encoder.finish().unwrap()
}

fn snappy_raw(records: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(records).unwrap()
}

fn snappy_java(records: &[u8]) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in records.chunks(1000) {
        let block = snappy_raw(block);
        out.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
        out.extend(block);
    }
    out
}

fn lz4(records: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(records).unwrap();
    encoder.finish().unwrap()
}

fn zstd(records: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(records, ruzstd::encoding::CompressionLevel::Fastest)
}

type Compressor = fn(&[u8]) -> Vec<u8>;
const ALL: [(u8, Compressor); 5] = [(1, gzip), (2, snappy_raw), (2, snappy_java), (3, lz4), (4, zstd)];

#[test]
fn every_compression_reads_alike_and_none_beyond_its_limit() {
    let records: Vec<_> = (0..20).map(|n| sample(n * 100)).collect();
    let plain = sealed(&records, Compression::None).bytes;
    let expected = read(&plain);
    let size = plain.len() - HEADER_BYTES;
    for (attributes, compress) in ALL {
        let bytes = recompressed(&plain, attributes, compress);
        assert!(bytes.len() < plain.len());
        assert_eq!(read(&bytes), expected, "compression {attributes}");
        let raw = BatchWalk::new(bytes).next().unwrap().unwrap();
        assert!(raw.open(NOWHERE, Offset(0), size).is_ok());
        let refused = raw.open(NOWHERE, Offset(0), size - 1);
        assert!(
            matches!(refused, Err(RecordsError::Decompress { why: DecompressError::TooLarge { .. }, .. })),
            "compression {attributes}: {refused:?}"
        );
    }
}

#[test]
fn lz4_is_written_when_it_helps_and_reads_back_over_many_blocks() {
    for bytes in [900, 1100, 60_000, 65_534, 65_535, 70_000, 200_000, 1_000_000] {
        let records = [sample(bytes)];
        let batch = sealed(&records, Compression::Lz4).bytes;
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!(header.compression, if bytes < 1000 { Compression::None } else { Compression::Lz4 });
        assert_eq!(read(&batch)[0].1, records[0]);
    }
}

#[test]
fn what_does_not_compress_is_left_as_it_is() {
    let mut state = 1_u64;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    let noisy = Owned { value: Some(random.take(100_000).collect()), ..sample(0) };
    let batch = sealed(std::slice::from_ref(&noisy), Compression::Lz4).bytes;
    assert_eq!(BatchHeader::parse(&batch).unwrap().compression, Compression::None);

    // Half noise, half nothing: some blocks are stored as they are.
    let halves = [noisy, sample(200_000)];
    let batch = sealed(&halves, Compression::Lz4).bytes;
    assert_eq!(BatchHeader::parse(&batch).unwrap().compression, Compression::Lz4);
    let read: Vec<_> = read(&batch).into_iter().map(|(_, record)| record).collect();
    assert_eq!(read, halves);
}

#[test]
fn a_bomb_is_refused_without_the_memory_it_asks_for() {
    let nothing = vec![0; 64 * MIB];
    for (attributes, compress) in [(1, gzip as Compressor), (2, snappy_raw), (3, lz4), (4, zstd)] {
        let plain = sealed(&[sample(1)], Compression::None).bytes;
        let bomb = recompressed(&plain, attributes, |_| compress(&nothing));
        let raw = BatchWalk::new(bomb).next().unwrap().unwrap();
        let taken = allocation_counter::measure(|| assert!(raw.open(NOWHERE, Offset(0), MIB).is_err()));
        assert!(taken.bytes_max < 16 * MIB as u64, "compression {attributes}: {} bytes", taken.bytes_max);
    }
}

/// For the hostile tests: compressed properly, to be mutated.
pub(super) fn recompressed_as(plain: &Bytes, attributes: u8) -> Bytes {
    let compress =
        ALL.iter().find(|(kind, _)| *kind == attributes).map_or(gzip as Compressor, |(_, compress)| *compress);
    recompressed(plain, attributes, compress)
}

/// Twelve records as the Java client (kafka-clients 3.9) writes them: keys null at every fourth, values null at every
/// fifth, no headers at every third, timestamps that go back.
#[test]
fn what_the_java_client_writes_is_read() {
    let files: [(Compression, &'static [u8]); 5] = [
        (Compression::None, include_bytes!("java/none.bin")),
        (Compression::Gzip, include_bytes!("java/gzip.bin")),
        (Compression::Snappy, include_bytes!("java/snappy.bin")),
        (Compression::Lz4, include_bytes!("java/lz4.bin")),
        (Compression::Zstd, include_bytes!("java/zstd.bin")),
    ];
    let expected: Vec<_> = (0_i64..12).map(|n| (4000 + n, java_record(n))).collect();
    for (compression, bytes) in files {
        let header = BatchHeader::parse(bytes).unwrap();
        assert_eq!(header.compression, compression);
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (55, 2, 9));
        assert_eq!(read(&Bytes::from_static(bytes)), expected, "{compression:?}");
    }
}

fn java_record(n: i64) -> Owned {
    let headers = vec![
        ("h".to_owned(), Some(format!("x{n}").into_bytes())),
        ("h".to_owned(), None),
        (String::new(), Some(vec![])),
    ];
    Owned {
        key: (n % 4 != 0).then(|| format!("key-{n}").into_bytes()),
        value: (n % 5 != 0).then(|| "value ".repeat(usize::try_from(n * 3).unwrap()).into_bytes()),
        headers: if n % 3 == 0 { vec![] } else { headers },
        timestamp_ms: 1_700_000_000_000 + (n % 5) * 1000,
    }
}

#[test]
fn lz4_frames_of_every_kind_are_read() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    let records: Vec<_> = (0..60).map(|n| sample(n * 300)).collect();
    let plain = sealed(&records, Compression::None).bytes;
    let expected = read(&plain);
    let size = plain.len() - HEADER_BYTES;
    let sizes = [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB];
    for (mode, checksums) in
        [BlockMode::Independent, BlockMode::Linked].into_iter().flat_map(|m| [(m, false), (m, true)])
    {
        for (block_size, content_size) in sizes.into_iter().flat_map(|s| [(s, None), (s, Some(size as u64))]) {
            let info = FrameInfo::new()
                .block_mode(mode)
                .block_size(block_size)
                .block_checksums(checksums)
                .content_checksum(checksums)
                .content_size(content_size);
            let bytes = recompressed(&plain, 3, |records| {
                let mut encoder = FrameEncoder::with_frame_info(info.clone(), Vec::new());
                encoder.write_all(records).unwrap();
                encoder.finish().unwrap()
            });
            assert_eq!(read(&bytes), expected, "{info:?}");
            let raw = BatchWalk::new(bytes).next().unwrap().unwrap();
            assert!(raw.open(NOWHERE, Offset(0), size).is_ok(), "{info:?}");
            assert!(raw.open(NOWHERE, Offset(0), size - 1).is_err(), "{info:?}");
        }
    }
}
