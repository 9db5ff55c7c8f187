//! Layer 1: what a node believes because it applied the journal.
//!
//! Every piece of MQTT state is a record in a compacted kafka topic. [`record`] is what such a record looks like,
//! [`state`] is that state as values, [`ids`] are the names in it. [`sessions::Sessions`] holds one partition of
//! `mqtt.sessions`, [`members::Members`] holds `mqtt.cluster`, [`claim::Claim`] is what a node may do with one session,
//! [`retained`] is `mqtt.retained`.
//!
//! Applying a record is total and deterministic and the only way in which a ledger changes. What a ledger answers
//! depends only on the last record of each key, because compaction keeps nothing else: a replay in two halves, or of the
//! compacted log, answers what a replay in one piece answers.

#[cfg(test)]
mod arbitrary;
pub mod claim;
pub mod generations;
pub mod ids;
pub mod members;
pub mod record;
pub mod retained;
pub mod rules;
pub mod sessions;
pub mod state;
