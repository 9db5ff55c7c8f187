//! Packet → bytes.
//!
//! Every packet is written twice by the same code: first into a counter, which also finds what cannot
//! be written, then into the buffer. So the size is known before the first byte, one `reserve` is
//! enough, and on an error the buffer is as before.
//!
//! What a version does not have is left out: properties in 3.x, reasons where 3.x has none. What a
//! version cannot say at all is [`EncodeError::Inexpressible`].

mod body;
mod properties;
mod sink;

use bytes::{BufMut, BytesMut};

use self::properties::PropertySet;
use self::sink::{Counter, Sink};
use super::head::PacketType;
use super::packet::{Packet, ProtocolVersion, Publish, PublishProperties, QoS};
use super::wire;

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
    /// The version of the connection has no form for this packet or value.
    #[error("cannot be said: {0}")]
    Inexpressible(&'static str),
}

/// The longest frame there is: five bytes of fixed header and the largest Remaining Length.
const FRAME_BYTES_MAX: usize = (wire::VARINT_MAX as usize).saturating_add(5);

/// What an answer may lose to fit into the receiver's maximum packet size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Everything,
    UserProperties,
    Nothing,
}

/// Appends `packet` to `out` in the wire form of `version`; `frame_bytes_max` is what the receiver accepts:
/// reason string, then user properties of answers are left out to fit (MQTT5 §3.4.2.2.2).
/// On an error `out` is as before.
///
/// # Errors
/// See [`EncodeError`].
pub fn packet(
    packet: &Packet<'_>,
    version: ProtocolVersion,
    frame_bytes_max: usize,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    if let Packet::Publish(message) = packet {
        return publish(message, version, frame_bytes_max, out);
    }
    let mut keep = Keep::Everything;
    loop {
        let body_bytes = body_bytes(packet, version, keep)?;
        match fit(body_bytes, frame_bytes_max) {
            Ok(frame_bytes) => {
                out.reserve(frame_bytes);
                put_head(packet.packet_type().first(), body_bytes, out);
                return body::write(packet, version, keep, out);
            }
            Err(error) => {
                keep = match keep {
                    Keep::Everything => Keep::UserProperties,
                    Keep::UserProperties => Keep::Nothing,
                    Keep::Nothing => return Err(error),
                }
            }
        }
    }
}

/// The hot path of [`packet`] for PUBLISH.
///
/// # Errors
/// See [`EncodeError`].
#[inline]
pub fn publish(
    publish: &Publish<'_>,
    version: ProtocolVersion,
    frame_bytes_max: usize,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let bytes = PublishBytes::of(publish, version)?;
    let frame_bytes = fit(bytes.body, frame_bytes_max)?;
    out.reserve(frame_bytes);
    put_head(publish_first(publish), bytes.body, out);
    out.put_u16(bytes.topic);
    out.put_slice(publish.topic.as_bytes());
    match (publish.delivery.packet_id(), bytes.properties) {
        (Some(id), None) => out.put_u16(id.get()),
        // The most frequent of MQTT 5 in one write.
        (Some(id), Some(0)) => {
            let [i1, i2] = id.get().to_be_bytes();
            out.put_slice(&[i1, i2, 0]);
        }
        (id, Some(property_bytes)) => {
            if let Some(id) = id {
                out.put_u16(id.get());
            }
            out.varint(property_bytes);
            publish.properties.write(out);
        }
        (None, None) => {}
    }
    out.put_slice(publish.payload);
    Ok(())
}

/// Bytes that [`packet`] writes where `frame_bytes_max` leaves room for everything.
///
/// # Errors
/// See [`EncodeError`].
pub fn packet_bytes(packet: &Packet<'_>, version: ProtocolVersion) -> Result<usize, EncodeError> {
    if let Packet::Publish(publish) = packet {
        return publish_bytes(publish, version);
    }
    fit(body_bytes(packet, version, Keep::Everything)?, FRAME_BYTES_MAX)
}

