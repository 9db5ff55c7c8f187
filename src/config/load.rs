//! From sources to a [`Config`].

use std::fmt;
use std::path::PathBuf;

use figment::Figment;
use figment::error::Kind;
use figment::value::{Dict, Value};

use super::layer::{self, Flag, Layer};
use super::{Config, parse};

/// The defaults, with a comment on every key; `millrace config check` accepts this text.
pub const DEFAULTS: &str = include_str!("default.toml");

/// What `millrace dev` changes before files, environment and flags are looked at.
const DEV_PRESET: &str = r#"
journal.kind = "memory"
auth.anonymous = true
topics.create = true
topics.replication_factor = 1
topics.min_insync_replicas = 1
topics.messages.partitions = 4
topics.retained.partitions = 4
topics.sessions.partitions = 4
shutdown.accept_grace = "0s"
"#;

/// Which defaults apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// `millrace serve`: those of [`DEFAULTS`].
    #[default]
    Serve,
    /// `millrace dev`: one node on this machine that forgets everything.
    Dev,
}

/// Where configuration comes from. Nothing else is read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Which defaults apply.
    pub preset: Preset,
    /// TOML files; a later one wins.
    pub files: Vec<PathBuf>,
    /// The process's environment; what does not begin with `MILLRACE__` is passed over.
    pub env: Vec<(String, String)>,
    /// Flags; a later one wins.
    pub flags: Vec<Flag>,
}

/// A configuration and how it came about.
#[derive(Debug)]
pub struct Loaded {
    /// The typed configuration.
    pub config: Config,
    /// Every key with its value and source, in order of the keys.
    pub effective: Vec<Effective>,
}

/// One key as it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// `limits.packet_bytes_max`.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// `default`, `file millrace.toml, line 3`, `environment variable MILLRACE__...`, `flag --listen`.
    pub source: String,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key, self.value)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key; empty where a whole source cannot be read.
    pub key: String,
    /// Where its value came from.
    pub source: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{} (from {})", self.what, self.source)
    }
}

/// Everything that is wrong, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads all sources and parses what they add up to.
///
/// # Errors
/// Everything that is wrong with the sources, or, if they can be read, with the values.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let layers = read_layers(sources)?;
    let figment = layers.iter().fold(Figment::new(), |merged, layer| merged.merge(layer));
    let place = |key: &str| place(&figment, &layers, key);
    let raw = figment.extract().map_err(|error| ConfigErrors(explain(error, &layers)))?;
    let config = parse::config(raw).map_err(|wrong| {
        ConfigErrors(wrong.into_iter().map(|(key, what)| ConfigError { source: place(&key), key, what }).collect())
    })?;
    let keys = layers.first().map(|defaults| layer::leaves(&defaults.values)).unwrap_or_default();
    let effective = keys
        .into_iter()
        .map(|key| {
            let value = figment.find_value(&key).map_or_else(|_| String::new(), |value| as_toml(&value));
            Effective { value, source: place(&key), key }
        })
        .collect();
    Ok(Loaded { config, effective })
}

/// Lowest precedence first; refuses sources that cannot be read and keys that do not exist.
fn read_layers(sources: &Sources) -> Result<Vec<Layer>, ConfigErrors> {
    let unreadable = |source: &str, what: String| ConfigError { key: String::new(), source: source.to_owned(), what };
    let mut errors = Vec::new();
    let defaults = Layer::toml("default".to_owned(), DEFAULTS)
        .map_err(|what| ConfigErrors(vec![unreadable("the built-in defaults", what)]))?
        .without_lines();
    let mut layers = vec![defaults.clone()];
    if sources.preset == Preset::Dev {
        match Layer::toml("default of millrace dev".to_owned(), DEV_PRESET) {
            Ok(preset) => layers.push(preset.without_lines()),
            Err(what) => errors.push(unreadable("the defaults of millrace dev", what)),
        }
    }
    for path in &sources.files {
        let name = format!("file {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"));
        match text.and_then(|text| Layer::toml(name.clone(), &text)) {
            Ok(file) => layers.push(file),
            Err(what) => errors.push(unreadable(&name, what)),
        }
    }
    layers.extend(sources.env.iter().filter_map(|(name, text)| Layer::env(name, text, &defaults.values)));
    layers.extend(sources.flags.iter().map(|flag| Layer::flag(flag, &defaults.values)));
    for layer in &layers {
        errors.extend(layer.unknown_keys(&defaults.values).into_iter().map(|key| ConfigError {
            source: layer.place(&key),
            what: unknown_key(&key, &defaults.values),
            key,
        }));
    }
    if errors.is_empty() { Ok(layers) } else { Err(ConfigErrors(errors)) }
}

