//! What one publisher sends and what came back for it.

use bytes::BytesMut;
use millrace::mqtt::packet::{Ack, PublishProperties, ReasonProperties};
use millrace::mqtt::{Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, encode};

use crate::inflight::{Inflight, Sent, Stage};
use crate::schedule::{Schedule, share_of};
use crate::sequences::Sequences;
use crate::stamp::Stamp;

/// As much is encoded before it is written.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// What all publishers of a run do together, known once the start is.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Stamps carry it.
    pub run: u32,
    /// Publishers of the run.
    pub publishers: u32,
    /// Messages of the run; `u64::MAX` where only the time ends it.
    pub messages: u64,
    /// Before it no message is intended.
    pub start_ns: u64,
    /// From it on no message is intended.
    pub end_ns: u64,
    /// `None`: closed loop, the next message is intended as soon as the window has room.
    pub schedule: Option<Schedule>,
}

impl Plan {
    /// Messages of one publisher that may be sent at `now_ns`, those that were sent before included.
    fn due(&self, publisher: u32, now_ns: u64) -> u64 {
        let due = match self.intended_before(now_ns.saturating_add(1)) {
            Some(intended) => intended,
            None if (self.start_ns..self.end_ns).contains(&now_ns) => self.messages,
            None => 0,
        };
        share_of(due, publisher.into(), self.publishers.into())
    }

    /// Messages that one publisher would send in the whole run.
    fn share(&self, publisher: u32) -> u64 {
        let all = self.intended_before(u64::MAX).unwrap_or(self.messages);
        share_of(all, publisher.into(), self.publishers.into())
    }

    fn intended_ns(&self, publisher: u32, message: u64, now_ns: u64) -> u64 {
        let event = message.saturating_mul(self.publishers.into()).saturating_add(publisher.into());
        self.schedule.map_or(now_ns, |schedule| schedule.due_ns(event))
    }

    /// Messages of the run that are intended before `until_ns`; `None` in a closed loop, which intends what it sends.
    pub fn intended_before(&self, until_ns: u64) -> Option<u64> {
        let last_ns = until_ns.min(self.end_ns).saturating_sub(1);
        self.schedule.map(|schedule| schedule.due_count(last_ns).min(self.messages))
    }
}

/// One publisher.
#[derive(Debug)]
pub struct Publisher {
    id: u32,
    topics: Topics,
    qos: QoS,
    /// The most messages that are not done with.
    window: usize,
    sent: u64,
    inflight: Inflight,
    /// Of each topic.
    acked: Vec<Sequences>,
}

/// The topics of one publisher, which it takes in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Index in the run of the first; the others follow.
    pub first: u32,
    /// At least one.
    pub names: Vec<Box<str>>,
}

impl Topics {
    /// The place of the topic of message `n`, and how many there were of this topic before.
    fn turn(&self, message: u64) -> (usize, u64) {
        let count = self.names.len().max(1) as u64;
        (usize::try_from(message % count).unwrap_or(0), message / count)
    }

    fn index(&self, place: usize) -> u32 {
        self.first.saturating_add(u32::try_from(place).unwrap_or(u32::MAX))
    }

    fn place(&self, index: u32) -> usize {
        usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }
}

impl Publisher {
    /// Has not sent anything.
    pub fn new(id: u32, topics: Topics, qos: QoS, window: u16) -> Self {
        let acked = vec![Sequences::default(); topics.names.len()];
        Self { id, topics, qos, window: window.into(), sent: 0, inflight: Inflight::default(), acked }
    }

    /// Its index in the run.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its quality of service.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// Sends no more unacknowledged messages than the broker takes.
    pub fn limit_window(&mut self, receive_maximum: u16) {
        self.window = self.window.min(receive_maximum.into());
    }

    /// Whether a message can go out now.
    pub fn can_send(&self, plan: &Plan, now_ns: u64) -> bool {
        let has_room = self.qos == QoS::AtMostOnce || self.inflight.len() < self.window;
        has_room && self.sent < plan.due(self.id, now_ns)
    }

    /// Whether everything that the run intends was sent and answered.
    pub fn is_finished(&self, plan: &Plan, now_ns: u64) -> bool {
        let is_over = now_ns >= plan.end_ns || self.sent >= plan.share(self.id);
        is_over && self.inflight.len() == 0 && self.sent >= plan.due(self.id, now_ns)
    }

