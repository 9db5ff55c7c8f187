//! What operators, brokers and foreign programs do.

use super::*;

const COMPACTED: &[(&str, &str)] = &[("cleanup.policy", "compact"), ("delete.retention.ms", "1000")];

fn compacted() -> (MemoryLog, IncarnationId) {
    log_with(FaultPlan::default(), Limits::default(), COMPACTED)
}

#[test]
fn compaction_leaves_the_last_of_each_key_where_it_was() {
    let (mut log, id) = compacted();
    for (sequence, key) in (0..).zip(["a", "b", "a", "c", "b", "a"]) {
        put(&mut log, id, sequence, P0, key);
        if sequence == 2 {
            log.advance(0);
        }
    }
    log.append(id, ticket(6), P0, &record("c", None)).unwrap();
    log.advance(0);
    log.compact("t", 0);
    let row = |offset, key: &str, value: &str| (offset, key.to_owned(), value.to_owned());
    let left = [row(4, "b", "4"), row(5, "a", "5"), row(6, "c", "-")];
    assert_eq!(contents(&log, id, P0, Isolation::ReadCommitted), left);
    let ends = log.ends(id, &[P0]).unwrap()[0];
    assert_eq!((ends.log_start, ends.high_watermark), (Offset(0), Offset(7)));

    log.advance(2000);
    log.compact("t", 0);
    assert_eq!(keys(&log, id, P0), ["b", "a"], "the tombstone's time is over");
    let tail = log.open_tail(id, Isolation::ReadUncommitted);
    log.follow(tail, P0, Offset(0));
    put(&mut log, id, 7, P0, "d");
    log.advance(2000);
    let offsets: Vec<_> = batch_rows(&events(&mut log, tail)).into_iter().map(|row| row.0).collect();
    assert_eq!(offsets, [4, 5, 7]);
}

#[test]
fn compaction_leaves_what_is_younger_than_the_lag() {
    let config = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "1000")];
    let (mut log, id) = log_with(FaultPlan::default(), Limits::default(), &config);
    put(&mut log, id, 0, P0, "a");
    put(&mut log, id, 1, P0, "a");
    log.advance(0);
    put(&mut log, id, 2, P0, "a");
    log.advance(2000);
    log.compact("t", 0);
    assert_eq!(keys(&log, id, P0), ["a", "a"], "the last of those that are old enough, and the young one");
    log.advance(4000);
    log.compact("t", 0);
    assert_eq!(keys(&log, id, P0), ["a"]);
}

#[test]
fn compaction_takes_aborted_records_for_nothing_and_leaves_undecided_ones() {
    let (mut log, id) = compacted();
    put(&mut log, id, 0, P0, "a");
    put(&mut log, id, 1, P0, "b");
    log.advance(0);
    log.write_foreign(1, "t", 0, &[record("a", Some("aborted"))], ForeignWrite::Aborted);
    log.write_foreign(1, "t", 0, &[record("b", Some("open"))], ForeignWrite::Open);
    put(&mut log, id, 2, P0, "b");
    log.advance(0);
    log.compact("t", 0);
    let values = |isolation| contents(&log, id, P0, isolation).into_iter().map(|row| row.2).collect::<Vec<_>>();
    assert_eq!(values(Isolation::ReadUncommitted), ["0", "1", "open", "2"]);
    assert_eq!(values(Isolation::ReadCommitted), ["0", "1"]);
}

#[test]
fn a_tail_that_moved_hears_nothing_of_where_it_was() {
    let (mut log, id) = quiet();
    let tail = log.open_tail(id, Isolation::ReadUncommitted);
    log.follow(tail, P0, Offset(0));
    log.break_tails("t", 0, "a test");
    put(&mut log, id, 0, P0, "k");
    log.advance(0);
    log.follow(tail, P0, Offset(0));
    assert!(matches!(events(&mut log, tail)[..], [TailEvent::Batch(_)]));
}

