//! What a run is held against. Each check is a function from what was seen to sentences about what is wrong; each is
//! tested on histories made by hand, right and wrong.

mod delivery;
mod durability;
mod late_retained;
mod litter;
mod order;
mod ownership;
pub(crate) mod probe;
mod protocol;
mod retained;
mod session_present;
mod wills;

use std::fmt;

use crate::history::{Entry, Event, History};
use crate::log_view::LogView;
use crate::plan::Plan;
use probe::Probed;

/// Sentences shown of one check.
const SHOWN_MAX: usize = 5;

/// What is wrong, by check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings(Vec<(&'static str, String)>);

impl Findings {
    pub(crate) fn add(&mut self, check: &'static str, what: String) {
        self.0.push((check, what));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line.
    pub(crate) fn summary(&self) -> String {
        let first = self.0.first().and_then(|(_, what)| what.lines().next()).unwrap_or_default();
        let mut checks: Vec<_> = self.0.iter().map(|(check, _)| *check).collect();
        checks.dedup();
        format!("{} ({} in all): {first}", checks.join(", "), self.0.len())
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (check, what) in self.0.iter().take(SHOWN_MAX) {
            writeln!(f, "{check}: {what}")?;
        }
        let more = self.0.len().saturating_sub(SHOWN_MAX);
        if more > 0 { writeln!(f, "and {more} more") } else { Ok(()) }
    }
}

/// Looks at everything. What can only be judged at rest is not judged when the run did not come to it.
pub(crate) fn check(
    plan: &Plan,
    history: &History,
    log: &LogView,
    probed: &Probed,
    is_at_rest: bool,
    findings: &mut Findings,
) {
    protocol::check(history, findings);
    durability::check(history, log, findings);
    order::check_log(history, log, plan.log_keeps_order, findings);
    order::check_subscribers(history, log, findings);
    delivery::check_nothing_wrong(history, log, findings);
    session_present::check(history, plan.features.persistent, findings);
    ownership::check(history, is_at_rest, findings);
    if is_at_rest {
        delivery::check_nothing_missing(history, findings);
        if plan.features.retained {
            retained::check(history, log, plan.appends_may_be_unknown, probed, findings);
            late_retained::check(history, log, findings);
        }
        if plan.features.wills {
            wills::check(plan, history, log, findings);
        }
        litter::check(history, log, findings);
    }
}

/// Events with their places in the history.
fn events(history: &History) -> impl Iterator<Item = (usize, &Event)> {
    history.entries.iter().enumerate().map(|(index, Entry { event, .. })| (index, event))
}

/// Where in the history which client gave its session up: it asked for a clean start, or left one that ends with its
/// connection.
fn given_up(history: &History) -> impl Iterator<Item = (usize, usize)> {
    let mut fleeting = std::collections::BTreeSet::new();
    events(history).filter_map(move |(index, event)| match event {
        Event::Connecting { link, asked } => {
            if asked.expiry_s == 0 {
                fleeting.insert(*link);
            }
            asked.clean_start.then_some((index, link.client))
        }
        Event::Ended { link, .. } => fleeting.contains(link).then_some((index, link.client)),
        _ => None,
    })
}

/// Whether a topic matches a filter [MQTT-4.7]; none of the topics of a run begins with `$`.
fn is_match(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        match (part, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod made {
    //! Histories made by hand.

    use super::*;
    use crate::history::{Answer, Asked, End, Link, Message, Name};
    use crate::log_view::Written;

    pub(crate) fn link(client: usize, connection: u32) -> Link {
        Link { client, connection }
    }

    pub(crate) fn name(number: u32) -> Name {
        Name::Message { client: 0, number }
    }

    pub(crate) fn message(number: u32, topic: &str, qos: u8) -> Message {
        Message { name: name(number), topic: topic.to_owned(), qos, retain: false }
    }

    pub(crate) fn history(events: Vec<Event>) -> History {
        let entries = events.into_iter().zip(0..).map(|(event, at_ms)| Entry { at_ms: at_ms * 1000, event }).collect();
        History { entries }
    }

    pub(crate) fn log(written: &[(&str, Name)]) -> LogView {
        let written = written.iter().zip(0..).map(|(&(topic, name), offset)| Written {
            partition: 0,
            offset,
            topic: topic.to_owned(),
            name,
            retain: false,
            at_ms: 0,
        });
        LogView { written: written.collect(), ..LogView::default() }
    }

    pub(crate) fn asked(clean_start: bool, expiry_s: u32) -> Asked {
        Asked { node: 0, clean_start, expiry_s, will: None }
    }

    pub(crate) fn connect(client: usize, connection: u32, asked: Asked, session_present: bool) -> [Event; 2] {
        let link = link(client, connection);
        [Event::Connecting { link, asked }, Event::Accepted { link, session_present }]
    }

    pub(crate) fn subscribe(client: usize, connection: u32, filter: &str, qos: u8) -> [Event; 2] {
        let (link, filters) = (link(client, connection), vec![(filter.to_owned(), qos)]);
        [Event::Subscribing { link, filters: filters.clone() }, Event::Subscribed { link, filters }]
    }

    pub(crate) fn sent(message: &Message) -> Event {
        Event::Sent { link: link(0, 0), message: message.clone(), dup: false }
    }

    pub(crate) fn acked(message: &Message) -> Event {
        let answer = if message.qos == 2 { Answer::Received } else { Answer::Acked };
        Event::Answered { link: link(0, 0), name: message.name, topic: message.topic.clone(), answer }
    }

    pub(crate) fn delivered(client: usize, connection: u32, message: &Message) -> Event {
        Event::Delivered { link: link(client, connection), message: message.clone(), dup: false, fresh: true }
    }

    pub(crate) fn ended(client: usize, connection: u32, end: End) -> Event {
        Event::Ended { link: link(client, connection), end }
    }

    /// What a check finds.
    pub(crate) fn found(check: impl FnOnce(&mut Findings)) -> Vec<String> {
        let mut findings = Findings::default();
        check(&mut findings);
        findings.0.into_iter().map(|(_, what)| what).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::is_match;

    #[test]
    fn filters_match_as_they_do_in_mqtt() {
        for (filter, topic, expected) in [
            ("a/1", "a/1", true),
            ("a/1", "a/2", false),
            ("a/+", "a/1", true),
            ("a/+", "a/1/deep", false),
            ("b/#", "b", true),
            ("b/#", "b/2/x", true),
            ("#", "c", true),
            ("+/1/#", "a/1/deep", true),
            ("+/1", "a/1/deep", false),
            ("a/1/deep", "a/1", false),
        ] {
            assert_eq!(is_match(filter, topic), expected, "{filter} {topic}");
        }
    }
}
