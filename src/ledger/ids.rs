//! Names in the ledger. One type each, so that none is taken for another.

use std::fmt;

/// Names one claim of a session: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 16]);

/// Names one run of a node process: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub [u8; 16]);

/// Orders claims (F1): which life of `mqtt.sessions`, then the offset of the nonce's first claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Rises only when `mqtt.sessions` was recreated or restored.
    pub generation: u32,
    /// Offset of the nonce's first claim in the partition of its subject.
    pub offset: i64,
}

/// A partition of a kafka topic with messages, by a number that outlives a node: see [`topic_number`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The kafka topic's number; another one once the kafka topic was recreated.
    pub topic: u32,
    /// The partition.
    pub partition: u32,
}

/// Where a message is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// In which partition.
    pub place: Place,
    /// At which offset.
    pub offset: i64,
}

/// The number of a kafka topic, made of its topic id, so that every node finds the same without asking. `mqtt.cluster`
/// has a record of each, and a start is refused if two kafka topics ever had the same.
pub const fn topic_number(topic_id: u128) -> u32 {
    let folded = topic_id ^ (topic_id >> 64);
    #[expect(clippy::cast_possible_truncation, reason = "folded into 32 bits on purpose")]
    {
        (folded ^ (folded >> 32)) as u32
    }
}

/// Names a QoS 2 publish, or a will, across connections and nodes: the value of the header `mqtt-token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The claim under which it was published; of a will: under which it was armed.
    pub nonce: Nonce,
    /// Counts the tokens of a nonce, from 1; 0 is the will.
    pub number: u32,
    /// The client's packet id; 0 for a will.
    pub packet_id: u16,
}

impl Token {
    /// Length on the wire, bytes.
    pub const BYTES: usize = 22;

    /// The token of the will that was armed under `nonce`.
    pub const fn of_will(nonce: Nonce) -> Self {
        Self { nonce, number: 0, packet_id: 0 }
    }

    /// Nonce, number and packet id, big-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let parts = [&self.nonce.0[..], &self.number.to_be_bytes(), &self.packet_id.to_be_bytes()];
        for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *byte;
        }
        bytes
    }

    /// The way back; `None` for bytes that no node of ours wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (nonce, rest) = bytes.split_first_chunk::<16>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let packet_id = <[u8; 2]>::try_from(rest).ok()?;
        Some(Self {
            nonce: Nonce(*nonce),
            number: u32::from_be_bytes(*number),
            packet_id: u16::from_be_bytes(packet_id),
        })
    }
}

/// The first four bytes are enough to find it in a log.
fn short(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(&self.0, f)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(&self.0, f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_wire_form_and_nothing_else_is_one() {
        let token = Token { nonce: Nonce([7; 16]), number: 0x0102_0304, packet_id: 0x0506 };
        let bytes = token.to_bytes();
        assert_eq!(bytes[16..], [1, 2, 3, 4, 5, 6]);
        assert_eq!(Token::from_bytes(&bytes), Some(token));
        assert_eq!(Token::from_bytes(&bytes[1..]), None);
        assert_eq!(Token::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }
}
