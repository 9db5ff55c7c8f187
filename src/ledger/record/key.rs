//! Keys of `mqtt.sessions` and `mqtt.cluster`: binary, every text with its length before it.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::Ignored;
use crate::ledger::ids::{Incarnation, Nonce};
use crate::route::partition::partition_of;

/// The first byte of every key. A node ignores keys of a version that it does not know.
pub const VERSION: u8 = 1;

/// The second byte of a key in `mqtt.sessions`. The numbers never change.
mod kind {
    pub(super) const CLAIM: u8 = 1;
    pub(super) const KEEPER_CLAIM: u8 = 2;
    pub(super) const STATE: u8 = 3;
    pub(super) const FINAL: u8 = 4;
    pub(super) const WATERMARK: u8 = 5;
}

/// What is claimed. The numbers are in the keys and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SubjectType {
    /// A client's session.
    Client = 1,
    /// A partition of a share group.
    Share = 2,
    /// A duty of the cluster.
    Duty = 3,
}

/// In the place of a subject type: the key is about a node and nobody claims it.
const NODE: u8 = 4;

/// A part of a session's state that has a record of its own. The numbers are in the keys and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PartKind {
    /// Subscriptions and the position that they start from.
    Subscriptions = 1,
    /// The position.
    Position = 2,
    /// QoS 2 from the client.
    Inbound = 3,
    /// QoS 2 to the client.
    Outbound = 4,
    /// Wills that are due.
    Due = 5,
}

/// In the place of a part: the whole state.
const SET: u8 = 0;

/// Which of a nonce's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// H: the claim of a connection.
    Claim,
    /// K: the claim of a keeper.
    KeeperClaim,
    /// S, part *set*: the whole state.
    Set,
    /// S, any other part.
    Part(PartKind),
    /// F: the nonce is final.
    Final,
}

/// Whose session: realm, subject type and subject, as they are in a key. Cheap to clone; ordered by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(Arc<[u8]>);

impl ClientKey {
    /// The session of a client. Texts of more than 65,535 bytes, which neither MQTT nor the configuration lets in, are cut.
    pub fn new(realm: &str, client_id: &str) -> Self {
        Self::of(SubjectType::Client, realm, client_id)
    }

    /// Anything that is claimed.
    pub fn of(subject_type: SubjectType, realm: &str, subject: &str) -> Self {
        let mut bytes = Vec::with_capacity(5 + realm.len() + subject.len());
        put_text(&mut bytes, realm.as_bytes());
        bytes.push(subject_type as u8);
        put_text(&mut bytes, subject.as_bytes());
        Self(bytes.into())
    }

    /// From the bytes between kind and nonce of a key.
    pub(in crate::ledger) fn from_encoded(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        split_text(&self.0).and_then(|(realm, _)| std::str::from_utf8(realm).ok()).unwrap_or_default()
    }

    /// The client id, or the name of what else is claimed.
    pub fn client_id(&self) -> &str {
        let subject = split_text(&self.0).and_then(|(_, rest)| rest.get(1..)).and_then(split_text);
        subject.and_then(|(subject, _)| std::str::from_utf8(subject).ok()).unwrap_or_default()
    }

    /// What is claimed.
    pub fn subject_type(&self) -> SubjectType {
        let byte = split_text(&self.0).and_then(|(_, rest)| rest.first()).copied();
        byte.and_then(subject_type).unwrap_or(SubjectType::Client)
    }

    /// The partition of `mqtt.sessions`, which has `partitions`.
    pub fn partition(&self, partitions: u32) -> u32 {
        partition_of_session(self.realm(), self.client_id(), partitions)
    }
}

impl Borrow<[u8]> for ClientKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.subject_type(), self.realm(), self.client_id())
    }
}

/// The partition of a client's records among `partitions`, so that an operator can find them: that of the key realm,
/// 0x00, client id.
pub fn partition_of_session(realm: &str, client_id: &str, partitions: u32) -> u32 {
    partition_of(&[realm.as_bytes(), &[0], client_id.as_bytes()].concat(), partitions)
}

