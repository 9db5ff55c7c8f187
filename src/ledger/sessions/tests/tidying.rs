//! What may be removed, by whom and when.

use super::*;

const SET: Slot = Slot::Set;
const CLAIM: Slot = Slot::Claim;

fn keys(slots: &[(u8, Slot)]) -> Vec<Vec<u8>> {
    slots.iter().map(|(n, slot)| key(&car(), nonce(*n), *slot)).collect()
}

impl Log {
    fn owners(&self, own: u8, fenced: &[u8]) -> Vec<Vec<u8>> {
        self.sessions.owner_litter(&car(), nonce(own), &|node| fenced.iter().any(|n| incarnation(*n) == node))
    }

    fn anybodys(&self, fenced: &[u8]) -> Vec<Vec<u8>> {
        self.sessions.litter(&|node| fenced.iter().any(|n| incarnation(*n) == node)).collect()
    }

    /// Removes what anybody may remove, until there is nothing more.
    fn tidy(&mut self, fenced: &[u8]) {
        for _ in 0..100 {
            let keys = self.anybodys(fenced);
            let Some(key) = keys.first() else { return };
            self.put(key, None);
        }
        panic!("the same keys again and again");
    }
}

#[test]
fn an_owner_removes_lower_state_and_claims_that_are_over() {
    let mut log = Log::new();
    let _ = (log.h(1), log.set(1, 1, &named("one")), log.part(1, 2, &Part::Inbound(Inbound::default())));
    let _ = (log.h(2), log.f(2), log.h(3));
    assert_eq!(log.owners(3, &[]), keys(&[]), "F7: before its own set there is nothing to remove");
    log.set(3, 1, &named("three"));
    let inbound = Slot::Part(PartKind::Inbound);
    let lower = [(1, inbound), (1, SET), (2, CLAIM), (2, Slot::Final)];
    assert_eq!(log.owners(3, &[]), keys(&lower), "1 is still open");
    log.f(1);
    let lower = [(1, inbound), (1, SET), (1, CLAIM), (1, Slot::Final), (2, CLAIM), (2, Slot::Final)];
    assert_eq!(log.owners(3, &[]), keys(&lower));
    assert_eq!(log.anybodys(&[]), keys(&[]), "of a living session only the owner removes");
    for key in log.owners(3, &[]) {
        log.put(&key, None);
    }
    assert_eq!(
        (log.owners(3, &[]), log.owner(), log.identity().as_deref()),
        (keys(&[]), Some(nonce(3)), Some("three"))
    );
}

#[test]
fn what_an_earlier_generation_left_behind_is_removed() {
    let mut log = Log::new();
    log.sessions = Sessions::new(1, Rules::ALL);
    let _ = (log.h(1), log.set(1, 1, &named("own life")));
    let inbound = Slot::Part(PartKind::Inbound);
    let _ = (set_of_generation(&mut log, 0), log.part(9, 2, &Part::Inbound(Inbound::default())), log.f(9));
    assert_eq!(log.anybodys(&[]), keys(&[(9, SET), (9, inbound), (9, Slot::Final)]));
    log.tidy(&[]);
    assert_eq!(log.identity().as_deref(), Some("own life"));
    log.h(9);
    set_of_generation(&mut log, 0);
    assert_eq!(log.anybodys(&[]), keys(&[(9, SET)]), "its claim goes as every claim does");
    set_of_generation(&mut log, 2);
    assert_eq!(log.anybodys(&[]), keys(&[]), "what comes later is not for this node to remove");
}

#[test]
fn a_keeper_removes_state_but_no_claim() {
    let mut log = Log::new();
    let _ = (log.h(1), log.set(1, 1, &named("one")), log.f(1), log.k(2, 1), log.set(2, 1, &named("two")));
    assert_eq!(log.owners(2, &[]), keys(&[(1, SET)]), "K3");
    log.sessions.rules = Rules::without(Rule::K3);
    assert_eq!(log.owners(2, &[]), keys(&[(1, SET), (1, CLAIM), (1, Slot::Final)]));
}

