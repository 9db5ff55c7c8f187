//! Logs written by hand: one for each rule. Logs made up at random are in [`replay`].

mod absent;
mod replay;
mod tidying;

use super::*;
use crate::ledger::arbitrary::{incarnation, nonce};
use crate::ledger::ids::Place;
use crate::ledger::record::{LastWord, key};
use crate::ledger::rules::Rule;
use crate::ledger::state::{DueWill, Inbound, Life, Part, Position, SessionState, Unresolved, Will};

/// A ledger that is fed by hand. Nonce `n` is of node `n` unless said otherwise; time is ten times the offset.
struct Log {
    sessions: Sessions,
    end: i64,
}

fn car() -> ClientKey {
    ClientKey::new("", "car")
}

const fn ms(offset: i64) -> i64 {
    offset * 10
}

impl Log {
    fn new() -> Self {
        Self::with(Rules::ALL)
    }

    fn with(rules: Rules) -> Self {
        Self { sessions: Sessions::new(0, rules), end: 0 }
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Applied {
        self.end += 1;
        self.sessions.apply(self.end, ms(self.end), key, value)
    }

    fn h(&mut self, n: u8) -> Applied {
        self.put(&key(&car(), nonce(n), Slot::Claim), Some(&record::claim(incarnation(n))))
    }

    fn k(&mut self, n: u8, expected: u8) -> Applied {
        let value = record::keeper_claim(incarnation(n), nonce(expected));
        self.put(&key(&car(), nonce(n), Slot::KeeperClaim), Some(&value))
    }

    /// A set under the nonce's own epoch.
    fn set(&mut self, n: u8, version: u32, state: &SessionState) -> Applied {
        let epoch = self.sessions.epoch_of(&car(), nonce(n)).unwrap();
        self.put(&key(&car(), nonce(n), Slot::Set), Some(&record::set(epoch, incarnation(n), version, state)))
    }

    fn part(&mut self, n: u8, version: u32, part: &Part) -> Applied {
        self.put(&key(&car(), nonce(n), Slot::Part(part.kind())), Some(&record::part(version, part)))
    }

    fn f(&mut self, n: u8) -> Applied {
        self.put(&key(&car(), nonce(n), Slot::Final), Some(&record::last(&LastWord::default())))
    }

    fn w(&mut self, node: u8, done: &[(Place, i64)]) -> Applied {
        let watermark = Watermark { done: done.to_vec(), tokens: Vec::new() };
        self.put(&record::watermark_key(incarnation(node)), Some(&record::watermark(&watermark)))
    }

    fn gone(&mut self, n: u8, slot: Slot) -> Applied {
        self.put(&key(&car(), nonce(n), slot), None)
    }

    fn owner(&self) -> Option<Nonce> {
        self.sessions.owner(&car()).map(|owner| owner.nonce)
    }

    fn identity(&self) -> Option<String> {
        self.sessions.inherited(&car()).map(|inherited| inherited.state.identity.to_string())
    }

    fn is_open_below(&self, n: u8, fenced: &[u8]) -> bool {
        let below = self.sessions.epoch_of(&car(), nonce(n)).unwrap();
        self.sessions.lower_open(&car(), below, &|node| fenced.iter().any(|n| incarnation(*n) == node))
    }
}

/// States are told apart by their identity.
fn named(name: &str) -> SessionState {
    SessionState { identity: name.into(), expiry_s: u32::MAX, ..SessionState::default() }
}

fn deleted() -> SessionState {
    SessionState { life: Life::Deleted, ..SessionState::default() }
}

fn disconnected(expiry_s: u32, since_ms: i64) -> SessionState {
    SessionState { expiry_s, life: Life::Disconnected { since_ms }, ..SessionState::default() }
}

fn counted(applied: &Applied) -> bool {
    matches!(applied, Applied::Claimed { counted: true, .. })
}

const HERE: Place = Place { topic: 1, partition: 0 };
const THERE: Place = Place { topic: 1, partition: 1 };

fn position(following: bool, from: &[(Place, i64)]) -> Position {
    Position { following, from: from.to_vec(), in_flight: Vec::new() }
}

#[test]
fn the_last_connection_to_claim_owns_the_session() {
    let mut log = Log::new();
    assert_eq!(log.owner(), None);
    for n in 1..4 {
        assert!(counted(&log.h(n)));
        assert_eq!(log.owner(), Some(nonce(n)), "F1");
    }
    let mut first_wins = Log::with(Rules::without(Rule::F1));
    let _ = (first_wins.h(1), first_wins.h(2));
    assert_eq!(first_wins.owner(), Some(nonce(1)));
}

#[test]
fn the_epoch_is_where_the_nonces_first_claim_is() {
    let mut log = Log::new();
    log.h(1);
    log.h(2);
    let Applied::Claimed { repeated: true, counted: true, .. } = log.h(1) else { panic!("it was there already") };
    let epoch = log.sessions.epoch_of(&car(), nonce(1)).unwrap();
    assert_eq!((epoch.offset, log.owner()), (1, Some(nonce(1))));
    assert_eq!(Sessions::new(3, Rules::ALL).epoch_of(&car(), nonce(1)), None);
}

/// A set of nonce 9, whose node knew another life of the kafka topic.
fn set_of_generation(log: &mut Log, generation: u32) -> Applied {
    let old = Epoch { generation, offset: 1_000_000 };
    log.put(&key(&car(), nonce(9), Slot::Set), Some(&record::set(old, incarnation(9), 1, &named("other life"))))
}

#[test]
fn a_set_of_another_generation_is_never_inherited() {
    for generation in [0, 2] {
        let mut log = Log::new();
        log.sessions = Sessions::new(1, Rules::ALL);
        let value = if generation == 0 { Ignored::Generation } else { Ignored::Value };
        assert_eq!(set_of_generation(&mut log, generation), Applied::Ignored(value));
        log.part(9, 2, &Part::Inbound(Inbound::default()));
        assert_eq!((log.identity(), log.sessions.session_exists(&car())), (None, false));
        log.h(1);
        log.set(1, 1, &named("own life"));
        set_of_generation(&mut log, generation);
        assert_eq!(log.identity().as_deref(), Some("own life"));
        assert_eq!(log.sessions.epoch_of(&car(), nonce(9)), None);
        assert!(!log.is_open_below(1, &[]), "nothing of it can be in a way that is waited for");
    }
}

#[test]
fn a_late_claim_of_another_generation_has_an_epoch_here_and_inherits_what_is_here() {
    let mut log = Log::new();
    log.sessions = Sessions::new(1, Rules::ALL);
    let _ = (log.h(1), log.set(1, 1, &named("own life")));
    assert!(!counted(&log.k(8, 7)), "what it expects was in the life before");
    assert!(counted(&log.h(9)));
    set_of_generation(&mut log, 0);
    let epoch = log.sessions.epoch_of(&car(), nonce(9));
    assert_eq!(epoch, Some(Epoch { generation: 1, offset: 4 }));
    assert_eq!(log.identity().as_deref(), Some("own life"));
}

#[test]
fn a_keepers_claim_counts_only_after_the_one_that_it_expects() {
    let mut log = Log::new();
    log.h(1);
    assert!(counted(&log.k(2, 1)), "K1");
    assert!(!counted(&log.k(3, 1)), "2 came first");
    assert_eq!(log.owner(), Some(nonce(2)));
    assert!(!counted(&log.k(4, 3)), "3 is void, so nothing follows it");
    assert!(counted(&log.k(5, 2)));
    log.h(6);
    assert!(!counted(&log.k(7, 5)), "the client came back");
    assert_eq!(log.owner(), Some(nonce(6)));
    let counted: Vec<_> = log.sessions.claims(&car()).iter().map(|claim| claim.counted).collect();
    assert_eq!(counted, [true, true, false, false, true, true, false]);

    let mut without = Log::with(Rules::without(Rule::K1));
    let _ = (without.h(1), without.k(2, 9));
    assert_eq!(without.owner(), Some(nonce(2)));
}

#[test]
fn a_keeper_cannot_claim_what_nobody_owns() {
    let mut log = Log::new();
    assert!(!counted(&log.k(1, 9)));
    assert_eq!(log.owner(), None);
}

#[test]
fn the_set_of_the_highest_epoch_is_inherited_however_late_another_lands() {
    let mut log = Log::new();
    log.h(1);
    log.h(2);
    log.set(2, 1, &named("two"));
    log.set(1, 9, &named("one, late"));
    assert_eq!(log.identity().as_deref(), Some("two"), "F3");
    let inherited = log.sessions.inherited(&car()).unwrap();
    assert_eq!((inherited.nonce, inherited.incarnation), (nonce(2), incarnation(2)));
    assert_eq!((inherited.set_offset, inherited.append_ms), (3, ms(3)));

    let mut without = Log::with(Rules::without(Rule::F3));
    let _ = (without.h(1), without.h(2), without.set(2, 1, &named("two")), without.set(1, 1, &named("one, late")));
    assert_eq!(without.identity().as_deref(), Some("one, late"));
}

#[test]
fn younger_parts_replace_those_of_the_set_and_older_ones_do_not() {
    let mut log = Log::new();
    log.h(1);
    log.set(1, 1, &named("car"));
    let inbound = |high| Inbound { high, ..Inbound::default() };
    log.part(1, 2, &Part::Inbound(inbound(7)));
    log.part(1, 3, &Part::Subscriptions(Vec::new(), position(false, &[(HERE, 1)])));
    log.part(1, 4, &Part::Position(position(false, &[(HERE, 2)])));
    let inherited = log.sessions.inherited(&car()).unwrap();
    assert_eq!((inherited.state.inbound, inherited.append_ms), (inbound(7), ms(5)));
    assert_eq!(inherited.state.position.from, [(HERE, 2)], "the younger of two parts that say it");
    let set = SessionState { position: position(true, &[(HERE, 3)]), inbound: inbound(9), ..named("car") };
    log.set(1, 5, &set);
    let state = log.sessions.inherited(&car()).unwrap().state;
    assert_eq!(state, set, "the set is younger than its parts");
}

#[test]
fn a_watermark_counts_for_who_follows_under_the_same_incarnation() {
    let mut log = Log::new();
    log.h(1);
    log.set(1, 1, &named("car"));
    log.w(1, &[(HERE, 50), (THERE, 60)]);
    log.w(2, &[(HERE, 99)]);
    let from = |log: &mut Log, version, following, own| {
        log.part(1, version, &Part::Position(position(following, &[(HERE, own)])));
        log.sessions.inherited(&car()).unwrap().state.position.from
    };
    assert_eq!(from(&mut log, 2, true, 40), [(HERE, 50)], "the higher; no place that the position does not have");
    assert_eq!(from(&mut log, 3, true, 55), [(HERE, 55)]);
    assert_eq!(from(&mut log, 4, false, 40), [(HERE, 40)], "it does not follow");
    log.sessions.rules = Rules::without(Rule::W5);
    assert_eq!(from(&mut log, 5, true, 40), [(HERE, 99)]);
}

#[test]
fn a_session_exists_if_a_live_set_is_the_highest() {
    let mut log = Log::new();
    log.h(1);
    assert!(!log.sessions.session_exists(&car()), "F8: a claim makes no session");
    log.set(1, 1, &named("car"));
    assert!(log.sessions.session_exists(&car()));
    log.h(2);
    log.set(2, 1, &deleted());
    assert!(!log.sessions.session_exists(&car()));
    log.set(1, 2, &named("late"));
    assert!(!log.sessions.session_exists(&car()), "F10a");

    let mut without = Log::with(Rules::without(Rule::F8));
    without.h(1);
    assert!(without.sessions.session_exists(&car()));
}

#[test]
fn a_claim_is_settled_only_when_every_lower_one_is_final_or_fenced() {
    let mut log = Log::new();
    let _ = (log.h(1), log.h(2), log.h(3));
    assert!(log.is_open_below(3, &[]), "F11");
    assert!(log.is_open_below(3, &[2]), "not the one before alone");
    log.f(1);
    assert!(!log.is_open_below(3, &[2]));
    assert!(!log.is_open_below(1, &[]), "nothing is lower");
    let claims = log.sessions.claims(&car());
    assert_eq!(claims.iter().map(|claim| claim.is_final).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(log.sessions.last_word(&car(), nonce(1)), Some(LastWord::default()));
    assert_eq!(log.sessions.last_word(&car(), nonce(2)), None);
}

#[test]
fn a_void_claim_keeps_nobody_waiting_while_it_is_seen_to_be_void() {
    let mut log = Log::new();
    let _ = (log.h(1), log.h(2), log.k(3, 1), log.h(4));
    log.f(1);
    log.f(2);
    assert!(!log.is_open_below(4, &[]));
    log.gone(1, Slot::Claim);
    assert!(log.is_open_below(4, &[]), "it may once have counted");
    assert!(!log.is_open_below(4, &[3]));
}

#[test]
fn a_tombstone_leaves_what_a_reader_of_the_compacted_log_finds() {
    let mut log = Log::new();
    let _ = (log.h(1), log.set(1, 1, &named("car")), log.k(2, 1));
    let tombstone = log.gone(1, Slot::Claim);
    assert_eq!(tombstone, Applied::Gone { client: car(), nonce: nonce(1), what: Slot::Claim });
    assert_eq!(log.owner(), None, "nobody can tell any more that the keeper's claim counted");
    let _ = (log.gone(1, Slot::Set), log.gone(2, Slot::KeeperClaim));
    assert!(log.sessions.is_empty());
    assert_eq!(
        log.gone(2, Slot::KeeperClaim),
        Applied::Gone { client: car(), nonce: nonce(2), what: Slot::KeeperClaim }
    );
}

#[test]
fn a_value_that_means_nothing_leaves_nothing() {
    let mut log = Log::new();
    log.h(1);
    log.set(1, 1, &named("car"));
    let nonsense = log.put(&key(&car(), nonce(1), Slot::Set), Some(&[0xff]));
    assert_eq!(nonsense, Applied::Ignored(Ignored::Value));
    assert!(!log.sessions.session_exists(&car()));
    log.w(1, &[(HERE, 1)]);
    log.put(&record::watermark_key(incarnation(1)), Some(&[0xff]));
    assert_eq!(log.sessions.watermark(incarnation(1)), None);
}

#[test]
fn every_record_says_what_it_was() {
    let mut log = Log::new();
    let (client, n) = (car(), nonce(1));
    let claimed = |kind, nonce| Applied::Claimed { client: car(), nonce, kind, counted: true, repeated: false };
    assert_eq!(log.h(1), claimed(ClaimKind::Connection, n));
    assert_eq!(log.set(1, 4, &named("car")), Applied::Set { client: client.clone(), nonce: n, version: 4 });
    let part = log.part(1, 5, &Part::Inbound(Inbound::default()));
    assert_eq!(part, Applied::Part { client: client.clone(), nonce: n, part: PartKind::Inbound, version: 5 });
    assert_eq!(log.f(1), Applied::Final { client, nonce: n });
    assert_eq!(log.w(1, &[]), Applied::Watermark { incarnation: incarnation(1) });
    assert_eq!(log.k(2, 1), claimed(ClaimKind::Keeper, nonce(2)));
    let gone = log.put(&record::watermark_key(incarnation(1)), None);
    assert_eq!(gone, Applied::WatermarkGone { incarnation: incarnation(1) });
    assert_eq!(log.put(&[9, 9], None), Applied::Ignored(Ignored::Version));
}
