//! What becomes of appends and tails when Kafka's nodes die, stand still or move.
//!
//! Each test lets a load run, breaks something, mends it, and compares outcomes, log and tail: what was written is in
//! the log once and at its offset, what was refused is not, what is unknown is there at most once, the order is that of
//! the appends, and the tail saw exactly the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace::clock;
use millrace::journal::kafka::{FenceForm, KafkaOptions};
use millrace::journal::{Isolation, Journal, NotTaken, Offset, Outcome, Partition, Refusal, TailEvent};
use millrace::message::RecordRef;
use tokio::time::{sleep, timeout};

use crate::support::{Fixture, bootstrap_or_skip, create, follow_all, fresh_name, partition, script, spec, ticket};

const PARTITIONS: u32 = 4;
/// Kafka notices a dead node only after its session has run out.
const ALL: Duration = Duration::from_secs(100);

fn kafka(bootstrap: &[String], arguments: &[&str]) {
    if std::env::var("KAFKA_DIR").is_err() && std::env::var("KAFKA_PORT").is_err() {
        let port = bootstrap[0].rsplit(':').next().unwrap();
        let with_port = [&["-c", "KAFKA_PORT=$0 exec scripts/kafka.sh \"$@\"", port], arguments].concat();
        let root = env!("CARGO_MANIFEST_DIR");
        let run = || std::process::Command::new("bash").current_dir(root).args(&with_port).output().unwrap();
        let output = tokio::task::block_in_place(run);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    } else {
        script("scripts/kafka.sh", arguments);
    }
}

/// The log as it is at the end.
async fn whole_log(fixture: &Fixture) -> BTreeMap<Partition, Vec<(Offset, u64)>> {
    let mut logs = BTreeMap::new();
    for number in 0..PARTITIONS {
        let partition = partition(number);
        let end = fixture.journal.ends(&[partition]).await.unwrap()[0].high_watermark;
        let (mut next, mut log) = (Offset(0), Vec::new());
        while next < end {
            let answer = fixture.journal.read(partition, next, 4 << 20, Isolation::ReadUncommitted).await.unwrap();
            let records = answer.batches.iter().flat_map(|batch| batch.iter());
            log.extend(records.map(|record| (record.offset, sequence_of(record.value()))));
            next = answer.next;
        }
        logs.insert(partition, log);
    }
    logs
}

fn sequence_of(value: Option<&[u8]>) -> u64 {
    u64::from_be_bytes(value.unwrap()[..8].try_into().unwrap())
}

/// How appends ended: written, refused, unknown.
#[derive(Debug, Default)]
struct Ended {
    written: usize,
    refused: usize,
    unknown: usize,
}

fn check(fixture: &Fixture, appended: u64, log: &BTreeMap<Partition, Vec<(Offset, u64)>>) -> Ended {
    let mut outcomes = BTreeMap::new();
    for (partition, ticket, outcome) in fixture.acks.all() {
        assert!(outcomes.insert(ticket.sequence, (partition, outcome)).is_none(), "two outcomes for {ticket:?}");
    }
    assert_eq!(u64::try_from(outcomes.len()).unwrap(), appended, "some have no outcome");
    let mut found = BTreeMap::new();
    for (partition, records) in log {
        assert!(records.is_sorted_by_key(|(_, sequence)| *sequence), "{partition:?} is out of order");
        for (offset, sequence) in records {
            assert!(found.insert(*sequence, (*partition, *offset)).is_none(), "{sequence} is there twice");
        }
    }
    let mut ended = Ended::default();
    for (sequence, (partition, outcome)) in outcomes {
        match outcome {
            Outcome::Written(offset) => {
                ended.written += 1;
                assert_eq!(found.get(&sequence), Some(&(partition, offset)), "{sequence} is lost");
            }
            Outcome::Refused(_) => {
                ended.refused += 1;
                assert_eq!(found.get(&sequence), None, "{sequence} was refused");
            }
            Outcome::Unknown => ended.unknown += 1,
        }
    }
    ended
}

