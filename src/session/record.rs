//! What a durable session writes while its connection lives: parts of its state. But for positions, which are rare, one
//! record of a kind is on its way at a time, and the next one carries everything newer.
//!
//! ```text
//!            change                 want, write              read back
//! recorded ─────────▶ changed ──────────────────▶ on its way ─────────▶ recorded
//!                        ▲                            │ change
//!                        └────────────────────────────┘
//! ```

use std::collections::VecDeque;

use super::deliver::Recording;
use super::resume::Resumed;
use super::{Effect, Effects, Phase, Session};
use crate::ledger::ids::{Origin, Place};
use crate::ledger::state::{DueWill, OpenDelivery, Part, Position, Will};
use crate::mqtt::PacketId;

/// What only a session has that outlives its connection, has a will or was resumed: most have none of these.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// Seconds that the session outlives its connection; 0: nothing is written.
    pub(super) expiry_s: u32,
    pub(super) identity: Box<str>,
    pub(super) will: Option<Will>,
    /// As it was granted: the node looks after them.
    pub(super) due: Box<[DueWill]>,
    /// The node's watermarks count for this session.
    pub(super) following: bool,
    /// The last position that was told, while the subscriptions are to be written with it.
    pub(super) from: Vec<(Place, i64)>,
    /// What an earlier connection left to be sent again, as long as there is anything.
    pub(super) resumed: Option<Box<Resumed>>,
    /// Of [`crate::ledger::state::Outbound`].
    pub(super) sent_to: Vec<(Place, i64)>,
    /// Messages with QoS 2 that wait for their record.
    pub(super) recording: VecDeque<Recording>,
    /// Ids whose PUBREL waits for its record, in the order of the PUBRECs [MQTT-4.6.0-4].
    pub(super) releasing: VecDeque<(u32, PacketId)>,
    pub(super) last_sequence: u64,
    pub(super) subscriptions: Record,
    pub(super) inbound: Record,
    pub(super) outbound: Record,
}

/// The records of one kind. Versions count the changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    changed: u32,
    wanted: u32,
    written: u32,
    recorded: u32,
    on_its_way: Option<u64>,
}

impl Record {
    /// Notes a change, to be written with the next record. Returns its version.
    pub(super) fn change(&mut self) -> u32 {
        self.changed += 1;
        self.changed
    }

    /// Notes a change that is to be written now.
    pub(super) fn write(&mut self) -> u32 {
        self.wanted = self.change();
        self.changed
    }

    /// Everything so far is to be written now.
    pub(super) fn want(&mut self) {
        self.wanted = self.changed;
    }

    /// Whether the change of this version was read back.
    pub(super) fn is_recorded(&self, version: u32) -> bool {
        version <= self.recorded
    }

    /// True if a record is to be written; it is on its way then.
    fn start(&mut self, next_sequence: u64) -> bool {
        let starts = self.on_its_way.is_none() && self.wanted > self.recorded;
        if starts {
            self.on_its_way = Some(next_sequence);
            self.written = self.changed;
        }
        starts
    }

    /// True if it was the record on its way.
    fn finish(&mut self, sequence: u64) -> bool {
        let mine = self.on_its_way == Some(sequence);
        if mine {
            self.on_its_way = None;
            self.recorded = self.written;
        }
        mine
    }

    fn is_idle(&self) -> bool {
        self.wanted <= self.written
    }
}

impl Durable {
    pub(super) fn is_durable(&self) -> bool {
        self.expiry_s > 0
    }

    /// Open deliveries that were not sent again yet.
    pub(super) fn sent_before(&self) -> &[OpenDelivery] {
        self.resumed.as_deref().map(|resumed| resumed.open.as_slice()).unwrap_or_default()
    }

    fn next_sequence(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }

    /// The position that was told, no further than what is neither acknowledged nor recorded.
    fn position_before(&self, from: &[(Place, i64)], unacked: impl Iterator<Item = Origin>) -> Position {
        let mut from = from.to_vec();
        let again = self.resumed.as_deref().map(|resumed| resumed.in_flight.as_slice()).unwrap_or_default();
        for origin in unacked.chain(again.iter().map(|&(_, origin)| origin)) {
            lower(&mut from, origin);
        }
        Position { following: self.following, from, in_flight: again.to_vec() }
    }
}

/// Takes the position of one place back to `origin`, if it is behind it. Nothing is told of places that are not there.
pub(super) fn lower(from: &mut [(Place, i64)], origin: Origin) {
    if let Ok(index) = from.binary_search_by_key(&origin.place, |&(place, _)| place)
        && let Some((_, offset)) = from.get_mut(index)
    {
        *offset = origin.offset.min(*offset);
    }
}

impl Session {
    /// The session's durable part, if it outlives its connection.
    pub(super) fn durable_mut(&mut self) -> Option<&mut Durable> {
        self.durable.as_deref_mut().filter(|durable| durable.is_durable())
    }

    /// Written at once, whatever is on its way: the node's next watermark waits for it (W3), and nobody else does.
    pub(super) fn on_positions(&mut self, following: bool, from: Vec<(Place, i64)>, effects: &mut Effects) {
        if following {
            self.let_go_caught_up(&from, effects);
        }
        let Some(durable) = self.durable.as_deref_mut().filter(|durable| durable.is_durable()) else { return };
        durable.following = following;
        let position = durable.position_before(&from, self.deliveries.unrecorded());
        effects.push(Effect::Persist { sequence: durable.next_sequence(), part: Part::Position(position) });
        if !durable.subscriptions.is_idle() {
            durable.from = from;
        }
    }

    pub(super) fn on_persisted(&mut self, sequence: u64, effects: &mut Effects) {
        let Some(durable) = self.durable.as_deref_mut() else { return };
        if durable.subscriptions.finish(sequence) {
            self.answer_recorded(effects);
        } else if durable.inbound.finish(sequence) {
            self.complete_recorded(effects);
        } else if durable.outbound.finish(sequence) {
            self.send_recorded(effects);
        }
    }

    /// Writes what is to be written and has no record on its way.
    pub(super) fn write_wanted(&mut self, effects: &mut Effects) {
        let Some(durable) = self.durable.as_deref_mut().filter(|durable| durable.is_durable()) else { return };
        if self.phase != Phase::Connected {
            return;
        }
        if durable.inbound.start(durable.last_sequence + 1) {
            let part = Part::Inbound(self.publishes.inbound_state());
            effects.push(Effect::Persist { sequence: durable.next_sequence(), part });
        }
        if durable.outbound.start(durable.last_sequence + 1) {
            let part = Part::Outbound(self.deliveries.outbound_state(durable.sent_before(), &durable.sent_to));
            effects.push(Effect::Persist { sequence: durable.next_sequence(), part });
        }
        if durable.subscriptions.start(durable.last_sequence + 1) {
            let from = std::mem::take(&mut durable.from);
            let position = durable.position_before(&from, self.deliveries.unrecorded());
            self.subscriptions.forget_passed(&position.from);
            let part = Part::Subscriptions(self.subscriptions.in_force(), position);
            effects.push(Effect::Persist { sequence: durable.next_sequence(), part });
        }
    }
}
