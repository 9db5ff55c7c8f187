//! The stamp at the beginning of every payload: who sent it, which of its messages it is, and when it was meant to go.

/// Bytes of a stamp, hence of the shortest payload.
pub const STAMP_BYTES: usize = 28;

const MAGIC: [u8; 4] = *b"LSM1";

/// What a subscriber learns from a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Names one run of one process, so that leftovers of another are told apart.
    pub run: u32,
    /// Index of the publisher in its run.
    pub publisher: u32,
    /// Counts the messages of the publisher from 0.
    pub sequence: u64,
    /// When the message was to be sent, on [`crate::clock::Clock`].
    pub intended_ns: u64,
}

impl Stamp {
    /// Overwrites the beginning of `payload`; one that is too short stays as it is.
    pub fn write(&self, payload: &mut [u8]) {
        let Some(head) = payload.first_chunk_mut::<STAMP_BYTES>() else { return };
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&self.run.to_be_bytes());
        head[8..12].copy_from_slice(&self.publisher.to_be_bytes());
        head[12..20].copy_from_slice(&self.sequence.to_be_bytes());
        head[20..].copy_from_slice(&self.intended_ns.to_be_bytes());
    }

    /// `None` where the payload is not loadsim's.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (&magic, rest) = payload.split_first_chunk()?;
        let (&run, rest) = rest.split_first_chunk()?;
        let (&publisher, rest) = rest.split_first_chunk()?;
        let (&sequence, rest) = rest.split_first_chunk()?;
        let (&intended_ns, _) = rest.split_first_chunk()?;
        (magic == MAGIC).then_some(Self {
            run: u32::from_be_bytes(run),
            publisher: u32::from_be_bytes(publisher),
            sequence: u64::from_be_bytes(sequence),
            intended_ns: u64::from_be_bytes(intended_ns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_and_leaves_the_rest_of_the_payload_alone() {
        let stamp = Stamp { run: 7, publisher: u32::MAX, sequence: 1 << 40, intended_ns: u64::MAX - 1 };
        let mut payload = [0xAA; STAMP_BYTES + 3];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(payload[STAMP_BYTES..], [0xAA; 3]);
    }

    #[test]
    fn other_payloads_carry_no_stamp() {
        assert_eq!(Stamp::read(b""), None);
        assert_eq!(Stamp::read(b"LSM1 but too short"), None);
        assert_eq!(Stamp::read(&[0; STAMP_BYTES]), None);
    }
}
