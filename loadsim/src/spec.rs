//! What a run is, checked: the arguments as the rest of the program wants them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use millrace::mqtt::topic::SharedFilter;
use millrace::mqtt::{ProtocolVersion, QoS, TopicFilter, TopicName};
use millrace::route::trie::Trie;

use crate::client::{Lasting, Role, Subscriber};
use crate::publisher::{Plan, Publisher, Topics};
use crate::schedule::{Rate, Schedule};
use crate::template::Template;

/// A run.
#[derive(Debug)]
pub struct Spec {
    /// Names this run in stamps and client ids.
    pub run: u32,
    /// Where to and how.
    pub target: Target,
    /// Workers.
    pub threads: u32,
    /// Connections that only stay.
    pub idle: u32,
    /// Connections that are made again and again, to measure that; every other one goes on with a session.
    pub probes: u32,
    /// Who publishes what.
    pub publishing: Publishing,
    /// Who subscribes to what.
    pub subscribing: Subscribing,
    /// When.
    pub timing: Timing,
    /// Connections that fail are counted, and the rest goes on.
    pub is_tolerant: bool,
    /// Connections that were ready and end are made again.
    pub returns: bool,
    /// The process to end, and when in the measured window.
    pub kill: Option<Kill>,
}

/// The end of a process.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// Which.
    pub pid: u32,
    /// From the beginning of the measured window.
    pub after_ns: u64,
}

/// The broker and how to connect to it.
#[derive(Debug)]
pub struct Target {
    /// Where it listens.
    pub broker: SocketAddr,
    /// Its other nodes.
    pub fallbacks: Vec<SocketAddr>,
    /// Protocol version.
    pub version: ProtocolVersion,
    /// Client ids.
    pub client_id: Template,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Seconds, 0 for none.
    pub keep_alive_s: u16,
    /// New connections.
    pub connect_rate: Rate,
    /// Of all clients but probes.
    pub lasting: Lasting,
    /// From the intended time until the client is ready.
    pub connect_timeout_ns: u64,
    /// Used in turn; empty: the system chooses.
    pub source_addresses: Vec<IpAddr>,
}

/// How the publishers are paced.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At this rate, all publishers together, whatever the broker does.
    Open(Rate),
    /// As fast as the windows allow.
    Closed,
}

/// The publishers.
#[derive(Debug)]
pub struct Publishing {
    /// How many.
    pub publishers: u32,
    /// One for each topic.
    pub topic: Template,
    /// Of each publisher, which takes them in turn.
    pub topics_each: u32,
    /// Of every message.
    pub qos: QoS,
    /// Stamp included.
    pub payload_bytes: usize,
    /// When they publish.
    pub pace: Pace,
    /// Messages are intended at its multiples.
    pub tick_ns: u64,
    /// The most unacknowledged messages of a publisher; the broker's receive maximum may be lower.
    pub window: u16,
    /// Messages of all publishers, where not the time ends the run.
    pub messages: Option<u64>,
}

/// The subscribers.
#[derive(Debug)]
pub struct Subscribing {
    /// How many.
    pub subscribers: u32,
    /// One filter each.
    pub filter: Template,
    /// Asked for.
    pub qos: QoS,
    /// Ends the run once so many messages have arrived.
    pub messages: Option<u64>,
}

/// The phases of a run.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the unit is part of a name")]
pub struct Timing {
    /// Load that is not measured.
    pub warm_up_ns: u64,
    /// Load that is.
    pub duration_ns: u64,
    /// The longest wait for what is still on its way.
    pub drain_ns: u64,
}

impl Spec {
    /// Connections of the run: subscribers, then publishers, then idle ones, then probes.
    pub fn connections(&self) -> u64 {
        let (subscribers, publishers) = (self.subscribing.subscribers, self.publishing.publishers);
        [subscribers, publishers, self.idle, self.probes].into_iter().map(u64::from).sum()
    }

