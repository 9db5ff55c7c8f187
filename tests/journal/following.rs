//! Tails.

use millrace::journal::{Isolation, Offset, TailEvent};

use super::fixture::{Fixture, P0, P1, Subject, next_records, records_of, sequences};

pub async fn a_tail_sees_what_was_written_before_and_after(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    subject.put_all(P0, 0..20).await;
    let mut tail = subject.follow(P0, 0);
    let mut seen = next_records(&mut tail, 20).await;
    for batch in 2..6 {
        subject.put_all(P0, batch * 10..batch * 10 + 10).await;
        seen.extend(next_records(&mut tail, 10).await);
    }
    assert_eq!(sequences(&seen), (0..60).collect::<Vec<_>>());
    for record in &seen {
        assert_eq!(record.offset, subject.acks.written(record.sequence()));
    }
}

pub async fn a_tail_starts_at_its_offset(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    subject.put_all(P0, 0..50).await;
    for from in [0, 1, 25, 49] {
        let count = usize::try_from(50 - from).unwrap();
        let seen = next_records(&mut subject.follow(P0, from), count).await;
        assert_eq!((seen.len(), seen[0].offset), (count, from));
    }
    let mut tail = subject.follow(P0, 50);
    subject.put_all(P0, 50..51).await;
    assert_eq!(sequences(&next_records(&mut tail, 1).await), [50]);
}

pub async fn a_tail_passes_holes(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    subject.put_all(P0, 0..3).await;
    if !fixture.leave_hole(&subject.spec.name, 0).await {
        eprintln!("skipped: this log leaves no holes");
        return;
    }
    let mut tail = subject.follow(P0, 0);
    let end = subject.journal.ends(&[P0]).await.unwrap()[0].last_stable;
    assert!(end > Offset(3));
    // To the end of the log, although the last offsets hold nothing to read.
    let (mut seen, mut position) = (vec![], Offset(0));
    while position < end {
        let event = tail.next().await;
        seen.extend(records_of(&event));
        position = match event {
            TailEvent::Batch(batch) => batch.next_offset,
            TailEvent::Progress { next, .. } => next,
            TailEvent::BelowLogStart { .. }
            | TailEvent::Rewound { .. }
            | TailEvent::Recreated { .. }
            | TailEvent::PartitionsAdded { .. }
            | TailEvent::Gap { .. } => panic!("{event:?}"),
        };
    }
    assert_eq!(position, end);
    subject.put_all(P0, 3..5).await;
    seen.extend(next_records(&mut tail, 2).await);
    assert_eq!(sequences(&seen), [0, 1, 2, 3, 4]);
    assert_eq!(seen[3].offset, end.0);
    assert_eq!(sequences(&subject.read_all(P0).await), [0, 1, 2, 3, 4]);

    let answer = subject.journal.read(P0, Offset(3), 1, Isolation::ReadCommitted).await.unwrap();
    assert!(answer.next > Offset(3), "a read within a hole gets on");
}

pub async fn two_tails_do_not_disturb_each_other(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    let (mut one, mut other) = (subject.follow(P0, 0), subject.follow(P0, 0));
    subject.put_all(P0, 0..10).await;
    assert_eq!(next_records(&mut one, 10).await.len(), 10);
    one.unfollow(P0);
    drop(one);
    subject.put_all(P0, 10..20).await;
    assert_eq!(sequences(&next_records(&mut other, 20).await), (0..20).collect::<Vec<_>>());
}

pub async fn unfollow_ends_and_follow_moves(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    let mut tail = subject.follow(P0, 0);
    tail.follow(P1, Offset(0));
    subject.put_all(P0, 0..10).await;
    assert_eq!(next_records(&mut tail, 10).await.len(), 10);

    tail.unfollow(P0);
    subject.put_all(P0, 10..20).await;
    subject.put_all(P1, 20..30).await;
    assert_eq!(sequences(&next_records(&mut tail, 10).await), (20..30).collect::<Vec<_>>());

    tail.follow(P0, Offset(5));
    assert_eq!(sequences(&next_records(&mut tail, 15).await), (5..20).collect::<Vec<_>>());
    tail.follow(P0, Offset(18));
    assert_eq!(sequences(&next_records(&mut tail, 2).await), [18, 19], "back again");
    tail.follow(P0, Offset(0));
    tail.follow(P0, Offset(19));
    assert_eq!(sequences(&next_records(&mut tail, 1).await), [19], "the last one counts");
}

pub async fn a_tail_may_be_cancelled_at_any_time(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    let mut tail = subject.follow(P0, 0);
    let (mut seen, mut sent) = (vec![], 0);
    while seen.len() < 200 {
        if sent < 200 {
            subject.put(P0, sent).await;
            sent += 1;
        }
        tokio::select! {
            biased;
            event = tail.next() => seen.extend(records_of(&event)),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(sequences(&seen), (0..200).collect::<Vec<_>>());
}

pub async fn a_tail_knows_the_ends_of_an_empty_partition(fixture: &impl Fixture) {
    let subject = Subject::open(fixture).await;
    let mut tail = subject.follow(P1, 0);
    let event = tail.next().await;
    assert!(
        matches!(event, TailEvent::Progress { partition: P1, next: Offset(0), ends } if ends.high_watermark == Offset(0)),
        "{event:?}"
    );
}
