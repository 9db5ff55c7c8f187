//! Bytes that never change, and the way there and back.

use proptest::prelude::*;

use super::cluster::{ClusterKey, Fingerprint, Generation, KafkaTopic, Node, by, decode_by};
use super::*;
use crate::ledger::arbitrary::{self, incarnation, nonce};
use crate::ledger::ids::Origin;
use crate::ledger::state::{DueWill, Life, OpenDelivery, Outbound, Position, SubscriptionState, Unresolved, Will};
use crate::mqtt::packet::{RetainHandling, SubscribeOptions};
use crate::mqtt::{PacketId, QoS, TopicFilter};

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hex digits with blanks between the fields.
#[track_caller]
fn assert_bytes(bytes: &[u8], golden: &str) {
    assert_eq!(hex(bytes), golden.split_whitespace().collect::<String>());
}

fn id(n: u16) -> PacketId {
    PacketId::new(n).unwrap()
}

fn place(topic: u32, partition: u32) -> Place {
    Place { topic, partition }
}

fn origin(offset: i64) -> Origin {
    Origin { place: place(0x0a0b_0c0d, 3), offset }
}

const NONCE: &str = "07070707070707070707070707070707";
const NODE: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";

/// Every field is used.
fn full() -> SessionState {
    let will = || Will { nonce: nonce(7), delay_s: 9, publish: Box::from(&b"0p"[..]) };
    SessionState {
        expiry_s: 3_600,
        identity: "me".into(),
        life: Life::Disconnected { since_ms: 1_000 },
        will: Some(will()),
        due: vec![DueWill { will: will(), from: origin(70) }],
        subscriptions: vec![SubscriptionState {
            filter: TopicFilter::parse("a/#").unwrap(),
            options: SubscribeOptions {
                qos: QoS::AtLeastOnce,
                no_local: true,
                retain_as_published: true,
                retain_handling: RetainHandling::IfNew,
            },
            id: Some(5),
            starts: Vec::new(),
        }],
        position: full_position(),
        inbound: full_inbound(),
        outbound: Outbound {
            open: vec![OpenDelivery { packet_id: id(6), origin: origin(11), released: true }],
            sent_to: vec![(place(1, 0), 12)],
        },
    }
}

fn full_position() -> Position {
    Position {
        following: true,
        from: vec![(place(1, 0), 300), (place(1, 2), 1), (place(2, 0), 5)],
        in_flight: vec![(id(2), origin(4))],
    }
}

fn full_inbound() -> Inbound {
    Inbound {
        high: 8,
        held: vec![id(1), id(300)],
        pending: vec![(9, id(3))],
        unresolved: vec![Unresolved {
            nonce: nonce(7),
            incarnation: incarnation(1),
            high: 2,
            pending: vec![(1, id(4))],
            released: vec![id(5)],
            looked: vec![place(1, 0), place(1, 2), place(2, 0)],
        }],
    }
}

#[test]
fn keys_of_sessions_are_as_documented() {
    let client = ClientKey::new("r", "car");
    let subject = "0001 72 01 0003 636172";
    for (slot, kind, part) in [
        (Slot::Claim, 1, ""),
        (Slot::KeeperClaim, 2, ""),
        (Slot::Set, 3, "00"),
        (Slot::Part(PartKind::Subscriptions), 3, "01"),
        (Slot::Part(PartKind::Position), 3, "02"),
        (Slot::Part(PartKind::Inbound), 3, "03"),
        (Slot::Part(PartKind::Outbound), 3, "04"),
        (Slot::Part(PartKind::Due), 3, "05"),
        (Slot::Final, 4, ""),
    ] {
        let bytes = key(&client, nonce(7), slot);
        assert_bytes(&bytes, &format!("01 0{kind} {subject} {NONCE} {part}"));
        let Ok(Key::Of { subject, nonce: of, slot: back }) = parse(&bytes) else { panic!("{slot:?}") };
        assert_eq!((ClientKey::from_encoded(subject), of, back), (client.clone(), nonce(7), slot));
    }
    assert_bytes(
        &key(&ClientKey::of(SubjectType::Share, "", "g"), nonce(7), Slot::Final),
        &format!("01 04 0000 02 0001 67 {NONCE}"),
    );
    assert_bytes(
        &key(&ClientKey::of(SubjectType::Duty, "", ""), nonce(7), Slot::Final),
        &format!("01 04 0000 03 0000 {NONCE}"),
    );
    assert_bytes(&watermark_key(incarnation(1)), &format!("01 05 0000 04 0010 {NODE}"));
    assert_eq!(parse(&watermark_key(incarnation(1))), Ok(Key::Watermark(incarnation(1))));
}