    /// Topics of the run.
    pub fn topics(&self) -> u32 {
        self.publishing.publishers.saturating_mul(self.publishing.topics_each)
    }

    /// What connection `index` is for.
    pub fn role(&self, index: u32) -> Role {
        let (subscribing, publishing) = (&self.subscribing, &self.publishing);
        if index < subscribing.subscribers {
            let filter = subscribing.filter.fill(self.run, index).into_boxed_str();
            return Role::Subscriber(Box::new(Subscriber::new(filter, subscribing.qos)));
        }
        let id = index - subscribing.subscribers;
        if id < publishing.publishers {
            let first = id.saturating_mul(publishing.topics_each);
            let own = first..first.saturating_add(publishing.topics_each);
            let names = own.map(|topic| publishing.topic.fill(self.run, topic).into_boxed_str()).collect();
            let topics = Topics { first, names };
            return Role::Publisher(Box::new(Publisher::new(id, topics, publishing.qos, publishing.window)));
        }
        match (id - publishing.publishers).checked_sub(self.idle) {
            Some(probe) => Role::Probe { lasts: probe % 2 == 1 },
            None => Role::Idle,
        }
    }

    /// What a client of this role asks for.
    pub fn lasting(&self, role: &Role) -> Lasting {
        const PROBE_EXPIRY_S: u32 = 600;
        let is_v5 = self.target.version == ProtocolVersion::V5;
        match role {
            Role::Probe { lasts: false } => Lasting::NOT,
            Role::Probe { lasts: true } => Lasting { clean_start: is_v5, expiry_s: PROBE_EXPIRY_S },
            Role::Idle | Role::Publisher(_) | Role::Subscriber(_) => self.target.lasting,
        }
    }

    /// What the publishers do together, given when the load starts.
    pub fn plan(&self, start_ns: u64) -> Plan {
        let publishing = &self.publishing;
        let schedule = match publishing.pace {
            Pace::Open(rate) => Some(Schedule::new(start_ns, rate, publishing.tick_ns)),
            Pace::Closed => None,
        };
        let messages = publishing.messages.unwrap_or(u64::MAX);
        let end_ns = self.timing.window(start_ns).end;
        Plan { run: self.run, publishers: publishing.publishers, messages, start_ns, end_ns, schedule }
    }

    /// Where a client connects who has lost, or not got, so many connections.
    pub fn broker(&self, turns: u32) -> SocketAddr {
        let fallbacks = &self.target.fallbacks;
        let turn = usize::try_from(turns).unwrap_or(0) % (fallbacks.len() + 1);
        turn.checked_sub(1).and_then(|turn| fallbacks.get(turn)).copied().unwrap_or(self.target.broker)
    }

    /// Where connection `index` comes from.
    pub fn source_address(&self, index: u32) -> Option<IpAddr> {
        let addresses = &self.target.source_addresses;
        let turn = usize::try_from(index).unwrap_or(0).checked_rem(addresses.len())?;
        addresses.get(turn).copied()
    }
}

impl Timing {
    /// The measured window, given when the load starts.
    pub fn window(&self, start_ns: u64) -> Range<u64> {
        let window_ns = start_ns.saturating_add(self.warm_up_ns);
        window_ns..window_ns.saturating_add(self.duration_ns)
    }
}

/// Who is owed whose messages.
#[derive(Debug, Default)]
pub struct Receivers {
    /// The receiver that each subscriber is, or is part of.
    pub of_subscriber: Vec<u32>,
    /// The receivers of each topic.
    pub of_topic: Vec<Vec<u32>>,
    /// The topics of each subscriber that is a receiver alone.
    topics_of: Vec<Vec<u32>>,
}

