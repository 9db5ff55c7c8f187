//! A message as it waits for its subscribers.

use std::fmt;
use std::sync::Arc;

use super::decode::message;
use super::encode::{Content, Stamp, encode};
use crate::mqtt::QoS;
use crate::mqtt::packet::PublishProperties;
use crate::mqtt::properties::UserProperties;

/// What an application published, owned: one allocation, 16 bytes to hold, cheap to clone.
///
/// The allocation holds a fixed head, then topic, content type, response topic, correlation data, publisher, the user
/// properties in the form they have in a packet, and the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Arc<[u8]>);

/// What goes into a message; all of it legal in MQTT 5, each property at most 65,535 bytes.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) payload_is_utf8: Option<bool>,
    pub(super) expires_at_ms: Option<i64>,
    pub(super) content_type: Option<&'a str>,
    pub(super) response_topic: Option<&'a str>,
    pub(super) correlation_data: Option<&'a [u8]>,
    pub(super) publisher: Option<&'a str>,
    /// As in a packet's property section.
    pub(super) user_properties: &'a [u8],
}

/// Where the fields of the head begin.
mod head {
    /// i64.
    pub(super) const EXPIRES_AT: usize = 0;
    /// u32 each: where a part ends.
    pub(super) const TOPIC: usize = 8;
    pub(super) const CONTENT_TYPE: usize = 12;
    pub(super) const RESPONSE_TOPIC: usize = 16;
    pub(super) const CORRELATION_DATA: usize = 20;
    pub(super) const PUBLISHER: usize = 24;
    pub(super) const USER_PROPERTIES: usize = 28;
    /// u8 each.
    pub(super) const QOS: usize = 32;
    pub(super) const FLAGS: usize = 33;
    pub(super) const BYTES: usize = 34;
}

/// What is there, in the byte at [`head::FLAGS`].
mod flag {
    pub(super) const RETAIN: u8 = 1;
    pub(super) const FORMAT: u8 = 1 << 1;
    pub(super) const FORMAT_IS_UTF8: u8 = 1 << 2;
    pub(super) const EXPIRES: u8 = 1 << 3;
    pub(super) const CONTENT_TYPE: u8 = 1 << 4;
    pub(super) const RESPONSE_TOPIC: u8 = 1 << 5;
    pub(super) const CORRELATION_DATA: u8 = 1 << 6;
    pub(super) const PUBLISHER: u8 = 1 << 7;
}

impl Message {
    /// A message that never was a record, or not yet: what [`super::decode`] makes of what [`encode`] writes.
    pub fn new(topic: &str, content: Content<'_>, stamp: Stamp<'_>) -> Self {
        encode(content, stamp, &[], |record| message(topic, content.payload, record.headers.iter().copied()))
    }

    pub(super) fn from_parts(parts: &Parts<'_>) -> Self {
        let sections = [
            parts.topic.as_bytes(),
            parts.content_type.unwrap_or_default().as_bytes(),
            parts.response_topic.unwrap_or_default().as_bytes(),
            parts.correlation_data.unwrap_or_default(),
            parts.publisher.unwrap_or_default().as_bytes(),
            parts.user_properties,
        ];
        let mut fixed = [0; head::BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = fixed.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(head::EXPIRES_AT, &parts.expires_at_ms.unwrap_or(0).to_le_bytes());
        let mut end = head::BYTES;
        for (section, at) in sections.iter().zip((head::TOPIC..).step_by(4)) {
            end += section.len();
            // A record is smaller than 2 GiB.
            put(at, &u32::try_from(end).unwrap_or(u32::MAX).to_le_bytes());
        }
        put(head::QOS, &[parts.qos.as_u8()]);
        put(head::FLAGS, &[flags_of(parts)]);
        let mut arena: Arc<[u8]> = std::iter::repeat_n(0, end + parts.payload.len()).collect();
        if let Some(mut left) = Arc::get_mut(&mut arena) {
            for section in std::iter::once(&fixed[..]).chain(sections).chain([parts.payload]) {
                let (place, others) = left.split_at_mut(section.len());
                place.copy_from_slice(section);
                left = others;
            }
        }
        Self(arena)
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        self.text(head::BYTES, self.end(head::TOPIC))
    }

    /// Payload, untouched.
    pub fn payload(&self) -> &[u8] {
        self.0.get(self.end(head::USER_PROPERTIES)..).unwrap_or_default()
    }

    /// The publisher's quality of service; what is delivered is the lower of it and the granted one [MQTT-3.8.4-8].
    pub fn qos(&self) -> QoS {
        self.0.get(head::QOS).and_then(|&qos| QoS::from_u8(qos)).unwrap_or_default()
    }

    /// The publisher's retain flag, for subscriptions with Retain As Published.
    pub fn retain(&self) -> bool {
        self.has(flag::RETAIN)
    }

    /// When it expires, in milliseconds since the Unix epoch.
    pub fn expires_at_ms(&self) -> Option<i64> {
        self.has(flag::EXPIRES).then(|| i64::from_le_bytes(self.array(head::EXPIRES_AT)))
    }

    /// Whether its time has come.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms().is_some_and(|at| at <= now_ms)
    }

