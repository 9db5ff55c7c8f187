//! What a connection leaves behind.

use super::connect::Claim;
use super::{AppendOutcome, Outstanding, PartCause, Parting, Phase, Session};
use crate::ledger::state::{Life, SessionState};

impl Session {
    /// What the connection leaves behind, once, after it was closed; `None` if it had no session, or one without a claim.
    pub fn take_parting(&mut self) -> Option<Box<Parting>> {
        if self.phase != Phase::Closed || self.claim != Claim::Granted {
            return None;
        }
        self.claim = Claim::Left;
        let again = self.durable.as_deref().and_then(|durable| durable.resumed.as_deref());
        let again = again.map(|resumed| resumed.in_flight.clone()).unwrap_or_default();
        // All that is written of a fenced session is its position.
        let with_unrecorded = self.part == PartCause::Fenced;
        let unacked = again.into_iter().chain(self.deliveries.unacked(with_unrecorded)).collect();
        Some(Box::new(Parting {
            cause: self.part,
            state: self.state_left(),
            unacked,
            outstanding: self.publishes.outstanding(),
            unknown: self.publishes.unknown(),
        }))
    }

    fn state_left(&mut self) -> SessionState {
        let durable = self.durable.take().map(|durable| *durable).unwrap_or_default();
        let outbound = self.deliveries.outbound_state(durable.sent_before(), &durable.sent_to);
        let (life, will) = match self.part {
            PartCause::Normal | PartCause::Drained => (Life::Disconnected { since_ms: 0 }, None),
            PartCause::Broken => (Life::Disconnected { since_ms: 0 }, durable.will),
            PartCause::Fenced => (Life::Connected, durable.will),
        };
        SessionState {
            expiry_s: durable.expiry_s,
            identity: durable.identity,
            life,
            will,
            due: durable.due.into_vec(),
            subscriptions: self.subscriptions.in_force(),
            inbound: self.publishes.inbound_state(),
            outbound,
            ..SessionState::default()
        }
    }
}

impl Parting {
    /// Takes an outcome that came after the end of the connection; keeps [`SessionState::inbound`] exact.
    pub fn on_appended(&mut self, sequence: u64, outcome: AppendOutcome) {
        let Some(index) = self.outstanding.iter().position(|append| append.sequence == sequence) else { return };
        let Outstanding { token, .. } = self.outstanding.swap_remove(index);
        if outcome == AppendOutcome::Unknown {
            self.unknown += 1;
            return;
        }
        let Some((number, packet_id)) = token else { return };
        let inbound = &mut self.state.inbound;
        inbound.pending.retain(|&(pending, _)| pending != number);
        if outcome == AppendOutcome::Written
            && let Err(index) = inbound.held.binary_search(&packet_id)
        {
            inbound.held.insert(index, packet_id);
        }
    }

    /// Whether nothing of this connection can reach the log any more, and [`SessionState::inbound`] says exactly what did:
    /// the condition of F.
    pub fn is_final(&self) -> bool {
        self.outstanding.is_empty() && self.unknown == 0
    }
}
