//! Layer 1: PUBLISH ↔ record, the public contract with Kafka programs (`docs/records.md`).
//!
//! [`encode`] lends a record made from what an application published; [`decode`] makes a [`Message`] from a record, one
//! of ours or one of any Kafka program. What a record cannot say in MQTT is left out and counted, never an error.

mod decode;
mod encode;
pub mod headers;
mod owned;
pub mod record;

pub use decode::{Decoded, decode, is_fence, token};
pub use encode::{Content, HeaderVec, Scratch, Stamp, encode, headers_of};
pub use owned::Message;
pub use record::{Header, RecordRef};
