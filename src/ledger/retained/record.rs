//! What is in `mqtt.retained`: a record for each topic, and marks.
//!
//! | key | value | headers |
//! |---|---|---|
//! | topic | payload; null: cleared | those of the message, `mqtt-source`, where needed `mqtt-rank` |
//! | 0x00, `done`, incarnation | the node's mark; null: nothing of that node is left to do | |

use super::Rank;
use crate::ledger::ids::{Incarnation, Origin, Place};
use crate::ledger::record::{self, Watermark};
use crate::message::{Content, Header, HeaderVec, Message, RecordRef, Scratch, Stamp, headers, headers_of};
use crate::mqtt::topic::check_name;

/// How the key of a mark begins; no topic holds U+0000.
const DONE: &[u8] = b"\0done";

/// Whose record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'k> {
    /// A topic's.
    Topic(&'k str),
    /// The mark of a node.
    Mark(Incarnation),
}

impl<'k> Key<'k> {
    /// `None` for a key that means nothing.
    pub fn decode(key: &'k [u8]) -> Option<Self> {
        if let Some(incarnation) = key.strip_prefix(DONE) {
            return Some(Self::Mark(Incarnation(incarnation.try_into().ok()?)));
        }
        let topic = std::str::from_utf8(key).ok()?;
        check_name(topic).is_ok().then_some(Self::Topic(topic))
    }
}

/// The key of a node's mark.
pub fn mark_key(incarnation: Incarnation) -> Vec<u8> {
    [DONE, &incarnation.0[..]].concat()
}

/// The value of a mark: below it, in each partition of messages, the node's work is complete.
pub fn mark(done: &[(Place, i64)]) -> Vec<u8> {
    record::watermark(&Watermark { done: done.to_vec(), tokens: Vec::new() })
}

/// The way back; `None` for bytes that no node of ours wrote.
pub fn decode_mark(value: &[u8]) -> Option<Vec<(Place, i64)>> {
    record::decode_watermark(value).map(|mark| mark.done)
}

/// The rank that a record names; `None` for a foreign program's.
pub fn rank_of<'h>(headers: impl IntoIterator<Item = Header<'h>>) -> Option<Rank> {
    let (mut source, mut rank) = (None, None);
    for header in headers {
        let text = || header.value.and_then(|value| std::str::from_utf8(value).ok());
        match header.name {
            headers::SOURCE => source = text().and_then(origin),
            headers::RANK => rank = text().and_then(era_and_foreign),
            _ => {}
        }
    }
    match (source, rank) {
        (None, None) => None,
        (source, rank) => {
            let (era, foreign) = rank.unwrap_or_default();
            Some(Rank { era, source, foreign })
        }
    }
}

fn origin(text: &str) -> Option<Origin> {
    let mut parts = text.split(',');
    let place = Place { topic: parts.next()?.parse().ok()?, partition: parts.next()?.parse().ok()? };
    let offset = parts.next()?.parse().ok().filter(|offset| *offset >= 0)?;
    parts.next().is_none().then_some(Origin { place, offset })
}

fn era_and_foreign(text: &str) -> Option<(u32, i64)> {
    let (era, foreign) = text.split_once(',')?;
    Some((era.parse().ok()?, foreign.parse().ok().filter(|foreign| *foreign >= 0)?))
}