fn unknown_key(key: &str, defaults: &Dict) -> String {
    let near = layer::leaves(defaults)
        .into_iter()
        .map(|known| (distance(key, &known), known))
        .min()
        .filter(|(distance, _)| *distance <= 4)
        .map(|(_, known)| format!("; did you mean {known}?"));
    format!("there is no such key{}", near.unwrap_or_default())
}

/// Edits that make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i.saturating_add(1)];
        for ((to, above_left), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or(usize::MAX);
            let replaced = above_left.saturating_add(usize::from(from != *to));
            next.push(replaced.min(above.saturating_add(1)).min(left.saturating_add(1)));
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// Where the value of `key` came from. figment does not look into arrays: what is in one came with it.
fn place(figment: &Figment, layers: &[Layer], key: &str) -> String {
    let mut known = key;
    loop {
        match (figment.find_metadata(known), known.rsplit_once('.')) {
            (Some(metadata), _) => return place_in(layers, &metadata.name, key),
            (None, Some((outer, _))) => known = outer,
            (None, None) => return "default".to_owned(),
        }
    }
}

fn place_in(layers: &[Layer], name: &str, key: &str) -> String {
    layers.iter().rfind(|layer| layer.name == name).map_or_else(|| name.to_owned(), |layer| layer.place(key))
}

/// figment's errors in our words.
fn explain(errors: figment::Error, layers: &[Layer]) -> Vec<ConfigError> {
    errors
        .into_iter()
        .map(|error| {
            let key = error.path.join(".");
            let source =
                error.metadata.as_ref().map_or_else(|| "default".to_owned(), |m| place_in(layers, &m.name, &key));
            ConfigError { key, source, what: describe(&error.kind) }
        })
        .collect()
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Message(text) => text.clone(),
        Kind::InvalidType(found, wanted) if wanted.starts_with("struct ") => {
            format!("found {found}, but this is a table of keys")
        }
        Kind::InvalidType(found, wanted) => format!("found {found}, but this must be {wanted}"),
        Kind::InvalidValue(found, wanted) => format!("{found} is out of range: this must be {wanted}"),
        Kind::UnknownVariant(found, known) => format!("{found:?} is none of {}", known.join(", ")),
        Kind::UnknownField(found, known) => {
            format!("there is no such key: {found:?}; the keys here are {}", known.join(", "))
        }
        Kind::MissingField(name) => format!("{name:?} is missing"),
        Kind::InvalidLength(..)
        | Kind::DuplicateField(_)
        | Kind::ISizeOutOfRange(_)
        | Kind::USizeOutOfRange(_)
        | Kind::Unsupported(_)
        | Kind::UnsupportedKey(..) => kind.to_string(),
    }
}

/// A value in TOML's syntax, on one line.
fn as_toml(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, c) => quoted(&c.to_string()),
        Value::Bool(_, yes) => yes.to_string(),
        Value::Num(_, num) => num
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| num.to_u128().map(|n| n.to_string()))
            .or_else(|| num.to_f64().map(|n| format!("{n:?}")))
            .unwrap_or_default(),
        Value::Empty(..) => "\"\"".to_owned(),
        Value::Dict(_, dict) => {
            let fields: Vec<_> = dict.iter().map(|(key, value)| format!("{key} = {}", as_toml(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(_, items) => {
            format!("[{}]", items.iter().map(as_toml).collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
