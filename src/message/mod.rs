//! Layer 1: PUBLISH ↔ record, the public contract with Kafka programs (`docs/records.md`).

pub mod record;

pub use record::{Header, RecordRef};
