//! The log, read by a journal that had no part in the run and by kcat, and what was promised compared with it.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace::clock;
use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{Isolation, Journal, Offset, Outcome};
use millrace::message::headers;

use crate::follow::Seen;
use crate::ledger::{Entry, Ledger, Source};
use crate::load::{partition, value};

const READ_BYTES: usize = 4 << 20;
/// Until the log can be read after all.
const LIMIT: Duration = Duration::from_mins(1);

/// Offsets and ids of a partition's records; fences are left out.
pub type Log = Vec<Vec<(i64, u64)>>;

/// Reads all partitions from their start to their high watermark.
pub async fn read_log(bootstrap: &[String], topic: &str, partitions: u32, ledger: &Ledger) -> Log {
    let options = KafkaOptions::new(bootstrap.to_vec());
    let journal = KafkaJournal::open(options, vec![topic.to_owned()], Arc::new(Ledger::default())).await.unwrap();
    let entries = ledger.entries();
    let mut log = Log::new();
    for number in 0..partitions {
        log.push(read_partition(&journal, number, &entries).await);
    }
    log
}

async fn read_partition(journal: &KafkaJournal, number: u32, entries: &[Entry]) -> Vec<(i64, u64)> {
    let mut records = Vec::new();
    let mut next = Offset(0);
    let deadline = clock::now() + LIMIT;
    loop {
        let answer = match journal.read(partition(number), next, READ_BYTES, Isolation::ReadUncommitted).await {
            Ok(answer) => answer,
            Err(error) if clock::now() > deadline => panic!("partition {number} cannot be read: {error}"),
            Err(_) => continue,
        };
        for batch in &answer.batches {
            batch.check().unwrap();
            for record in batch.iter().filter(|record| record.headers().all(|header| header.name != headers::FENCE)) {
                let id: u64 = std::str::from_utf8(record.key.unwrap()).unwrap().parse().unwrap();
                let bytes = entries[usize::try_from(id).unwrap()].bytes;
                assert!(record.value() == Some(&*value(id, bytes)), "the payload of append {id} was changed");
                records.push((record.offset.0, id));
            }
        }
        if answer.next >= answer.ends.high_watermark {
            return records;
        }
        assert!(answer.next > next, "partition {number} cannot be read beyond {next:?}");
        next = answer.next;
    }
}

/// The same log as another program sees it; `None` where kcat is not installed.
pub fn read_with_kcat(bootstrap: &[String], topic: &str, partitions: u32) -> Option<Log> {
    let bootstrap = bootstrap.join(",");
    let arguments = ["-C", "-b", &bootstrap, "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%p %o %k\\n"];
    let Ok(output) = Command::new("kcat").args(arguments).output() else {
        eprintln!("SKIPPED the second reader: kcat is not installed");
        return None;
    };
    assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
    let mut log: Log = vec![Vec::new(); partitions as usize];
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut words = line.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<i64>().ok());
        // A fence's key is no number.
        if let (Some(part), Some(offset), Some(id)) = (number(), number(), number()) {
            log[usize::try_from(part).unwrap()].push((offset, u64::try_from(id).unwrap()));
        }
    }
    for records in &mut log {
        records.sort_unstable();
    }
    Some(log)
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Findings {
    pub appends: usize,
    pub not_taken: usize,
    pub written: usize,
    /// Written to a log that was deleted since.
    pub written_before: usize,
    /// By reason.
    pub refused: BTreeMap<String, usize>,
    pub unknown: usize,
    /// Of these.
    pub unknown_in_log: usize,
    /// Records in the log beyond the first of each append.
    pub duplicates: usize,
    pub tail_events: BTreeMap<String, usize>,
    /// Sentences about what must not be.
    pub wrong: Vec<String>,
}

