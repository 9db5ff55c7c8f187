use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as OracleCompression, Record as OracleRecord, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;

use super::*;
use crate::journal::{Ticket, TopicIndex};
use crate::message::{Header, RecordRef};

mod compressed;
mod hostile;

const MIB: usize = 1 << 20;
const NOWHERE: Partition = Partition { topic: TopicIndex(0), number: 0 };

fn ticket(sequence: u64) -> Ticket {
    Ticket { owner: 0, sequence }
}

/// A record that owns what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: i64,
}

impl Owned {
    fn with<T>(&self, use_it: impl FnOnce(&RecordRef<'_>) -> T) -> T {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| Header { name, value: value.as_deref() }).collect();
        use_it(&RecordRef {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
            timestamp_ms: self.timestamp_ms,
        })
    }
}

fn owned() -> impl Strategy<Value = Owned> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
    let headers = prop::collection::vec(("[a-z]{0,3}", bytes()), 0..5);
    (bytes(), bytes(), headers, -5_000_000_000_i64..5_000_000_000_000)
        .prop_map(|(key, value, headers, timestamp_ms)| Owned { key, value, headers, timestamp_ms })
}

fn sealed(records: &[Owned], compression: Compression) -> SealedBatch {
    let mut open = OpenBatch::new(16 * MIB);
    for (sequence, record) in (0..).zip(records) {
        record.with(|record| open.push(record, ticket(sequence))).unwrap();
    }
    open.seal(77, 3, 1234, compression).unwrap()
}

/// All records in a record set.
fn read(bytes: &Bytes) -> Vec<(i64, Owned)> {
    let mut out = Vec::new();
    for raw in BatchWalk::new(bytes.clone()) {
        let batch = raw.unwrap().open(NOWHERE, Offset(0), 16 * MIB).unwrap();
        batch.check().unwrap();
        out.extend(batch.iter().map(|record| {
            let headers = record.headers().map(|header| (header.name.to_owned(), header.value.map(<[u8]>::to_vec)));
            let owned = Owned {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value().map(<[u8]>::to_vec),
                headers: headers.collect(),
                timestamp_ms: record.timestamp_ms,
            };
            (record.offset.0, owned)
        }));
    }
    out
}

fn sample(value_bytes: usize) -> Owned {
    Owned {
        key: Some(b"cars/17/speed".to_vec()),
        value: Some(b"0123456789".iter().copied().cycle().take(value_bytes).collect()),
        headers: vec![("mqtt-qos".into(), Some(b"1".to_vec()))],
        timestamp_ms: 1_700_000_000_000,
    }
}

#[test]
fn golden_bytes() {
    let record = Owned {
        key: Some(b"k".to_vec()),
        value: Some(b"v".to_vec()),
        headers: vec![("h".into(), None)],
        timestamp_ms: 1_000_000,
    };
    let batch = sealed(&[record.clone(), Owned { timestamp_ms: 999_999, ..record }], Compression::None);
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 73,  255, 255, 255, 255,  2, // base offset, length, leader epoch, magic
        0, 0, 0, 0,  0, 0,  0, 0, 0, 1, // checksum (below), attributes, last offset delta
        0, 0, 0, 0, 0, 15, 66, 64,  0, 0, 0, 0, 0, 15, 66, 64, // base and max timestamp
        0, 0, 0, 0, 0, 0, 0, 77,  0, 3,  0, 0, 4, 210,  0, 0, 0, 2, // producer, epoch, sequence, count
        22,  0, 0, 0,  2, b'k',  2, b'v',  2, 2, b'h', 1,
        22,  0, 1, 2,  2, b'k',  2, b'v',  2, 2, b'h', 1,
    ];
    let mut bytes = batch.bytes.to_vec();
    bytes[17..21].fill(0);
    assert_eq!(bytes, expected);
    assert_eq!(batch.tickets, [ticket(0), ticket(1)]);
}

