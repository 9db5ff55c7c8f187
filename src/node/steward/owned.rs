//! A session that this node claimed, from its claim to the last record about it.
//!
//! ```text
//!            own claim applied     ends known        set read back (F5)
//!  Claiming ───────────▶ Asking ───────────▶ Setting ──────────▶ Serving ──┐ connection ended
//!     │ void, fenced        (only if a will      ▲  │ no connection        ▼
//!     ▼                      became due)         │  └───────────────▶ Publishing   (wills, one after the other)
//!   Closing ◀────────────────────────────────────┴────────────────────────┘ none left
//!     (outcomes of the connection's appends) ──▶ F, gone
//! ```

use std::sync::Arc;

use crate::ledger::claim::{Claim, Decision, Event, State};
use crate::ledger::ids::{Epoch, Nonce};
use crate::ledger::record::ClientKey;
use crate::ledger::rules::Rules;
use crate::ledger::state::SessionState;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::{Mailbox, Notice};
use crate::session::{Parting, Wish};

/// Where it is; the diagram is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The claim was appended.
    Claiming,
    /// The end of a will's partition is asked for (V2).
    Asking,
    /// The own set was appended.
    Setting,
    /// The connection is served.
    Serving,
    /// There is no connection; wills that are due are published, then the last set is written.
    Publishing,
    /// Nothing more is written but F.
    Closing,
}

/// The connection that a session is for.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) id: ConnectionId,
    pub(super) mailbox: Arc<Mailbox>,
}

impl Port {
    pub(super) fn tell(&self, notice: Notice) -> super::effect::Effect {
        super::effect::Effect::Tell { mailbox: Arc::clone(&self.mailbox), notice }
    }
}

/// Who claimed, and for what.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A client's CONNECT.
    Connect(Box<Wish>),
    /// A keeper, because the client is absent; the claim it expects to follow (K1).
    Keep(Nonce),
}

/// A record that waits to be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    /// Of the record.
    pub(super) version: u32,
    /// The session's number for it; none if it is not the session that waits.
    pub(super) sequence: Option<u64>,
    /// Since when, for a fate that stays open.
    pub(super) since_ms: i64,
}

/// One claimed session.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are true independently of each other and of the stage")]
pub(super) struct Owned {
    pub(super) client: ClientKey,
    pub(super) partition: u32,
    pub(super) nonce: Nonce,
    pub(super) purpose: Purpose,
    pub(super) stage: Stage,
    pub(super) port: Option<Port>,
    /// What the rules let it do.
    pub(super) claim: Claim,
    /// Of the own claim, once it was applied.
    pub(super) epoch: Option<Epoch>,
    /// Of the last record.
    pub(super) version: u32,
    /// Of the last position.
    pub(super) position_version: u32,
    /// What the set is made of; the parts that a served session changed are its own.
    pub(super) state: Option<Box<SessionState>>,
    /// A set of this nonce was appended.
    pub(super) has_set: bool,
    /// Session Present, told with the grant.
    pub(super) session_present: bool,
    /// The client was told before the claim was applied (a clean start without anything to end).
    pub(super) told: bool,
    /// It was told that no lower nonce is open.
    pub(super) settled: bool,
    /// Claims of lower nonces were kept because its record calls them unresolved.
    pub(super) unclean: bool,
    /// The log had to be read again while it was owned: whether it is fenced is not known, and it counts as fenced.
    pub(super) given_up: bool,
    /// F was appended, and waits to be read.
    pub(super) said_last: bool,
    /// The client said goodbye, or was sent away: F says so, too.
    pub(super) no_will: bool,
    pub(super) awaited: Vec<Awaited>,
    /// Of the connection that is gone, while appends of it have no outcome.
    pub(super) parting: Option<Box<Parting>>,
    /// An append has an unknown fate: it may still land, so this nonce never becomes final by its own word.
    pub(super) uncertain: bool,
    /// Partitions that are still being looked through for its tokens of unknown fate.
    pub(super) looks_left: usize,
    /// A will was published since the last record.
    pub(super) unrecorded: bool,
    /// The will that is being looked up or appended.
    pub(super) publishing: Option<Publishing>,
    pub(super) claimed_at_ms: i64,
}

/// Where the publication of the first due will is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publishing {
    /// It is looked for.
    LookingUp { scan: u64 },
    /// It was appended.
    Appended { sequence: u64 },
    /// Its fate is open: it stays due, whoever fences this node will look.
    Open,
}

impl Owned {
    pub(super) fn new(
        client: ClientKey,
        partition: u32,
        nonce: Nonce,
        purpose: Purpose,
        rules: Rules,
        now_ms: i64,
    ) -> Self {
        Self {
            client,
            partition,
            nonce,
            purpose,
            stage: Stage::Claiming,
            port: None,
            claim: Claim::new(rules),
            epoch: None,
            version: 0,
            position_version: 0,
            state: None,
            has_set: false,
            session_present: false,
            told: false,
            settled: false,
            unclean: false,
            given_up: false,
            said_last: false,
            no_will: false,
            awaited: Vec::new(),
            parting: None,
            uncertain: false,
            looks_left: 0,
            unrecorded: false,
            publishing: None,
            claimed_at_ms: now_ms,
        }
    }

    /// Whether its parts are recorded.
    pub(super) fn is_durable(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.expiry_s > 0)
    }

    /// Another claim won, or it never counted.
    pub(super) fn is_fenced(&self) -> bool {
        matches!(self.claim.state(), State::Fenced | State::Void)
    }

    /// F6 broken on purpose: who reads an own record takes itself for the owner again.
    pub(super) fn forget_fence(&mut self) {
        if let (true, Some(epoch)) = (self.is_fenced(), self.epoch) {
            self.claim.handle(Event::OwnClaim { epoch, counted: true, needs_set: false });
        }
    }

    /// The version of the next record; a fenced nonce writes only where it stands (W3).
    pub(super) fn next_version(&mut self) -> u32 {
        self.version = match self.claim.handle(Event::Write) {
            Decision::Write { version, .. } => version.max(self.version + 1),
            Decision::Nothing
            | Decision::WriteSet { .. }
            | Decision::WriteDeleted { .. }
            | Decision::Told { .. }
            | Decision::Refuse
            | Decision::Fenced
            | Decision::Void => self.version + 1,
        };
        self.version
    }
}
