//! What was promised, compared with what happened: pure functions of the cast, the history and Kafka's log. Each
//! returns sentences about what must not be.

#![expect(clippy::wildcard_enum_match_arm, reason = "each check looks at a few kinds of events")]

use std::collections::{BTreeMap, BTreeSet};

use millrace::mqtt::packet::QoS;

use super::cast::{Cast, Role, Subscribing};
use super::history::{Act, ClientNo, Deed, End, Event, TopicNo, What};

/// A farewell so near to a death of a node may not have been heard: before it, and after it.
const UNHEARD_US: (u64, u64) = (1_000_000, 5_000_000);
/// On a busy machine clients learn late that their node is dead: so long at most, ...
const LEARNED_US: u64 = 10_000_000;
/// ... and all of one moment.
const MOMENT_US: u64 = 100_000;

/// A will that was due so long ago is in Kafka, unless Kafka or all nodes were away.
const PUBLISHED_US: u64 = 90_000_000;

/// What is in Kafka.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The numbers of the messages of each publisher, in the order of the log.
    pub topics: BTreeMap<TopicNo, Vec<u64>>,
    /// How many wills of each client there are.
    pub wills: BTreeMap<ClientNo, usize>,
}

/// A run that is over.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub cast: &'a Cast,
    pub events: &'a [Event],
    pub log: &'a Log,
}

/// Everything that must not be.
pub fn check(run: Run<'_>) -> Vec<String> {
    let checks: [fn(Run<'_>) -> Vec<String>; 10] = [
        odd,
        lost_sessions,
        lost_in_log,
        doubled_in_log,
        disordered_in_log,
        lost_on_the_way,
        doubled_on_the_way,
        disordered_on_the_way,
        wrong_wills,
        closed_though_they_had_to_stay,
    ];
    checks.iter().flat_map(|check| check(run)).collect()
}

/// What clients found to be against the protocol.
pub fn odd(run: Run<'_>) -> Vec<String> {
    let odd = acts(run.events).filter_map(|(at_us, client, act)| match act {
        Act::Odd(what) => Some(format!("{}: client {client}: {what}", at(at_us))),
        _ => None,
    });
    odd.collect()
}

/// A client that had a session is told that it has none, though nobody deleted it.
pub fn lost_sessions(run: Run<'_>) -> Vec<String> {
    let mut connected = BTreeMap::new();
    let mut wrong = Vec::new();
    for (at_us, client, act) in acts(run.events) {
        if let Act::Connected { session_present } = act {
            let before = connected.insert(client, at_us);
            if let Some(before) = before.filter(|before| !session_present && !may_be_gone(run.events, *before, at_us)) {
                let told = at(at_us);
                wrong.push(format!("{told}: client {client} is told that its session of {} is gone", at(before)));
            }
        }
    }
    wrong
}

/// Whether sessions may have been deleted after the one time and before the other.
fn may_be_gone(events: &[Event], since_us: u64, until_us: u64) -> bool {
    amnesties(events).into_iter().any(|(deleted_us, back_us)| deleted_us < until_us && since_us < back_us)
}

/// From each deletion of the sessions until all were told.
fn amnesties(events: &[Event]) -> Vec<(u64, u64)> {
    let mut amnesties = Vec::new();
    for (at_us, deed) in deeds(events) {
        match deed {
            Deed::SessionsDeleted => amnesties.push((at_us, u64::MAX)),
            Deed::SessionsBack => amnesties.last_mut().into_iter().for_each(|(_, back_us)| *back_us = at_us),
            _ => {}
        }
    }
    amnesties
}

/// Acknowledged, but not in Kafka; or in Kafka though nobody sent it.
pub fn lost_in_log(run: Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut sent, mut acked) = (BTreeSet::new(), BTreeMap::new());
    for (at_us, client, act) in acts(run.events) {
        match act {
            Act::Sent { number, .. } => drop(sent.insert((client, *number))),
            Act::Acked { number } => drop(acked.insert((client, *number), at_us)),
            _ => {}
        }
    }
    let there = in_log(run.log);
    for (message, at_us) in acked.iter().filter(|(message, _)| !there.contains_key(message)) {
        wrong.push(format!("lost: {} was acknowledged at {} and is not in Kafka", name(*message), at(*at_us)));
    }
    for message in there.keys().filter(|message| !sent.contains(message)) {
        wrong.push(format!("{} is in Kafka and nobody sent it", name(*message)));
    }
    wrong
}