    /// Appends due messages to `out`, up to a batch, and tells each one to `on_sent`.
    ///
    /// # Errors
    /// A message that cannot be written in this version or is longer than `frame_bytes_max`.
    pub fn fill(
        &mut self,
        plan: &Plan,
        now_ns: u64,
        line: Line,
        payload: &mut [u8],
        out: &mut BytesMut,
        mut on_sent: impl FnMut(Sent),
    ) -> Result<(), encode::EncodeError> {
        while out.len() < BATCH_BYTES_MAX && self.can_send(plan, now_ns) {
            let (place, sequence) = self.topics.turn(self.sent);
            let intended_ns = plan.intended_ns(self.id, self.sent, now_ns);
            let sent = Sent { topic: self.topics.index(place), sequence, intended_ns };
            let Some(delivery) = self.delivery(sent) else { return Ok(()) };
            self.write(sent, delivery, false, Transmission { run: plan.run, line, payload }, out)?;
            self.sent += 1;
            on_sent(sent);
        }
        Ok(())
    }

    /// The broker kept the session: appends everything that is not done with, in its old order, with the old packet ids.
    ///
    /// # Errors
    /// A message that cannot be written any more, because this broker takes less than the one before.
    pub fn resend(
        &self,
        run: u32,
        line: Line,
        payload: &mut [u8],
        out: &mut BytesMut,
    ) -> Result<(), encode::EncodeError> {
        for (id, open) in self.inflight.in_order() {
            match (open.stage, self.qos) {
                (Stage::Received, _) => {
                    encode::packet(&Packet::PubRel(ack(id)), line.version, line.frame_bytes_max, out)?;
                }
                (Stage::Published, QoS::ExactlyOnce) => {
                    let transmission = Transmission { run, line, payload };
                    self.write(open.sent, Delivery::ExactlyOnce(id), true, transmission, out)?;
                }
                (Stage::Published, QoS::AtMostOnce | QoS::AtLeastOnce) => {
                    let transmission = Transmission { run, line, payload };
                    self.write(open.sent, Delivery::AtLeastOnce(id), true, transmission, out)?;
                }
            }
        }
        Ok(())
    }

    /// The broker has no session: what is not done with is given up, and never sent again.
    pub fn give_up(&mut self) -> usize {
        self.inflight.clear()
    }

    /// Takes an answer that ends it; `None` if nothing waits for this packet id.
    pub fn on_ack(&mut self, id: PacketId, is_success: bool) -> Option<Sent> {
        let sent = self.inflight.remove(id, Stage::Published)?;
        if is_success {
            self.note_acked(sent);
        }
        Some(sent)
    }

    /// Takes a PUBREC: the broker answers for the message from now on. `None` if nothing waits for this packet id.
    pub fn on_received(&mut self, id: PacketId) -> Option<Sent> {
        let sent = self.inflight.receive(id)?;
        self.note_acked(sent);
        Some(sent)
    }

    /// Takes a PUBCOMP; `None` if nothing waits for this packet id.
    pub fn on_completed(&mut self, id: PacketId) -> Option<Sent> {
        self.inflight.remove(id, Stage::Received)
    }

    /// What the receivers of each topic have a right to.
    pub fn into_owed(self) -> Vec<(u32, Sequences)> {
        let Self { topics, qos, sent, acked, .. } = self;
        let count = topics.names.len() as u64;
        let owed = acked.into_iter().enumerate().map(|(place, acked)| {
            let owed = match qos {
                QoS::AtMostOnce => Sequences::all(share_of(sent, place as u64, count)),
                QoS::AtLeastOnce | QoS::ExactlyOnce => acked,
            };
            (topics.index(place), owed)
        });
        owed.collect()
    }

    fn note_acked(&mut self, sent: Sent) {
        if let Some(acked) = self.acked.get_mut(self.topics.place(sent.topic)) {
            acked.insert(sent.sequence);
        }
    }

    fn write(
        &self,
        sent: Sent,
        delivery: Delivery,
        dup: bool,
        transmission: Transmission<'_>,
        out: &mut BytesMut,
    ) -> Result<(), encode::EncodeError> {
        let Transmission { run, line, payload } = transmission;
        let Sent { topic, sequence, intended_ns } = sent;
        Stamp { run, publisher: topic, sequence, intended_ns }.write(payload);
        let name = self.topics.names.get(self.topics.place(topic)).map_or("", |name| &**name);
        let properties = PublishProperties::default();
        let message = Publish { dup, delivery, retain: false, topic: name, properties, payload };
        encode::publish(&message, line.version, line.frame_bytes_max, out)
    }

