//! One claim of a session, from its record to its end: what its node may do, given what the own tail passed.

use super::ids::Epoch;
use super::rules::{Rule, Rules};

/// Where a claim is.
///
/// ```text
/// Claiming ─┬─ own claim (F2) ──▶ Setting ─┬─ read back (F5) ──▶ Owning ─┬─ end (F10) ──▶ Ending ─┬─ read back ──▶ Ended
///           │                              │                     │ ▲     │                        │
///           ├─ own claim, nothing          ├─ end ──▶ Ending     └─┘     │                        │
///           │  to set ──▶ Owning           │                   write,    │                        │
///           │                              │                  read back  │                        │
///           └─ own claim does              └─ foreign claim              └─ foreign claim         └─ foreign claim
///              not count (K1)                 ▼                             ▼                        ▼
///              ▼                              Fenced (F6)                   Fenced (F6)              Fenced (F6)
///              Void
/// ```
///
/// From Void, Fenced and Ended no way leads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The claim was handed to Kafka.
    Claiming,
    /// It owns the session; its first set was handed to Kafka.
    Setting {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The session is its own.
    Owning {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The session ends; the set that says so was handed to Kafka.
    Ending {
        /// Its epoch.
        epoch: Epoch,
        /// The version of that set.
        version: u32,
    },
    /// The session ended; who waits for it was told.
    Ended,
    /// Another claim won (F6).
    Fenced,
    /// A keeper's claim that came too late (K1).
    Void,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The own claim was applied.
    OwnClaim {
        /// The epoch of the nonce.
        epoch: Epoch,
        /// It owns the session.
        counted: bool,
        /// There is a set to write before the session may be used: it inherited one, or the session is to last.
        needs_set: bool,
    },
    /// A claim of another nonce was applied.
    ForeignClaim {
        /// It owns the session.
        counted: bool,
    },
    /// A record of state of the own nonce was applied.
    ReadBack {
        /// Its version.
        version: u32,
    },
    /// Somebody wants to change the session's state.
    Write,
    /// The session is to end.
    End,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Nothing,
    /// Look what is inherited as of now, and write the first set.
    WriteSet {
        /// The epoch to write.
        epoch: Epoch,
        /// The version to write.
        version: u32,
    },
    /// Write the record.
    Write {
        /// The epoch to write.
        epoch: Epoch,
        /// The version to write.
        version: u32,
    },
    /// Write the set that says that the session ended.
    WriteDeleted {
        /// The epoch to write.
        epoch: Epoch,
        /// The version to write.
        version: u32,
    },
    /// The world may be told what depends on this version and those before it. After [`Event::OwnClaim`] and after the
    /// first set: the session may be used. After S{deleted}: it ended.
    Told {
        /// Up to which version.
        version: u32,
    },
    /// It owns nothing: nothing may be written.
    Refuse,
    /// Another claim won: close the connection, let appends that Kafka has end, then write F (V5).
    Fenced,
    /// It never owned anything: nothing may be done, not even F is needed.
    Void,
}

/// One claim.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    state: State,
    /// The version that was handed to Kafka last; 0 for none.
    version: u32,
    rules: Rules,
}

impl Claim {
    /// The claim was handed to Kafka. `rules` is [`Rules::ALL`] outside simulations.
    pub const fn new(rules: Rules) -> Self {
        Self { state: State::Claiming, version: 0, rules }
    }

    /// Where it is.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Its epoch, while it owns the session.
    pub const fn epoch(&self) -> Option<Epoch> {
        match self.state {
            State::Setting { epoch } | State::Owning { epoch } | State::Ending { epoch, .. } => Some(epoch),
            State::Claiming | State::Ended | State::Fenced | State::Void => None,
        }
    }

    /// Takes what happened, in the order of the log.
    pub fn handle(&mut self, event: Event) -> Decision {
        match event {
            Event::OwnClaim { epoch, counted, needs_set } => self.on_own_claim(epoch, counted, needs_set),
            Event::ForeignClaim { counted } => self.on_foreign_claim(counted),
            Event::ReadBack { version } => self.on_read_back(version),
            Event::Write => self.on_write(),
            Event::End => self.on_end(),
        }
    }

    fn on_own_claim(&mut self, epoch: Epoch, counted: bool, needs_set: bool) -> Decision {
        match self.state {
            State::Claiming if !counted && self.rules.holds(Rule::K1) => {
                self.state = State::Void;
                Decision::Void
            }
            State::Claiming if needs_set => {
                self.state = State::Setting { epoch };
                self.version += 1;
                Decision::WriteSet { epoch, version: self.version }
            }
            State::Claiming => {
                self.state = State::Owning { epoch };
                Decision::Told { version: self.version }
            }
            // The same record once more: as an owner it stays owner, fenced it stays fenced (F6).
            State::Fenced if !self.rules.holds(Rule::F6) => {
                self.state = State::Owning { epoch };
                Decision::Nothing
            }
            State::Setting { .. }
            | State::Owning { .. }
            | State::Ending { .. }
            | State::Ended
            | State::Fenced
            | State::Void => Decision::Nothing,
        }
    }

