//! How much a memory log holds.

/// Bounds of a memory log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All stored records of kafka topics that are not compacted. Oldest go first, from the largest partition.
    pub stored_bytes_max: usize,
    /// Appends of one incarnation that have had no outcome yet; at least twice `record_bytes_max` is used.
    pub append_bytes_max: usize,
    /// One record.
    pub record_bytes_max: usize,
    /// A group of appends is ended when it has grown to this.
    pub group_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stored_bytes_max: 64 << 20,
            append_bytes_max: 32 << 20,
            record_bytes_max: 1 << 20,
            group_bytes: 256 << 10,
        }
    }
}

impl Limits {
    /// With room for the largest record also when half of the budget is taken.
    pub(super) fn sane(mut self) -> Self {
        self.append_bytes_max = self.append_bytes_max.max(self.record_bytes_max.saturating_mul(2));
        self
    }
}
