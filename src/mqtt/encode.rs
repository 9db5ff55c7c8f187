//! Packet → bytes.

use bytes::BytesMut;

use super::packet::{Packet, ProtocolVersion, Publish};

/// Why a packet cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary field longer than 65,535 bytes.
    #[error("{0} is longer than 65,535 bytes")]
    FieldTooLong(&'static str),
    /// The whole packet is longer than 268,435,455 bytes of remaining length, or than `frame_bytes_max`.
    #[error("the packet would be {bytes} bytes, the limit is {limit}")]
    PacketTooLarge {
        /// Bytes of the whole packet.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// Appends `packet` to `out` in the wire form of `version`; `frame_bytes_max` is what the receiver accepts:
/// reason string, then user properties of answers are left out to fit (MQTT5 §3.4.2.2.2).
/// On an error `out` is as before.
///
/// # Errors
/// See [`EncodeError`].
pub fn packet(
    _packet: &Packet<'_>,
    _version: ProtocolVersion,
    _frame_bytes_max: usize,
    _out: &mut BytesMut,
) -> Result<(), EncodeError> {
    todo!("codec")
}

/// The hot path of [`packet`] for PUBLISH.
///
/// # Errors
/// See [`EncodeError`].
pub fn publish(
    _publish: &Publish<'_>,
    _version: ProtocolVersion,
    _frame_bytes_max: usize,
    _out: &mut BytesMut,
) -> Result<(), EncodeError> {
    todo!("codec")
}
