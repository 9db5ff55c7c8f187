//! (b) How many records a second, and what each costs, beside Kafka's own producer.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millrace::journal::Journal;
use millrace::journal::kafka::records::Compression;
use tempfile::NamedTempFile;

use crate::Scope;
use crate::cluster::{Cluster, Result};
use crate::cpu::{Meter, micros_each, to_f64};
use crate::load::{self, Counted, Look};
use crate::report::{Section, Table, figure, median};

/// The goal: so many times the rate of Kafka's tool ...
const TIMES_MIN: f64 = 4.0;
/// ... with so much processor time of the client for each record.
const MICROS_MAX: f64 = 2.0;
const PATIENCE: Duration = Duration::from_mins(2);

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Journal(Compression),
    /// Kafka's tool, with these further properties of its producer.
    Tool(&'static [&'static str]),
}

const DEFAULTS: &[&str] = &[];
const DEFAULTS_LZ4: &[&str] = &["compression.type=lz4"];
const TUNED: &[&str] = &["batch.size=1000000", "linger.ms=5", "buffer.memory=67108864"];
const TUNED_LZ4: &[&str] = &["batch.size=1000000", "linger.ms=5", "buffer.memory=67108864", "compression.type=lz4"];

/// Name, what is written, who writes, whether the goal compares the journal's row with this one.
const ROWS: &[(&str, Look, Client)] = &[
    ("kafka-producer-perf-test, its defaults", Look::Letters, Client::Tool(DEFAULTS)),
    ("kafka-producer-perf-test, batches as large as ours", Look::Letters, Client::Tool(TUNED)),
    ("journal, no compression", Look::Letters, Client::Journal(Compression::None)),
    ("journal, its defaults (LZ4)", Look::Letters, Client::Journal(Compression::Lz4)),
    ("kafka-producer-perf-test, LZ4", Look::Telemetry, Client::Tool(DEFAULTS_LZ4)),
    ("kafka-producer-perf-test, LZ4, batches as large as ours", Look::Telemetry, Client::Tool(TUNED_LZ4)),
    ("journal, no compression", Look::Telemetry, Client::Journal(Compression::None)),
    ("journal, its defaults (LZ4)", Look::Telemetry, Client::Journal(Compression::Lz4)),
];

/// One run, or the median of several.
#[derive(Clone, Copy, Debug)]
struct Measured {
    per_second: f64,
    client_micros: f64,
    /// Of these, in the kernel; 0 for the tool, of which that is not known.
    kernel_micros: f64,
    kafka_micros: f64,
    bytes_each: f64,
}

struct Bench<'a> {
    cluster: &'a Cluster,
    topic: String,
    count: u64,
    tool_count: u64,
}

/// Measures (b).
pub async fn run(cluster: &Cluster, scope: Scope) -> Result<Section> {
    let rounds = scope.pick(3, 1);
    let mut body = format!(
        "500 B values; ours have 30 B keys, the tool's have none. Records go to the partitions in turn (the tool's as its \
         sticky partitioner likes). The tool runs with acks=all and enable.idempotence=true, and its rate is that of its \
         steady state, after a third of its records; its µs of client count all of its Java process, start \
         included. Ours count the making of the load, too. Rows are run one after the other, {rounds} times; the medians \
         are shown. *Letters* are random capitals, which hardly compress, *telemetry* is JSON.\n"
    );
    for partitions in [8, 64] {
        body += &table(cluster, scope, partitions, rounds).await?;
    }
    Ok(Section { title: format!("(b) Throughput of appending, {}", scope.nodes_in_words()), body })
}

async fn table(cluster: &Cluster, scope: Scope, partitions: u32, rounds: usize) -> Result<String> {
    let mut runs: Vec<Vec<Measured>> = vec![Vec::new(); ROWS.len()];
    for round in 0..rounds {
        for ((index, runs), (_, look, client)) in (0..).zip(&mut runs).zip(ROWS) {
            let topic = format!("bench.append.{partitions}.{round}.{index}");
            cluster.create(&topic, partitions, &[]).await?;
            let bench =
                Bench { cluster, topic, count: scope.pick(300_000, 50_000), tool_count: scope.pick(150_000, 20_000) };
            runs.push(match client {
                Client::Journal(compression) => bench.journal(*compression, *look).await?,
                Client::Tool(properties) => bench.tool(properties, *look)?,
            });
        }
        cluster.delete("bench.append.*")?;
    }
    let medians: Vec<Measured> = runs.iter().map(|runs| median_of(runs)).collect();
    Ok(render(partitions, &medians))
}