/// The key of one of a nonce's records.
pub fn key(client: &ClientKey, nonce: Nonce, slot: Slot) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + client.0.len() + 17);
    let (kind, part) = match slot {
        Slot::Claim => (kind::CLAIM, None),
        Slot::KeeperClaim => (kind::KEEPER_CLAIM, None),
        Slot::Set => (kind::STATE, Some(SET)),
        Slot::Part(part) => (kind::STATE, Some(part as u8)),
        Slot::Final => (kind::FINAL, None),
    };
    bytes.extend([VERSION, kind]);
    bytes.extend_from_slice(&client.0);
    bytes.extend_from_slice(&nonce.0);
    bytes.extend(part);
    bytes
}

/// The key of a node's watermark.
pub fn watermark_key(incarnation: Incarnation) -> Vec<u8> {
    let mut bytes = vec![VERSION, kind::WATERMARK, 0, 0, NODE];
    put_text(&mut bytes, &incarnation.0);
    bytes
}

/// A key of `mqtt.sessions`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// One of a nonce's records.
    Of {
        /// What [`ClientKey`] holds.
        subject: &'a [u8],
        /// The nonce.
        nonce: Nonce,
        /// Which of its records.
        slot: Slot,
    },
    /// A node's watermark.
    Watermark(Incarnation),
}

/// Takes a key of `mqtt.sessions` apart.
///
/// # Errors
/// It means nothing to this version.
pub fn parse(bytes: &[u8]) -> Result<Key<'_>, Ignored> {
    let (version, rest) = bytes.split_first().ok_or(Ignored::Key)?;
    if *version != VERSION {
        return Err(Ignored::Version);
    }
    let (kind, rest) = rest.split_first().ok_or(Ignored::Key)?;
    if !(kind::CLAIM..=kind::WATERMARK).contains(kind) {
        return Err(Ignored::Kind);
    }
    let (realm, after) = split_text(rest).ok_or(Ignored::Key)?;
    let (type_byte, after) = after.split_first().ok_or(Ignored::Key)?;
    let (name, after) = split_text(after).ok_or(Ignored::Key)?;
    if *kind == kind::WATERMARK {
        let incarnation = name.try_into().map_err(|_| Ignored::Key)?;
        let well_formed = *type_byte == NODE && realm.is_empty() && after.is_empty();
        return if well_formed { Ok(Key::Watermark(Incarnation(incarnation))) } else { Err(Ignored::Key) };
    }
    subject_type(*type_byte).ok_or(Ignored::Kind)?;
    if std::str::from_utf8(realm).is_err() || std::str::from_utf8(name).is_err() {
        return Err(Ignored::Key);
    }
    let subject = rest.get(..rest.len() - after.len()).ok_or(Ignored::Key)?;
    let (nonce, part) = after.split_first_chunk::<16>().ok_or(Ignored::Key)?;
    let slot = match (*kind, part) {
        (kind::CLAIM, []) => Slot::Claim,
        (kind::KEEPER_CLAIM, []) => Slot::KeeperClaim,
        (kind::FINAL, []) => Slot::Final,
        (kind::STATE, [SET]) => Slot::Set,
        (kind::STATE, [part]) => Slot::Part(part_kind(*part).ok_or(Ignored::Kind)?),
        _ => return Err(Ignored::Key),
    };
    Ok(Key::Of { subject, nonce: Nonce(*nonce), slot })
}

fn subject_type(byte: u8) -> Option<SubjectType> {
    [SubjectType::Client, SubjectType::Share, SubjectType::Duty].into_iter().find(|subject| *subject as u8 == byte)
}

fn part_kind(byte: u8) -> Option<PartKind> {
    PartKind::ALL.into_iter().find(|part| *part as u8 == byte)
}

impl PartKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Subscriptions, Self::Position, Self::Inbound, Self::Outbound, Self::Due];
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.iter().take(usize::from(length)));
}

fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}
