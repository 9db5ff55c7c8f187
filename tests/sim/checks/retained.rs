//! At rest a new subscriber gets, for each topic, the newest message that was published to be retained, and nothing else;
//! the newest is the last one in the log.

use std::collections::BTreeMap;

use super::Findings;
use super::probe::Probed;
use crate::history::Name;
use crate::log_view::LogView;

pub(crate) fn check(log: &LogView, probed: &Probed, findings: &mut Findings) {
    let mut expected: BTreeMap<&str, Name> = BTreeMap::new();
    for written in log.written.iter().filter(|written| written.retain) {
        if written.name == Name::Clear {
            expected.remove(written.topic.as_str());
        } else {
            expected.insert(&written.topic, written.name);
        }
    }
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
                Some(newest) if newest == name => {}
                Some(newest) => {
                    findings.add("retained", format!("{node} has {name} on {topic}, the newest is {newest}"));
                }
                None if expected.contains_key(topic) => {
                    findings.add("retained", format!("{node} has {name} on {topic}, and another one before it"));
                }
                None => findings.add("retained", format!("{node} has {name} on {topic}, where nothing is retained")),
            }
        }
        for (topic, name) in missing {
            findings.add("retained", format!("{node} has nothing on {topic}, the newest is {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{found, log, message, name};
    use super::*;
    use crate::history::Message;

    fn wrong(seen: &[(&str, u32)]) -> usize {
        let mut log = log(&[("a", name(1)), ("a", name(2)), ("b", name(3)), ("b", Name::Clear), ("a", name(4))]);
        log.written.iter_mut().take(4).for_each(|written| written.retain = true);
        let retained = |&(topic, number): &(&str, u32)| Message { retain: true, ..message(number, topic, 1) };
        let probed = vec![("a node", Ok(seen.iter().map(retained).collect()))];
        found(|f| check(&log, &probed, f)).len()
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
        assert_eq!(found(|f| check(&LogView::default(), &probed, f)).len(), 1);
    }
}
