use super::*;
use crate::ledger::arbitrary::incarnation;
use crate::ledger::ids::Place;
use crate::ledger::retained::Rank;
use crate::ledger::retained::store::Store;
use crate::ledger::retained::writer::Obligation;

const P: Place = Place { topic: 1, partition: 0 };
const Q: Place = Place { topic: 1, partition: 1 };

fn dead() -> Incarnation {
    incarnation(9)
}

/// Two partitions with marks of a dead and a living node; this node keeps the first.
fn marks() -> Marks {
    let mut marks = Marks::default();
    for partition in [0, 1] {
        marks.apply(partition, dead(), Some(vec![(P, 5 + i64::from(partition)), (Q, 2)]));
        marks.apply(partition, incarnation(1), Some(vec![(P, 9)]));
    }
    marks
}

fn poll(keeper: &mut Keeper, marks: &Marks, writer: &Writer) -> Vec<Action> {
    keeper.poll(marks, writer, |node| node == dead(), |partition| partition == 0)
}

#[test]
fn the_keeper_looks_from_the_mark_on_and_takes_it_away_when_all_is_complete() {
    let (mut keeper, mut marks) = (Keeper::new(Rules::ALL), marks());
    let (store, mut writer) = (Store::new(Rules::ALL, 2), Writer::new(Rules::ALL));
    let partitions: BTreeSet<u32> = [0].into();
    let look = Action::Look { dead: dead(), from: [(P, 5), (Q, 2)].into(), partitions: partitions.clone() };
    assert_eq!(poll(&mut keeper, &marks, &writer), [look]);
    assert!(poll(&mut keeper, &marks, &writer).is_empty() && keeper.is_looking());
    let owed = Obligation { rank: Rank::default(), message: None, must_be_last: true, tick: DUTY_TICK };
    writer.owe(&store, "a", owed);
    keeper.on_looked(dead(), [Box::from("a")].into());
    assert!(poll(&mut keeper, &marks, &writer).is_empty() && !keeper.is_looking());
    let finish = [Action::Finish { dead: dead(), partitions }];
    let complete = Writer::new(Rules::ALL);
    assert_eq!(poll(&mut keeper, &marks, &complete), finish);
    assert!(poll(&mut keeper, &marks, &complete).is_empty());
    keeper.on_tick();
    assert_eq!(poll(&mut keeper, &marks, &complete), finish, "its record may have been lost");
    marks.apply(0, dead(), None);
    assert!(poll(&mut keeper, &marks, &complete).is_empty());
    assert!(keeper.duties.is_empty());
}

#[test]
fn the_lowest_of_several_marks_counts_and_what_one_does_not_say_is_looked_through() {
    let mut marks = marks();
    marks.apply(1, dead(), Some(vec![(P, 3)]));
    let mut keeper = Keeper::new(Rules::ALL);
    let actions = keeper.poll(&marks, &Writer::new(Rules::ALL), |node| node == dead(), |_| true);
    assert_eq!(actions, [Action::Look { dead: dead(), from: [(P, 3)].into(), partitions: [0, 1].into() }]);
}

#[test]
fn a_partition_that_becomes_the_keepers_later_is_looked_for_too() {
    let (mut keeper, mut marks, writer) = (Keeper::new(Rules::ALL), marks(), Writer::new(Rules::ALL));
    poll(&mut keeper, &marks, &writer);
    let poll_all = |keeper: &mut Keeper, marks: &Marks| keeper.poll(marks, &writer, |node| node == dead(), |_| true);
    assert!(poll_all(&mut keeper, &marks).is_empty(), "the look that is under way is waited for");
    assert!(keeper.is_awaited(dead(), &[0].into()) && !keeper.is_awaited(dead(), &[0, 1].into()));
    keeper.on_looked(dead(), BTreeSet::new());
    let look = |partitions: &[u32], from| Action::Look {
        dead: dead(),
        from: [(P, from), (Q, 2)].into(),
        partitions: partitions.iter().copied().collect(),
    };
    assert_eq!(poll_all(&mut keeper, &marks), [look(&[0, 1], 5)]);
    keeper.on_looked(dead(), BTreeSet::new());
    assert_eq!(poll_all(&mut keeper, &marks), [Action::Finish { dead: dead(), partitions: [0, 1].into() }]);
    marks.apply(0, dead(), None);
    assert!(poll_all(&mut keeper, &marks).is_empty());
    marks.apply(1, dead(), None);
    poll_all(&mut keeper, &marks);
    assert!(keeper.duties.is_empty());
}

#[test]
fn nobody_looks_for_a_node_that_may_still_write() {
    let mut keeper = Keeper::new(Rules::ALL);
    assert!(keeper.poll(&marks(), &Writer::new(Rules::ALL), |_| false, |_| true).is_empty());
}

#[test]
fn without_its_rule_nothing_is_looked_for() {
    let mut keeper = Keeper::new(Rules::without(Rule::R4));
    let actions = poll(&mut keeper, &marks(), &Writer::new(Rules::ALL));
    assert_eq!(actions, [Action::Finish { dead: dead(), partitions: [0].into() }]);
}
