//! What other programs leave in the log: transactions, every compression, holes.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace::journal::{Isolation, Journal, Offset, TailEvent};
use tokio::time::timeout;

use crate::support::{Fixture, PATIENCE, bootstrap_or_skip, follow_all, partition, read_values, tool};

fn texts(values: &[(millrace::journal::Partition, Offset, Vec<u8>)]) -> Vec<String> {
    let words = values.iter().map(|(_, _, value)| String::from_utf8(value.clone()).unwrap());
    words.map(|text| text.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_compressions_of_the_java_client_are_read() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "codecs", 1, &[]).await;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        tool(&["txn-producer", &bootstrap[0], &fixture.name, "plain", codec, "40"]);
    }
    let mut tail = follow_all(&fixture.journal, Isolation::ReadCommitted, 1);
    let read = texts(&read_values(&mut tail, 200).await);
    let expected: Vec<String> = codecs.iter().flat_map(|_| (0..40).map(|i| format!("plain {i}"))).collect();
    assert_eq!(read, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_are_hidden_from_committed_readers_only() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "aborted", 1, &[]).await;
    fixture.write(0, 0, "key", b"own 0").await;
    for (outcome, codec) in
        [("abort", "lz4"), ("commit", "none"), ("abort", "none"), ("plain", "zstd"), ("abort", "gzip")]
    {
        tool(&["txn-producer", &bootstrap[0], &fixture.name, outcome, codec, "10"]);
    }
    fixture.write(0, 1, "key", b"own 1").await;
    let all = |outcome: &'static str| (0..10).map(move |i| format!("{outcome} {i}"));
    let own = |i: u32| std::iter::once(format!("own {i}"));

    let committed: Vec<String> = own(0).chain(all("commit")).chain(all("plain")).chain(own(1)).collect();
    let mut tail = follow_all(&fixture.journal, Isolation::ReadCommitted, 1);
    assert_eq!(texts(&read_values(&mut tail, committed.len()).await), committed);

    let uncommitted = own(0).chain(all("abort")).chain(all("commit")).chain(all("abort")).chain(all("plain"));
    let uncommitted: Vec<String> = uncommitted.chain(all("abort")).chain(own(1)).collect();
    let mut tail = follow_all(&fixture.journal, Isolation::ReadUncommitted, 1);
    assert_eq!(texts(&read_values(&mut tail, uncommitted.len()).await), uncommitted);

    // The same by offset, from every offset on: no start within a transaction confuses the filter.
    let ends = fixture.journal.ends(&[partition(0)]).await.unwrap()[0];
    for from in 0..ends.high_watermark.0 {
        let mut next = Offset(from);
        let mut values = Vec::new();
        while next < ends.last_stable {
            let answer = fixture.journal.read(partition(0), next, 200, Isolation::ReadCommitted).await.unwrap();
            assert!(answer.next > next);
            for batch in &answer.batches {
                values.extend(
                    batch.iter().map(|record| (batch.partition, record.offset, record.value().unwrap().to_vec())),
                );
            }
            next = answer.next;
        }
        let read = texts(&values);
        assert!(committed.ends_with(&read), "from {from}: {read:?}");
        assert!(values.iter().all(|(_, offset, _)| offset.0 >= from));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_committed_readers_back_and_is_seen_in_the_ends() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "hanging", 1, &[]).await;
    tool(&["txn-producer", &bootstrap[0], &fixture.name, "hang", "none", "10", "headers", "8000"]);
    let behind = fixture.write(0, 0, "key", b"behind").await;
    let ends = fixture.journal.ends(&[partition(0)]).await.unwrap()[0];
    assert_eq!((ends.last_stable, ends.high_watermark), (Offset(0), Offset(behind.0 + 1)));
    let mut committed = follow_all(&fixture.journal, Isolation::ReadCommitted, 1);
    let mut uncommitted = follow_all(&fixture.journal, Isolation::ReadUncommitted, 1);
    assert_eq!(read_values(&mut uncommitted, 11).await.len(), 11);
    let first = timeout(PATIENCE, committed.next()).await.unwrap();
    let TailEvent::Progress { ends, .. } = first else { panic!("{first:?}") };
    assert_eq!((ends.last_stable, ends.high_watermark.0), (Offset(0), behind.0 + 1));
    let views = fixture.journal.stats().partitions(0, millrace::clock::now());
    assert_eq!(views[0].unstable_records, u64::try_from(behind.0 + 1).unwrap());
    // Kafka ends the transaction after its time-out.
    let values = read_values(&mut committed, 1).await;
    assert_eq!((values[0].1, values.len()), (behind, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn compacted_partitions_are_read_to_their_end() {
    let bootstrap = bootstrap_or_skip!();
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "500"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "0"),
        ("delete.retention.ms", "0"),
    ];
    let fixture = Fixture::new(&bootstrap, "holes", 1, &configs).await;
    let mut last = BTreeMap::new();
    for sequence in 0..2_000_u64 {
        let key = format!("key {}", sequence % 7);
        fixture.append(0, sequence, &key, sequence.to_string().as_bytes());
        last.insert(key, sequence);
        if sequence % 100 == 99 {
            assert!(fixture.journal.flush(PATIENCE).await);
        }
    }
    // A new segment makes the old one cleanable; then wait until the cleaner was there.
    let begun = millrace::clock::now();
    let (mut sequence, mut at_start) = (2_000_u64, 0);
    while begun.elapsed() < Duration::from_secs(90) {
        tokio::time::sleep(Duration::from_millis(700)).await;
        fixture.write(0, sequence, "roll", b"roll").await;
        sequence += 1;
        let answer = fixture.journal.read(partition(0), Offset(0), 1 << 20, Isolation::ReadUncommitted).await.unwrap();
        at_start = answer.batches.iter().map(|batch| batch.iter().count()).sum();
        if at_start < 500 {
            break;
        }
    }
    assert!(at_start < 500, "Kafka did not compact");
    let ends = fixture.journal.ends(&[partition(0)]).await.unwrap()[0];
    for from in [0, 1, 57, 600, 1_999] {
        let mut tail = fixture.journal.tail(Isolation::ReadCommitted);
        tail.follow(partition(0), Offset(from));
        let (mut next, mut seen) = (Offset(from), BTreeMap::new());
        while next < ends.high_watermark {
            match timeout(PATIENCE, tail.next()).await.expect("the tail hangs at a hole") {
                TailEvent::Batch(batch) => {
                    assert!(batch.next_offset > next);
                    next = batch.next_offset;
                    seen.extend(batch.iter().map(|record| {
                        assert!(record.offset.0 >= from && record.offset < batch.next_offset);
                        (record.key.unwrap().to_vec(), record.value().unwrap().to_vec())
                    }));
                }
                TailEvent::Progress { next: to, .. } => next = to,
                other => panic!("{other:?}"),
            }
        }
        for (key, sequence) in &last {
            if i64::try_from(*sequence).unwrap() >= from {
                assert_eq!(seen.get(key.as_bytes()), Some(&sequence.to_string().into_bytes()), "{key} from {from}");
            }
        }
    }
}