#[test]
fn a_log_compacted_to_nothing_is_passed_to_its_end() {
    let (mut log, id) = compacted();
    log.append(id, ticket(0), P0, &record("a", None)).unwrap();
    log.advance(0);
    log.advance(5000);
    log.compact("t", 0);
    let tail = log.open_tail(id, Isolation::ReadCommitted);
    log.follow(tail, P0, Offset(0));
    let seen = events(&mut log, tail);
    assert!(batch_rows(&seen).is_empty());
    let next = seen.iter().map(|event| match event {
        TailEvent::Batch(batch) => Some(batch.next_offset),
        TailEvent::Progress { next, .. } => Some(*next),
        TailEvent::BelowLogStart { .. }
        | TailEvent::Rewound { .. }
        | TailEvent::Recreated { .. }
        | TailEvent::PartitionsAdded { .. }
        | TailEvent::Gap { .. } => None,
    });
    assert_eq!(next.max(), Some(Some(Offset(1))));
}

#[test]
fn a_compacted_topic_compacts_itself() {
    let (mut log, id) = compacted();
    let value = "x".repeat(10_000);
    for sequence in 0..2000 {
        let key = format!("k{}", sequence % 20);
        log.append(id, ticket(sequence), P0, &record(&key, Some(&value))).unwrap();
        log.advance(0);
    }
    let stored: usize = log.topics[0].partitions.iter().map(|log| log.stored_bytes).sum();
    assert!(stored < 2_000_000, "{stored}");
    assert_eq!(log.ends(id, &[P0]).unwrap()[0].log_start, Offset(0));
}

#[test]
fn a_fenced_incarnation_ends() {
    for form in [FenceForm::Marker, FenceForm::Record] {
        let (mut log, id) = quiet();
        let (other, dead) = (log.open(vec!["t".into()]), log.producer_id(id));
        assert!(log.fence(dead, "t", 0, form) && !log.fence(dead, "t", 5, form));
        put(&mut log, id, 0, P1, "not fenced here");
        log.advance(0);
        put(&mut log, id, 1, P0, "fenced");
        put(&mut log, id, 2, P1, "never sent");
        put(&mut log, other, 3, P0, "somebody else");
        log.advance(0);
        let outcomes: Vec<_> = acks(&mut log, id).into_iter().map(|acked| acked.outcome).collect();
        let fenced = Outcome::Refused(Refusal::Fenced);
        assert_eq!(outcomes, [Outcome::Written(Offset(0)), fenced, fenced]);
        assert_eq!(log.append(id, ticket(3), P1, &record("k", None)), Err(NotTaken::Closed));
        assert!(log.health(id).fenced && !log.health(other).fenced);
        assert_eq!(log.ends(id, &[P0]).unwrap()[0].high_watermark, Offset(2), "the fence takes an offset");
        let expected: &[&str] =
            if form == FenceForm::Marker { &["somebody else"] } else { &["mqtt-fence", "somebody else"] };
        assert_eq!(keys(&log, id, P0), expected);
    }
}

#[test]
fn a_fence_that_is_a_record_reaches_every_tail_once_and_says_what_it_is() {
    let (mut log, keeper) =
        log_with(FaultPlan { fences_are_records: true, ..FaultPlan::default() }, Limits::default(), COMPACTED);
    let dead = log.open(vec!["t".into()]);
    let tails = [Isolation::ReadCommitted, Isolation::ReadUncommitted].map(|isolation| {
        let tail = log.open_tail(keeper, isolation);
        log.follow(tail, P0, Offset(0));
        tail
    });
    for _ in 0..2 {
        log.fence_partition(keeper, log.producer_id(dead), P0).unwrap();
    }
    for tail in tails {
        let seen = events(&mut log, tail);
        let [TailEvent::Batch(batch)] = &seen[..] else { panic!("{seen:?}") };
        let record = batch.iter().next().unwrap();
        assert!(batch.records_count == 1 && record.value().is_none() && is_fence(record.headers()));
        assert_eq!(batch.producer_id, log.producer_id(dead));
    }
    assert!(log.fence_partition(keeper, 1, Partition { number: 9, ..P0 }).is_err());
}

