//! What a session asks of the node about its life beyond the connection, and what it is told.

use super::{OwnedPublish, look_up};
use crate::ledger::ids::{Incarnation, Nonce, Origin};
use crate::ledger::state::{Inbound, SessionState, Unresolved};
use crate::mqtt::{ClientId, PacketId};

/// What a CONNECT asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Whose session.
    pub client_id: ClientId,
    /// The session that is there is to end first.
    pub clean_start: bool,
    /// Seconds that the session is to outlive the connection, within what is granted; `u32::MAX`: for ever.
    pub expiry_s: u32,
    /// To be published when the connection ends without a normal DISCONNECT.
    pub will: Option<WishedWill>,
    /// Who the client was authenticated as. Empty: whoever claims the session fills it in.
    pub identity: Box<str>,
    /// The server made the client id: nobody else can know it.
    pub assigned: bool,
}

impl Wish {
    /// Whether a claim must be written: not for a session that nobody could ever take over or miss.
    pub fn needs_claim(&self) -> bool {
        !(self.assigned && self.expiry_s == 0 && self.will.is_none())
    }
}

/// The will of a CONNECT.
#[derive(Clone, Debug)]
pub struct WishedWill {
    /// Will Delay Interval, seconds.
    pub delay_s: u32,
    /// What to publish.
    pub publish: OwnedPublish,
}

/// The session is the connection's.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Names the claim.
    pub nonce: Nonce,
    /// Session Present of CONNACK.
    pub session_present: bool,
    /// What was inherited, or a new session's state.
    pub state: Box<SessionState>,
    /// No lower nonce is open: nothing of an earlier connection can still reach the log (F11).
    pub settled: bool,
}

/// Nonces in doubt that a session remembers. Each is a node that died with the session's connection; the oldest is
/// forgotten, and what its client sends again after so many deaths may be in the log twice.
const UNRESOLVED_MAX: usize = 16;

/// What the next nonce inherits of `nonce`'s QoS 2 from the client: what it held, and the duty to look for its tokens.
pub fn succeed(inbound: Inbound, nonce: Nonce, incarnation: Incarnation) -> Inbound {
    let Inbound { high, held, pending, mut unresolved } = inbound;
    if unresolved.len() >= UNRESOLVED_MAX {
        unresolved.remove(0);
    }
    unresolved.push(Unresolved { nonce, incarnation, high, pending, released: Vec::new(), looked: Vec::new() });
    Inbound { high: 0, held, pending: Vec::new(), unresolved }
}

/// Of the nonces in doubt, takes out those that said their last word: what they hold is held. So only nodes that died leave
/// some.
pub fn believe_ended(inbound: &mut Inbound, ended: &[(Nonce, Option<Inbound>)]) {
    for packet_id in look_up::settle(&mut inbound.unresolved, ended) {
        if let Err(index) = inbound.held.binary_search(&packet_id) {
            inbound.held.insert(index, packet_id);
        }
    }
}

/// How a connection ended, as far as the session is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartCause {
    /// The client said so: no will.
    Normal,
    /// Anything else: the will is due.
    Broken,
    /// This node shuts down: no will.
    Drained,
    /// Another claim won.
    Fenced,
}

/// What a connection leaves behind.
#[derive(Clone, Debug)]
pub struct Parting {
    /// How it ended.
    pub cause: PartCause,
    /// The session's state. [`SessionState::life`] says disconnected, unless fenced; an expiry of 0 means that it is to
    /// end. The will is there only if it is due. [`SessionState::due`] is as it was granted. The identity is not there if
    /// the session has neither a future nor a will.
    /// The position is filled in on the way: [`Parting::unacked`] lowers it and becomes its `in_flight`.
    pub state: SessionState,
    /// Messages with QoS 1 that were sent and not acknowledged, in the order sent.
    pub unacked: Vec<(PacketId, Origin)>,
    /// Appends that have no outcome yet.
    pub outstanding: Vec<Outstanding>,
    /// Appends whose outcome is unknown: they may land as long as this node is not fenced.
    pub unknown: usize,
}

/// An append that outlived its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// Names it in [`super::Input::Appended`].
    pub sequence: u64,
    /// Number and packet id of its token, for QoS 2.
    pub token: Option<(u32, PacketId)>,
}
