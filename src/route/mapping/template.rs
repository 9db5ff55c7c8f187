//! Key templates: text around named levels, such that the levels can be read out of the key again.
//!
//! Within a `/`-separated segment of the key there is at most one placeholder, and one level holds no `/`, so a segment
//! minus its fixed prefix and suffix is the level. Only the rest (`{path#}`) holds `/`, and there is at most one.

use super::pattern::{Captures, Pattern};

/// A template, one item for each segment as written.
#[derive(Debug)]
pub(super) struct Template {
    segments: Vec<Part>,
    /// Number of placeholders.
    names: usize,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Named {
        prefix: String,
        /// Which of the pattern's names.
        name: usize,
        suffix: String,
        /// Whether it is the rest.
        rest: bool,
    },
}

impl Template {
    /// Reads a template over the names of `pattern`; the error is a sentence.
    pub(super) fn parse(text: &str, pattern: &Pattern) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err("the key template is empty or holds U+0000".to_owned());
        }
        if !pattern.is_fully_named() {
            return Err(format!(
                "the topic cannot be rebuilt from the key `{text}`, because the filter has wildcards without a name; \
                 write `{{name}}` for `+` and `{{name#}}` for `#`"
            ));
        }
        let template = Self {
            segments: text.split('/').map(|segment| Part::parse(segment, pattern)).collect::<Result<_, _>>()?,
            names: pattern.names.len(),
        };
        for (name, n) in pattern.names.iter().zip(0..) {
            let uses = template.segments.iter().filter(|part| part.name() == Some(n)).count();
            if uses == 0 {
                return Err(format!(
                    "the topic cannot be rebuilt from the key `{text}`, because it leaves out `{name}`"
                ));
            }
            if uses > 1 {
                return Err(format!("the key `{text}` uses `{name}` twice; once is enough"));
            }
        }
        Ok(template)
    }

    /// The key for these named parts of a topic.
    pub(super) fn render(&self, captures: &[&str]) -> String {
        let mut key = String::with_capacity(64);
        for (part, n) in self.segments.iter().zip(0..) {
            if n > 0 {
                key.push('/');
            }
            match part {
                Part::Text(text) => key.push_str(text),
                Part::Named { prefix, name, suffix, .. } => {
                    key.push_str(prefix);
                    key.push_str(captures.get(*name).copied().unwrap_or_default());
                    key.push_str(suffix);
                }
            }
        }
        key
    }

    /// The named parts of the topic whose key this is.
    pub(super) fn invert<'k>(&self, key: &'k str) -> Option<Captures<'k>> {
        let mut captures: Captures<'k> = smallvec::smallvec![""; self.names];
        let mut left = Some(key);
        for (part, n) in self.segments.iter().zip(1..) {
            let text = left?;
            let segment = if part.is_rest() {
                let (rest, after) = split_before_last(text, self.segments.len() - n)?;
                left = after;
                rest
            } else {
                let (segment, after) = text.split_once('/').map_or((text, None), |(s, a)| (s, Some(a)));
                left = after;
                segment
            };
            match part {
                Part::Text(expected) => (segment == expected).then_some(())?,
                Part::Named { prefix, name, suffix, .. } => {
                    let value = segment.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str())?;
                    *captures.get_mut(*name)? = value;
                }
            }
        }
        left.is_none().then_some(captures)
    }

    /// The shape of the keys it writes.
    pub(super) fn key_shape(&self) -> KeyShape<'_> {
        let mut shape = KeyShape { before: Vec::new(), gap: None, gap_prefix: "", gap_suffix: "", after: Vec::new() };
        for part in &self.segments {
            let segment = match part {
                Part::Text(text) => Segment::Text(text),
                Part::Named { prefix, suffix, rest: false, .. } => Segment::Around(prefix, suffix),
                Part::Named { prefix, suffix, rest: true, .. } => {
                    (shape.gap, shape.gap_prefix, shape.gap_suffix) = (Some(1), prefix, suffix);
                    continue;
                }
            };
            if shape.gap.is_some() { shape.after.push(segment) } else { shape.before.push(segment) }
        }
        shape
    }
}

