//! Fences (F9): what they end, and what can be relied upon afterwards.

use std::time::Duration;

use millrace::journal::{Isolation, JournalError, NotTaken, Offset, Outcome, Partition, Refusal};
use millrace::message::headers;

use super::fixture::{AMPLE_BYTES, Fixture, Owned, P0, P1, Subject, plain, ticket};

const LIMIT: Duration = Duration::from_secs(30);

/// A subject with a second journal on the same log.
async fn two(fixture: &impl Fixture) -> (Subject, Subject) {
    let zombie = Subject::open(fixture).await;
    let keeper = Subject::open_on(fixture, zombie.spec.clone(), AMPLE_BYTES).await;
    (zombie, keeper)
}

async fn fence(keeper: &Subject, producer_id: i64, partitions: &[Partition]) {
    for fenced in keeper.journal.fence(producer_id, partitions, LIMIT).await {
        fenced.unwrap();
    }
}

/// The ends of both partitions.
async fn ends(subject: &Subject) -> [Offset; 2] {
    let ends = subject.journal.ends(&[P0, P1]).await.unwrap();
    [ends[0].high_watermark, ends[1].high_watermark]
}

/// Appends once and says what became of it.
async fn outcome(subject: &Subject, partition: Partition, sequence: u64) -> Outcome {
    match subject.journal.append(ticket(sequence), partition, &plain()) {
        Ok(()) => subject.flush().await,
        // It has learned of its fence already.
        Err(NotTaken::Closed) => return Outcome::Refused(Refusal::Fenced),
        Err(other) => panic!("{other}"),
    }
    subject.acks.of(sequence).unwrap().1
}

pub async fn every_incarnation_has_a_producer_id_of_its_own(fixture: &impl Fixture) {
    let (one, other) = two(fixture).await;
    let ids = [one.journal.producer_id(), other.journal.producer_id()];
    assert!(ids[0] >= 0 && ids[1] >= 0 && ids[0] != ids[1], "{ids:?}");
    one.put_all(P0, 0..1).await;
    other.put_all(P0, 0..1).await;
    assert_eq!([one.journal.producer_id(), other.journal.producer_id()], ids);
    let read = one.journal.read(P0, Offset(0), 1 << 20, Isolation::ReadCommitted).await.unwrap();
    let writers: Vec<i64> = read.batches.iter().map(|batch| batch.producer_id).collect();
    assert_eq!(writers, ids, "what it writes bears it");
}

pub async fn a_fenced_incarnation_writes_nothing_more(fixture: &impl Fixture) {
    let (zombie, keeper) = two(fixture).await;
    zombie.put_all(P0, 0..3).await;
    fence(&keeper, zombie.journal.producer_id(), &[P0, P1]).await;
    let before = ends(&keeper).await;
    assert_eq!(outcome(&zombie, P0, 3).await, Outcome::Refused(Refusal::Fenced), "where it wrote");
    assert_eq!(outcome(&zombie, P1, 4).await, Outcome::Refused(Refusal::Fenced), "where it never wrote");
    assert!(zombie.journal.health().fenced);
    assert_eq!(zombie.journal.append(ticket(5), P0, &plain()), Err(NotTaken::Closed));
    assert_eq!(ends(&keeper).await, before);
    assert!(matches!(outcome(&keeper, P0, 6).await, Outcome::Written(_)), "others go on");
}

pub async fn a_fence_finds_what_is_queued(fixture: &impl Fixture) {
    let (zombie, keeper) = two(fixture).await;
    zombie.put_all(P0, 0..10).await;
    // Without an await between, none of them has set out when the fence does.
    for sequence in 10..2000 {
        let partition = if sequence % 2 == 0 { P0 } else { P1 };
        zombie.journal.append(ticket(sequence), partition, &plain()).unwrap();
    }
    fence(&keeper, zombie.journal.producer_id(), &[P0, P1]).await;
    let [end_0, end_1] = ends(&keeper).await;
    zombie.flush().await;
    assert_eq!(ends(&keeper).await, [end_0, end_1], "ends asked for after a fence are final");
    assert_eq!(zombie.acks.count(), 2000);
    for sequence in 0..2000 {
        match zombie.acks.of(sequence).unwrap() {
            (P0, Outcome::Written(offset)) => assert!(offset < end_0),
            (_, Outcome::Written(offset)) => assert!(offset < end_1),
            (_, outcome) => assert_eq!(outcome, Outcome::Refused(Refusal::Fenced)),
        }
    }
    assert_eq!(outcome(&zombie, P0, 2000).await, Outcome::Refused(Refusal::Fenced));
}

pub async fn a_producer_that_never_wrote_can_be_fenced(fixture: &impl Fixture) {
    let (zombie, keeper) = two(fixture).await;
    fence(&keeper, zombie.journal.producer_id(), &[P1, P0]).await;
    assert_eq!(outcome(&zombie, P0, 0).await, Outcome::Refused(Refusal::Fenced));
    // As can one of which this log never heard.
    fence(&keeper, 987_654_321, &[P0]).await;
}

pub async fn a_fence_can_be_repeated_by_anybody(fixture: &impl Fixture) {
    let (zombie, keeper) = two(fixture).await;
    let third = Subject::open_on(fixture, zombie.spec.clone(), AMPLE_BYTES).await;
    zombie.put_all(P0, 0..3).await;
    for keeper in [&keeper, &third, &keeper] {
        fence(keeper, zombie.journal.producer_id(), &[P0, P1, P0]).await;
    }
    assert_eq!(outcome(&zombie, P1, 3).await, Outcome::Refused(Refusal::Fenced));
    assert!(matches!(outcome(&third, P0, 4).await, Outcome::Written(_)));
    // Whatever the fences are made of, they are no messages.
    let records = third.read_all(P0).await;
    let is_message = |record: &&Owned| record.headers.iter().all(|(name, _)| name != headers::FENCE);
    assert_eq!(records.iter().filter(is_message).count(), 4);
}

pub async fn a_fence_says_where_it_failed(fixture: &impl Fixture) {
    let (zombie, keeper) = two(fixture).await;
    let nowhere = Partition { number: 7, ..P0 };
    let limit = Duration::from_millis(300);
    let fenced = keeper.journal.fence(zombie.journal.producer_id(), &[nowhere, P0], limit).await;
    assert!(
        matches!(fenced[..], [Err(JournalError::Unavailable { .. } | JournalError::Refused { .. }), Ok(())]),
        "{fenced:?}"
    );
    assert!(keeper.journal.fence(zombie.journal.producer_id(), &[], limit).await.is_empty());
}