/// Compares. What was written before `life` began went to a log that does not exist any more.
pub fn compare(entries: &[Entry], log: &Log, seen: &Seen, life: Option<Instant>) -> Findings {
    let mut findings = Findings { appends: entries.len(), wrong: seen.wrong.clone(), ..Findings::default() };
    let mut places: BTreeMap<u64, Vec<(u32, i64)>> = BTreeMap::new();
    for (number, records) in (0..).zip(log) {
        for &(offset, id) in records {
            places.entry(id).or_default().push((number, offset));
        }
    }
    for (id, entry) in (0..).zip(entries) {
        let found = places.get(&id).map_or(&[][..], Vec::as_slice);
        findings.duplicates += found.len().saturating_sub(1);
        judge(&mut findings, id, entry, found, life);
    }
    judge_order(&mut findings, entries, life);
    judge_tail(&mut findings, log, seen);
    if findings.duplicates > 0 {
        findings.wrong.push(format!("{} records are twice in the log", findings.duplicates));
    }
    for event in &seen.events {
        *findings.tail_events.entry(event.clone()).or_default() += 1;
    }
    findings
}

fn judge(findings: &mut Findings, id: u64, entry: &Entry, found: &[(u32, i64)], life: Option<Instant>) {
    if let Some(why) = entry.not_taken {
        findings.not_taken += 1;
        if !found.is_empty() || !entry.outcomes.is_empty() {
            findings.wrong.push(format!("append {id} was not taken ({why}), and {found:?} {:?}", entry.outcomes));
        }
        return;
    }
    let [(outcome, at)] = entry.outcomes.as_slice() else {
        findings.wrong.push(format!("append {id} has {} outcomes", entry.outcomes.len()));
        return;
    };
    match outcome {
        Outcome::Written(_) if life.is_some_and(|life| *at < life) => findings.written_before += 1,
        Outcome::Written(offset) => {
            findings.written += 1;
            if !found.contains(&(entry.partition, offset.0)) {
                let place = (entry.partition, offset.0);
                findings.wrong.push(format!("false Written: append {id} is not at {place:?} but {found:?}"));
            }
        }
        Outcome::Refused(why) => {
            *findings.refused.entry(format!("{why:?}")).or_default() += 1;
            if !found.is_empty() {
                findings.wrong.push(format!("false Refused ({why}): append {id} is at {found:?}"));
            }
        }
        Outcome::Unknown => {
            findings.unknown += 1;
            findings.unknown_in_log += usize::from(!found.is_empty());
        }
    }
}

/// What was written to a partition lies there in the order of its appends.
fn judge_order(findings: &mut Findings, entries: &[Entry], life: Option<Instant>) {
    let mut last: BTreeMap<(Source, u32), (u64, i64)> = BTreeMap::new();
    for (id, entry) in (0..).zip(entries) {
        let is_of_life = entry.written_at().is_some_and(|at| life.is_none_or(|life| at >= life));
        let Some(offset) = entry.offset().filter(|_| is_of_life) else { continue };
        if let Some((before, at)) = last.insert((entry.source, entry.partition), (id, offset))
            && at >= offset
        {
            let number = entry.partition;
            findings.wrong.push(format!("partition {number}: append {before} is at {at}, the later {id} at {offset}"));
        }
    }
}

/// The tail saw every record from where it last began to follow.
fn judge_tail(findings: &mut Findings, log: &Log, seen: &Seen) {
    for (number, (records, lives)) in log.iter().zip(&seen.lives).enumerate() {
        let Some(life) = lives.last() else { continue };
        let expected: Vec<(i64, u64)> = records.iter().copied().filter(|(offset, _)| *offset >= life.from).collect();
        if life.records != expected {
            let differs = life.records.iter().zip(&expected).position(|(seen, is)| seen != is);
            findings.wrong.push(format!(
                "partition {number}: from {} on the tail saw {} records of {}, the first that differs: {differs:?}",
                life.from,
                life.records.len(),
                expected.len(),
            ));
        }
    }
}
