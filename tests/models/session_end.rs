//! The end of a session, F10: no state set written late by an older nonce may bring an ended session back.
//!
//! ```text
//! State      nonces 1 .. older: zombies that claimed, one after the other, before the ender; each may have one `live` set
//!            in flight (or never write one). Then the ender claims: it resumes and ends the session (expiry, DISCONNECT
//!            with expiry 0), or it is a CONNECT with clean start and a session without state. A janitor (any node,
//!            possibly one that just started and knows only the compacted log) tombstones. A last CONNECT may come at any
//!            time after.
//! Keys       (H, nonce), (S, nonce), (F, nonce): one record each, so the log is the set of keys that compaction leaves.
//! Adversary  late sets land at any time until their node is fenced; F9 or F happens at any time, also never before the
//!            client is told; the ender stops at any step (then the janitor goes on); tombstones land late.
//! Rules      F8  a session exists if a live set is the set of the highest epoch present
//!            F10a every session end and every clean start over an existing set writes S{deleted} with its own epoch,
//!                 reads it back, and only then tells the client
//!            F10b S{deleted} is tombstoned only when every lower nonce is final (F) or fenced (F9) AND no lower set is
//!                 present
//!            F10c `every lower nonce` must be computable from the last record per key: the key of H has the nonce in it,
//!                 and H (with its F) is tombstoned only when its nonce is final or fenced and either an H of higher
//!                 offset has its set read back (F7, K3 of `fence`) or - here - no set of the session is left
//! Property   stays_ended  after the client was told, no reader of the compacted log finds a live set of an older nonce
//!            clean        at rest no key of the ended session is left
//! Must pass  good (resume and end), good (clean start)
//! Must fail  as_written (tombstone of the deleted set at once), fenced_only (does not look whether a lower key is
//!            present), no_deleted_set (clean start writes nothing), one_key_for_h (the janitor does not know a nonce
//!            whose H was compacted away)
//! ```

use crate::search::{Model, Steps, fails, passes};
use crate::small::Set;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Good,
    AsWritten,
    FencedOnly,
    NoDeletedSet,
    OneKeyForH,
}
use Variant::{AsWritten, FencedOnly, Good, NoDeletedSet, OneKeyForH};

struct SessionEnd {
    variant: Variant,
    older: u8,
    clean_start: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Claimed,
    /// The ender's live set is written.
    Live,
    /// The ender's deleted set is written.
    Clean,
    Ended,
    /// A later CONNECT has a new session.
    Next,
}

/// The keys of the log, and what is on its way there. Nonce 0 is nobody.
#[derive(Clone, Copy, Hash)]
struct State {
    claims: Set,
    live: Set,
    deleted: Set,
    /// Live sets of older nonces in flight.
    late: Set,
    /// Tombstones in flight: of claims, of sets.
    claim_tombstones: Set,
    set_tombstones: Set,
    /// Final or fenced.
    done: Set,
    phase: Phase,
    told: bool,
}

impl State {
    fn with_live(&self, nonce: u8) -> Self {
        State { live: self.live.with(nonce), deleted: self.deleted.without(nonce), ..*self }
    }

    fn with_deleted(&self, nonce: u8) -> Self {
        State { live: self.live.without(nonce), deleted: self.deleted.with(nonce), ..*self }
    }

    /// The nonces that have a set, from the lowest on.
    fn sets(&self) -> impl DoubleEndedIterator<Item = u8> {
        self.live.or(self.deleted).iter()
    }
}

impl Model for SessionEnd {
    type State = State;

    fn initial(&self) -> State {
        let older = (1..=self.older).fold(Set::default(), Set::with);
        let none = Set::default();
        State {
            claims: older,
            live: none,
            deleted: none,
            late: older,
            claim_tombstones: none,
            set_tombstones: none,
            done: none,
            phase: Phase::Start,
            told: false,
        }
    }