    fn on_foreign_claim(&mut self, counted: bool) -> Decision {
        match self.state {
            State::Setting { .. } | State::Owning { .. } | State::Ending { .. } if counted => {
                self.state = State::Fenced;
                Decision::Fenced
            }
            // Before the own claim others come and go: the own comes later and decides.
            State::Claiming
            | State::Setting { .. }
            | State::Owning { .. }
            | State::Ending { .. }
            | State::Ended
            | State::Fenced
            | State::Void => Decision::Nothing,
        }
    }

    fn on_read_back(&mut self, version: u32) -> Decision {
        match self.state {
            State::Setting { epoch } => {
                self.state = State::Owning { epoch };
                Decision::Told { version }
            }
            State::Owning { .. } => Decision::Told { version },
            State::Ending { version: last, .. } => {
                if version == last {
                    self.state = State::Ended;
                }
                Decision::Told { version }
            }
            State::Fenced if !self.rules.holds(Rule::F5) => Decision::Told { version },
            State::Claiming | State::Ended | State::Fenced | State::Void => Decision::Nothing,
        }
    }

    fn on_write(&mut self) -> Decision {
        match self.state {
            State::Owning { epoch } => {
                self.version += 1;
                Decision::Write { epoch, version: self.version }
            }
            State::Claiming
            | State::Setting { .. }
            | State::Ending { .. }
            | State::Ended
            | State::Fenced
            | State::Void => Decision::Refuse,
        }
    }

