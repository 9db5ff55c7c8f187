//! The figures as Markdown, and the document that they become.

use std::fmt::Write;
use std::path::Path;

use crate::cluster::{Result, version_line};

/// One measurement: a heading and what it found.
pub struct Section {
    /// Without `##`.
    pub title: String,
    /// Markdown.
    pub body: String,
}

/// A Markdown table.
pub struct Table {
    text: String,
}

impl Table {
    /// With these columns; the first is words, the others are numbers.
    pub fn new(columns: &[&str]) -> Self {
        let rule = (0..columns.len()).map(|index| if index == 0 { "---" } else { "--:" });
        let rule: Vec<&str> = rule.collect();
        Self { text: format!("| {} |\n|{}|\n", columns.join(" | "), rule.join("|")) }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[String]) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    /// As text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A number with as many digits as it deserves.
pub fn figure(number: f64) -> String {
    match number.abs() {
        size if size >= 1e6 => format!("{:.2} M", number / 1e6),
        size if size >= 1e4 => format!("{:.0} k", number / 1_000.0),
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 0.1 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

/// Bytes in a unit of their size.
pub fn bytes(count: f64) -> String {
    match count {
        size if size >= 1e6 => format!("{:.1} MB", size / 1e6),
        size if size >= 1e4 => format!("{:.0} kB", size / 1e3),
        size => format!("{size:.0} B"),
    }
}

/// The middle one of some rounds.
pub fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `p`-th percentile of sorted numbers.
pub fn percentile(sorted: &[f64], p: usize) -> f64 {
    let index = (sorted.len() * p / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// What the figures were measured with.
pub fn preamble(kafka_version: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "# The journal on a real Kafka\n\n\
         Written by `make bench-journal`; sections measured anew replace the old ones, all else is kept.\n\n\
         | | |\n|---|---|\n\
         | Kafka | {kafka_version}, KRaft, started by `scripts/kafka.sh` |\n\
         | Java | {} |\n| Rust | {}, release build |\n| Cores | {cores} |\n\
         | Command | `make bench-journal` |\n\n\
         **The client, all Kafka nodes and the load share these cores and one disk.** Every Kafka node is broker and \
         controller with a heap of 512 MB. On one node there is one copy of a record; on three nodes there are three, \
         of which two must be in sync. Appends are always acks=all and idempotent. Compare figures of one section with \
         each other; absolute times of another machine will differ.\n",
        version_line("java", "-version"),
        version_line("rustc", "-V"),
    )
}

/// The document with these sections; those of `old` that are not among them stay.
pub fn merged(old: &str, preamble: &str, fresh: Vec<Section>) -> String {
    let mut sections = Vec::new();
    for text in old.split("\n## ").skip(1) {
        let (title, body) = text.split_once('\n').unwrap_or((text, ""));
        sections.push(Section { title: title.trim().to_owned(), body: body.trim().to_owned() });
    }
    for section in fresh {
        match sections.iter_mut().find(|kept| kept.title == section.title) {
            Some(kept) => kept.body = section.body,
            None => sections.push(section),
        }
    }
    // Measurements "(a) ...", "(b) ..." first, what people wrote after them.
    sections.sort_by_key(|section| if section.title.starts_with('(') { section.title.clone() } else { "~".into() });
    let mut text = preamble.trim().to_owned();
    for Section { title, body } in sections {
        let _ = write!(text, "\n\n## {title}\n\n{}", body.trim());
    }
    text + "\n"
}

/// Brings the document at `path` up to date.
pub fn write(path: &Path, kafka_version: &str, fresh: Vec<Section>) -> Result<()> {
    let old = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(path, merged(&old, &preamble(kafka_version), fresh))?)
}
