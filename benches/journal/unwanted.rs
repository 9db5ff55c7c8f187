//! (c) What records cost that nobody on this node wants, and a tail without any news.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millrace::journal::kafka::KafkaJournal;
use millrace::journal::kafka::records::Compression;
use millrace::journal::{Batch, Journal, Tail};
use tokio::time::{sleep, timeout, timeout_at};

use crate::Scope;
use crate::cluster::{Cluster, Result};
use crate::cpu::{Meter, micros_each, percent, to_f64};
use crate::load::{self, Counted, Heard, Look};
use crate::report::{Section, Table, figure, median};

const PARTITIONS: u32 = 8;
const IDLE_PARTITIONS: u32 = 64;
/// The goal for a record that is skipped.
const MICROS_MAX: f64 = 0.1;
const PATIENCE: Duration = Duration::from_mins(1);
/// For a tail to find its connections and its sessions.
const SETTLE: Duration = Duration::from_secs(3);

/// Measures (c).
pub async fn run(cluster: &Cluster, scope: Scope) -> Result<Section> {
    let mut body = format!(
        "A tail over {PARTITIONS} partitions; of each record the key is looked at and nothing else. *Behind*: the records are \
         there already and come in large answers, as after a restart or on a busy node. *Live*: another process (Kafka's \
         tool) writes them meanwhile, so that answers are as small as they are when the tail is up to date.\n\n"
    );
    let mut table = Table::new(&[
        "nobody wants it",
        "records",
        "records/s",
        "client µs/record",
        "of that, kernel",
        "bytes/record read",
        "records/answer",
    ]);
    let mut behind = Vec::new();
    for (name, look, compression) in [
        ("behind, telemetry, LZ4", Look::Telemetry, Compression::Lz4),
        ("behind, telemetry, not compressed", Look::Telemetry, Compression::None),
        ("behind, letters, not compressed", Look::Letters, Compression::None),
    ] {
        let (micros, cells) = catch_up(cluster, scope, look, compression).await?;
        behind.push(micros);
        table.row(&[vec![name.to_owned()], cells].concat());
    }
    for rate in [2_000, 20_000] {
        let cells = live(cluster, scope, rate).await?;
        table.row(&[vec![format!("live, letters, {rate} a second, not compressed")], cells].concat());
    }
    body += table.text();
    let verdict = |micros: f64| if micros <= MICROS_MAX { "reached" } else { "**missed**" };
    let words: Vec<String> =
        behind.iter().map(|micros| format!("{} ({})", figure(*micros), verdict(*micros))).collect();
    let _ = writeln!(body, "\n* Goal ≤ {MICROS_MAX} µs a record: {} in the rows that are behind.\n", words.join(", "));
    body += &idle(cluster, scope).await?;
    Ok(Section { title: format!("(c) Records that nobody wants, and idleness, {}", scope.nodes_in_words()), body })
}

/// Looks at the keys; how many records there were.
fn skip(batch: &Batch) -> u64 {
    let mut count = 0;
    for record in batch {
        black_box(record.key);
        count += 1;
    }
    count
}

async fn skip_records(tail: &mut Box<dyn Tail>, count: u64) -> Result<()> {
    let mut seen = 0;
    while seen < count {
        match timeout(PATIENCE, load::next_event(tail)).await?? {
            Heard::Batch(batch) => seen += skip(&batch),
            Heard::Moved(..) => {}
        }
    }
    Ok(())
}

struct Counts {
    bytes: u64,
    requests: u64,
}

fn counts(journal: &KafkaJournal) -> Counts {
    let stats = journal.stats();
    Counts {
        bytes: stats.topics.iter().map(|topic| topic.bytes_read.load(Ordering::Relaxed)).sum(),
        requests: stats.fetch_requests.load(Ordering::Relaxed),
    }
}

