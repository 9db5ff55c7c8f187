//! The fence of a dead node (F9), in both forms: once it is written, nothing of the dead node's producer lands, however
//! its writes were held up, and the dead node, if it lives after all, learns that it is fenced.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use millrace::clock;
use millrace::journal::kafka::{FenceForm, KafkaJournal, KafkaOptions};
use millrace::journal::{Isolation, Journal, NotTaken, Offset, Outcome, Refusal};
use tokio::time::sleep;

use crate::check::{Findings, Log, compare, read_log, read_with_kcat};
use crate::cluster::{Cluster, ONE, Setup, is_wanted};
use crate::follow::Seen;
use crate::ledger::{Entry, Ledger, Source};
use crate::load::{Load, VALUE_BYTES, append, partition};
use crate::proxy::Proxy;
use crate::stage::{PARTITIONS, PLAIN, create_named, runtime, wait};
use crate::table::Row;

/// The dead node's client id.
const ZOMBIE: &str = "zombie";
/// The dead node wrote to those below it, the last one it never reached.
const NEVER_WRITTEN: u32 = PARTITIONS - 1;
const FENCE_LIMIT: Duration = Duration::from_secs(30);
const FORMS: [FenceForm; 2] = [FenceForm::Marker, FenceForm::Record];
/// By which a dead node, started by a test as a process, knows where Kafka is.
const ZOMBIE_VARIABLE: &str = "MILLRACE_FAULTS_ZOMBIE";

#[test]
#[ignore = "takes about a minute"]
fn nothing_of_a_fenced_node_lands_on_kafka_3_9_2() {
    fence_all("3.9.2");
}

#[test]
#[ignore = "takes about a minute"]
fn nothing_of_a_fenced_node_lands_on_kafka_4_3_0() {
    fence_all("4.3.0");
}

struct Place {
    cluster: Cluster,
    proxy: Proxy,
    topic: String,
    form: FenceForm,
}