/// Lends the record of `topic` to `write` and returns what that returns. Without a message it clears the topic.
pub fn encode<R>(
    topic: &str,
    rank: Rank,
    message: Option<&Message>,
    timestamp_ms: i64,
    write: impl FnOnce(&RecordRef<'_>) -> R,
) -> R {
    let mut scratch = Scratch::default();
    let source = rank.source.map(|Origin { place, offset }| format!("{},{},{offset}", place.topic, place.partition));
    let explicit =
        (rank.era > 0 || rank.foreign > 0 || rank.source.is_none()).then(|| format!("{},{}", rank.era, rank.foreign));
    let expires_at = message.and_then(Message::expires_at_ms).map(|at| at.max(0).to_string());
    // The moment is written below, exactly; at the beginning of time nothing has expired.
    let properties = message.and_then(|message| message.properties(i64::MIN));
    let properties = properties.map(|mut properties| {
        properties.message_expiry_s = None;
        properties
    });
    let mut out = HeaderVec::new();
    if let (Some(message), Some(properties)) = (message, &properties) {
        let content = Content { qos: message.qos(), retain: message.retain(), properties, payload: message.payload() };
        let stamp = Stamp { wall_ms: timestamp_ms, publisher: message.publisher(), token: None };
        headers_of(content, stamp, &mut scratch, &mut out);
    }
    let ours = [(headers::EXPIRES_AT, &expires_at), (headers::SOURCE, &source), (headers::RANK, &explicit)];
    for (name, value) in ours {
        let value = value.as_deref().map(str::as_bytes);
        out.extend(value.map(|value| Header { name, value: Some(value) }));
    }
    let value = message.map(Message::payload);
    write(&RecordRef { key: Some(topic.as_bytes()), value, headers: &out, timestamp_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Decoded, decode};
    use crate::mqtt::QoS;
    use crate::mqtt::packet::PublishProperties;
    use crate::mqtt::properties::UserProperties;

    fn message() -> Message {
        let properties = PublishProperties {
            message_expiry_s: Some(60),
            content_type: Some("text"),
            user_properties: UserProperties::Pairs(&[("mqtt-qos", "mine"), ("a", "b")]),
            ..PublishProperties::default()
        };
        let content = Content { qos: QoS::AtLeastOnce, retain: true, properties: &properties, payload: b"x" };
        Message::new("a/b", content, Stamp { wall_ms: 1_234, publisher: Some("me"), token: None })
    }

    fn there_and_back(rank: Rank, message: Option<&Message>) -> (Option<Rank>, Decoded) {
        encode("a/b", rank, message, 5, |record| {
            assert_eq!(Key::decode(record.key.unwrap()), Some(Key::Topic("a/b")));
            (rank_of(record.headers.iter().copied()), decode("a/b", record.value, record.headers.iter().copied()))
        })
    }

    #[test]
    fn a_record_gives_back_its_rank_and_its_message_to_the_millisecond() {
        let origin = Origin { place: Place { topic: u32::MAX, partition: 3 }, offset: 17 };
        for rank in [
            Rank { era: 0, source: Some(origin), foreign: 0 },
            Rank { era: 2, source: Some(origin), foreign: 9 },
            Rank { era: 0, source: None, foreign: 1 },
            Rank::default(),
        ] {
            let there = message();
            assert_eq!(there.expires_at_ms(), Some(61_234));
            let back = Decoded::Message { message: there.clone(), headers_ignored: 0 };
            assert_eq!(there_and_back(rank, Some(&there)), (Some(rank), back));
            assert_eq!(there_and_back(rank, None), (Some(rank), Decoded::Tombstone));
        }
    }

    #[test]
    fn headers_that_say_nothing_make_a_record_a_foreign_one() {
        let header = |name, value: &'static str| Header { name, value: Some(value.as_bytes()) };
        assert_eq!(rank_of([]), None);
        for text in ["", "1,2", "1,2,3,4", "1,2,-3", "a,b,c"] {
            assert_eq!(rank_of([header(headers::SOURCE, text)]), None, "{text}");
        }
        assert_eq!(rank_of([header(headers::RANK, "1,-2")]), None);
        assert_eq!(rank_of([header(headers::SOURCE, "1,2,3")]).unwrap().source.unwrap().offset, 3);
    }

    #[test]
    fn a_mark_is_no_topic_and_gives_back_its_vector() {
        let incarnation = Incarnation([7; 16]);
        let key = mark_key(incarnation);
        assert_eq!(key[..5], *b"\0done");
        assert_eq!(Key::decode(&key), Some(Key::Mark(incarnation)));
        assert_eq!(Key::decode(&key[..20]), None);
        for no_topic in [&b""[..], b"a/+", b"#", b"\xff", b"\0dome"] {
            assert_eq!(Key::decode(no_topic), None);
        }
        let done = vec![(Place { topic: 1, partition: 0 }, 5), (Place { topic: 1, partition: 2 }, 0)];
        assert_eq!(decode_mark(&mark(&done)), Some(done));
    }
}
