//! Logs made up at random: a replay of the compacted log, or of a compacted beginning and the rest, answers what a
//! replay in one piece answers.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ledger::arbitrary;

/// What is done to one of two sessions under one of eight nonces. Odd nonces are of keepers; nodes are four.
#[derive(Clone, Debug)]
enum Step {
    Claim { expected: u8 },
    Set { generation: u32, epoch: i64, state: Box<SessionState> },
    Part(Box<Part>),
    Final(Option<Inbound>),
    Watermark(Watermark),
    Tombstone(Slot),
    NoWatermark,
    Nonsense(Slot),
    Unknown(Vec<u8>),
}

fn slot() -> impl Strategy<Value = Slot> {
    let parts = PartKind::ALL.map(Slot::Part);
    proptest::sample::select([&[Slot::Claim, Slot::KeeperClaim, Slot::Set, Slot::Final][..], &parts].concat())
}

/// Mostly that of the ledger.
fn generation() -> impl Strategy<Value = u32> {
    prop_oneof![1 => Just(GENERATION - 1), 6 => Just(GENERATION), 1 => Just(GENERATION + 1)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u8).prop_map(|expected| Step::Claim { expected }),
        4 => (generation(), 0..60_i64, arbitrary::state())
            .prop_map(|(generation, epoch, state)| Step::Set { generation, epoch, state: Box::new(state) }),
        4 => arbitrary::part().prop_map(|part| Step::Part(Box::new(part))),
        2 => proptest::option::of(arbitrary::inbound()).prop_map(Step::Final),
        1 => arbitrary::watermark().prop_map(Step::Watermark),
        4 => slot().prop_map(Step::Tombstone),
        1 => Just(Step::NoWatermark),
        1 => slot().prop_map(Step::Nonsense),
        1 => vec(any::<u8>(), 0..6).prop_map(Step::Unknown),
    ]
}

const GENERATION: u32 = 1;

type Record = (i64, Vec<u8>, Option<Vec<u8>>);

fn client(n: u8) -> ClientKey {
    ClientKey::new("r", if n == 0 { "car" } else { "bus" })
}

const fn node(n: u8) -> Incarnation {
    Incarnation([n % 4; 16])
}

fn is_keeper(n: u8) -> bool {
    n % 2 == 1
}

/// Records of the steps. A claim never lands twice: then a reader of the compacted log cannot know its epoch until its
/// set tells it, and that is the only thing it cannot know.
fn records(steps: &[(u8, u8, Step)]) -> Vec<Record> {
    let mut claimed = BTreeSet::new();
    let mut records = Vec::new();
    for (offset, (of, n, step)) in steps.iter().enumerate() {
        let (offset, client, own) = (i64::try_from(offset).unwrap(), client(*of), arbitrary::nonce(*n));
        let claim = if is_keeper(*n) { Slot::KeeperClaim } else { Slot::Claim };
        // What a nonce's key of the other kind of claim would mean is nobody's business (K2).
        let only_own = |slot| if matches!(slot, Slot::Claim | Slot::KeeperClaim) { claim } else { slot };
        let version = u32::try_from(offset).unwrap();
        let (key, value) = match step {
            Step::Claim { expected } => {
                if !claimed.insert((*of, *n)) {
                    continue;
                }
                let keeper = record::keeper_claim(node(*n), arbitrary::nonce(*expected));
                let value = if is_keeper(*n) { keeper } else { record::claim(node(*n)) };
                (key(&client, own, claim), Some(value))
            }
            Step::Set { generation, epoch, state } => {
                let epoch = Epoch { generation: *generation, offset: *epoch * 8 + i64::from(*n) };
                (key(&client, own, Slot::Set), Some(record::set(epoch, node(*n), version, state)))
            }
            Step::Part(part) => (key(&client, own, Slot::Part(part.kind())), Some(record::part(version, part))),
            Step::Final(inbound) => (
                key(&client, own, Slot::Final),
                Some(record::last(&LastWord { inbound: inbound.clone(), no_will: *of == 1 })),
            ),
            Step::Watermark(watermark) => (record::watermark_key(node(*n)), Some(record::watermark(watermark))),
            Step::NoWatermark => (record::watermark_key(node(*n)), None),
            Step::Tombstone(slot) => (key(&client, own, only_own(*slot)), None),
            Step::Nonsense(slot) => (key(&client, own, only_own(*slot)), Some(vec![0xff])),
            Step::Unknown(bytes) => (bytes.clone(), Some(vec![1])),
        };
        if value.as_ref().is_none_or(|value| value == &[0xff]) && key.get(1).is_some_and(|kind| *kind <= 2) {
            claimed.remove(&(*of, *n));
        }
        records.push((offset, key, value));
    }
    records
}