fn fence_all(version: &'static str) {
    if !is_wanted("the fences") {
        return;
    }
    let proxy = Proxy::start();
    let cluster = Cluster::start(Setup { version: Some(version), advertised_port: Some(proxy.port), ..ONE });
    proxy.lead_to(&cluster.bootstrap[0]);
    let mut place = Place { cluster, proxy, topic: String::new(), form: FenceForm::Marker };
    let mut wrong = Vec::new();
    for form in FORMS {
        let mut publish = |how: &str, findings: Findings| {
            publish(form, version, how, &findings);
            wrong.extend(findings.wrong.into_iter().take(10).map(|sentence| format!("{form:?}, {how}: {sentence}")));
        };
        place.form = form;
        publish("writes held up on the way", runtime().block_on(held_up(&mut place, "held", false)));
        publish("writes held up, Kafka killed after the fence", runtime().block_on(held_up(&mut place, "kill", true)));
        publish("process stopped under load", runtime().block_on(stopped(&mut place)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn publish(form: FenceForm, version: &str, how: &str, findings: &Findings) {
    let form = match form {
        FenceForm::Marker => "marker",
        FenceForm::Record => "record",
    };
    let refused: usize = findings.refused.values().sum();
    let result = format!(
        "{} | {} | {refused} | {}, {} in the log | {}",
        findings.appends - findings.not_taken,
        findings.written,
        findings.unknown,
        findings.unknown_in_log,
        if findings.wrong.is_empty() { "0" } else { "some" },
    );
    Row { fault: format!("fence by {form}: {how}"), kafka: version.to_owned(), result }.publish();
}

impl Place {
    async fn begin(&mut self, what: &str) {
        self.topic = format!("fence.{what}.{:?}", self.form).to_lowercase();
        create_named(&self.options("test"), &self.topic, &PLAIN).await;
    }

    fn options(&self, client_id: &str) -> KafkaOptions {
        let client_id = client_id.to_owned();
        KafkaOptions { client_id, ..KafkaOptions::new(self.cluster.bootstrap.clone()) }
    }

    async fn journal(&self, client_id: &str, ledger: &Arc<Ledger>) -> Arc<KafkaJournal> {
        let topics = vec![self.topic.clone()];
        Arc::new(KafkaJournal::open(self.options(client_id), topics, Arc::clone(ledger) as _).await.unwrap())
    }

    /// Fences the dead node; the ends of the log afterwards.
    async fn fence(&self, producer_id: i64) -> Vec<i64> {
        let other = self.journal("test", &Arc::new(Ledger::default())).await;
        let partitions: Vec<_> = (0..PARTITIONS).map(partition).collect();
        for fenced in other.fence_as(self.form, producer_id, &partitions, FENCE_LIMIT).await {
            fenced.unwrap();
        }
        other.ends(&partitions).await.unwrap().iter().map(|ends| ends.high_watermark.0).collect()
    }

    /// What came of the dead node's appends, and what landed after the fence.
    async fn judge(&self, entries: &[Entry], ledger: &Ledger, ends: &[i64]) -> Findings {
        let log = read_log(&self.cluster.bootstrap, &self.topic, PARTITIONS, ledger).await;
        let mut findings = compare(entries, &log, &Seen::default(), None);
        findings.wrong.extend(landed_after(&log, ends));
        if read_with_kcat(&self.cluster.bootstrap, &self.topic, PARTITIONS).is_some_and(|other| other != log) {
            findings.wrong.push("kcat reads another log".to_owned());
        }
        let only_fenced = findings.refused.keys().all(|why| *why == format!("{:?}", Refusal::Fenced));
        if !only_fenced {
            findings
                .wrong
                .push(format!("appends of a fenced node were refused for other reasons: {:?}", findings.refused));
        }
        findings.wrong.extend(self.others_still_write().await);
        findings
    }

    /// A fence concerns one producer, and a reader passes it.
    async fn others_still_write(&self) -> Option<String> {
        let ledger = Arc::new(Ledger::default());
        let other = self.journal("test", &ledger).await;
        for number in 0..PARTITIONS {
            append(&*other, &ledger, Source::Scenario, number, VALUE_BYTES);
        }
        wait("another node's appends", async || ledger.open() == 0).await;
        for entry in ledger.entries() {
            let Some(offset) = entry.offset() else { return Some(format!("another node's append: {entry:?}")) };
            let read = other.read(partition(entry.partition), Offset(offset), 1 << 16, Isolation::ReadCommitted).await;
            if read.is_ok_and(|answer| answer.next.0 <= offset) {
                return Some(format!("READ_COMMITTED does not pass the fence in partition {}", entry.partition));
            }
        }
        None
    }
}

fn landed_after<'a>(log: &'a Log, ends: &'a [i64]) -> impl Iterator<Item = String> + 'a {
    let late = log.iter().zip(ends).map(|(records, end)| records.iter().filter(|(offset, _)| offset >= end).count());
    let late = late.enumerate().filter(|(_, late)| *late > 0);
    late.map(|(number, late)| format!("{late} records landed in partition {number} after its fence"))
}

/// The dead node's requests are held up on the way; after the fence they go on, and so does the node.
async fn held_up(place: &mut Place, what: &str, kill_kafka: bool) -> Findings {
    place.begin(what).await;
    let ledger = Arc::new(Ledger::default());
    let zombie = place.journal(ZOMBIE, &ledger).await;
    let load = Load::start(Arc::clone(&zombie) as _, Arc::clone(&ledger), NEVER_WRITTEN);
    wait("the node to write", async || ledger.written_since(zombie_start(&ledger)).len() == NEVER_WRITTEN as usize)
        .await;
    place.proxy.hold(ZOMBIE);
    append(&*zombie, &ledger, Source::Scenario, NEVER_WRITTEN, VALUE_BYTES);
    // The first attempt was given up, the second is under way, more waits behind it.
    wait("two attempts to be held up", async || place.proxy.held_requests() > 1).await;
    let ends = place.fence(zombie.producer_id()).await;
    if kill_kafka {
        place.cluster.kill(1);
        place.cluster.restart(1);
    }
    place.proxy.release();
    wait("the node to learn that it is fenced", async || zombie.health().fenced).await;
    load.stop().await;
    wait("every append to have an outcome", async || ledger.open() == 0).await;
    // What is still on its way to Kafka lands, if anything does.
    sleep(Duration::from_secs(2)).await;
    let mut findings = place.judge(&ledger.entries(), &ledger, &ends).await;
    let id = append(&*zombie, &ledger, Source::Scenario, 0, VALUE_BYTES);
    let after = ledger.entries()[usize::try_from(id).unwrap()].not_taken;
    if after != Some(NotTaken::Closed) {
        findings.wrong.push(format!("a fenced journal takes appends: {after:?}"));
    }
    findings
}

fn zombie_start(ledger: &Ledger) -> std::time::Instant {
    ledger.entries().first().map_or_else(clock::now, |entry| entry.asked)
}

/// The dead node is a process that is stopped under load, and goes on after the fence.
async fn stopped(place: &mut Place) -> Findings {
    place.begin("stopped").await;
    let mut zombie = Zombie::start(&place.cluster.bootstrap, &place.topic);
    let producer_id = zombie.next_line()[1].parse().unwrap();
    sleep(Duration::from_secs(2)).await;
    zombie.signal("STOP");
    let ends = place.fence(producer_id).await;
    zombie.signal("CONT");
    let entries = zombie.entries();
    sleep(Duration::from_secs(1)).await;
    let ledger = Ledger::default();
    for _ in &entries {
        ledger.ask(Source::Load, 0, VALUE_BYTES);
    }
    place.judge(&entries, &ledger, &ends).await
}

/// This test program again, as a node; killed with its value.
struct Zombie {
    child: Child,
    lines: Box<dyn Iterator<Item = std::io::Result<String>>>,
}

impl Zombie {
    fn start(bootstrap: &[String], topic: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fence::a_dead_node_tells_what_came_of_its_appends", "--ignored", "--nocapture"])
            .env(ZOMBIE_VARIABLE, format!("{} {topic}", bootstrap.join(",")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines: Box::new(lines) }
    }

    /// The words of its next line for us.
    fn next_line(&mut self) -> Vec<String> {
        loop {
            let line = self.lines.next().expect("the node ended").unwrap();
            if let Some(words) = line.split("zombie: ").nth(1) {
                return words.split(' ').map(str::to_owned).collect();
            }
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    fn entries(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            let words = self.next_line();
            let number = |place: usize| words[place].parse().unwrap();
            let outcome = match words[0].as_str() {
                "end" => return entries,
                "written" => Outcome::Written(Offset(number(2))),
                "fenced" => Outcome::Refused(Refusal::Fenced),
                "refused" => Outcome::Refused(Refusal::Invalid),
                _ => Outcome::Unknown,
            };
            let (partition, asked) = (u32::try_from(number(1)).unwrap(), clock::now());
            let outcomes = vec![(outcome, asked)];
            let not_taken = (words[0] == "closed").then_some(NotTaken::Closed);
            let outcomes = if not_taken.is_some() { Vec::new() } else { outcomes };
            entries.push(Entry { partition, source: Source::Load, bytes: VALUE_BYTES, asked, not_taken, outcomes });
        }
    }
}

impl Drop for Zombie {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "started by the tests of fences"]
fn a_dead_node_tells_what_came_of_its_appends() {
    let Ok(place) = std::env::var(ZOMBIE_VARIABLE) else { return };
    let (bootstrap, topic) = place.split_once(' ').unwrap();
    runtime().block_on(async {
        let options = KafkaOptions::new(bootstrap.split(',').map(str::to_owned).collect());
        let ledger = Arc::new(Ledger::default());
        let journal = KafkaJournal::open(options, vec![topic.to_owned()], Arc::clone(&ledger) as _).await.unwrap();
        let journal = Arc::new(journal);
        println!("zombie: producer {}", journal.producer_id());
        let load = Load::start(Arc::clone(&journal) as _, Arc::clone(&ledger), NEVER_WRITTEN);
        wait("to be fenced", async || journal.health().fenced).await;
        load.stop().await;
        wait("every append to have an outcome", async || ledger.open() == 0).await;
        for entry in ledger.entries() {
            let number = entry.partition;
            match entry.outcomes.first().map(|(outcome, _)| *outcome) {
                None => println!("zombie: closed {number}"),
                Some(Outcome::Written(offset)) => println!("zombie: written {number} {}", offset.0),
                Some(Outcome::Refused(Refusal::Fenced)) => println!("zombie: fenced {number}"),
                Some(Outcome::Refused(_)) => println!("zombie: refused {number}"),
                Some(Outcome::Unknown) => println!("zombie: unknown {number}"),
            }
        }
        println!("zombie: end");
    });
}