impl Part {
    fn parse(segment: &str, pattern: &Pattern) -> Result<Self, String> {
        let Some((prefix, after)) = segment.split_once('{') else {
            if segment.contains('}') {
                return Err(format!("`{segment}` in the key has a `}}` without a `{{`"));
            }
            return Ok(Self::Text(segment.to_owned()));
        };
        let Some((inner, suffix)) = after.split_once('}') else {
            return Err(format!("`{segment}` in the key has a `{{` without a `}}`"));
        };
        if suffix.contains(['{', '}']) || prefix.contains('}') {
            return Err(format!(
                "the topic cannot be rebuilt from the key, because `{segment}` holds two names with no `/` between \
                 them: it would not be clear where the first one ends"
            ));
        }
        let placeholder = format!("{{{inner}}}");
        let Some(name) = pattern.names.iter().position(|name| *name == placeholder) else {
            let known = if pattern.names.is_empty() { "none".to_owned() } else { pattern.names.join(", ") };
            return Err(format!("the key uses `{placeholder}`, which the filter does not name (it names: {known})"));
        };
        let rest = inner.ends_with('#');
        Ok(Self::Named { prefix: prefix.to_owned(), name, suffix: suffix.to_owned(), rest })
    }

    fn name(&self) -> Option<usize> {
        match self {
            Self::Text(_) => None,
            Self::Named { name, .. } => Some(*name),
        }
    }

    fn is_rest(&self) -> bool {
        matches!(self, Self::Named { rest: true, .. })
    }
}

/// `text` without its last `segments` segments, and those; the first part has one segment at least.
fn split_before_last(text: &str, segments: usize) -> Option<(&str, Option<&str>)> {
    if segments == 0 {
        return Some((text, None));
    }
    let (at, _) = text.rmatch_indices('/').nth(segments - 1)?;
    Some((text.get(..at)?, text.get(at + 1..)))
}

/// All the keys that a rule may write: segments, perhaps with a gap of any number of segments.
#[derive(Debug)]
pub(super) struct KeyShape<'r> {
    pub(super) before: Vec<Segment<'r>>,
    /// The least number of segments in the gap, if there is one.
    pub(super) gap: Option<usize>,
    /// How the first segment of the gap begins.
    pub(super) gap_prefix: &'r str,
    /// How the last segment of the gap ends.
    pub(super) gap_suffix: &'r str,
    pub(super) after: Vec<Segment<'r>>,
}

/// The texts that one segment of a key may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Segment<'r> {
    /// This text.
    Text(&'r str),
    /// Any text that begins and ends so, and is as long as both together at least.
    Around(&'r str, &'r str),
}

impl<'r> KeyShape<'r> {
    /// Whether there is a key of both shapes.
    pub(super) fn meets(&self, other: &Self) -> bool {
        // Longer keys bring nothing new: from the longer bound on, a further segment lies in the gaps of both.
        let most = self.before.len() + self.after.len() + other.before.len() + other.after.len() + 4;
        (1..=most).any(|segments| match (self.spread(segments), other.spread(segments)) {
            (Some(a), Some(b)) => a.iter().zip(&b).all(|(a, b)| a.meets(b)),
            _ => false,
        })
    }

    /// The shape of its keys with this many segments.
    fn spread(&self, segments: usize) -> Option<Vec<Segment<'r>>> {
        let gap = segments.checked_sub(self.before.len() + self.after.len())?;
        if gap < self.gap.unwrap_or(0) || (gap > 0 && self.gap.is_none()) {
            return None;
        }
        let middle = (1..=gap).map(|n| {
            Segment::Around(if n == 1 { self.gap_prefix } else { "" }, if n == gap { self.gap_suffix } else { "" })
        });
        Some(self.before.iter().copied().chain(middle).chain(self.after.iter().copied()).collect())
    }
}

impl Segment<'_> {
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Text(text), Self::Around(prefix, suffix)) | (Self::Around(prefix, suffix), Self::Text(text)) => {
                text.strip_prefix(prefix).is_some_and(|after| after.ends_with(suffix))
            }
            (Self::Around(p, s), Self::Around(q, t)) => {
                (p.starts_with(q) || q.starts_with(p)) && (s.ends_with(t) || t.ends_with(s))
            }
        }
    }
}
