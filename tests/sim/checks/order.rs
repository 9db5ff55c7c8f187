//! Order per topic and publisher: in the log, and at each subscriber.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, events, given_up};
use crate::history::{Answer, Event, History, Name};
use crate::log_view::LogView;

/// A publisher's messages of one QoS to one topic; of QoS 0 those of one connection.
type Lane = (usize, u32, String, u8);

/// The log has a publisher's messages in its order: always where one was acknowledged before the next was sent, and in
/// the order of sending where the log lost nothing of a node that lived (`log_keeps_order`).
pub(crate) fn check_log(history: &History, log: &LogView, log_keeps_order: bool, findings: &mut Findings) {
    let places = log.places();
    let first = |name: &Name| places.get(name).and_then(|places| places.first()).map(|place| place.offset);
    let mut lane_of: BTreeMap<Name, Lane> = BTreeMap::new();
    let abandoned: BTreeSet<Name> = events(history)
        .filter_map(|(_, event)| if let Event::Abandoned { name, .. } = event { Some(*name) } else { None })
        .collect();
    // The highest first offset of those acknowledged, and of those sent, so far.
    let mut acked: BTreeMap<Lane, (i64, Name)> = BTreeMap::new();
    let mut sent: BTreeMap<Lane, (i64, Name)> = BTreeMap::new();
    for (_, event) in events(history) {
        match event {
            Event::Sent { link, message, dup: false } => {
                let Name::Message { client, .. } = message.name else { continue };
                if lane_of.contains_key(&message.name) || abandoned.contains(&message.name) {
                    continue;
                }
                let connection = if message.qos == 0 { link.connection } else { 0 };
                let lane = (client, connection, message.topic.clone(), message.qos);
                lane_of.insert(message.name, lane.clone());
                let Some(offset) = first(&message.name) else { continue };
                let before = if log_keeps_order { sent.get(&lane) } else { acked.get(&lane) };
                if let Some((_, earlier)) = before.filter(|(before, _)| *before > offset) {
                    let name = message.name;
                    findings.add("order", format!("{name} is before {earlier} in the log, and was sent after it"));
                }
                let highest = sent.entry(lane).or_insert((offset, message.name));
                *highest = (*highest).max((offset, message.name));
            }
            Event::Answered { name, answer: Answer::Acked | Answer::Received, .. } => {
                if let (Some(lane), Some(offset)) = (lane_of.get(name), first(name)) {
                    let highest = acked.entry(lane.clone()).or_insert((offset, *name));
                    *highest = (*highest).max((offset, *name));
                }
            }
            _ => {}
        }
    }
}

/// A subscriber gets the messages of a topic in the order of the log, repetitions aside [MQTT-4.6.0-5]. Only messages that
/// are in the log once say which record they are.
pub(crate) fn check_subscribers(history: &History, log: &LogView, findings: &mut Findings) {
    let places = log.places();
    let mut sessions: BTreeMap<usize, Seen> = BTreeMap::new();
    let given_up: BTreeMap<usize, usize> = given_up(history).collect();
    for (index, event) in events(history) {
        if let Some(client) = given_up.get(&index) {
            sessions.remove(client);
        }
        match event {
            Event::Accepted { link, session_present: false } => {
                sessions.remove(&link.client);
            }
            Event::Delivered { link, message, fresh: true, .. } if !message.retain => {
                let Some([place]) = places.get(&message.name).map(Vec::as_slice) else { continue };
                if message.name == Name::Clear {
                    continue;
                }
                let seen = sessions.entry(link.client).or_default();
                if !seen.names.insert(message.name) {
                    continue;
                }
                let highest = seen.highest.entry((message.topic.clone(), message.qos)).or_insert((-1, message.name));
                if highest.0 > place.offset {
                    let (name, before) = (message.name, highest.1);
                    findings.add("order", format!("client {} got {name} at {index} after {before}", link.client));
                }
                *highest = (*highest).max((place.offset, message.name));
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct Seen {
    names: BTreeSet<Name>,
    /// By topic and QoS.
    highest: BTreeMap<(String, u8), (i64, Name)>,
}

#[cfg(test)]
mod tests {
    use super::super::made::{acked, delivered, found, history, log, message, name, sent};
    use super::*;

    #[test]
    fn messages_that_changed_places_in_the_log_are_found() {
        let (one, two) = (message(1, "a", 1), message(2, "a", 1));
        let swapped = log(&[("a", name(2)), ("a", name(1))]);
        let one_by_one = history(vec![sent(&one), acked(&one), sent(&two), acked(&two)]);
        assert_eq!(found(|f| check_log(&one_by_one, &swapped, false, f)).len(), 1);
        let together = history(vec![sent(&one), sent(&two), acked(&one), acked(&two)]);
        assert!(found(|f| check_log(&together, &swapped, false, f)).is_empty());
        assert_eq!(found(|f| check_log(&together, &swapped, true, f)).len(), 1);
        let right = log(&[("a", name(1)), ("a", name(2)), ("a", name(1))]);
        assert!(found(|f| check_log(&one_by_one, &right, true, f)).is_empty(), "a repetition may be anywhere");
    }

    #[test]
    fn a_subscriber_that_gets_them_in_another_order_is_found() {
        let (one, two) = (message(1, "a", 1), message(2, "a", 1));
        let log = log(&[("a", name(1)), ("a", name(2))]);
        let right = history(vec![delivered(1, 0, &one), delivered(1, 0, &two), delivered(1, 0, &one)]);
        assert!(found(|f| check_subscribers(&right, &log, f)).is_empty());
        let wrong = history(vec![delivered(1, 0, &two), delivered(1, 0, &one)]);
        assert_eq!(found(|f| check_subscribers(&wrong, &log, f)).len(), 1);
        let lower = message(1, "a", 0);
        let other_qos = history(vec![delivered(1, 0, &two), delivered(1, 0, &lower)]);
        assert!(found(|f| check_subscribers(&other_qos, &log, f)).is_empty(), "order holds within one QoS");
    }
}