async fn catch_up(cluster: &Cluster, scope: Scope, look: Look, compression: Compression) -> Result<(f64, Vec<String>)> {
    let topic = format!("bench.unwanted.{look:?}.{compression:?}");
    cluster.create(&topic, PARTITIONS, &[]).await?;
    let count = scope.pick(1_000_000, 100_000);
    fill(cluster, &topic, look, compression, count).await?;
    let (mut micros, mut kernel, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = Counts { bytes: 0, requests: 0 };
    for _ in 0..3 {
        let journal = cluster.open(cluster.options(), &topic, Arc::new(Counted::default())).await?;
        let mut tail = load::tail_from_start(&journal);
        let meter = Meter::start(&cluster.pids);
        skip_records(&mut tail, count).await?;
        let spent = meter.read();
        micros.push(micros_each(spent.own, count));
        kernel.push(micros_each(spent.own_kernel, count));
        rates.push(to_f64(count) / spent.wall.as_secs_f64());
        read = counts(&journal);
    }
    let micros = median(micros);
    Ok((micros, cells(count, median(rates), (micros, median(kernel)), &read)))
}

fn cells(count: u64, rate: f64, (micros, kernel): (f64, f64), read: &Counts) -> Vec<String> {
    vec![
        figure(to_f64(count)),
        figure(rate),
        figure(micros),
        figure(kernel),
        figure(to_f64(read.bytes) / to_f64(count)),
        figure(to_f64(count) / to_f64(read.requests)),
    ]
}

/// Records in batches as a node of some traffic makes them, about 64 KiB, not as the largest backlog would.
async fn fill(cluster: &Cluster, topic: &str, look: Look, compression: Compression, count: u64) -> Result<()> {
    let mut options = cluster.options();
    options.compression = compression;
    options.batch_bytes_max = 64 << 10;
    let counted = Arc::new(Counted::default());
    let journal = cluster.open(options, topic, Arc::clone(&counted) as _).await?;
    load::append_all(&journal, count, &load::values(look)).await?;
    journal.flush(PATIENCE).await;
    let (written, _) = counted.read();
    if written == count { Ok(()) } else { Err(format!("only {written} of {count} records were written").into()) }
}

async fn live(cluster: &Cluster, scope: Scope, rate: u64) -> Result<Vec<String>> {
    let topic = format!("bench.live.{rate}");
    cluster.create(&topic, PARTITIONS, &[]).await?;
    let journal = cluster.open(cluster.options(), &topic, Arc::new(Counted::default())).await?;
    let mut tail = load::tail_from_start(&journal);
    let count = rate * scope.pick(15, 3);
    let (address, throughput, records) = (cluster.address(), rate.to_string(), count.to_string());
    let mut arguments = vec!["producer-perf-test", "--bootstrap-server", &address, "--topic", &topic];
    arguments.extend(["--throughput", &throughput, "--num-records", &records, "--record-size", "500"]);
    arguments.extend(["--command-property", "acks=all", "enable.idempotence=true", "linger.ms=0"]);
    let mut tool = cluster.spawn_tool(&arguments)?;
    let meter = Meter::start(&cluster.pids);
    let skipped = skip_records(&mut tail, count).await;
    let spent = meter.read();
    if skipped.is_err() {
        tool.kill()?;
    }
    tokio::task::block_in_place(|| tool.wait())?;
    skipped?;
    let micros = (micros_each(spent.own, count), micros_each(spent.own_kernel, count));
    Ok(cells(count, to_f64(rate), micros, &counts(&journal)))
}

/// Kafka alone, then with a tail that gets nothing.
async fn idle(cluster: &Cluster, scope: Scope) -> Result<String> {
    cluster.create("bench.idle", IDLE_PARTITIONS, &[]).await?;
    let time = Duration::from_secs(scope.pick(20, 3));
    let mut table = Table::new(&["% of a core", "client", "all Kafka nodes", "fetch requests/s"]);
    let mut row = |name: &str, own: f64, kafka: f64, requests: f64| {
        table.row(&[name.to_owned(), figure(own), figure(kafka), figure(requests)]);
    };
    sleep(SETTLE).await;
    let meter = Meter::start_fine(&cluster.pids);
    sleep(time).await;
    let spent = meter.read();
    row("no client", percent(spent.own, spent.wall), percent(spent.kafka, spent.wall), 0.0);

    let journal = cluster.open(cluster.options(), "bench.idle", Arc::new(Counted::default())).await?;
    let mut tail = load::tail_from_ends(&journal).await?;
    wait_idle(&mut tail, SETTLE).await;
    let requests = counts(&journal).requests;
    let meter = Meter::start_fine(&cluster.pids);
    wait_idle(&mut tail, time).await;
    let spent = meter.read();
    let per_second = to_f64(counts(&journal).requests - requests) / spent.wall.as_secs_f64();
    let name = format!("a journal with an idle tail of {IDLE_PARTITIONS} partitions");
    row(&name, percent(spent.own, spent.wall), percent(spent.kafka, spent.wall), per_second);
    Ok(format!("Idle, {} s each; the cost of the tail is the difference:\n\n{}", time.as_secs(), table.text()))
}

async fn wait_idle(tail: &mut Box<dyn Tail>, time: Duration) {
    let until = (millrace::clock::now() + time).into();
    while timeout_at(until, tail.next()).await.is_ok() {}
}
