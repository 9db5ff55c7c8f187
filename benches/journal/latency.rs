//! (a) How long an append takes, and how long until the own tail has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace::clock;
use millrace::journal::kafka::KafkaJournal;
use millrace::journal::{AckGroup, AckSink, Batch, Outcome, Tail, Ticket};
use millrace::ops::tasks;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::Scope;
use crate::cluster::{Cluster, Result};
use crate::cpu::{Meter, Spent, percent};
use crate::load::{self, Heard, Look};
use crate::report::{Section, Table, figure, percentile};

const PARTITIONS: u32 = 8;
/// Before what is counted.
const WARM_UP: usize = 200;
const RATE: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// When each record was appended, acknowledged and seen, in nanoseconds since the start; 0 is not yet.
struct Times {
    started: Instant,
    appended: Vec<AtomicU64>,
    acked: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
    not_written: AtomicU64,
    news: Notify,
}

impl Times {
    fn new(count: usize) -> Self {
        let zeros = || (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            started: clock::now(),
            appended: zeros(),
            acked: zeros(),
            seen: zeros(),
            not_written: AtomicU64::new(0),
            news: Notify::new(),
        }
    }

    fn mark(&self, times: &[AtomicU64], sequence: u64) {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(time) = usize::try_from(sequence).ok().and_then(|index| times.get(index)) {
            time.store(now, Ordering::Release);
        }
    }

    fn on_batch(&self, batch: &Batch) {
        for record in batch {
            let sequence = record.value().and_then(|value| value.first_chunk());
            self.mark(&self.seen, sequence.map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes)));
        }
        self.news.notify_waiters();
    }

    fn is_over(&self, sequence: usize) -> bool {
        let is_set = |times: &[AtomicU64]| times.get(sequence).is_some_and(|time| time.load(Ordering::Acquire) > 0);
        is_set(&self.acked) && is_set(&self.seen)
    }

    async fn over(&self, sequence: usize) -> Result<()> {
        let over = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if self.is_over(sequence) {
                    return;
                }
                news.await;
            }
        };
        Ok(timeout(PATIENCE, over).await?)
    }

    /// Milliseconds from the first to the second, sorted.
    fn between(from: &[AtomicU64], to: &[AtomicU64]) -> Vec<f64> {
        let pairs = from.iter().zip(to).skip(WARM_UP);
        let mut millis: Vec<f64> = pairs
            .map(|(from, to)| to.load(Ordering::Acquire).saturating_sub(from.load(Ordering::Acquire)))
            .map(|nanoseconds| Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3)
            .collect();
        millis.sort_by(f64::total_cmp);
        millis
    }
}

