//! How far the ledgers are: everything up to the ends that were seen at start must be applied before the node acts.

use std::collections::BTreeMap;

use crate::journal::{Ends, Offset, Partition};

#[derive(Debug, Default)]
pub(in crate::node) struct Replay {
    /// What is still to be read, up to where.
    left: BTreeMap<Partition, Offset>,
    followed: Vec<Partition>,
    begun: bool,
}

impl Replay {
    /// Where to follow each partition from. What was begun before goes on being followed.
    pub(in crate::node) fn begin(&mut self, ends: &[(Partition, Ends)]) -> Vec<(Partition, Offset)> {
        self.begun = true;
        self.followed.extend(ends.iter().map(|(partition, _)| *partition));
        let unread = ends.iter().filter(|(_, ends)| ends.log_start < ends.high_watermark);
        self.left = unread.map(|(partition, ends)| (*partition, ends.high_watermark)).collect();
        ends.iter().map(|(partition, ends)| (*partition, ends.log_start)).collect()
    }

    /// There was nothing to read.
    pub(in crate::node) fn is_over_at_once(&self) -> bool {
        self.begun && self.left.is_empty()
    }

    /// True once: when this was the last thing to read.
    pub(in crate::node) fn on_progress(&mut self, partition: Partition, next: Offset) -> bool {
        let Some(end) = self.left.get(&partition) else { return false };
        if next < *end {
            return false;
        }
        self.left.remove(&partition);
        self.left.is_empty()
    }

    /// Begins again; what was followed.
    pub(in crate::node) fn restart(&mut self) -> Vec<Partition> {
        self.begun = false;
        self.left.clear();
        std::mem::take(&mut self.followed)
    }
}