/// Appends 500 records a second for `seconds`, runs `fault` meanwhile, and compares everything afterwards.
async fn load(fixture: Arc<Fixture>, seconds: u64, fault: impl Future<Output = ()>) -> Ended {
    let mut tail = follow_all(&fixture.journal, Isolation::ReadUncommitted, PARTITIONS);
    let writer = Arc::clone(&fixture);
    let writing = millrace::ops::tasks::spawn("load", async move {
        let begun = clock::now();
        let mut sequence = 0_u64;
        while begun.elapsed() < Duration::from_secs(seconds) {
            let value = [&sequence.to_be_bytes()[..], &[b'x'; 200]].concat();
            let record =
                RecordRef { key: Some(b"key"), value: Some(&value), headers: &[], timestamp_ms: clock::wall_ms() };
            let number = u32::try_from(sequence % u64::from(PARTITIONS)).unwrap();
            match writer.journal.append(ticket(sequence), partition(number), &record) {
                Ok(()) => sequence += 1,
                Err(NotTaken::Full | NotTaken::Closed) => {}
                Err(other) => panic!("{other}"),
            }
            sleep(Duration::from_millis(2)).await;
        }
        let asked = clock::now();
        assert!(writer.journal.flush(ALL).await, "some appends have no outcome: {:?}", writer.journal.health());
        eprintln!("the last outcomes came {:?} after the load ended", asked.elapsed());
        sequence
    });
    let seen = millrace::ops::tasks::spawn("load", async move {
        let mut seen: BTreeMap<Partition, Vec<(Offset, u64)>> = BTreeMap::new();
        let (mut longest, mut last) = (Duration::ZERO, clock::now());
        // A tail with nothing to say for that long has read everything.
        while let Ok(event) = timeout(Duration::from_secs(seconds + 20), tail.next()).await {
            match event {
                TailEvent::Batch(batch) => {
                    (longest, last) = (longest.max(last.elapsed()), clock::now());
                    let records = batch.iter().map(|record| (record.offset, sequence_of(record.value())));
                    let seen = seen.entry(batch.partition).or_default();
                    seen.extend(records);
                    if seen.last().is_some_and(|(_, sequence)| *sequence == u64::MAX) {
                        seen.pop();
                        break;
                    }
                }
                TailEvent::Progress { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        eprintln!("the tail was silent for at most {longest:?}");
        (seen, tail)
    });
    fault.await;
    let appended = writing.await.unwrap();
    let log = whole_log(&fixture).await;
    let ended = check(&fixture, appended, &log);
    eprintln!("{appended} appended: {ended:?}, {:?}", fixture.journal.health());
    // The last word, so that the reader knows when to stop.
    let last = Fixture::on(KafkaOptions::new(fixture.bootstrap.clone()), fixture.name.clone()).await;
    last.write(0, 0, "key", &u64::MAX.to_be_bytes()).await;
    let (mut seen, mut tail) = seen.await.unwrap();
    while seen.values().map(Vec::len).sum::<usize>() < log.values().map(Vec::len).sum::<usize>() {
        if let TailEvent::Batch(batch) = timeout(ALL, tail.next()).await.expect("the tail lost something") {
            let records = batch.iter().map(|record| (record.offset, sequence_of(record.value())));
            seen.entry(batch.partition).or_default().extend(records);
        }
    }
    assert_eq!(seen, log, "the tail saw something else than the log");
    ended
}

async fn fixture(bootstrap: &[String], what: &str, change: impl Fn(&mut KafkaOptions)) -> Arc<Fixture> {
    let name = fresh_name(what);
    let copies = u16::try_from(bootstrap.len().min(3)).unwrap();
    let min_insync = if copies > 1 { "2" } else { "1" };
    let spec = spec(&name, PARTITIONS, &[("min.insync.replicas", min_insync)]);
    create(bootstrap, &[millrace::journal::TopicSpec { replication_factor: Some(copies), ..spec }]).await;
    let mut options = KafkaOptions::new(bootstrap.to_vec());
    change(&mut options);
    Arc::new(Fixture::on(options, name).await)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "stops Kafka nodes"]
async fn a_node_that_stands_still_for_a_while_costs_nothing_but_time() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = fixture(&bootstrap, "paused", |_| {}).await;
    let ended = load(fixture, 25, async {
        sleep(Duration::from_secs(3)).await;
        kafka(&bootstrap, &["pause", "1"]);
        sleep(Duration::from_secs(15)).await;
        kafka(&bootstrap, &["resume", "1"]);
    })
    .await;
    assert_eq!((ended.refused, ended.unknown), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "stops Kafka nodes"]
async fn a_node_that_is_killed_and_comes_back_costs_nothing_but_time() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = fixture(&bootstrap, "killed", |_| {}).await;
    let ended = load(fixture, 20, async {
        for _ in 0..2 {
            sleep(Duration::from_secs(3)).await;
            kafka(&bootstrap, &["kill", "1"]);
            sleep(Duration::from_secs(1)).await;
            kafka(&bootstrap, &["restart-node", "1"]);
        }
    })
    .await;
    assert_eq!((ended.refused, ended.unknown), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "stops Kafka nodes"]
async fn a_deadline_within_a_standstill_is_honest_and_all_goes_on_afterwards() {
    let bootstrap = bootstrap_or_skip!();
    let fixture = fixture(&bootstrap, "deadline", |options| options.delivery_timeout_ms = 2_000).await;
    let ended = load(fixture, 20, async {
        sleep(Duration::from_secs(3)).await;
        kafka(&bootstrap, &["pause", "1"]);
        sleep(Duration::from_secs(9)).await;
        kafka(&bootstrap, &["resume", "1"]);
    })
    .await;
    assert!(ended.unknown > 0 && ended.refused > 0 && ended.written > 1_000, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "stops Kafka nodes"]
async fn a_zombie_that_still_tries_is_fenced_with_its_first_answer() {
    let bootstrap = bootstrap_or_skip!();
    for form in [FenceForm::Marker, FenceForm::Record] {
        let zombie = fixture(&bootstrap, "zombie", |_| {}).await;
        let keeper = Fixture::on(KafkaOptions::new(bootstrap.clone()), zombie.name.clone()).await;
        let all: Vec<Partition> = (0..PARTITIONS).map(partition).collect();
        zombie.write(0, 0, "key", &0_u64.to_be_bytes()).await;
        kafka(&bootstrap, &["pause", "1"]);
        for sequence in 1..100_u64 {
            zombie.append(u32::try_from(sequence).unwrap() % PARTITIONS, sequence, "key", &sequence.to_be_bytes());
        }
        // Long enough for the zombie to have sent it more than once.
        sleep(Duration::from_secs(9)).await;
        kafka(&bootstrap, &["resume", "1"]);
        let producer = zombie.journal.producer_id().unwrap();
        let fenced = keeper.journal.fence(producer, &all, form, Duration::from_mins(1)).await;
        assert!(fenced.iter().all(Result::is_ok), "{fenced:?}");
        let ends: Vec<Offset> =
            keeper.journal.ends(&all).await.unwrap().into_iter().map(|ends| ends.high_watermark).collect();
        sleep(Duration::from_secs(3)).await;
        zombie.append_if_open(3, 100, "key", &100_u64.to_be_bytes());
        assert!(zombie.journal.flush(ALL).await);
        let after: Vec<Offset> =
            keeper.journal.ends(&all).await.unwrap().into_iter().map(|ends| ends.high_watermark).collect();
        assert_eq!(ends, after, "something landed after the fence");
        let outcomes = zombie.acks.all();
        let fenced = outcomes.iter().filter(|(.., outcome)| *outcome == Outcome::Refused(Refusal::Fenced)).count();
        eprintln!("{form:?}: {} outcomes, {fenced} refused, {:?}", outcomes.len(), zombie.journal.health());
        let answer = keeper.journal.read(partition(1), Offset(0), 1 << 20, Isolation::ReadUncommitted).await.unwrap();
        let log: BTreeMap<Offset, u64> = answer
            .batches
            .iter()
            .flat_map(|batch| batch.iter())
            .filter(|record| record.value().is_some())
            .map(|record| (record.offset, sequence_of(record.value())))
            .collect();
        for (_, ticket, outcome) in outcomes.iter().filter(|(of, ..)| *of == partition(1)) {
            let places = log.values().filter(|sequence| **sequence == ticket.sequence).count();
            match outcome {
                Outcome::Written(offset) => assert_eq!(log.get(offset), Some(&ticket.sequence)),
                Outcome::Refused(_) => assert_eq!(places, 0),
                Outcome::Unknown => assert!(places <= 1),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "stops Kafka nodes; wants three"]
async fn leaders_that_die_are_replaced() {
    let bootstrap = bootstrap_or_skip!();
    if bootstrap.len() < 3 {
        eprintln!("SKIPPED: wants three Kafka nodes");
        return;
    }
    let fixture = fixture(&bootstrap, "leaders", |_| {}).await;
    let ended = load(fixture, 60, async {
        for node in ["1", "2"] {
            sleep(Duration::from_secs(3)).await;
            kafka(&bootstrap, &["kill", node]);
            sleep(Duration::from_secs(14)).await;
            kafka(&bootstrap, &["restart-node", node]);
        }
    })
    .await;
    assert_eq!((ended.refused, ended.unknown), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "stops Kafka nodes; wants three"]
async fn leaders_that_stand_still_are_replaced_and_may_come_back() {
    let bootstrap = bootstrap_or_skip!();
    if bootstrap.len() < 3 {
        eprintln!("SKIPPED: wants three Kafka nodes");
        return;
    }
    let fixture = fixture(&bootstrap, "still", |_| {}).await;
    let ended = load(fixture, 60, async {
        for node in ["3", "2"] {
            sleep(Duration::from_secs(3)).await;
            kafka(&bootstrap, &["pause", node]);
            sleep(Duration::from_secs(18)).await;
            kafka(&bootstrap, &["resume", node]);
        }
    })
    .await;
    assert_eq!((ended.refused, ended.unknown), (0, 0));
}
