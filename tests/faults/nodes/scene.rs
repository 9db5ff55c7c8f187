//! A whole run: Kafka, nodes, load balancer and clients, what is done to them, and the comparison at the end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace::clock;
use millrace::ops::tasks;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::sleep;

use super::balancer::Balancer;
use super::cast::{Cast, Death, Dying, Part, Role};
use super::check::{Due, Figures, Run, check, figures, missing, percentile, wills_due};
use super::client::{Client, Phase, World};
use super::fleet::{Fleet, free_address};
use super::history::{Act, Deed, Recorder, What};
use super::log::read;
use crate::cluster::Cluster;
use crate::stage::log_if_wanted;

pub const NODES: usize = 3;
pub const MESSAGES: &str = "faults.messages";
pub const SESSIONS: &str = "faults.sessions";
const CLUSTER: &str = "faults.cluster";
const RETAINED: &str = "faults.retained";
const PARTITIONS: u32 = 6;
/// What has not come by then hangs; `MILLRACE_FAULTS_HANGS_S` says otherwise.
const HANGS_S: u64 = 240;
const LOOK: Duration = Duration::from_millis(250);
const MORTAL_EVERY: Duration = Duration::from_millis(700);
/// Violations that are printed; the file has the rest.
const PRINTED_MAX: usize = 40;

/// What came of a run.
pub struct Outcome {
    pub wrong: Vec<String>,
    pub figures: Figures,
}

pub struct Scene {
    pub cluster: Cluster,
    pub fleet: Arc<Fleet>,
    pub balancer: Balancer,
    pub recorder: Arc<Recorder>,
    pub random: StdRng,
    folder: Option<TempDir>,
    phase: watch::Sender<Phase>,
    cuts: watch::Sender<u64>,
    world: World,
    troupe: Arc<Troupe>,
}

/// The clients, who come during the run, too.
struct Troupe {
    cast: Mutex<Cast>,
    clients: Mutex<Vec<Client>>,
    mortals: AtomicUsize,
}

impl Troupe {
    fn join(&self, part: Part, world: &World) {
        let mut cast = self.cast.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = Client::start(clients.len(), part.clone(), world.clone());
        clients.push(client);
        cast.clients.push(part);
    }

