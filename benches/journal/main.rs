//! What the journal costs on a real Kafka, beside Kafka's own tools in the same run. `make bench-journal` starts it; it
//! starts its Kafka itself, on one node and then on three, and throws it away afterwards.
//!
//! Nothing is asserted about time: the tables say what was reached.

mod churn;
mod cluster;
mod cpu;
mod latency;
mod load;
mod report;
mod throughput;
mod unwanted;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use self::cluster::{Cluster, Result};
use self::cpu::Meter;
use self::report::Section;

#[derive(Parser)]
#[command(name = "journal", about = "What the journal costs on a real Kafka")]
struct Arguments {
    /// Start Kafka; without this, nothing is measured.
    #[arg(long)]
    kafka: bool,
    /// A few seconds for each measurement: to see that it works, not for figures.
    #[arg(long)]
    quick: bool,
    /// Some of the measurements, for example a,c.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// On so many Kafka nodes; default: on one, then on three.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: Option<u32>,
    /// Bring the sections of this document up to date; a quick run never does.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Cargo says it.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Latency.
    A,
    /// Throughput.
    B,
    /// Records that nobody wants, idleness.
    C,
    /// Replay.
    D,
}

const ALL: [Part; 4] = [Part::A, Part::B, Part::C, Part::D];

/// How much is measured, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    quick: bool,
    nodes: u32,
}

impl Scope {
    /// The first in earnest, the second for a smoke run.
    pub fn pick<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// For headings.
    pub fn nodes_in_words(self) -> String {
        if self.nodes == 1 { "1 Kafka node".to_owned() } else { format!("{} Kafka nodes", self.nodes) }
    }
}

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--kafka") {
        println!("journal: skipped: needs make bench-journal");
        return ExitCode::SUCCESS;
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("journal: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let parts = if arguments.only.is_empty() { ALL.to_vec() } else { arguments.only.clone() };
    let nodes = arguments.nodes.map_or_else(|| vec![1, 3], |nodes| vec![nodes]);
    for nodes in nodes {
        let scope = Scope { quick: arguments.quick, nodes };
        runtime.block_on(async {
            let cluster = Cluster::start(nodes)?;
            for part in &parts {
                let section = measure(*part, &cluster, scope).await?;
                println!("\n## {}\n\n{}", section.title, section.body);
                // At once: what was measured stays, whatever fails later.
                if let Some(path) = arguments.write.as_deref().filter(|_| !arguments.quick) {
                    report::write(path, &cluster.version, vec![section])?;
                }
            }
            Ok::<(), Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

/// Measures one part; the section begins with what else the machine had to do.
async fn measure(part: Part, cluster: &Cluster, scope: Scope) -> Result<Section> {
    let before = cpu::load_average();
    let meter = Meter::start(&cluster.pids);
    let mut section = match part {
        Part::A => latency::run(cluster, scope).await?,
        Part::B => throughput::run(cluster, scope).await?,
        Part::C => unwanted::run(cluster, scope).await?,
        Part::D => churn::run(cluster, scope).await?,
    };
    let conditions = format!(
        "*Kafka {}. Load average of the machine before: {before}; other programs had {:.2} cores meanwhile.*\n\n",
        cluster.version,
        meter.read().cores_of_others(),
    );
    section.body.insert_str(0, &conditions);
    Ok(section)
}
