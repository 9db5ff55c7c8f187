//! What the sender makes of answers, and how appends end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kafka_protocol::messages::ProduceResponse;

use super::{Request, Sender};
use crate::journal::kafka::appender::lane::{Phase, Settled};
use crate::journal::kafka::appender::verdict::Verdict;
use crate::journal::kafka::connection::Reply;
use crate::journal::kafka::wire;
use crate::journal::{AckGroup, Outcome, Partition, Refusal, TopicIndex};

impl Sender {
    pub(super) fn on_answer(&mut self, request: u64, reply: Reply, now: Instant) {
        let Some(Request { node: id, version, lanes }) = self.requests.remove(&request) else { return };
        let answered = reply.is_ok();
        let decoded = match reply {
            Ok(bytes) => wire::decode_produce(bytes, version).map_err(|error| {
                tracing::error!(error, "Kafka's answer to a Produce request makes no sense");
                true
            }),
            Err(lost) => Err(lost.maybe_sent),
        };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.turn.on_answered();
            if let Ok(answer) = &decoded {
                node.link.hold_back(answer.throttle_time_ms);
            } else {
                if answered {
                    node.link.close();
                }
                node.link.on_lost(now);
                self.stats.connections_lost.fetch_add(1, Ordering::Relaxed);
                self.metadata.refresh();
            }
        }
        let mut verdicts = decoded.as_ref().map(|answer| self.verdicts(answer)).unwrap_or_default();
        for index in lanes {
            let Some(lane) = self.lanes.get(index) else { continue };
            let verdict = match (&decoded, verdicts.remove(&lane.partition())) {
                (Ok(_), Some(verdict)) => verdict,
                // An answer without this partition says nothing about it.
                (Ok(_), None) => Verdict::lost(true),
                (Err(maybe_sent), _) => Verdict::lost(*maybe_sent),
            };
            self.on_verdict(index, verdict, now);
        }
        self.sink.flush();
        self.shared.settled.notify_waiters();
    }

    fn verdicts(&self, answer: &ProduceResponse) -> BTreeMap<Partition, Verdict> {
        let mut verdicts = BTreeMap::new();
        for topic in &answer.responses {
            let Some(index) = self.names.iter().position(|name| *name == topic.name) else { continue };
            let Ok(index) = u16::try_from(index) else { continue };
            for part in &topic.partition_responses {
                let Ok(number) = u32::try_from(part.index) else { continue };
                let verdict = Verdict::of(part);
                if !matches!(verdict, Verdict::Written(_)) {
                    let (error, message) = (wire::words(part.error_code), part.error_message.as_deref());
                    tracing::debug!(topic = &*topic.name.0, number, error, message, "a batch was not written");
                }
                verdicts.insert(Partition { topic: TopicIndex(index), number }, verdict);
            }
        }
        verdicts
    }

    fn on_verdict(&mut self, index: usize, verdict: Verdict, now: Instant) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        // What certainly failed before the append has nothing to do with who leads.
        if let Verdict::Retry { maybe_appended: true } = verdict {
            self.metadata.refresh();
        }
        let fenced = verdict == Verdict::Fenced;
        let mut settled = Vec::new();
        lane.on_verdict(verdict, now, &mut settled);
        let used_up = lane.is_used_up();
        self.tell(index, settled);
        if fenced || used_up {
            self.on_fenced(now, used_up);
        }
        self.go_on(index, now);
    }

    /// After an attempt: what the lane does next.
    fn go_on(&mut self, index: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        match lane.phase {
            Phase::Waiting { until } => {
                self.waiting.insert((until, index));
            }
            Phase::Idle if lane.has_more() || !lane.slot.leave() => self.make_ready(index, now),
            Phase::Idle => {
                self.active.remove(&index);
            }
            Phase::Ready | Phase::InFlight => {}
        }
    }

    fn tell(&self, index: usize, settled: Vec<Settled>) {
        let Some(lane) = self.lanes.get(index) else { return };
        let partition = lane.partition();
        for Settled { outcome, tickets, budget_bytes } in settled {
            self.shared.pending_bytes.fetch_sub(budget_bytes, Ordering::Relaxed);
            if let Some(stats) = self.stats.topics.get(usize::from(partition.topic.0)) {
                let counter = match outcome {
                    Outcome::Written(_) => &stats.records_written,
                    Outcome::Refused(_) => &stats.records_refused,
                    Outcome::Unknown => &stats.records_unknown,
                };
                counter.fetch_add(tickets.len() as u64, Ordering::Relaxed);
            }
            self.sink.on_acks(&AckGroup { partition, outcome, tickets: &tickets });
            lane.slot.on_decided(tickets.len());
        }
    }

    /// Somebody fenced this producer: nothing is sent any more; what is under way gets its answer.
    fn on_fenced(&mut self, now: Instant, used_up: bool) {
        if !self.shared.fenced.swap(true, Ordering::Relaxed) {
            tracing::error!(used_up, "this node's Kafka producer was fenced: it takes no more appends");
        }
        self.shared.close();
        self.expire(now, now, Refusal::Fenced);
    }

    pub(super) fn expire_overdue(&mut self, now: Instant) {
        self.expire_at = None;
        let timeout = |ms| now.checked_sub(Duration::from_millis(ms));
        if let Some(limit) = timeout(self.shared.options.delivery_timeout_ms) {
            self.expire(limit, now, Refusal::Deadline);
        }
        let Some(missing_limit) = timeout(self.shared.options.missing_topic_ms) else { return };
        let cluster = Arc::clone(&self.cluster.borrow());
        let lanes: Vec<usize> = self.active.iter().copied().collect();
        for index in lanes {
            let Some(lane) = self.lanes.get(index) else { continue };
            let topic = cluster.topic(lane.partition().topic);
            if topic.and_then(|topic| topic.missing_since).is_some_and(|since| since <= missing_limit) {
                self.expire_lane(index, now, now, Refusal::NoSuchPartition);
            }
        }
        self.after_expiry();
    }

    /// Settles what was born at `limit` or before and is not with Kafka.
    pub(super) fn expire(&mut self, limit: Instant, now: Instant, why: Refusal) {
        let lanes: Vec<usize> = self.active.iter().copied().collect();
        for index in lanes {
            self.expire_lane(index, limit, now, why);
        }
        self.after_expiry();
    }

    fn after_expiry(&self) {
        self.sink.flush();
        self.shared.settled.notify_waiters();
    }

    fn expire_lane(&mut self, index: usize, limit: Instant, now: Instant, why: Refusal) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let mut settled = Vec::new();
        lane.expire(limit, why, &mut settled);
        if settled.is_empty() {
            return;
        }
        let used_up = lane.is_used_up();
        let emptied = lane.phase != Phase::InFlight && !lane.has_more() && lane.slot.leave();
        if emptied {
            if let Phase::Waiting { until } = lane.phase {
                self.waiting.remove(&(until, index));
            }
            lane.phase = Phase::Idle;
            self.active.remove(&index);
            self.leaderless.remove(&index);
            for node in self.nodes.values_mut() {
                node.ready.retain(|ready| *ready != index);
                node.turn.ready_since = node.turn.ready_since.filter(|_| !node.ready.is_empty());
            }
        }
        self.tell(index, settled);
        if used_up && !self.shared.is_closed() {
            self.on_fenced(now, true);
        }
    }
}
