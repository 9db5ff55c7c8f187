//! What one publisher sends and what came back for it.

use bytes::BytesMut;
use millrace::mqtt::packet::PublishProperties;
use millrace::mqtt::{Delivery, PacketId, ProtocolVersion, Publish, QoS, encode};

use crate::inflight::{Inflight, Sent};
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

    fn intended_ns(&self, publisher: u32, sequence: u64, now_ns: u64) -> u64 {
        let event = sequence.saturating_mul(self.publishers.into()).saturating_add(publisher.into());
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
    topic: Box<str>,
    qos: QoS,
    /// The most unacknowledged messages.
    window: usize,
    sent: u64,
    inflight: Inflight,
    acked: Sequences,
}

impl Publisher {
    /// Has not sent anything.
    pub fn new(id: u32, topic: String, qos: QoS, window: u16) -> Self {
        let topic = topic.into_boxed_str();
        Self {
            id,
            topic,
            qos,
            window: window.into(),
            sent: 0,
            inflight: Inflight::default(),
            acked: Sequences::default(),
        }
    }

    /// Its index in the run.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its quality of service.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// Messages sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
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
            let sequence = self.sent;
            let sent = Sent { sequence, intended_ns: plan.intended_ns(self.id, sequence, now_ns) };
            let Some(delivery) = self.delivery(sent) else { return Ok(()) };
            Stamp { run: plan.run, publisher: self.id, sequence, intended_ns: sent.intended_ns }.write(payload);
            let message = Publish {
                dup: false,
                delivery,
                retain: false,
                topic: &self.topic,
                properties: PublishProperties::default(),
                payload,
            };
            encode::publish(&message, line.version, line.frame_bytes_max, out)?;
            self.sent += 1;
            on_sent(sent);
        }
        Ok(())
    }

    /// Takes an acknowledgement; `None` if nothing waits for this packet id.
    pub fn on_ack(&mut self, id: PacketId, is_success: bool) -> Option<Sent> {
        let sent = self.inflight.remove(id)?;
        if is_success {
            self.acked.insert(sent.sequence);
        }
        Some(sent)
    }

    /// What its receivers have a right to.
    pub fn into_owed(self) -> Sequences {
        match self.qos {
            QoS::AtMostOnce => Sequences::all(self.sent),
            QoS::AtLeastOnce | QoS::ExactlyOnce => self.acked,
        }
    }

    fn delivery(&mut self, sent: Sent) -> Option<Delivery> {
        match self.qos {
            QoS::AtMostOnce => Some(Delivery::AtMostOnce),
            QoS::AtLeastOnce => self.inflight.insert(sent).map(Delivery::AtLeastOnce),
            QoS::ExactlyOnce => self.inflight.insert(sent).map(Delivery::ExactlyOnce),
        }
    }
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
        Publisher::new(1, "t/1".to_owned(), qos, window)
    }

    /// The packet ids and stamps of what goes out.
    fn sends(publisher: &mut Publisher, plan: &Plan, now_ns: u64) -> Vec<(Option<PacketId>, Stamp)> {
        let (mut out, mut payload, mut told) = (BytesMut::new(), [0; STAMP_BYTES], 0);
        publisher.fill(plan, now_ns, LINE, &mut payload, &mut out, |_| told += 1).unwrap();
        let mut found = Vec::new();
        let mut rest = &out[..];
        while let Some(head) = frame_head(rest, Some(LINE.version), Sender::Client, usize::MAX).unwrap() {
            let (frame, behind) = rest.split_at(head.frame_bytes());
            let Packet::Publish(publish) = decode::packet(frame, Some(LINE.version), Sender::Client).unwrap() else {
                panic!("not a PUBLISH")
            };
            assert_eq!(publish.topic, "t/1");
            found.push((publish.delivery.packet_id(), Stamp::read(publish.payload).unwrap()));
            rest = behind;
        }
        assert_eq!(told, found.len());
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
        assert_eq!(publisher.on_ack(id, true), Some(Sent { sequence: 1, intended_ns: 5 }));
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
        assert_eq!(publisher.into_owed().len(), 2);
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
}