#[test]
fn the_header_says_what_was_sealed() {
    let batch = sealed(&[sample(10), sample(20)], Compression::Lz4);
    let header = BatchHeader::parse(&batch.bytes).unwrap();
    assert_eq!(header.compression, Compression::None, "too small to compress");
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (77, 3, 1234));
    assert_eq!((header.records_count, header.last_offset_delta, header.next_offset()), (2, 1, 2));
    assert_eq!(header.batch_bytes, batch.bytes.len());
    assert!(!header.control && !header.transactional && !header.log_append_time);
}

#[test]
fn a_batch_takes_what_fits_and_no_more() {
    let mut open = OpenBatch::new(1000);
    assert!(open.seal(1, 0, 0, Compression::None).is_none());
    let (small, large) = (sample(300), sample(1000));
    large.with(|record| {
        assert!(!open.would_fit(record) && !open.would_fit_alone(record));
        assert_eq!(open.push(record, ticket(0)), Err(DoesNotFit));
    });
    assert_eq!((open.len_bytes(), open.is_empty()), (0, true));

    let mut pushed = 0;
    while small.with(|record| open.would_fit(record)) {
        let before = open.len_bytes().max(HEADER_BYTES);
        let took = small.with(|record| open.push(record, ticket(pushed))).unwrap();
        assert_eq!(open.len_bytes(), before + took);
        pushed += 1;
    }
    assert_eq!((pushed, open.records_count()), (2, 2));
    assert!(small.with(|record| open.push(record, ticket(9))).is_err());
    let batch = open.seal(1, 0, 0, Compression::None).unwrap();
    assert!(batch.bytes.len() <= 1000);
    assert!(open.is_empty() && small.with(|record| open.would_fit(record)), "and the next batch begins");
    assert_eq!(read(&batch.bytes).len(), 2);
}

#[test]
fn a_walk_passes_several_batches_and_leaves_out_one_that_is_cut_off() {
    let (one, two) = (sealed(&[sample(10)], Compression::None), sealed(&[sample(5000)], Compression::Lz4));
    let set: Bytes = [&one.bytes[..], &two.bytes[..], &one.bytes[..one.bytes.len() - 1]].concat().into();
    let mut walk = BatchWalk::new(set.clone());
    assert_eq!(walk.by_ref().flatten().count(), 2);
    assert!(walk.is_cut_off() && walk.next().is_none());
    for length in 1..one.bytes.len() {
        let mut walk = BatchWalk::new(set.slice(..length));
        assert!(walk.next().is_none() && walk.is_cut_off(), "{length}");
    }
    assert!(!BatchWalk::new(Bytes::new()).is_cut_off());
}

#[test]
fn an_emptied_batch_still_says_where_to_go_on() {
    let mut bytes = sealed(&[sample(10), sample(10)], Compression::None).bytes.to_vec();
    bytes.truncate(HEADER_BYTES);
    bytes[8..12].copy_from_slice(&49_i32.to_be_bytes());
    bytes[57..61].fill(0);
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    let raw = BatchWalk::new(bytes.into()).next().unwrap().unwrap();
    let batch = raw.open(NOWHERE, Offset(0), MIB).unwrap();
    assert_eq!((batch.iter().count(), batch.next_offset), (0, Offset(2)));
    assert_eq!(batch.check(), Ok(()));
}

#[test]
fn the_old_formats_are_named() {
    let mut bytes = sealed(&[sample(10)], Compression::None).bytes.to_vec();
    bytes[MAGIC_AT] = 1;
    let mut walk = BatchWalk::new(bytes.into());
    let named = walk.next().and_then(Result::err);
    assert_eq!(named, Some(RecordsError::OldFormat { base_offset: 0, magic: 1 }));
    assert!(walk.next().is_none());
    let short = BatchWalk::new(Bytes::from(vec![0; 20])).next();
    assert!(matches!(short, Some(Err(RecordsError::OldFormat { magic: 0, .. }))));
}