/// A message of QoS 2 that is in Kafka more than once.
pub fn doubled_in_log(run: Run<'_>) -> Vec<String> {
    let is_exact = |topic| run.cast.qos_of(topic) == Some(QoS::ExactlyOnce);
    let doubled = in_log(run.log).into_iter().filter(|((topic, _), count)| *count > 1 && is_exact(*topic));
    doubled.map(|(message, count)| format!("{} of QoS 2 is in Kafka {count} times", name(message))).collect()
}

/// Messages whose first record lies behind one that was published later.
pub fn disordered_in_log(run: Run<'_>) -> Vec<String> {
    let topics = run.log.topics.iter();
    topics.flat_map(|(topic, numbers)| disorder(&format!("in Kafka, topic {topic}"), numbers.iter().copied())).collect()
}

/// A subscriber whose session lasts did not get a message that was sent after its SUBACK and is in Kafka.
pub fn lost_on_the_way(run: Run<'_>) -> Vec<String> {
    missing(run)
        .into_iter()
        .map(|(client, message)| format!("lost: client {client} did not get {}", name(message)))
        .collect()
}

/// What subscribers have not got yet, of what they must get: subscriber and message.
pub fn missing(run: Run<'_>) -> Vec<(ClientNo, (TopicNo, u64))> {
    let mut first_sent_us = BTreeMap::new();
    let mut subscribed_us = BTreeMap::new();
    let mut received = BTreeSet::new();
    for (at_us, client, act) in acts(run.events) {
        match act {
            Act::Sent { number, .. } => drop(first_sent_us.entry((client, *number)).or_insert(at_us)),
            // After the loss of its session it subscribes again: what it is owed begins anew.
            Act::Subscribed => drop(subscribed_us.insert(client, at_us)),
            Act::Received { topic, number, .. } => drop(received.insert((client, (*topic, *number)))),
            _ => {}
        }
    }
    let there = in_log(run.log);
    let mut missing = Vec::new();
    for (client, subscribing) in run.cast.subscribers() {
        let Some(since_us) = subscribed_us.get(&client) else { continue };
        let owed = there.keys().filter(|message| {
            subscribing.topics.contains(&message.0)
                && first_sent_us.get(message).is_some_and(|sent_us| sent_us > since_us)
        });
        missing.extend(owed.map(|message| (client, *message)).filter(|owed| !received.contains(owed)));
    }
    missing
}

/// A message of QoS 2 that an application got more than once; and anything it got that is not in Kafka.
pub fn doubled_on_the_way(run: Run<'_>) -> Vec<String> {
    let there = in_log(run.log);
    let mut got: BTreeMap<(ClientNo, (TopicNo, u64)), Vec<u64>> = BTreeMap::new();
    for (at_us, client, act) in acts(run.events) {
        if let Act::Received { topic, number, is_new: true, .. } = act {
            got.entry((client, (*topic, *number))).or_default().push(at_us);
        }
    }
    let mut wrong = Vec::new();
    for ((client, message), times) in got {
        let is_exact = subscribing(run.cast, client)
            .is_some_and(|subscribing| run.cast.qos_between(message.0, subscribing) == QoS::ExactlyOnce);
        if is_exact && times.len() > 1 {
            let times: Vec<String> = times.iter().map(|time| at(*time)).collect();
            wrong.push(format!("doubled: client {client} got {} of QoS 2 at {}", name(message), times.join(", ")));
        }
        if !there.contains_key(&message) {
            wrong.push(format!("client {client} got {}, which is not in Kafka", name(message)));
        }
    }
    wrong
}

/// A message that a subscriber got for the first time after one that was published later.
pub fn disordered_on_the_way(run: Run<'_>) -> Vec<String> {
    let mut got: BTreeMap<(ClientNo, TopicNo), Vec<u64>> = BTreeMap::new();
    for (_, client, act) in acts(run.events) {
        if let Act::Received { topic, number, .. } = act {
            got.entry((client, *topic)).or_default().push(*number);
        }
    }
    let got = got.into_iter();
    got.flat_map(|((client, topic), numbers)| {
        disorder(&format!("at client {client}, topic {topic}"), numbers.into_iter())
    })
    .collect()
}

