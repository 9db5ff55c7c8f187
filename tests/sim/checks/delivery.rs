//! Deliveries against a small reference broker: what a subscriber must get, may get, and must not get.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, events, given_up, is_match};
use crate::history::{Answer, Event, History, Link, Message, Name};
use crate::log_view::LogView;

/// A subscription, as the client knows it.
#[derive(Clone, Debug)]
struct Subscription {
    asked_at: usize,
    granted_at: Option<usize>,
    /// The lowest and highest QoS that may be in force.
    qos_min: u8,
    qos_max: u8,
    /// UNSUBSCRIBE was sent: nothing has to come any more.
    is_given_up: bool,
}

/// The subscriptions of one session, by filter; those given up stay, since what was on its way may still come.
#[derive(Clone, Debug, Default)]
struct Session {
    subscriptions: BTreeMap<String, Subscription>,
    /// Fresh deliveries of QoS 2, by message.
    exactly: BTreeMap<Name, usize>,
    /// What was delivered at all.
    delivered: BTreeSet<Name>,
}

impl Session {
    fn on_subscribing(&mut self, at: usize, filters: &[(String, u8)]) {
        for (filter, qos) in filters {
            let known = self.subscriptions.get_mut(filter).filter(|known| !known.is_given_up);
            if let Some(known) = known {
                known.qos_min = known.qos_min.min(*qos);
                known.qos_max = known.qos_max.max(*qos);
                continue;
            }
            // What was on its way may still come, at the QoS that was granted then.
            let before = self.subscriptions.get(filter);
            let asked_at = before.map_or(at, |old| old.asked_at);
            let (qos_min, qos_max) = (*qos, before.map_or(*qos, |old| old.qos_max.max(*qos)));
            let new = Subscription { asked_at, granted_at: None, qos_min, qos_max, is_given_up: false };
            self.subscriptions.insert(filter.clone(), new);
        }
    }

    fn on_subscribed(&mut self, at: usize, filters: &[(String, u8)]) {
        for (filter, qos) in filters {
            if let Some(known) = self.subscriptions.get_mut(filter) {
                known.granted_at = known.granted_at.or(Some(at));
                known.qos_min = known.qos_min.min(*qos);
            }
        }
    }

    /// The client gave the session up, the server may still have it.
    fn on_doubt(&mut self) {
        self.subscriptions.values_mut().for_each(|known| known.is_given_up = true);
        self.exactly.clear();
    }

    fn on_unsubscribing(&mut self, filters: &[String]) {
        for filter in filters {
            if let Some(known) = self.subscriptions.get_mut(filter) {
                known.is_given_up = true;
            }
        }
    }

    fn matching<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Subscription> {
        self.subscriptions.iter().filter(move |(filter, _)| is_match(filter, topic)).map(|(_, known)| known)
    }
}

/// Follows the sessions of all clients; `on_delivered` sees each delivery with the session it came to.
fn follow(
    history: &History,
    mut on_delivered: impl FnMut(usize, Link, &Message, bool, &Session),
) -> BTreeMap<usize, Session> {
    let mut sessions: BTreeMap<usize, Session> = BTreeMap::new();
    let given_up: BTreeMap<usize, usize> = given_up(history).collect();
    for (index, event) in events(history) {
        if let Some(client) = given_up.get(&index) {
            sessions.entry(*client).or_default().on_doubt();
        }
        match event {
            Event::Accepted { link, session_present: false } => {
                sessions.insert(link.client, Session::default());
            }
            Event::Subscribing { link, filters } => {
                sessions.entry(link.client).or_default().on_subscribing(index, filters);
            }
            Event::Subscribed { link, filters } => {
                sessions.entry(link.client).or_default().on_subscribed(index, filters);
            }
            Event::Unsubscribing { link, filters } => {
                sessions.entry(link.client).or_default().on_unsubscribing(filters);
            }
            Event::Delivered { link, message, fresh, .. } => {
                let session = sessions.entry(link.client).or_default();
                if *fresh {
                    session.delivered.insert(message.name);
                    if message.qos == 2 && message.name != Name::Clear && !message.retain {
                        *session.exactly.entry(message.name).or_default() += 1;
                    }
                }
                on_delivered(index, *link, message, *fresh, session);
            }
            _ => {}
        }
    }
    sessions
}