#[test]
fn a_flipped_bit_is_found() {
    let good = sealed(&[sample(10)], Compression::None).bytes;
    for at in CHECKED_FROM..good.len() {
        let mut bytes = good.to_vec();
        bytes[at] ^= 4;
        assert!(BatchWalk::new(bytes.into()).next().is_some_and(|raw| raw.is_err()), "{at}");
    }
}

fn oracle(record: &Owned, offset: i64, control: bool) -> OracleRecord {
    OracleRecord {
        transactional: control,
        control,
        delete_horizon: false,
        partition_leader_epoch: 7,
        producer_id: 99,
        producer_epoch: 5,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: i32::try_from(offset).unwrap(),
        timestamp: record.timestamp_ms,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (StrBytes::from_string(name.clone()), value.clone().map(Bytes::from)))
            .collect(),
    }
}

fn oracle_encode(records: &[OracleRecord]) -> Bytes {
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: OracleCompression::None };
    RecordBatchEncoder::encode(&mut out, records, &options).unwrap();
    out.freeze()
}

#[test]
fn control_batches_are_told_apart() {
    for (kind, expected) in [(0, ControlKind::Abort), (1, ControlKind::Commit), (4, ControlKind::Other(4))] {
        let key = Some(vec![0, 0, 0, kind]);
        let record = Owned { key, value: Some(vec![0; 6]), headers: vec![], timestamp_ms: 1 };
        let raw = BatchWalk::new(oracle_encode(&[oracle(&record, 3, true)])).next().unwrap().unwrap();
        assert!(raw.header.control && raw.header.transactional);
        assert_eq!(raw.control(), Ok(Some(expected)));
        assert_eq!(raw.header.next_offset(), 4);
    }
    let broken = Owned { key: Some(vec![0; 3]), value: None, headers: vec![], timestamp_ms: 1 };
    let raw = BatchWalk::new(oracle_encode(&[oracle(&broken, 3, true)])).next().unwrap().unwrap();
    assert_eq!(raw.control(), Err(RecordsError::Control { base_offset: 3 }));
    let data = BatchWalk::new(sealed(&[sample(1)], Compression::None).bytes).next().unwrap().unwrap();
    assert_eq!(data.control(), Ok(None));
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(owned(), 1..40), lz4: bool) {
        let batch = sealed(&records, if lz4 { Compression::Lz4 } else { Compression::None });
        let expected: Vec<_> = (0..).zip(records).collect();
        prop_assert_eq!(read(&batch.bytes), expected);
    }

    /// Headers without duplicates: the oracle keeps them in a map.
    #[test]
    fn what_the_oracle_writes_we_read_alike(records in prop::collection::vec(owned(), 1..20), base in 0_i64..1000) {
        let mut records = records;
        let mut theirs = Vec::new();
        for (offset, record) in (base..).zip(&mut records) {
            record.headers.truncate(1);
            theirs.push(oracle(record, offset, false));
        }
        let expected: Vec<_> = (base..).zip(records).collect();
        prop_assert_eq!(read(&oracle_encode(&theirs)), expected);
    }

    #[test]
    fn what_we_write_the_oracle_reads_alike(records in prop::collection::vec(owned(), 1..20)) {
        let mut records = records;
        for record in &mut records {
            record.headers.truncate(1);
        }
        let mut bytes = sealed(&records, Compression::None).bytes;
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        prop_assert_eq!(set.records.len(), records.len());
        for (theirs, record) in set.records.iter().zip(&records) {
            let mut expected = oracle(record, theirs.offset, false);
            (expected.producer_id, expected.producer_epoch) = (77, 3);
            (expected.partition_leader_epoch, expected.sequence) = (-1, theirs.sequence);
            prop_assert_eq!(theirs, &expected);
            prop_assert_eq!(i64::from(theirs.sequence), 1234 + theirs.offset);
        }
    }
}
