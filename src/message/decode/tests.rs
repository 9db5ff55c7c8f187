use std::num::NonZeroU16;

use proptest::prelude::*;

use super::*;
use crate::message::{Content, HeaderVec, Scratch, Stamp, encode, headers_of};
use crate::mqtt::packet::PublishProperties;
use crate::mqtt::properties::{SubscriptionIds, UserProperties};

const NOW: i64 = 1_700_000_000_000;

fn header<'a>(name: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Header<'a> {
    Header { name, value: Some(value.as_ref()) }
}

fn read(headers: &[Header<'_>]) -> (Message, u32) {
    match decode("a/b", Some(b"payload"), headers.iter().copied()) {
        Decoded::Message { message, headers_ignored } => (message, headers_ignored),
        other @ (Decoded::Tombstone | Decoded::Fence) => panic!("{other:?}"),
    }
}

fn user_properties(message: &Message) -> Vec<(String, String)> {
    let properties = message.properties(NOW).unwrap();
    properties.user_properties.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// Names and values of the headers of a publish, as text.
fn written(content: Content<'_>, stamp: Stamp<'_>) -> Vec<(String, String)> {
    let (mut scratch, mut headers) = (Scratch::default(), HeaderVec::new());
    headers_of(content, stamp, &mut scratch, &mut headers);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers.iter().map(|h| (h.name.to_owned(), text(h.value.unwrap()))).collect()
}

#[test]
fn a_plain_record_is_a_message_at_the_granted_qos() {
    let (message, ignored) = read(&[]);
    assert_eq!((message.topic(), message.payload(), ignored), ("a/b", &b"payload"[..], 0));
    assert_eq!((message.qos(), message.retain()), (QoS::ExactlyOnce, false));
    assert_eq!((message.expires_at_ms(), message.publisher()), (None, None));
    assert_eq!(message.properties(NOW), Some(PublishProperties::default()));
}

#[test]
fn foreign_headers_become_user_properties_in_order_with_duplicates() {
    let long = "x".repeat(65_535);
    let too_long = "x".repeat(65_536);
    let (message, ignored) = read(&[
        header("trace", "1"),
        header("", ""),
        Header { name: "null", value: None },
        header("binary", b"\xff\xfe"),
        header("nul", "a\0b"),
        header("na\0me", "x"),
        header("trace", "2"),
        header(&long, &long),
        header(&too_long, "x"),
        header("x", &too_long),
        header("Mqtt-qos", "upper case is not ours"),
    ]);
    let got = user_properties(&message);
    let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let upper = ("Mqtt-qos", "upper case is not ours");
    assert_eq!(got, [("trace", "1"), ("", ""), ("null", ""), ("trace", "2"), (long.as_str(), long.as_str()), upper]);
    assert_eq!(ignored, 5);
}

#[test]
fn our_headers_with_values_that_mean_nothing_are_ignored_and_counted() {
    let bad = [
        header(headers::QOS, "3"),
        header(headers::QOS, "259"),
        header(headers::QOS, &[1]),
        header(headers::RETAIN, "true"),
        header(headers::PAYLOAD_FORMAT, ""),
        header(headers::EXPIRES_AT, "soon"),
        header(headers::EXPIRES_AT, "-1"),
        header(headers::EXPIRES_AT, "99999999999999999999"),
        header(headers::CONTENT_TYPE, b"\xff"),
        header(headers::RESPONSE_TOPIC, "a/+"),
        header(headers::RESPONSE_TOPIC, ""),
        Header { name: headers::CORRELATION_DATA, value: None },
        header(headers::PUBLISHER, "\0"),
    ];
    let (message, ignored) = read(&bad);
    assert_eq!((message, usize::try_from(ignored).unwrap()), (read(&[]).0, bad.len()));
}

#[test]
fn of_several_headers_with_our_name_the_last_valid_one_counts() {
    let (message, ignored) = read(&[header(headers::QOS, "0"), header(headers::QOS, "1"), header(headers::QOS, "x")]);
    assert_eq!((message.qos(), ignored), (QoS::AtLeastOnce, 1));
}

#[test]
fn names_of_ours_that_this_release_does_not_know_are_no_user_properties() {
    let (message, ignored) = read(&[header("mqtt-later", "x"), header(headers::TOKEN, b"\xff")]);
    assert_eq!((user_properties(&message), ignored), (vec![], 0));
}

#[test]
fn tombstones_and_fences_are_no_messages() {
    assert_eq!(decode("a", None, [header("x", "y")]), Decoded::Tombstone);
    assert_eq!(decode("a", Some(b"x"), [header("x", "y"), header(headers::FENCE, "")]), Decoded::Fence);
    assert!(is_fence([Header { name: headers::FENCE, value: None }]));
    assert!(matches!(decode("a", Some(b""), []), Decoded::Message { .. }));
}

#[test]
fn the_token_is_found_without_reading_the_message() {
    assert_eq!(token([header("x", "y"), header(headers::TOKEN, b"\x01\xff")]), Some(&b"\x01\xff"[..]));
    assert_eq!(token([header("x", "y")]), None);
}

#[test]
fn an_ordinary_publish_carries_one_short_header() {
    let properties = PublishProperties::default();
    let content = |qos| Content { qos, retain: false, properties: &properties, payload: b"" };
    let one = |value: &str| vec![("mqtt-qos".to_owned(), value.to_owned())];
    assert_eq!(written(content(QoS::AtMostOnce), Stamp::default()), one("0"));
    assert_eq!(written(content(QoS::AtLeastOnce), Stamp::default()), one("1"));
    assert_eq!(written(content(QoS::ExactlyOnce), Stamp::default()), vec![]);
}

#[test]
fn the_record_of_a_publish_with_everything() {
    let pairs = [("mqtt-retain", "0"), ("city", "Wien"), ("mqtt-user-x", "y")];
    let properties = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry_s: Some(60),
        topic_alias: NonZeroU16::new(7),
        response_topic: Some("replies/1"),
        correlation_data: Some(b"\x01"),
        user_properties: UserProperties::Pairs(&pairs),
        subscription_ids: SubscriptionIds::default(),
        content_type: Some("text/plain"),
    };
    let content = Content { qos: QoS::AtLeastOnce, retain: true, properties: &properties, payload: b"hello" };
    let stamp = Stamp { wall_ms: NOW, publisher: Some("client-1"), token: Some(b"t") };
    let expected = [
        ("mqtt-qos", "1"),
        ("mqtt-retain", "1"),
        ("mqtt-payload-format", "1"),
        ("mqtt-expires-at", "1700000060000"),
        ("mqtt-content-type", "text/plain"),
        ("mqtt-response-topic", "replies/1"),
        ("mqtt-correlation-data", "\u{1}"),
        ("mqtt-publisher", "client-1"),
        ("mqtt-token", "t"),
        ("mqtt-user-mqtt-retain", "0"),
        ("city", "Wien"),
        ("mqtt-user-mqtt-user-x", "y"),
    ];
    assert_eq!(written(content, stamp), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    encode(content, stamp, b"a/b", |record| {
        assert_eq!((record.key, record.value, record.timestamp_ms), (Some(&b"a/b"[..]), Some(&b"hello"[..]), NOW));
    });
}

#[test]
fn expiry_counts_down_and_ends() {
    let properties = PublishProperties { message_expiry_s: Some(10), ..PublishProperties::default() };
    let content = Content { qos: QoS::AtMostOnce, retain: false, properties: &properties, payload: b"" };
    let message = Message::new("a", content, Stamp { wall_ms: NOW, ..Stamp::default() });
    let left = |now| message.properties(now).map(|p| p.message_expiry_s);
    assert_eq!(left(NOW), Some(Some(10)));
    assert_eq!(left(NOW + 1), Some(Some(10)));
    assert_eq!(left(NOW + 1_000), Some(Some(9)));
    assert_eq!(left(NOW + 9_999), Some(Some(1)));
    assert_eq!(left(NOW + 10_000), None);
    assert!(message.is_expired(NOW + 10_000) && !message.is_expired(NOW + 9_999));
    let (far, _) = read(&[header(headers::EXPIRES_AT, "9223372036854775807")]);
    assert_eq!(far.properties(NOW).unwrap().message_expiry_s, Some(u32::MAX));
    assert_eq!(far.properties(i64::MIN).unwrap().message_expiry_s, Some(u32::MAX));
}

#[test]
fn encoding_allocates_nothing_and_decoding_once() {
    let pairs = [("a", "b"), ("c", "d")];
    let properties = PublishProperties {
        message_expiry_s: Some(60),
        user_properties: UserProperties::Pairs(&pairs),
        ..PublishProperties::default()
    };
    let content = Content { qos: QoS::AtMostOnce, retain: false, properties: &properties, payload: b"hello" };
    let stamp = Stamp { wall_ms: NOW, publisher: Some("client-1"), token: None };
    let mut allocations = (0, 0);
    encode(content, stamp, b"a/b", |record| {
        let decoding =
            allocation_counter::measure(|| drop(decode("a/b", record.value, record.headers.iter().copied())));
        allocations.1 = decoding.count_total;
    });
    allocations.0 = allocation_counter::measure(|| encode(content, stamp, b"a/b", |_| ())).count_total;
    assert_eq!(allocations, (0, 1));
}

#[test]
fn a_message_takes_16_bytes_and_its_clones_share_the_rest() {
    assert_eq!(size_of::<Message>(), 16);
    let message = read(&[header("a", "b")]).0;
    assert_eq!(allocation_counter::measure(|| drop(message.clone())).count_total, 0);
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^\u{0}]{0,12}",
        "mqtt-[a-z-]{0,8}",
        prop::sample::select(vec![headers::QOS, headers::FENCE, headers::ESCAPE, headers::TOKEN, "mqtt-user-mqtt-qos"])
            .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn every_legal_publish_comes_back_from_its_record(
        (qos, retain, utf8, expiry) in (0..3_u8, any::<bool>(), any::<Option<bool>>(), any::<Option<u32>>()),
        content_type in prop::option::of("[^\u{0}]{0,12}"),
        response_topic in prop::option::of("[^\u{0}+#]{1,12}"),
        correlation in any::<Option<Vec<u8>>>(),
        pairs in prop::collection::vec((name(), "[^\u{0}]{0,12}"), 0..12),
        (topic, payload) in ("[^\u{0}+#]{1,20}", any::<Vec<u8>>()),
        (publisher, token) in (prop::option::of("[^\u{0}]{1,12}"), any::<Option<Vec<u8>>>()),
        wall_ms in 0..4_000_000_000_000_i64,
    ) {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let properties = PublishProperties {
            payload_is_utf8: utf8,
            message_expiry_s: expiry,
            response_topic: response_topic.as_deref(),
            correlation_data: correlation.as_deref(),
            user_properties: UserProperties::Pairs(&pairs),
            content_type: content_type.as_deref(),
            ..PublishProperties::default()
        };
        let content =
            Content { qos: QoS::from_u8(qos).unwrap(), retain, properties: &properties, payload: &payload };
        let stamp = Stamp { wall_ms, publisher: publisher.as_deref(), token: token.as_deref() };
        let decoded = encode(content, stamp, b"key", |record| {
            assert_eq!(super::token(record.headers.iter().copied()), token.as_deref());
            decode(&topic, record.value, record.headers.iter().copied())
        });
        let Decoded::Message { message, headers_ignored } = decoded else { panic!("{decoded:?}") };
        prop_assert_eq!(headers_ignored, 0);
        prop_assert_eq!((message.topic(), message.payload()), (topic.as_str(), payload.as_slice()));
        prop_assert_eq!((message.qos(), message.retain()), (content.qos, retain));
        prop_assert_eq!(message.publisher(), publisher.as_deref());
        prop_assert_eq!(message.properties(wall_ms), if expiry == Some(0) { None } else { Some(properties) });
    }

    /// Whatever a foreign program writes, it is a message, and what goes out is legal MQTT 5.
    #[test]
    fn any_headers_are_harmless(
        headers in prop::collection::vec((name(), any::<Option<Vec<u8>>>()), 0..20),
        now in any::<i64>(),
    ) {
        let headers: Vec<_> = headers.iter().map(|(n, v)| Header { name: n, value: v.as_deref() }).collect();
        let decoded = decode("a", Some(b"x"), headers.iter().copied());
        prop_assert_eq!(matches!(decoded, Decoded::Fence), is_fence(headers.iter().copied()));
        if let Decoded::Message { message, .. } = decoded
            && let Some(properties) = message.properties(now)
        {
            prop_assert!(properties.user_properties.iter().all(|(n, v)| !n.contains('\0') && !v.contains('\0')));
            prop_assert!(properties.response_topic.is_none_or(|t| !t.is_empty() && !t.contains(['+', '#', '\0'])));
        }
    }
}