#[test]
fn a_client_key_tells_what_it_is_made_of() {
    let client = ClientKey::of(SubjectType::Share, "realm", "gröup");
    assert_eq!((client.realm(), client.client_id()), ("realm", "gröup"));
    assert_eq!(client.subject_type(), SubjectType::Share);
    assert_eq!(ClientKey::new("", "x").partition(48), partition_of_session("", "x", 48));
    assert_eq!(partition_of_session("ab", "c", 1 << 20), crate::route::partition::partition_of(b"ab\0c", 1 << 20));
}

#[test]
fn values_of_claims_and_finals_are_as_documented() {
    assert_bytes(&claim(incarnation(1)), &format!("0a10 {NODE}"));
    assert_bytes(&keeper_claim(incarnation(1), nonce(7)), &format!("0a10 {NODE} 1210 {NONCE}"));
    assert_bytes(&last(&LastWord::default()), "");
    let inbound = Some(Inbound { high: 2, ..Inbound::default() });
    assert_bytes(&last(&LastWord { inbound, no_will: false }), "0a02 0802");
    assert_bytes(&last(&LastWord { inbound: None, no_will: true }), "1001");
}

// What the parts of `full()` are as protobuf, tag by tag.
const WILL: &str = "0a10 07070707070707070707070707070707 1009 1a02 3070";
const DUE: &str = "0a18 0a10 07070707070707070707070707070707 1009 1a02 3070 1209 0d 0d0c0b0a 1003 1846";
const SUBSCRIPTION: &str = "0a03 612f23 101d 1805";
const POSITION: &str = "0801 120e 0d 01000000 1202 00 02 1a03 ac02 01 120b 0d 02000000 1201 00 1a01 05 \
                        1a0d 0802 1209 0d 0d0c0b0a 1003 1804";
const INBOUND: &str = "0808 1203 01 ac02 1a04 0809 1003 2244 0a10 07070707070707070707070707070707 \
                       1210 a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1 1802 2204 0801 1004 2a01 05 \
                       3209 0d 01000000 1202 00 02 3208 0d 02000000 1201 00";
const OUTBOUND: &str = "0a0f 0806 1209 0d 0d0c0b0a 1003 180b 1801 120b 0d 01000000 1201 00 1a01 0c";

#[test]
fn the_value_of_a_set_is_as_documented() {
    let golden = format!(
        "0801 10d804 1a10 {NODE} 2002 28901c 3202 6d65 3801 4218 {WILL} 4a09 {SUBSCRIPTION} 522e {POSITION} \
         5a53 {INBOUND} 621e {OUTBOUND} 68e807 7225 {DUE}"
    );
    let epoch = Epoch { generation: 1, offset: 600 };
    let bytes = set(epoch, incarnation(1), 2, &full());
    assert_bytes(&bytes, &golden);
    let record = SetRecord { epoch, incarnation: incarnation(1), version: 2, state: full() };
    assert_eq!(decode_set(&bytes), Some(record));
}

#[test]
fn a_new_session_says_little() {
    let state = SessionState { expiry_s: u32::MAX, ..SessionState::default() };
    let bytes = set(Epoch { generation: 0, offset: 1 }, incarnation(1), 1, &state);
    assert_bytes(&bytes, &format!("1001 1a10 {NODE} 2001 28ffffffff0f"));
}

#[test]
fn values_of_parts_are_as_documented() {
    let state = full();
    for (value, golden) in [
        (Part::Subscriptions(state.subscriptions, full_position()), format!("1209 {SUBSCRIPTION} 1a2e {POSITION}")),
        (Part::Position(full_position()), format!("122e {POSITION}")),
        (Part::Inbound(full_inbound()), format!("1253 {INBOUND}")),
        (Part::Outbound(state.outbound), format!("121e {OUTBOUND}")),
        (Part::Due(state.due), format!("1225 {DUE}")),
    ] {
        let bytes = part(3, &value);
        assert_bytes(&bytes, &format!("0803 {golden}"));
        assert_eq!(decode_part(value.kind(), &bytes), Some((3, value)));
    }
}

