//! A tail on all partitions of a run, which keeps what it sees and goes on after events as a node would.

use std::sync::{Arc, Mutex, PoisonError};

use millrace::journal::{Batch, Isolation, Journal, Offset, Tail, TailEvent};
use millrace::message::headers;
use millrace::ops::tasks;
use tokio::task::JoinHandle;

use crate::load::partition;

/// What a tail saw of a partition from one `follow` on.
#[derive(Clone, Debug)]
pub struct Life {
    pub from: i64,
    /// The tail's next offset.
    pub next: i64,
    /// Offsets and ids.
    pub records: Vec<(i64, u64)>,
}

/// All that a tail saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// By partition; the last one is the present one.
    pub lives: Vec<Vec<Life>>,
    /// Other than batches and progress.
    pub events: Vec<String>,
    /// What must never be.
    pub wrong: Vec<String>,
}

pub struct Follower {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Follower {
    pub fn start(journal: Arc<dyn Journal>, partitions: u32) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let kept = Arc::clone(&seen);
        let task = tasks::spawn("follower", async move {
            let mut tail = journal.tail(Isolation::ReadCommitted);
            for number in 0..partitions {
                kept.lock().unwrap().lives.push(Vec::new());
                follow(&mut *tail, &mut kept.lock().unwrap(), number, 0);
            }
            loop {
                let event = tail.next().await;
                on_event(&mut *tail, &mut kept.lock().unwrap(), event);
            }
        });
        Self { seen, task }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether each partition was read up to its end.
    pub fn has_reached(&self, ends: &[i64]) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let nexts = seen.lives.iter().map(|lives| lives.last().map_or(0, |life| life.next));
        nexts.zip(ends).all(|(next, end)| next >= *end)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn follow(tail: &mut dyn Tail, seen: &mut Seen, number: u32, from: i64) {
    tail.follow(partition(number), Offset(from));
    seen.lives[number as usize].push(Life { from, next: from, records: Vec::new() });
}

fn on_event(tail: &mut dyn Tail, seen: &mut Seen, event: TailEvent) {
    match event {
        TailEvent::Batch(batch) => on_batch(seen, &batch),
        TailEvent::Progress { partition, next, .. } => advance(seen, partition.number, next.0),
        TailEvent::BelowLogStart { partition, log_start, .. } => {
            seen.events.push("BelowLogStart".to_owned());
            follow(tail, seen, partition.number, log_start.0);
        }
        TailEvent::Rewound { partition, position, end } => {
            seen.events.push(format!("Rewound {} to {}", position.0, end.0));
            follow(tail, seen, partition.number, end.0);
        }
        TailEvent::Gap { partition, why } => {
            seen.events.push(format!("Gap ({why})"));
            let next = seen.lives[partition.number as usize].last().map_or(0, |life| life.next);
            follow(tail, seen, partition.number, next);
        }
        TailEvent::Recreated { .. } => {
            seen.events.push("Recreated".to_owned());
            for number in 0..u32::try_from(seen.lives.len()).unwrap() {
                follow(tail, seen, number, 0);
            }
        }
        TailEvent::PartitionsAdded { partitions, .. } => seen.events.push(format!("PartitionsAdded {partitions}")),
    }
}

fn advance(seen: &mut Seen, number: u32, next: i64) {
    let Some(life) = seen.lives[number as usize].last_mut() else { return };
    if next < life.next {
        seen.wrong.push(format!("the tail of partition {number} went back from {} to {next}", life.next));
    }
    life.next = next;
}

fn on_batch(seen: &mut Seen, batch: &Batch) {
    let number = batch.partition.number;
    if let Err(error) = batch.check() {
        seen.wrong.push(format!("partition {number}: a malformed batch: {error}"));
    }
    for record in batch {
        let Some(life) = seen.lives[number as usize].last_mut() else { return };
        if record.offset.0 < life.next {
            seen.wrong.push(format!("the tail of partition {number} gave offset {} again", record.offset.0));
        }
        life.next = record.offset.0 + 1;
        if record.headers().all(|header| header.name != headers::FENCE) {
            let id = record.key.and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
            life.records.push((record.offset.0, id.unwrap_or(u64::MAX)));
        }
    }
    advance(seen, number, batch.next_offset.0);
}
