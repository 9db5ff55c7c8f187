//! Questions to the log.

use millrace::journal::{Ends, Isolation, Offset, TopicIndex, TopicSpec};
use millrace::message::{Header, RecordRef};

use super::fixture::{
    AMPLE_BYTES, Fixture, Owned, P0, P1, Subject, fresh_topic, next_records, owned, plain, sequences,
};

pub async fn records_come_back_byte_for_byte(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = vec![b'z'; 200_000];
    let headers = [
        Header { name: "b", value: Some(b"1") },
        Header { name: "a", value: None },
        Header { name: "b", value: Some(b"") },
        Header { name: "", value: Some(&every_byte) },
        Header { name: "b", value: Some(b"1") },
        Header { name: "größe", value: Some("größe".as_bytes()) },
    ];
    let records = [
        RecordRef { headers: &headers, ..plain() },
        RecordRef { key: Some(&every_byte), value: Some(&every_byte), ..plain() },
        RecordRef { key: Some(b""), value: Some(b""), ..plain() },
        RecordRef { key: Some(b"tombstone"), value: None, headers: &headers, ..plain() },
        RecordRef { key: None, timestamp_ms: 0, ..plain() },
        RecordRef { value: Some(&large), timestamp_ms: 1_700_000_123_456, ..plain() },
    ];
    for (sequence, record) in (0..).zip(&records) {
        subject.put_record(P0, sequence, record).await;
    }
    subject.flush().await;
    let expected: Vec<_> = (0..).zip(&records).map(|(offset, record)| Owned::of(offset, record)).collect();
    assert_eq!(subject.read_all(P0).await, expected);
    assert_eq!(next_records(&mut subject.follow(P0, 0), records.len()).await, expected);
}

pub async fn the_ends_are_where_the_log_is(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    let end = |at| Ends { log_start: Offset(0), last_stable: Offset(at), high_watermark: Offset(at) };
    assert_eq!(subject.journal.ends(&[P0, P1]).await.unwrap(), [end(0), end(0)]);
    subject.put_all(P0, 0..10).await;
    subject.put_all(P1, 10..13).await;
    assert_eq!(subject.journal.ends(&[P1, P0]).await.unwrap(), [end(3), end(10)], "in the order asked");
    assert_eq!(subject.journal.ends(&[]).await.unwrap(), []);
}

pub async fn a_read_goes_on_where_the_last_one_ended(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    for batch in 0..10 {
        subject.put_all(P0, batch * 10..batch * 10 + 10).await;
    }
    let (mut next, mut seen, mut reads) = (Offset(35), vec![], 0);
    while next < Offset(100) {
        let answer = subject.journal.read(P0, next, 1, Isolation::ReadUncommitted).await.unwrap();
        assert!(answer.next > next && !answer.batches.is_empty(), "at least one batch");
        assert_eq!(answer.ends.high_watermark, Offset(100));
        seen.extend(answer.batches.iter().flat_map(owned));
        next = answer.next;
        reads += 1;
    }
    assert_eq!(sequences(&seen), (35..100).collect::<Vec<_>>());
    assert!(reads > 1, "a limit of one byte gives a batch at a time, not the log");
}

pub async fn a_read_at_the_end_is_empty(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    subject.put_all(P0, 0..5).await;
    for (partition, end) in [(P0, Offset(5)), (P1, Offset(0))] {
        let answer = subject.journal.read(partition, end, 1000, Isolation::ReadCommitted).await.unwrap();
        assert_eq!((answer.batches.len(), answer.next), (0, end));
    }
}

pub async fn creating_what_exists_changes_nothing(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    let configs = vec![("cleanup.policy".to_owned(), "compact".to_owned())];
    let spec = TopicSpec { partitions: 3, configs: configs.clone(), ..fresh_topic() };
    let names = [spec.name.clone(), subject.spec.name.clone()];
    let journal = &subject.journal;
    let before = journal.describe(&names).await.unwrap();
    assert!(before[0].is_none() && before[1].as_ref().is_some_and(|topic| topic.partitions == 2));

    journal.create(std::slice::from_ref(&spec)).await.unwrap();
    let created = journal.describe(&names).await.unwrap();
    let topic = created[0].clone().unwrap();
    assert_eq!((&topic.name, topic.partitions), (&spec.name, 3));
    assert!(topic.configs.contains(&configs[0]), "{:?}", topic.configs);
    assert!(topic.configs.is_sorted());
    assert_eq!(created[1], before[1]);

    journal.create(&[TopicSpec { partitions: 5, configs: vec![], ..spec }]).await.unwrap();
    assert_eq!(journal.describe(&names).await.unwrap(), created);
}

pub async fn a_kafka_topic_has_the_id_that_the_cluster_gave_it(fixture: &impl Fixture) {
    let one = Subject::open(fixture).await;
    let other = Subject::open(fixture).await;
    let id = one.journal.topic_id(P0.topic).unwrap();
    let described = one.journal.describe(std::slice::from_ref(&one.spec.name)).await.unwrap();
    assert_eq!(described[0].as_ref().map(|topic| topic.topic_id), Some(id));
    assert_ne!(other.journal.topic_id(P0.topic), Some(id));
    assert_eq!(one.journal.topic_id(TopicIndex(1)), None);
}

pub async fn another_journal_reads_the_same_log(fixture: &impl Fixture) {
    let one = Subject::open(fixture).await;
    let other = Subject::open_on(fixture, one.spec.clone(), AMPLE_BYTES).await;
    let mut tail = other.follow(P0, 0);
    one.put_all(P0, 0..10).await;
    other.put_all(P0, 10..20).await;
    assert_eq!(sequences(&next_records(&mut tail, 20).await), (0..20).collect::<Vec<_>>());
    assert_eq!((one.acks.count(), other.acks.count()), (10, 10), "outcomes come to whoever appended");
    assert_eq!(one.read_all(P0).await, other.read_all(P0).await);
}
