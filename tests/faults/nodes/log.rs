//! What is in Kafka, read by a journal that has no part in the run.

use std::sync::Arc;

use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{Isolation, Journal, Offset};
use millrace::message::headers;

use super::cast::{mortal_of, publisher_of};
use super::check::Log;
use crate::ledger::Ledger;
use crate::load::partition;

const READ_BYTES: usize = 4 << 20;

/// Reads a kafka topic of messages from its start to its high watermark.
///
/// # Errors
/// Kafka does not answer now.
pub async fn read(bootstrap: &[String], topic: &str, partitions: u32) -> Result<Log, String> {
    let options = KafkaOptions::new(bootstrap.to_vec());
    let sink = Arc::new(Ledger::default());
    let journal = KafkaJournal::open(options, vec![topic.to_owned()], sink).await.map_err(|e| e.to_string())?;
    let mut log = Log::default();
    for number in 0..partitions {
        read_partition(&journal, number, &mut log).await?;
    }
    Ok(log)
}

async fn read_partition(journal: &KafkaJournal, number: u32, log: &mut Log) -> Result<(), String> {
    let mut next = Offset(0);
    loop {
        let answer = journal.read(partition(number), next, READ_BYTES, Isolation::ReadUncommitted).await;
        let answer = answer.map_err(|error| error.to_string())?;
        for record in answer.batches.iter().flat_map(|batch| batch.iter()) {
            if record.headers().any(|header| header.name == headers::FENCE) {
                continue;
            }
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            let key = text(record.key);
            if let Some(topic) = publisher_of(&key) {
                let value = text(record.value());
                let number = value.parse().map_err(|_| format!("a record of {key} with the value {value:?}"))?;
                log.topics.entry(topic).or_default().push(number);
            } else if let Some(client) = mortal_of(&key) {
                *log.wills.entry(client).or_default() += 1;
            }
            // Anything else is of a foreign program.
        }
        if answer.next >= answer.ends.high_watermark {
            return Ok(());
        }
        if answer.next <= next {
            return Err(format!("partition {number} cannot be read beyond {next:?}"));
        }
        next = answer.next;
    }
}
