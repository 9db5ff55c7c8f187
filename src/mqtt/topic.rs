//! Topic names, topic filters and client identifiers, parsed once at the boundary (MQTT5 §4.7).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::wire::any_byte;

/// The most bytes a string can have on the wire (MQTT5 §1.5.4).
const TEXT_BYTES_MAX: usize = 65_535;

/// How a shared subscription begins (MQTT5 §4.8.2).
const SHARE_PREFIX: &str = "$share/";

/// Why a string is no topic name, topic filter or client identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TopicError(pub &'static str);

/// A topic name: at least one character, at most 65,535 bytes, no wildcard, no U+0000
/// [MQTT-4.7.0-1, MQTT-4.7.3-1, MQTT-4.7.3-2, MQTT-4.7.3-3].
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// A topic filter with `+` and `#` in legal places [MQTT-4.7.1-1, MQTT-4.7.1-2]; never of the `$share` form, which
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
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        /// Ordering and hash are those of the text, so maps can be asked with a `&str`.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
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
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_name(text)?;
        Ok(Self(text.into()))
    }
}

impl TopicFilter {
    /// Checks and takes a topic filter; `$share/...` is refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        if is_shared(text) {
            return Err(TopicError("a shared subscription where a plain filter is needed (§4.8.2)"));
        }
        check_filter(text)?;
        Ok(Self(text.into()))
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
    pub fn parse(text: &str) -> Result<Option<Self>, TopicError> {
        let Some(rest) = text.strip_prefix(SHARE_PREFIX) else { return Ok(None) };
        check_length(text)?;
        let Some((group, filter)) = rest.split_once('/') else {
            return Err(TopicError("a share name that no `/` and filter follow [MQTT-4.8.2-2]"));
        };
        if group.is_empty() {
            return Err(TopicError("an empty share name [MQTT-4.8.2-1]"));
        }
        if group.bytes().any(|b| matches!(b, b'+' | b'#' | 0)) {
            return Err(TopicError("a wildcard or U+0000 in a share name [MQTT-4.8.2-2]"));
        }
        Ok(Some(Self { group: group.into(), filter: TopicFilter::parse(filter)? }))
    }
}

impl ClientId {
    /// Checks and takes a client id of 1 to `bytes_max` bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, bytes_max: usize) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError("an empty client identifier"));
        }
        if text.len() > bytes_max.min(TEXT_BYTES_MAX) {
            return Err(TopicError("the client identifier is too long"));
        }
        if text.as_bytes().contains(&0) {
            return Err(TopicError("U+0000 in a client identifier [MQTT-1.5.4-2]"));
        }
        Ok(Self(text.into()))
    }
}

/// Checks the syntax of a topic name without taking it (MQTT5 §4.7).
///
/// # Errors
/// What is wrong with it.
#[expect(clippy::needless_bitwise_bool, reason = "compiles to vector instructions, `matches!` does not")]
#[inline]
pub fn check_name(text: &str) -> Result<(), TopicError> {
    check_length(text)?;
    if any_byte(text.as_bytes(), |byte| (byte == b'+') | (byte == b'#') | (byte == 0)) {
        return Err(TopicError("a wildcard or U+0000 in a topic name [MQTT-4.7.0-1, MQTT-4.7.3-2]"));
    }
    Ok(())
}

/// Checks the syntax of a topic filter without taking it (MQTT5 §4.7.1).
///
/// A filter of the `$share/` form is checked as the plain filter that it is in 3.x; [`SharedFilter::parse`]
/// checks the rest.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(text: &str) -> Result<(), TopicError> {
    check_length(text)?;
    let mut after_hash = false;
    for level in text.as_bytes().split(|&byte| byte == b'/') {
        if after_hash {
            return Err(TopicError("`#` is not the last level of the filter [MQTT-4.7.1-1]"));
        }
        match level {
            b"#" => after_hash = true,
            b"+" => {}
            level if level.iter().any(|byte| matches!(byte, b'+' | b'#')) => {
                return Err(TopicError(
                    "a wildcard does not fill its level of the filter [MQTT-4.7.1-1, MQTT-4.7.1-2]",
                ));
            }
            level if level.contains(&0) => return Err(TopicError("U+0000 in a topic filter [MQTT-4.7.3-2]")),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the filter is of the `$share/` form, well-formed or not (MQTT5 §4.8.2).
pub fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE_PREFIX)
}

#[inline]
fn check_length(text: &str) -> Result<(), TopicError> {
    match text.len() {
        0 => Err(TopicError("an empty topic name or filter [MQTT-4.7.3-1]")),
        1..=TEXT_BYTES_MAX => Ok(()),
        _ => Err(TopicError("a topic name or filter of more than 65,535 bytes [MQTT-4.7.3-3]")),
    }
}
