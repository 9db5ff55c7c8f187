//! The process's log: one line per event on standard error, as text or as JSON.

use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is no log format: \"text\" or \"json\"")),
        }
    }
}

/// Which events are logged: a level, or levels by module (`info,millrace::journal=debug`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    /// Checks and takes a filter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("a log level is needed: error, warn, info, debug or trace".to_owned());
        }
        // A bare word that is no level would be taken for the name of a module and silence everything else.
        for part in text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ':'])) {
            if tracing::level_filters::LevelFilter::from_str(part).is_err() {
                return Err(format!("{part:?} is no log level: error, warn, info, debug, trace or off"));
            }
        }
        EnvFilter::try_new(text).map_err(|error| format!("{text:?} is no log filter: {error}"))?;
        Ok(Self(text.to_owned()))
    }
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which events.
    pub filter: Filter,
    /// How they look.
    pub format: Format,
}

/// Starts logging to standard error; the first call wins.
pub fn init(options: &Options) {
    let filter = EnvFilter::new(&options.filter.0);
    let is_terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal).with_writer(io::stderr);
    // Failing means that somebody, such as a test, installed a subscriber before: then that one stays.
    let _ = match options.format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        for text in ["", "inof", "info,millrace=loud", "verbose"] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn levels_by_module_are_taken() {
        for text in ["info", "warn,millrace::journal=debug", "off"] {
            assert!(Filter::parse(text).is_ok(), "{text}");
        }
    }
}
