//! The memory journal, without faults.

use std::sync::{Arc, Mutex};

use millrace::journal::memory::{FaultPlan, Limits, MemoryJournal, SharedLog};
use millrace::journal::{AckSink, Journal, SharedJournal, TopicSpec};

use super::fixture::Fixture;

/// One memory log, made when the first journal says how large its budget is.
pub struct MemoryFixture {
    log: Mutex<Option<SharedLog>>,
    plan: FaultPlan,
}

impl MemoryFixture {
    pub fn new() -> Self {
        Self { log: Mutex::new(None), plan: FaultPlan::default() }
    }

    /// On a cluster that allows no markers.
    pub fn fenced_by_records() -> Self {
        Self { plan: FaultPlan { fences_are_records: true, ..FaultPlan::default() }, ..Self::new() }
    }
}

impl Fixture for MemoryFixture {
    async fn open(&self, specs: &[TopicSpec], append_bytes_max: usize, sink: Arc<dyn AckSink>) -> SharedJournal {
        // Half: the budget is never less than two of the largest records.
        let limits = Limits {
            append_bytes_max,
            record_bytes_max: Limits::default().record_bytes_max.min(append_bytes_max / 2),
            ..Limits::default()
        };
        let log = self.log.lock().unwrap().get_or_insert_with(|| SharedLog::new(self.plan, limits)).clone();
        let journal = MemoryJournal::open(&log, specs.iter().map(|spec| spec.name.clone()).collect(), sink);
        journal.create(specs).await.unwrap();
        Arc::new(journal)
    }

    async fn leave_hole(&self, topic: &str, number: u32) -> bool {
        let log = self.log.lock().unwrap();
        log.as_ref().is_some_and(|log| {
            log.with(|log| log.leave_hole(topic, number, 3));
            true
        })
    }
}