    /// Client id of the publisher, if the record says so.
    pub fn publisher(&self) -> Option<&str> {
        let text = || self.text(self.end(head::CORRELATION_DATA), self.end(head::PUBLISHER));
        self.has(flag::PUBLISHER).then(text)
    }

    /// The properties to deliver it with, the expiry interval counted down to `now_ms` (rounded up, so that a message
    /// that is still alive never carries 0) [MQTT-3.3.2-6]; `None` if it has expired. Topic alias and subscription
    /// identifiers are the caller's to add.
    pub fn properties(&self, now_ms: i64) -> Option<PublishProperties<'_>> {
        if self.is_expired(now_ms) {
            return None;
        }
        let [topic, content_type, response_topic, correlation_data, publisher, user_properties] = [
            head::TOPIC,
            head::CONTENT_TYPE,
            head::RESPONSE_TOPIC,
            head::CORRELATION_DATA,
            head::PUBLISHER,
            head::USER_PROPERTIES,
        ]
        .map(|at| self.end(at));
        let correlation = || self.0.get(response_topic..correlation_data).unwrap_or_default();
        let user_properties = self.0.get(publisher..user_properties).unwrap_or_default();
        Some(PublishProperties {
            payload_is_utf8: self.has(flag::FORMAT).then(|| self.has(flag::FORMAT_IS_UTF8)),
            message_expiry_s: self.expires_at_ms().map(|at| seconds_left(at, now_ms)),
            response_topic: self.has(flag::RESPONSE_TOPIC).then(|| self.text(content_type, response_topic)),
            correlation_data: self.has(flag::CORRELATION_DATA).then(correlation),
            user_properties: UserProperties::Raw(user_properties),
            content_type: self.has(flag::CONTENT_TYPE).then(|| self.text(topic, content_type)),
            ..PublishProperties::default()
        })
    }

    /// Bytes on the heap, for budgets; clones share them.
    pub fn heap_bytes(&self) -> usize {
        self.0.len() + 2 * size_of::<usize>()
    }

    fn has(&self, flag: u8) -> bool {
        self.0.get(head::FLAGS).is_some_and(|flags| flags & flag != 0)
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|head| head.first_chunk()).copied().unwrap_or([0; N])
    }

    fn end(&self, at: usize) -> usize {
        u32::from_le_bytes(self.array(at)) as usize
    }

    /// It was UTF-8 when it came in.
    fn text(&self, start: usize, end: usize) -> &str {
        self.0.get(start..end).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("qos", &self.qos())
            .field("retain", &self.retain())
            .field("expires_at_ms", &self.expires_at_ms())
            .field("publisher", &self.publisher())
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}

fn flags_of(parts: &Parts<'_>) -> u8 {
    [
        (parts.retain, flag::RETAIN),
        (parts.payload_is_utf8.is_some(), flag::FORMAT),
        (parts.payload_is_utf8 == Some(true), flag::FORMAT_IS_UTF8),
        (parts.expires_at_ms.is_some(), flag::EXPIRES),
        (parts.content_type.is_some(), flag::CONTENT_TYPE),
        (parts.response_topic.is_some(), flag::RESPONSE_TOPIC),
        (parts.correlation_data.is_some(), flag::CORRELATION_DATA),
        (parts.publisher.is_some(), flag::PUBLISHER),
    ]
    .into_iter()
    .fold(0, |flags, (is, flag)| if is { flags | flag } else { flags })
}

fn seconds_left(expires_at_ms: i64, now_ms: i64) -> u32 {
    let left = u64::try_from(expires_at_ms.saturating_sub(now_ms)).unwrap_or(0);
    u32::try_from(left.div_ceil(1_000)).unwrap_or(u32::MAX)
}
