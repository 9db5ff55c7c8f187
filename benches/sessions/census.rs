//! What is in the sessions' kafka topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use millrace::journal::{AckGroup, AckSink, Isolation, Journal, Offset};

use crate::{Result, SESSIONS, open, partition};

const READ_BYTES: usize = 4 << 20;

#[derive(Args)]
pub struct Arguments {
    /// host:port, several with commas
    #[arg(long)]
    kafka: String,
    /// The sessions' kafka topic
    #[arg(long)]
    sessions: String,
    /// The first offset of each partition, with commas, as an earlier census ended; from the start without
    #[arg(long, value_delimiter = ',')]
    from: Vec<i64>,
}

#[derive(Clone, Copy, Default, serde::Serialize)]
struct Count {
    records: u64,
    /// Of keys and values.
    bytes: u64,
}

#[derive(Default, serde::Serialize)]
struct Census {
    kinds: BTreeMap<&'static str, Count>,
    /// The end of each partition.
    ends: Vec<i64>,
}

/// Nothing is appended here.
struct Nobody;

impl AckSink for Nobody {
    fn on_acks(&self, _group: &AckGroup<'_>) {}
    fn flush(&self) {}
}

/// Counts and prints.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let journal = open(&arguments.kafka, &[&arguments.sessions], Arc::new(Nobody)).await?;
    let mut census = Census::default();
    for number in 0..journal.partitions(SESSIONS) {
        let at = partition(SESSIONS, number);
        let ends = journal.ends(&[at]).await?;
        let ends = ends.first().ok_or("no ends")?;
        let from = usize::try_from(number).ok().and_then(|place| arguments.from.get(place)).copied();
        let mut next = Offset(from.unwrap_or(ends.log_start.0));
        while next < ends.high_watermark {
            let answer = journal.read(at, next, READ_BYTES, Isolation::ReadUncommitted).await?;
            for record in answer.batches.iter().flat_map(|batch| batch.iter()) {
                if record.offset >= next && record.offset < ends.high_watermark {
                    let key = record.key.unwrap_or_default();
                    let count = census.kinds.entry(kind(key, record.value().is_none())).or_default();
                    count.records += 1;
                    count.bytes += (key.len() + record.value().map_or(0, <[u8]>::len)) as u64;
                }
            }
            if answer.next <= next {
                return Err(format!("partition {number} cannot be read beyond {next:?}").into());
            }
            next = answer.next;
        }
        census.ends.push(ends.high_watermark.0);
    }
    println!("{}", serde_json::to_string(&census)?);
    Ok(())
}

/// By the second byte of the key and, of states, its last.
fn kind(key: &[u8], is_tombstone: bool) -> &'static str {
    match (is_tombstone, key.get(1), key.last()) {
        (true, ..) => "tombstone",
        (false, Some(1), _) => "claim",
        (false, Some(2), _) => "keeper claim",
        (false, Some(3), Some(0)) => "set",
        (false, Some(3), Some(1)) => "subscriptions",
        (false, Some(3), Some(2)) => "position",
        (false, Some(3), Some(3)) => "inbound",
        (false, Some(3), Some(4)) => "outbound",
        (false, Some(3), Some(5)) => "due",
        (false, Some(4), _) => "final",
        (false, Some(5), _) => "watermark",
        _ => "other",
    }
}
