//! Kafka topics that change under the journal.

use std::time::Duration;

use millrace::journal::kafka::KafkaOptions;
use millrace::journal::{Isolation, Journal, Offset, Outcome, Refusal, TailEvent, TopicIndex};
use millrace::message::RecordRef;
use tokio::time::timeout;

use crate::support::{
    Fixture, PATIENCE, bootstrap_or_skip, create, follow_all, partition, read_values, spec, ticket, tool,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_noticed_and_written_to_again() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "recreated", 2, &[]).await;
    for sequence in 0..20 {
        fixture.write(0, sequence, "key", b"old").await;
    }
    let mut tail = follow_all(&fixture.journal, Isolation::ReadCommitted, 2);
    read_values(&mut tail, 20).await;
    tool(&["topics", "--bootstrap-server", &bootstrap[0], "--delete", "--topic", &fixture.name]);
    create(&bootstrap, &[spec(&fixture.name, 2, &[])]).await;
    let told = timeout(PATIENCE, async {
        loop {
            match tail.next().await {
                TailEvent::Recreated { topic } => return topic,
                TailEvent::Progress { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(told.await.unwrap(), TopicIndex(0));
    for sequence in 100..110 {
        fixture.append(0, sequence, "key", b"new");
    }
    assert!(fixture.journal.flush(PATIENCE).await);
    tail.follow(partition(0), Offset(0));
    let values = read_values(&mut tail, 10).await;
    for (sequence, (_, offset, value)) in (100..).zip(values) {
        assert_eq!(value, b"new");
        assert_eq!(fixture.acks.of(ticket(sequence)), [Outcome::Written(offset)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_to_a_deleted_topic_end_in_time() {
    let bootstrap = bootstrap_or_skip!();
    let name = crate::support::fresh_name("deleted");
    create(&bootstrap, &[spec(&name, 1, &[])]).await;
    let options = KafkaOptions { missing_topic_ms: 2_000, ..KafkaOptions::new(bootstrap.clone()) };
    let fixture = Fixture::on(options, name).await;
    fixture.write(0, 0, "key", b"value").await;
    tool(&["topics", "--bootstrap-server", &bootstrap[0], "--delete", "--topic", &fixture.name]);
    fixture.append(0, 1, "key", b"value");
    assert!(fixture.journal.flush(PATIENCE).await);
    let outcomes = fixture.acks.of(ticket(1));
    assert!(matches!(outcomes[..], [Outcome::Unknown | Outcome::Refused(Refusal::NoSuchPartition)]), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn added_partitions_are_noticed_and_usable() {
    let bootstrap = bootstrap_or_skip!();
    let name = crate::support::fresh_name("added");
    create(&bootstrap, &[spec(&name, 1, &[])]).await;
    let options = KafkaOptions { metadata_refresh_ms: 500, ..KafkaOptions::new(bootstrap.clone()) };
    let fixture = Fixture::on(options, name).await;
    let mut tail = follow_all(&fixture.journal, Isolation::ReadCommitted, 1);
    tool(&["topics", "--bootstrap-server", &bootstrap[0], "--alter", "--topic", &fixture.name, "--partitions", "3"]);
    let added = timeout(PATIENCE, async {
        loop {
            if let TailEvent::PartitionsAdded { topic, partitions } = tail.next().await {
                return (topic, partitions);
            }
        }
    });
    assert_eq!(added.await.unwrap(), (TopicIndex(0), 3));
    assert_eq!(fixture.journal.partitions(TopicIndex(0)), 3);
    let record = RecordRef { key: None, value: Some(b"value"), headers: &[], timestamp_ms: 0 };
    let begun = millrace::clock::now();
    while fixture.journal.append(ticket(1), partition(2), &record).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tail.follow(partition(2), Offset(0));
    assert_eq!(read_values(&mut tail, 1).await[0].0, partition(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_below_the_tail_is_told() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "retention", 1, &[]).await;
    for sequence in 0..10 {
        fixture.write(0, sequence, "key", b"value").await;
    }
    let plan = std::env::temp_dir().join(format!("{}.json", fixture.name));
    let text = format!(r#"{{"partitions":[{{"topic":"{}","partition":0,"offset":6}}],"version":1}}"#, fixture.name);
    std::fs::write(&plan, text).unwrap();
    let file = plan.to_str().unwrap();
    tool(&["delete-records", "--bootstrap-server", &bootstrap[0], "--offset-json-file", file]);
    std::fs::remove_file(&plan).unwrap();
    let mut tail = fixture.journal.tail(Isolation::ReadCommitted);
    tail.follow(partition(0), Offset(3));
    let event = timeout(PATIENCE, tail.next()).await.unwrap();
    assert!(matches!(event, TailEvent::BelowLogStart { position: Offset(3), log_start: Offset(6), .. }), "{event:?}");
    tail.follow(partition(0), Offset(6));
    assert_eq!(read_values(&mut tail, 4).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_that_is_too_large_does_not_take_its_neighbours_with_it() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "large", 1, &[("max.message.bytes", "20000")]).await;
    let noise = |sequence: u64, bytes: usize| -> Vec<u8> {
        let mut state = sequence + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..bytes).map(|_| next()).collect()
    };
    for sequence in 0..200 {
        let bytes = if sequence == 77 { 30_000 } else { 600 };
        fixture.append(0, sequence, "key", &noise(sequence, bytes));
    }
    assert!(fixture.journal.flush(PATIENCE).await);
    assert_eq!(fixture.acks.of(ticket(77)), [Outcome::Refused(Refusal::TooLarge)]);
    let mut tail = follow_all(&fixture.journal, Isolation::ReadCommitted, 1);
    let values = read_values(&mut tail, 199).await;
    let expected = (0..200).filter(|sequence| *sequence != 77);
    for (sequence, (_, offset, value)) in expected.zip(&values) {
        assert_eq!(fixture.acks.of(ticket(sequence)), [Outcome::Written(*offset)]);
        assert_eq!(*value, noise(sequence, 600));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_kafka_finds_invalid_does_not_take_its_neighbours_with_it() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "invalid", 1, &[("cleanup.policy", "compact")]).await;
    for sequence in 0..100 {
        if sequence % 40 == 13 {
            let keyless = RecordRef { key: None, value: Some(b"value"), headers: &[], timestamp_ms: 0 };
            fixture.journal.append(ticket(sequence), partition(0), &keyless).unwrap();
        } else {
            fixture.append(0, sequence, &sequence.to_string(), b"value");
        }
    }
    assert!(fixture.journal.flush(PATIENCE).await);
    for sequence in 0..100 {
        let outcomes = fixture.acks.of(ticket(sequence));
        if sequence % 40 == 13 {
            assert_eq!(outcomes, [Outcome::Refused(Refusal::Invalid)], "{sequence}");
        } else {
            assert!(matches!(outcomes[..], [Outcome::Written(_)]), "{sequence}: {outcomes:?}");
        }
    }
    let mut tail = follow_all(&fixture.journal, Isolation::ReadCommitted, 1);
    assert_eq!(read_values(&mut tail, 97).await.len(), 97);
}