/// First occurrences must rise.
fn disorder(place: &str, numbers: impl Iterator<Item = u64>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for number in numbers {
        if let Some(last) = seen.last().copied().filter(|last| number < *last && !seen.contains(&number)) {
            wrong.push(format!("disorder {place}: {number} comes after {last}"));
        }
        seen.insert(number);
    }
    wrong
}

/// How often a will must be in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    Never,
    /// Nobody can know: the farewell or the CONNACK was lost with a node, or the session with its kafka topic.
    AtMostOnce,
    Once,
}

/// Wills that are not in Kafka as often as they must be.
pub fn wrong_wills(run: Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (client, due) in wills_due(run) {
        let count = run.log.wills.get(&client).copied().unwrap_or(0);
        let is_right = match due {
            Due::Never => count == 0,
            Due::AtMostOnce => count <= 1,
            Due::Once => count == 1,
        };
        if !is_right {
            wrong.push(format!("the will of client {client} is due {due:?} and is in Kafka {count} times"));
        }
    }
    wrong
}

/// For each client with a will that took part.
pub fn wills_due(run: Run<'_>) -> BTreeMap<ClientNo, Due> {
    let mut lives: BTreeMap<ClientNo, Life> = BTreeMap::new();
    for (at_us, client, act) in acts(run.events) {
        let life = lives.entry(client).or_default();
        match act {
            Act::Connected { .. } => life.connected_us = Some(at_us),
            Act::Ended(end, _) => life.ended = Some((at_us, *end)),
            _ => {}
        }
    }
    let mortals = run.cast.mortals();
    mortals.filter_map(|client| Some((client, lives.get(&client)?.due(run.events)))).collect()
}

/// The one connection of a client with a will.
#[derive(Clone, Copy, Default)]
struct Life {
    connected_us: Option<u64>,
    ended: Option<(u64, End)>,
}

impl Life {
    fn due(self, events: &[Event]) -> Due {
        let (Some(connected_us), Some((ended_us, end))) = (self.connected_us, self.ended) else {
            return Due::AtMostOnce;
        };
        let is_lost = amnesties(events)
            .into_iter()
            .any(|(deleted_us, back_us)| connected_us < back_us && ended_us + PUBLISHED_US > deleted_us);
        match end {
            _ if is_lost => Due::AtMostOnce,
            End::Disconnected if is_unheard(events, ended_us) => Due::AtMostOnce,
            End::Disconnected => Due::Never,
            End::Cut | End::Broker | End::Silence => Due::Once,
        }
    }
}

/// Whether a node may have died, or stood still, with what a client said last.
fn is_unheard(events: &[Event], said_us: u64) -> bool {
    let others_learn = events.iter().any(|event| {
        let is_end = matches!(event.what, What::Client(_, Act::Ended(End::Broker, _)));
        is_end && event.at_us.abs_diff(said_us) < MOMENT_US
    });
    let after_us = if others_learn { LEARNED_US } else { UNHEARD_US.0 };
    deeds(events).any(|(at_us, deed)| {
        let is_harm = matches!(deed, Deed::Killed(_) | Deed::Exited(..) | Deed::Paused(_) | Deed::KafkaHurt(_));
        is_harm && at_us + after_us > said_us && at_us < said_us + UNHEARD_US.1
    })
}

/// A connection that was closed, other than by its client's wish, while all had to stay.
pub fn closed_though_they_had_to_stay(run: Run<'_>) -> Vec<String> {
    let mut must_stay = false;
    let mut wrong = Vec::new();
    for event in run.events {
        match &event.what {
            What::Deed(Deed::StayBegins) => must_stay = true,
            What::Deed(Deed::StayEnds) => must_stay = false,
            What::Client(client, Act::Ended(end @ (End::Broker | End::Silence), why)) if must_stay => {
                wrong.push(format!("{}: client {client} did not stay: {end:?}: {why}", at(event.at_us)));
            }
            What::Client(..) | What::Deed(_) => {}
        }
    }
    wrong
}