#[test]
fn the_value_of_a_watermark_is_as_documented() {
    let value = Watermark { done: full_position().from, tokens: vec![(place(1, 0), 2)] };
    assert_bytes(
        &watermark(&value),
        "0a0e 0d 01000000 1202 00 02 1a03 ac02 01 0a0b 0d 02000000 1201 00 1a01 05 120b 0d 01000000 1201 00 1a01 02",
    );
}

#[test]
fn records_of_the_cluster_are_as_documented() {
    let node = Node { node_id: "n1".into(), producer_id: 1_000, beat: 3, started_ms: 500, left: true };
    assert_bytes(&node.encode(), "0a02 6e31 10e807 1803 20f403 2801");
    assert_eq!(Node::decode(&node.encode()), Some(node));
    let topic = KafkaTopic { number: 0x0a0b_0c0d, name: "mqtt.messages".into(), partitions: 48 };
    assert_bytes(&topic.encode(), "0d 0d0c0b0a 120d 6d7174742e6d65737361676573 1830");
    assert_eq!(KafkaTopic::decode(&topic.encode()), Some(topic));
    let fingerprint = Fingerprint { sessions_partitions: 48, retained_partitions: 16 };
    assert_bytes(&fingerprint.encode(), "1030 1810");
    assert_eq!(Fingerprint::decode(&fingerprint.encode()), Some(fingerprint));
    let generation = Generation { number: 2 };
    assert_bytes(&generation.encode(), "0802");
    assert_eq!(Generation::decode(&generation.encode()), Some(generation));
    assert_bytes(&by(incarnation(1)), &format!("0a10 {NODE}"));
    assert_eq!(decode_by(&by(incarnation(1))), Some(incarnation(1)));
    for (key, golden) in [
        (ClusterKey::Fingerprint, "01 01".to_owned()),
        (ClusterKey::KafkaTopic(0x0102), "01 02 00000000000000000000000000000102".to_owned()),
        (ClusterKey::Node(incarnation(1)), format!("01 03 {NODE}")),
        (
            ClusterKey::Eviction { node: incarnation(1), by: incarnation(2) },
            format!("01 04 {NODE} a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2"),
        ),
        (ClusterKey::Fenced(incarnation(1)), format!("01 05 {NODE}")),
        (
            ClusterKey::Generation { topic_id: 0x0102, name: nonce(7) },
            format!("01 07 00000000000000000000000000000102 {NONCE}"),
        ),
    ] {
        assert_bytes(&key.encode(), &golden);
        assert_eq!(ClusterKey::decode(&key.encode()), Ok(key));
    }
    assert_eq!(ClusterKey::decode(&[1, 6, 1]), Err(Ignored::Kind));
    assert_eq!(ClusterKey::decode(&[2, 1]), Err(Ignored::Version));
    assert_eq!(ClusterKey::decode(&[1, 1, 0]), Err(Ignored::Key));
}

