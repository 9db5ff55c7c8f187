//! Layer 1: what a node believes because it applied the journal.
//!
//! Every piece of MQTT state is a record in a compacted kafka topic. [`state`] is that state as values, [`ids`] are the
//! names in it. Applying a record is total and deterministic and the only way in which anything here changes; a replay
//! in two halves gives what a replay in one piece gives, also after compaction.

pub mod ids;
pub mod state;