#[test]
fn a_fence_without_an_answer_was_done_or_not() {
    let mut done = 0;
    for seed in 0..40 {
        let plan = FaultPlan { seed, unanswered_permille: 1000, ..FaultPlan::default() };
        let (mut log, id) = log_with(plan, Limits::default(), &[]);
        let fenced = log.fence_partition(id, log.producer_id(id), P0);
        assert!(matches!(fenced, Err(JournalError::Unavailable { .. })));
        put(&mut log, id, 0, P0, "k");
        log.advance(0);
        done += usize::from(log.health(id).fenced);
    }
    assert!((5..35).contains(&done), "a coin decides: {done}");
}

#[test]
fn every_batch_has_the_time_at_which_the_log_took_it() {
    let stamped = [("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "compact")];
    let plan = FaultPlan { unknown_late_permille: 1000, late_ms_max: 100, seed: 9, ..FaultPlan::default() };
    let (mut log, id) = log_with(plan, Limits::default(), &stamped);
    let mut times = vec![];
    put(&mut log, id, 0, P0, "late");
    log.advance(10);
    while let Some(due_ms) = log.next_due_ms() {
        log.advance(due_ms);
        times = vec![due_ms];
    }
    assert!(times[0] > 10);
    log.set_faults(FaultPlan::default());
    put(&mut log, id, 1, P0, "a");
    log.advance(200);
    log.advance(300);
    log.write_foreign(7, "t", 0, &[record("foreign", Some("v"))], ForeignWrite::Plain);
    log.advance(400);
    log.fence(log.producer_id(id), "t", 0, FenceForm::Record);
    times.extend([200, 300, 400]);
    log.compact("t", 0);
    let answer = log.read(id, P0, Offset(0), usize::MAX, Isolation::ReadUncommitted).unwrap();
    let told: Vec<_> = answer.batches.iter().map(|batch| batch.append_time_ms).collect();
    assert_eq!(told, times.into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn foreign_transactions_are_seen_as_the_isolation_wants() {
    let (mut log, id) = quiet();
    let committed = log.open_tail(id, Isolation::ReadCommitted);
    let uncommitted = log.open_tail(id, Isolation::ReadUncommitted);
    log.follow(committed, P0, Offset(0));
    log.follow(uncommitted, P0, Offset(0));
    let foreign = |log: &mut MemoryLog, producer_id, key: &str, write| {
        log.write_foreign(producer_id, "t", 0, &[record(key, Some("v"))], write)
    };
    assert_eq!(foreign(&mut log, 1, "committed", ForeignWrite::Committed), Some(Offset(0)));
    assert_eq!(foreign(&mut log, 1, "aborted", ForeignWrite::Aborted), Some(Offset(2)));
    assert_eq!(foreign(&mut log, 1, "open", ForeignWrite::Open), Some(Offset(4)));
    assert_eq!(foreign(&mut log, 2, "plain", ForeignWrite::Plain), Some(Offset(5)));
    let ends = log.ends(id, &[P0]).unwrap()[0];
    assert_eq!((ends.last_stable, ends.high_watermark), (Offset(4), Offset(6)));

    let names = |events: &[TailEvent]| batch_rows(events).into_iter().map(|row| row.1).collect::<Vec<_>>();
    let seen = events(&mut log, committed);
    assert_eq!(names(&seen), ["committed"]);
    assert!(matches!(seen.last(), Some(TailEvent::Progress { next: Offset(4), .. })));
    assert_eq!(names(&events(&mut log, uncommitted)), ["committed", "aborted", "open", "plain"]);

    log.end_foreign(1, "t", 0, true);
    assert_eq!(names(&events(&mut log, committed)), ["open", "plain"]);
    assert_eq!(log.ends(id, &[P0]).unwrap()[0].last_stable, Offset(7));
}

#[test]
fn a_held_back_reader_hears_that_the_log_grows() {
    let (mut log, id) = quiet();
    let tail = log.open_tail(id, Isolation::ReadCommitted);
    log.write_foreign(1, "t", 0, &[record("open", None)], ForeignWrite::Open);
    log.follow(tail, P0, Offset(0));
    events(&mut log, tail);
    put(&mut log, id, 0, P0, "k");
    log.advance(0);
    let seen = events(&mut log, tail);
    assert!(
        matches!(seen[..], [TailEvent::Progress { next: Offset(0), ends, .. }] if ends.high_watermark == Offset(2))
    );
}

#[test]
fn what_befalls_a_log_is_told_to_its_tails_once() {
    let (mut log, id) = quiet();
    let tail = log.open_tail(id, Isolation::ReadUncommitted);
    let fill = |log: &mut MemoryLog| {
        for sequence in 0..3 {
            put(log, id, sequence, P0, "k");
            log.advance(0);
        }
    };
    let follow = |log: &mut MemoryLog| {
        log.follow(tail, P0, Offset(0));
        log.follow(tail, P1, Offset(0));
        events(log, tail);
    };
    fill(&mut log);

    follow(&mut log);
    log.lose_end("t", 0, Offset(1));
    put(&mut log, id, 9, P0, "another");
    put(&mut log, id, 9, P0, "another");
    log.advance(0);
    let seen = events(&mut log, tail);
    assert!(
        matches!(seen[..], [TailEvent::Rewound { partition: P0, position: Offset(3), end: Offset(1) }]),
        "{seen:?}"
    );

    follow(&mut log);
    log.add_partitions("t", 3);
    log.add_partitions("t", 2);
    let seen = events(&mut log, tail);
    assert!(matches!(seen[..], [TailEvent::PartitionsAdded { topic: T, partitions: 3 }]), "{seen:?}");
    assert_eq!(log.partitions(id, T), 3);

    let before = log.describe(&["t".into()])[0].clone().unwrap();
    log.recreate_topic("t");
    put(&mut log, id, 9, P0, "k");
    log.advance(0);
    let seen = events(&mut log, tail);
    assert!(matches!(seen[..], [TailEvent::Recreated { topic: T }]), "{seen:?}");
    assert_ne!(log.describe(&["t".into()])[0].clone().unwrap().topic_id, before.topic_id);
    assert_eq!(log.ends(id, &[P0]).unwrap()[0].high_watermark, Offset(1));

    follow(&mut log);
    log.delete_topic("t");
    let seen = events(&mut log, tail);
    assert!(matches!(seen[..], [TailEvent::Gap { .. }, TailEvent::Gap { .. }]), "{seen:?}");
    assert_eq!(log.partitions(id, T), 0);
    assert_eq!(log.append(id, ticket(1), P0, &record("k", None)), Err(NotTaken::NoSuchPartition));
    assert_eq!(log.describe(&["t".into()]), [None]);
}

#[test]
fn retention_and_a_reader_beyond_the_end_are_told() {
    let (mut log, id) = quiet();
    for sequence in 0..3 {
        put(&mut log, id, sequence, P0, "k");
        log.advance(0);
    }
    let tail = log.open_tail(id, Isolation::ReadUncommitted);
    log.follow(tail, P0, Offset(0));
    log.delete_before("t", 0, Offset(2));
    let seen = events(&mut log, tail);
    assert!(matches!(seen[..], [TailEvent::BelowLogStart { position: Offset(0), log_start: Offset(2), .. }]));
    log.follow(tail, P0, Offset(4));
    let seen = events(&mut log, tail);
    assert!(matches!(seen[..], [TailEvent::Rewound { position: Offset(4), end: Offset(3), .. }]));
    assert!(events(&mut log, tail).is_empty());
}
