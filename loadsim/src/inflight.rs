//! The messages of one publisher that wait for their acknowledgement, by packet id.

use millrace::mqtt::PacketId;

/// A message as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Counts the messages of the publisher from 0.
    pub sequence: u64,
    /// When it was to be sent.
    pub intended_ns: u64,
}

/// At most 65,535 messages; memory grows with the most that ever waited at once.
#[derive(Debug, Default)]
pub struct Inflight {
    /// Slot `n` belongs to packet id `n + 1`.
    slots: Vec<Option<Sent>>,
    free: Vec<PacketId>,
}

impl Inflight {
    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Gives the message a packet id; `None` when none is left.
    pub fn insert(&mut self, sent: Sent) -> Option<PacketId> {
        if let Some(id) = self.free.pop() {
            *self.slots.get_mut(usize::from(id.get()) - 1)? = Some(sent);
            return Some(id);
        }
        let id = PacketId::new(u16::try_from(self.slots.len() + 1).ok()?)?;
        self.slots.push(Some(sent));
        Some(id)
    }

    /// Takes the message with this packet id, if one waits for it.
    pub fn remove(&mut self, id: PacketId) -> Option<Sent> {
        let sent = self.slots.get_mut(usize::from(id.get()) - 1)?.take()?;
        self.free.push(id);
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(sequence: u64) -> Sent {
        Sent { sequence, intended_ns: 0 }
    }

    #[test]
    fn an_acknowledgement_finds_its_message_exactly_once() {
        let mut inflight = Inflight::default();
        let ids: Vec<_> = (0..3).map(|n| inflight.insert(sent(n)).unwrap()).collect();
        assert_eq!(inflight.remove(ids[1]), Some(sent(1)));
        assert_eq!(inflight.remove(ids[1]), None);
        assert_eq!(inflight.remove(PacketId::new(4).unwrap()), None);
        assert_eq!(inflight.len(), 2);
        assert_eq!(inflight.insert(sent(3)), Some(ids[1]));
    }

    #[test]
    fn packet_ids_run_out_and_come_back() {
        let mut inflight = Inflight::default();
        for n in 0..65_535 {
            assert!(inflight.insert(sent(n)).is_some());
        }
        assert_eq!(inflight.insert(sent(0)), None);
        assert!(inflight.remove(PacketId::new(65_535).unwrap()).is_some());
        assert!(inflight.insert(sent(0)).is_some());
    }
}
