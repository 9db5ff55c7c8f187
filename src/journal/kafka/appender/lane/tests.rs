//! A lane against a partition leader that follows Kafka's rules for producers, with everything between them going wrong.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use kafka_protocol::messages::produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse};

use super::*;
use crate::clock;
use crate::journal::TopicIndex;
use crate::journal::kafka::records::BatchHeader;
use crate::journal::kafka::wire::code;

const PRODUCER: i64 = 7;
const BATCH_BYTES_MAX: usize = 2_000;
/// A value of this length is larger than the kafka topic allows.
const LARGE: usize = 900;
const TOPIC_BYTES_MAX: usize = 800;
/// So ends a record that the leader finds invalid.
const INVALID: &[u8] = b"\xff!";

/// A batch in the leader's log.
#[derive(Clone, Debug)]
struct Kept {
    epoch: i16,
    first: i32,
    last: i32,
    offset: i64,
    records: Vec<u64>,
}

/// A leader with one producer.
#[derive(Default)]
struct Leader {
    log: Vec<Kept>,
    /// How many of its last batches it remembers for this producer: five at most, one after a restart.
    remembered: usize,
    fence: Option<i16>,
    names_invalid_records: bool,
}

fn answer(error: i16, offset: i64) -> PartitionProduceResponse {
    PartitionProduceResponse::default().with_error_code(error).with_base_offset(offset)
}

impl Leader {
    fn end(&self) -> i64 {
        self.log.last().map_or(0, |kept| kept.offset + i64::try_from(kept.records.len()).unwrap())
    }

    fn take(&mut self, bytes: &Bytes) -> PartitionProduceResponse {
        let header = BatchHeader::parse(bytes).unwrap();
        let raw = BatchWalk::new(bytes.clone()).next().unwrap().unwrap();
        let batch = raw.open(Partition { topic: TopicIndex(0), number: 0 }, Offset(0), usize::MAX).unwrap();
        let values: Vec<&[u8]> = batch.iter().map(|record| record.value().unwrap()).collect();
        if bytes.len() > TOPIC_BYTES_MAX {
            return answer(code::MESSAGE_TOO_LARGE, -1);
        }
        let invalid = values.iter().enumerate().filter(|(_, value)| value.ends_with(INVALID));
        let invalid: Vec<usize> = invalid.map(|(index, _)| index).collect();
        if !invalid.is_empty() {
            let named = invalid
                .into_iter()
                .take(usize::from(self.names_invalid_records) * 100)
                .map(|index| BatchIndexAndErrorMessage::default().with_batch_index(i32::try_from(index).unwrap()));
            return answer(code::INVALID_RECORD, -1).with_record_errors(named.collect());
        }
        let (epoch, first) = (header.producer_epoch, header.base_sequence);
        let last = first + header.last_offset_delta;
        if let Some(answered) = self.answered_without_append(epoch, first, last) {
            return answered;
        }
        let records = values.iter().map(|value| u64::from_be_bytes(value[..8].try_into().unwrap())).collect();
        let offset = self.end();
        self.log.push(Kept { epoch, first, last, offset, records });
        self.remembered = (self.remembered + 1).min(5);
        answer(code::NONE, offset)
    }

    fn answered_without_append(&self, epoch: i16, first: i32, last: i32) -> Option<PartitionProduceResponse> {
        if self.fence.is_some_and(|fence| epoch < fence) {
            return Some(answer(code::INVALID_PRODUCER_EPOCH, -1));
        }
        let newest = self.log.last()?;
        if epoch < newest.epoch {
            return Some(answer(code::INVALID_PRODUCER_EPOCH, -1));
        }
        let mut remembered = self.log.iter().rev().take(self.remembered);
        if let Some(same) = remembered.find(|kept| (kept.epoch, kept.first, kept.last) == (epoch, first, last)) {
            return Some(answer(code::NONE, same.offset));
        }
        let expected = if epoch > newest.epoch { 0 } else { newest.last + 1 };
        (first != expected).then(|| answer(code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1))
    }
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

struct World {
    dice: Dice,
    lane: Lane,
    leader: Leader,
    /// Requests whose senders gave them up, and that may still arrive.
    adrift: Vec<Bytes>,
    in_flight: Option<Bytes>,
    appended: u64,
    outcomes: BTreeMap<u64, Outcome>,
    /// Acknowledged records that the leader lost.
    lost_by_kafka: Vec<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let stamp = Stamp {
            producer_id: PRODUCER,
            compression: if seed.is_multiple_of(3) { Compression::Lz4 } else { Compression::None },
            batch_bytes_max: BATCH_BYTES_MAX,
        };
        let partition = Partition { topic: TopicIndex(0), number: 0 };
        let lane = Lane::new(Arc::new(Slot::new(partition, 0, BATCH_BYTES_MAX, BATCH_BYTES_MAX / 2)), stamp);
        Self {
            dice: Dice(seed),
            lane,
            leader: Leader { names_invalid_records: seed.is_multiple_of(2), ..Leader::default() },
            adrift: Vec::new(),
            in_flight: None,
            appended: 0,
            outcomes: BTreeMap::new(),
            lost_by_kafka: Vec::new(),
        }
    }

