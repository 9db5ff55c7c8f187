//! A rule's filter: levels, then perhaps the rest.

use smallvec::SmallVec;

use super::template::{KeyShape, Segment};

/// Levels of a rule beyond this number are refused.
const LEVELS_MAX: usize = 128;

/// The named parts of a topic, in the order of their names.
pub(super) type Captures<'t> = SmallVec<[&'t str; 8]>;

/// A filter with names.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) levels: Vec<Level>,
    pub(super) tail: Tail,
    /// The placeholders as written (`{vin}`, `{path#}`), in the order of the levels.
    pub(super) names: Vec<String>,
}

/// One level.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// This text.
    Literal(Box<str>),
    /// Anything: `+`, or `{name}`.
    Any { named: bool },
}

/// What may follow the levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing.
    End,
    /// `#`: anything, also nothing.
    Multi,
    /// `{name#}`: one level or more.
    Rest,
}

impl Pattern {
    /// Reads a rule's filter; the error is a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') || text.len() > 65_535 {
            return Err("the filter is empty, longer than 65,535 bytes or holds U+0000".to_owned());
        }
        let mut pattern = Self { levels: Vec::new(), tail: Tail::End, names: Vec::new() };
        for level in text.split('/') {
            if pattern.tail != Tail::End {
                return Err(format!("in `{text}` something follows `#` or the named rest, which must be last"));
            }
            match level {
                "+" => pattern.levels.push(Level::Any { named: false }),
                "#" => pattern.tail = Tail::Multi,
                _ if level.starts_with('{') => pattern.add_name(level)?,
                _ if level.contains(['+', '#', '{', '}']) => {
                    return Err(format!(
                        "`{level}` in `{text}` mixes text with a wildcard; `+`, `#`, `{{name}}` and `{{name#}}` must \
                         be whole levels"
                    ));
                }
                _ => pattern.levels.push(Level::Literal(level.into())),
            }
        }
        if pattern.levels.len() > LEVELS_MAX {
            return Err(format!("`{text}` has more than {LEVELS_MAX} levels"));
        }
        Ok(pattern)
    }

    fn add_name(&mut self, placeholder: &str) -> Result<(), String> {
        let Some(inner) = placeholder.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
            return Err(format!("`{placeholder}` is not a whole level of the form `{{name}}` or `{{name#}}`"));
        };
        let name = inner.strip_suffix('#');
        let plain = name.unwrap_or(inner);
        if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(format!("`{placeholder}`: a name is made of letters, digits, `_` and `-`"));
        }
        if self.names.iter().any(|n| n.trim_matches(['{', '#', '}']) == plain) {
            return Err(format!("the name `{plain}` is used twice"));
        }
        self.names.push(placeholder.to_owned());
        if name.is_some() {
            self.tail = Tail::Rest;
        } else {
            self.levels.push(Level::Any { named: true });
        }
        Ok(())
    }

    /// Whether a topic is one of the filter's.
    pub(super) fn matches(&self, topic: &str) -> bool {
        // What is left of the topic; `None` after its last level.
        let mut left = Some(topic);
        for level in &self.levels {
            let Some(text) = left else { return false };
            left = match level {
                Level::Literal(literal) => match text.strip_prefix(&**literal) {
                    Some("") => None,
                    Some(after) if after.starts_with('/') => after.get(1..),
                    Some(_) | None => return false,
                },
                Level::Any { .. } => text.split_once('/').map(|(_, after)| after),
            };
        }
        let tail = match self.tail {
            Tail::End => left.is_none(),
            Tail::Multi => true,
            Tail::Rest => left.is_some(),
        };
        tail && !(topic.starts_with('$') && self.begins_with_wildcard())
    }

    /// Then no topic that begins with `$` matches.
    pub(super) fn begins_with_wildcard(&self) -> bool {
        match self.levels.first() {
            Some(level) => matches!(level, Level::Any { .. }),
            None => true,
        }
    }

    /// The named parts of a topic that matches.
    pub(super) fn captures<'t>(&self, topic: &'t str) -> Captures<'t> {
        let (mut captures, mut left) = (Captures::new(), topic);
        for level in &self.levels {
            let (text, after) = left.split_once('/').unwrap_or((left, ""));
            if *level == (Level::Any { named: true }) {
                captures.push(text);
            }
            left = after;
        }
        if self.tail == Tail::Rest {
            captures.push(left);
        }
        captures
    }

    /// The topic with these named parts; every wildcard has a name.
    pub(super) fn rebuild(&self, captures: &[&str]) -> String {
        let mut topic = String::with_capacity(64);
        let mut captures = captures.iter().copied();
        for (level, n) in self.levels.iter().zip(0..) {
            if n > 0 {
                topic.push('/');
            }
            topic.push_str(match level {
                Level::Literal(literal) => literal,
                Level::Any { .. } => captures.next().unwrap_or_default(),
            });
        }
        if let Some(rest) = captures.next() {
            if !self.levels.is_empty() {
                topic.push('/');
            }
            topic.push_str(rest);
        }
        topic
    }

    /// Whether every wildcard has a name.
    pub(super) fn is_fully_named(&self) -> bool {
        self.tail != Tail::Multi && !self.levels.contains(&Level::Any { named: false })
    }

    /// The shape of the topics themselves.
    pub(super) fn key_shape(&self) -> KeyShape<'_> {
        let mut before = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            before.push(match level {
                Level::Literal(text) => Segment::Text(text),
                Level::Any { .. } => Segment::Around("", ""),
            });
        }
        let gap = match self.tail {
            Tail::End => None,
            Tail::Multi => Some(0),
            Tail::Rest => Some(1),
        };
        KeyShape { before, gap, gap_prefix: "", gap_suffix: "", after: Vec::new() }
    }
}
