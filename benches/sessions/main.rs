//! Tools of `scripts/bench_sessions.py`, on a real Kafka: `seed` writes the records of many persistent sessions, as nodes
//! would have left them; `census` counts the records of the sessions' kafka topic by kind.

mod census;
mod seed;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{AckSink, Partition, TopicIndex};

/// Whatever goes wrong ends the tool with a sentence.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The sessions' kafka topic, in every journal here.
pub const SESSIONS: TopicIndex = TopicIndex(0);
/// The kafka topic of messages, in a journal that has it.
pub const MESSAGES: TopicIndex = TopicIndex(1);

#[derive(Parser)]
#[command(name = "sessions", about = "Session records on a real Kafka: write many, count them")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Cargo says it.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Write the records of persistent sessions with one subscription each
    Seed(seed::Arguments),
    /// Count records and bytes by kind, as one JSON object
    Census(census::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        // `cargo bench` runs everything there is.
        None => Ok(()),
        Some(Command::Seed(arguments)) => seed::run(&arguments).await,
        Some(Command::Census(arguments)) => census::run(&arguments).await,
    };
    if let Err(error) = done {
        eprintln!("sessions: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Opens the kafka topics.
///
/// # Errors
/// Kafka cannot be asked, or does not have them.
pub async fn open(bootstrap: &str, topics: &[&str], sink: Arc<dyn AckSink>) -> Result<KafkaJournal> {
    let options = KafkaOptions::new(bootstrap.split(',').map(str::to_owned).collect());
    Ok(KafkaJournal::open(options, topics.iter().map(|topic| (*topic).to_owned()).collect(), sink).await?)
}

/// A partition.
pub fn partition(topic: TopicIndex, number: u32) -> Partition {
    Partition { topic, number }
}
