//! Scripted faults: what is told is true, and the same seed tells the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;

fn always(what: impl Fn(&mut FaultPlan)) -> FaultPlan {
    let mut plan = FaultPlan { seed: 3, late_ms_max: 1000, ..FaultPlan::default() };
    what(&mut plan);
    plan
}

#[test]
fn unknown_is_sometimes_there_and_sometimes_not() {
    for (plan, at_once, later) in [
        (always(|plan| plan.unknown_landed_permille = 1000), 1, 1),
        (always(|plan| plan.unknown_lost_permille = 1000), 0, 0),
        (always(|plan| plan.unknown_late_permille = 1000), 0, 1),
    ] {
        let (mut log, id) = log_with(plan, Limits::default(), &[]);
        put(&mut log, id, 0, P0, "k");
        log.advance(0);
        assert_eq!(acks(&mut log, id)[0].outcome, Outcome::Unknown);
        assert!(log.is_settled(id));
        assert_eq!(keys(&log, id, P0).len(), at_once);
        log.advance(5000);
        assert_eq!(keys(&log, id, P0).len(), later);
        assert!(acks(&mut log, id).is_empty(), "one outcome, whatever comes");
    }
}

#[test]
fn a_fence_stops_what_would_land_late() {
    for fence in [false, true] {
        let (mut log, id) = log_with(always(|plan| plan.unknown_late_permille = 1000), Limits::default(), &[]);
        put(&mut log, id, 0, P0, "k");
        log.advance(0);
        log.crash(id);
        if fence {
            log.fence(log.producer_id(id), "t", 0, FenceForm::Marker);
        }
        log.advance(5000);
        assert_eq!(keys(&log, id, P0).len(), usize::from(!fence));
    }
}

