//! Numbers about the Kafka journal, plain atomics: `ops` exports them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use crate::clock;
use crate::journal::{Ends, Partition};

/// Counts since the journal was opened.
#[derive(Debug)]
pub struct JournalStats {
    started: Instant,
    /// One per kafka topic, in the order of [`crate::journal::TopicIndex`].
    pub topics: Vec<TopicStats>,
    /// Produce requests sent.
    pub produce_requests: AtomicU64,
    /// Fetch requests of tails sent.
    pub fetch_requests: AtomicU64,
    /// Connections that were lost.
    pub connections_lost: AtomicU64,
    pulses: Mutex<Vec<Weak<Pulse>>>,
}

/// Counts of one kafka topic.
#[derive(Debug, Default)]
pub struct TopicStats {
    /// Name.
    pub name: String,
    /// Records acknowledged by Kafka.
    pub records_written: AtomicU64,
    /// Records refused, certainly not in the log.
    pub records_refused: AtomicU64,
    /// Records whose fate is unknown.
    pub records_unknown: AtomicU64,
    /// Batches sent.
    pub batches_sent: AtomicU64,
    /// Batches that had to be sent again.
    pub batches_retried: AtomicU64,
    /// Bytes of batches sent, as sent.
    pub bytes_sent: AtomicU64,
    /// Bytes of batches read by tails, as read.
    pub bytes_read: AtomicU64,
    partitions: RwLock<Vec<PartitionStats>>,
}

/// What tails know of one partition.
#[derive(Debug)]
pub struct PartitionStats {
    /// Milliseconds since the journal was opened; −1 while nobody follows the partition.
    fetched_at_ms: AtomicI64,
    high_watermark: AtomicI64,
    last_stable: AtomicI64,
}

impl Default for PartitionStats {
    fn default() -> Self {
        Self { fetched_at_ms: AtomicI64::new(-1), high_watermark: AtomicI64::new(-1), last_stable: AtomicI64::new(-1) }
    }
}

/// One partition as its tails saw it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Its number.
    pub number: u32,
    /// Time since a tail last fetched from it successfully; `None` while nobody follows it. Silence is an error.
    pub silent_for: Option<Duration>,
    /// Records held back by transactions that are still open: high watermark − last stable offset.
    pub unstable_records: u64,
}

impl JournalStats {
    pub(super) fn new(topics: &[String]) -> Self {
        let topics = topics.iter().map(|name| TopicStats { name: name.clone(), ..TopicStats::default() });
        Self {
            started: clock::now(),
            topics: topics.collect(),
            produce_requests: AtomicU64::new(0),
            fetch_requests: AtomicU64::new(0),
            connections_lost: AtomicU64::new(0),
            pulses: Mutex::default(),
        }
    }

    /// What tails know of a kafka topic's partitions.
    pub fn partitions(&self, topic: usize, now: Instant) -> Vec<PartitionView> {
        let Some(topic) = self.topics.get(topic) else { return Vec::new() };
        let partitions = topic.partitions.read().unwrap_or_else(PoisonError::into_inner);
        (0_u32..).zip(partitions.iter()).map(|(number, stats)| self.view(number, stats, now)).collect()
    }

    fn view(&self, number: u32, stats: &PartitionStats, now: Instant) -> PartitionView {
        let fetched_at = u64::try_from(stats.fetched_at_ms.load(Ordering::Relaxed)).ok();
        let unstable = stats.high_watermark.load(Ordering::Relaxed) - stats.last_stable.load(Ordering::Relaxed);
        PartitionView {
            number,
            silent_for: fetched_at
                .map(|at| now.saturating_duration_since(self.started).saturating_sub(Duration::from_millis(at))),
            unstable_records: u64::try_from(unstable).unwrap_or(0),
        }
    }

    fn with_partition(&self, partition: Partition, update: impl Fn(&PartitionStats)) {
        let Some(topic) = self.topics.get(usize::from(partition.topic.0)) else { return };
        let number = partition.number as usize;
        if let Some(stats) = topic.partitions.read().unwrap_or_else(PoisonError::into_inner).get(number) {
            return update(stats);
        }
        let mut partitions = topic.partitions.write().unwrap_or_else(PoisonError::into_inner);
        if partitions.len() <= number {
            partitions.resize_with(number + 1, PartitionStats::default);
        }
        if let Some(stats) = partitions.get(number) {
            update(stats);
        }
    }

    fn millis(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }

    /// A tail fetched from `partition` successfully.
    pub(super) fn fetched(&self, partition: Partition, now: Instant) {
        let at = self.millis(now);
        self.with_partition(partition, |stats| stats.fetched_at_ms.store(at, Ordering::Relaxed));
    }

    pub(super) fn unfollowed(&self, partition: Partition) {
        self.with_partition(partition, |stats| stats.fetched_at_ms.store(-1, Ordering::Relaxed));
    }

    pub(super) fn ends(&self, partition: Partition, ends: Ends) {
        self.with_partition(partition, |stats| {
            stats.high_watermark.store(ends.high_watermark.0, Ordering::Relaxed);
            stats.last_stable.store(ends.last_stable.0, Ordering::Relaxed);
        });
    }

    /// A new connection's heartbeat, counted in [`JournalStats::silent_for`] as long as it is held.
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::new(self.started));
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.retain(|pulse| pulse.strong_count() > 0);
        pulses.push(Arc::downgrade(&pulse));
        pulse
    }

    /// The longest that any connection with something to answer, or in need of being opened again, has been silent.
    pub fn silent_for(&self, now: Instant) -> Duration {
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.iter().filter_map(|pulse| pulse.upgrade()?.silent_for(now)).max().unwrap_or(Duration::ZERO)
    }
}

/// Whether a node answers: one per link, kept over its connections.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// Since when something is awaited without a sign of life, in milliseconds; negative while nothing is.
    owed_since_ms: AtomicI64,
}

/// Nothing is awaited.
const NOT_OWED: i64 = -1;

impl Pulse {
    fn new(started: Instant) -> Self {
        Self { started, owed_since_ms: AtomicI64::new(NOT_OWED) }
    }

    /// For a connection whose silence is noticed by those who ask on it.
    pub fn unwatched() -> Arc<Self> {
        Arc::new(Self::new(clock::now()))
    }

    fn millis(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }

    /// The node answered; `more` says whether it owes more.
    pub fn heard(&self, now: Instant, more: bool) {
        self.owed_since_ms.store(if more { self.millis(now) } else { NOT_OWED }, Ordering::Relaxed);
    }

    /// From now on, if not already, an answer or a connection is awaited.
    pub fn owe(&self) {
        if !self.is_owed() {
            self.owed_since_ms.store(self.millis(clock::now()), Ordering::Relaxed);
        }
    }

    /// What was awaited is not needed any more.
    pub fn forgive(&self) {
        self.owed_since_ms.store(NOT_OWED, Ordering::Relaxed);
    }

    /// Whether anything is awaited.
    pub fn is_owed(&self) -> bool {
        self.owed_since_ms.load(Ordering::Relaxed) >= 0
    }

    fn silent_for(&self, now: Instant) -> Option<Duration> {
        let since = u64::try_from(self.owed_since_ms.load(Ordering::Relaxed)).ok()?;
        Some(now.saturating_duration_since(self.started).saturating_sub(Duration::from_millis(since)))
    }
}
