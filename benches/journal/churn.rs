//! (d) How long a state topic takes to replay after 30 minutes of churn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use millrace::clock;
use millrace::journal::kafka::KafkaJournal;
use millrace::journal::{Batch, Isolation, Journal, Offset, Partition, Ticket, TopicIndex};
use millrace::route::partition::partition_of;
use tokio::time::{sleep, timeout};

use crate::Scope;
use crate::cluster::{Cluster, Result};
use crate::cpu::{Meter, micros_each, to_f64};
use crate::load::{self, Counted, Heard};
use crate::report::{Section, Table, bytes, figure};

const PARTITIONS: u32 = 8;
/// What is emulated.
const CHURN_SECONDS: u32 = 1_800;
const STEP_SECONDS: u32 = 5;
/// Each session connects anew after so many steps: every 5 minutes.
const RECONNECT_STEPS: u32 = 60;
const PATIENCE: Duration = Duration::from_mins(1);

const POSITION_BYTES: usize = 64;
const SET_BYTES: usize = 300;
const CLAIM_BYTES: usize = 24;
const WATERMARK_BYTES: usize = 160;

/// Kinds of records, as they are told apart by the key.
#[derive(Clone, Copy)]
enum Kind {
    Claim = 1,
    Set = 2,
    Position = 3,
    Final = 4,
    Watermark = 5,
}

/// Real seconds and milliseconds of the emulated time.
#[derive(Clone, Copy)]
struct Scale {
    /// So many times as fast as life.
    times: u32,
    sessions: u32,
}

impl Scale {
    fn millis(self, minutes: u32) -> String {
        (minutes * 60_000 / self.times).to_string()
    }

    /// The settings of the state topics, their times scaled.
    fn configs(self) -> Vec<(&'static str, String)> {
        vec![
            ("cleanup.policy", "compact".to_owned()),
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("segment.bytes", (16 << 20).to_string()),
            ("segment.ms", self.millis(10)),
            ("min.cleanable.dirty.ratio", "0.1".to_owned()),
            ("min.compaction.lag.ms", self.millis(5)),
            ("max.compaction.lag.ms", self.millis(60)),
            ("delete.retention.ms", self.millis(60)),
        ]
    }
}

/// Measures (d).
pub async fn run(cluster: &Cluster, scope: Scope) -> Result<Section> {
    let scale = Scale { times: scope.pick(30, 300), sessions: scope.pick(1_000, 100) };
    let ours = scale.configs();
    let ours: Vec<(&str, &str)> = ours.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let kafkas = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
    let topics = [("bench.state.ours", "our segment settings"), ("bench.state.kafkas", "Kafka's segment settings")];
    cluster.create(topics[0].0, PARTITIONS, &ours).await?;
    cluster.create(topics[1].0, PARTITIONS, &kafkas).await?;
    let names = topics.iter().map(|(name, _)| (*name).to_owned()).collect();
    let counted = Arc::new(Counted::default());
    let journal = KafkaJournal::open(cluster.options(), names, Arc::clone(&counted) as _).await?;
    let mut churn = Churn { journal: &journal, written: 0, live: BTreeSet::new() };
    churn.run(scale).await?;
    let (written, live) = (churn.written, churn.live.len());
    journal.flush(PATIENCE).await;
    if counted.read() != (written * 2, 0) {
        return Err(format!("written and not: {:?}; expected {}", counted.read(), written * 2).into());
    }
    drop(journal);
    let mut table = Table::new(&[
        "replay",
        "written",
        "read",
        "live keys",
        "bytes read",
        "time, ms",
        "open, ms",
        "client µs/record",
    ]);
    for (topic, name) in topics {
        let replay = Replay::run(cluster, topic).await?;
        if replay.live != live {
            return Err(format!("{topic}: {} live keys, expected {live}", replay.live).into());
        }
        table.row(&replay.row(name, written));
    }
    let body = format!("{}\n{}", in_words(scale), table.text());
    Ok(Section { title: format!("(d) Replay of a state topic, {}", scope.nodes_in_words()), body })
}

fn in_words(scale: Scale) -> String {
    format!(
        "The churn of 30 minutes: {} sessions of which each writes its position ({POSITION_BYTES} B) every {STEP_SECONDS} s (the \
         worst case: positions of healthy sessions cost nothing) and connects anew every {} minutes (claim, a set of \
         {SET_BYTES} B, final, tombstones of the keys before), and a watermark in each of {PARTITIONS} partitions every \
         {STEP_SECONDS} s.\n\n**The 30 minutes are emulated.** The same records were written in {} s, and every time in the \
         segment settings was divided by the same {}: segment.ms 10 min, min.compaction.lag 5 min, max.compaction.lag and \
         delete.retention 1 h; also the cleaner's pause, 0.5 s instead of Kafka's 15 s. segment.bytes is 16 MiB and \
         min.cleanable.dirty.ratio 0.1, unscaled. Kafka's real cleaner ran meanwhile; it had {} times as much to do in a \
         second as it would have in life. The replay began right after the last record, when the active segments \
         were about to be rolled, which is the worst moment; records become the last value of their key in a \
         map.\n",
        scale.sessions,
        RECONNECT_STEPS * STEP_SECONDS / 60,
        CHURN_SECONDS / scale.times,
        scale.times,
        scale.times,
    )
}

/// Writes the same to both kafka topics.
struct Churn<'a> {
    journal: &'a KafkaJournal,
    /// Records, in each kafka topic.
    written: u64,
    /// Keys that have a value.
    live: BTreeSet<Vec<u8>>,
}

