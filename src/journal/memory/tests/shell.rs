//! The shell: timers, wakes, the end of a journal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::journal::{AckGroup, AckSink, Journal};

#[derive(Debug, Default)]
struct Told {
    outcomes: Mutex<Vec<(Outcome, usize)>>,
    flushes: Mutex<usize>,
}

impl AckSink for Told {
    fn on_acks(&self, group: &AckGroup<'_>) {
        self.outcomes.lock().unwrap().push((group.outcome, group.tickets.len()));
    }
    fn flush(&self) {
        *self.flushes.lock().unwrap() += 1;
    }
}

fn open(log: &SharedLog) -> (MemoryJournal, Arc<Told>) {
    let told = Arc::new(Told::default());
    let sink: Arc<dyn AckSink> = Arc::<Told>::clone(&told);
    (MemoryJournal::open(log, vec!["t".into()], sink), told)
}

fn shared(plan: FaultPlan) -> SharedLog {
    let log = SharedLog::new(plan, Limits::default());
    log.with(|log| log.create(&[topic("t", &[])])).unwrap();
    log
}

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_takes_time_comes_in_time() {
    let plan = FaultPlan {
        seed: 1,
        append_delay_ms_max: 5,
        ack_delay_ms_max: 5,
        tail_delay_permille: 500,
        tail_delay_ms_max: 5,
        ..FaultPlan::default()
    };
    let log = shared(plan);
    let ((journal, told), (reader, _)) = (open(&log), open(&log));
    let mut tail = reader.tail(Isolation::ReadCommitted);
    tail.follow(P0, Offset(0));
    let mut seen = 0;
    for sequence in 0..30 {
        journal.append(ticket(sequence), P0, &record("k", None)).unwrap();
        while seen <= usize::try_from(sequence).unwrap() {
            let event = tokio::time::timeout(LIMIT, tail.next()).await.expect("the tail is woken");
            seen += batch_rows(&[event]).len();
        }
    }
    assert!(journal.flush(LIMIT).await);
    assert_eq!(told.outcomes.lock().unwrap().iter().map(|(_, appends)| appends).sum::<usize>(), 30);
}

#[tokio::test]
async fn a_tail_made_to_wait_is_woken_when_nothing_else_happens() {
    let log = shared(FaultPlan::default());
    let (journal, _told) = open(&log);
    for sequence in 0..3 {
        journal.append(ticket(sequence), P0, &record("k", None)).unwrap();
        assert!(journal.flush(LIMIT).await);
    }
    log.with(|log| {
        log.set_faults(FaultPlan { tail_delay_permille: 1000, tail_delay_ms_max: 20, ..FaultPlan::default() });
    });
    let mut tail = journal.tail(Isolation::ReadCommitted);
    tail.follow(P0, Offset(0));
    let mut seen = 0;
    while seen < 3 {
        let event = tokio::time::timeout(LIMIT, tail.next()).await.expect("the tail is woken");
        seen += batch_rows(&[event]).len();
    }
}

#[tokio::test]
async fn appends_are_answered_in_groups_and_never_from_within_append() {
    let log = shared(FaultPlan::default());
    let (journal, told) = open(&log);
    for sequence in 0..100 {
        journal.append(ticket(sequence), P0, &record("k", None)).unwrap();
    }
    assert!(told.outcomes.lock().unwrap().is_empty());
    assert_eq!(journal.health().pending_bytes, log.with(|log| log.health(journal.incarnation()).pending_bytes));
    assert!(journal.flush(LIMIT).await);
    assert_eq!(*told.outcomes.lock().unwrap(), [(Outcome::Written(Offset(0)), 100)]);
    assert_eq!(*told.flushes.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_dropped_journal_still_hands_out_its_outcomes_and_ends() {
    let log = shared(FaultPlan { append_delay_ms_max: 5, ..FaultPlan::default() });
    let (journal, told) = open(&log);
    journal.append(ticket(0), P0, &record("k", None)).unwrap();
    drop(journal);
    // The journal's task holds the sink until it ends.
    while Arc::strong_count(&told) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(told.outcomes.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_fenced_journal_says_so() {
    let log = shared(FaultPlan::default());
    let (journal, told) = open(&log);
    assert!(log.with(|log| log.fence(journal.producer_id(), "t", 0, FenceForm::Marker)));
    journal.append(ticket(0), P0, &record("k", None)).unwrap();
    assert!(journal.flush(LIMIT).await);
    assert_eq!(*told.outcomes.lock().unwrap(), [(Outcome::Refused(Refusal::Fenced), 1)]);
    assert!(journal.health().fenced);
    assert_eq!(journal.append(ticket(1), P1, &record("k", None)), Err(NotTaken::Closed));
    assert!(journal.flush(LIMIT).await);
    journal.room().await;
}

#[tokio::test]
async fn a_flush_that_takes_too_long_says_so() {
    let log = shared(FaultPlan { seed: 2, append_delay_ms_max: 1_000_000_000, ..FaultPlan::default() });
    let (journal, _told) = open(&log);
    journal.append(ticket(0), P0, &record("k", None)).unwrap();
    assert!(!journal.flush(Duration::from_millis(5)).await);
}

#[tokio::test]
async fn a_question_may_go_unanswered() {
    let log = shared(FaultPlan { unanswered_permille: 1000, ..FaultPlan::default() });
    let (journal, _told) = open(&log);
    assert!(matches!(journal.ends(&[P0]).await, Err(JournalError::Unavailable { .. })));
}
