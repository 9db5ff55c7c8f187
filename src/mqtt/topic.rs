//! Topic names, topic filters and client identifiers, parsed once at the boundary (MQTT5 §4.7).

use std::fmt;
use std::sync::Arc;

/// Why a string is no topic name, topic filter or client identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TopicError(pub &'static str);

/// A topic name: at least one character, at most 65,535 bytes, no wildcard, no U+0000 [MQTT-4.7.1-1, 4.7.3-1..3].
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// A topic filter with `+` and `#` in legal places [MQTT-4.7.1-2, 4.7.1-3]; never of the `$share` form, which
/// [`SharedFilter`] takes apart. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Arc<str>);

/// `$share/{group}/{filter}` taken apart (MQTT5 §4.8.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedFilter {
    /// The share name: no `/`, `+`, `#` [MQTT-4.8.2-1, 4.8.2-2].
    pub group: Arc<str>,
    /// The filter behind it.
    pub filter: TopicFilter,
}

/// A client identifier. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

macro_rules! arc_str {
    ($name:ident) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
arc_str!(TopicName);
arc_str!(TopicFilter);
arc_str!(ClientId);

impl TopicName {
    /// Checks and takes a topic name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(_text: &str) -> Result<Self, TopicError> {
        todo!("codec")
    }
}

impl TopicFilter {
    /// Checks and takes a topic filter; `$share/...` is refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(_text: &str) -> Result<Self, TopicError> {
        todo!("codec")
    }

    /// The levels between the slashes, wildcards included.
    pub fn levels(&self) -> std::str::Split<'_, char> {
        self.0.split('/')
    }

    /// Whether it holds `+` or `#`.
    pub fn has_wildcard(&self) -> bool {
        self.0.bytes().any(|b| b == b'+' || b == b'#')
    }
}

impl SharedFilter {
    /// `Ok(None)` where `text` is not of the `$share/` form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(_text: &str) -> Result<Option<Self>, TopicError> {
        todo!("codec")
    }
}

impl ClientId {
    /// Checks and takes a client id of 1 to `bytes_max` bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(_text: &str, _bytes_max: usize) -> Result<Self, TopicError> {
        todo!("codec")
    }
}
