//! F9: after a fence, nothing of a dead producer lands, and it learns that it is dead.

use std::sync::Arc;
use std::time::Duration;

use millrace::journal::kafka::{FENCE_KEY, FenceForm, KafkaJournal, KafkaOptions};
use millrace::journal::{Fencing, Isolation, Journal, JournalError, NotTaken, Offset, Outcome, Partition, Refusal};
use millrace::message::{RecordRef, is_fence};

use crate::support::{Acks, Fixture, PATIENCE, bootstrap_or_skip, follow_all, partition, read_values, ticket};

const LIMIT: Duration = Duration::from_secs(30);

/// A zombie that wrote to partition 0 and never to partition 1, fenced at both.
async fn fenced(bootstrap: &[String], form: FenceForm) -> (Fixture, Fixture) {
    let zombie = Fixture::new(bootstrap, "fence", 2, &[]).await;
    zombie.write(0, 0, "key", b"alive").await;
    let keeper = Fixture::on(KafkaOptions::new(bootstrap.to_vec()), zombie.name.clone()).await;
    let producer = zombie.journal.producer_id();
    assert_ne!(producer, keeper.journal.producer_id());
    let results = keeper.journal.fence_as(form, producer, &[partition(0), partition(1)], LIMIT).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    // Once more changes nothing.
    let results = keeper.journal.fence_as(form, producer, &[partition(1), partition(0)], LIMIT).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    (zombie, keeper)
}

async fn is_dead(zombie: &Fixture, number: u32) {
    zombie.append(number, 1, "key", b"undead");
    assert!(zombie.journal.flush(PATIENCE).await);
    assert_eq!(zombie.acks.of(ticket(1)), [Outcome::Refused(Refusal::Fenced)]);
    assert!(zombie.journal.health().fenced);
    let record = RecordRef { key: None, value: None, headers: &[], timestamp_ms: 0 };
    assert_eq!(zombie.journal.append(ticket(2), partition(0), &record), Err(NotTaken::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_fences_where_the_zombie_wrote() {
    let bootstrap = bootstrap_or_skip!();
    let (zombie, keeper) = fenced(&bootstrap, FenceForm::Marker).await;
    is_dead(&zombie, 0).await;
    keeper.write(0, 0, "key", b"after").await;
    let mut tail = follow_all(&keeper.journal, Isolation::ReadUncommitted, 1);
    let values: Vec<Vec<u8>> = read_values(&mut tail, 2).await.into_iter().map(|(.., value)| value).collect();
    assert_eq!(values, [b"alive".to_vec(), b"after".to_vec()], "the fence is seen by nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_fences_where_the_zombie_never_wrote() {
    let bootstrap = bootstrap_or_skip!();
    let (zombie, _keeper) = fenced(&bootstrap, FenceForm::Marker).await;
    is_dead(&zombie, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_fences_and_says_what_it_is() {
    let bootstrap = bootstrap_or_skip!();
    let (zombie, keeper) = fenced(&bootstrap, FenceForm::Record).await;
    is_dead(&zombie, 0).await;
    let answer = keeper.journal.read(partition(0), Offset(1), 1 << 20, Isolation::ReadCommitted).await.unwrap();
    let fences: Vec<_> = answer.batches.iter().flat_map(|batch| batch.iter()).collect();
    assert_eq!(fences.len(), 1, "written twice, it is there once");
    assert_eq!(fences[0].key, Some(FENCE_KEY));
    assert_eq!(fences[0].value(), None);
    assert!(is_fence(fences[0].headers()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_fences_where_the_zombie_never_wrote() {
    let bootstrap = bootstrap_or_skip!();
    let (zombie, _keeper) = fenced(&bootstrap, FenceForm::Record).await;
    is_dead(&zombie, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_never_stops_is_cut_off_between_two_records() {
    let bootstrap = bootstrap_or_skip!();
    let zombie = Fixture::new(&bootstrap, "busy", 1, &[]).await;
    let keeper = Fixture::on(KafkaOptions::new(bootstrap.clone()), zombie.name.clone()).await;
    let producer = zombie.journal.producer_id();
    let zombie = Arc::new(zombie);
    let busy = Arc::clone(&zombie);
    let writing = tokio::task::spawn_blocking(move || {
        let mut sequence = 0;
        loop {
            let record = RecordRef { key: Some(b"key"), value: Some(b"value"), headers: &[], timestamp_ms: 0 };
            match busy.journal.append(ticket(sequence), partition(0), &record) {
                Ok(()) => sequence += 1,
                Err(NotTaken::Full) => {}
                Err(NotTaken::Closed) => return sequence,
                Err(other) => panic!("{other}"),
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    keeper.journal.fence_as(FenceForm::Marker, producer, &[partition(0)], LIMIT).await[0].clone().unwrap();
    let end = keeper.journal.ends(&[partition(0)]).await.unwrap()[0].high_watermark;
    let appended = writing.await.unwrap();
    assert!(zombie.journal.flush(PATIENCE).await);
    let after = keeper.journal.ends(&[partition(0)]).await.unwrap()[0].high_watermark;
    assert_eq!(end, after, "the zombie wrote after its fence");
    let written =
        (0..appended).filter(|sequence| matches!(zombie.acks.of(ticket(*sequence))[..], [Outcome::Written(_)]));
    // The marker takes one offset.
    assert_eq!(i64::try_from(written.count()).unwrap() + 1, end.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_that_the_cluster_allows_is_known_without_writing() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "form", 1, &[]).await;
    let names = [fixture.name.clone(), "not.there".to_owned()];
    let marker = Fencing { form: Some(FenceForm::Marker), not_allowed: Vec::new() };
    assert_eq!(fixture.journal.fencing(&names).await.unwrap(), marker);
    let admin = KafkaJournal::open(KafkaOptions::new(bootstrap), Vec::new(), Arc::new(Acks::default())).await.unwrap();
    assert_eq!(admin.fencing(&names).await.unwrap(), marker);
    assert_eq!(fixture.journal.ends(&[partition(0)]).await.unwrap()[0].high_watermark, Offset(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_where_nothing_is_says_so() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = Fixture::new(&bootstrap, "nowhere", 1, &[]).await;
    let nowhere = Partition { number: 7, ..partition(0) };
    let results = fixture.journal.fence(1, &[nowhere, partition(0)], Duration::from_millis(500)).await;
    assert!(matches!(&results[..], [Err(JournalError::Unavailable { .. }), Ok(())]), "{results:?}");
}