    fn steps(&self, state: &State, out: &mut Steps<State>) {
        for nonce in state.late.iter() {
            let next = State { late: state.late.without(nonce), ..*state };
            if state.done.has(nonce) {
                out.will(next, || format!("late set of {nonce} is refused"));
            } else {
                let next = next.with_live(nonce);
                out.step(state.phase == Phase::Ended, next, || format!("late set of {nonce} lands"));
            }
        }
        for nonce in state.claim_tombstones.iter() {
            let claim_tombstones = state.claim_tombstones.without(nonce);
            let next = State { claims: state.claims.without(nonce), claim_tombstones, ..*state };
            out.will(next, || format!("tombstone H{nonce} lands"));
        }
        for nonce in state.set_tombstones.iter() {
            let (live, deleted) = (state.live.without(nonce), state.deleted.without(nonce));
            let next = State { live, deleted, set_tombstones: state.set_tombstones.without(nonce), ..*state };
            out.will(next, || format!("tombstone S{nonce} lands"));
        }
        for nonce in (1..=self.older).filter(|nonce| !state.done.has(*nonce)) {
            let next = State { done: state.done.with(nonce), ..*state };
            out.will(next, || format!("{nonce} is final or fenced"));
        }
        self.ender(state, out);
        if matches!(state.phase, Phase::Ended | Phase::Next) {
            self.janitor(state, out);
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        let highest = state.sets().next_back()?;
        let back = state.told && state.live.has(highest) && highest <= self.older;
        back.then(|| format!("RESURRECTED: a new CONNECT would resume the set of nonce {highest}"))
    }

    fn at_rest(&self, state: &State) -> Option<String> {
        let litter = !state.claims.is_empty() || state.sets().next().is_some();
        (state.phase == Phase::Ended && litter).then(|| "LITTER".to_owned())
    }
}

impl SessionEnd {
    fn ender(&self, state: &State, out: &mut Steps<State>) {
        let ender = self.older + 1;
        let at_end = State { phase: Phase::Ended, told: true, ..*state };
        match state.phase {
            Phase::Start => {
                let next = State { claims: state.claims.with(ender), phase: Phase::Claimed, ..*state };
                out.will(next, || "ender claims".to_owned());
            }
            Phase::Claimed if self.clean_start && self.variant == NoDeletedSet => {
                out.will(at_end, || "ender tells: new session".to_owned());
            }
            Phase::Claimed if self.clean_start => {
                let next = State { phase: Phase::Clean, ..state.with_deleted(ender) };
                out.will(next, || "ender writes its set, deleted".to_owned());
            }
            Phase::Claimed => {
                let next = State { phase: Phase::Live, ..state.with_live(ender) };
                out.will(next, || "ender writes its set".to_owned());
            }
            Phase::Live => {
                let next = State { phase: Phase::Clean, ..state.with_deleted(ender) };
                out.will(next, || "session ends, S{deleted}".to_owned());
            }
            Phase::Clean => out.will(at_end, || "read back, client is told".to_owned()),
            Phase::Ended => {
                let next = State { phase: Phase::Next, ..state.with_live(ender + 1) };
                out.may(next, || "a later CONNECT, new session".to_owned());
            }
            Phase::Next => {}
        }
    }

    fn janitor(&self, state: &State, out: &mut Steps<State>) {
        let ender = self.older + 1;
        let sets = || state.sets().take_while(|nonce| *nonce <= ender);
        let only_the_enders = sets().eq([ender]);
        let mut lower = state.claims.iter().take_while(|nonce| *nonce < ender);
        let mut lower_sets = sets().take_while(|nonce| *nonce < ender);
        let known_are_done = if self.variant == OneKeyForH {
            lower_sets.all(|nonce| state.done.has(nonce))
        } else {
            lower.all(|nonce| state.done.has(nonce))
        };
        let may_bury_the_last = known_are_done && (only_the_enders || self.variant == FencedOnly); // F10b
        let careless = matches!(self.variant, AsWritten | NoDeletedSet);
        for nonce in sets().filter(|nonce| !state.set_tombstones.has(*nonce)) {
            if nonce < ender || may_bury_the_last || careless {
                let next = State { set_tombstones: state.set_tombstones.with(nonce), ..*state };
                out.will(next, || format!("tombstones S{nonce}"));
            }
        }
        for nonce in state.claims.iter().filter(|nonce| *nonce <= ender && !state.claim_tombstones.has(*nonce)) {
            let unneeded = sets().next().is_none() && (state.done.has(nonce) || nonce == ender); // F10c
            if unneeded || (self.variant == OneKeyForH && nonce < ender) {
                let next = State { claim_tombstones: state.claim_tombstones.with(nonce), ..*state };
                out.will(next, || format!("tombstones H{nonce}"));
            }
        }
    }
}

fn session_end(variant: Variant, older: u8, clean_start: bool) -> SessionEnd {
    SessionEnd { variant, older, clean_start }
}

mod good {
    use super::*;

    #[test]
    fn resume_and_end_after_two() {
        passes(&session_end(Good, 2, false), 452);
    }

    #[test]
    fn clean_start_after_two() {
        passes(&session_end(Good, 2, true), 427);
    }

    #[test]
    fn clean_start_after_three() {
        passes(&session_end(Good, 3, true), 2711);
    }
}

mod broken {
    use super::*;

    #[test]
    fn as_written() {
        fails(&session_end(AsWritten, 2, false), "RESURRECTED", 7);
    }

    #[test]
    fn fenced_only() {
        fails(&session_end(FencedOnly, 2, false), "RESURRECTED", 9);
    }

    #[test]
    fn no_deleted_set() {
        fails(&session_end(NoDeletedSet, 2, true), "RESURRECTED", 3);
    }

    #[test]
    fn one_key_for_h() {
        fails(&session_end(OneKeyForH, 2, false), "RESURRECTED", 7);
    }
}