    fn append(&mut self) {
        let mut value = self.appended.to_be_bytes().to_vec();
        match self.dice.below(30) {
            0 => value.resize(LARGE, b'.'),
            1 => value.extend_from_slice(INVALID),
            more => value.resize(8 + usize::try_from(more).unwrap() * 4, b'.'),
        }
        let record = RecordRef { key: None, value: Some(&value), headers: &[], timestamp_ms: 5 };
        let ticket = Ticket { owner: 1, sequence: self.appended };
        self.lane.slot.put(&record, ticket, || false, &AtomicUsize::new(0)).unwrap();
        self.appended += 1;
    }

    fn send(&mut self) {
        if self.in_flight.is_none() && self.lane.phase != Phase::InFlight {
            self.in_flight = self.lane.stage();
            if self.in_flight.is_some() {
                self.lane.on_sent();
            }
        }
    }

    fn hear(&mut self, verdict: Verdict) {
        let mut settled = Vec::new();
        self.lane.on_verdict(verdict, clock::now(), &mut settled);
        self.note(settled);
    }

    fn note(&mut self, settled: Vec<Settled>) {
        for Settled { outcome, tickets, .. } in settled {
            for (index, ticket) in (0..).zip(tickets) {
                let outcome = match outcome {
                    Outcome::Written(first) => Outcome::Written(Offset(first.0 + index)),
                    Outcome::Refused(_) | Outcome::Unknown => outcome,
                };
                assert_eq!(self.outcomes.insert(ticket.sequence, outcome), None, "two outcomes for {ticket:?}");
            }
        }
    }

    fn answer_in_some_way(&mut self) {
        let Some(bytes) = self.in_flight.take() else { return };
        let verdict = match self.dice.below(10) {
            0 => {
                self.leader.take(&bytes);
                Verdict::lost(true)
            }
            1 => {
                self.adrift.push(bytes);
                Verdict::lost(true)
            }
            2 => Verdict::lost(false),
            3 => Verdict::of(&answer([6, 3, 19, 56, 7, 2][usize::try_from(self.dice.below(6)).unwrap()], -1)),
            4 => {
                // The leader appends and loses its office: but only if it would have appended.
                let taken = self.leader.take(&bytes);
                let error = [6, 7, 20, 56][usize::try_from(self.dice.below(4)).unwrap()];
                Verdict::of(&if taken.error_code == code::NONE { answer(error, taken.base_offset) } else { taken })
            }
            _ => Verdict::of(&self.leader.take(&bytes)),
        };
        self.hear(verdict);
    }

    fn step(&mut self) {
        match self.dice.below(24) {
            0..6 => (0..=self.dice.below(5)).for_each(|_| self.append()),
            6..12 => self.send(),
            12..19 => self.answer_in_some_way(),
            19 if !self.adrift.is_empty() => {
                let which = usize::try_from(self.dice.below(self.adrift.len() as u64)).unwrap();
                let bytes = self.adrift.swap_remove(which);
                self.leader.take(&bytes);
            }
            20 => self.leader.remembered = self.leader.remembered.min(1),
            21 if self.dice.below(6) == 0 => {
                let mut settled = Vec::new();
                self.lane.expire(clock::now(), Refusal::Deadline, &mut settled);
                self.note(settled);
            }
            22 if self.dice.below(12) == 0 => {
                // An unclean election: the new leader's log is shorter.
                if let Some(kept) = self.leader.log.pop() {
                    self.lost_by_kafka.extend(kept.records);
                    self.leader.remembered = self.leader.remembered.saturating_sub(1).max(1);
                }
            }
            _ => {}
        }
    }

    /// Everything works again; what is adrift arrives last.
    fn heal(&mut self) {
        for _ in 0..10_000 {
            if self.in_flight.is_none() {
                if !self.lane.has_more() {
                    break;
                }
                self.send();
            }
            if let Some(bytes) = self.in_flight.take() {
                let verdict = Verdict::of(&self.leader.take(&bytes));
                self.hear(verdict);
            }
        }
        for bytes in std::mem::take(&mut self.adrift) {
            self.leader.take(&bytes);
        }
    }

