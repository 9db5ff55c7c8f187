//! Generated packets of every version and both senders: whole, split anywhere, pipelined, and damaged.

use bytes::BytesMut;
use millrace::mqtt::encode::packet_bytes;
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::{Packet, ProtocolVersion, decode};
use proptest::prelude::*;

use super::checks::{self, encoded, version_before};
use super::generate::{self, Pool, Source};

/// Bytes to generate a packet from.
fn seeds() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

fn versions() -> impl Strategy<Value = ProtocolVersion> {
    prop::sample::select(vec![ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5])
}

fn senders() -> impl Strategy<Value = Sender> {
    prop::sample::select(vec![Sender::Client, Sender::Server])
}

/// Runs `test` with the packet of `seed` and its frame.
fn with_packet(
    seed: &[u8],
    version: ProtocolVersion,
    sender: Sender,
    test: impl FnOnce(&Packet<'_>, &[u8], Option<ProtocolVersion>),
) {
    let mut source = Source::new(seed);
    let pool = Pool::new(&mut source);
    let packet = generate::packet(&mut source, &pool, version, sender);
    test(&packet, &encoded(&packet, version), version_before(&packet, version));
}

/// Takes every frame that is whole off the front of `buffer`, as a reader of a socket does.
fn drain(buffer: &mut BytesMut, version: Option<ProtocolVersion>, sender: Sender, frames: &mut Vec<BytesMut>) {
    while let Some(head) = frame_head(buffer, version, sender, usize::MAX).unwrap() {
        if buffer.len() < head.frame_bytes() {
            return;
        }
        frames.push(buffer.split_to(head.frame_bytes()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_comes_back_as_it_was(seed in seeds(), version in versions(), sender in senders()) {
        with_packet(&seed, version, sender, |packet, frame, known| {
            assert_eq!(decode::packet(frame, known, sender).as_ref(), Ok(packet));
            let head = frame_head(frame, known, sender, frame.len()).unwrap().unwrap();
            assert_eq!(head.frame_bytes(), frame.len());
            assert_eq!(head.packet_type, packet.packet_type());
        });
    }

    #[test]
    fn a_packet_of_one_end_is_refused_from_the_other_or_means_the_same(
        seed in seeds(), version in versions(), sender in senders(),
    ) {
        with_packet(&seed, version, sender, |packet, frame, known| {
            let other = if sender == Sender::Client { Sender::Server } else { Sender::Client };
            if let Ok(decoded) = decode::packet(frame, known, other) {
                assert_eq!(&decoded, packet);
                let is_of_both_ends = !matches!(
                    packet,
                    Packet::Connect(_) | Packet::ConnAck(_) | Packet::Subscribe(_) | Packet::SubAck(_)
                        | Packet::Unsubscribe(_) | Packet::UnsubAck(_) | Packet::PingReq | Packet::PingResp
                );
                assert!(is_of_both_ends);
            }
        });
    }

    #[test]
    fn split_at_any_point_the_frame_is_found_when_its_last_byte_arrives(
        seed in seeds(), version in versions(), sender in senders(),
    ) {
        with_packet(&seed, version, sender, |_, frame, known| {
            // Every point of a short frame; the ends and some points between of a long one.
            let step = (frame.len() / 64).max(1);
            let points = (0..frame.len().min(40)).chain((40..frame.len()).step_by(step));
            for cut in points {
                let mut frames = Vec::new();
                let mut buffer = BytesMut::from(&frame[..cut]);
                drain(&mut buffer, known, sender, &mut frames);
                assert!(frames.is_empty());
                assert!(decode::packet(&frame[..cut], known, sender).is_err());
                buffer.extend_from_slice(&frame[cut..]);
                drain(&mut buffer, known, sender, &mut frames);
                assert_eq!(frames, [frame]);
            }
        });
    }

    #[test]
    fn pipelined_packets_come_out_one_by_one(
        seeds in prop::collection::vec(seeds(), 1..6), version in versions(), sender in senders(), chunk in 1_usize..40,
    ) {
        let mut sent = Vec::new();
        for seed in &seeds {
            with_packet(seed, version, sender, |packet, frame, _| {
                if !matches!(packet, Packet::Connect(_)) {
                    sent.push(BytesMut::from(frame));
                }
            });
        }
        let (mut buffer, mut received) = (BytesMut::new(), Vec::new());
        for part in sent.concat().chunks(chunk) {
            buffer.extend_from_slice(part);
            drain(&mut buffer, Some(version), sender, &mut received);
        }
        assert_eq!(received, sent);
        assert!(buffer.is_empty());
    }

    /// What follows a packet has no say in it: with a length changed, decoding never reaches into the next one.
    #[test]
    fn a_packet_with_a_wrong_length_takes_nothing_of_the_next(
        seed in seeds(), version in versions(), sender in senders(), other in 0_u8..128,
    ) {
        with_packet(&seed, version, sender, |_, frame, known| {
            let mut damaged = frame.to_vec();
            if damaged[1] >= 0x80 {
                return;
            }
            damaged[1] = other;
            let next: &[u8] = if sender == Sender::Client { b"\xC0\x00" } else { b"\xD0\x00" };
            damaged.extend_from_slice(next);
            let Ok(Some(head)) = frame_head(&damaged, known, sender, usize::MAX) else { return };
            let Some(cut) = damaged.get(..head.frame_bytes()) else { return };
            if let Ok(packet) = decode::packet(cut, known, sender) {
                assert!(packet_bytes(&packet, version).unwrap() <= cut.len());
            }
        });
    }

    #[test]
    fn any_bytes_keep_the_promises(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        checks::head(&bytes);
        checks::decode(&bytes);
        checks::roundtrip(&bytes);
    }

    #[test]
    fn any_text_is_a_topic_or_is_not(text in "(\\$share/)?[a/+#$\u{0}é ]{0,12}") {
        checks::topic(text.as_bytes());
    }
}