    fn delivery(&mut self, sent: Sent) -> Option<Delivery> {
        match self.qos {
            QoS::AtMostOnce => Some(Delivery::AtMostOnce),
            QoS::AtLeastOnce => self.inflight.insert(sent).map(Delivery::AtLeastOnce),
            QoS::ExactlyOnce => self.inflight.insert(sent).map(Delivery::ExactlyOnce),
        }
    }
}

/// What every message of a connection has in common.
struct Transmission<'a> {
    run: u32,
    line: Line,
    /// Overwritten by the stamp.
    payload: &'a mut [u8],
}

/// The body of an answer that is a success.
pub fn ack(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() }
}

/// How packets are written on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The protocol version.
    pub version: ProtocolVersion,
    /// What the broker takes.
    pub frame_bytes_max: usize,
}

#[cfg(test)]
mod tests {
    use millrace::mqtt::Packet;
    use millrace::mqtt::decode;
    use millrace::mqtt::head::{Sender, frame_head};

    use super::*;
    use crate::stamp::STAMP_BYTES;

    const LINE: Line = Line { version: ProtocolVersion::V311, frame_bytes_max: usize::MAX };

    fn plan(rate: Option<&str>, messages: u64) -> Plan {
        let schedule = rate.map(|rate| Schedule::new(1_000, rate.parse().unwrap(), 1));
        Plan { run: 1, publishers: 2, messages, start_ns: 0, end_ns: u64::MAX, schedule }
    }

    fn publisher(qos: QoS, window: u16) -> Publisher {
        Publisher::new(1, topics(&["t/1"]), qos, window)
    }

    fn topics(names: &[&str]) -> Topics {
        Topics { first: 1, names: names.iter().map(|name| (*name).into()).collect() }
    }

    /// The packet ids and stamps of what goes out.
    fn sends(publisher: &mut Publisher, plan: &Plan, now_ns: u64) -> Vec<(Option<PacketId>, Stamp)> {
        let (mut out, mut payload, mut told) = (BytesMut::new(), [0; STAMP_BYTES], 0);
        publisher.fill(plan, now_ns, LINE, &mut payload, &mut out, |_| told += 1).unwrap();
        let found = read(&out);
        assert!(found.iter().all(|sent| sent.is_publish && !sent.dup));
        assert_eq!(told, found.len());
        found.into_iter().map(|sent| (sent.id, sent.stamp.unwrap())).collect()
    }

    struct Read {
        is_publish: bool,
        dup: bool,
        id: Option<PacketId>,
        topic: String,
        stamp: Option<Stamp>,
    }

    fn read(mut bytes: &[u8]) -> Vec<Read> {
        let mut found = Vec::new();
        while let Some(head) = frame_head(bytes, Some(LINE.version), Sender::Client, usize::MAX).unwrap() {
            let (frame, behind) = bytes.split_at(head.frame_bytes());
            let packet = decode::packet(frame, Some(LINE.version), Sender::Client).unwrap();
            if let Packet::Publish(publish) = packet {
                let (topic, stamp) = (publish.topic.to_owned(), Stamp::read(publish.payload));
                let (dup, id) = (publish.dup, publish.delivery.packet_id());
                found.push(Read { is_publish: true, dup, id, topic, stamp });
            } else if let Packet::PubRel(ack) = packet {
                let id = Some(ack.packet_id);
                found.push(Read { is_publish: false, dup: false, id, topic: String::new(), stamp: None });
            } else {
                panic!("{packet:?} is neither PUBLISH nor PUBREL");
            }
            bytes = behind;
        }
        found
    }

    #[test]
    fn an_open_loop_keeps_the_intended_times_however_late_it_is() {
        let (plan, mut publisher) = (plan(Some("1000"), 7), publisher(QoS::AtMostOnce, 0));
        assert!(sends(&mut publisher, &plan, 1_000).is_empty());
        let late: Vec<_> = sends(&mut publisher, &plan, 60_000_000_000).iter().map(|(_, stamp)| *stamp).collect();
        let intended: Vec<_> = late.iter().map(|stamp| (stamp.sequence, stamp.intended_ns)).collect();
        assert_eq!(intended, [(0, 1_001_000), (1, 3_001_000), (2, 5_001_000)]);
        assert!(publisher.is_finished(&plan, 60_000_000_000));
    }