impl Churn<'_> {
    async fn run(&mut self, scale: Scale) -> Result<()> {
        let started = clock::now();
        let steps = CHURN_SECONDS / STEP_SECONDS;
        for step in 0..steps {
            for number in 0..PARTITIONS {
                let key = [1, Kind::Watermark as u8, u8::try_from(number).unwrap_or(0)];
                self.put(number, &key, &filler(WATERMARK_BYTES, step)).await?;
            }
            for session in 0..scale.sessions {
                self.session(session, step).await?;
            }
            let due = Duration::from_secs((STEP_SECONDS * (step + 1)).into()) / scale.times;
            sleep(due.saturating_sub(started.elapsed())).await;
        }
        let late = started.elapsed().saturating_sub(Duration::from_secs(CHURN_SECONDS.into()) / scale.times);
        if late > Duration::from_secs(2) {
            eprintln!("the churn took {late:?} longer than it should");
        }
        Ok(())
    }

    async fn session(&mut self, session: u32, step: u32) -> Result<()> {
        let client = format!("vehicle-{session:07}");
        let number = partition_of(client.as_bytes(), PARTITIONS);
        let generation = (step + session) / RECONNECT_STEPS;
        let connects = step == 0 || (step + session).is_multiple_of(RECONNECT_STEPS);
        let key = |kind, generation| key(kind, &client, session, generation);
        if connects {
            self.put(number, &key(Kind::Claim, generation), &filler(CLAIM_BYTES, step)).await?;
            if step > 0 {
                self.put(number, &key(Kind::Final, generation - 1), &filler(CLAIM_BYTES, step)).await?;
            }
            self.put(number, &key(Kind::Set, generation), &filler(SET_BYTES, step)).await?;
        }
        self.put(number, &key(Kind::Position, generation), &filler(POSITION_BYTES, step)).await?;
        if connects && step > 0 {
            for kind in [Kind::Claim, Kind::Set, Kind::Position, Kind::Final] {
                self.remove(number, &key(kind, generation - 1)).await?;
            }
        }
        Ok(())
    }

    async fn put(&mut self, number: u32, key: &[u8], value: &[u8]) -> Result<()> {
        self.live.insert(key.to_vec());
        self.append(number, key, Some(value)).await
    }

    async fn remove(&mut self, number: u32, key: &[u8]) -> Result<()> {
        self.live.remove(key);
        self.append(number, key, None).await
    }

    async fn append(&mut self, number: u32, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let ticket = Ticket { owner: 1, sequence: self.written };
        self.written += 1;
        for topic in [0, 1] {
            let partition = Partition { topic: TopicIndex(topic), number };
            load::append(self.journal, ticket, partition, key, value).await?;
        }
        Ok(())
    }
}

/// Version, kind, no realm, the client, the nonce of 16 bytes.
fn key(kind: Kind, client: &str, session: u32, generation: u32) -> Vec<u8> {
    let mut key = vec![1, kind as u8, 0, 1, u8::try_from(client.len()).unwrap_or(u8::MAX)];
    key.extend_from_slice(client.as_bytes());
    let nonce =
        (u128::from(session) << 32 | u128::from(generation)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    key.extend_from_slice(&nonce.to_be_bytes());
    key
}

/// Bytes that differ from step to step.
fn filler(length: usize, step: u32) -> Vec<u8> {
    let mut state = step.wrapping_mul(2_654_435_761);
    let bytes = (0..length).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    bytes.collect()
}

#[derive(Default)]
struct Replay {
    read: u64,
    live: usize,
    bytes: u64,
    time: Duration,
    opening: Duration,
    own: Duration,
}

impl Replay {
    async fn run(cluster: &Cluster, topic: &str) -> Result<Self> {
        let meter = Meter::start(&cluster.pids);
        let journal = cluster.open(cluster.options(), topic, Arc::new(Counted::default())).await?;
        let mut replay = Self { opening: meter.read().wall, ..Self::default() };
        let meter = Meter::start(&cluster.pids);
        let partitions = load::partitions(&journal);
        let ends = journal.ends(&partitions).await?;
        let mut tail = journal.tail(Isolation::ReadUncommitted);
        let mut open: BTreeMap<Partition, Offset> = BTreeMap::new();
        for (partition, ends) in partitions.into_iter().zip(ends) {
            tail.follow(partition, ends.log_start);
            open.insert(partition, ends.high_watermark);
        }
        let mut state = BTreeMap::new();
        while !open.is_empty() {
            let (partition, next) = match timeout(PATIENCE, load::next_event(&mut tail)).await?? {
                Heard::Batch(batch) => {
                    replay.read += apply(&batch, &mut state);
                    (batch.partition, batch.next_offset)
                }
                Heard::Moved(partition, next) => (partition, next),
            };
            if open.get(&partition).is_some_and(|end| next >= *end) {
                open.remove(&partition);
            }
        }
        let spent = meter.read();
        replay.time = spent.wall;
        replay.own = spent.own;
        replay.live = state.len();
        replay.bytes = journal.stats().topics.iter().map(|topic| topic.bytes_read.load(Ordering::Relaxed)).sum();
        Ok(replay)
    }

    fn row(&self, name: &str, written: u64) -> Vec<String> {
        vec![
            name.to_owned(),
            written.to_string(),
            self.read.to_string(),
            self.live.to_string(),
            bytes(to_f64(self.bytes)),
            figure(self.time.as_secs_f64() * 1e3),
            figure(self.opening.as_secs_f64() * 1e3),
            figure(micros_each(self.own, self.read)),
        ]
    }
}

/// The last record of a key counts, and a tombstone is its end. How many records there were.
fn apply(batch: &Batch, state: &mut BTreeMap<Bytes, Bytes>) -> u64 {
    let mut count = 0;
    for record in batch {
        count += 1;
        let key = record.key.unwrap_or_default();
        match record.value() {
            Some(value) => drop(state.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))),
            None => drop(state.remove(key)),
        }
    }
    count
}