impl Receivers {
    /// Matches topics and filters.
    ///
    /// # Errors
    /// A topic or filter that is none.
    pub fn of(spec: &Spec) -> Result<Self, String> {
        let mut trie: Trie<u32, ()> = Trie::with_seed(spec.run.into());
        let mut groups: BTreeMap<String, u32> = BTreeMap::new();
        let mut receivers = Self::default();
        for index in 0..spec.subscribing.subscribers {
            let text = spec.subscribing.filter.fill(spec.run, index);
            let refused = |error| format!("`{text}` is no topic filter: {error}");
            let (receiver, filter) = match SharedFilter::parse(&text).map_err(refused)? {
                Some(shared) => (*groups.entry(text.clone()).or_insert(index), shared.filter),
                None => (index, TopicFilter::parse(&text).map_err(refused)?),
            };
            trie.insert(&filter, receiver, ());
            receivers.of_subscriber.push(receiver);
        }
        for index in 0..spec.topics() {
            let text = spec.publishing.topic.fill(spec.run, index);
            let topic = TopicName::parse(&text).map_err(|error| format!("`{text}` is no topic: {error}"))?;
            let mut found = Vec::new();
            trie.matches(topic.as_str(), |receiver, ()| found.push(receiver));
            found.sort_unstable();
            found.dedup();
            receivers.of_topic.push(found);
        }
        receivers.topics_of = vec![Vec::new(); receivers.of_subscriber.len()];
        for (topic, found) in (0..).zip(&receivers.of_topic) {
            for receiver in found {
                let at = usize::try_from(*receiver).unwrap_or(usize::MAX);
                if let Some(topics) = receivers.topics_of.get_mut(at) {
                    topics.push(topic);
                }
            }
        }
        Ok(receivers)
    }

    /// The topics of a subscriber.
    pub fn topics_of(&self, subscriber: u32) -> &[u32] {
        usize::try_from(subscriber).ok().and_then(|at| self.topics_of.get(at)).map_or(&[], Vec::as_slice)
    }

    /// Deliveries that a message of this topic is owed.
    pub fn count(&self, topic: u32) -> u64 {
        let index = usize::try_from(topic).unwrap_or(usize::MAX);
        self.of_topic.get(index).map_or(0, |receivers| receivers.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receivers(publishers: u32, topic: &str, subscribers: u32, filter: &str) -> Receivers {
        let rate = "1".parse().unwrap();
        let spec = Spec {
            run: 1,
            target: Target {
                broker: ([127, 0, 0, 1], 1883).into(),
                fallbacks: Vec::new(),
                version: ProtocolVersion::V5,
                client_id: "{i}".parse().unwrap(),
                username: None,
                password: None,
                keep_alive_s: 0,
                connect_rate: rate,
                lasting: Lasting::NOT,
                connect_timeout_ns: 0,
                source_addresses: Vec::new(),
            },
            threads: 1,
            idle: 0,
            probes: 0,
            publishing: Publishing {
                publishers,
                topic: topic.parse().unwrap(),
                topics_each: 1,
                qos: QoS::AtLeastOnce,
                payload_bytes: 64,
                pace: Pace::Closed,
                tick_ns: 1,
                window: 1,
                messages: None,
            },
            subscribing: Subscribing {
                subscribers,
                filter: filter.parse().unwrap(),
                qos: QoS::AtLeastOnce,
                messages: None,
            },
            timing: Timing { warm_up_ns: 0, duration_ns: 0, drain_ns: 0 },
            is_tolerant: false,
            returns: false,
            kill: None,
        };
        Receivers::of(&spec).unwrap()
    }

    #[test]
    fn pairs_wildcards_and_shared_subscriptions_are_owed_what_they_match() {
        assert_eq!(receivers(2, "b/{i}", 2, "b/{i}").of_topic, [vec![0], vec![1]]);
        assert_eq!(receivers(2, "b/{i}", 3, "b/+").of_topic, [vec![0, 1, 2], vec![0, 1, 2]]);
        let shared = receivers(2, "b/{i}", 3, "$share/g/b/#");
        assert_eq!(shared.of_topic, [vec![0], vec![0]]);
        assert_eq!(shared.of_subscriber, [0, 0, 0]);
        assert_eq!(receivers(1, "a", 1, "b").count(0), 0);
    }
}
