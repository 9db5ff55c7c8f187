//! Retain-flagged publishes of unknown fate. A later append of this node in the same partition that was written settles
//! it ([`Outcome::Unknown`]): so a probe is appended, a record that readers drop, and behind it the log is looked through
//! for what is there.

use std::collections::{BTreeMap, BTreeSet};

use super::duties::FoundRetains;
use super::{Answer, RetainedAnswer, Retaining};
use crate::clock;
use crate::journal::{Outcome, Partition, Ticket};
use crate::ledger::retained::Rank;
use crate::ledger::retained::store::Entry;
use crate::ledger::retained::writer::Obligation;
use crate::message::{Header, RecordRef, headers};
use crate::node::retains::Retain;
use crate::node::steward::FENCE_KEY;
use crate::node::writer::RETAINED;
use crate::ops::tasks;

/// From here on a ticket's sequence names a probe.
pub(super) const FIRST_PROBE: u64 = 1 << 63;

/// By partition of messages.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// No probe has followed them yet.
    open: BTreeMap<Partition, BTreeSet<Ticket>>,
    /// A probe follows them, or what is behind it is being looked through.
    probed: BTreeMap<Partition, BTreeSet<Ticket>>,
    probes: BTreeMap<u64, Partition>,
    next: u64,
}

impl Doubts {
    /// Whether a probe is to be appended.
    pub(super) fn is_open(&self) -> bool {
        self.open.keys().any(|partition| !self.probed.contains_key(partition))
    }
}

impl Retaining {
    pub(in crate::node::fanout) fn on_doubt(&mut self, ticket: Ticket, partition: Partition) {
        self.doubts.open.entry(partition).or_default().insert(ticket);
    }

    pub(super) fn probe(&mut self) {
        let doubts = &mut self.doubts;
        let due: Vec<Partition> =
            doubts.open.keys().copied().filter(|partition| !doubts.probed.contains_key(partition)).collect();
        for partition in due {
            let sequence = FIRST_PROBE | doubts.next;
            let fence = [Header { name: headers::FENCE, value: Some(b"") }];
            let record =
                RecordRef { key: Some(FENCE_KEY), value: None, headers: &fence, timestamp_ms: clock::wall_ms() };
            if self.journal.append(Ticket { owner: RETAINED, sequence }, partition, &record).is_ok() {
                doubts.next += 1;
                doubts.probes.insert(sequence, partition);
                let tickets = doubts.open.remove(&partition).unwrap_or_default();
                doubts.probed.insert(partition, tickets);
            }
        }
    }

    pub(super) fn on_probe_outcome(&mut self, sequence: u64, outcome: Outcome) {
        let Some(partition) = self.doubts.probes.remove(&sequence) else { return };
        match outcome {
            Outcome::Written(_) => self.decide(partition),
            Outcome::Refused(_) | Outcome::Unknown => {
                let tickets = self.doubts.probed.remove(&partition).unwrap_or_default();
                self.doubts.open.entry(partition).or_default().extend(tickets);
            }
        }
    }

    /// Below the last mark everything was complete.
    fn decide(&self, partition: Partition) {
        let from = self.mark.iter().copied().collect();
        let belongs = self.partitions().collect();
        let look = self.look_for(self.journal.producer_id(), vec![partition], from, belongs);
        let answers_to = self.answers_to.clone();
        tasks::spawn("retained doubts", async move {
            let Some(found) = look.run().await else { return };
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::Retained(RetainedAnswer::Decided { partition, found })).await;
        });
    }

    pub(super) fn on_decided(&mut self, partition: Partition, found: &FoundRetains) {
        for ticket in self.doubts.probed.remove(&partition).unwrap_or_default() {
            let Some(Retain { message, tick, .. }) = self.retains.take(ticket) else { continue };
            let topic = message.topic();
            // The newest of its topic; what was acknowledged is owed already.
            let Some((origin, message)) = found.get(topic) else { continue };
            let best = self.store.get(topic).map(Entry::best);
            let Some(rank) = Rank::of_found(*origin, best) else { continue };
            let message = (!message.payload().is_empty()).then(|| message.clone());
            self.writer.owe(&self.store, topic, Obligation { rank, message, must_be_last: false, tick });
        }
        self.work();
    }
}