#[test]
fn a_late_group_never_lands_behind_a_later_one_of_its_incarnation() {
    let mut both = 0;
    for seed in 0..40 {
        let plan = always(|plan| {
            plan.seed = seed;
            plan.unknown_late_permille = 1000;
        });
        let (mut log, id) = log_with(plan, Limits::default(), &[]);
        put(&mut log, id, 0, P0, "first");
        log.advance(0);
        log.set_faults(FaultPlan::default());
        put(&mut log, id, 1, P0, "second");
        log.advance(0);
        log.advance(5000);
        match &keys(&log, id, P0)[..] {
            [second] if second == "second" => {}
            [first, second] if first == "first" && second == "second" => both += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((5..35).contains(&both), "a coin decides: {both}");
}

#[test]
fn what_a_crash_left_under_way_may_land_or_not() {
    let mut landed = 0;
    for seed in 0..40 {
        let plan = FaultPlan { seed, append_delay_ms_max: 1000, late_ms_max: 1000, ..FaultPlan::default() };
        let (mut log, id) = log_with(plan, Limits::default(), &[]);
        put(&mut log, id, 0, P0, "under way");
        log.advance(0);
        put(&mut log, id, 1, P0, "not sent");
        log.crash(id);
        log.advance(5000);
        assert!(log.poll_acks(id).is_none());
        assert_eq!(log.append(id, ticket(2), P0, &record("k", None)), Err(NotTaken::Closed));
        let keys = keys(&log, id, P0);
        assert!(keys.is_empty() || keys == ["under way"]);
        landed += keys.len();
    }
    assert!((5..35).contains(&landed), "a coin decides: {landed}");
}

#[test]
fn duplicates_gaps_and_silence_come_when_asked_for() {
    let (mut log, id) = log_with(always(|plan| plan.duplicated_permille = 1000), Limits::default(), &[]);
    put(&mut log, id, 0, P0, "k");
    log.advance(0);
    assert_eq!((keys(&log, id, P0).len(), acks(&mut log, id).len()), (2, 1));

    log.set_faults(always(|plan| plan.tail_gap_permille = 1000));
    let tail = log.open_tail(id, Isolation::ReadUncommitted);
    log.follow(tail, P0, Offset(0));
    assert!(matches!(events(&mut log, tail)[..], [TailEvent::Gap { partition: P0, .. }]));

    log.set_faults(always(|plan| (plan.tail_delay_permille, plan.tail_delay_ms_max) = (1000, 100)));
    log.follow(tail, P0, Offset(0));
    let mut seen = 0;
    while log.poll_tail(tail).is_some() || log.next_due_ms().is_some() {
        seen += 1;
        if let Some(due_ms) = log.next_due_ms() {
            log.advance(due_ms);
        }
        assert!(seen < 100);
    }
    assert!(seen >= 2);
    log.set_faults(always(|plan| plan.unanswered_permille = 1000));
    assert!(matches!(log.may_answer("anything"), Err(JournalError::Unavailable { .. })));
}

/// A run of two incarnations and a tail each over a troubled log; everything that is told goes into the trace.
#[derive(Default)]
struct Run {
    trace: String,
    told: BTreeMap<Ticket, Outcome>,
    tailed: Vec<Vec<(Partition, i64, String)>>,
}

impl Run {
    fn of(seed: u64, appends: u64) -> (Self, MemoryLog, IncarnationId) {
        let (mut log, first) = log_with(FaultPlan::troubled(seed), Limits::default(), &[]);
        let ids = [first, log.open(vec!["t".into()])];
        let tails = ids.map(|id| log.open_tail(id, Isolation::ReadUncommitted));
        let mut run = Self { tailed: vec![vec![]; 2], ..Self::default() };
        for (tail, partition) in [(0, P0), (0, P1), (1, P0), (1, P1)] {
            log.follow(tails[tail], partition, Offset(0));
        }
        let mut dice = Dice::new(!seed);
        let mut now_ms = 0;
        for sequence in 0..appends {
            if sequence == appends / 3 {
                log.cut_off(ids[1]);
            } else if sequence == appends / 2 {
                log.reconnect(ids[1]);
            }
            let (who, partition) = (usize::from(dice.coin()), if dice.coin() { P0 } else { P1 });
            let ticket = Ticket { owner: who as u64, sequence };
            let value = sequence.to_string();
            log.append(ids[who], ticket, partition, &record("k", Some(&value))).unwrap();
            now_ms += i64::from(dice.up_to(10));
            run.step(&mut log, now_ms, ids, tails);
        }
        while let Some(due_ms) = log.next_due_ms() {
            run.step(&mut log, due_ms, ids, tails);
        }
        assert!(ids.iter().all(|&id| log.is_settled(id)));
        (run, log, first)
    }

    fn step(&mut self, log: &mut MemoryLog, now_ms: i64, ids: [IncarnationId; 2], tails: [TailId; 2]) {
        log.advance(now_ms);
        for id in ids {
            for acked in acks(log, id) {
                writeln!(self.trace, "{now_ms} {id:?} {acked:?}").unwrap();
                for (index, ticket) in (0..).zip(acked.tickets) {
                    let outcome = match acked.outcome {
                        Outcome::Written(first) => Outcome::Written(Offset(first.0 + index)),
                        other @ (Outcome::Refused(_) | Outcome::Unknown) => other,
                    };
                    assert_eq!(self.told.insert(ticket, outcome), None, "a second outcome for {ticket:?}");
                }
            }
        }
        for (tail, seen) in tails.into_iter().zip(&mut self.tailed) {
            for event in events(log, tail) {
                writeln!(self.trace, "{now_ms} {tail:?} {event:?}").unwrap();
                if let TailEvent::Batch(batch) = event {
                    seen.extend(rows(&batch).into_iter().map(|row| (batch.partition, row.0, row.2)));
                }
            }
        }
    }
}

#[test]
fn every_outcome_is_true_and_every_tail_sees_the_log() {
    for seed in 0..60 {
        let (run, log, id) = Run::of(seed, 200);
        assert_eq!(run.told.len(), 200);
        let mut places = BTreeMap::new();
        for partition in [P0, P1] {
            let mut last = BTreeMap::new();
            for (offset, _, value) in contents(&log, id, partition, Isolation::ReadCommitted) {
                let sequence: u64 = value.parse().unwrap();
                assert_eq!(places.insert(sequence, offset), None, "seed {seed}: {sequence} is there twice");
                let owner = run.told.keys().find(|ticket| ticket.sequence == sequence).unwrap().owner;
                assert!(last.insert(owner, sequence).is_none_or(|before| before < sequence), "seed {seed}: order");
            }
        }
        for (ticket, outcome) in &run.told {
            match (outcome, places.get(&ticket.sequence)) {
                (Outcome::Written(told), Some(offset)) => assert_eq!(told.0, *offset, "seed {seed}"),
                (Outcome::Refused(_), None) | (Outcome::Unknown, _) => {}
                other => panic!("seed {seed}: {ticket:?} {other:?}"),
            }
        }
        for seen in &run.tailed {
            let mut seen: Vec<_> = seen.iter().filter(|(_, _, value)| value != "junk").cloned().collect();
            seen.sort_unstable();
            let of = |partition| {
                let rows = contents(&log, id, partition, Isolation::ReadCommitted);
                rows.into_iter().map(move |(offset, _, value)| (partition, offset, value))
            };
            assert_eq!(seen, of(P0).chain(of(P1)).collect::<Vec<_>>(), "seed {seed}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run_byte_for_byte() {
    let (first, again, other) = (Run::of(5, 300).0.trace, Run::of(5, 300).0.trace, Run::of(6, 300).0.trace);
    assert!(first.len() > 10_000);
    assert!(first == again, "two runs of one seed differ");
    assert!(first != other, "the seed decides nothing");
}
