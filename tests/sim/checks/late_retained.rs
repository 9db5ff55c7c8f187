//! A subscription gets, of each topic, what was retained when it was asked for, however late that is written, or something
//! newer: R5. Looked at are those whose connection lasted until everything was at rest.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, events, is_match};
use crate::history::{Answer, Event, History, Link, Message, Name};
use crate::log_view::LogView;

/// A subscription of one connection: where its SUBSCRIBE is in the history, and the lowest QoS that was granted.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    asked_at: usize,
    qos: Option<u8>,
}

pub(crate) fn check(history: &History, log: &LogView, findings: &mut Findings) {
    let (acked, sent_qos) = (acked_retained(history), sent_qos(history));
    for ((link, filter), Subscription { asked_at, qos }) in subscriptions(history) {
        if qos.is_none_or(|qos| qos == 0) {
            continue;
        }
        let mut topics: BTreeSet<&str> = BTreeSet::new();
        topics.extend(log.written.iter().map(|written| written.topic.as_str()).filter(|topic| is_match(filter, topic)));
        let got: BTreeSet<Name> = events(history)
            .skip(asked_at)
            .filter_map(|(_, event)| match event {
                Event::Delivered { link: at, message, .. } if at.client == link.client => Some(message.name),
                _ => None,
            })
            .collect();
        for topic in topics {
            let was_retained = |name: &Name| acked.get(name).is_some_and(|(at, _)| *at < asked_at);
            let on_topic: Vec<_> = log.written.iter().filter(|written| written.topic == topic).collect();
            let Some(last) = on_topic.iter().rposition(|written| written.retain && was_retained(&written.name)) else {
                continue;
            };
            let name = on_topic[last].name;
            let first = on_topic.iter().position(|written| written.name == name).unwrap_or(last);
            // What is cleared need not come, nor what may be dropped.
            let must_come = |name: &Name| sent_qos.get(name).is_some_and(|sent| *sent > 0);
            let names: Vec<Name> = on_topic[first..].iter().map(|written| written.name).collect();
            if names.iter().all(must_come) && !names.iter().any(|name| got.contains(name)) {
                let what = format!("{link:?} subscribed to {filter} at {asked_at} and never got {name} on {topic}");
                findings.add("retained", what);
            }
        }
    }
}

/// Subscriptions that were there when everything was at rest, on the connection that asked for them.
fn subscriptions(history: &History) -> BTreeMap<(Link, &str), Subscription> {
    let mut found: BTreeMap<(Link, &str), Subscription> = BTreeMap::new();
    for (index, event) in events(history) {
        match event {
            Event::Subscribing { link, filters } => {
                for (filter, _) in filters {
                    found.entry((*link, filter)).or_insert(Subscription { asked_at: index, qos: None });
                }
            }
            Event::Subscribed { link, filters } => {
                for (filter, granted) in filters {
                    if let Some(known) = found.get_mut(&(*link, filter.as_str())) {
                        known.qos = Some(known.qos.unwrap_or(*granted).min(*granted));
                    }
                }
            }
            Event::Unsubscribing { link, filters } => {
                found.retain(|(at, filter), _| at != link || !filters.iter().any(|gone| gone == filter));
            }
            Event::Ended { link, .. } => found.retain(|(at, _), _| at != link),
            Event::Phase("all come back") => return found,
            _ => {}
        }
    }
    found
}

/// Acknowledged messages that were to be retained, and where in the history that was.
fn acked_retained(history: &History) -> BTreeMap<Name, (usize, &Message)> {
    let mut sent: BTreeMap<Name, &Message> = BTreeMap::new();
    let mut acked = BTreeMap::new();
    for (index, event) in events(history) {
        match event {
            Event::Sent { message, .. } if message.retain && message.name != Name::Clear => {
                sent.insert(message.name, message);
            }
            Event::Answered { name, answer: Answer::Acked | Answer::Received, .. } => {
                if let Some(message) = sent.get(name) {
                    acked.entry(*name).or_insert((index, *message));
                }
            }
            _ => {}
        }
    }
    acked
}

/// The QoS that messages were published with; not of wills and of what clears.
fn sent_qos(history: &History) -> BTreeMap<Name, u8> {
    let sent = events(history).filter_map(|(_, event)| match event {
        Event::Sent { message, .. } if message.name != Name::Clear => Some((message.name, message.qos)),
        _ => None,
    });
    sent.collect()
}

#[cfg(test)]
mod tests {
    use super::super::made::{
        acked, asked, connect, delivered, ended, found, history, log, message, name, sent, subscribe,
    };
    use super::*;
    use crate::history::End;

    /// What is wrong when a message is retained, somebody subscribes and then `more` happens.
    fn wrong(more: Vec<Event>, written: &[(&str, Name)]) -> usize {
        let one = Message { retain: true, ..message(1, "a", 1) };
        let mut events = vec![sent(&one), acked(&one)];
        events.extend(connect(1, 0, asked(true, 0), false));
        events.extend(subscribe(1, 0, "#", 1));
        events.extend(more);
        let mut log = log(written);
        log.written.iter_mut().for_each(|written| written.retain = written.name != name(2));
        found(|f| check(&history(events), &log, f)).len()
    }

    #[test]
    fn what_was_retained_before_must_come_or_something_newer() {
        let (one, two) = (message(1, "a", 1), message(2, "a", 1));
        let only = [("a", name(1))];
        assert_eq!(wrong(vec![], &only), 1);
        assert_eq!(wrong(vec![delivered(1, 0, &one)], &only), 0);
        assert_eq!(wrong(vec![ended(1, 0, End::Cut)], &only), 0, "it did not stay");
        assert_eq!(wrong(vec![], &[("a", name(1)), ("a", Name::Clear)]), 0, "cleared");
        let newer = [("a", name(1)), ("a", name(2))];
        assert_eq!(wrong(vec![sent(&two), delivered(1, 0, &two)], &newer), 0);
        assert_eq!(wrong(vec![sent(&two)], &newer), 1);
        assert_eq!(wrong(vec![], &[("b", name(3))]), 0, "never acknowledged");
    }
}
