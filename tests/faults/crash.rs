//! Every durable step of QoS 2, and a node that dies right before it, in it or right after it. Its client goes on at
//! another node in each way that MQTT allows. Each such cell ends the same: the message is in Kafka once, a subscriber
//! of QoS 2 got it once, the exchange is complete, its packet id is free for another message, and nothing is left.
//!
//! The nodes are processes of their own on a real Kafka. They are not told where to die: the way to Kafka
//! ([`gate::Gate`]) knows the records that go by and kills the node that sent one, before Kafka sees it, while it is on
//! its way, or when Kafka has answered. So what is tried is the program as it is released, without code for tests, and
//! the node cannot know more of its end than a killed one knows. A crash after the answer was sent to the client is one
//! where the client forgets what it read, or does not.

mod cell;
mod client;
mod gate;
#[path = "../broker/packets.rs"]
#[expect(dead_code, reason = "shared with another test program, which needs more of it")]
mod packets;
mod play;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use self::cell::{Cell, Way, every_cell};
use self::gate::Gate;
use self::play::{Ground, Played, play};
use crate::cluster::{Cluster, ONE, Setup, is_wanted};
use crate::nodes::fleet::Fleet;
use crate::nodes::history::Recorder;
use crate::stage::{comes, log_if_wanted, runtime};
use crate::table::Row;

/// Nodes that live on; the others die, one for each cell that is played at the same time.
const SURVIVORS: usize = 2;
const MESSAGES: &str = "crash.messages";
const PARTITIONS: u32 = 3;
const LOOK: Duration = Duration::from_millis(100);

/// Plays cells, as many at a time as `at_a_time`, prints a row for each step and point, and fails if one went wrong.
fn run(name: &str, cells: &[Cell], at_a_time: usize) {
    if !is_wanted(name) {
        return;
    }
    log_if_wanted();
    let gate = Arc::new(Gate::start());
    let cluster = Cluster::start(Setup { advertised_port: Some(gate.port), ..ONE });
    gate.lead_to(&cluster.bootstrap[0]);
    let runtime = runtime();
    let _inside = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::create(&folder.path().join("history.txt")));
    let fleet = Fleet::new(folder.path(), SURVIVORS + at_a_time, &settings(gate.port), recorder);
    fleet.tool(&["topics", "apply"]);
    let mut results: BTreeMap<Cell, Result<(), String>> = BTreeMap::new();
    for batch in cells.chunks(at_a_time) {
        let nodes = 0..SURVIVORS + batch.len();
        nodes.clone().for_each(|node| fleet.start(node));
        for node in nodes {
            let is_ready = runtime.block_on(comes(async || {
                sleep(LOOK).await;
                fleet.is_ready(node).await
            }));
            assert!(is_ready, "hangs: node {node} does not become ready");
        }
        let mut played: Vec<(Cell, Result<Played, String>)> = Vec::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0_usize..)
                .zip(batch)
                .map(|(place, &cell)| {
                    let ground = Ground::new(&fleet, &gate, SURVIVORS + place, format!("{}", results.len() + place));
                    (cell, scope.spawn(move || play(cell, &ground)))
                })
                .collect();
            for (cell, thread) in threads {
                played.push((cell, thread.join().unwrap_or_else(|_| Err("it panicked, see above".to_owned()))));
            }
        });
        let log = runtime.block_on(play::read_log(&cluster.bootstrap, MESSAGES, PARTITIONS));
        for (cell, played) in played {
            let judged = played.and_then(|played| played.judge(&log));
            println!("{cell}: {}", judged.as_ref().map_or_else(String::as_str, |()| "good"));
            results.insert(cell, judged);
        }
    }
    let wrong: Vec<String> = results
        .iter()
        .filter_map(|(cell, result)| Some(format!("{cell}: {}", result.as_ref().err()?)))
        .chain(fleet.complaints())
        .collect();
    rows(&results, &cluster.version);
    if !wrong.is_empty() || std::env::var_os("MILLRACE_FAULTS_KEEP").is_some() {
        println!("kept: {}", folder.keep().display());
    }
    assert!(wrong.is_empty(), "{} of {} cells are wrong:\n{}", wrong.len(), results.len(), wrong.join("\n"));
}

/// One line for each step and point, one column for each way.
fn rows(results: &BTreeMap<Cell, Result<(), String>>, kafka: &str) {
    let mut lines: BTreeMap<_, BTreeMap<Way, Vec<bool>>> = BTreeMap::new();
    for (cell, result) in results {
        let ways = lines.entry((cell.step, cell.point)).or_default();
        ways.entry(cell.way).or_default().push(result.is_ok());
    }
    for ((step, point), ways) in lines {
        let column = |way: &Way| match ways.get(way) {
            None => "–".to_owned(),
            Some(good) if good.iter().all(|good| *good) => format!("{} × once", good.len()),
            Some(good) => format!("**{} of {} wrong**", good.iter().filter(|good| !**good).count(), good.len()),
        };
        let columns: Vec<String> = Way::ALL.iter().map(column).collect();
        Row { fault: format!("{step}: {point}"), kafka: kafka.to_owned(), result: columns.join(" | ") }.publish();
    }
}

fn settings(port: u16) -> String {
    format!(
        "auth.anonymous = true\nkafka.bootstrap = [\"127.0.0.1:{port}\"]\nmapping.default_topic = \"{MESSAGES}\"\n\
         topics.replication_factor = 1\ntopics.min_insync_replicas = 1\ntopics.messages.partitions = {PARTITIONS}\n\
         topics.retained.name = \"crash.retained\"\ntopics.retained.partitions = {PARTITIONS}\n\
         topics.sessions.name = \"crash.sessions\"\ntopics.sessions.partitions = {PARTITIONS}\n\
         topics.cluster.name = \"crash.cluster\"\nshutdown.accept_grace = \"0s\"\nlog.level = \"{level}\"\n",
        level = std::env::var("MILLRACE_FAULTS_NODE_LOG").unwrap_or_else(|_| "info".to_owned()),
    )
}

#[test]
fn qos_2_is_exactly_once_when_a_node_dies_at_a_durable_step() {
    let few: Vec<Cell> = every_cell().into_iter().filter(|cell| cell.is_of_the_few()).collect();
    run("a node dies at each durable step of QoS 2", &few, 12);
}

#[test]
#[ignore = "takes minutes"]
fn qos_2_is_exactly_once_in_every_cell_of_the_matrix() {
    let wanted = std::env::var("MILLRACE_FAULTS_CELLS").unwrap_or_default();
    let cells: Vec<Cell> = every_cell().into_iter().filter(|cell| cell.to_string().contains(&wanted)).collect();
    run("every cell of the crash matrix", &cells, 16);
}
