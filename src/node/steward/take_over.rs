//! What a claim makes of what it finds, as functions of values (F3, F8, F10).

use crate::ledger::ids::{Incarnation, Nonce};
use crate::ledger::sessions::Inherited;
use crate::ledger::state::{Inbound, Life, Position, SessionState, Will};
use crate::mqtt::ReasonCode;
use crate::session::{Wish, succeed};

/// What a claim finds and what it makes of it.
pub(super) struct TakeOver {
    pub(super) state: SessionState,
    pub(super) session_present: bool,
    /// Became due by this claim.
    pub(super) newly_due: Vec<Will>,
    /// The client may not have it.
    pub(super) denied: Option<ReasonCode>,
}

/// F8: a session exists if a live set does.
pub(super) fn is_alive(state: &SessionState) -> bool {
    match state.life {
        Life::Connected | Life::Disconnected { .. } => state.expiry_s > 0,
        Life::Deleted => false,
    }
}

/// When a session that lost its connection at `since_ms` ends; `None`: never.
pub(super) fn expires_at_ms(state: &SessionState, since_ms: i64) -> Option<i64> {
    (state.expiry_s < u32::MAX).then(|| since_ms.saturating_add(i64::from(state.expiry_s) * 1_000))
}

/// What CONNECT asks for, as a new session.
pub(super) fn new_state(wish: &Wish, nonce: Option<Nonce>) -> SessionState {
    let will = wish.will.as_ref().zip(nonce).map(|(will, nonce)| Will {
        nonce,
        delay_s: will.delay_s,
        publish: will.publish.frame().into(),
    });
    SessionState { expiry_s: wish.expiry_s, identity: wish.identity.clone(), will, ..SessionState::default() }
}

/// What CONNECT makes of what it finds (F3, F8, F10).
pub(super) fn take_over(
    wish: &Wish,
    nonce: Nonce,
    found: Option<Inherited>,
    lower_final: Option<Inbound>,
    log_now_ms: i64,
) -> TakeOver {
    let mut state = new_state(wish, Some(nonce));
    let Some(found) = found else {
        return TakeOver { state, session_present: false, newly_due: Vec::new(), denied: None };
    };
    let alive = is_alive(&found.state);
    let since_ms = since_ms(&found);
    let expired = match found.state.life {
        Life::Connected | Life::Deleted => false,
        Life::Disconnected { .. } => expires_at_ms(&found.state, since_ms).is_some_and(|at| at <= log_now_ms),
    };
    if alive && !expired && found.state.identity != wish.identity {
        let mut state = found.state;
        state.life = Life::Disconnected { since_ms };
        let denied = Some(ReasonCode::NotAuthorized);
        return TakeOver { state, session_present: false, newly_due: Vec::new(), denied };
    }
    let resumes = alive && !expired && !wish.clean_start;
    let newly_due = due_by_connect(&found.state, since_ms, resumes, log_now_ms);
    state.due = found.state.due;
    if resumes {
        // It follows again when it has caught up (W1).
        state.subscriptions = found.state.subscriptions;
        state.position = Position { following: false, ..found.state.position };
        state.outbound = found.state.outbound;
        state.inbound = inherit(found.state.inbound, found.nonce, found.incarnation, lower_final);
    }
    if wish.expiry_s == 0 && state.will.is_none() && state.due.is_empty() && newly_due.is_empty() {
        // F10: nothing of it is to be found again.
        state.life = Life::Deleted;
    }
    TakeOver { state, session_present: resumes, newly_due, denied: None }
}

/// MQTT5 §3.1.2.5 and §3.1.3.2.2: a will goes out when the connection ends without DISCONNECT, after its delay or when
/// the session ends; a client that is back before that takes it away.
fn due_by_connect(state: &SessionState, since_ms: i64, resumes: bool, log_now_ms: i64) -> Vec<Will> {
    let Some(will) = &state.will else { return Vec::new() };
    let due = match state.life {
        Life::Connected => will.delay_s == 0 || !resumes,
        Life::Disconnected { .. } => !resumes || since_ms.saturating_add(i64::from(will.delay_s) * 1_000) <= log_now_ms,
        Life::Deleted => false,
    };
    if due { vec![will.clone()] } else { Vec::new() }
}

/// What the new nonce knows of the client's QoS 2 publishes: what is held stays held; the tokens of the nonce before are
/// unresolved, unless it said its last word.
pub(super) fn inherit(before: Inbound, nonce: Nonce, incarnation: Incarnation, last: Option<Inbound>) -> Inbound {
    match last {
        Some(last) if last.pending.is_empty() => {
            Inbound { high: 0, held: last.held, pending: Vec::new(), unresolved: last.unresolved }
        }
        Some(last) => succeed(last, nonce, incarnation),
        None => succeed(before, nonce, incarnation),
    }
}

/// Since when a session's connection is gone, as far as its own records say.
pub(super) fn since_ms(found: &Inherited) -> i64 {
    match found.state.life {
        Life::Disconnected { since_ms } if since_ms > 0 => since_ms,
        Life::Disconnected { .. } | Life::Connected | Life::Deleted => found.append_ms,
    }
}
