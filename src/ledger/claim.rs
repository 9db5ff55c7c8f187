//! One claim of a session, from its record to its end: what its node may do, given what the own tail passed.

use super::ids::Epoch;
use super::rules::{Rule, Rules};

/// Where a claim is.
///
/// ```text
///                  own claim applied (F2)            own set read back (F5)
///   Claiming ─────────────────────────────▶ Setting ────────────────────────▶ Owning ◀─┐
///      │  │                                    │                              │ │ │    │ write,
///      │  │ own claim applied, nothing to set  │                              │ │ └────┘ read back
///      │  └────────────────────────────────────┼─────────────▶ Owning         │ │
///      │ own claim applied,                    │ foreign claim    foreign claim │ end: write S{deleted} (F10)
///      │ does not count (K1)                   ▼                              │ ▼
///      ▼                                    Fenced ◀──────────────────────────┴ Ending
///    Void                                   (F6)  ◀──── foreign claim ─────────── │ read back
///                                                                                 ▼
///                                                                               Ended
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
            State::Owning { epoch } => {
                self.version += 1;
                self.state = State::Ending { epoch, version: self.version };
                Decision::WriteDeleted { epoch, version: self.version }
            }
            State::Claiming
            | State::Setting { .. }
            | State::Ending { .. }
            | State::Ended
            | State::Fenced
            | State::Void => Decision::Refuse,
        }
    }
}