/// Bytes that [`publish`] writes.
///
/// # Errors
/// See [`EncodeError`].
#[inline]
pub fn publish_bytes(publish: &Publish<'_>, version: ProtocolVersion) -> Result<usize, EncodeError> {
    fit(PublishBytes::of(publish, version)?.body, FRAME_BYTES_MAX)
}

/// The lengths within a PUBLISH.
struct PublishBytes {
    topic: u16,
    /// `None` in 3.x.
    properties: Option<u32>,
    body: usize,
}

impl PublishBytes {
    #[inline]
    fn of(publish: &Publish<'_>, version: ProtocolVersion) -> Result<Self, EncodeError> {
        let topic_bytes =
            u16::try_from(publish.topic.len()).map_err(|_| EncodeError::FieldTooLong("the topic name"))?;
        if publish.dup && publish.delivery.qos() == QoS::AtMostOnce {
            return Err(EncodeError::Inexpressible("DUP with QoS 0 [MQTT-3.3.1-2]"));
        }
        let is_v5 = version == ProtocolVersion::V5;
        if publish.topic.is_empty() && !(is_v5 && publish.properties.topic_alias.is_some()) {
            return Err(EncodeError::Inexpressible("an empty topic name without a topic alias [MQTT-4.7.3-1]"));
        }
        let mut body_bytes = 2_usize.saturating_add(publish.topic.len()).saturating_add(publish.payload.len());
        if publish.delivery.packet_id().is_some() {
            body_bytes = body_bytes.saturating_add(2);
        }
        let mut property_bytes = None;
        if is_v5 {
            let bytes = property_bytes_of(&publish.properties)?;
            body_bytes = body_bytes.saturating_add(wire::varint_bytes(bytes)).saturating_add(bytes as usize);
            property_bytes = Some(bytes);
        }
        Ok(Self { topic: topic_bytes, properties: property_bytes, body: body_bytes })
    }
}

/// Bytes of the property section of a PUBLISH without its length.
#[inline]
fn property_bytes_of(properties: &PublishProperties<'_>) -> Result<u32, EncodeError> {
    if properties.is_empty() {
        return Ok(0);
    }
    if properties.subscription_ids.iter().any(|number| number == 0) {
        return Err(EncodeError::Inexpressible("subscription identifier 0 (§3.8.2.1.2)"));
    }
    let mut counter = Counter::default();
    properties.write(&mut counter);
    counter.finish()
}

/// The first byte of a PUBLISH (MQTT5 §3.3.1).
#[inline]
const fn publish_first(publish: &Publish<'_>) -> u8 {
    PacketType::Publish.first() | (publish.dup as u8) << 3 | publish.delivery.qos().as_u8() << 1 | publish.retain as u8
}

fn body_bytes(packet: &Packet<'_>, version: ProtocolVersion, keep: Keep) -> Result<usize, EncodeError> {
    let mut counter = Counter::default();
    body::write(packet, version, keep, &mut counter)?;
    Ok(counter.finish()? as usize)
}

/// Bytes of the frame around a body, if the frame is within the limit.
#[inline]
fn fit(body_bytes: usize, frame_bytes_max: usize) -> Result<usize, EncodeError> {
    let length_bytes = wire::varint_bytes(u32::try_from(body_bytes).unwrap_or(u32::MAX));
    let bytes = body_bytes.saturating_add(1).saturating_add(length_bytes);
    let limit = frame_bytes_max.min(FRAME_BYTES_MAX);
    if bytes > limit { Err(EncodeError::PacketTooLarge { bytes, limit }) } else { Ok(bytes) }
}

/// The fixed header in one write.
#[inline]
fn put_head(first: u8, body_bytes: usize, out: &mut BytesMut) {
    let [a, b, c, d] = sink::varint_digits(u32::try_from(body_bytes).unwrap_or(wire::VARINT_MAX));
    match body_bytes {
        0..=0x7F => out.put_slice(&[first, a]),
        0x80..=0x3FFF => out.put_slice(&[first, a | 0x80, b]),
        0x4000..=0x1F_FFFF => out.put_slice(&[first, a | 0x80, b | 0x80, c]),
        _ => out.put_slice(&[first, a | 0x80, b | 0x80, c | 0x80, d]),
    }
}
