//! The table of results, in a Markdown file where one is asked for.

use std::fmt::Write as _;
use std::time::Duration;

use crate::check::Findings;

const VARIABLE: &str = "MILLRACE_FAULTS_TABLE";

/// One line of results.
pub struct Row {
    pub fault: String,
    pub kafka: String,
    pub result: String,
}

impl Row {
    /// Prints it, and puts it in the place of an earlier one of the same fault and Kafka.
    pub fn publish(&self) {
        let head = format!("| {} | {} |", self.fault, self.kafka);
        let line = format!("{head} {} |", self.result);
        println!("{line}");
        let Some(path) = std::env::var(VARIABLE).ok().filter(|path| !path.is_empty()) else { return };
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().collect();
        let is_of_table = |line: &&str| line.starts_with('|') && line.matches('|').count() == self.columns();
        if let Some(place) = lines.iter().position(|known| known.starts_with(&head)) {
            lines[place] = &line;
        } else if let Some(last) = lines.iter().rposition(is_of_table) {
            lines.insert(last + 1, &line);
        } else {
            lines.push(&line);
        }
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }

    fn columns(&self) -> usize {
        self.result.matches('|').count() + 4
    }
}

/// The columns of a run at the journal.
pub fn journal_columns(findings: &Findings, silence: Duration, recovery: Duration) -> String {
    let refused: Vec<String> = findings.refused.iter().map(|(why, count)| format!("{count} {why}")).collect();
    let events: Vec<String> = findings
        .tail_events
        .iter()
        .map(|(event, count)| if *count == 1 { event.clone() } else { format!("{count} × {event}") })
        .collect();
    let mut text = String::new();
    let written = match findings.written_before {
        0 => findings.written.to_string(),
        before => format!("{} + {before} to the old log", findings.written),
    };
    let _ = write!(text, "{} | {written} | {} ", findings.appends - findings.not_taken, dash(&refused.join(", ")));
    let _ = match findings.unknown {
        0 => write!(text, "| – "),
        unknown => write!(text, "| {unknown}, {} in the log ", findings.unknown_in_log),
    };
    let _ = write!(text, "| {} | {} ", seconds(silence), seconds(recovery));
    let _ = write!(text, "| {}", dash(&events.join(", ")));
    text
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

/// With one digit.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