fn render(partitions: u32, medians: &[Measured]) -> String {
    let first = format!("{partitions} partitions");
    let mut table = Table::new(&[
        &first,
        "values",
        "records/s",
        "client µs/record",
        "of that, kernel",
        "Kafka µs/record",
        "bytes/record sent",
    ]);
    for (measured, (name, look, _)) in medians.iter().zip(ROWS) {
        table.row(&[
            (*name).to_owned(),
            format!("{look:?}").to_lowercase(),
            figure(measured.per_second),
            figure(measured.client_micros),
            known(measured.kernel_micros),
            figure(measured.kafka_micros),
            known(measured.bytes_each),
        ]);
    }
    let of = |look, client| {
        let index = ROWS.iter().position(|row| row.1 == look && row.2 == client)?;
        medians.get(index).copied()
    };
    let pairs = [
        (Look::Letters, Compression::None, DEFAULTS, TUNED),
        (Look::Telemetry, Compression::Lz4, DEFAULTS_LZ4, TUNED_LZ4),
    ];
    let verdicts = pairs.into_iter().filter_map(|(look, compression, defaults, tuned)| {
        let ours = of(look, Client::Journal(compression))?;
        Some(verdict(look, ours, of(look, Client::Tool(defaults))?, of(look, Client::Tool(tuned))?))
    });
    format!("\n{}\n{}", table.text(), verdicts.collect::<String>())
}

/// A dash where it was not measured.
fn known(number: f64) -> String {
    if number > 0.0 { figure(number) } else { "–".to_owned() }
}

fn verdict(look: Look, ours: Measured, tool: Measured, tuned: Measured) -> String {
    let times = ours.per_second / tool.per_second;
    let reached = |yes| if yes { "reached" } else { "**missed**" };
    format!(
        "* {look:?}, like beside like: {} × the tool's rate (goal ≥ {TIMES_MIN}: {}; {} × with its batches as large as ours), {} µs a record (goal ≤ {MICROS_MAX}: {}).\n",
        figure(times),
        reached(times >= TIMES_MIN),
        figure(ours.per_second / tuned.per_second),
        figure(ours.client_micros),
        reached(ours.client_micros <= MICROS_MAX),
    )
}

fn median_of(runs: &[Measured]) -> Measured {
    let of = |field: fn(&Measured) -> f64| median(runs.iter().map(field).collect());
    Measured {
        per_second: of(|run| run.per_second),
        client_micros: of(|run| run.client_micros),
        kernel_micros: of(|run| run.kernel_micros),
        kafka_micros: of(|run| run.kafka_micros),
        bytes_each: of(|run| run.bytes_each),
    }
}

impl Bench<'_> {
    async fn journal(&self, compression: Compression, look: Look) -> Result<Measured> {
        let mut options = self.cluster.options();
        options.compression = compression;
        let counted = Arc::new(Counted::default());
        let journal = self.cluster.open(options, &self.topic, Arc::clone(&counted) as _).await?;
        let values = load::values(look);
        load::append_all(&journal, self.count / 10, &values).await?;
        journal.flush(PATIENCE).await;
        let bytes_sent = || journal.stats().topics[0].bytes_sent.load(Ordering::Relaxed);
        let bytes_before = bytes_sent();
        let meter = Meter::start(&self.cluster.pids);
        load::append_all(&journal, self.count, &values).await?;
        let all = journal.flush(PATIENCE).await;
        let spent = meter.read();
        let (written, others) = counted.read();
        if !all || others > 0 {
            return Err(format!("{written} records were written, {others} were not, all decided: {all}").into());
        }
        Ok(Measured {
            per_second: to_f64(self.count) / spent.wall.as_secs_f64(),
            client_micros: micros_each(spent.own, self.count),
            kernel_micros: micros_each(spent.own_kernel, self.count),
            kafka_micros: micros_each(spent.kafka, self.count),
            bytes_each: to_f64(bytes_sent() - bytes_before) / to_f64(self.count),
        })
    }

    fn tool(&self, properties: &[&str], look: Look) -> Result<Measured> {
        let (address, count) = (self.cluster.address(), self.tool_count.to_string());
        let warm_up = (self.tool_count / 3).to_string();
        let mut arguments =
            vec!["producer-perf-test", "--bootstrap-server", &address, "--topic", &self.topic, "--throughput", "-1"];
        arguments.extend(["--num-records", &count, "--warmup-records", &warm_up]);
        let file = telemetry_file()?;
        let path = file.path().to_string_lossy();
        match look {
            Look::Letters => arguments.extend(["--record-size", "500"]),
            Look::Telemetry => arguments.extend(["--payload-file", &path]),
        }
        arguments.extend(["--command-property", "acks=all", "enable.idempotence=true"]);
        arguments.extend(properties);
        let meter = Meter::start(&self.cluster.pids);
        let said = tokio::task::block_in_place(|| self.cluster.run_tool(&arguments))?;
        let spent = meter.read();
        let steady = said.lines().find(|line| line.contains("steady state records sent"));
        let rate = steady.and_then(|line| line.split(", ").nth(1)?.split(' ').next()?.parse().ok());
        Ok(Measured {
            per_second: rate.ok_or_else(|| format!("no rate: {said}"))?,
            client_micros: micros_each(spent.children, self.tool_count),
            kernel_micros: 0.0,
            kafka_micros: micros_each(spent.kafka, self.tool_count),
            bytes_each: 0.0,
        })
    }
}

/// The telemetry values for Kafka's tool, one a line; it takes one by chance for each record.
fn telemetry_file() -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    for value in load::values(Look::Telemetry) {
        file.write_all(&value)?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(file)
}
