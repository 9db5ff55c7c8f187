//! MQTT topic ↔ kafka topic and record key.
//!
//! A rule's filter is an MQTT topic filter whose wildcards may have names: `{vin}` is a named `+` (exactly one level),
//! `{path#}` at the end is the named rest of the topic (one level or more, unlike `#`, which takes the parent level
//! too). As in a subscription, a wildcard at the first level does not match topics that begin with `$`
//! [MQTT-4.7.2-1]. The first rule that matches decides; what none matches goes to the default kafka topic.
//!
//! The record key is the whole MQTT topic, or a template over all the named levels (`{vin}/{path#}`), from which the
//! topic can be rebuilt. Rules for which it could not are refused when the mapping is made, so that for every legal
//! topic `to_mqtt(to_kafka(topic)) == topic`.
//!
//! In the other direction a record stands for a topic only if a publish of that topic would go to this kafka topic
//! under this key. A record that a foreign program wrote elsewhere stands for none: nobody who subscribes to that
//! topic reads that kafka topic on its account, so it would be delivered or not by what others subscribe to.

mod pattern;
mod template;
mod touch;

use std::borrow::Cow;

use crate::mqtt::TopicFilter;
use crate::mqtt::topic::check_name;

use pattern::Pattern;
use template::{KeyShape, Template};

/// Rules beyond this number are refused: each publish may look at all of them.
pub const RULES_MAX: usize = 1_000;

/// Index of a kafka topic among [`Mapping::kafka_topics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappedTopic(pub u16);

/// One rule as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// MQTT filter with optional named levels (`cars/{vin}/speed`, `cars/{path#}`, `+`, `#`).
    pub filter: String,
    /// The kafka topic.
    pub kafka_topic: String,
    /// Key template over the named levels; `None` means the whole MQTT topic.
    pub key: Option<String>,
}

/// Why rules were refused: which rule, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mapping rule {rule}: {what}")]
pub struct MappingError {
    /// Number of the rule, from 1; 0 is the default kafka topic.
    pub rule: usize,
    /// What is wrong.
    pub what: String,
}

/// Where a filter's messages can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The kafka topic.
    pub topic: MappedTopic,
    /// The one key, if only one can match: then only its partition need be read.
    pub key: Option<Vec<u8>>,
}

/// The rules, compiled.
#[derive(Debug)]
pub struct Mapping {
    /// The default one first.
    kafka_topics: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    topic: MappedTopic,
    /// `None`: the whole topic.
    key: Option<Template>,
}

/// What no rule matches.
const DEFAULT: MappedTopic = MappedTopic(0);

impl Mapping {
    /// Compiles the rules; what no rule matches goes to `default_topic` under its whole MQTT topic.
    ///
    /// # Errors
    /// A rule that cannot work: a filter or template that is malformed, a key from which the topic cannot be rebuilt,
    /// keys that two rules of one kafka topic could both write, a rule that the rules before it leave nothing.
    pub fn new(rules: &[RuleSpec], default_topic: &str) -> Result<Self, MappingError> {
        check_kafka_topic(default_topic).map_err(|what| MappingError { rule: 0, what })?;
        if rules.len() > RULES_MAX {
            let what = format!("there are more than {RULES_MAX} rules");
            return Err(MappingError { rule: RULES_MAX + 1, what });
        }
        let mut mapping = Self { kafka_topics: vec![default_topic.to_owned()], rules: Vec::with_capacity(rules.len()) };
        for (spec, number) in rules.iter().zip(1..) {
            mapping.add(spec).map_err(|what| MappingError { rule: number, what })?;
        }
        Ok(mapping)
    }

    /// Every kafka topic once, the default one first; [`MappedTopic`] indexes it.
    pub fn kafka_topics(&self) -> &[String] {
        &self.kafka_topics
    }

