//! Incarnations that are cut off: stopped processes, failed networks.

use super::*;

const HOUR_MS: i64 = 3_600_000;

fn outcomes(log: &mut MemoryLog, id: IncarnationId) -> Vec<Outcome> {
    acks(log, id).into_iter().map(|acked| acked.outcome).collect()
}

/// Lets time pass until nothing is under way any more.
fn quiet(log: &mut MemoryLog) {
    while let Some(due_ms) = log.next_due_ms() {
        log.advance(due_ms);
    }
}

fn delays(seed: u64) -> FaultPlan {
    FaultPlan { seed, append_delay_ms_max: 50, ack_delay_ms_max: 50, ..FaultPlan::default() }
}

#[test]
fn nothing_passes_while_it_is_cut_off_and_everything_after() {
    let mut arrived = 0;
    for seed in 0..40 {
        let (mut log, id) = log_with(delays(seed), Limits::default(), &[]);
        let other = log.open(vec!["t".into()]);
        let tail = log.open_tail(id, Isolation::ReadUncommitted);
        log.follow(tail, P0, Offset(0));
        put(&mut log, id, 0, P0, "under way");
        log.advance(0);
        put(&mut log, id, 1, P0, "queued");
        log.cut_off(id);
        log.cut_off(id);
        put(&mut log, id, 2, P1, "taken meanwhile");
        log.advance(HOUR_MS);
        put(&mut log, other, 3, P0, "somebody else");
        quiet(&mut log);
        log.advance(2 * HOUR_MS);
        assert_eq!(log.next_due_ms(), None, "nobody has to look at it");
        assert!(outcomes(&mut log, id).is_empty() && events(&mut log, tail).is_empty());
        assert!(matches!(log.may_answer_to(id, "a question"), Err(JournalError::Unavailable { .. })));
        assert!(log.may_answer_to(other, "a question").is_ok());
        assert_eq!(log.health(id).silent_for, Some(std::time::Duration::from_millis(2 * HOUR_MS.unsigned_abs())));
        let before = keys(&log, id, P0);
        assert!(before == ["somebody else"] || before == ["under way", "somebody else"], "{before:?}");
        arrived += before.len() - 1;
        assert!(keys(&log, id, P1).is_empty());

        log.reconnect(id);
        log.reconnect(id);
        quiet(&mut log);
        assert_eq!(outcomes(&mut log, id).len(), 3);
        assert_eq!(log.health(id).pending_bytes, 0);
        let after = keys(&log, id, P0);
        assert_eq!(after.len(), 3);
        let place = |key: &str| after.iter().position(|other| other == key);
        assert!(place("under way") < place("queued"), "order holds: {after:?}");
        assert_eq!(batch_rows(&events(&mut log, tail)).len(), 3, "the tail goes on where it was");
        assert_eq!(log.health(id).silent_for, Some(std::time::Duration::ZERO));
    }
    assert!((5..35).contains(&arrived), "a coin decides what gets through: {arrived}");
}

#[test]
fn what_is_held_does_not_land_after_a_fence() {
    let mut held = 0;
    for seed in 0..40 {
        let (mut log, id) = log_with(delays(seed), Limits::default(), &[]);
        let keeper = log.open(vec!["t".into()]);
        put(&mut log, id, 0, P0, "under way");
        log.advance(0);
        put(&mut log, id, 1, P0, "queued");
        log.cut_off(id);
        log.advance(HOUR_MS);
        log.fence_partition(keeper, log.producer_id(id), P0).unwrap();
        let end = log.ends(keeper, &[P0]).unwrap()[0].high_watermark;
        log.reconnect(id);
        quiet(&mut log);
        assert_eq!(log.ends(keeper, &[P0]).unwrap()[0].high_watermark, end, "the ends were final");
        let fenced = Outcome::Refused(Refusal::Fenced);
        let seen = outcomes(&mut log, id);
        if keys(&log, keeper, P0).is_empty() {
            assert_eq!(seen, [fenced, fenced]);
            held += 1;
        } else {
            assert_eq!(seen, [Outcome::Written(Offset(0)), fenced], "it learns that the first one got through");
        }
        assert!(log.health(id).fenced);
    }
    assert!((5..35).contains(&held), "{held}");
}

