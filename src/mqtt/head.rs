//! The fixed header, checked before one byte of the body is buffered (MQTT5 §2.1).

use super::decode::DecodeError;
use super::packet::ProtocolVersion;
use super::reason::ReasonCode;
use super::wire;

/// Which end sent the packet; each end may send only some packet types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// What a server receives.
    Client,
    /// What a client receives.
    Server,
}

/// The type of a control packet (MQTT5 §2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// From the first byte of a packet; type 0 is reserved.
    pub const fn from_first(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type with the flags that the type must have; PUBLISH adds its own.
    pub const fn first(self) -> u8 {
        (self as u8) << 4 | self.fixed_flags()
    }

    /// The flag bits of MQTT5 §2.1.3, table 2-2.
    const fn fixed_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            Self::Connect
            | Self::ConnAck
            | Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubComp
            | Self::SubAck
            | Self::UnsubAck
            | Self::PingReq
            | Self::PingResp
            | Self::Disconnect
            | Self::Auth => 0,
        }
    }

    /// Whether this end may send this type at all (MQTT5 §2.1.2, table 2-1).
    const fn may_be_sent(self, sender: Sender, version: ProtocolVersion) -> bool {
        match self {
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::PingReq => matches!(sender, Sender::Client),
            Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp => matches!(sender, Sender::Server),
            Self::Publish | Self::PubAck | Self::PubRec | Self::PubRel | Self::PubComp => true,
            Self::Disconnect => matches!(sender, Sender::Client) || matches!(version, ProtocolVersion::V5),
            Self::Auth => matches!(version, ProtocolVersion::V5),
        }
    }
}

/// A checked fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The first byte: packet type and flags, already checked against each other.
    pub first: u8,
    /// The type in `first`.
    pub packet_type: PacketType,
    /// Bytes of the fixed header, 2 to 5.
    pub head_bytes: usize,
    /// Bytes of the rest (Remaining Length).
    pub body_bytes: usize,
}

impl Head {
    /// Bytes of the whole packet.
    pub const fn frame_bytes(&self) -> usize {
        self.head_bytes.saturating_add(self.body_bytes)
    }
}

/// Reads a fixed header from the beginning of `buffer`; `Ok(None)` while more bytes are needed.
///
/// `version` is `None` before CONNECT, when CONNECT is the only packet allowed. `frame_bytes_max` limits the
/// whole packet (MQTT5 §3.1.2.11.4).
///
/// # Errors
/// A packet type the sender may not send, wrong flags, a length that is too long for four bytes, impossible for
/// this packet type, above the limit, or in MQTT 5 overlong (not minimal; 3.x has no such rule, and for CONNECT,
/// whose version is not known yet, [`super::decode::packet`] applies it). The first byte is judged as soon as it
/// is there.
#[inline]
pub fn frame_head(
    buffer: &[u8],
    version: Option<ProtocolVersion>,
    sender: Sender,
    frame_bytes_max: usize,
) -> Result<Option<Head>, DecodeError> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
    let packet_type = check_first(first, version, sender)?;
    let Some(length) = wire::varint(rest)? else { return Ok(None) };
    if !length.is_minimal && version == Some(ProtocolVersion::V5) {
        return Err(overlong());
    }
    let body_bytes = usize::try_from(length.value).unwrap_or(usize::MAX);
    let head = Head { first, packet_type, head_bytes: length.bytes.saturating_add(1), body_bytes };
    if head.frame_bytes() > frame_bytes_max {
        return Err(DecodeError::new(
            ReasonCode::PacketTooLarge,
            "the packet is larger than the limit [MQTT-3.1.2-24, MQTT-3.2.2-15]",
        ));
    }
    let (bytes_min, bytes_max) = body_bytes_range(packet_type, version, first);
    if body_bytes < bytes_min || body_bytes > bytes_max {
        return Err(DecodeError::malformed("no packet of this type has this length"));
    }
    Ok(Some(head))
}

/// A Remaining Length in more bytes than it needs.
#[cold]
pub(super) fn overlong() -> DecodeError {
    DecodeError::malformed("the length is in more bytes than it needs [MQTT-1.5.5-1]")
}

#[inline]
fn check_first(first: u8, version: Option<ProtocolVersion>, sender: Sender) -> Result<PacketType, DecodeError> {
    let Some(packet_type) = PacketType::from_first(first) else {
        return Err(DecodeError::malformed("packet type 0 is reserved (§2.1.2)"));
    };
    match version {
        None if packet_type != PacketType::Connect || sender != Sender::Client => {
            return Err(DecodeError::protocol("the first packet is not CONNECT [MQTT-3.1.0-1]"));
        }
        Some(_) if packet_type == PacketType::Connect && sender == Sender::Client => {
            return Err(DecodeError::protocol("a second CONNECT [MQTT-3.1.0-2]"));
        }
        Some(version) if !packet_type.may_be_sent(sender, version) => {
            return Err(DecodeError::protocol("a packet type that this end may not send (§2.1.2)"));
        }
        None | Some(_) => {}
    }
    if flags_are_legal(first, packet_type, version) {
        Ok(packet_type)
    } else {
        Err(DecodeError::malformed("wrong flags in the fixed header [MQTT-2.1.3-1, MQTT-3.3.1-2, MQTT-3.3.1-4]"))
    }
}

#[inline]
fn flags_are_legal(first: u8, packet_type: PacketType, version: Option<ProtocolVersion>) -> bool {
    let flags = first & 0x0F;
    if packet_type == PacketType::Publish {
        // QoS 3 [MQTT-3.3.1-4], or DUP with QoS 0 [MQTT-3.3.1-2].
        return flags & 0b0110 != 0b0110 && (flags & 0b1000 == 0 || flags & 0b0110 != 0);
    }
    // 3.1 sends these three with QoS 1 and may repeat them with DUP (MQTT 3.1 §2.1, §3.6, §3.8, §3.10).
    let ignored = if version == Some(ProtocolVersion::V31) && packet_type.fixed_flags() != 0 { 0b1001 } else { 0 };
    flags & !ignored == packet_type.fixed_flags()
}

/// The least and the most bytes a body of this type can have.
#[inline]
const fn body_bytes_range(packet_type: PacketType, version: Option<ProtocolVersion>, first: u8) -> (usize, usize) {
    const ANY: usize = wire::VARINT_MAX as usize;
    let is_v5 = matches!(version, Some(ProtocolVersion::V5));
    match packet_type {
        // The protocol name "MQTT" and a level: as much as it takes to tell the version.
        PacketType::Connect => (7, ANY),
        PacketType::ConnAck => {
            if is_v5 {
                (3, ANY)
            } else {
                (2, 2)
            }
        }
        // The topic's length, a topic or the property length, and the packet id.
        PacketType::Publish => (if first & 0b0110 == 0 { 3 } else { 5 }, ANY),
        PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp => {
            (2, if is_v5 { ANY } else { 2 })
        }
        PacketType::Subscribe | PacketType::Unsubscribe => (if is_v5 { 3 } else { 2 }, ANY),
        PacketType::SubAck => (if is_v5 { 4 } else { 3 }, ANY),
        PacketType::UnsubAck => {
            if is_v5 {
                (4, ANY)
            } else {
                (2, 2)
            }
        }
        PacketType::PingReq | PacketType::PingResp => (0, 0),
        PacketType::Disconnect | PacketType::Auth => (0, if is_v5 { ANY } else { 0 }),
    }
}
