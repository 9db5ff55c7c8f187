//! The steward as a value: records, outcomes and wishes in, effects out. No task, no clock, no socket.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::commands::Command;
use super::effect::{Effect, Input, Log};
use super::marks::Marks;
use super::owned::{Awaited, Owned, Stage};
use crate::journal::{Outcome, Partition, Refusal};
use crate::ledger::claim::{Decision, Event};
use crate::ledger::ids::{Incarnation, Nonce, Origin};
use crate::ledger::members::{Members, Patience};
use crate::ledger::record::{self, ClientKey, Slot};
use crate::ledger::rules::{Rule, Rules};
use crate::ledger::sessions::{Applied, Sessions};
use crate::ledger::state::SessionState;
use crate::mqtt::ReasonCode;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::Notice;

/// Times and bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Between two heartbeats.
    pub heartbeat_ms: i64,
    /// When another node is taken for dead.
    pub patience: Patience,
    /// A node whose last acknowledged heartbeat is older than this suspends.
    pub suspend_after_ms: i64,
    /// A node that stood still for longer ends its process: Kafka may have removed tombstones that it did not read, and
    /// forgotten fences (F9).
    pub stood_still_ms_max: i64,
    /// A node that has to read the state logs again sends heartbeats for so long meanwhile.
    pub replaying_ms_max: i64,
    /// A CONNECT waits so long for its claim.
    pub claim_ms_max: i64,
    /// A record whose fate is open for so long ends its connection.
    pub open_ms_max: i64,
    /// Claims of absent sessions under way at once.
    pub keeping_max: usize,
    /// Tombstones of one tick.
    pub tombstones_max: usize,
    /// Between two watermarks of QoS 2 tokens.
    pub tokens_ms: i64,
    /// How often within ten seconds a client id may be taken from a live connection of this node before its next CONNECTs
    /// wait.
    pub take_overs_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heartbeat_ms: 2_000,
            patience: Patience::default(),
            suspend_after_ms: 5_000,
            stood_still_ms_max: 60_000,
            replaying_ms_max: 60_000,
            claim_ms_max: 5_000,
            open_ms_max: 30_000,
            keeping_max: 1_000,
            tombstones_max: 2_000,
            tokens_ms: 5_000,
            take_overs_max: 5,
        }
    }
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This run of the process.
    pub incarnation: Incarnation,
    /// The operator's name for the node.
    pub node_id: String,
    /// Of its journal.
    pub producer_id: i64,
    /// When it started, milliseconds since the Unix epoch.
    pub started_ms: i64,
}

/// Whether this node may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The ledgers are being read up to the ends seen at start.
    Replaying,
    /// Its own first heartbeat was not read back yet.
    Joining,
    /// It acts.
    Acting,
    /// No heartbeat was acknowledged for too long: nothing is appended or taken over until the next one is read back.
    Suspended,
    /// Evicted or fenced.
    Over,
}

/// Why something was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Heartbeat,
    /// A record of a session that this node claimed; the key of [`Core::owned`].
    Session(u64),
    /// The will that it publishes.
    Will(u64),
    /// To learn what became of others in this generation.
    Probe(u32),
    /// The same, among messages.
    MessageProbe(Partition),
    /// To give `mqtt.sessions` a generation; the record's name.
    Generation(Nonce),
}

