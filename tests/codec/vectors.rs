//! `vectors/*.txt`, one vector a line, six fields between bars:
//!
//! `name | version | sender | bytes | expectation | clause`
//!
//! - version: `3.1`, `3.1.1`, `5`, or `-` for the first packet of a connection
//! - sender: `client` or `server`
//! - bytes: hex, or ASCII in quotes
//! - expectation: `= packet` for a packet that also encodes to these very bytes, `~ packet` for one whose encoding is
//!   another (shorter or in another order) and decodes to the same, `! 0x81` for a refused one with its reason;
//!   `, answer 3.1.1 code 1` is the CONNACK that a refused CONNECT may get: its version and 3.x return code.
//!   Packets are written in their debug form without what is absent, false or empty.
//! - clause: what it shows
//!
//! The packets of `head.txt` are cut off: the fixed header alone refuses them.

use bytes::BytesMut;
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::{Packet, ProtocolVersion, decode, encode};

use super::compact::compact;

/// The size limit that the vectors are read with.
const FRAME_BYTES_MAX: usize = 256 * 1024;

/// One line.
#[derive(Debug)]
pub(crate) struct Vector {
    pub file: String,
    pub name: String,
    pub version: Option<ProtocolVersion>,
    pub sender: Sender,
    pub bytes: Vec<u8>,
    pub expectation: String,
    pub clause: String,
}

impl Vector {
    pub(crate) fn is_refused(&self) -> bool {
        self.expectation.starts_with('!')
    }

    /// The version that the connection has once this packet is decoded.
    pub(crate) fn version_of(&self, packet: &Packet<'_>) -> ProtocolVersion {
        match packet {
            Packet::Connect(connect) => connect.version,
            _ => self.version.unwrap(),
        }
    }
}

/// Every vector there is.
pub(crate) fn all() -> Vec<Vector> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/codec/vectors");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut vectors = Vec::new();
    for path in paths {
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        vectors.extend(text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(|line| parse(&file, line)));
    }
    vectors
}

fn parse(file: &str, line: &str) -> Vector {
    let fields: Vec<_> = line.split(" | ").collect();
    let [name, version, sender, bytes, expectation, clause] = fields[..] else { panic!("six fields: {line}") };
    Vector {
        file: file.to_owned(),
        name: name.to_owned(),
        version: parse_version(version),
        sender: match sender {
            "client" => Sender::Client,
            "server" => Sender::Server,
            other => panic!("sender {other}"),
        },
        bytes: parse_bytes(bytes),
        expectation: expectation.to_owned(),
        clause: clause.to_owned(),
    }
}

fn parse_version(version: &str) -> Option<ProtocolVersion> {
    match version {
        "-" => None,
        "3.1" => Some(ProtocolVersion::V31),
        "3.1.1" => Some(ProtocolVersion::V311),
        "5" => Some(ProtocolVersion::V5),
        other => panic!("version {other}"),
    }
}

fn parse_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in text.split('"').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
        } else {
            bytes.extend(part.split_whitespace().map(|hex| u8::from_str_radix(hex, 16).unwrap()));
        }
    }
    bytes
}

/// What the codec makes of a vector, in the words of the file.
fn outcome(vector: &Vector) -> String {
    if vector.file == "head" {
        return refusal(&frame_head(&vector.bytes, vector.version, vector.sender, FRAME_BYTES_MAX).unwrap_err());
    }
    let packet = match decode::packet(&vector.bytes, vector.version, vector.sender) {
        Ok(packet) => packet,
        Err(error) => return refusal(&error),
    };
    let version = vector.version_of(&packet);
    let mut out = BytesMut::new();
    encode::packet(&packet, version, usize::MAX, &mut out).unwrap();
    assert_eq!(encode::packet_bytes(&packet, version), Ok(out.len()), "{vector:?}");
    let again = decode::packet(&out, vector.version, vector.sender);
    assert_eq!(again.as_ref(), Ok(&packet), "{vector:?}");
    let sign = if out == vector.bytes { '=' } else { '~' };
    format!("{sign} {}", compact(&format!("{packet:?}")))
}

fn refusal(error: &decode::DecodeError) -> String {
    let mut text = format!("! 0x{:02X}", error.reason.as_u8());
    if let Some(version) = error.connect_version {
        text += match version {
            ProtocolVersion::V31 => ", answer 3.1",
            ProtocolVersion::V311 => ", answer 3.1.1",
            ProtocolVersion::V5 => ", answer 5",
        };
    }
    if let Some(code) = error.connect_return_code {
        text += " code ";
        text += &code.to_string();
    }
    text
}

#[test]
fn every_vector_decodes_and_encodes_as_written() {
    let vectors = all();
    assert!(vectors.len() >= 400, "only {} vectors were found", vectors.len());
    let mut wrong = Vec::new();
    for vector in &vectors {
        let found = outcome(vector);
        if found != vector.expectation {
            wrong.push(format!(
                "{}: {} ({})\n  is  {found}\n  not {}",
                vector.file, vector.name, vector.clause, vector.expectation
            ));
        }
    }
    assert!(wrong.is_empty(), "{} vectors:\n{}", wrong.len(), wrong.join("\n"));
}

/// More bytes never turn a refused head into a good one, and a cut packet is never an error of its head.
#[test]
fn every_split_point_of_every_vector_gives_the_same_head() {
    for vector in all() {
        let whole = frame_head(&vector.bytes, vector.version, vector.sender, FRAME_BYTES_MAX);
        for cut in 0..vector.bytes.len() {
            match frame_head(&vector.bytes[..cut], vector.version, vector.sender, FRAME_BYTES_MAX) {
                Ok(None) => {}
                early => assert_eq!(early, whole, "{vector:?} cut at {cut}"),
            }
        }
    }
}

/// A packet cut off anywhere, or with one byte too many, is not a packet.
#[test]
fn only_the_whole_frame_decodes() {
    for vector in all().iter().filter(|vector| !vector.is_refused()) {
        for cut in 0..vector.bytes.len() {
            assert!(decode::packet(&vector.bytes[..cut], vector.version, vector.sender).is_err(), "{vector:?} {cut}");
        }
        let mut longer = vector.bytes.clone();
        longer.push(0);
        assert!(decode::packet(&longer, vector.version, vector.sender).is_err(), "{vector:?}");
    }
}