    fn check(&self) {
        let mut found = BTreeMap::new();
        let mut before = None;
        for kept in &self.leader.log {
            for (index, record) in (0..).zip(&kept.records) {
                assert_eq!(found.insert(*record, kept.offset + index), None, "{record} is in the log twice");
                assert!(before < Some(*record), "{record} is out of order");
                before = Some(*record);
            }
        }
        assert_eq!(self.outcomes.len() as u64, self.appended, "some appends have no outcome");
        for (record, outcome) in &self.outcomes {
            match outcome {
                Outcome::Written(offset) => {
                    let kept = found.get(record) == Some(&offset.0);
                    assert!(kept || self.lost_by_kafka.contains(record), "{record} was written and is not there");
                }
                Outcome::Refused(why) => assert_eq!(found.get(record), None, "{record} was refused: {why:?}"),
                Outcome::Unknown => {}
            }
        }
    }
}

#[test]
fn no_outcome_is_ever_false_and_nothing_is_written_twice() {
    let mut counts = [0_u64; 3];
    for seed in 0..400 {
        let mut world = World::new(seed);
        (0..300).for_each(|_| world.step());
        world.heal();
        world.check();
        for outcome in world.outcomes.values() {
            match outcome {
                Outcome::Written(_) => counts[0] += 1,
                Outcome::Refused(_) => counts[1] += 1,
                Outcome::Unknown => counts[2] += 1,
            }
        }
    }
    // The test is of no use if one of them hardly occurs.
    assert!(counts.iter().all(|count| *count > 500), "{counts:?}");
}

#[test]
fn after_a_fence_nothing_lands_and_nothing_is_acknowledged() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        (0..200).for_each(|_| world.step());
        world.leader.fence = Some(i16::MAX - 1);
        let end = world.leader.end();
        let written =
            |world: &World| world.outcomes.values().filter(|outcome| matches!(outcome, Outcome::Written(_))).count();
        let acknowledged = written(&world);
        world.heal();
        world.check();
        assert_eq!((world.leader.end(), written(&world)), (end, acknowledged));
    }
}

#[test]
fn only_the_culprit_is_refused_when_the_leader_names_none() {
    let mut world = World::new(1);
    world.leader.names_invalid_records = false;
    for record in 0..40_u64 {
        let mut value = record.to_be_bytes().to_vec();
        if record == 23 {
            value.extend_from_slice(INVALID);
        }
        let record_ref = RecordRef { key: None, value: Some(&value), headers: &[], timestamp_ms: 5 };
        let ticket = Ticket { owner: 1, sequence: record };
        world.lane.slot.put(&record_ref, ticket, || false, &AtomicUsize::new(0)).unwrap();
        world.appended += 1;
    }
    world.heal();
    world.check();
    let refused: Vec<u64> = world
        .outcomes
        .iter()
        .filter(|(_, outcome)| **outcome == Outcome::Refused(Refusal::Invalid))
        .map(|(record, _)| *record)
        .collect();
    assert_eq!(refused, [23]);
}

#[test]
fn the_budget_that_was_taken_is_given_back() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        let pending = AtomicUsize::new(0);
        for record in 0..60_u64 {
            let mut value = record.to_be_bytes().to_vec();
            if record % 7 == 3 {
                value.extend_from_slice(INVALID);
            }
            let record_ref = RecordRef { key: None, value: Some(&value), headers: &[], timestamp_ms: 5 };
            let ticket = Ticket { owner: 1, sequence: record };
            world.lane.slot.put(&record_ref, ticket, || false, &pending).unwrap();
        }
        let mut settled = Vec::new();
        while world.lane.has_more() {
            let bytes = world.lane.stage().unwrap();
            world.lane.on_sent();
            let verdict = Verdict::of(&world.leader.take(&bytes));
            world.lane.on_verdict(verdict, clock::now(), &mut settled);
        }
        let given_back: usize = settled.iter().map(|settled| settled.budget_bytes).sum();
        assert_eq!(given_back, pending.into_inner());
    }
}

#[test]
fn sequence_numbers_go_on_at_zero_after_the_largest() {
    let mut world = World::new(1);
    world.lane.sequence = i32::MAX - 1;
    for _ in 0..2 {
        for _ in 0..3 {
            world.append_plain();
        }
        let bytes = world.lane.stage().unwrap();
        world.lane.on_sent();
        let first = BatchHeader::parse(&bytes).unwrap().base_sequence;
        assert!(first == i32::MAX - 1 || first == 1, "{first}");
        world.hear(Verdict::Written(Offset(0)));
    }
    assert_eq!(world.lane.sequence, 4);
}

impl World {
    fn append_plain(&mut self) {
        let value = self.appended.to_be_bytes();
        let record = RecordRef { key: None, value: Some(&value), headers: &[], timestamp_ms: 5 };
        let ticket = Ticket { owner: 1, sequence: self.appended };
        self.lane.slot.put(&record, ticket, || false, &AtomicUsize::new(0)).unwrap();
        self.appended += 1;
    }
}