impl AckSink for Times {
    fn on_acks(&self, group: &AckGroup<'_>) {
        for ticket in group.tickets {
            match group.outcome {
                Outcome::Written(_) => self.mark(&self.acked, ticket.sequence),
                Outcome::Refused(_) | Outcome::Unknown => {
                    self.not_written.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn flush(&self) {
        self.news.notify_waiters();
    }
}

/// When the next record is appended.
#[derive(Clone, Copy)]
enum Pace {
    /// When the tail has seen the one before, as Kafka's tool does it.
    OneByOne,
    /// So many a second, whatever becomes of them.
    PerSecond(u64),
}

struct Bench<'a> {
    cluster: &'a Cluster,
    topic: &'static str,
    values: Vec<Vec<u8>>,
}

/// Measures (a).
pub async fn run(cluster: &Cluster, scope: Scope) -> Result<Section> {
    let topic = "bench.latency";
    cluster.create(topic, PARTITIONS, &[]).await?;
    cluster.create("bench.e2e", 1, &[]).await?;
    let bench = Bench { cluster, topic, values: load::values(Look::Telemetry) };
    let mut table = Table::new(&[
        "ms p50 / p99",
        "append → ack",
        "ack → own tail",
        "append → own tail",
        "% of a core: client",
        "Kafka",
    ]);
    let one_by_one = scope.pick(5_000, 300);
    tool_row(&mut table, "Kafka's e2e-latency, one record at a time", &bench.e2e(one_by_one)?);
    bench.row(&mut table, "one record at a time", Pace::OneByOne, one_by_one).await?;
    bench.row(&mut table, "idle: 20 records a second", Pace::PerSecond(20), scope.pick(400, 60)).await?;
    bench.row(&mut table, "2,000 records a second", Pace::PerSecond(RATE), scope.pick(60_000, 6_000)).await?;
    let loaded = bench.e2e_under_load(one_by_one).await?;
    tool_row(&mut table, "Kafka's e2e-latency while we append 2,000 a second", &loaded);
    let body = format!(
        "500 B values and 30 B keys, in turn to {PARTITIONS} partitions, journal and tail in one process with their \
         defaults; the first {WARM_UP} records of each row are not counted. *ack → own tail* is 0 where the tail had \
         the record before the acknowledgement. The tool produces with acks=all to one partition, waits until its consumer has the \
         record, then sends the next; it gives whole milliseconds and counts its first records, too.\n\n{}",
        table.text()
    );
    Ok(Section { title: format!("(a) Latency, {}", scope.nodes_in_words()), body })
}

fn tool_row(table: &mut Table, name: &str, latency: &str) {
    let none = || "–".to_owned();
    table.row(&[name.to_owned(), none(), none(), latency.to_owned(), none(), none()]);
}

impl Bench<'_> {
    /// Kafka's own end-to-end tool: "p50 / p99".
    fn e2e(&self, count: usize) -> Result<String> {
        let (address, count) = (self.cluster.address(), count.to_string());
        let said = self.cluster.run_tool(&["e2e-latency", &address, "bench.e2e", &count, "all", "500"])?;
        let percentiles = said.lines().find(|line| line.starts_with("Percentiles"));
        let percentiles = percentiles.ok_or_else(|| format!("no percentiles: {said}"))?;
        let after = |name: &str| {
            let (_, rest) = percentiles.split_once(name)?;
            rest.split(',').next().map(|figure| figure.trim().to_owned())
        };
        let figures = after("50th =").zip(after("99th ="));
        let (p50, p99) = figures.ok_or_else(|| format!("no percentiles: {percentiles}"))?;
        Ok(format!("{p50} / {p99}"))
    }

    async fn e2e_under_load(&self, count: usize) -> Result<String> {
        let times = Arc::new(Times::new(0));
        let journal = self.cluster.open(self.cluster.options(), self.topic, times).await?;
        let values = self.values.clone();
        let load = tasks::spawn("bench load", async move {
            let sequences = 0..u64::MAX;
            paced(&journal, &values, RATE, sequences, |_| {}).await.map_err(|error| error.to_string())
        });
        let latency = tokio::task::block_in_place(|| self.e2e(count));
        if load.is_finished() {
            load.await??;
        } else {
            load.abort();
        }
        latency
    }

    async fn row(&self, table: &mut Table, name: &str, pace: Pace, count: usize) -> Result<()> {
        let times = Arc::new(Times::new(count + WARM_UP));
        let spent = self.run(pace, &times).await?;
        let not_written = times.not_written.load(Ordering::Relaxed);
        if not_written > 0 {
            return Err(format!("{not_written} records were not written").into());
        }
        let spread = |from: &[AtomicU64], to: &[AtomicU64]| {
            let millis = Times::between(from, to);
            format!("{} / {}", figure(percentile(&millis, 50)), figure(percentile(&millis, 99)))
        };
        table.row(&[
            name.to_owned(),
            spread(&times.appended, &times.acked),
            spread(&times.acked, &times.seen),
            spread(&times.appended, &times.seen),
            figure(percent(spent.own, spent.wall)),
            figure(percent(spent.kafka, spent.wall)),
        ]);
        Ok(())
    }

    async fn run(&self, pace: Pace, times: &Arc<Times>) -> Result<Spent> {
        let journal = self.cluster.open(self.cluster.options(), self.topic, Arc::clone(times) as _).await?;
        let tail = load::tail_from_ends(&journal).await?;
        let reader = tasks::spawn("bench tail", read(tail, Arc::clone(times)));
        let count = times.seen.len() as u64;
        let before = |sequence| times.mark(&times.appended, sequence);
        let meter = Meter::start(&self.cluster.pids);
        match pace {
            Pace::PerSecond(rate) => {
                paced(&journal, &self.values, rate, 0..count, before).await?;
                for index in 0..times.seen.len() {
                    times.over(index).await?;
                }
            }
            Pace::OneByOne => {
                for index in 0..times.seen.len() {
                    let sequence = index as u64;
                    before(sequence);
                    append(&journal, &self.values, sequence).await?;
                    times.over(index).await?;
                }
            }
        }
        let spent = meter.read();
        reader.abort();
        Ok(spent)
    }
}

async fn read(mut tail: Box<dyn Tail>, times: Arc<Times>) {
    loop {
        match load::next_event(&mut tail).await {
            Ok(Heard::Batch(batch)) => times.on_batch(&batch),
            Ok(Heard::Moved(..)) => {}
            Err(error) => {
                eprintln!("{error}");
                return;
            }
        }
    }
}

/// Appends `rate` records a second; how many are due is looked at every millisecond.
async fn paced(
    journal: &KafkaJournal,
    values: &[Vec<u8>],
    rate: u64,
    sequences: std::ops::Range<u64>,
    before: impl Fn(u64),
) -> Result<()> {
    let started = clock::now();
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = sequences.start;
    while next < sequences.end {
        ticks.tick().await;
        let elapsed = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let due = (elapsed * rate / 1_000_000).min(sequences.end - sequences.start);
        while next < sequences.start + due {
            before(next);
            append(journal, values, next).await?;
            next += 1;
        }
    }
    Ok(())
}

/// The record tells its sequence in its first bytes.
async fn append(journal: &KafkaJournal, values: &[Vec<u8>], sequence: u64) -> Result<()> {
    let index = usize::try_from(sequence).unwrap_or(0);
    let mut value = values.get(index % values.len()).cloned().unwrap_or_default();
    for (to, from) in value.iter_mut().zip(sequence.to_be_bytes()) {
        *to = from;
    }
    let key = format!("fleet/berlin/car-{:07}/speed", sequence % 1_000);
    let partition = load::partition(u32::try_from(sequence % u64::from(PARTITIONS)).unwrap_or(0));
    let ticket = Ticket { owner: 1, sequence };
    load::append(journal, ticket, partition, key.as_bytes(), Some(&value)).await
}