/// Where in the history messages were delivered that had been acknowledged before the first matching SUBSCRIBE was sent.
fn older_than_subscription(history: &History, log: &LogView) -> BTreeSet<usize> {
    let mut acked_at: BTreeMap<Name, usize> = BTreeMap::new();
    for (index, event) in events(history) {
        if let Event::Answered { name, answer: Answer::Acked | Answer::Received, .. } = event {
            acked_at.entry(*name).or_insert(index);
        }
    }
    let places = log.places();
    let is_once = |name: &Name| places.get(name).is_some_and(|places| places.len() == 1);
    let mut older = BTreeSet::new();
    follow(history, |index, _, message, _, session| {
        let Message { name, topic, retain, .. } = message;
        let acked = acked_at.get(name).filter(|_| !retain && *name != Name::Clear && is_once(name));
        let Some(acked) = acked else { return };
        if session.matching(topic).map(|known| known.asked_at).min().is_some_and(|asked_at| *acked < asked_at) {
            older.insert(index);
        }
    });
    older
}

/// Nothing is delivered that was not asked for, not published, too old, of a higher QoS, or twice at QoS 2.
pub(crate) fn check_nothing_wrong(history: &History, log: &LogView, findings: &mut Findings) {
    let mut published: BTreeMap<Name, Message> = BTreeMap::new();
    for (_, event) in events(history) {
        match event {
            Event::Sent { message, .. } => {
                published.entry(message.name).or_insert_with(|| message.clone());
            }
            Event::Connecting { link, asked } => {
                let Some(will) = &asked.will else { continue };
                let name = Name::Will { client: link.client, connection: link.connection };
                let message = Message { name, topic: will.topic.clone(), qos: will.qos, retain: will.retain };
                published.insert(name, message);
            }
            _ => {}
        }
    }
    let older = older_than_subscription(history, log);
    follow(history, |index, link, message, _, session| {
        let Message { name, topic, qos, retain } = message;
        // State topics are read to the high watermark: an aborted record in the retained topic counts as one.
        if *name == Name::Junk && *retain {
            return;
        }
        let who = format!("client {} got {name} on {topic} at {index}", link.client);
        let mut matching = session.matching(topic).peekable();
        if matching.peek().is_none() {
            findings.add("delivery", format!("{who} without a subscription to it"));
            return;
        }
        if *name != Name::Clear {
            match published.get(name) {
                Some(original) if original.topic == *topic && original.qos >= *qos => {}
                Some(original) => findings.add("delivery", format!("{who} at QoS {qos}; it was {original:?}")),
                None => findings.add("delivery", format!("{who} and nobody published it")),
            }
        }
        let qos_max = matching.map(|known| known.qos_max).max().unwrap_or(0);
        if *qos > qos_max {
            findings.add("delivery", format!("{who} at QoS {qos}, subscribed at most at {qos_max}"));
        }
        if older.contains(&index) {
            findings.add("delivery", format!("{who}, acknowledged before the SUBSCRIBE was sent"));
        }
        if session.exactly.get(name).is_some_and(|count| *count > 1) {
            findings.add("delivery", format!("{who} for the second time, at QoS 2"));
        }
    });
}

