//! Appends at a steady pace, each with an id of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millrace::clock;
use millrace::journal::{Journal, Partition, TopicIndex};
use millrace::message::RecordRef;
use millrace::ops::tasks;
use tokio::task::JoinHandle;

use crate::ledger::{Ledger, Source, ticket};

/// Of an ordinary record's value.
pub const VALUE_BYTES: usize = 200;
/// One append to each partition in each.
const ROUND: Duration = Duration::from_millis(20);

pub fn partition(number: u32) -> Partition {
    Partition { topic: TopicIndex(0), number }
}

/// A value from which the id can be read, and which no compression makes much smaller.
pub fn value(id: u64, bytes: usize) -> Vec<u8> {
    let mut value = format!("{id}.").into_bytes();
    let mut state = id.wrapping_add(1);
    while value.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value.extend_from_slice(&(mixed ^ (mixed >> 27)).to_le_bytes());
    }
    value.truncate(bytes.max(1));
    value
}

/// Appends one record; its id.
pub fn append(journal: &dyn Journal, ledger: &Ledger, source: Source, number: u32, bytes: usize) -> u64 {
    let id = ledger.ask(source, number, bytes);
    let (key, value) = (id.to_string(), value(id, bytes));
    let record =
        RecordRef { key: Some(key.as_bytes()), value: Some(&value), headers: &[], timestamp_ms: clock::wall_ms() };
    if let Err(why) = journal.append(ticket(id), partition(number), &record) {
        ledger.not_taken(id, why);
    }
    id
}

/// Appends to all partitions until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    pub fn start(journal: Arc<dyn Journal>, ledger: Arc<Ledger>, partitions: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tasks::spawn("load", async move {
            let mut rounds = tokio::time::interval(ROUND);
            while !stopped.load(Ordering::Relaxed) {
                rounds.tick().await;
                for number in 0..partitions {
                    append(&*journal, &ledger, Source::Load, number, VALUE_BYTES);
                }
            }
        });
        Self { stop, task }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}
