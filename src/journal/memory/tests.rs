use super::faults::Dice;
use super::*;
use crate::journal::{
    Batch, Isolation, JournalError, NotTaken, Offset, Outcome, Partition, Refusal, TailEvent, Ticket, TopicIndex,
    TopicSpec,
};
use crate::message::{RecordRef, is_fence};

mod faults;
mod operated;
mod reach;
mod shell;

const T: TopicIndex = TopicIndex(0);
const P0: Partition = Partition { topic: T, number: 0 };
const P1: Partition = Partition { topic: T, number: 1 };

fn topic(name: &str, configs: &[(&str, &str)]) -> TopicSpec {
    let configs = configs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    TopicSpec { name: name.into(), partitions: 2, replication_factor: None, configs }
}

/// A log with the kafka topic `t` of two partitions, and one incarnation that knows it.
fn log_with(plan: FaultPlan, limits: Limits, configs: &[(&str, &str)]) -> (MemoryLog, IncarnationId) {
    let mut log = MemoryLog::new(plan, limits);
    log.create(&[topic("t", configs)]).unwrap();
    let id = log.open(vec!["t".into()]);
    (log, id)
}

fn quiet() -> (MemoryLog, IncarnationId) {
    log_with(FaultPlan::default(), Limits::default(), &[])
}

fn ticket(sequence: u64) -> Ticket {
    Ticket { owner: 1, sequence }
}

fn record<'a>(key: &'a str, value: Option<&'a str>) -> RecordRef<'a> {
    RecordRef { key: Some(key.as_bytes()), value: value.map(str::as_bytes), headers: &[], timestamp_ms: 5 }
}

/// Appends `key`; its value is its ticket's number.
fn put(log: &mut MemoryLog, id: IncarnationId, sequence: u64, partition: Partition, key: &str) {
    log.append(id, ticket(sequence), partition, &record(key, Some(&sequence.to_string()))).unwrap();
}

fn acks(log: &mut MemoryLog, id: IncarnationId) -> Vec<Acked> {
    std::iter::from_fn(|| log.poll_acks(id)).collect()
}

/// Offset, key, value of what a reader finds from the start of what still exists.
fn contents(
    log: &MemoryLog,
    id: IncarnationId,
    partition: Partition,
    isolation: Isolation,
) -> Vec<(i64, String, String)> {
    let from = log.ends(id, &[partition]).unwrap()[0].log_start;
    let answer = log.read(id, partition, from, usize::MAX, isolation).unwrap();
    answer.batches.iter().flat_map(rows).collect()
}