    /// Where a message of `topic` goes, and under which key: the first rule that matches. `topic` is a legal topic name.
    pub fn to_kafka<'t>(&self, topic: &'t str) -> (MappedTopic, Cow<'t, [u8]>) {
        match self.winner(topic) {
            None => (DEFAULT, Cow::Borrowed(topic.as_bytes())),
            Some((_, Rule { topic: to, key: None, .. })) => (*to, Cow::Borrowed(topic.as_bytes())),
            Some((_, Rule { topic: to, key: Some(template), pattern })) => {
                (*to, Cow::Owned(template.render(&pattern.captures(topic)).into_bytes()))
            }
        }
    }

    /// The MQTT topic of a record, if it stands for one: the key must be UTF-8, a legal topic name, and a publish of
    /// that topic must map back to this kafka topic and key.
    pub fn to_mqtt<'k>(&self, topic: MappedTopic, key: &'k [u8]) -> Option<Cow<'k, str>> {
        let key = std::str::from_utf8(key).ok()?;
        if check_name(key).is_ok() {
            match self.winner(key) {
                None if topic == DEFAULT => return Some(Cow::Borrowed(key)),
                Some((_, rule)) if rule.topic == topic && rule.key.is_none() => return Some(Cow::Borrowed(key)),
                None | Some(_) => {}
            }
        }
        // The rules of one kafka topic write different keys, so at most one of them has written this one.
        let with_template = self.rules.iter().enumerate().filter(|(_, rule)| rule.topic == topic);
        with_template.filter_map(|(n, rule)| Some((n, rule, rule.key.as_ref()?))).find_map(|(n, rule, template)| {
            let name = rule.pattern.rebuild(&template.invert(key)?);
            let wins = check_name(&name).is_ok() && self.winner(&name).is_some_and(|(winner, _)| winner == n);
            wins.then_some(Cow::Owned(name))
        })
    }

    /// The kafka topics that hold messages `filter` can match, in the order of [`Mapping::kafka_topics`]: no others need
    /// be read. Rules that earlier rules hide from the filter do not count. (That question is hard in general: with many
    /// rules that overlap in many ways the answer may name more kafka topics than needed, never fewer.)
    pub fn touched_by(&self, filter: &TopicFilter) -> Vec<Touch> {
        if !filter.has_wildcard() {
            let (topic, key) = self.to_kafka(filter.as_str());
            return vec![Touch { topic, key: Some(key.into_owned()) }];
        }
        let patterns = self.rules.iter().map(|rule| &rule.pattern).collect::<Vec<_>>();
        let winners = touch::winners(&patterns, &touch::Wanted::from_filter(filter));
        let mut topics: Vec<_> = winners.into_iter().map(|n| self.rules.get(n).map_or(DEFAULT, |r| r.topic)).collect();
        topics.sort_unstable();
        topics.dedup();
        topics.into_iter().map(|topic| Touch { topic, key: None }).collect()
    }

    /// The first rule that matches, with its index.
    fn winner(&self, topic: &str) -> Option<(usize, &Rule)> {
        self.rules.iter().enumerate().find(|(_, rule)| rule.pattern.matches(topic))
    }

    fn add(&mut self, spec: &RuleSpec) -> Result<(), String> {
        check_kafka_topic(&spec.kafka_topic)?;
        let pattern = Pattern::parse(&spec.filter)?;
        // A template that spells out the filter is the whole topic.
        let template = spec.key.as_deref().filter(|key| *key != spec.filter);
        let key = template.map(|key| Template::parse(key, &pattern)).transpose()?;
        let topic = self.number_of(&spec.kafka_topic)?;
        let rule = Rule { pattern, topic, key };
        self.check_keys_differ(&rule)?;
        let patterns: Vec<_> = self.rules.iter().map(|rule| &rule.pattern).chain([&rule.pattern]).collect();
        if !touch::winners(&patterns, &touch::Wanted::from_pattern(&rule.pattern)).contains(&self.rules.len()) {
            return Err(format!(
                "`{}` never gets a topic, because the rules before it match all of them; move it up or remove it",
                spec.filter
            ));
        }
        self.rules.push(rule);
        Ok(())
    }

    fn number_of(&mut self, kafka_topic: &str) -> Result<MappedTopic, String> {
        let at = self.kafka_topics.iter().position(|name| name == kafka_topic).unwrap_or_else(|| {
            self.kafka_topics.push(kafka_topic.to_owned());
            self.kafka_topics.len() - 1
        });
        u16::try_from(at).map(MappedTopic).map_err(|_| "there are too many kafka topics".to_owned())
    }

    /// Two rules with one kafka topic must not write the same key for different MQTT topics.
    fn check_keys_differ(&self, rule: &Rule) -> Result<(), String> {
        if rule.topic == DEFAULT && rule.key.is_some() {
            return Err("the default kafka topic is keyed by whole MQTT topics; a rule with a key template needs \
                        another kafka topic"
                .to_owned());
        }
        let shape = rule.key_shape();
        let same_topic = self.rules.iter().zip(1..).filter(|(other, _)| other.topic == rule.topic);
        for (other, number) in same_topic {
            if (rule.key.is_some() || other.key.is_some()) && shape.meets(&other.key_shape()) {
                return Err(format!(
                    "it and rule {number} could write the same key into one kafka topic for different MQTT topics; \
                     give them different kafka topics or keys that always differ"
                ));
            }
        }
        Ok(())
    }
}

impl Rule {
    fn key_shape(&self) -> KeyShape<'_> {
        self.key.as_ref().map_or_else(|| self.pattern.key_shape(), Template::key_shape)
    }
}

/// What Kafka allows as a name.
fn check_kafka_topic(name: &str) -> Result<(), String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.bytes().all(legal) {
        return Err(format!(
            "`{name}` is not a legal kafka topic: 1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_` and `-`, not `.` or `..`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
