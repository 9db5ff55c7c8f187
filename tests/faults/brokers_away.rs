//! A node with many clients while Kafka is away: nobody is disconnected, nothing acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace::clock;
use millrace::config::{self, Config, Flag, Preset, Sources};
use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{Isolation, Journal, Offset};
use millrace::ops::shutdown::Shutdown;
use millrace::server;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::broker::{Client, Record, Role};
use crate::cluster::{Cluster, ONE, is_wanted};
use crate::ledger::Ledger;
use crate::load::partition;
use crate::stage::{comes, log_if_wanted, runtime, wait};
use crate::table::{Row, seconds};

const PAIRS: usize = 110;
const PARTITIONS: u32 = 8;
const TOPIC: &str = "faults.messages";
const CALM: Duration = Duration::from_secs(3);
/// More than the node takes of one client: it reads no more from this one until Kafka is back.
const GREEDY: usize = 100;
const MODEST: usize = 16;

#[test]
fn clients_stay_when_kafka_is_killed_and_started() {
    run("Kafka killed, then started", async |cluster| {
        cluster.kill(1);
        sleep(Duration::from_secs(2)).await;
        cluster.restart(1);
    });
}

#[test]
#[ignore = "takes more than 30 s"]
fn clients_stay_when_kafka_is_stopped_and_started() {
    run("Kafka stopped (SIGTERM), started 15 s later", async |cluster| {
        cluster.stop();
        sleep(Duration::from_secs(15)).await;
        cluster.start_again();
    });
}

#[test]
#[ignore = "takes more than 40 s"]
fn clients_stay_when_kafka_is_paused_for_40_s() {
    run("Kafka paused 40 s", async |cluster| {
        cluster.pause(1);
        sleep(Duration::from_secs(40)).await;
        cluster.resume(1);
    });
}

#[test]
#[ignore = "takes more than 90 s"]
fn clients_stay_when_kafka_is_away_longer_than_their_keep_alive() {
    run("Kafka killed, started 100 s later", async |cluster| {
        cluster.kill(1);
        sleep(Duration::from_secs(100)).await;
        cluster.restart(1);
    });
}

#[test]
#[ignore = "takes more than 150 s"]
fn clients_stay_when_kafka_is_away_for_minutes() {
    run("Kafka killed, started 150 s later", async |cluster| {
        cluster.kill(1);
        sleep(Duration::from_secs(150)).await;
        cluster.restart(1);
    });
}

#[test]
#[ignore = "longer than an append deadline of 2 minutes"]
fn subscribers_stay_when_kafka_is_away_longer_than_appends_wait() {
    // Whether a message got into the log is not known then: a publisher is told so by the end of its connection.
    run_with(Stay::Subscribers, "Kafka killed, started 150 s later, append_deadline 2 min", async |cluster| {
        cluster.kill(1);
        sleep(Duration::from_secs(150)).await;
        cluster.restart(1);
    });
}

/// Whose connections must not be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    All,
    Subscribers,
}

fn run(fault: &str, cause: impl AsyncFnOnce(&mut Cluster)) {
    run_with(Stay::All, fault, cause);
}

fn run_with(stay: Stay, fault: &str, cause: impl AsyncFnOnce(&mut Cluster)) {
    if !is_wanted(fault) {
        return;
    }
    log_if_wanted();
    let mut cluster = Cluster::start(ONE);
    let node = Node::start(&cluster, stay);
    let clients_runtime = runtime();
    let wrong = clients_runtime.block_on(async {
        let (publishing, until) = watch::channel(false);
        let clients = start_clients(&node, &until);
        wait("all clients to be served", async || clients.iter().all(|client| client.record().ready)).await;
        // A message sent before its subscriber has its SUBACK need not reach it.
        publishing.send_replace(true);
        sleep(CALM).await;
        cause(&mut cluster).await;
        let over = clock::now();
        let recovery = recovered(stay, &clients, over).await;
        sleep(CALM).await;
        publishing.send_replace(false);
        // What is missing is told below.
        comes(async || {
            let records = Records::of(stay, &clients);
            records.closed() > 0 || records.is_complete()
        })
        .await;
        let log = read_log(&cluster).await;
        Records::of(stay, &clients).judge(fault, &cluster.version, &log, recovery)
    });
    drop(node);
    assert!(wrong.is_empty(), "{fault}: {wrong:#?}");
}

fn start_clients(node: &Node, publishing: &watch::Receiver<bool>) -> Vec<Client> {
    let pairs = (0..PAIRS).flat_map(|number| {
        let window = if number % 5 == 0 { GREEDY } else { MODEST };
        [(number, Role::Subscriber), (number, Role::Publisher { window })]
    });
    pairs.map(|(number, role)| Client::start(node.mqtt, role, number, publishing.clone())).collect()
}

/// Until each publisher that is still there has one acknowledgement more than when Kafka was back.
async fn recovered(stay: Stay, clients: &[Client], over: Instant) -> Duration {
    let acked = |client: &Client| client.record().acked.len();
    let before: Vec<usize> = clients.iter().map(acked).collect();
    wait("each publisher to be acknowledged again", async || {
        let records = Records::of(stay, clients);
        let mut now = clients.iter().zip(&before);
        records.closed() > 0
            || now.all(|(client, before)| {
                client.role == Role::Subscriber || client.record().closed.is_some() || acked(client) > *before
            })
    })
    .await;
    over.elapsed()
}

/// A node in this process; it ends with its value.
struct Node {
    mqtt: std::net::SocketAddr,
    shutdown: Shutdown,
    runtime: Option<Runtime>,
}