    #[test]
    fn a_full_window_holds_messages_back_until_an_acknowledgement() {
        let (plan, mut publisher) = (plan(None, u64::MAX), publisher(QoS::AtLeastOnce, 2));
        let first = sends(&mut publisher, &plan, 5);
        assert_eq!(first.len(), 2);
        assert!(!publisher.can_send(&plan, 6));
        let id = first[1].0.unwrap();
        assert_eq!(publisher.on_ack(id, true), Some(Sent { topic: 1, sequence: 1, intended_ns: 5 }));
        assert_eq!(publisher.on_ack(id, true), None);
        assert_eq!(sends(&mut publisher, &plan, 7)[0].1.intended_ns, 7);
    }

    #[test]
    fn only_what_was_acknowledged_as_a_success_is_owed() {
        let (plan, mut publisher) = (plan(None, 6), publisher(QoS::AtLeastOnce, 10));
        let ids: Vec<_> = sends(&mut publisher, &plan, 5).iter().map(|(id, _)| id.unwrap()).collect();
        assert_eq!(ids.len(), 3);
        publisher.on_ack(ids[0], true);
        publisher.on_ack(ids[1], false);
        assert!(!publisher.is_finished(&plan, 6));
        publisher.on_ack(ids[2], true);
        assert!(publisher.is_finished(&plan, 6));
        assert_eq!(publisher.into_owed()[0].1.len(), 2);
    }

    #[test]
    fn after_the_end_nothing_is_intended() {
        let plan = Plan { end_ns: 2_001_001, ..plan(Some("1000"), u64::MAX) };
        assert_eq!(plan.intended_before(u64::MAX), Some(3));
        assert_eq!(plan.intended_before(1_000), Some(0));
        let mut publisher = publisher(QoS::AtMostOnce, 0);
        assert_eq!(sends(&mut publisher, &plan, u64::MAX - 1).len(), 1);
        assert!(publisher.is_finished(&plan, 2_001_001));
    }

    #[test]
    fn topics_take_turns_and_count_for_themselves() {
        let plan = plan(None, 10);
        let mut publisher = Publisher::new(1, Topics { first: 6, ..topics(&["a", "b", "c"]) }, QoS::AtLeastOnce, 10);
        let mut out = BytesMut::new();
        publisher.fill(&plan, 5, LINE, &mut [0; STAMP_BYTES], &mut out, |_| {}).unwrap();
        let sent: Vec<_> = read(&out).into_iter().map(|sent| (sent.topic, sent.stamp.unwrap())).collect();
        let sent: Vec<_> =
            sent.iter().map(|(topic, stamp)| (topic.as_str(), stamp.publisher, stamp.sequence)).collect();
        assert_eq!(sent, [("a", 6, 0), ("b", 7, 0), ("c", 8, 0), ("a", 6, 1), ("b", 7, 1)]);
        for id in [1, 2, 4] {
            publisher.on_ack(PacketId::new(id).unwrap(), true);
        }
        let owed: Vec<_> = publisher.into_owed().iter().map(|(topic, owed)| (*topic, owed.len())).collect();
        assert_eq!(owed, [(6, 2), (7, 1), (8, 0)]);
    }

    #[test]
    fn what_is_not_done_with_is_sent_again_in_its_order_with_its_ids() {
        let (plan, mut publisher) = (plan(None, 8), publisher(QoS::ExactlyOnce, 10));
        let sent = sends(&mut publisher, &plan, 5);
        let ids: Vec<_> = sent.iter().map(|(id, _)| id.unwrap()).collect();
        publisher.on_received(ids[0]);
        publisher.on_received(ids[1]);
        publisher.on_completed(ids[0]);
        assert_eq!(publisher.on_completed(ids[2]), None, "PUBREC comes first");
        let mut out = BytesMut::new();
        publisher.resend(1, LINE, &mut [0; STAMP_BYTES], &mut out).unwrap();
        let again = read(&out);
        let shape: Vec<_> = again.iter().map(|sent| (sent.is_publish, sent.dup, sent.id.unwrap())).collect();
        assert_eq!(shape, [(false, false, ids[1]), (true, true, ids[2]), (true, true, ids[3])]);
        assert_eq!(again[1].stamp, Some(sent[2].1));
        assert_eq!(publisher.give_up(), 3);
        assert_eq!(publisher.into_owed()[0].1.len(), 2, "what was answered stays owed");
    }
}
