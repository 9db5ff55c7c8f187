//! One run: a seed in, a verdict and a digest out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace::clock;
use millrace::journal::memory::{FaultPlan, Limits, SharedLog};
use millrace::ledger::rules::Rules;
use millrace::ops::tasks;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::adversary::Adversary;
use crate::checks::{self, Findings};
use crate::client::orders::Orders;
use crate::client::{Client, Phase, Status};
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::history::{Digest, Event, History};
use crate::log_view::LogView;
use crate::plan::{Ending, Features, Plan};
use crate::scenes::Scene;
use crate::scenes::stage::Stage;

/// Wall time of the start of every run.
pub(crate) const STARTED_MS: i64 = 1_700_000_000_000;
/// Once the faults are over, everything must come to rest within this time.
const REST_LIMIT_MS: u64 = 400_000;
/// After this time tombstones are removed by compaction (`cluster` says so).
const TOMBSTONES_GONE: Duration = Duration::from_secs(330);
/// Events shown of a run that failed.
const EVENTS_SHOWN: usize = 60;

/// The kafka topic of messages.
pub(crate) const MESSAGES: &str = "mqtt.messages";

/// What a run left.
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) history: History,
    pub(crate) log: LogView,
    pub(crate) findings: Findings,
    pub(crate) simulated_ms: u64,
}

impl Outcome {
    /// What two runs of a seed must have in common.
    pub(crate) fn digest(&self) -> (Digest, Digest) {
        (Digest::of_history(&self.history), self.log.digest)
    }

    /// Panics with everything that is needed to look into it, if anything was found.
    pub(crate) fn expect_right(&self) {
        if self.findings.is_empty() {
            return;
        }
        let shown = std::env::var("SIM_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(EVENTS_SHOWN);
        panic!(
            "seed {} fails (make sim SEED={}{} shows it again)\n{}\n\nplan: {:?}\nevents: {:?}\nthe last events:\n{}",
            self.plan.seed,
            self.plan.seed,
            self.plan.scene.map(|scene| format!(" SIM_SCENE={}", scene.name)).unwrap_or_default(),
            self.findings,
            self.plan,
            self.history.counts(),
            self.history.tail(shown),
        );
    }
}

/// Plays a seed.
pub(crate) fn play(seed: u64, features: Features) -> Outcome {
    play_with(seed, features, Rules::ALL)
}

/// Plays a seed with nodes that keep only these rules.
pub(crate) fn play_with(seed: u64, features: Features, rules: Rules) -> Outcome {
    run(Plan { rules, ..Plan::draw(seed, features) })
}

/// Plays a seed of a scene with nodes that keep only these rules.
pub(crate) fn play_scene(seed: u64, scene: &'static Scene, rules: Rules) -> Outcome {
    run(Plan { rules, ..Plan::of_scene(seed, scene) })
}

fn run(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play_plan(plan))
}

async fn play_plan(plan: Plan) -> Outcome {
    clock::simulate_wall(STARTED_MS);
    let panics = tasks::panics();
    let mut dice = Dice::new(plan.seed ^ 0x5eed);
    let log = SharedLog::new(plan.faults, Limits::default());
    let cluster = Cluster::new(&plan, log.clone());
    let (phase, phases) = watch::channel(Phase::Busy);
    let mut statuses = Vec::new();
    let mut clients = Vec::new();
    let mut orders = Vec::new();
    let mut adversary = Adversary::new(&cluster, &plan, dice.fork());
    for index in 0..plan.clients {
        let status = Arc::new(Mutex::new(Status::default()));
        statuses.push(Arc::clone(&status));
        let told = plan.scene.map(|_| Orders::default());
        orders.extend(told.clone());
        let client = Client::new(index, &cluster, &plan, dice.fork(), phases.clone(), status, told);
        clients.push(tasks::spawn("client", client.live()));
    }
    if let Some(scene) = plan.scene {
        let statuses = statuses.clone();
        Stage::new(&cluster, &mut adversary, dice.fork(), orders, statuses).play(scene).await;
    } else {
        adversary.run(plan.active_ms).await;
    }
    log.with(|log| log.set_faults(FaultPlan::default()));
    phase.send_replace(Phase::Draining);
    cluster.record(Event::Phase("the faults are over"));
    let mut is_at_rest = come_to_rest(&cluster, &plan, &mut adversary, &statuses).await;
    if plan.features.persistent && is_at_rest {
        // Everything must be in the log: nodes that know nothing, or clients that come back, go on from there.
        let drawn = match dice.between(0, 4) {
            0 => Ending::Compacted,
            1 | 2 => Ending::Replaced,
            _ => Ending::Returned,
        };
        match plan.ending.unwrap_or(drawn) {
            Ending::Compacted => {
                sleep(TOMBSTONES_GONE).await;
                adversary.compact_all();
                adversary.replace_all();
            }
            Ending::Replaced => adversary.replace_all(),
            Ending::Returned => {
                phase.send_replace(Phase::Returning);
            }
        }
        cluster.record(Event::Phase("all come back"));
        is_at_rest = come_to_rest(&cluster, &plan, &mut adversary, &statuses).await;
    }
    let mut findings = Findings::default();
    if !is_at_rest {
        let open = statuses.iter().map(|status| format!("{:?}", status.lock().unwrap())).collect::<Vec<_>>().join("\n");
        findings.add("rest", format!("the run did not come to rest within {REST_LIMIT_MS} ms; clients:\n{open}"));
    }
    let probed = checks::probe::probe(&cluster, &plan).await;
    for client in clients {
        client.abort();
    }
    let simulated_ms = cluster.now_ms();
    cluster.close();
    let view = LogView::read(&log, MESSAGES, &["mqtt.retained", "mqtt.sessions", "mqtt.cluster"].map(str::to_owned));
    let history = std::mem::take(&mut *cluster.history());
    if tasks::panics() != panics {
        findings.add("panic", "a task panicked".to_owned());
    }
    checks::check(&plan, &history, &view, &probed, is_at_rest, &mut findings);
    Outcome { plan, history, log: view, findings, simulated_ms }
}

/// Waits until all clients are connected, have nothing on their way, and nothing happens any more.
async fn come_to_rest(
    cluster: &Arc<Cluster>,
    plan: &Plan,
    adversary: &mut Adversary,
    statuses: &[Arc<Mutex<Status>>],
) -> bool {
    let begun_ms = cluster.now_ms();
    let mut quiet_since_ms = begun_ms;
    let mut seen = 0;
    loop {
        sleep(Duration::from_millis(500)).await;
        adversary.look();
        let now_ms = cluster.now_ms();
        let all_settled = statuses.iter().all(|status| {
            let status = status.lock().unwrap();
            status.is_connected && status.is_settled
        });
        let events = cluster.history().entries.len();
        if events != seen || !all_settled {
            seen = events;
            quiet_since_ms = now_ms;
        }
        if now_ms - quiet_since_ms >= plan.quiet_ms {
            return true;
        }
        if now_ms - begun_ms > REST_LIMIT_MS {
            return false;
        }
    }
}