    fn all(&self, question: impl Fn(&Client) -> bool) -> bool {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).iter().all(question)
    }

    fn cast(&self) -> Cast {
        self.cast.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Scene {
    /// Everything runs and every client is there; nobody publishes yet.
    pub async fn open(cluster: Cluster, cast: Cast, seed: u64) -> Self {
        log_if_wanted();
        let folder = tempfile::tempdir().unwrap();
        println!("seed {seed}, history and logs in {}", folder.path().display());
        let recorder = Arc::new(Recorder::create(&history_file(folder.path())));
        let fleet = Fleet::new(folder.path(), NODES, &settings(&cluster), Arc::clone(&recorder));
        fleet.tool(&["topics", "apply"]);
        let balancer = Balancer::start(folder.path(), free_address(), &fleet.nodes);
        fleet.keep(balancer.process_id());
        for node in 0..NODES {
            fleet.start(node);
        }
        let (phase, phase_seen) = watch::channel(Phase::Gathering);
        let (cuts, cuts_seen) = watch::channel(0);
        let (address, shared) = (balancer.address, Arc::clone(&recorder));
        let world = World { balancer: address, recorder: shared, phase: phase_seen, cuts: cuts_seen, seed };
        let troupe = Troupe { cast: Mutex::default(), clients: Mutex::default(), mortals: AtomicUsize::new(0) };
        let troupe = Arc::new(troupe);
        let random = StdRng::seed_from_u64(seed);
        let scene =
            Self { cluster, fleet, balancer, recorder, random, folder: Some(folder), phase, cuts, world, troupe };
        for node in 0..NODES {
            scene.wait_ready(node).await;
        }
        for part in cast.clients {
            scene.troupe.join(part, &scene.world);
        }
        scene
    }

    /// Waits until every client is subscribed, and lets publishers begin.
    pub async fn begin(&self) {
        self.wait("all clients to be there", async || self.troupe.all(Client::is_ready)).await;
        self.phase.send_replace(Phase::Publishing);
        tasks::spawn("mortals", mortals(Arc::clone(&self.troupe), self.world.clone()));
    }

    // ---- what is done

    pub async fn kill_and_start(&mut self, node: usize, down: Duration) {
        self.fleet.kill(node);
        sleep(down).await;
        self.fleet.start(node);
    }

    pub async fn wait_ready(&self, node: usize) {
        self.wait(&format!("node {node} to be ready"), async || self.fleet.is_ready(node).await).await;
        self.recorder.deed(Deed::Ready(node));
    }

    pub async fn wait_all_ready(&self) {
        for node in 0..NODES {
            self.wait_ready(node).await;
        }
    }

    /// Clients cut their connections, one in three.
    pub fn cut_clients(&self) {
        self.note("clients cut their connections");
        self.cuts.send_modify(|count| *count += 1);
    }

    /// The load balancer cuts all connections to a node.
    pub fn cut_node(&self, node: usize) {
        self.note(&format!("the balancer cuts node {node} off"));
        self.balancer.cut(node);
    }

    pub fn note(&self, what: &str) {
        println!("{:>9.3} s  {what}", Duration::from_micros(self.recorder.now_us()).as_secs_f64());
        self.recorder.deed(Deed::Note(what.to_owned()));
    }

    pub fn kafka_hurt(&self, what: &str) {
        self.note(what);
        self.recorder.deed(Deed::KafkaHurt(what.to_owned()));
    }

    pub fn any_node(&mut self) -> usize {
        self.random.random_range(0..NODES)
    }

    pub fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    /// Waits until every publisher has an acknowledgement, and every subscriber a message, from now on.
    pub async fn wait_all_served(&self, when: &str) {
        let since_us = self.recorder.now_us();
        let cast = self.troupe.cast();
        self.wait(&format!("everybody to be served {when}"), async || {
            let served = self.recorder.look(|events| {
                let mut served = std::collections::BTreeSet::new();
                for event in events.iter().rev().take_while(|event| event.at_us > since_us) {
                    if let What::Client(client, Act::Acked { .. } | Act::Received { .. }) = &event.what {
                        served.insert(*client);
                    }
                }
                served
            });
            let active =
                cast.publishers().map(|(client, _)| client).chain(cast.subscribers().map(|(client, _)| client));
            active.into_iter().all(|client| served.contains(&client))
        })
        .await;
        println!("           everybody is served {when} after {:.1} s", self.seconds_since(since_us));
    }

    // ---- the end

    /// Publishers stop, everything that is owed is waited for, everybody leaves; then the comparison.
    pub async fn end(mut self) -> Outcome {
        self.note("the end begins");
        self.phase.send_replace(Phase::Quiet);
        let mut wrong = Vec::new();
        if !self.comes(async || self.troupe.all(Client::is_idle)).await {
            wrong.push(format!("hangs: publishers were not answered for {:?}", hangs()));
        }
        if !self.everything_comes().await {
            wrong.push(format!("hangs: what is missing below did not come for {:?}", hangs()));
        }
        self.phase.send_replace(Phase::Over);
        if !self.comes(async || self.troupe.all(Client::has_left)).await {
            wrong.push("hangs: clients did not end".to_owned());
        }
        if !wrong.is_empty() {
            self.fleet.keep_pages().await;
        }
        let (cast, events) = (self.troupe.cast(), self.recorder.events());
        let log = read(&self.cluster.bootstrap, MESSAGES, PARTITIONS).await.unwrap();
        let run = Run { cast: &cast, events: &events, log: &log };
        wrong.extend(check(run));
        wrong.extend(self.fleet.complaints());
        let figures = figures(run);
        self.report(&wrong, &figures);
        Outcome { wrong, figures }
    }

    /// Waits for everything as long as anything comes: a slow subscriber may have much to catch up with.
    async fn everything_comes(&self) -> bool {
        let is_message = |what: &What| matches!(what, What::Client(_, Act::Received { .. }));
        let received = || self.recorder.look(|events| events.iter().filter(|event| is_message(&event.what)).count());
        let (mut known, mut deadline) = (received(), clock::now() + hangs());
        while !self.is_everything_there().await {
            let now_known = received();
            if now_known > known {
                (known, deadline) = (now_known, clock::now() + hangs());
            } else if clock::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// Whether every message reached its subscribers and every will that is due Kafka.
    async fn is_everything_there(&self) -> bool {
        let Ok(log) = read(&self.cluster.bootstrap, MESSAGES, PARTITIONS).await else { return false };
        let (cast, events) = (self.troupe.cast(), self.recorder.events());
        let run = Run { cast: &cast, events: &events, log: &log };
        let is_there = |(client, due)| due != Due::Once || log.wills.contains_key(&client);
        missing(run).is_empty() && wills_due(run).into_iter().all(is_there)
    }

    fn report(&mut self, wrong: &[String], figures: &Figures) {
        println!("{}", summary(figures));
        if wrong.is_empty() && std::env::var_os("MILLRACE_FAULTS_KEEP").is_none() {
            return;
        }
        let folder = self.folder.take().unwrap().keep();
        let _ = std::fs::write(folder.join("wrong.txt"), wrong.join("\n"));
        println!("kept: {}", folder.display());
        for sentence in wrong.iter().take(PRINTED_MAX) {
            println!("WRONG: {sentence}");
        }
        println!("{} sentences about what is wrong", wrong.len());
    }

    fn seconds_since(&self, since_us: u64) -> f64 {
        Duration::from_micros(self.recorder.now_us() - since_us).as_secs_f64()
    }

    async fn wait(&self, what: &str, has_come: impl AsyncFnMut() -> bool) {
        if !self.comes(has_come).await {
            // Whoever looks for the reason needs the files, and all that was noted in them.
            let _ = self.recorder.events();
            self.fleet.keep_pages().await;
            let folder = self.folder.as_ref().unwrap().path();
            let copy = std::env::temp_dir().join(format!("millrace-hang-{}", std::process::id()));
            let _ = std::process::Command::new("cp").arg("-r").arg(folder).arg(&copy).status();
            panic!("hangs: waited {:?} for {what}; history and logs: {}", hangs(), copy.display());
        }
    }

    async fn comes(&self, mut has_come: impl AsyncFnMut() -> bool) -> bool {
        let deadline = clock::now() + hangs();
        while !has_come().await {
            if clock::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }
}

fn hangs() -> Duration {
    let given = std::env::var("MILLRACE_FAULTS_HANGS_S").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(HANGS_S))
}

/// Clients with wills, one after the other, as long as there is publishing.
async fn mortals(troupe: Arc<Troupe>, world: World) {
    let mut random = StdRng::seed_from_u64(world.seed);
    while *world.phase.borrow() == Phase::Publishing {
        let number = troupe.mortals.fetch_add(1, Ordering::Relaxed);
        let death = match number % 4 {
            0 => Death::Peaceful,
            1 => Death::Waits,
            _ => Death::Cut,
        };
        let (delay_s, after_ms) = (random.random_range(0..3), random.random_range(300..5_000));
        let role = Role::Mortal(Dying { delay_s, death, after_ms });
        troupe.join(super::part(format!("mortal-{number}"), number, role), &world);
        sleep(MORTAL_EVERY).await;
    }
}

fn settings(cluster: &Cluster) -> String {
    let bootstrap: Vec<String> = cluster.bootstrap.iter().map(|address| format!("\"{address}\"")).collect();
    let (copies, in_sync) = if cluster.setup.nodes >= 3 { (3, 2) } else { (1, 1) };
    format!(
        "auth.anonymous = true\nkafka.bootstrap = [{bootstrap}]\nmapping.default_topic = \"{MESSAGES}\"\n\
         topics.replication_factor = {copies}\ntopics.min_insync_replicas = {in_sync}\n\
         topics.messages.partitions = {PARTITIONS}\n\
         topics.retained.name = \"{RETAINED}\"\ntopics.retained.partitions = {PARTITIONS}\n\
         topics.sessions.name = \"{SESSIONS}\"\ntopics.sessions.partitions = {PARTITIONS}\n\
         topics.cluster.name = \"{CLUSTER}\"\nshutdown.accept_grace = \"0s\"\nlog.level = \"{level}\"\n",
        bootstrap = bootstrap.join(", "),
        level = std::env::var("MILLRACE_FAULTS_NODE_LOG").unwrap_or_else(|_| "info".to_owned()),
    )
}

/// The figures as a line of the table.
pub fn summary(figures: &Figures) -> String {
    let wills = |due| figures.wills.get(&due).copied().unwrap_or(0);
    let ms = |us: u64| us / 1000;
    format!(
        "{} kills, {} exits | {} connections lost, {} resumed | {} + {} acked (QoS 1 + 2), {} + {} delivered | \
         repeats at QoS 1: {} in Kafka, {} on the way | wills: {} due once, {} never, {} open | \
         CONNECT of a resume p50 {} ms, p99 {} ms, most {} ms; away p50 {} ms, p99 {} ms",
        figures.kills,
        figures.exits,
        figures.lost_connections,
        figures.resumed,
        figures.acked[1],
        figures.acked[2],
        figures.received[1],
        figures.received[2],
        figures.repeated_in_log,
        figures.repeated_on_the_way,
        wills(Due::Once),
        wills(Due::Never),
        wills(Due::AtMostOnce),
        ms(percentile(&figures.resume_us, 50)),
        ms(percentile(&figures.resume_us, 99)),
        ms(percentile(&figures.resume_us, 100)),
        ms(percentile(&figures.away_us, 50)),
        ms(percentile(&figures.away_us, 99)),
    )
}

fn history_file(folder: &Path) -> PathBuf {
    folder.join("history.txt")
}
