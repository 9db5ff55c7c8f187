//! The happy path.

use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{Isolation, Journal, JournalError, Offset, Outcome, TailEvent};

use crate::support::{
    Acks, Fixture, PATIENCE, bootstrap_or_skip, follow_all, fresh_name, partition, read_values, spec, ticket,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_acknowledged_and_read_in_order() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "order", 3, &[]).await;
    let count = 3_000_u64;
    for sequence in 0..count {
        let number = u32::try_from(sequence % 3).unwrap();
        fixture.append(number, sequence, "key", sequence.to_string().as_bytes());
    }
    let mut tail = follow_all(&fixture.journal, Isolation::ReadCommitted, 3);
    let values = read_values(&mut tail, usize::try_from(count).unwrap()).await;
    // The tail may be told of a record before its acknowledgement has arrived.
    assert!(fixture.journal.flush(PATIENCE).await);
    for number in 0..3 {
        let expected: Vec<u64> = (0..count).filter(|sequence| sequence % 3 == u64::from(number)).collect();
        let of_partition: Vec<_> = values.iter().filter(|(from, ..)| *from == partition(number)).collect();
        let read: Vec<u64> =
            of_partition.iter().map(|(_, _, value)| std::str::from_utf8(value).unwrap().parse().unwrap()).collect();
        assert_eq!(read, expected);
        for (_, offset, value) in of_partition {
            let sequence = std::str::from_utf8(value).unwrap().parse().unwrap();
            assert_eq!(fixture.acks.of(ticket(sequence)), [Outcome::Written(*offset)]);
        }
    }
    let ends = fixture.journal.ends(&[partition(2), partition(0)]).await.unwrap();
    assert_eq!(ends.len(), 2);
    for ends in ends {
        assert_eq!((ends.log_start, ends.last_stable, ends.high_watermark), (Offset(0), Offset(1000), Offset(1000)));
    }
    let answer = fixture.journal.read(partition(1), Offset(500), 1 << 20, Isolation::ReadUncommitted).await.unwrap();
    assert_eq!(answer.batches[0].iter().next().unwrap().offset, Offset(500));
    assert_eq!(answer.ends.high_watermark, Offset(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_once_and_described() {
    let bootstrap = bootstrap_or_skip!();
    let options = KafkaOptions::new(bootstrap.clone());
    let admin = KafkaJournal::open(options.clone(), Vec::new(), std::sync::Arc::new(Acks::default())).await.unwrap();
    let (name, absent) = (fresh_name("created"), fresh_name("absent"));
    let specs = [spec(&name, 5, &[("cleanup.policy", "compact"), ("segment.ms", "600000")])];
    admin.create(&specs).await.unwrap();
    admin.create(&specs).await.unwrap();
    let described = admin.describe(&[absent.clone(), name.clone()]).await.unwrap();
    assert_eq!(described[0], None);
    let topic = described[1].clone().unwrap();
    assert_eq!((topic.partitions, topic.replication_factor), (5, 1));
    assert_ne!(topic.topic_id, 0);
    assert!(topic.configs.contains(&("cleanup.policy".to_owned(), "compact".to_owned())));
    assert!(topic.configs.is_sorted());

    let missing = KafkaJournal::open(options, vec![absent.clone()], std::sync::Arc::new(Acks::default())).await;
    let Err(JournalError::Refused { why, .. }) = missing else { panic!("a missing kafka topic was accepted") };
    assert!(why.contains(&absent), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_outside_of_the_log_is_told() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "range", 1, &[]).await;
    fixture.write(0, 1, "key", b"value").await;
    let mut tail = fixture.journal.tail(Isolation::ReadUncommitted);
    tail.follow(partition(0), Offset(7));
    let event = tail.next().await;
    assert!(
        matches!(event, TailEvent::Rewound { position: Offset(7), end: Offset(1), .. }),
        "a position beyond the end: {event:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_followed_while_the_tail_is_parked_is_read_at_once() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "parked", 4, &[]).await;
    let mut tail = fixture.journal.tail(Isolation::ReadUncommitted);
    tail.follow(partition(0), Offset(0));
    for round in 0..6_u64 {
        // Parks the tail with what it follows already.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(120), tail.next()).await;
        let number = u32::try_from(1 + round % 3).unwrap();
        let offset = fixture.write(number, round, "key", b"value").await;
        tail.follow(partition(number), offset);
        let asked = millrace::clock::now();
        let values = read_values(&mut tail, 1).await;
        assert_eq!(values[0].1, offset);
        let waited = asked.elapsed();
        assert!(waited < std::time::Duration::from_millis(200), "it took {waited:?}");
        tail.unfollow(partition(number));
    }
}
