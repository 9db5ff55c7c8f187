//! Layer 0: bytes ↔ packets of MQTT 3.1, 3.1.1 and 5.0. No I/O, no clock, no tracing.
//!
//! A reader of a socket calls [`head::frame_head`] on what it has, waits until the whole frame is
//! there, and hands exactly that frame to [`decode::packet`], which borrows from it. A writer calls
//! [`encode::packet`], or [`encode::publish`] on the hot path.

pub mod decode;
pub mod encode;
pub mod head;
pub mod packet;
pub mod properties;
pub mod reason;
pub mod topic;

pub use packet::{Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS};
pub use reason::ReasonCode;
pub use topic::{ClientId, TopicFilter, TopicName};