#[test]
fn without_delays_too_something_may_be_under_way() {
    let mut under_way = 0;
    for seed in 0..40 {
        let plan = FaultPlan { seed, append_deadline_ms: 1000, late_ms_max: 500, ..FaultPlan::default() };
        let (mut log, id) = log_with(plan, Limits::default(), &[]);
        put(&mut log, id, 0, P0, "k");
        log.cut_off(id);
        log.advance(999);
        assert!(outcomes(&mut log, id).is_empty());
        log.advance(5000);
        let told = outcomes(&mut log, id);
        match told[..] {
            [Outcome::Unknown] => under_way += 1,
            [Outcome::Refused(Refusal::Deadline)] => assert!(keys(&log, id, P0).is_empty()),
            _ => panic!("{told:?}"),
        }
        assert_eq!(keys(&log, id, P0).len(), usize::from(told == [Outcome::Unknown]), "it lies somewhere on its way");
    }
    assert!((5..35).contains(&under_way), "{under_way}");
}

#[test]
fn every_append_has_one_outcome_in_time_however_long_it_is_cut_off() {
    for seed in 0..40 {
        let plan = FaultPlan { append_deadline_ms: 1000, ..FaultPlan::troubled(seed) };
        let (mut log, id) = log_with(plan, Limits::default(), &[]);
        put(&mut log, id, 0, P0, "before");
        log.advance(5);
        put(&mut log, id, 1, P0, "before");
        log.cut_off(id);
        for sequence in 2..20 {
            let now_ms = i64::try_from(sequence).unwrap() * 300;
            put(&mut log, id, sequence, if sequence % 2 == 0 { P0 } else { P1 }, "during");
            log.advance(now_ms);
        }
        log.advance(19 * 300 + 1100);
        let told: usize = acks(&mut log, id).iter().map(|acked| acked.tickets.len()).sum();
        assert_eq!((told, log.health(id).pending_bytes), (20, 0));
        log.reconnect(id);
        put(&mut log, id, 20, P0, "after");
        quiet(&mut log);
        assert_eq!(acks(&mut log, id).len(), 1);
    }
}

#[test]
fn a_crash_while_cut_off_leaves_what_may_land_until_fenced() {
    let mut landed = 0;
    for seed in 0..40 {
        let (mut log, id) = log_with(FaultPlan { late_ms_max: 100, ..delays(seed) }, Limits::default(), &[]);
        put(&mut log, id, 0, P0, "k");
        put(&mut log, id, 1, P1, "k");
        log.advance(0);
        log.cut_off(id);
        log.advance(HOUR_MS);
        log.crash(id);
        assert!(!log.is_cut_off(id));
        log.fence(log.producer_id(id), "t", 0, FenceForm::Marker);
        let fenced = keys(&log, id, P0);
        log.advance(2 * HOUR_MS);
        assert_eq!(keys(&log, id, P0), fenced);
        landed += keys(&log, id, P1).len();
    }
    assert!((5..40).contains(&landed), "{landed}");
}

#[test]
fn several_of_unknown_fate_land_in_their_order() {
    let mut both = 0;
    for seed in 0..60 {
        let plan = FaultPlan { seed, unknown_late_permille: 1000, late_ms_max: 100, ..FaultPlan::default() };
        let (mut log, id) = log_with(plan, Limits::default(), &[]);
        for sequence in 0..2 {
            put(&mut log, id, sequence, P0, &sequence.to_string());
            log.advance(0);
        }
        log.advance(HOUR_MS);
        match &keys(&log, id, P0)[..] {
            [second] if second == "1" => {}
            [first, second] if first == "0" && second == "1" => both += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((5..55).contains(&both), "{both}");
}

#[test]
fn what_was_under_way_may_land_in_the_kafka_topic_that_was_created_anew() {
    let plan = FaultPlan { seed: 1, unknown_late_permille: 1000, late_ms_max: 100, ..FaultPlan::default() };
    let (mut log, id) = log_with(plan, Limits::default(), &[]);
    put(&mut log, id, 0, P0, "k");
    log.advance(0);
    let before = log.topic_id(id, T);
    log.fence(log.producer_id(id), "t", 0, FenceForm::Marker);
    log.recreate_topic("t");
    assert!(before.is_some() && log.topic_id(id, T) != before);
    log.advance(HOUR_MS);
    assert_eq!(keys(&log, id, P0), ["k"], "Kafka is told names, and the new one knows nothing of the fence");
    log.delete_topic("t");
    assert_eq!(log.topic_id(id, T), None);
}