pub(super) struct Core {
    pub(super) identity: Identity,
    pub(super) limits: Limits,
    pub(super) rules: Rules,
    dice: StdRng,
    pub(super) now_ms: i64,
    /// `now_ms` when the newest append time of `mqtt.cluster` was seen.
    pub(super) log_seen_ms: i64,
    pub(super) standing: Standing,
    pub(super) members: Members,
    /// None before the generation is known.
    pub(super) ledgers: Vec<Sessions>,
    next_key: u64,
    pub(super) owned: BTreeMap<u64, Owned>,
    pub(super) by_connection: HashMap<ConnectionId, u64>,
    pub(super) by_nonce: HashMap<Nonce, u64>,
    pub(super) by_client: HashMap<ClientKey, Vec<u64>>,
    /// Connections that are gone and whose appends have no outcome yet.
    pub(super) draining: HashMap<ConnectionId, super::parting::Draining>,
    /// CONNECTs that wait until this node may claim, oldest first.
    pub(super) waiting: VecDeque<super::claiming::Waiting>,
    pub(super) fights: super::fights::Fights,
    next_sequence: u64,
    pub(super) appends: HashMap<u64, Pending>,
    next_ask: u64,
    /// Whose will needs an end.
    pub(super) asks: HashMap<u64, super::Asked>,
    pub(super) scans: BTreeMap<u64, super::looking::Scanning>,
    pub(super) marks: Marks,
    pub(super) doubts: super::doubt::Doubts,
    /// The offset of the last record that was applied, by partition of `mqtt.sessions`.
    pub(super) read_to: BTreeMap<u32, i64>,
    pub(super) cluster: super::cluster::Cluster,
    pub(super) life: super::generation::Life,
    pub(super) keeping: super::keeping::Keeping,
    pub(super) routes: super::Routes,
    pub(super) effects: Vec<Effect>,
}

/// A state record that was appended; kept so that it can be appended again if it was certainly not written.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) why: Why,
    pub(super) log: Log,
    pub(super) partition: u32,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    /// Of a set or part.
    pub(super) version: Option<u32>,
}

impl Core {
    pub(super) fn new(identity: Identity, limits: Limits, rules: Rules, routes: super::Routes, seed: u64) -> Self {
        Self {
            identity,
            limits,
            rules,
            dice: StdRng::seed_from_u64(seed),
            now_ms: 0,
            log_seen_ms: 0,
            standing: Standing::Replaying,
            members: Members::default(),
            ledgers: Vec::new(),
            next_key: 0,
            owned: BTreeMap::new(),
            by_connection: HashMap::new(),
            by_nonce: HashMap::new(),
            by_client: HashMap::new(),
            draining: HashMap::new(),
            waiting: VecDeque::new(),
            fights: super::fights::Fights::default(),
            next_sequence: 0,
            appends: HashMap::new(),
            next_ask: 0,
            asks: HashMap::new(),
            scans: BTreeMap::new(),
            marks: Marks::default(),
            doubts: super::doubt::Doubts::default(),
            read_to: BTreeMap::new(),
            cluster: super::cluster::Cluster::default(),
            life: super::generation::Life::default(),
            keeping: super::keeping::Keeping::default(),
            routes,
            effects: Vec::new(),
        }
    }