    fn on_end(&mut self) -> Decision {
        match self.state {
            // The set that ends the session is complete in itself: it need not wait for the first.
            State::Setting { epoch } | State::Owning { epoch } => {
                self.version += 1;
                self.state = State::Ending { epoch, version: self.version };
                Decision::WriteDeleted { epoch, version: self.version }
            }
            State::Claiming | State::Ending { .. } | State::Ended | State::Fenced | State::Void => Decision::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Epoch = Epoch { generation: 0, offset: 7 };
    const OWN: Event = Event::OwnClaim { epoch: EPOCH, counted: true, needs_set: true };
    const FOREIGN: Event = Event::ForeignClaim { counted: true };
    const VOID: Event = Event::ForeignClaim { counted: false };

    fn read_back(version: u32) -> Event {
        Event::ReadBack { version }
    }

    /// A claim to which this happened.
    fn after(events: &[Event]) -> Claim {
        let mut claim = Claim::new(Rules::ALL);
        for event in events {
            claim.handle(*event);
        }
        claim
    }

    #[test]
    fn the_world_is_told_when_the_own_set_was_read_back() {
        let mut claim = Claim::new(Rules::ALL);
        assert_eq!(claim.handle(OWN), Decision::WriteSet { epoch: EPOCH, version: 1 });
        assert_eq!(claim.state(), State::Setting { epoch: EPOCH });
        assert_eq!(claim.handle(Event::Write), Decision::Refuse, "F4: nothing comes before the set");
        assert_eq!(claim.handle(read_back(1)), Decision::Told { version: 1 });
        assert_eq!(claim.handle(Event::Write), Decision::Write { epoch: EPOCH, version: 2 });
        assert_eq!(claim.handle(Event::Write), Decision::Write { epoch: EPOCH, version: 3 });
        assert_eq!(claim.handle(read_back(2)), Decision::Told { version: 2 });
        assert_eq!(claim.epoch(), Some(EPOCH));
    }

    #[test]
    fn without_anything_to_set_the_claim_alone_is_enough() {
        let mut claim = Claim::new(Rules::ALL);
        let own = Event::OwnClaim { epoch: EPOCH, counted: true, needs_set: false };
        assert_eq!(claim.handle(own), Decision::Told { version: 0 });
        assert_eq!(claim.state(), State::Owning { epoch: EPOCH });
    }

    #[test]
    fn claims_before_the_own_are_nobodys_business() {
        assert_eq!(Claim::new(Rules::ALL).handle(FOREIGN), Decision::Nothing);
        assert_eq!(after(&[FOREIGN, OWN]).state(), State::Setting { epoch: EPOCH });
        assert_eq!(after(&[]).handle(Event::Write), Decision::Refuse, "F2");
    }

    #[test]
    fn a_foreign_claim_fences_for_ever() {
        for before in [&[OWN][..], &[OWN, read_back(1)], &[OWN, read_back(1), Event::End]] {
            let mut claim = after(before);
            assert_eq!(claim.handle(VOID), Decision::Nothing, "K1");
            assert_eq!(claim.handle(FOREIGN), Decision::Fenced);
            for (event, decision) in [
                (read_back(1), Decision::Nothing),
                (OWN, Decision::Nothing),
                (FOREIGN, Decision::Nothing),
                (Event::Write, Decision::Refuse),
                (Event::End, Decision::Refuse),
            ] {
                assert_eq!((claim.handle(event), claim.state()), (decision, State::Fenced), "F5, F6: {event:?}");
            }
        }
    }

    #[test]
    fn a_repeated_own_claim_changes_nothing() {
        for before in [&[OWN][..], &[OWN, read_back(1)], &[OWN, FOREIGN]] {
            let mut claim = after(before);
            let state = claim.state();
            assert_eq!((claim.handle(OWN), claim.state()), (Decision::Nothing, state));
        }
    }

    #[test]
    fn a_keeper_that_came_too_late_does_nothing() {
        let mut claim = Claim::new(Rules::ALL);
        let late = Event::OwnClaim { epoch: EPOCH, counted: false, needs_set: true };
        assert_eq!(claim.handle(late), Decision::Void);
        assert_eq!((claim.handle(Event::Write), claim.handle(FOREIGN)), (Decision::Refuse, Decision::Nothing));
        assert_eq!((claim.state(), claim.epoch()), (State::Void, None));
    }

    #[test]
    fn a_session_ended_when_the_set_that_says_so_was_read_back() {
        let mut claim = after(&[OWN, read_back(1), Event::Write]);
        assert_eq!(claim.handle(Event::End), Decision::WriteDeleted { epoch: EPOCH, version: 3 });
        assert_eq!(claim.handle(Event::Write), Decision::Refuse);
        assert_eq!(claim.handle(read_back(2)), Decision::Told { version: 2 });
        assert_eq!(claim.state(), State::Ending { epoch: EPOCH, version: 3 });
        assert_eq!(claim.handle(read_back(3)), Decision::Told { version: 3 });
        assert_eq!((claim.state(), claim.handle(FOREIGN)), (State::Ended, Decision::Nothing));
        assert_eq!(after(&[OWN, Event::End]).state(), State::Ending { epoch: EPOCH, version: 2 });
    }

    #[test]
    fn each_rule_that_can_be_taken_out_is_missed() {
        let without = |rule, events: &[Event]| {
            let mut claim = Claim::new(Rules::without(rule));
            events.iter().map(|event| claim.handle(*event)).last()
        };
        let told = Some(Decision::Told { version: 1 });
        assert_eq!(without(Rule::F5, &[OWN, FOREIGN, read_back(1)]), told);
        assert_eq!(without(Rule::F6, &[OWN, FOREIGN, OWN, read_back(1)]), told);
        let late = Event::OwnClaim { epoch: EPOCH, counted: false, needs_set: true };
        assert_eq!(without(Rule::K1, &[late, read_back(1)]), told);
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (any::<bool>(), any::<bool>()).prop_map(|(counted, needs_set)| Event::OwnClaim {
                epoch: EPOCH,
                counted,
                needs_set
            }),
            any::<bool>().prop_map(|counted| Event::ForeignClaim { counted }),
            (1..6_u32).prop_map(read_back),
            Just(Event::Write),
            Just(Event::End),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_written_or_told_before_the_own_claim_or_after_the_end(events in proptest::collection::vec(event(), 0..30)) {
            let mut claim = Claim::new(Rules::ALL);
            let mut written = 0;
            for event in events {
                let before = claim.state();
                let acts = match claim.handle(event) {
                    Decision::Nothing | Decision::Refuse | Decision::Void | Decision::Fenced => false,
                    Decision::Told { .. } => true,
                    Decision::WriteSet { version, .. }
                    | Decision::Write { version, .. }
                    | Decision::WriteDeleted { version, .. } => {
                        prop_assert_eq!(version, written + 1);
                        written = version;
                        true
                    }
                };
                match before {
                    State::Claiming => {
                        let is_own = matches!(event, Event::OwnClaim { counted: true, .. });
                        prop_assert!(!acts || is_own);
                    }
                    State::Setting { .. } | State::Owning { .. } | State::Ending { .. } => {}
                    State::Ended | State::Fenced | State::Void => {
                        prop_assert!(!acts);
                        prop_assert_eq!(claim.state(), before);
                    }
                }
            }
        }
    }
}
