//! Record → message.

use smallvec::SmallVec;

use super::headers;
use super::owned::{Message, Parts};
use super::record::Header;
use crate::mqtt::QoS;
use crate::mqtt::topic::check_name;

/// Longest string or binary of a packet (MQTT5 §1.5.4, §1.5.6).
const FIELD_BYTES_MAX: usize = 65_535;

/// MQTT5 §2.2.2.2.
const USER_PROPERTY: u8 = 0x26;

/// What a record of a message topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A message.
    Message {
        /// The message.
        message: Message,
        /// Headers that could not be used: a value of ours that means nothing, or a header of the publisher that no
        /// MQTT user property can carry (not UTF-8, U+0000, too long). The message is delivered without them.
        headers_ignored: u32,
    },
    /// A record without a value: nothing is delivered, nothing changes.
    Tombstone,
    /// A record with `mqtt-fence`: not a message, whatever else it holds.
    Fence,
}

/// Reads a record whose key stands for `topic`. Never fails: foreign headers that say nothing in MQTT are counted.
/// Of several headers with one of our names the last one that is valid counts.
pub fn decode<'h>(topic: &str, value: Option<&[u8]>, headers: impl IntoIterator<Item = Header<'h>>) -> Decoded {
    let reader = Reader::read_all(headers);
    match value {
        _ if reader.fence => Decoded::Fence,
        None => Decoded::Tombstone,
        Some(payload) => {
            let headers_ignored = reader.ignored;
            Decoded::Message { message: reader.into_message(topic, payload), headers_ignored }
        }
    }
}

/// What [`decode`] makes of a record that has a value and is not a fence.
pub(super) fn message<'h>(topic: &str, payload: &[u8], headers: impl IntoIterator<Item = Header<'h>>) -> Message {
    Reader::read_all(headers).into_message(topic, payload)
}

/// The token of a QoS 2 publish or a will, if the record has one.
pub fn token<'h>(headers: impl IntoIterator<Item = Header<'h>>) -> Option<&'h [u8]> {
    headers.into_iter().filter(|header| header.name == headers::TOKEN).last()?.value
}

/// Whether the record is a fence and not a message.
pub fn is_fence<'h>(headers: impl IntoIterator<Item = Header<'h>>) -> bool {
    headers.into_iter().any(|header| header.name == headers::FENCE)
}

struct Reader<'h> {
    parts: Parts<'h>,
    user_properties: SmallVec<[u8; 256]>,
    ignored: u32,
    fence: bool,
}

impl Default for Reader<'_> {
    fn default() -> Self {
        let parts = Parts { qos: QoS::ExactlyOnce, ..Parts::default() };
        Self { parts, user_properties: SmallVec::new(), ignored: 0, fence: false }
    }
}

impl<'h> Reader<'h> {
    fn read_all(headers: impl IntoIterator<Item = Header<'h>>) -> Self {
        let mut reader = Self::default();
        for header in headers {
            reader.ignored += u32::from(reader.read(header).is_none());
        }
        reader
    }

    fn into_message(self, topic: &str, payload: &[u8]) -> Message {
        Message::from_parts(&Parts { topic, payload, user_properties: &self.user_properties, ..self.parts })
    }

    /// `None` if the header cannot be used.
    fn read(&mut self, header: Header<'h>) -> Option<()> {
        if !headers::is_reserved(header.name) {
            // A null value has no counterpart in MQTT; the name alone may matter.
            return self.add_user_property(header.name, header.value.unwrap_or_default());
        }
        if let Some(name) = header.name.strip_prefix(headers::ESCAPE) {
            return self.add_user_property(name, header.value.unwrap_or_default());
        }
        if header.name == headers::FENCE {
            self.fence = true;
            return Some(());
        }
        let value = header.value?;
        match header.name {
            headers::QOS => self.parts.qos = QoS::from_u8(u8::try_from(number(value)?).ok()?)?,
            headers::RETAIN => self.parts.retain = bit(value)?,
            headers::PAYLOAD_FORMAT => self.parts.payload_is_utf8 = Some(bit(value)?),
            headers::EXPIRES_AT => self.parts.expires_at_ms = Some(number(value)?),
            headers::CONTENT_TYPE => self.parts.content_type = Some(text(value)?),
            headers::RESPONSE_TOPIC => self.parts.response_topic = Some(topic_name(value)?),
            headers::CORRELATION_DATA => {
                self.parts.correlation_data = Some((value.len() <= FIELD_BYTES_MAX).then_some(value)?);
            }
            headers::PUBLISHER => self.parts.publisher = Some(text(value)?),
            // The token is for look-ups, see `token`; other names are kept for later releases.
            _ => {}
        }
        Some(())
    }

    fn add_user_property(&mut self, name: &str, value: &[u8]) -> Option<()> {
        let (name, value) = (text(name.as_bytes())?, text(value)?);
        self.user_properties.push(USER_PROPERTY);
        for field in [name, value] {
            // `text` has checked the length.
            self.user_properties.extend_from_slice(&u16::try_from(field.len()).ok()?.to_be_bytes());
            self.user_properties.extend_from_slice(field.as_bytes());
        }
        Some(())
    }
}

/// [MQTT-1.5.4-1, 1.5.4-2]
fn text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    (text.len() <= FIELD_BYTES_MAX && !value.contains(&0)).then_some(text)
}

/// [MQTT-3.3.2-14]
fn topic_name(value: &[u8]) -> Option<&str> {
    text(value).filter(|name| check_name(name).is_ok())
}

/// Decimal digits, nothing else.
fn number(value: &[u8]) -> Option<i64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn bit(value: &[u8]) -> Option<bool> {
    match value {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
