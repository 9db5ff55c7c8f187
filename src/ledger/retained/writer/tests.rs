use proptest::prelude::*;

use super::*;
use crate::ledger::ids::{Origin, Place};
use crate::ledger::retained::store::Record;
use crate::ledger::retained::store::tests::message;

const HERE: Place = Place { topic: 1, partition: 0 };
const TOPIC: &str = "a";

fn ranked(offset: i64) -> Rank {
    Rank { era: 0, source: Some(Origin { place: HERE, offset }), foreign: 0 }
}

fn obligation(offset: i64, tick: u32) -> Obligation {
    let message = Some(message(TOPIC, &offset.to_string()));
    Obligation { rank: ranked(offset), message, must_be_last: false, tick }
}

/// A partition of `mqtt.retained`, and one node's writer on it.
struct Node {
    store: Store,
    writer: Writer,
    end: i64,
}

impl Node {
    fn new(rules: Rules) -> Self {
        Self { store: Store::new(rules, 1), writer: Writer::new(rules), end: 0 }
    }

    fn owe(&mut self, offset: i64, tick: u32) {
        self.writer.owe(&self.store, TOPIC, obligation(offset, tick));
    }

    fn poll(&mut self) -> Option<Write> {
        self.writer.poll(&self.store)
    }

    /// A record lands and is read at once; its offset.
    fn lands(&mut self, rank: Rank, message: Option<Message>) -> i64 {
        self.end += 1;
        let record = Record { offset: self.end, append_ms: 0, topic: TOPIC, rank: Some(rank), message };
        let applied = self.store.apply(record);
        self.writer.on_applied(0, TOPIC, self.end, &applied);
        self.end
    }

    fn somebody_writes(&mut self, offset: i64) {
        self.lands(ranked(offset), Some(message(TOPIC, &offset.to_string())));
    }

    fn is_written(&mut self, write: Write) {
        let at = self.lands(write.rank, write.message);
        self.writer.on_outcome(&self.store, write.sequence, Written::At(at));
    }

    fn source(write: Option<&Write>) -> Option<i64> {
        Some(write?.rank.source?.offset)
    }
}

/// R1
#[test]
fn one_record_is_in_flight_and_then_only_the_newest_follows() {
    for (rules, follows) in [(Rules::ALL, Some(4)), (Rules::without(Rule::R1), None)] {
        let mut node = Node::new(rules);
        node.owe(1, 1);
        let first = node.poll().unwrap();
        (2..=4).for_each(|offset| node.owe(offset, 1));
        assert!(node.poll().is_none());
        node.is_written(first);
        let next = node.poll();
        assert_eq!(Node::source(next.as_ref()), follows);
        if let Some(next) = next {
            node.is_written(next);
        }
        assert!(node.writer.is_empty());
    }
}

#[test]
fn what_is_there_already_is_not_written() {
    let mut node = Node::new(Rules::ALL);
    node.somebody_writes(7);
    node.owe(5, 1);
    assert!(node.poll().is_none() && node.writer.is_empty());
    node.owe(8, 1);
    node.somebody_writes(9);
    assert!(node.poll().is_none() && node.writer.is_empty());
}

/// R3
#[test]
fn a_writer_that_landed_behind_a_higher_record_writes_the_higher_one_again() {
    for (rules, is_repaired) in [(Rules::ALL, true), (Rules::without(Rule::R3), false)] {
        let mut node = Node::new(rules);
        node.owe(5, 1);
        let write = node.poll().unwrap();
        node.somebody_writes(7);
        node.is_written(write);
        let repair = node.poll();
        assert_eq!(Node::source(repair.as_ref()), is_repaired.then_some(7));
        if let Some(repair) = repair {
            assert_eq!(repair.message.as_ref().unwrap().payload(), b"7");
            node.is_written(repair);
        }
        assert!(node.writer.is_empty());
        assert_eq!(node.store.get(TOPIC).unwrap().is_settled(), is_repaired);
    }
}

#[test]
fn the_acknowledgement_may_come_before_the_record_is_read_or_after_it() {
    for ack_first in [true, false] {
        let mut node = Node::new(Rules::ALL);
        node.owe(5, 1);
        let Write { sequence, rank, message, .. } = node.poll().unwrap();
        if ack_first {
            node.writer.on_outcome(&node.store, sequence, Written::At(1));
            assert_eq!(node.writer.oldest_tick(), 1, "not read back yet");
        }
        node.lands(rank, message);
        if !ack_first {
            assert_eq!(node.writer.oldest_tick(), 1, "not known whether it is ours");
            node.writer.on_outcome(&node.store, sequence, Written::At(1));
        }
        assert_eq!(node.writer.oldest_tick(), NOTHING_OWED);
    }
}

#[test]
fn a_record_that_was_compacted_before_it_was_read_counts_as_read() {
    let mut node = Node::new(Rules::ALL);
    node.owe(5, 1);
    let write = node.poll().unwrap();
    node.writer.on_outcome(&node.store, write.sequence, Written::At(1));
    node.end = 1;
    node.somebody_writes(7);
    node.writer.on_progress(&node.store, 0, 1);
    assert!(!node.writer.is_empty());
    node.writer.on_progress(&node.store, 0, 2);
    assert!(node.writer.is_empty());
}

