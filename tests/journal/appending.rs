//! Appends and their outcomes.

use std::time::Duration;

use millrace::journal::{NotTaken, Outcome, Partition, TopicIndex};
use millrace::message::RecordRef;

use super::fixture::{Fixture, P0, P1, Subject, fresh_topic, plain, sequences, ticket};

pub async fn every_accepted_append_has_one_outcome(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    for sequence in 0..1000 {
        subject.put(if sequence % 3 == 0 { P1 } else { P0 }, sequence).await;
    }
    subject.flush().await;
    assert_eq!(subject.acks.count(), 1000);
    for sequence in 0..1000 {
        let (partition, outcome) = subject.acks.of(sequence).unwrap();
        assert_eq!(partition, if sequence % 3 == 0 { P1 } else { P0 });
        assert!(matches!(outcome, Outcome::Written(_)), "{outcome:?}");
    }
    assert_eq!(subject.journal.health().pending_bytes, 0);
    // A second outcome would have failed in the sink; give it the chance to come.
    subject.put(P0, 1000).await;
    subject.flush().await;
    assert_eq!(subject.acks.count(), 1001);
}

pub async fn outcomes_name_the_offsets_where_the_records_are(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    for sequence in 0..200 {
        subject.put(if sequence % 2 == 0 { P0 } else { P1 }, sequence).await;
        if sequence % 50 == 0 {
            subject.flush().await;
        }
    }
    subject.flush().await;
    for partition in [P0, P1] {
        let records = subject.read_all(partition).await;
        assert_eq!(records.len(), 100);
        for record in records {
            assert_eq!(subject.acks.written(record.sequence()), record.offset);
        }
    }
}

pub async fn appends_to_one_partition_keep_their_order(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    for sequence in 0..500 {
        subject.put(P0, sequence).await;
        if sequence % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    subject.flush().await;
    assert_eq!(sequences(&subject.read_all(P0).await), (0..500).collect::<Vec<_>>());
}

pub async fn a_full_budget_is_told_and_room_comes_back(fixture: &impl Fixture) {
    let subject = Subject::open_on(fixture, fresh_topic(), 64 << 10).await;
    let value = vec![b'x'; 4 << 10];
    let record = RecordRef { value: Some(&value), ..plain() };
    let mut taken = 0;
    // Without an await between, nothing can be decided in the meantime by a task of this runtime.
    while subject.journal.append(ticket(taken), P0, &record).is_ok() {
        taken += 1;
        assert!(taken < 10_000, "the budget is never full");
    }
    assert!(taken >= 4, "{taken}");
    assert_eq!(subject.journal.append(ticket(taken), P0, &record), Err(NotTaken::Full));
    for sequence in taken..taken + 50 {
        subject.put_record(P0, sequence, &record).await;
    }
    subject.flush().await;
    assert_eq!(u64::try_from(subject.acks.count()), Ok(taken + 50), "what was not taken has no outcome");
    subject.journal.room().await;
}

pub async fn a_record_beyond_every_batch_is_not_taken(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    let value = vec![0; 16 << 20];
    let refused = subject.journal.append(ticket(0), P0, &RecordRef { value: Some(&value), ..plain() });
    assert_eq!(refused, Err(NotTaken::TooLarge));
    subject.put(P0, 1).await;
    subject.flush().await;
    assert_eq!((subject.acks.count(), subject.acks.written(1)), (1, 0));
}

pub async fn a_partition_that_does_not_exist_is_not_written_to(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    let nowhere = [Partition { number: 2, ..P0 }, Partition { topic: TopicIndex(1), number: 0 }];
    for partition in nowhere {
        assert_eq!(subject.journal.append(ticket(0), partition, &plain()), Err(NotTaken::NoSuchPartition));
    }
    assert_eq!(subject.journal.partitions(P0.topic), 2);
    subject.flush().await;
    assert_eq!(subject.acks.count(), 0);
}

pub async fn flush_waits_for_the_outcomes_of_what_was_taken(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    assert!(subject.journal.flush(Duration::from_secs(10)).await, "nothing to wait for");
    for round in 0..20 {
        subject.put(P0, round * 2).await;
        subject.put(P1, round * 2 + 1).await;
        subject.flush().await;
        assert!(subject.acks.of(round * 2).is_some() && subject.acks.of(round * 2 + 1).is_some());
    }
}
