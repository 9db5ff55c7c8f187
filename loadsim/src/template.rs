//! Names with holes: `bench/{i}`.

use std::str::FromStr;

/// A topic, filter or client id in which `{i}` stands for the index and `{run}` for the number of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// One of the program's own.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// With both holes filled.
    pub fn fill(&self, run: u32, index: u32) -> String {
        self.0.replace("{i}", &index.to_string()).replace("{run}", &format!("{run:08x}"))
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.replace("{i}", "").replace("{run}", "");
        if rest.contains(['{', '}']) {
            return Err("the only placeholders are {i}, the index, and {run}".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_and_unknown_ones_refused() {
        assert_eq!("a/{i}/{run}/{i}".parse::<Template>().unwrap().fill(255, 3), "a/3/000000ff/3");
        assert!("a/{n}".parse::<Template>().is_err());
    }
}
