//! What must hold for any bytes at all. The fuzz targets and the replay of their corpora call these.

use bytes::BytesMut;
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::topic::{ClientId, SharedFilter, check_filter, check_name, is_shared};
use millrace::mqtt::{Packet, ProtocolVersion, TopicFilter, TopicName, decode, encode};

use super::generate::{self, Pool, Source};

const VERSIONS: [Option<ProtocolVersion>; 4] =
    [None, Some(ProtocolVersion::V31), Some(ProtocolVersion::V311), Some(ProtocolVersion::V5)];
const SENDERS: [Sender; 2] = [Sender::Client, Sender::Server];

/// The head of any bytes: no prefix disagrees with the whole, and the limit holds.
pub fn head(bytes: &[u8]) {
    for version in VERSIONS {
        for sender in SENDERS {
            for frame_bytes_max in [2, 300, 256 * 1024, usize::MAX] {
                let whole = frame_head(bytes, version, sender, frame_bytes_max);
                for cut in 0..bytes.len().min(6) {
                    match frame_head(&bytes[..cut], version, sender, frame_bytes_max) {
                        Ok(None) => {}
                        early => assert_eq!(early, whole),
                    }
                }
                match whole {
                    Ok(Some(head)) => {
                        assert!((2..=5).contains(&head.head_bytes));
                        assert!(head.frame_bytes() <= frame_bytes_max);
                    }
                    Ok(None) => assert!(bytes.len() < 5),
                    Err(error) => assert!(error.reason.is_error()),
                }
            }
        }
    }
}

/// A stream of frames of one version and sender, which the first byte chooses: whatever decodes survives another
/// round, in no more bytes.
pub fn decode(bytes: &[u8]) {
    let Some((&choice, stream)) = bytes.split_first() else { return };
    let sender = SENDERS[usize::from(choice & 1)];
    let mut version = VERSIONS[usize::from(choice >> 1 & 3)];
    let mut rest = stream;
    while let Ok(Some(head)) = frame_head(rest, version, sender, 1 << 20) {
        let Some((frame, after)) = rest.split_at_checked(head.frame_bytes()) else { return };
        rest = after;
        match decode::packet(frame, version, sender) {
            Ok(packet) => version = Some(survives(&packet, version, sender, frame)),
            Err(error) => {
                assert!(error.reason.is_error());
                assert!(!error.what.is_empty());
                assert!(error.connect_version.is_none() || version.is_none());
                return;
            }
        }
    }
}

fn survives(packet: &Packet<'_>, version: Option<ProtocolVersion>, sender: Sender, frame: &[u8]) -> ProtocolVersion {
    let written_as = match packet {
        Packet::Connect(connect) => connect.version,
        _ => version.unwrap(),
    };
    let mut out = BytesMut::new();
    encode::packet(packet, written_as, frame.len(), &mut out).unwrap();
    assert_eq!(encode::packet_bytes(packet, written_as), Ok(out.len()));
    assert_eq!(decode::packet(&out, version, sender).as_ref(), Ok(packet));
    written_as
}

/// A packet generated from the bytes comes back as it was.
pub fn roundtrip(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let choice = source.u8();
    let version = VERSIONS[usize::from(choice % 3) + 1].unwrap();
    let sender = SENDERS[usize::from(choice >> 7)];
    let pool = Pool::new(&mut source);
    let packet = generate::packet(&mut source, &pool, version, sender);
    let frame = encoded(&packet, version);
    assert_eq!(encode::packet_bytes(&packet, version), Ok(frame.len()));
    assert_eq!(decode::packet(&frame, version_before(&packet, version), sender).as_ref(), Ok(&packet));
}

/// The frame of a packet that can be encoded.
pub fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> BytesMut {
    let mut out = BytesMut::new();
    encode::packet(packet, version, usize::MAX, &mut out).unwrap();
    out
}

/// What a receiver knows of the version when this packet arrives.
pub fn version_before(packet: &Packet<'_>, version: ProtocolVersion) -> Option<ProtocolVersion> {
    if matches!(packet, Packet::Connect(_)) { None } else { Some(version) }
}

/// Topic names and filters of any text agree with each other.
pub fn topic(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let name = TopicName::parse(text);
    assert_eq!(name.as_ref().err(), check_name(text).as_ref().err());
    if let Ok(name) = &name {
        assert_eq!(name.as_str(), text);
        assert!(check_filter(text).is_ok(), "a topic name is a filter that matches it");
    }
    match TopicFilter::parse(text) {
        Ok(filter) => {
            assert!(check_filter(text).is_ok() && !is_shared(text));
            assert_eq!(filter.has_wildcard(), name.is_err());
            assert_eq!(filter.levels().collect::<Vec<_>>().join("/"), text);
        }
        Err(_) => assert!(check_filter(text).is_err() || is_shared(text)),
    }
    match SharedFilter::parse(text) {
        Ok(Some(shared)) => assert_eq!(format!("$share/{}/{}", shared.group, shared.filter), text),
        Ok(None) => assert!(!is_shared(text)),
        Err(_) => assert!(is_shared(text)),
    }
    if let Ok(id) = ClientId::parse(text, 128) {
        assert!((1..=128).contains(&id.as_str().len()));
    }
}