/// What was unknown may land behind what made it unnecessary.
#[test]
fn after_an_unknown_append_something_is_written_whatever_is_there() {
    let mut node = Node::new(Rules::ALL);
    node.owe(5, 1);
    let lost = node.poll().unwrap();
    node.writer.on_outcome(&node.store, lost.sequence, Written::Unknown);
    node.somebody_writes(7);
    assert!(node.poll().is_none(), "it rests");
    node.writer.rested();
    let again = node.poll();
    assert_eq!(Node::source(again.as_ref()), Some(7));
    node.lands(lost.rank, lost.message);
    node.is_written(again.unwrap());
    assert!(node.writer.is_empty());
    assert!(node.store.get(TOPIC).unwrap().is_settled());
}

#[test]
fn what_was_certainly_not_written_is_written_later_and_what_never_can_be_is_given_up() {
    let mut node = Node::new(Rules::ALL);
    node.owe(5, 1);
    let refused = node.poll().unwrap();
    node.writer.on_outcome(&node.store, refused.sequence, Written::Not);
    node.owe(6, 1);
    assert!(node.poll().is_none());
    node.writer.rested();
    let again = node.poll();
    assert_eq!(Node::source(again.as_ref()), Some(6));
    node.writer.on_outcome(&node.store, again.unwrap().sequence, Written::Never);
    assert!(node.writer.is_empty());
}

/// R4b
#[test]
fn what_is_taken_over_must_be_the_last_record() {
    let mut node = Node::new(Rules::ALL);
    node.somebody_writes(7);
    node.somebody_writes(5);
    let duty = Obligation { must_be_last: true, ..obligation(6, 0) };
    node.writer.owe(&node.store, TOPIC, duty.clone());
    let write = node.poll();
    assert_eq!(Node::source(write.as_ref()), Some(7));
    node.is_written(write.unwrap());
    assert!(!node.writer.owes(TOPIC, 0));
    node.writer.owe(&node.store, TOPIC, duty);
    assert!(node.poll().is_none(), "the last one is high enough");
}

#[test]
fn what_a_foreign_program_wrote_is_written_again_with_its_rank() {
    let mut node = Node::new(Rules::ALL);
    node.somebody_writes(7);
    node.end += 1;
    let record = Record { offset: node.end, append_ms: 0, topic: TOPIC, rank: None, message: None };
    let foreign = node.store.apply(record).rank;
    node.writer.rewrite(&node.store, TOPIC, 3);
    let write = node.poll().unwrap();
    assert_eq!((write.rank, write.message.is_none()), (foreign, true));
    node.writer.rewrite(&node.store, TOPIC, 3);
    assert!(node.poll().is_none(), "it is in flight");
    assert_eq!(node.writer.oldest_tick(), 3);
    node.is_written(write);
    assert!(node.poll().is_none() && node.writer.is_empty());
}

/// R4a
#[test]
fn the_oldest_tick_is_that_of_the_oldest_incomplete_obligation() {
    let mut node = Node::new(Rules::ALL);
    node.owe(1, 1);
    let first = node.poll().unwrap();
    node.owe(2, 1);
    node.owe(3, 2);
    assert_eq!(node.writer.oldest_tick(), 1);
    node.is_written(first);
    assert_eq!(node.writer.oldest_tick(), 1);
    let second = node.poll().unwrap();
    node.owe(4, 3);
    node.is_written(second);
    assert_eq!(node.writer.oldest_tick(), 3, "a topic that is always published to does not hold the mark");
    assert_eq!(Writer { rules: Rules::without(Rule::R4), ..node.writer }.oldest_tick(), NOTHING_OWED);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Owe,
    Other(i64),
    Land,
    Refuse,
    Lose { lands: bool },
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Owe),
        2 => (0..20_i64).prop_map(Event::Other),
        4 => Just(Event::Land),
        1 => Just(Event::Refuse),
        1 => any::<bool>().prop_map(|lands| Event::Lose { lands }),
        1 => Just(Event::Tick),
    ]
}

proptest! {
    /// Whatever happens: in the end the last record of ours leaves the highest one last, and it is at least what was
    /// owed.
    #[test]
    fn in_the_end_the_highest_is_there_and_what_was_ours_hides_nothing(
        events in proptest::collection::vec(event(), 0..40),
    ) {
        let mut node = Node::new(Rules::ALL);
        let (mut newest, mut flight, mut strangers_last) = (0, None::<Write>, false);
        for event in events.into_iter().chain([Event::Tick, Event::Land, Event::Tick, Event::Land, Event::Land]) {
            flight = flight.or_else(|| node.poll());
            match event {
                Event::Owe => {
                    newest += 1;
                    node.owe(newest, 1);
                }
                Event::Other(offset) => {
                    node.somebody_writes(offset);
                    strangers_last = true;
                }
                Event::Land => if let Some(write) = flight.take() {
                    node.is_written(write);
                    strangers_last = false;
                },
                Event::Refuse => if let Some(write) = flight.take() {
                    node.writer.on_outcome(&node.store, write.sequence, Written::Not);
                },
                Event::Lose { lands } => if let Some(write) = flight.take() {
                    if lands {
                        node.lands(write.rank, write.message);
                        strangers_last = false;
                    }
                    node.writer.on_outcome(&node.store, write.sequence, Written::Unknown);
                },
                Event::Tick => node.writer.rested(),
            }
        }
        prop_assert!(node.writer.is_empty());
        if newest > 0 {
            let entry = node.store.get(TOPIC).unwrap();
            prop_assert!(entry.best() >= ranked(newest));
            prop_assert!(entry.is_settled() || strangers_last);
        }
    }
}