/// The last record of each key; without its tombstones where they were removed already.
fn compacted(records: &[Record], with_tombstones: bool) -> Vec<Record> {
    let last: BTreeMap<_, _> = records.iter().map(|(offset, key, _)| (key, *offset)).collect();
    let kept = records.iter().filter(|(offset, key, _)| last.get(key) == Some(offset));
    kept.filter(|(_, _, value)| with_tombstones || value.is_some()).cloned().collect()
}

fn replay(records: &[Record]) -> Sessions {
    let mut sessions = Sessions::new(GENERATION, Rules::ALL);
    for (offset, key, value) in records {
        sessions.apply(*offset, offset * 100, key, value.as_deref());
    }
    sessions
}

/// Which of two comes first hangs on the log, not only on what compaction left of it.
fn sorted(absent: impl Iterator<Item = Absent>) -> Vec<Absent> {
    let mut absent: Vec<_> = absent.collect();
    absent.sort_by_key(|absent| (absent.client.clone(), absent.due_ms));
    absent
}

/// Every answer about every session.
fn answers(sessions: &Sessions) -> impl PartialEq + std::fmt::Debug + use<> {
    let fenced = |incarnation| incarnation == node(1) || incarnation == node(2);
    let of_client = |n: u8| {
        let client = client(n);
        let nonces: Vec<_> = (0..8)
            .map(|n| {
                let nonce = arbitrary::nonce(n);
                let epoch = sessions.epoch_of(&client, nonce).unwrap_or_default();
                let open = sessions.open_below(&client, epoch, &fenced);
                let litter: BTreeSet<_> = sessions.owner_litter(&client, nonce, &fenced).into_iter().collect();
                (epoch, open, sessions.last_word(&client, nonce), litter)
            })
            .collect();
        (
            (sessions.owner(&client), sessions.claims(&client), nonces),
            (sessions.inherited(&client), sessions.session_exists(&client), sessions.absent_of(&client)),
        )
    };
    let nodes: Vec<_> = (0..4)
        .map(|n| {
            let held = sorted(sessions.held_by(node(n)));
            (sessions.watermark(node(n)).cloned(), sessions.names(node(n)), held)
        })
        .collect();
    let due = sorted(sessions.due(i64::MAX));
    let absent = sorted(sessions.absent(2_000, &|node| fenced(node).then_some(500)));
    let litter: BTreeSet<_> = sessions.litter(&fenced).collect();
    let clients: BTreeSet<_> = sessions.clients().cloned().collect();
    ((of_client(0), of_client(1)), (clients, nodes, due, absent, litter))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_compacted_log_answers_as_the_whole(
        steps in vec((0..2_u8, 0..8_u8, step()), 0..60),
        split in 0..60_usize,
        with_tombstones in any::<bool>(),
    ) {
        let records = records(&steps);
        let whole = answers(&replay(&records));
        prop_assert_eq!(&answers(&replay(&compacted(&records, with_tombstones))), &whole);
        let (before, after) = records.split_at(split.min(records.len()));
        let halves = [&compacted(before, with_tombstones)[..], after].concat();
        prop_assert_eq!(&answers(&replay(&halves)), &whole);
    }

    /// However often janitors and owners tidy, the owner and what it would inherit stay, and in the end nothing is left
    /// to tidy.
    #[test]
    fn tidying_changes_no_state_and_comes_to_an_end(steps in vec((0..2_u8, 0..8_u8, step()), 0..60)) {
        let mut records = records(&steps);
        let mut sessions = replay(&records);
        let fenced = |incarnation| incarnation == node(1) || incarnation == node(2);
        let state = |sessions: &Sessions, n: u8| {
            let inherited = sessions.inherited(&client(n)).filter(|found| found.state.life != Life::Deleted);
            inherited.map(|found| (found.nonce, found.state))
        };
        let before = [state(&sessions, 0), state(&sessions, 1)];
        for round in 0.. {
            let mut keys: Vec<_> = sessions.litter(&fenced).collect();
            for n in 0..2 {
                // Only an owner that wrote its set, which here was read back.
                let owner = sessions.owner(&client(n)).filter(|owner| {
                    sessions.inherited(&client(n)).is_some_and(|found| found.nonce == owner.nonce)
                });
                keys.extend(owner.into_iter().flat_map(|owner| sessions.owner_litter(&client(n), owner.nonce, &fenced)));
            }
            if keys.is_empty() {
                break;
            }
            prop_assert!(round < 20, "the same keys again and again: {keys:?}");
            for key in keys {
                let offset = i64::try_from(1_000 + records.len()).unwrap();
                sessions.apply(offset, offset, &key, None);
                records.push((offset, key, None));
            }
        }
        prop_assert_eq!([state(&sessions, 0), state(&sessions, 1)], before);
    }
}