#[test]
fn the_set_that_ends_a_session_stays_while_an_older_one_can_land() {
    let mut log = Log::new();
    let _ = (log.h(1), log.set(1, 1, &named("one")), log.h(2), log.h(3), log.set(3, 1, &deleted()));
    assert_eq!(log.anybodys(&[2]), keys(&[(1, SET)]), "F10b: 1 is open, its set is there");
    log.gone(1, SET);
    assert_eq!(log.anybodys(&[2]), keys(&[]), "1 is open");
    log.f(1);
    assert_eq!(log.anybodys(&[]), keys(&[]), "2 is open");
    assert_eq!(log.anybodys(&[2]), keys(&[(3, SET)]));
    log.set(1, 2, &named("late"));
    assert_eq!(log.anybodys(&[2]), keys(&[(1, SET)]), "a lower set is there");

    log.sessions.rules = Rules::without(Rule::F10);
    assert_eq!(log.anybodys(&[2]), keys(&[(1, SET), (3, SET)]));
}

#[test]
fn nothing_is_left_of_a_session_that_ended() {
    let mut log = Log::new();
    let _ = (log.h(1), log.set(1, 1, &named("one")), log.h(2), log.set(2, 1, &named("two")), log.set(2, 2, &deleted()));
    log.part(1, 2, &Part::Inbound(Inbound::default()));
    log.tidy(&[1]);
    assert_eq!(log.sessions.inherited(&car()), None);
    assert_eq!(log.owner(), Some(nonce(2)), "its claim is still open");
    log.f(2);
    log.tidy(&[1]);
    assert!(log.sessions.is_empty());
}

#[test]
fn a_claim_goes_before_its_final_word() {
    let mut log = Log::new();
    let _ = (log.h(1), log.f(1));
    assert_eq!(log.anybodys(&[]), keys(&[(1, CLAIM), (1, Slot::Final)]));
    log.gone(1, CLAIM);
    assert_eq!(log.anybodys(&[]), keys(&[(1, Slot::Final)]));
}

#[test]
fn claims_without_a_session_go_when_their_node_is_fenced() {
    let mut log = Log::new();
    log.h(1);
    assert_eq!(log.anybodys(&[]), keys(&[]));
    assert_eq!(log.anybodys(&[1]), keys(&[(1, CLAIM)]));
}

#[test]
fn a_set_with_wills_to_publish_is_not_removed() {
    let will = Will { nonce: nonce(1), delay_s: 0, publish: Box::default() };
    let due = vec![DueWill { will, from: crate::ledger::ids::Origin::default() }];
    let mut log = Log::new();
    let _ = (log.h(1), log.f(1), log.set(1, 1, &SessionState { due, ..deleted() }));
    assert_eq!(log.anybodys(&[1]), keys(&[]));
    log.part(1, 2, &Part::Due(Vec::new()));
    assert_eq!(log.anybodys(&[1]), keys(&[(1, Slot::Part(PartKind::Due)), (1, SET)]));
}

#[test]
fn a_watermark_goes_when_its_node_is_fenced_and_nothing_refers_to_it() {
    let mut log = Log::new();
    let w = |n| vec![record::watermark_key(incarnation(n))];
    log.w(1, &[(HERE, 1)]);
    assert_eq!(log.anybodys(&[]), keys(&[]));
    assert_eq!(log.anybodys(&[1]), w(1));
    let _ = (log.h(1), log.set(1, 1, &named("one")));
    assert_eq!(log.anybodys(&[1]), keys(&[]), "a set of that node");
    assert!(log.sessions.names(incarnation(1)));
    let unresolved = Unresolved {
        nonce: nonce(1),
        incarnation: incarnation(1),
        high: 0,
        pending: Vec::new(),
        released: Vec::new(),
        looked: Vec::new(),
    };
    let inbound = Inbound { unresolved: vec![unresolved], ..Inbound::default() };
    let _ = (log.h(2), log.set(2, 1, &SessionState { inbound: inbound.clone(), ..named("two") }));
    let _ = (log.gone(1, SET), log.gone(1, CLAIM));
    assert_eq!(log.anybodys(&[1]), keys(&[]), "tokens are still to be looked up");
    log.set(2, 2, &named("two"));
    assert_eq!(log.anybodys(&[1]), w(1));
    log.part(2, 3, &Part::Inbound(inbound));
    assert_eq!(log.anybodys(&[1]), keys(&[]), "also in a part");
    log.part(2, 4, &Part::Inbound(Inbound::default()));
    assert_eq!(log.anybodys(&[1]), w(1));
    log.tidy(&[1]);
    assert!(!log.sessions.names(incarnation(1)));
    assert!(log.sessions.names(incarnation(2)));
}