#[test]
fn keys_of_other_versions_kinds_and_shapes_are_told_apart() {
    let known = key(&ClientKey::new("", "c"), nonce(7), Slot::Set);
    let with = |at: usize, byte: u8| {
        let mut bytes = known.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(parse(&with(0, 2)), Err(Ignored::Version));
    assert_eq!(parse(&with(1, 6)), Err(Ignored::Kind));
    assert_eq!(parse(&with(4, 9)), Err(Ignored::Kind), "subject type");
    assert_eq!(parse(&with(known.len() - 1, 9)), Err(Ignored::Kind), "part");
    assert_eq!(parse(&with(7, 0xff)), Err(Ignored::Key), "not UTF-8");
    assert_eq!(parse(&[]), Err(Ignored::Key));
    let mut long = known.clone();
    long.push(0);
    assert_eq!(parse(&long), Err(Ignored::Key));
    for length in 2..known.len() {
        assert_eq!(parse(&known[..length]), Err(Ignored::Key), "{length} bytes");
    }
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    // Field 100, a varint.
    let more = |mut bytes: Vec<u8>| {
        bytes.extend([0xa0, 0x06, 1]);
        bytes
    };
    assert_eq!(decode_claim(&more(claim(incarnation(1)))), decode_claim(&claim(incarnation(1))));
    let bytes = set(Epoch::default(), incarnation(1), 2, &full());
    assert_eq!(decode_set(&more(bytes.clone())), decode_set(&bytes));
    assert_eq!(decode_last(&more(last(&LastWord::default()))), Some(LastWord::default()));
}

#[test]
fn values_that_mean_nothing_are_none() {
    assert_eq!(decode_claim(&[]), None, "no incarnation");
    assert_eq!(decode_keeper_claim(&claim(incarnation(1))), None, "expects nobody");
    let later_life = wire::Set { incarnation: vec![1; 16], life: 7, ..wire::Set::default() };
    assert_eq!(decode_set(&later_life.encode_to_vec()), None);
    let no_packet_id = wire::Inbound { held: vec![0], ..wire::Inbound::default() };
    assert_eq!(convert::inbound_back(no_packet_id), None);
    let uneven = wire::Marks { topic: 1, partitions: vec![1], offsets: Vec::new() };
    assert_eq!(convert::marks_back(&[uneven]), None);
}

proptest! {
    #[test]
    fn states_come_back(epoch in arbitrary::epoch(), version in any::<u32>(), state in arbitrary::state()) {
        let record = decode_set(&set(epoch, incarnation(3), version, &state));
        prop_assert_eq!(record, Some(SetRecord { epoch, incarnation: incarnation(3), version, state }));
    }

    #[test]
    fn parts_come_back(version in any::<u32>(), value in arbitrary::part()) {
        prop_assert_eq!(decode_part(value.kind(), &part(version, &value)), Some((version, value)));
    }

    #[test]
    fn last_words_and_watermarks_come_back(
        inbound in proptest::option::of(arbitrary::inbound()),
        no_will in any::<bool>(),
        value in arbitrary::watermark(),
    ) {
        let word = LastWord { inbound, no_will };
        prop_assert_eq!(decode_last(&last(&word)), Some(word));
        prop_assert_eq!(decode_watermark(&watermark(&value)), Some(value));
    }

    #[test]
    fn no_bytes_make_reading_fail_badly(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 0..5_usize) {
        let _ = (parse(&bytes), ClusterKey::decode(&bytes), decode_set(&bytes), decode_claim(&bytes));
        let _ = (decode_part(PartKind::ALL[kind], &bytes), decode_watermark(&bytes), decode_last(&bytes));
        let _ = (Node::decode(&bytes), decode_keeper_claim(&bytes), decode_by(&bytes));
    }
}

/// Fields of a message: number, name, type.
type Fields = std::collections::BTreeMap<u32, (String, String)>;

/// Of `docs/records.proto`.
fn published(text: &str) -> std::collections::BTreeMap<String, Fields> {
    let mut messages = std::collections::BTreeMap::<String, Fields>::new();
    let mut message = String::new();
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
        if let Some(name) = line.strip_prefix("message ") {
            message = name.trim_end_matches(" {").to_owned();
            messages.entry(message.clone()).or_default();
        } else if let Some((field, number)) = line.strip_suffix(';').and_then(|line| line.split_once(" = ")) {
            let words: Vec<_> = field.split(' ').collect();
            let (Ok(number), [.., kind, name]) = (number.parse(), &words[..]) else { continue };
            messages.entry(message.clone()).or_default().insert(number, ((*name).to_owned(), (*kind).to_owned()));
        }
    }
    messages
}

/// Of `wire.rs`.
fn written(text: &str) -> std::collections::BTreeMap<String, Fields> {
    let mut messages = std::collections::BTreeMap::<String, Fields>::new();
    let (mut message, mut attribute) = (String::new(), "");
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("pub(super) struct ") {
            message = name.trim_end_matches(" {").to_owned();
        } else if let Some(inner) = line.strip_prefix("#[prost(") {
            attribute = inner;
        } else if let Some((name, kind)) = line.strip_prefix("pub ").and_then(|field| field.split_once(": ")) {
            let number = attribute.split("tag = \"").nth(1).and_then(|tag| tag.split('"').next());
            let scalar = attribute.split([',', ' ']).next().unwrap_or_default();
            let inner = kind.trim_end_matches([',', '>']).rsplit('<').next().unwrap_or_default();
            let kind = if scalar == "message" { inner } else { scalar };
            let field = (name.to_owned(), kind.to_owned());
            messages.entry(message.clone()).or_default().insert(number.unwrap().parse().unwrap(), field);
        }
    }
    messages
}

#[test]
fn the_published_schema_is_what_is_written() {
    let published = published(include_str!("../../../docs/records.proto"));
    let written = written(include_str!("wire.rs"));
    assert!(written.len() > 20 && written["Set"].len() == 14, "{written:?}");
    assert_eq!(published, written);
}