impl Node {
    fn start(cluster: &Cluster, stay: Stay) -> Self {
        let runtime = runtime();
        let shutdown = Shutdown::new();
        let server = runtime.block_on(server::start(configuration(cluster, stay), shutdown.clone())).unwrap();
        let mqtt = server.mqtt[0];
        runtime.spawn(server.run());
        Self { mqtt, shutdown, runtime: Some(runtime) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn configuration(cluster: &Cluster, stay: Stay) -> Config {
    let append_deadline = match stay {
        Stay::All => "1h",
        Stay::Subscribers => "2m",
    };
    let partitions = PARTITIONS.to_string();
    let bootstrap = cluster.bootstrap.join(",");
    let settings = [
        ("listen.mqtt", "127.0.0.1:0"),
        ("ops.address", "127.0.0.1:0"),
        ("journal.kind", "kafka"),
        ("kafka.bootstrap", bootstrap.as_str()),
        ("topics.messages.partitions", partitions.as_str()),
        ("kafka.append_deadline", append_deadline),
        ("mapping.default_topic", TOPIC),
    ];
    let flags =
        settings.map(|(key, value)| Flag { flag: key.to_owned(), key: key.to_owned(), value: value.to_owned() });
    let sources = Sources { preset: Preset::Dev, flags: flags.into(), ..Sources::default() };
    config::load(&sources).unwrap_or_else(|errors| panic!("{errors}")).config
}

/// Numbers of the messages in the log, by MQTT topic, in order.
type Log = BTreeMap<String, Vec<u64>>;

async fn read_log(cluster: &Cluster) -> Log {
    let options = KafkaOptions::new(cluster.bootstrap.clone());
    let journal = KafkaJournal::open(options, vec![TOPIC.to_owned()], Arc::new(Ledger::default())).await.unwrap();
    let mut log = Log::new();
    for number in 0..PARTITIONS {
        let mut next = Offset(0);
        loop {
            let answer = journal.read(partition(number), next, 4 << 20, Isolation::ReadUncommitted).await.unwrap();
            for record in answer.batches.iter().flat_map(|batch| batch.iter()) {
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                log.entry(text(record.key)).or_default().push(text(record.value()).parse().unwrap());
            }
            next = answer.next;
            if next >= answer.ends.high_watermark {
                break;
            }
        }
    }
    log
}

/// What the clients have seen.
struct Records {
    stay: Stay,
    publishers: BTreeMap<String, Record>,
    subscribers: BTreeMap<String, Record>,
}

impl Records {
    fn of(stay: Stay, clients: &[Client]) -> Self {
        let of = |wanted: bool| {
            let chosen = clients.iter().filter(|client| (client.role == Role::Subscriber) == wanted);
            chosen.map(|client| (client.topic.clone(), client.record())).collect()
        };
        Self { stay, publishers: of(false), subscribers: of(true) }
    }

    fn all(&self) -> impl Iterator<Item = (&String, &Record)> {
        self.publishers.iter().chain(&self.subscribers)
    }

    /// Of those that must stay.
    fn closed(&self) -> usize {
        let closed = |records: &BTreeMap<_, Record>| records.values().filter(|record| record.closed.is_some()).count();
        let publishers = if self.stay == Stay::All { closed(&self.publishers) } else { 0 };
        publishers + closed(&self.subscribers)
    }

    fn is_complete(&self) -> bool {
        self.publishers.iter().all(|(topic, publisher)| {
            let received: BTreeSet<u64> = self.subscribers[topic].received.iter().copied().collect();
            (publisher.open() == 0 || publisher.closed.is_some())
                && publisher.acked.iter().all(|number| received.contains(number))
        })
    }

    fn judge(&self, fault: &str, kafka: &str, log: &Log, recovery: Duration) -> Vec<String> {
        let mut wrong = Vec::new();
        let (mut acked, mut lost, mut duplicates) = (0, 0, 0);
        for (topic, publisher) in &self.publishers {
            let logged = log.get(topic).map_or(&[][..], Vec::as_slice);
            let received = &self.subscribers[topic].received;
            acked += publisher.acked.len();
            if publisher.open() > 0 && publisher.closed.is_none() {
                let next = publisher.acked.len() as u64;
                let (open, logged) = (publisher.open(), logged.contains(&next));
                wrong.push(format!("{topic}: no PUBACK of {next} and the {open} from there on; in the log: {logged}"));
            }
            for number in &publisher.acked {
                if !logged.contains(number) || !received.contains(number) {
                    lost += 1;
                    let (logged, received) = (logged.contains(number), received.contains(number));
                    wrong.push(format!(
                        "{topic}: {number} was acknowledged; in the log: {logged}, received: {received}"
                    ));
                }
            }
            if !logged.is_sorted() || !received.is_sorted() {
                wrong.push(format!("{topic}: not in order: log {logged:?}, received {received:?}"));
            }
            duplicates += received.len() - received.iter().collect::<BTreeSet<_>>().len();
        }
        let closed: Vec<_> = self.all().filter_map(|(topic, record)| Some((topic, record.closed.as_ref()?))).collect();
        if self.closed() > 0 {
            wrong.extend(closed.iter().take(5).map(|(topic, why)| format!("the connection of {topic}: {why}")));
        }
        let sent: u64 = self.publishers.values().map(|record| record.sent).sum();
        let pings: u64 = self.all().map(|(_, record)| record.pings_answered).sum();
        let result = format!(
            "{} | {} | {sent} | {acked} | {lost} | {duplicates} | {pings} | {}",
            self.all().count(),
            closed.len(),
            seconds(recovery),
        );
        Row { fault: fault.to_owned(), kafka: kafka.to_owned(), result }.publish();
        wrong
    }
}
