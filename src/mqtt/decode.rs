//! Bytes → packet: exactly one frame in, one borrowed packet out.

use super::head::Sender;
use super::packet::{Packet, ProtocolVersion};
use super::reason::ReasonCode;

/// Why a packet was refused: the reason code to answer with and what was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (reason 0x{:02X})", reason.as_u8())]
pub struct DecodeError {
    /// What a MQTT 5 DISCONNECT or CONNACK says.
    pub reason: ReasonCode,
    /// The field and the fault, with the clause where there is one.
    pub what: &'static str,
    /// For a refused CONNECT of 3.x: the return code of a CONNACK to send before closing, if the
    /// version allows an answer at all.
    pub connect_return_code: Option<u8>,
}

/// Decodes exactly one frame (fixed header included). `version` is `None` for the first packet of a
/// connection, which must be CONNECT when the sender is a client.
///
/// # Errors
/// Anything malformed or against the protocol.
pub fn packet(_frame: &[u8], _version: Option<ProtocolVersion>, _sender: Sender) -> Result<Packet<'_>, DecodeError> {
    todo!("codec")
}
