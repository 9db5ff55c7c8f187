//! What a subscriber that cannot keep up has missed.
//!
//! ```text
//!            no room            room again            every partition is at the tail
//!  (keeps up) ─────▶ Room ◀───────────────▶ Nothing ────────────────────────────────▶ (keeps up)
//!                                no room      │  ▲
//!     resumed ─────▶ Start ───────────────────┘  │ its subscription has started
//!                      ▲  ends known             │
//!                      └─────────────────────────┘ a record is for a subscription that has not started
//! ```

use std::collections::BTreeMap;

use crate::journal::{Offset, Partition, TopicIndex};

/// Stands for the beginning of a partition until that is known.
pub(super) const FROM_LOG_START: Offset = Offset(i64::MIN);

/// What a lagging subscriber waits for; until then nothing of QoS 1 or 2 is handed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// For nothing: it is in the sweeps of its partitions.
    Nothing,
    /// For room in its mailbox.
    Room,
    /// For the ends of its partitions.
    Start,
    /// Its connection has ended; its position is still to be asked for.
    Gone,
}

/// What a lagging subscriber missed.
#[derive(Debug)]
pub(super) struct Lag {
    /// Where it goes on in each partition in which it is not at the tail. While it is in a sweep, the sweep knows better.
    pub(super) from: BTreeMap<Partition, Offset>,
    pub(super) waits: Waits,
}

impl Lag {
    pub(super) fn new(from: BTreeMap<Partition, Offset>, waits: Waits) -> Self {
        Self { from, waits }
    }

    /// Whether what the tail has there is to be noted instead of handed over.
    pub(super) fn holds_back(&self, partition: Partition) -> bool {
        self.waits != Waits::Nothing || self.from.contains_key(&partition)
    }

    /// Whether a message of QoS 0 may be handed over at once: there may be room, and the session was not beyond it already.
    pub(super) fn lets_qos_0_pass(&self, partition: Partition, offset: Offset) -> bool {
        let may_have_room = matches!(self.waits, Waits::Start | Waits::Nothing);
        may_have_room && self.from.get(&partition).is_none_or(|from| *from <= offset)
    }

    pub(super) fn missed(&mut self, partition: Partition, offset: Offset) {
        self.from.entry(partition).or_insert(offset);
    }

    pub(super) fn forget_topic(&mut self, topic: TopicIndex) {
        self.from.retain(|partition, _| partition.topic != topic);
    }

    pub(super) fn is_over(&self) -> bool {
        self.from.is_empty() && self.waits == Waits::Nothing
    }
}