    /// What must happen outside, in order.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        mem::take(&mut self.effects)
    }

    /// Monotonic milliseconds; called before any input, and with each tick at the least.
    pub(super) fn set_now(&mut self, now_ms: i64) {
        let still_ms = now_ms - self.now_ms;
        self.now_ms = now_ms.max(self.now_ms);
        if still_ms > self.limits.stood_still_ms_max {
            tracing::error!(still_ms, "this node stood still for too long");
            self.end("this node stood still for so long that what it knows cannot be trusted any more");
        }
    }

    /// The log's time, as this node believes it: append times decide, its own clock only counts on from the newest.
    pub(super) fn log_now_ms(&self) -> i64 {
        self.members.log_now_ms() + (self.now_ms - self.log_seen_ms)
    }

    pub(super) fn handle(&mut self, input: Input<'_>) {
        match input {
            Input::Record { log: Log::Cluster, partition: _, offset, append_ms, key, value } => {
                self.on_cluster_record(offset, append_ms, key, value);
            }
            Input::Record { log: Log::Sessions, partition, offset, append_ms, key, value } => {
                self.on_session_record(partition, offset, append_ms, key, value);
            }
            Input::Outcome { sequence, outcome } => self.on_outcome(sequence, outcome),
            Input::Ends { ask, ends } => self.on_ends(ask, &ends),
            Input::Scanned { scan, found } => self.on_scanned(scan, &found),
            Input::FencedAt { incarnation, everywhere } => self.on_fenced_at(incarnation, everywhere),
            Input::FencedAnew { topic_id } => self.on_fenced_anew(topic_id),
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Claim { connection, mailbox, wish } => self.on_claim(connection, mailbox, wish),
            Command::Persist { connection, sequence, part } => self.on_persist(connection, sequence, &part),
            Command::LookUp { connection, sequence, topic, unresolved } => {
                self.on_look_up(connection, sequence, &topic, unresolved);
            }
            Command::Parted { connection, parting } => self.on_parted(connection, parting),
            Command::Late { connection, sequence, outcome } => self.on_late(connection, sequence, outcome),
            Command::Outcome { sequence, outcome } => self.handle(Input::Outcome { sequence, outcome }),
            Command::Unknown(partition) => self.on_unknown(partition),
            Command::Leave => self.leave(),
            Command::Watermark(round) => self.on_watermark(round),
        }
    }

    /// What is due with the passing of time. Called a few times a second.
    pub(super) fn on_tick(&mut self) {
        self.tick_cluster();
        self.tick_claims();
        self.tick_marks();
        if self.standing == Standing::Acting {
            self.tick_keeping();
        }
        self.tick_doubts();
        self.give_up_open_records();
    }

    /// Both ledgers were read up to the ends that were seen at start.
    pub(super) fn on_replayed(&mut self) {
        self.standing = Standing::Joining;
        self.disown_what_landed();
        let keys: Vec<u64> = self.owned.keys().copied().collect();
        for key in keys {
            self.finish_if_possible(key);
        }
        self.beat();
    }

    /// The tail of a state kafka topic lost its place: nothing that was believed holds any more (F6). What this node owned
    /// is fenced, as far as it knows. It still has to say its last words, or whoever comes next would wait for them for ever;
    /// it does so once the log was read again.
    pub(super) fn on_lost(&mut self) {
        for owned in self.owned.values_mut() {
            if let Some(port) = owned.port.as_ref().filter(|_| !owned.is_fenced()) {
                self.effects.push(port.tell(Notice::Evicted(ReasonCode::ServerBusy)));
            }
            if owned.claim.handle(Event::ForeignClaim { counted: true }) == Decision::Fenced {
                self.keeping.left_behind(owned.partition, owned.client.clone());
                owned.given_up = true;
            }
            owned.stage = Stage::Closing;
        }
        let claims = mem::take(&mut self.waiting);
        self.effects
            .extend(claims.into_iter().map(|claim| claim.port.tell(Notice::Denied(ReasonCode::ServerUnavailable))));
        self.members = Members::default();
        self.ledgers.clear();
        self.marks.forget();
        self.read_to.clear();
        self.keeping.forget();
        self.standing = Standing::Replaying;
    }

    pub(super) fn random_nonce(&mut self) -> Nonce {
        Nonce(self.dice.random())
    }

    pub(super) fn next_ask(&mut self) -> u64 {
        self.next_ask += 1;
        self.next_ask
    }

    // ---- appends

    /// Appends a state record whose outcome matters.
    pub(super) fn append(&mut self, why: Why, log: Log, partition: u32, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.append_again(Pending { why, log, partition, key, value, version: None });
    }

    /// Appends a record, perhaps once more; only what is certainly not in the log.
    pub(super) fn append_again(&mut self, pending: Pending) {
        self.next_sequence += 1;
        let sequence = self.next_sequence;
        let (log, partition, key, value) = (pending.log, pending.partition, pending.key.clone(), pending.value.clone());
        self.appends.insert(sequence, pending);
        self.effects.push(Effect::Append { sequence, log, partition, key, value });
    }

    /// Appends a record that nobody waits for: it is appended again if it is still missing when somebody looks.
    pub(super) fn append_unwatched(&mut self, log: Log, partition: u32, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.effects.push(Effect::Append { sequence: 0, log, partition, key, value });
    }

    /// Names an append that is not one of state.
    pub(super) fn next_watched(&mut self, why: Why) -> u64 {
        self.next_sequence += 1;
        let pending = Pending { why, log: Log::Sessions, partition: 0, key: Vec::new(), value: None, version: None };
        self.appends.insert(self.next_sequence, pending);
        self.next_sequence
    }

    fn on_outcome(&mut self, sequence: u64, outcome: Outcome) {
        let Some(pending) = self.appends.remove(&sequence) else { return };
        if outcome == Outcome::Refused(Refusal::Fenced) {
            self.end("the log refuses this node: it was fenced");
            return;
        }
        match pending.why {
            Why::Heartbeat => self.on_beat_outcome(outcome),
            Why::Will(key) => self.on_will_outcome(key, outcome),
            Why::Session(key) => self.on_session_outcome(key, pending, outcome),
            // What it followed was of a kafka topic that is gone.
            Why::Probe(generation) if generation != self.generation() => {}
            Why::Probe(_) => self.on_probe(pending.partition, outcome),
            Why::Generation(name) => self.on_generation_outcome(name, outcome),
            Why::MessageProbe(partition) => self.on_message_probe(partition, outcome),
        }
    }

    /// Whatever became of it, the tail decides; only what is certainly missing is appended again.
    fn on_session_outcome(&mut self, key: u64, pending: Pending, outcome: Outcome) {
        let Some(owned) = self.owned.get(&key) else { return };
        match outcome {
            Outcome::Written(at) => self.on_acked_unread(key, &pending, at),
            Outcome::Unknown => self.doubt(pending),
            Outcome::Refused(_) if owned.is_fenced() && !owned.said_last && !owned.given_up => {}
            Outcome::Refused(Refusal::Deadline) => self.append_missing(pending),
            Outcome::Refused(why) => {
                tracing::error!(%why, client = owned.client.client_id(), "a state record was refused");
                self.evict(key, ReasonCode::ServerBusy);
                // Without it the session could not even end.
                self.doubts.retry(self.now_ms, pending);
            }
        }
    }

    /// "Only if that stays open, rotate the nonce": the client is sent away and comes back with another claim.
    fn give_up_open_records(&mut self) {
        let oldest = self.now_ms - self.limits.open_ms_max;
        let stuck = |owned: &Owned| owned.awaited.iter().any(|awaited| awaited.since_ms < oldest);
        let stuck: Vec<u64> =
            self.owned.iter().filter(|(_, owned)| owned.port.is_some() && stuck(owned)).map(|(key, _)| *key).collect();
        if self.standing == Standing::Acting {
            for key in stuck {
                self.evict(key, ReasonCode::ServerBusy);
            }
        }
    }

    pub(super) fn evict(&mut self, key: u64, reason: ReasonCode) {
        if let Some(port) = self.owned.get(&key).and_then(|owned| owned.port.as_ref()) {
            let effect = port.tell(Notice::Evicted(reason));
            self.effects.push(effect);
        }
    }

    pub(super) fn end(&mut self, why: &'static str) {
        if self.standing != Standing::Over {
            self.standing = Standing::Over;
            self.effects.push(Effect::Suspend(true));
            self.effects.push(Effect::Exit { why });
        }
    }

    // ---- owned sessions

    pub(super) fn add_owned(&mut self, owned: Owned) -> u64 {
        self.next_key += 1;
        let key = self.next_key;
        if let Some(port) = &owned.port {
            self.by_connection.insert(port.id, key);
        }
        self.by_nonce.insert(owned.nonce, key);
        self.by_client.entry(owned.client.clone()).or_default().push(key);
        self.owned.insert(key, owned);
        key
    }

    pub(super) fn drop_owned(&mut self, key: u64) {
        let Some(owned) = self.owned.remove(&key) else { return };
        if let Some(port) = &owned.port {
            self.by_connection.remove(&port.id);
        }
        self.by_nonce.remove(&owned.nonce);
        if let Some(keys) = self.by_client.get_mut(&owned.client) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_client.remove(&owned.client);
            }
        }
        self.scans.retain(|_, scanning| scanning.owner() != Some(key));
    }

    /// Writes the own set as it is in `owned.state` (F4: one record), to be read back.
    pub(super) fn write_set(&mut self, key: u64) {
        let now_ms = self.now_ms;
        let incarnation = self.identity.incarnation;
        let Some(owned) = self.owned.get_mut(&key) else { return };
        let (Some(epoch), version) = (owned.epoch, owned.next_version()) else { return };
        let Some(state) = owned.state.as_deref() else { return };
        let value = if self.rules.holds(Rule::F4) || owned.stage != Stage::Setting {
            record::set(epoch, incarnation, version, state)
        } else {
            record::set(epoch, incarnation, version, &SessionState { subscriptions: Vec::new(), ..state.clone() })
        };
        let record_key = record::key(&owned.client, owned.nonce, Slot::Set);
        owned.has_set = true;
        owned.awaited.push(Awaited { version, sequence: None, since_ms: now_ms });
        let partition = owned.partition;
        self.append_again(Pending {
            why: Why::Session(key),
            log: Log::Sessions,
            partition,
            key: record_key,
            value: Some(value),
            version: Some(version),
        });
    }

    // ---- records

    fn on_session_record(&mut self, partition: u32, offset: i64, append_ms: i64, key: &[u8], value: Option<&[u8]>) {
        let Some(ledger) = self.ledgers.get_mut(partition as usize) else { return };
        let applied = ledger.apply(offset, append_ms, key, value);
        tracing::trace!(partition, offset, ?applied, "read");
        self.read_to.insert(partition, offset);
        match applied {
            Applied::Claimed { client, nonce, counted, .. } => self.on_claimed(partition, &client, nonce, counted),
            Applied::Set { client: _, nonce, version } | Applied::Part { client: _, nonce, version, .. } => {
                self.on_read_back(nonce, version);
            }
            Applied::Final { client, nonce } => self.on_final(&client, nonce),
            Applied::Gone { client, nonce, what } => self.on_gone_record(&client, nonce, what),
            Applied::Watermark { .. } | Applied::WatermarkGone { .. } | Applied::Ignored(_) => {}
        }
        self.settle_doubts(partition);
    }

    fn on_gone_record(&mut self, client: &ClientKey, nonce: Nonce, what: Slot) {
        if what == Slot::Set
            && let Some(&key) = self.by_nonce.get(&nonce)
            && let Some(owned) = self.owned.get_mut(&key).filter(|owned| owned.given_up)
        {
            // Somebody else has it.
            owned.awaited.clear();
            self.finish_if_possible(key);
        }
        if matches!(what, Slot::Claim | Slot::KeeperClaim)
            && let Some(&key) = self.by_nonce.get(&nonce)
        {
            // A clean session's last word is that nothing of it is left.
            self.drop_owned(key);
        }
        self.after_settling_of(client);
    }

    /// A record of ours was read back. No foreign claim came in between, else the nonce would be fenced by now (F5).
    pub(super) fn on_read_back(&mut self, nonce: Nonce, version: u32) {
        let Some(&key) = self.by_nonce.get(&nonce) else { return };
        let Some(owned) = self.owned.get_mut(&key) else { return };
        let unclean = owned.unclean;
        if !self.rules.holds(Rule::F6) {
            owned.forget_fence();
        }
        let decision = owned.claim.handle(Event::ReadBack { version });
        let (done, left) = mem::take(&mut owned.awaited).into_iter().partition(|awaited| awaited.version == version);
        owned.awaited = left;
        let done: Vec<Awaited> = done;
        if owned.given_up {
            self.finish_if_possible(key);
            return;
        }
        let Decision::Told { .. } = decision else { return };
        if let (Some(port), Stage::Serving) = (&owned.port, owned.stage) {
            let told = done.iter().filter_map(|awaited| awaited.sequence);
            let told: Vec<Effect> = told.map(|sequence| port.tell(Notice::Persisted(sequence))).collect();
            self.effects.extend(told);
        }
        self.on_set_back(key, version);
        if unclean {
            self.clean_below(key);
        }
    }

    fn on_ends(&mut self, ask: u64, ends: &[Origin]) {
        match self.asks.remove(&ask) {
            Some(super::Asked::Will(key)) => self.on_will_ends(key, ends),
            Some(super::Asked::Tokens) => self.on_token_ends(ends),
            None => {}
        }
    }
}
