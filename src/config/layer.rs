//! One source of configuration as a figment provider that knows the place of each of its values.

use std::collections::BTreeMap;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use toml::de::{DeTable, DeValue};

/// What environment variables begin with.
const ENV_PREFIX: &str = "MILLRACE__";

/// A value that a command-line flag gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The flag as the user knows it, `--listen`.
    pub flag: String,
    /// The key it sets, `listen.mqtt`.
    pub key: String,
    /// The value as text, in the syntax of an environment variable.
    pub value: String,
}

/// Values from one source.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// `file millrace.toml`, `environment variable MILLRACE__NODE__ID`, `flag --listen`, `default`.
    pub name: String,
    /// The values.
    pub values: Dict,
    /// Line of each key path, from 1; empty where there are no lines.
    lines: BTreeMap<String, usize>,
}

impl Layer {
    /// Reads TOML.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub(super) fn toml(name: String, text: &str) -> Result<Self, String> {
        let broken = |error: toml::de::Error| {
            let line = error.span().map(|span| format!("line {}: ", line_of(text, span.start))).unwrap_or_default();
            format!("{line}{}", error.message())
        };
        let values = toml::from_str::<Dict>(text).map_err(broken)?;
        let table = DeTable::parse(text).map_err(broken)?;
        let mut lines = BTreeMap::new();
        note_lines(text, "", table.get_ref(), &mut lines);
        Ok(Self { name, values, lines })
    }

    /// One environment variable; `None` if it is not ours. `defaults` tells text from numbers.
    pub(super) fn env(name: &str, text: &str, defaults: &Dict) -> Option<Self> {
        let key = name.strip_prefix(ENV_PREFIX)?.to_lowercase().replace("__", ".");
        let values = nested(&key, text, defaults);
        Some(Self { name: format!("environment variable {name}"), values, lines: BTreeMap::new() })
    }

    /// One flag.
    pub(super) fn flag(flag: &Flag, defaults: &Dict) -> Self {
        let values = nested(&flag.key, &flag.value, defaults);
        Self { name: format!("flag {}", flag.flag), values, lines: BTreeMap::new() }
    }

    /// The same without lines: for sources that the reader of an error cannot open.
    pub(super) fn without_lines(mut self) -> Self {
        self.lines.clear();
        self
    }

    /// The source of `key`, with its line where it has one: the key's own, else that of the table or array around it.
    pub(super) fn place(&self, key: &str) -> String {
        let mut key = key;
        loop {
            if let Some(line) = self.lines.get(key) {
                return format!("{}, line {line}", self.name);
            }
            match key.rsplit_once('.') {
                Some((outer, _)) => key = outer,
                None => return self.name.clone(),
            }
        }
    }

    /// Key paths in this layer that `defaults` does not have. What is inside arrays is left to the parser.
    pub(super) fn unknown_keys(&self, defaults: &Dict) -> Vec<String> {
        let mut unknown = Vec::new();
        collect_unknown("", &self.values, defaults, &mut unknown);
        unknown
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// All paths of leaves in `values`, in order.
pub(super) fn leaves(values: &Dict) -> Vec<String> {
    fn collect(prefix: &str, values: &Dict, into: &mut Vec<String>) {
        for (key, value) in values {
            let path = join(prefix, key);
            match value.as_dict() {
                Some(inner) => collect(&path, inner, into),
                None => into.push(path),
            }
        }
    }
    let mut found = Vec::new();
    collect("", values, &mut found);
    found
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// `a.b` and a text as nested tables. A key whose default is text stays text, whatever it looks like.
fn nested(key: &str, text: &str, defaults: &Dict) -> Dict {
    let parsed: Value = text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {});
    let is_text = find(defaults, key).is_some_and(|default| default.as_str().is_some());
    let is_list = find(defaults, key).is_some_and(|default| matches!(default, Value::Array(..)));
    let value = if is_text && parsed.as_str().is_none() {
        Value::from(text)
    } else if is_list && !matches!(parsed, Value::Array(..)) {
        Value::from(text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>())
    } else {
        parsed
    };
    let mut parts = key.rsplit('.');
    let last = parts.next().unwrap_or_default();
    let innermost = Dict::from([(last.to_owned(), value)]);
    parts.fold(innermost, |inner, part| Dict::from([(part.to_owned(), Value::from(inner))]))
}

/// The value at a dotted path.
pub(super) fn find<'v>(values: &'v Dict, path: &str) -> Option<&'v Value> {
    match path.split_once('.') {
        None => values.get(path),
        Some((first, rest)) => find(values.get(first)?.as_dict()?, rest),
    }
}

fn collect_unknown(prefix: &str, values: &Dict, defaults: &Dict, into: &mut Vec<String>) {
    for (key, value) in values {
        let path = join(prefix, key);
        match (value.as_dict(), defaults.get(key)) {
            (_, None) => into.push(path),
            (Some(inner), Some(default)) => {
                if let Some(default) = default.as_dict() {
                    collect_unknown(&path, inner, default, into);
                }
            }
            (None, Some(_)) => {}
        }
    }
}

fn note_lines(text: &str, prefix: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = join(prefix, key.get_ref());
        lines.insert(path.clone(), line_of(text, key.span().start));
        note_value(text, &path, value.get_ref(), lines);
    }
}

fn note_value(text: &str, path: &str, value: &DeValue<'_>, lines: &mut BTreeMap<String, usize>) {
    if let Some(inner) = value.as_table() {
        note_lines(text, path, inner, lines);
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let item_path = join(path, &index.to_string());
        lines.insert(item_path.clone(), line_of(text, item.span().start));
        note_value(text, &item_path, item.get_ref(), lines);
    }
}

/// Line of a byte position, from 1.
fn line_of(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|byte| *byte == b'\n').count().saturating_add(1)
}
