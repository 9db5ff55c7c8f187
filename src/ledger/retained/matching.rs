//! Finding the topics of a filter in an ordered map without looking at all of them.
//!
//! A key is the topic with U+0000, which no topic holds, instead of each `/`: then the order of keys is the order of
//! levels, and what cannot match is passed over in one step.

use crate::mqtt::TopicFilter;

/// Between two levels of a key.
const SEPARATOR: char = '\0';
/// Behind everything below a level.
const BEHIND: char = '\u{1}';
/// Behind every key that begins with `$`.
const BEHIND_DOLLAR: &str = "%";

pub(super) fn key_of(topic: &str) -> Box<str> {
    topic.replace('/', "\0").into()
}

pub(super) fn topic_of(key: &str) -> String {
    key.replace(SEPARATOR, "/")
}

/// Whether a topic matches a filter (MQTT5 §4.7).
pub fn matches(filter: &TopicFilter, topic: &str) -> bool {
    step(filter, &key_of(topic)) == Step::Match
}

/// What to do at a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Match,
    /// No key before this one matches; it is behind the present one.
    Seek(String),
    /// No key behind it matches.
    End,
}

pub(super) fn step(filter: &TopicFilter, key: &str) -> Step {
    let mut levels = key.split(SEPARATOR);
    // Bytes of the key before the level that is looked at.
    let mut before = 0_usize;
    for (index, wanted) in filter.levels().enumerate() {
        let level = levels.next();
        match (wanted, level) {
            // [MQTT-4.7.2-1]
            ("#" | "+", Some(level)) if index == 0 && level.starts_with('$') => {
                return Step::Seek(BEHIND_DOLLAR.to_owned());
            }
            ("#", _) => return Step::Match,
            ("+", None) => return Step::Seek(format!("{key}{SEPARATOR}")),
            (wanted, None) => return Step::Seek(format!("{key}{SEPARATOR}{wanted}")),
            ("+", Some(_)) => {}
            (wanted, Some(level)) if level < wanted => {
                return Step::Seek(format!("{}{wanted}", key.get(..before).unwrap_or_default()));
            }
            (wanted, Some(level)) if level > wanted => return behind(key, before),
            (_, Some(_)) => {}
        }
        before += level.map_or(0, str::len) + 1;
    }
    // A level more than the filter has: nothing below matches.
    if levels.next().is_some() { behind(key, before) } else { Step::Match }
}

/// Behind everything below the level that ends at `end`, its separator included.
fn behind(key: &str, end: usize) -> Step {
    match end.checked_sub(1).and_then(|end| key.get(..end)) {
        Some(prefix) => Step::Seek(format!("{prefix}{BEHIND}")),
        None => Step::End,
    }
}
