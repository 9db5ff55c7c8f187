//! What an application published → record.

use smallvec::SmallVec;

use super::headers;
use super::record::{Header, RecordRef};
use crate::mqtt::packet::{PublishProperties, Will};
use crate::mqtt::{Publish, QoS};

/// What an application published: the part of a PUBLISH or a will that goes into the record.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The publisher's quality of service.
    pub qos: QoS,
    /// The publisher's retain flag.
    pub retain: bool,
    /// Properties; topic alias and subscription identifiers concern a connection and are not written.
    pub properties: &'a PublishProperties<'a>,
    /// Payload, the record's value as it is.
    pub payload: &'a [u8],
}

impl<'a> From<&'a Publish<'a>> for Content<'a> {
    fn from(publish: &'a Publish<'a>) -> Self {
        Self {
            qos: publish.delivery.qos(),
            retain: publish.retain,
            properties: &publish.properties,
            payload: publish.payload,
        }
    }
}

impl<'a> From<&'a Will<'a>> for Content<'a> {
    fn from(will: &'a Will<'a>) -> Self {
        Self { qos: will.qos, retain: will.retain, properties: &will.properties, payload: will.payload }
    }
}

/// What the node adds to a publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp<'a> {
    /// Milliseconds since the Unix epoch when the publish was received: the record's timestamp, and what the message
    /// expiry interval counts from.
    pub wall_ms: i64,
    /// Client id of the publisher, unless the configuration keeps it out of Kafka; then No Local does not work.
    pub publisher: Option<&'a str>,
    /// Token of a QoS 2 publish or a will.
    pub token: Option<&'a [u8]>,
}

/// The headers of one record; the ordinary message needs no allocation.
pub type HeaderVec<'a> = SmallVec<[Header<'a>; 8]>;

/// Room for header texts that are made here: put one on the stack for each record.
#[derive(Debug, Default)]
pub struct Scratch {
    digits: [u8; DIGITS],
    /// Names of escaped user properties, one after the other; almost always empty.
    names: String,
}

/// Decimal digits of the greatest `u64`.
const DIGITS: usize = 20;

/// Lends the record of `content` to `write` and returns what that returns.
///
/// An empty payload is an empty value, not a tombstone. Allocates nothing for messages of up to eight headers, unless
/// a user property is named like a header of ours.
pub fn encode<R>(content: Content<'_>, stamp: Stamp<'_>, key: &[u8], write: impl FnOnce(&RecordRef<'_>) -> R) -> R {
    let (mut scratch, mut headers) = (Scratch::default(), HeaderVec::new());
    headers_of(content, stamp, &mut scratch, &mut headers);
    write(&RecordRef { key: Some(key), value: Some(content.payload), headers: &headers, timestamp_ms: stamp.wall_ms })
}

/// Appends the headers of `content` to `out`: ours first, then the user properties in their order.
pub fn headers_of<'a>(content: Content<'a>, stamp: Stamp<'a>, scratch: &'a mut Scratch, out: &mut HeaderVec<'a>) {
    let properties = content.properties;
    for (name, _) in properties.user_properties.iter().filter(|(name, _)| headers::is_reserved(name)) {
        scratch.names.push_str(headers::ESCAPE);
        scratch.names.push_str(name);
    }
    let Scratch { digits, names } = scratch;
    let mut put = |name: &'static str, value: Option<&'a [u8]>| {
        if value.is_some() {
            out.push(Header { name, value });
        }
    };
    put(
        headers::QOS,
        match content.qos {
            QoS::AtMostOnce => Some(b"0"),
            QoS::AtLeastOnce => Some(b"1"),
            QoS::ExactlyOnce => None,
        },
    );
    put(headers::RETAIN, content.retain.then_some(b"1"));
    put(headers::PAYLOAD_FORMAT, properties.payload_is_utf8.map(|utf8| if utf8 { &b"1"[..] } else { b"0" }));
    let expires_at = properties.message_expiry_s.map(|seconds| expires_at_ms(stamp.wall_ms, seconds));
    put(headers::EXPIRES_AT, expires_at.map(|at| decimal(at, digits)));
    put(headers::CONTENT_TYPE, properties.content_type.map(str::as_bytes));
    put(headers::RESPONSE_TOPIC, properties.response_topic.map(str::as_bytes));
    put(headers::CORRELATION_DATA, properties.correlation_data);
    put(headers::PUBLISHER, stamp.publisher.map(str::as_bytes));
    put(headers::TOKEN, stamp.token);
    let mut names: &'a str = names;
    for (name, value) in &properties.user_properties {
        let name = if headers::is_reserved(name) {
            let (escaped, others) = names.split_at(headers::ESCAPE.len() + name.len());
            names = others;
            escaped
        } else {
            name
        };
        out.push(Header { name, value: Some(value.as_bytes()) });
    }
}

/// Never before the epoch, whatever the clock says.
fn expires_at_ms(wall_ms: i64, seconds: u32) -> u64 {
    u64::try_from(wall_ms).unwrap_or(0) + u64::from(seconds) * 1_000
}

/// Decimal text at the end of `digits`.
fn decimal(mut value: u64, digits: &mut [u8; DIGITS]) -> &[u8] {
    let mut start = DIGITS;
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        // A remainder of ten fits.
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        start = at;
        if value == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_is_what_display_prints() {
        for value in [0, 7, 10, 1_700_000_000_000, u64::MAX] {
            assert_eq!(decimal(value, &mut [0; DIGITS]), value.to_string().as_bytes());
        }
    }
}
