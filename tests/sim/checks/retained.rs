//! At rest a new subscriber gets, for each topic, the newest message that was published to be retained, and nothing else;
//! the newest is the last one in the log. While its node lives, one whose append has an unknown fate need not count (R4a).

use std::collections::{BTreeMap, BTreeSet};

use super::probe::Probed;
use super::{Findings, events};
use crate::history::{Answer, Event, History, Name};
use crate::log_view::LogView;

pub(crate) fn check(
    history: &History,
    log: &LogView,
    appends_may_be_unknown: bool,
    probed: &Probed,
    findings: &mut Findings,
) {
    let acked: BTreeSet<Name> = events(history)
        .filter_map(|(_, event)| match event {
            Event::Answered { name, answer: Answer::Acked | Answer::Received, .. } => Some(*name),
            _ => None,
        })
        .collect();
    let is_certain = |name: &Name| !appends_may_be_unknown || (acked.contains(name) && *name != Name::Clear);
    // What may be the newest, by topic: the last one of which it is certain, and what came after it.
    let mut possible: BTreeMap<&str, Vec<Name>> = BTreeMap::new();
    for written in log.written.iter().filter(|written| written.retain) {
        let names = possible.entry(&written.topic).or_insert_with(|| vec![Name::Clear]);
        if is_certain(&written.name) {
            names.clear();
        }
        names.push(written.name);
    }
    let expected: BTreeMap<&str, &Vec<Name>> =
        possible.iter().filter(|(_, names)| **names != [Name::Clear]).map(|(topic, names)| (*topic, names)).collect();
    for (node, answer) in probed {
        let messages = match answer {
            Ok(messages) => messages,
            Err(why) => {
                findings.add("retained", format!("{node}: {why}"));
                continue;
            }
        };
        let mut missing = expected.clone();
        for message in messages.iter().filter(|message| message.name != Name::Junk) {
            let (topic, name) = (message.topic.as_str(), message.name);
            match missing.remove(topic) {
                _ if !message.retain => findings.add("retained", format!("{node} has {name} on {topic} as a live one")),
                Some(newest) if newest.contains(&name) => {}
                Some(newest) => {
                    findings.add("retained", format!("{node} has {name} on {topic}, the newest is {newest:?}"));
                }
                None if expected.contains_key(topic) => {
                    findings.add("retained", format!("{node} has {name} on {topic}, and another one before it"));
                }
                None => findings.add("retained", format!("{node} has {name} on {topic}, where nothing is retained")),
            }
        }
        for (topic, newest) in missing.into_iter().filter(|(_, newest)| !newest.contains(&Name::Clear)) {
            findings.add("retained", format!("{node} has nothing on {topic}, the newest is {newest:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{acked, found, history, log, message, name};
    use super::*;
    use crate::history::Message;

    fn wrong(seen: &[(&str, u32)]) -> usize {
        wrong_after(&history(vec![]), false, seen)
    }

    fn wrong_after(history: &History, appends_may_be_unknown: bool, seen: &[(&str, u32)]) -> usize {
        let mut log = log(&[("a", name(1)), ("a", name(2)), ("b", name(3)), ("b", Name::Clear), ("a", name(4))]);
        log.written.iter_mut().take(4).for_each(|written| written.retain = true);
        let retained = |&(topic, number): &(&str, u32)| Message { retain: true, ..message(number, topic, 1) };
        let probed = vec![("a node", Ok(seen.iter().map(retained).collect()))];
        found(|f| check(history, &log, appends_may_be_unknown, &probed, f)).len()
    }

    #[test]
    fn one_of_unknown_fate_need_not_be_the_newest_but_none_before_the_last_that_is_certain_is() {
        let acked = |number| history(vec![acked(&message(number, "a", 1))]);
        assert_eq!(wrong_after(&acked(1), true, &[("a", 1), ("b", 3)]), 0);
        assert_eq!(wrong_after(&acked(1), true, &[("a", 2)]), 0);
        assert_eq!(wrong_after(&acked(1), true, &[]), 1);
        assert_eq!(wrong_after(&acked(2), true, &[("a", 1)]), 1);
    }

    #[test]
    fn only_the_newest_retained_message_of_each_topic_is_right() {
        assert_eq!(wrong(&[("a", 2)]), 0);
        assert_eq!(wrong(&[("a", 1)]), 1, "an older one");
        assert_eq!(wrong(&[("a", 4)]), 1, "not retained");
        assert_eq!(wrong(&[]), 1, "nothing");
        assert_eq!(wrong(&[("a", 2), ("b", 3)]), 1, "cleared");
        assert_eq!(wrong(&[("a", 2), ("a", 2)]), 1, "twice");
        let probed = vec![("a node", Err("it sleeps".to_owned()))];
        assert_eq!(found(|f| check(&History::default(), &LogView::default(), false, &probed, f)).len(), 1);
    }
}