/// At rest every message of QoS 1 and 2 that was sent after the SUBACK and acknowledged has reached those who still
/// subscribe.
pub(crate) fn check_nothing_missing(history: &History, findings: &mut Findings) {
    let sessions = follow(history, |_, _, _, _, _| {});
    let mut sent: BTreeMap<Name, (usize, &Message)> = BTreeMap::new();
    let mut acked = BTreeSet::new();
    for (index, event) in events(history) {
        match event {
            Event::Sent { message, .. } if message.name != Name::Clear => {
                sent.entry(message.name).or_insert((index, message));
            }
            Event::Answered { name, answer: Answer::Acked | Answer::Received, .. } => {
                acked.insert(*name);
            }
            _ => {}
        }
    }
    for (client, session) in &sessions {
        for (name, (sent_at, message)) in &sent {
            if !acked.contains(name) || session.delivered.contains(name) {
                continue;
            }
            let must = session.matching(&message.topic).any(|known| {
                let was_there = known.granted_at.is_some_and(|granted_at| granted_at < *sent_at);
                was_there && !known.is_given_up && known.qos_min.min(message.qos) >= 1
            });
            if must {
                let topic = &message.topic;
                findings.add("delivery", format!("client {client} never got {name} on {topic}, sent at {sent_at}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{acked, asked, connect, delivered, found, history, log, message, name, sent, subscribe};
    use super::*;

    /// A subscriber, then a message that is acknowledged, then `more`.
    fn run(qos: u8, more: Vec<Event>) -> History {
        let one = message(1, "a/1", qos);
        let mut events: Vec<Event> = connect(1, 0, asked(true, 0), false).into();
        events.extend(subscribe(1, 0, "a/+", 2));
        events.extend([sent(&one), acked(&one)]);
        events.extend(more);
        history(events)
    }

    fn wrong(history: &History) -> Vec<String> {
        let log = log(&[("a/1", name(1))]);
        found(|f| check_nothing_wrong(history, &log, f))
    }

    #[test]
    fn a_message_that_never_comes_is_found_unless_the_subscription_went() {
        let one = message(1, "a/1", 1);
        let missing = |history: &History| found(|f| check_nothing_missing(history, f)).len();
        assert_eq!(missing(&run(1, vec![])), 1);
        assert_eq!(missing(&run(1, vec![delivered(1, 0, &one)])), 0);
        assert_eq!(missing(&run(0, vec![])), 0);
        let filters = vec!["a/+".to_owned()];
        let link = super::super::made::link(1, 0);
        assert_eq!(missing(&run(1, vec![Event::Unsubscribing { link, filters }])), 0);
        assert_eq!(missing(&run(1, connect(1, 1, asked(true, 0), false).into())), 0, "the session is another one");
        assert_eq!(missing(&run(1, connect(1, 1, asked(false, 60), true).into())), 1, "the session is the same");
    }

    #[test]
    fn a_second_delivery_is_found_at_qos_2_only() {
        for (qos, expected) in [(1, 0), (2, 1)] {
            let one = message(1, "a/1", qos);
            let twice = run(qos, vec![delivered(1, 0, &one), delivered(1, 0, &one)]);
            assert_eq!(wrong(&twice).len(), expected);
        }
        let one = message(1, "a/1", 2);
        let mut again = delivered(1, 0, &one);
        if let Event::Delivered { fresh, .. } = &mut again {
            *fresh = false;
        }
        assert!(wrong(&run(2, vec![delivered(1, 0, &one), again])).is_empty(), "the client passes over a repetition");
    }

    #[test]
    fn a_delivery_that_nobody_asked_for_or_published_is_found() {
        assert_eq!(wrong(&run(1, vec![delivered(1, 0, &message(1, "b", 1))])).len(), 1);
        assert_eq!(wrong(&run(1, vec![delivered(1, 0, &message(9, "a/1", 1))])).len(), 1);
        assert_eq!(wrong(&run(1, vec![delivered(1, 0, &message(1, "a/1", 2))])).len(), 1, "of a higher QoS");
        assert_eq!(wrong(&run(1, vec![delivered(2, 0, &message(1, "a/1", 1))])).len(), 1, "to somebody else");
    }

    #[test]
    fn a_message_older_than_the_subscription_is_found() {
        let one = message(1, "a/1", 1);
        let mut events: Vec<Event> = connect(1, 0, asked(true, 0), false).into();
        events.extend([sent(&one), acked(&one)]);
        events.extend(subscribe(1, 0, "a/1", 1));
        events.push(delivered(1, 0, &one));
        assert_eq!(wrong(&history(events.clone())).len(), 1);
        let twice = log(&[("a/1", name(1)), ("a/1", name(1))]);
        assert!(found(|f| check_nothing_wrong(&history(events), &twice, f)).is_empty(), "it may be the second record");
    }
}
