//! The journal in memory: what `millrace` runs on before there is a Kafka, and the log of the simulator.
//!
//! [`MemoryLog`] is the whole of it as a value: topics and their partitions, producers and their fences, incarnations
//! with their appends under way, tails. It is given the time, draws every decision from one seed, and hands out what
//! happened ([`MemoryLog::poll_acks`], [`MemoryLog::poll_tail`]); the same calls give the same answers, byte for byte.
//! [`MemoryJournal`] is a thin shell around a [`SharedLog`] that implements the [`Journal`](super::Journal) trait; several of
//! them on one log are several nodes.
//!
//! ```text
//!  append ──▶ open group ──advance──▶ under way ──arrives──▶ in the log ──▶ tails
//!             (per incarnation and      │ one per partition,      │
//!              partition)               │ so order holds          ▼
//!                                       └──────── answered: Written, Refused, Unknown ──▶ poll_acks
//! ```
//!
//! Without faults everything happens at the next [`MemoryLog::advance`], and memory is bounded: kafka topics that are not
//! compacted share [`Limits::stored_bytes_max`], oldest records go first as with retention (a tail that is behind gets
//! `BelowLogStart`); compacted ones are compacted when they have doubled.
//!
//! Beside what the [`FaultPlan`] brings by itself, a simulation may cut an incarnation off and let it come back
//! ([`MemoryLog::cut_off`]: a stopped process, a failed network), kill it ([`MemoryLog::crash`]), fence it, compact,
//! lose and delete.
//!
//! What differs from Kafka: compaction spares neither the newest records nor, once `delete.retention.ms` has passed since
//! they were written, tombstones that it has never seen; one copy, so a landed record is below the high watermark at
//! once; no producer epochs other than an incarnation's own (0) and those of fences, so the success that is not in the log
//! after a fence at epoch + 1 (F9) cannot be played.

mod appends;
mod compaction;
mod faults;
mod group;
mod limits;
mod log;
mod operate;
mod partition;
mod reach;
mod reading;
mod shell;
mod tails;
mod topics;

pub use super::FenceForm;
pub use appends::Acked;
pub use faults::FaultPlan;
pub use limits::Limits;
pub use log::{IncarnationId, MemoryLog};
pub use operate::ForeignWrite;
pub use shell::{MemoryJournal, SharedLog};
pub use tails::TailId;

#[cfg(test)]
mod tests;
