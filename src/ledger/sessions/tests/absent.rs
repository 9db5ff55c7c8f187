//! Which sessions need a keeper, and when.

use super::*;

fn will(delay_s: u32) -> Will {
    Will { nonce: nonce(1), delay_s, publish: Box::default() }
}

fn connected(expiry_s: u32) -> SessionState {
    SessionState { expiry_s, ..SessionState::default() }
}

fn absent(log: &Log, log_ms: i64, gone: &[u8]) -> Vec<(Nonce, Option<i64>)> {
    let gone = |node| gone.iter().any(|n| incarnation(*n) == node).then_some(i64::MIN);
    log.sessions.absent(log_ms, &gone).map(|absent| (absent.owner, absent.due_ms)).collect()
}

#[test]
fn a_disconnected_session_is_due_when_it_expires() {
    let mut log = Log::new();
    log.h(1);
    log.set(1, 1, &named("car"));
    log.set(1, 2, &disconnected(5, 1_000));
    assert_eq!(absent(&log, 5_999, &[]), []);
    assert_eq!(absent(&log, 6_000, &[]), [(nonce(1), Some(6_000))]);
    log.set(1, 3, &disconnected(5, 0));
    assert_eq!(absent(&log, 10_000, &[]), [(nonce(1), Some(ms(4) + 5_000))], "since the record was appended");
    log.set(1, 4, &disconnected(u32::MAX, 0));
    assert_eq!(absent(&log, i64::MAX, &[]), [], "for ever");
}

#[test]
fn a_will_is_due_after_its_delay_or_at_the_sessions_end() {
    let mut log = Log::new();
    log.h(1);
    for (version, delay_s, expiry_s, due_ms) in [(1, 3, 60, 4_000), (2, 60, 3, 4_000), (3, 60, u32::MAX, 61_000)] {
        let state = SessionState { will: Some(will(delay_s)), ..disconnected(expiry_s, 1_000) };
        log.set(1, version, &state);
        let found: Vec<_> = log.sessions.due(i64::MAX).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].due_ms, found[0].will_delay_s), (Some(due_ms), Some(delay_s)));
        assert_eq!((found[0].since_ms, found[0].expiry_s), (1_000, expiry_s));
    }
}

#[test]
fn a_will_that_is_due_is_due_at_once_also_of_a_session_that_ended() {
    let due = || vec![DueWill { will: will(9), from: crate::ledger::ids::Origin::default() }];
    for state in [disconnected(u32::MAX, 1_000), disconnected(60, 1_000), deleted()] {
        let mut log = Log::new();
        log.h(1);
        log.set(1, 1, &SessionState { due: due(), ..state.clone() });
        let since_ms = if state.life == Life::Deleted { ms(2) } else { 1_000 };
        assert_eq!(absent(&log, since_ms, &[]), [(nonce(1), Some(since_ms))]);
        assert!(log.sessions.absent_of(&car()).unwrap().has_due);
        log.part(1, 2, &Part::Due(Vec::new()));
        assert_eq!(absent(&log, since_ms, &[]), [], "the younger part says that it was published");
        log.part(1, 3, &Part::Due(due()));
        assert_eq!(absent(&log, since_ms, &[]).len(), 1);
    }
}

#[test]
fn sessions_of_a_node_that_is_gone_need_a_keeper() {
    let mut log = Log::new();
    log.h(1);
    assert_eq!(absent(&log, 0, &[1]), [], "there is no session yet");
    log.set(1, 1, &connected(60));
    assert_eq!(absent(&log, i64::MAX, &[]), [], "it is connected");
    assert_eq!(absent(&log, 0, &[1]), [(nonce(1), None)]);
    assert_eq!(log.sessions.holders().collect::<Vec<_>>(), [incarnation(1)]);
    log.h(2);
    assert_eq!(absent(&log, 0, &[1]), [], "another node claimed it");
    assert_eq!(absent(&log, 0, &[2]), [(nonce(2), None)], "and died before it wrote its set");
    assert_eq!(log.sessions.held_by(incarnation(2)).next().unwrap().owner, nonce(2));
    log.set(2, 1, &disconnected(u32::MAX, 0));
    assert_eq!(absent(&log, i64::MAX, &[1, 2]), [], "nothing is to be done for it, ever");
    assert_eq!(log.sessions.holders().count(), 0);
}

#[test]
fn sessions_of_a_node_that_is_gone_are_looked_at_when_something_is_due() {
    let due = |log: &Log, log_ms| log.sessions.absent(log_ms, &|_| Some(1_000)).count();
    let due_will = DueWill { will: will(9), from: crate::ledger::ids::Origin::default() };
    for (state, due_ms) in [
        (connected(5), 6_000),
        (SessionState { will: Some(will(2)), ..connected(5) }, 3_000),
        (SessionState { will: Some(will(9)), ..connected(5) }, 6_000),
        (SessionState { will: Some(will(2)), ..connected(u32::MAX) }, 3_000),
        (SessionState { due: vec![due_will], ..connected(5) }, 1_000),
    ] {
        let mut log = Log::new();
        let _ = (log.h(1), log.set(1, 1, &state));
        assert_eq!((due(&log, due_ms - 1), due(&log, due_ms)), (0, 1), "{state:?}");
        log.set(1, 2, &connected(u32::MAX));
        assert_eq!(due(&log, i64::MAX), 0, "never");
        log.h(2);
        assert_eq!(due(&log, 1_000), 1, "the claimant's set does not say anything yet");
    }
}

#[test]
fn a_disconnected_session_that_was_claimed_is_the_claimants() {
    let mut log = Log::new();
    let _ = (log.h(1), log.set(1, 1, &disconnected(1, 1)));
    log.k(2, 1);
    assert_eq!(absent(&log, i64::MAX, &[]), []);
    assert_eq!(absent(&log, 0, &[2]), [(nonce(2), None)], "the keeper died");
    assert!(log.sessions.absent_of(&car()).unwrap().due_ms.is_none());
}

#[test]
fn a_session_that_ended_needs_nobody() {
    let mut log = Log::new();
    let _ = (log.h(1), log.set(1, 1, &deleted()));
    assert_eq!(absent(&log, i64::MAX, &[1]), []);
}

#[test]
fn what_is_due_comes_earliest_first() {
    let mut sessions = Sessions::default();
    for (n, expiry_s) in [(1_u8, 7_u32), (2, 3), (3, 5)] {
        let client = ClientKey::new("", &format!("car{n}"));
        sessions.apply(n.into(), 0, &key(&client, nonce(n), Slot::Claim), Some(&record::claim(incarnation(n))));
        let epoch = sessions.epoch_of(&client, nonce(n)).unwrap();
        let set = record::set(epoch, incarnation(n), 1, &disconnected(expiry_s, 1_000));
        sessions.apply(i64::from(n) + 10, 0, &key(&client, nonce(n), Slot::Set), Some(&set));
    }
    assert_eq!(sessions.due(i64::MAX).map(|absent| absent.owner).collect::<Vec<_>>(), [2, 3, 1].map(nonce));
    assert_eq!(sessions.due(6_000).count(), 2);
}