fn rows(batch: &Batch) -> Vec<(i64, String, String)> {
    batch.check().unwrap();
    let text = |bytes: Option<&[u8]>| bytes.map_or("-".into(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    batch.iter().map(|record| (record.offset.0, text(record.key), text(record.value()))).collect()
}

fn keys(log: &MemoryLog, id: IncarnationId, partition: Partition) -> Vec<String> {
    contents(log, id, partition, Isolation::ReadUncommitted).into_iter().map(|(_, key, _)| key).collect()
}

fn events(log: &mut MemoryLog, tail: TailId) -> Vec<TailEvent> {
    std::iter::from_fn(|| log.poll_tail(tail)).collect()
}

fn batch_rows(events: &[TailEvent]) -> Vec<(i64, String, String)> {
    let batch = |event: &TailEvent| if let TailEvent::Batch(batch) = event { rows(batch) } else { vec![] };
    events.iter().flat_map(batch).collect()
}

#[test]
fn a_quiet_log_writes_in_order_and_in_groups() {
    let (mut log, id) = quiet();
    for sequence in 0..5 {
        put(&mut log, id, sequence, if sequence == 2 { P1 } else { P0 }, "k");
    }
    assert!(log.poll_acks(id).is_none(), "nothing happens before time passes");
    assert_eq!(log.next_due_ms(), Some(0));
    log.advance(10);
    let written = |partition, tickets: &[u64]| Acked {
        partition,
        outcome: Outcome::Written(Offset(0)),
        tickets: tickets.iter().map(|&sequence| ticket(sequence)).collect(),
    };
    assert_eq!(acks(&mut log, id), [written(P0, &[0, 1, 3, 4]), written(P1, &[2])]);
    assert_eq!(log.next_due_ms(), None);
    let values: Vec<_> = contents(&log, id, P0, Isolation::ReadCommitted).into_iter().map(|row| row.2).collect();
    assert_eq!(values, ["0", "1", "3", "4"]);
}

#[test]
fn what_is_not_taken_has_no_outcome() {
    let limits = Limits { record_bytes_max: 1000, append_bytes_max: 2000, ..Limits::default() };
    let (mut log, id) = log_with(FaultPlan::default(), limits, &[]);
    let large = "x".repeat(1000);
    let append =
        |log: &mut MemoryLog, partition, value: &str| log.append(id, ticket(0), partition, &record("k", Some(value)));
    assert_eq!(append(&mut log, P0, &large), Err(NotTaken::TooLarge));
    assert_eq!(append(&mut log, Partition { topic: T, number: 2 }, ""), Err(NotTaken::NoSuchPartition));
    assert_eq!(append(&mut log, Partition { topic: TopicIndex(7), number: 0 }, ""), Err(NotTaken::NoSuchPartition));
    assert_eq!(append(&mut log, P0, &large[..900]), Ok(()));
    assert_eq!(append(&mut log, P0, &large[..900]), Ok(()));
    assert_eq!(append(&mut log, P0, &large[..900]), Err(NotTaken::Full));
    assert!(!log.has_room(id));
    log.advance(0);
    assert!(log.has_room(id));
    assert_eq!(append(&mut log, P0, &large[..900]), Ok(()));
    log.close(id);
    assert_eq!(append(&mut log, P0, ""), Err(NotTaken::Closed));
    log.advance(0);
    assert_eq!(acks(&mut log, id).iter().map(|acked| acked.tickets.len()).sum::<usize>(), 3);
    assert!(log.is_settled(id));
}

#[test]
fn room_is_back_when_half_of_the_budget_is() {
    let limits = Limits { record_bytes_max: 1000, append_bytes_max: 10_000, group_bytes: 1, ..Limits::default() };
    let plan = FaultPlan { append_delay_ms_max: 3, ..FaultPlan::default() };
    let (mut log, id) = log_with(plan, limits, &[]);
    let value = "x".repeat(500);
    while log.append(id, ticket(0), P0, &record("k", Some(&value))) != Err(NotTaken::Full) {}
    let mut without = 0;
    while let Some(due_ms) = log.next_due_ms() {
        let is_half_free = log.health(id).pending_bytes <= 5000;
        assert_eq!(log.has_room(id), is_half_free);
        without += usize::from(!is_half_free);
        log.advance(due_ms);
    }
    assert!(without > 3 && log.has_room(id));
}

#[test]
fn what_the_topic_does_not_take_is_refused_alone() {
    let (mut log, id) = log_with(
        FaultPlan::default(),
        Limits::default(),
        &[("cleanup.policy", "compact"), ("max.message.bytes", "500")],
    );
    put(&mut log, id, 0, P0, "a");
    log.append(id, ticket(1), P0, &RecordRef { key: None, ..record("", Some("")) }).unwrap();
    log.append(id, ticket(2), P0, &record("b", Some(&"x".repeat(500)))).unwrap();
    put(&mut log, id, 3, P0, "c");
    log.advance(0);
    let outcomes: Vec<_> = acks(&mut log, id).into_iter().map(|acked| (acked.outcome, acked.tickets)).collect();
    let expected = [
        (Outcome::Written(Offset(0)), vec![ticket(0)]),
        (Outcome::Refused(Refusal::Invalid), vec![ticket(1)]),
        (Outcome::Refused(Refusal::TooLarge), vec![ticket(2)]),
        (Outcome::Written(Offset(1)), vec![ticket(3)]),
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn a_tail_sees_what_is_written_from_where_it_follows() {
    let (mut log, id) = quiet();
    let tail = log.open_tail(id, Isolation::ReadCommitted);
    for sequence in 0..4 {
        put(&mut log, id, sequence, P0, "k");
    }
    log.advance(0);
    log.follow(tail, P0, Offset(2));
    assert_eq!(log.poll_woken(), Some(tail));
    let seen = events(&mut log, tail);
    assert_eq!(batch_rows(&seen).iter().map(|row| row.0).collect::<Vec<_>>(), [2, 3]);
    assert!(events(&mut log, tail).is_empty() && log.poll_woken().is_none());

    put(&mut log, id, 4, P0, "k");
    log.advance(0);
    assert_eq!(log.poll_woken(), Some(tail));
    assert_eq!(batch_rows(&events(&mut log, tail))[0].0, 4);
    log.unfollow(tail, P0);
    put(&mut log, id, 5, P0, "k");
    log.advance(0);
    assert!(events(&mut log, tail).is_empty() && log.poll_woken().is_none());
}

#[test]
fn a_tail_of_nothing_learns_the_ends_and_one_of_no_partition_a_gap() {
    let (mut log, id) = quiet();
    let tail = log.open_tail(id, Isolation::ReadCommitted);
    log.follow(tail, P0, Offset(0));
    log.follow(tail, Partition { topic: T, number: 9 }, Offset(0));
    let seen = events(&mut log, tail);
    assert!(matches!(&seen[0], TailEvent::Gap { partition, .. } if partition.number == 9));
    assert!(
        matches!(&seen[1], TailEvent::Progress { partition: P0, next: Offset(0), ends } if ends.high_watermark == Offset(0))
    );
    assert_eq!(seen.len(), 2);
}

#[test]
fn append_time_is_the_logs_where_the_topic_wants_it() {
    let (mut log, id) =
        log_with(FaultPlan::default(), Limits::default(), &[("message.timestamp.type", "LogAppendTime")]);
    put(&mut log, id, 0, P0, "k");
    log.advance(77);
    let answer = log.read(id, P0, Offset(0), 1, Isolation::ReadCommitted).unwrap();
    assert_eq!(answer.batches[0].iter().next().unwrap().timestamp_ms, 77);
    assert_eq!(answer.batches[0].producer_id, log.producer_id(id));
}

#[test]
fn a_read_outside_of_the_log_is_refused() {
    let (mut log, id) = quiet();
    put(&mut log, id, 0, P0, "k");
    log.advance(0);
    log.delete_before("t", 0, Offset(1));
    for (from, is_there) in [(0, false), (1, true), (2, false)] {
        let answer = log.read(id, P0, Offset(from), 1, Isolation::ReadUncommitted);
        assert_eq!(answer.is_ok(), is_there, "{from}");
        assert!(is_there || matches!(answer, Err(JournalError::Refused { .. })));
    }
}

#[test]
fn memory_is_bounded_by_dropping_the_oldest() {
    let limits = Limits { stored_bytes_max: 100_000, ..Limits::default() };
    let (mut log, id) = log_with(FaultPlan::default(), limits, &[]);
    let tail = log.open_tail(id, Isolation::ReadCommitted);
    log.follow(tail, P0, Offset(0));
    let value = "x".repeat(1000);
    for sequence in 0..1000 {
        let partition = if sequence % 5 == 0 { P1 } else { P0 };
        log.append(id, ticket(sequence), partition, &record("k", Some(&value))).unwrap();
        log.advance(0);
        assert!(log.droppable_bytes <= 100_000 + 2000);
    }
    assert_eq!(acks(&mut log, id).len(), 1000);
    let ends = log.ends(id, &[P0, P1]).unwrap();
    assert_eq!((ends[0].high_watermark, ends[1].high_watermark), (Offset(800), Offset(200)));
    assert!(ends[0].log_start > Offset(700) && ends[0].log_start < Offset(800));
    let seen = events(&mut log, tail);
    assert!(
        matches!(seen[..], [TailEvent::BelowLogStart { partition: P0, position: Offset(0), log_start }] if log_start == ends[0].log_start)
    );
}
