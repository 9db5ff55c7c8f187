//! What was acknowledged is in the log; a message of QoS 2 is there once.

use std::collections::BTreeMap;

use super::{Findings, events};
use crate::history::{Answer, Event, History, Name};
use crate::log_view::LogView;

pub(crate) fn check(history: &History, log: &LogView, findings: &mut Findings) {
    let places = log.places();
    let mut qos_of = BTreeMap::new();
    let mut clears: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, event) in events(history) {
        match event {
            Event::Sent { message, .. } if message.name != Name::Clear => {
                qos_of.insert(message.name, message.qos);
            }
            Event::Answered { name: Name::Clear, topic, answer: Answer::Acked | Answer::Received, .. } => {
                *clears.entry(topic).or_default() += 1;
            }
            Event::Answered { name, topic, answer: Answer::Acked | Answer::Received | Answer::Completed, .. }
                if !places.get(name).is_some_and(|places| places.iter().any(|place| place.topic == *topic)) =>
            {
                findings.add("durability", format!("{name} was acknowledged at {index} and is not in the log"));
            }
            _ => {}
        }
    }
    for (topic, count) in clears {
        let is = places.get(&Name::Clear).map_or(0, |all| all.iter().filter(|place| place.topic == topic).count());
        if is < count {
            findings.add("durability", format!("{count} empty publishes to {topic} were acknowledged, {is} are there"));
        }
    }
    for (name, places) in &places {
        match qos_of.get(name) {
            Some(2) if places.len() > 1 => {
                findings.add("durability", format!("{name} of QoS 2 is in the log {} times", places.len()));
            }
            None if matches!(name, Name::Message { .. }) => {
                findings.add("durability", format!("{name} is in the log and nobody published it"));
            }
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{acked, found, history, log, message, name, sent};
    use super::*;

    #[test]
    fn an_acknowledged_message_that_is_not_in_the_log_is_found() {
        let one = message(1, "a", 1);
        let run = history(vec![sent(&one), acked(&one)]);
        assert!(found(|f| check(&run, &log(&[("a", name(1))]), f)).is_empty());
        assert!(found(|f| check(&run, &log(&[("a", name(1)), ("a", name(1))]), f)).is_empty());
        assert_eq!(found(|f| check(&run, &log(&[("b", name(1))]), f)).len(), 1);
        assert_eq!(found(|f| check(&run, &log(&[]), f)).len(), 1);
    }

    #[test]
    fn a_message_of_qos_2_that_is_twice_in_the_log_is_found() {
        let one = message(1, "a", 2);
        let run = history(vec![sent(&one)]);
        assert!(found(|f| check(&run, &log(&[]), f)).is_empty());
        assert!(found(|f| check(&run, &log(&[("a", name(1))]), f)).is_empty());
        assert_eq!(found(|f| check(&run, &log(&[("a", name(1)), ("a", name(1))]), f)).len(), 1);
    }

    #[test]
    fn a_message_that_nobody_published_is_found() {
        assert_eq!(found(|f| check(&history(vec![]), &log(&[("a", name(1))]), f)).len(), 1);
    }
}