/// What is worth a column of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub acked: [usize; 3],
    pub received: [usize; 3],
    /// Records in Kafka beyond the first of a message, QoS 1.
    pub repeated_in_log: usize,
    /// Deliveries beyond the first of a message, QoS 1.
    pub repeated_on_the_way: usize,
    pub kills: usize,
    pub exits: usize,
    /// Connections that ended otherwise than by DISCONNECT.
    pub lost_connections: usize,
    pub resumed: usize,
    pub wills: BTreeMap<Due, usize>,
    /// Microseconds from CONNECT to CONNACK with a session, sorted.
    pub resume_us: Vec<u64>,
    /// Microseconds from the end of a connection to CONNACK with a session, sorted.
    pub away_us: Vec<u64>,
}

/// Counts.
pub fn figures(run: Run<'_>) -> Figures {
    let mut figures = Figures::default();
    let (mut connecting, mut ended) = (BTreeMap::new(), BTreeMap::new());
    let mut got = BTreeSet::new();
    for event in run.events {
        match &event.what {
            What::Deed(Deed::Killed(_)) => figures.kills += 1,
            What::Deed(Deed::Exited(..)) => figures.exits += 1,
            What::Client(client, Act::Connecting) => drop(connecting.insert(*client, event.at_us)),
            What::Client(client, Act::Connected { session_present: true }) => {
                figures.resumed += 1;
                figures.resume_us.extend(connecting.get(client).map(|since| event.at_us - since));
                figures.away_us.extend(ended.get(client).map(|since| event.at_us - since));
            }
            What::Client(client, Act::Ended(end, _)) => {
                figures.lost_connections += usize::from(*end != End::Disconnected);
                ended.insert(*client, event.at_us);
            }
            What::Client(client, Act::Acked { .. }) => {
                let qos = run.cast.qos_of(*client).unwrap_or_default();
                figures.acked[usize::from(qos.as_u8())] += 1;
            }
            What::Client(client, Act::Received { topic, number, is_new: true, .. }) => {
                let subscribing = subscribing(run.cast, *client);
                let qos = subscribing.map(|subscribing| run.cast.qos_between(*topic, subscribing)).unwrap_or_default();
                figures.received[usize::from(qos.as_u8())] += 1;
                figures.repeated_on_the_way += usize::from(!got.insert((*client, *topic, *number)));
            }
            What::Client(..) | What::Deed(_) => {}
        }
    }
    figures.repeated_in_log = in_log(run.log).values().map(|count| count - 1).sum();
    for due in wills_due(run).into_values() {
        *figures.wills.entry(due).or_default() += 1;
    }
    figures.resume_us.sort_unstable();
    figures.away_us.sort_unstable();
    figures
}

/// The value below which `percent` of the sorted values lie.
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).copied().unwrap_or(0)
}

fn subscribing(cast: &Cast, client: ClientNo) -> Option<&Subscribing> {
    match &cast.clients.get(client)?.role {
        Role::Subscriber(subscribing) => Some(subscribing),
        Role::Publisher(_) | Role::Mortal(_) => None,
    }
}

fn acts(events: &[Event]) -> impl Iterator<Item = (u64, ClientNo, &Act)> {
    events.iter().filter_map(|event| match &event.what {
        What::Client(client, act) => Some((event.at_us, *client, act)),
        What::Deed(_) => None,
    })
}

fn deeds(events: &[Event]) -> impl Iterator<Item = (u64, &Deed)> {
    events.iter().filter_map(|event| match &event.what {
        What::Deed(deed) => Some((event.at_us, deed)),
        What::Client(..) => None,
    })
}

/// How often each message is in Kafka.
fn in_log(log: &Log) -> BTreeMap<(TopicNo, u64), usize> {
    let mut there = BTreeMap::new();
    for (topic, numbers) in &log.topics {
        for number in numbers {
            *there.entry((*topic, *number)).or_default() += 1;
        }
    }
    there
}

fn name((topic, number): (TopicNo, u64)) -> String {
    format!("message {number} of topic {topic}")
}

fn at(at_us: u64) -> String {
    format!("{}.{:03} s", at_us / 1_000_000, at_us / 1000 % 1000)
}
