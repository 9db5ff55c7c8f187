//! Layer 0: bytes ↔ packets of MQTT 3.1, 3.1.1 and 5.0. No I/O, no clock, no tracing.
//!
//! A reader of a socket calls [`head::frame_head`] on what it has, waits until the whole frame is
//! there, and hands exactly that frame to [`decode::packet`], which borrows from it. A writer calls
//! [`encode::packet`], or [`encode::publish`] on the hot path.
//!
//! Invariant: nothing a peer sends makes this module panic, read past its frame or allocate by a
//! declared length. The lints below, the fuzz targets and `tests/codec` hold it to that.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

pub mod decode;
pub mod encode;
pub mod head;
pub mod packet;
pub mod properties;
pub mod reason;
pub mod topic;
mod wire;

pub use packet::{Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS};
pub use reason::ReasonCode;
pub use topic::{ClientId, TopicFilter, TopicName};
