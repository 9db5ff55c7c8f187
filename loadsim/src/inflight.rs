//! The messages of one publisher that wait for an answer, by packet id.

use millrace::mqtt::PacketId;

/// A message as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Index of its topic in the run.
    pub topic: u32,
    /// Counts the messages of the topic from 0.
    pub sequence: u64,
    /// When it was to be sent.
    pub intended_ns: u64,
}

/// How far a message is.
///
/// ```text
/// Published ──PUBACK──▶ gone
///     └──PUBREC──▶ Received ──PUBCOMP──▶ gone
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// PUBLISH was sent.
    Published,
    /// PUBREC came, PUBREL was sent.
    Received,
}

/// A message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The message.
    pub sent: Sent,
    /// How far it is.
    pub stage: Stage,
    /// Counts the messages of the publisher.
    order: u64,
}

/// At most 65,535 messages; memory grows with the most that ever waited at once.
#[derive(Debug, Default)]
pub struct Inflight {
    /// Slot `n` belongs to packet id `n + 1`.
    slots: Vec<Option<Open>>,
    free: Vec<PacketId>,
    inserted: u64,
}

impl Inflight {
    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Gives the message a packet id; `None` when none is left.
    pub fn insert(&mut self, sent: Sent) -> Option<PacketId> {
        let open = Open { sent, stage: Stage::Published, order: self.inserted };
        self.inserted += 1;
        if let Some(id) = self.free.pop() {
            *self.slots.get_mut(usize::from(id.get()) - 1)? = Some(open);
            return Some(id);
        }
        let id = PacketId::new(u16::try_from(self.slots.len() + 1).ok()?)?;
        self.slots.push(Some(open));
        Some(id)
    }

    /// Takes the message with this packet id, if one waits for it at this stage.
    pub fn remove(&mut self, id: PacketId, stage: Stage) -> Option<Sent> {
        let slot = self.slots.get_mut(usize::from(id.get()) - 1)?;
        let open = slot.take_if(|open| open.stage == stage)?;
        self.free.push(id);
        Some(open.sent)
    }

    /// PUBREC came for this packet id. `None` if nothing waits for it.
    pub fn receive(&mut self, id: PacketId) -> Option<Sent> {
        let slot = self.slots.get_mut(usize::from(id.get()) - 1)?;
        let open = slot.as_mut().filter(|open| open.stage == Stage::Published)?;
        open.stage = Stage::Received;
        Some(open.sent)
    }

    /// Everything that waits, in the order in which it was first sent.
    pub fn in_order(&self) -> Vec<(PacketId, Open)> {
        let slots = (1..=u16::MAX).filter_map(PacketId::new).zip(&self.slots);
        let mut open: Vec<_> = slots.filter_map(|(id, slot)| Some((id, (*slot)?))).collect();
        open.sort_unstable_by_key(|(_, open)| open.order);
        open
    }

    /// Forgets everything, and tells how much that was.
    pub fn clear(&mut self) -> usize {
        let count = self.len();
        self.slots.clear();
        self.free.clear();
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(sequence: u64) -> Sent {
        Sent { topic: 0, sequence, intended_ns: 0 }
    }

    #[test]
    fn an_acknowledgement_finds_its_message_exactly_once() {
        let mut inflight = Inflight::default();
        let ids: Vec<_> = (0..3).map(|n| inflight.insert(sent(n)).unwrap()).collect();
        assert_eq!(inflight.remove(ids[1], Stage::Published), Some(sent(1)));
        assert_eq!(inflight.remove(ids[1], Stage::Published), None);
        assert_eq!(inflight.remove(PacketId::new(4).unwrap(), Stage::Published), None);
        assert_eq!(inflight.len(), 2);
        assert_eq!(inflight.insert(sent(3)), Some(ids[1]));
    }

    #[test]
    fn a_message_of_qos_2_goes_through_two_stages() {
        let mut inflight = Inflight::default();
        let id = inflight.insert(sent(0)).unwrap();
        assert_eq!(inflight.remove(id, Stage::Received), None);
        assert_eq!(inflight.receive(id), Some(sent(0)));
        assert_eq!(inflight.receive(id), None);
        assert_eq!(inflight.remove(id, Stage::Published), None);
        assert_eq!(inflight.remove(id, Stage::Received), Some(sent(0)));
        assert_eq!(inflight.len(), 0);
    }

    #[test]
    fn what_waits_is_told_in_the_order_of_the_first_transmission() {
        let mut inflight = Inflight::default();
        let ids: Vec<_> = (0..3).map(|n| inflight.insert(sent(n)).unwrap()).collect();
        inflight.remove(ids[0], Stage::Published);
        // It gets the id that is free again.
        inflight.insert(sent(3));
        let order: Vec<_> = inflight.in_order().iter().map(|(id, open)| (id.get(), open.sent.sequence)).collect();
        assert_eq!(order, [(2, 1), (3, 2), (1, 3)]);
        assert_eq!(inflight.clear(), 3);
        assert!(inflight.in_order().is_empty());
    }

    #[test]
    fn packet_ids_run_out_and_come_back() {
        let mut inflight = Inflight::default();
        for n in 0..65_535 {
            assert!(inflight.insert(sent(n)).is_some());
        }
        assert_eq!(inflight.insert(sent(0)), None);
        assert!(inflight.remove(PacketId::new(65_535).unwrap(), Stage::Published).is_some());
        assert!(inflight.insert(sent(0)).is_some());
    }
}
