//! Q5: how far W.tokens may rise, and what it says.

use super::Variant::{MarkBeforeLookUp, MarkBeforeReadBack, MarkFifo, MarkIgnoresUnresolved};
use super::{Pending, Phase, Qos2, Record, Server, State};
use crate::search::Steps;

impl Qos2 {
    /// `carried`: a node goes on to write W.tokens when a nonce on it is superseded, because it has other sessions; that
    /// nonce holds it back no longer. W.tokens lands at once, and only if it passes a token of the node: it does more harm
    /// the earlier it lands, and none where it passes nothing.
    pub fn mark_steps(&self, state: &State, host: u8, out: &mut Steps<State>) {
        if state.marked == self.marks {
            return;
        }
        let hosted = || state.servers.numbered().filter(|(me, _)| self.hosts[usize::from(*me)] == host);
        let tokens = state.messages.count();
        let passed = state.messages.since(mark_of(&state.log, host));
        let rises = passed.iter().any(|message| self.host_of(&state.log, message.token.epoch) == host);
        if rises && hosted().all(|(me, server)| self.may_be_passed(state, me, server)) {
            let log = state.log.with(Record::W { of: host, tokens });
            let next = State { log, marked: state.marked + 1, ..*state };
            out.will(next, || format!("node {host} writes W.tokens {tokens}, which lands"));
        }
    }

    /// Q5 for one nonce: may W.tokens of its node rise to the end of M?
    pub fn may_be_passed(&self, state: &State, me: u8, server: Server) -> bool {
        let Some(claim) = server.claim else { return true };
        let superseded = usize::from(superseded_at(&state.log, claim)) < state.log.len();
        if self.carries() && (superseded || server.phase != Phase::Ready) {
            return true;
        }
        let own_set = Record::S { claim, version: server.version, inbound: server.inbound };
        let written = state.log.contains(&own_set) || state.queues.at(me).contains(&own_set);
        let trusted = server.recorded > server.version || matches!(self.variant, MarkFifo | MarkBeforeReadBack);
        let covered = server.inbound.held.is_none() || (written && trusted);
        let settled = match server.pending {
            Some(Pending::Append { .. }) => self.variant == MarkIgnoresUnresolved,
            Some(Pending::Release(_)) => false,
            Some(Pending::LookUp { .. }) | None => true,
        };
        covered && settled && (server.looked || self.carries() || self.variant == MarkBeforeLookUp)
    }

    /// The node of this epoch.
    pub fn host_of(&self, log: &[Record], epoch: u8) -> u8 {
        match log.get(usize::from(epoch)) {
            Some(Record::H { node }) => self.hosts[usize::from(*node)],
            Some(Record::S { .. } | Record::W { .. }) | None => unreachable!("an epoch is the offset of its claim"),
        }
    }
}

/// Where the next claim is after this one, or the end of the log.
pub fn superseded_at(log: &[Record], claim: u8) -> u8 {
    let next = (0..).zip(log).skip(usize::from(claim) + 1).find(|(_, record)| matches!(record, Record::H { .. }));
    next.map_or(u8::try_from(log.len()).unwrap_or(u8::MAX), |(offset, _)| offset)
}

/// The last W.tokens of this claim or node, or 0.
pub fn mark_of(log: &[Record], whose: u8) -> u8 {
    let marks = log.iter().filter_map(|record| match *record {
        Record::W { of, tokens } if of == whose => Some(tokens),
        Record::H { .. } | Record::S { .. } | Record::W { .. } => None,
    });
    marks.max().unwrap_or(0)
}
