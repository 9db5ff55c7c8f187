use bytes::Bytes;
use proptest::prelude::*;

use super::encode::{Deltas, body_len, put_record, record_len_max};
use super::*;
use crate::journal::TopicIndex;
use crate::message::RecordRef;

const BASE: i64 = 1000;

fn batch_of(records: Bytes, count: u32, last_delta: i64) -> Batch {
    Batch {
        partition: Partition { topic: TopicIndex(0), number: 0 },
        base_offset: Offset(BASE),
        next_offset: Offset(BASE + last_delta + 1),
        from: Offset(0),
        producer_id: -1,
        base_timestamp_ms: 5000,
        append_time_ms: None,
        records_count: count,
        records,
    }
}

fn put(out: &mut Vec<u8>, offset: i32, record: &RecordRef<'_>) {
    let deltas = Deltas { offset, timestamp_ms: record.timestamp_ms - 5000 };
    let before = out.len();
    put_record(out, record, deltas, body_len(record, deltas));
    assert!(out.len() - before <= record_len_max(record));
}

fn plain(key: &'static [u8], value: &'static [u8]) -> RecordRef<'static> {
    RecordRef { key: Some(key), value: Some(value), headers: &[], timestamp_ms: 5007 }
}

#[test]
fn a_record_reads_as_it_was_written() {
    let headers = [
        Header { name: "a", value: Some(b"1") },
        Header { name: "a", value: None },
        Header { name: "", value: Some(b"") },
        Header { name: "a", value: Some(b"1") },
    ];
    let mut bytes = Vec::new();
    put(&mut bytes, 0, &RecordRef { key: Some(b""), value: None, headers: &headers, timestamp_ms: 4999 });
    put(&mut bytes, 1, &RecordRef { key: None, value: Some(b""), headers: &[], timestamp_ms: 5001 });
    let batch = batch_of(bytes.into(), 2, 1);
    assert_eq!(batch.check(), Ok(()));

    let records: Vec<_> = batch.iter().collect();
    assert_eq!(records[0].offset, Offset(BASE));
    assert_eq!(records[0].timestamp_ms, 4999);
    assert_eq!((records[0].key, records[0].value()), (Some(&b""[..]), None));
    assert_eq!(records[0].headers().collect::<Vec<_>>(), headers);
    assert_eq!((records[1].key, records[1].value()), (None, Some(&b""[..])));
    assert!(records[0].has_headers() && !records[1].has_headers());
}

#[test]
fn records_before_the_asked_offset_are_left_out_and_holes_are_kept() {
    let mut bytes = Vec::new();
    for offset in [0, 3, 7] {
        put(&mut bytes, offset, &plain(b"k", b"v"));
    }
    let mut batch = batch_of(bytes.into(), 3, 9);
    batch.from = Offset(BASE + 1);
    let offsets: Vec<_> = batch.iter().map(|record| record.offset.0 - BASE).collect();
    assert_eq!(offsets, [3, 7]);
    assert_eq!(batch.next_offset, Offset(BASE + 10));
}

#[test]
fn log_append_time_is_every_records_time() {
    let mut bytes = Vec::new();
    put(&mut bytes, 0, &plain(b"k", b"v"));
    let mut batch = batch_of(bytes.into(), 1, 0);
    batch.append_time_ms = Some(77);
    assert_eq!(batch.iter().next().map(|record| record.timestamp_ms), Some(77));
}

#[test]
fn a_header_name_that_is_not_utf8_is_skipped() {
    let mut bytes = Vec::new();
    let headers = [Header { name: "bad", value: None }, Header { name: "good", value: None }];
    put(&mut bytes, 0, &RecordRef { headers: &headers, ..plain(b"k", b"v") });
    let at = bytes.windows(3).position(|window| window == b"bad").unwrap();
    bytes[at] = 0xff;
    let batch = batch_of(bytes.into(), 1, 0);
    let record = batch.iter().next().unwrap();
    assert_eq!(record.headers().map(|header| header.name).collect::<Vec<_>>(), ["good"]);
}

#[test]
fn a_malformed_record_ends_the_walk_and_is_reported() {
    let mut good = Vec::new();
    put(&mut good, 0, &plain(b"k", b"v"));
    put(&mut good, 1, &plain(b"k", b"v"));

    for (bytes, count, last, yields) in [
        (good[..good.len() - 1].to_vec(), 2, 1, 1), // cut off
        (good.clone(), 3, 2, 2),                    // fewer records than said
        (good.clone(), 1, 1, 1),                    // more bytes than records
        (good.clone(), 2, 0, 1),                    // an offset beyond the batch
        ([&good[..], &good[..]].concat(), 4, 9, 2), // offsets that go back
        (vec![0x01], 1, 0, 0),                      // a record of length −1
        (vec![0x02, 0x00], 1, 0, 0),                // a record of attributes only
    ] {
        let batch = batch_of(bytes.into(), count, last);
        let mut records = batch.iter();
        assert_eq!(records.by_ref().count(), yields);
        assert!(records.malformed().is_some());
        assert!(records.next().is_none(), "the end is the end");
        assert!(batch.check().is_err());
    }
}

#[test]
fn malformed_headers_do_not_hide_the_value_but_fail_the_check() {
    let mut bytes = Vec::new();
    put(&mut bytes, 0, &RecordRef { headers: &[Header { name: "n", value: Some(b"v") }], ..plain(b"k", b"v") });
    let name_at = bytes.len() - 4;
    bytes[name_at] = 0x7f; // the name's length: −64
    let batch = batch_of(bytes.into(), 1, 0);
    let record = batch.iter().next().unwrap();
    assert_eq!((record.value(), record.headers().count()), (Some(&b"v"[..]), 0));
    assert!(batch.check().is_err());
}

#[test]
fn a_slice_is_shared_and_a_foreign_one_copied() {
    let mut bytes = Vec::new();
    put(&mut bytes, 0, &plain(b"k", b"value"));
    let batch = batch_of(bytes.into(), 1, 0);
    let value = batch.iter().next().and_then(|record| record.value()).unwrap();
    let slice = batch.slice(value);
    assert_eq!((&slice[..], slice.as_ptr()), (&b"value"[..], value.as_ptr()));
    assert_eq!(&batch.slice(b"elsewhere")[..], b"elsewhere");
    assert_eq!(batch.slice(&[]).len(), 0);
}

proptest! {
    #[test]
    fn arbitrary_bytes_neither_panic_nor_loop(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        count: u32,
        last in -2_i64..=i64::from(i32::MAX),
        from: i64,
    ) {
        let mut batch = batch_of(bytes.into(), count, last);
        batch.from = Offset(from);
        let mut records = batch.iter();
        let seen = records.by_ref().inspect(|record| record.headers().for_each(drop)).count();
        prop_assert!(seen <= batch.records.len());
        prop_assert!(records.malformed().is_some() || u64::from(count) <= batch.records.len() as u64);
        let _ = batch.check();
    }
}
