//! What is printed: a table, or one JSON object.

use std::collections::BTreeMap;
use std::fmt;

use millrace::mqtt::ProtocolVersion;
use serde::Serialize;

use crate::conductor::{Cpu, Run};
use crate::process::Memory;
use crate::spec::{Pace, Spec};
use crate::tally::{Counts, Percentiles, Returns};
use crate::verify::Proof;

/// All figures of a run. Fields that mean nothing to the command are left out.
#[derive(Debug, Serialize)]
pub struct Report {
    setup: Setup,
    connections: Connections,
    /// Length of the measured window, in seconds.
    window_s: f64,
    interrupted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Messages>,
    #[serde(skip_serializing_if = "Option::is_none")]
    whole_run: Option<WholeRun>,
    #[serde(skip_serializing_if = "Option::is_none")]
    returns: Option<Returned>,
    latency_us: Latencies,
    loadsim: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Usage>,
    errors: BTreeMap<String, u64>,
    /// Whether what was acknowledged arrived and every connection stayed.
    ok: bool,
}

/// What was run.
#[derive(Debug, Serialize)]
pub struct Setup {
    command: &'static str,
    broker: String,
    protocol: &'static str,
    threads: u32,
    publishers: u32,
    subscribers: u32,
    idle: u32,
    probes: u32,
    /// Of the publishers, if there are any.
    qos: Option<u8>,
    /// Of the subscribers, if there are any.
    subscriber_qos: Option<u8>,
    payload_bytes: usize,
    /// `None`: as fast as the windows allow.
    rate: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Connections {
    wanted: u64,
    ready: u64,
    refused: u64,
    lost: u64,
    connecting_s: f64,
}

/// Messages whose intended time is within the measured window.
#[derive(Debug, Serialize)]
struct Messages {
    /// `None` in a closed loop.
    intended: Option<u64>,
    #[serde(flatten)]
    counts: Counts,
    sent_per_s: f64,
    acked_per_s: f64,
    delivered_per_s: f64,
}

/// All messages, from the first of the warm-up to the last of the drain.
#[derive(Debug, Serialize)]
struct WholeRun {
    sent: u64,
    acked: u64,
    rejected: u64,
    #[serde(flatten)]
    proof: Proof,
}

/// Clients that came back. In seconds from the end of the process that was to be ended, else from the first
/// connection that ended.
#[derive(Debug, Serialize)]
struct Returned {
    ended: u64,
    failed: u64,
    resumed: u64,
    sessions_lost: u64,
    given_up: u64,
    /// Until the last client was ready again.
    all_ready_s: Option<f64>,
    /// Until the last subscriber had everything that was acknowledged before it was ready again.
    all_caught_up_s: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Latencies {
    connect: Percentiles,
    /// In a closed loop a message is intended when it is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    send_lag: Option<Percentiles>,
    #[serde(skip_serializing_if = "is_empty")]
    ack: Percentiles,
    #[serde(skip_serializing_if = "is_empty")]
    end_to_end: Percentiles,
    #[serde(skip_serializing_if = "is_empty")]
    resume: Percentiles,
    #[serde(skip_serializing_if = "is_empty")]
    away: Percentiles,
    #[serde(skip_serializing_if = "is_empty")]
    caught_up: Percentiles,
    #[serde(skip_serializing_if = "is_empty")]
    probe_resume: Percentiles,
    #[serde(skip_serializing_if = "is_empty")]
    probe_clean: Percentiles,
}

#[derive(Debug, Serialize)]
struct Usage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// CPU seconds in the measured window, user and system.
    cpu_s: Option<f64>,
    /// The same per message sent, or delivered where nothing is sent.
    cpu_us_per_message: Option<f64>,
    /// CPU seconds of the process so far.
    cpu_total_s: Option<f64>,
    #[serde(flatten)]
    memory: Option<Memory>,
}

fn is_empty(percentiles: &Percentiles) -> bool {
    percentiles.count == 0
}

impl Setup {
    /// The part of `spec` that figures cannot be read without.
    pub fn of(command: &'static str, spec: &Spec) -> Self {
        let (publishing, subscribing) = (&spec.publishing, &spec.subscribing);
        Self {
            command,
            broker: spec.target.broker.to_string(),
            protocol: match spec.target.version {
                ProtocolVersion::V31 => "3.1",
                ProtocolVersion::V311 => "3.1.1",
                ProtocolVersion::V5 => "5",
            },
            threads: spec.threads,
            publishers: publishing.publishers,
            subscribers: subscribing.subscribers,
            idle: spec.idle,
            probes: spec.probes,
            qos: (publishing.publishers > 0).then(|| publishing.qos.as_u8()),
            subscriber_qos: (subscribing.subscribers > 0).then(|| subscribing.qos.as_u8()),
            payload_bytes: publishing.payload_bytes,
            rate: match publishing.pace {
                Pace::Open(rate) => Some(rate.per_second()),
                Pace::Closed => None,
            },
        }
    }

    fn connections(&self) -> u64 {
        [self.publishers, self.subscribers, self.idle, self.probes].into_iter().map(u64::from).sum()
    }
}

/// Per second.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn usage(pid: Option<u32>, cpu: Cpu, memory: Option<Memory>, messages: u64) -> Usage {
    let cpu_us_per_message = cpu.window_s.filter(|_| messages > 0).map(|seconds| seconds * 1e6 / messages as f64);
    Usage { pid, cpu_s: cpu.window_s, cpu_us_per_message, cpu_total_s: cpu.total_s, memory }
}

impl Report {
    /// Puts the figures together. With `allows_loss` the run is fine whatever happened to messages and connections.
    pub fn new(setup: Setup, pid: Option<u32>, run: Run, allows_loss: bool) -> Self {
        let tally = run.outcome.tally;
        let (measured, total) = (tally.measured, tally.total);
        let has_publishers = setup.publishers > 0;
        let has_messages = has_publishers || setup.subscribers > 0;
        // A subscriber alone does not know how the messages were published: it takes gaps for loss.
        let is_guaranteed = setup.qos.is_none_or(|qos| qos > 0) && setup.subscriber_qos.is_none_or(|qos| qos > 0);
        let is_lossless = !is_guaranteed || run.proof.lost == 0;
        // Without publishers it is not known with which QoS the messages were published.
        let is_exact = setup.qos == Some(2) && setup.subscriber_qos == Some(2);
        let is_single = !is_exact || run.proof.duplicated == 0;
        let returns = &tally.returns;
        let has_sessions = returns.sessions_lost == 0;
        let messages = if has_publishers { measured.sent } else { measured.delivered };
        Self {
            connections: Connections {
                wanted: setup.connections(),
                ready: tally.ready,
                refused: tally.refused,
                lost: tally.lost,
                connecting_s: run.connecting_s,
            },
            window_s: run.window_s,
            interrupted: run.is_interrupted,
            messages: has_messages.then(|| Messages {
                intended: run.intended.filter(|_| has_publishers),
                counts: measured,
                sent_per_s: rate(measured.sent, run.window_s),
                acked_per_s: rate(measured.acked, run.window_s),
                delivered_per_s: rate(measured.delivered, run.window_s),
            }),
            whole_run: has_messages.then_some(WholeRun {
                sent: total.sent,
                acked: total.acked,
                rejected: total.rejected,
                proof: run.proof,
            }),
            returns: (returns.ended + returns.failed > 0).then(|| Returned::of(returns, run.killed_ns)),
            latency_us: Latencies {
                resume: returns.resume.percentiles(),
                away: returns.away.percentiles(),
                caught_up: returns.caught_up.percentiles(),
                probe_resume: returns.probe_resume.percentiles(),
                probe_clean: returns.probe_clean.percentiles(),
                connect: tally.connect.percentiles(),
                send_lag: setup.rate.filter(|_| has_publishers).map(|_| tally.send_lag.percentiles()),
                ack: tally.ack.percentiles(),
                end_to_end: tally.end_to_end.percentiles(),
            },
            loadsim: usage(None, run.own_cpu, run.own_memory, messages),
            process: pid.map(|pid| usage(Some(pid), run.other_cpu, run.other_memory, messages)),
            errors: tally.errors,
            ok: allows_loss || is_lossless && is_single && has_sessions && tally.refused == 0 && tally.lost == 0,
            setup,
        }
    }

    /// Whether what was acknowledged arrived and every connection stayed.
    pub fn is_ok(&self) -> bool {
        self.ok
    }
}

/// The table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setup, connections, .. } = self;
        let Connections { wanted, ready, refused, lost, connecting_s } = connections;
        writeln!(f, "loadsim {} on {}, MQTT {}", setup.command, setup.broker, setup.protocol)?;
        let ended = if self.interrupted { ", interrupted" } else { "" };
        writeln!(f, "connections  {ready} of {wanted} ready in {connecting_s:.2} s, {refused} refused, {lost} lost")?;
        writeln!(f, "measured     {:.2} s{ended}", self.window_s)?;
        if let Some(messages) = &self.messages {
            messages.fmt(f, setup)?;
        }
        if let Some(whole_run) = &self.whole_run {
            whole_run.fmt(f)?;
        }
        if let Some(returns) = &self.returns {
            returns.fmt(f)?;
        }
        self.latency_us.fmt(f)?;
        self.loadsim.fmt(f, "loadsim")?;
        if let Some(process) = &self.process {
            process.fmt(f, &format!("pid {}", process.pid.unwrap_or(0)))?;
        }
        for (error, count) in &self.errors {
            writeln!(f, "error        {count} x {error}")?;
        }
        writeln!(f, "verdict      {}", if self.ok { "ok" } else { "NOT OK" })
    }
}

impl Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>, setup: &Setup) -> fmt::Result {
        let Counts { sent, acked, rejected, delivered } = self.counts;
        if setup.publishers > 0 {
            if let Some(intended) = self.intended {
                writeln!(f, "intended     {intended:>12}")?;
            }
            writeln!(f, "sent         {sent:>12}  {:>12.1}/s", self.sent_per_s)?;
        }
        if setup.qos.is_some_and(|qos| qos > 0) {
            writeln!(f, "acked        {acked:>12}  {:>12.1}/s", self.acked_per_s)?;
            if rejected > 0 {
                writeln!(f, "rejected     {rejected:>12}")?;
            }
        }
        if setup.subscribers > 0 {
            writeln!(f, "delivered    {delivered:>12}  {:>12.1}/s", self.delivered_per_s)?;
        }
        Ok(())
    }
}

impl WholeRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, acked, proof, .. } = self;
        let Proof { expected, delivered, lost, duplicated, reordered, foreign } = proof;
        write!(f, "whole run    sent {sent}, acked {acked}")?;
        if let Some(expected) = expected {
            write!(f, ", owed {expected}")?;
        }
        writeln!(f, ", delivered {delivered}")?;
        writeln!(f, "proof        lost {lost}, duplicated {duplicated}, reordered {reordered}, foreign {foreign}")
    }
}

impl Returned {
    #[expect(clippy::cast_precision_loss, reason = "runs are far shorter than 2^52 ns")]
    fn of(returns: &Returns, killed_ns: Option<u64>) -> Self {
        let from_ns = killed_ns.unwrap_or(returns.first_ended_ns);
        let since = |at_ns: u64| (at_ns > 0).then(|| at_ns.saturating_sub(from_ns) as f64 / 1e9);
        Self {
            ended: returns.ended,
            failed: returns.failed,
            resumed: returns.resumed,
            sessions_lost: returns.sessions_lost,
            given_up: returns.given_up,
            all_ready_s: since(returns.last_ready_ns),
            all_caught_up_s: since(returns.last_caught_up_ns),
        }
    }

    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ended, failed, resumed, sessions_lost, given_up, all_ready_s, all_caught_up_s } = self;
        write!(f, "returns      {ended} connections ended, {failed} attempts failed, {resumed} resumed")?;
        writeln!(f, ", {sessions_lost} without their session, {given_up} messages given up")?;
        if let Some(all_ready_s) = all_ready_s {
            write!(f, "all back     {all_ready_s:.2} s")?;
            if let Some(all_caught_up_s) = all_caught_up_s {
                write!(f, ", caught up {all_caught_up_s:.2} s")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["p50", "p90", "p99", "p99.9", "max"];
        write!(f, "latency, ms   ")?;
        for title in titles {
            write!(f, "{title:>10}")?;
        }
        writeln!(f)?;
        let rows = [
            ("connect", Some(&self.connect)),
            ("send lag", self.send_lag.as_ref()),
            ("ack", Some(&self.ack)),
            ("end to end", Some(&self.end_to_end)),
            ("resume", Some(&self.resume)),
            ("away", Some(&self.away)),
            ("caught up", Some(&self.caught_up)),
            ("probe resume", Some(&self.probe_resume)),
            ("probe clean", Some(&self.probe_clean)),
        ];
        for (name, percentiles) in rows {
            let Some(percentiles) = percentiles.filter(|percentiles| percentiles.count > 0) else { continue };
            write!(f, "  {name:<12}")?;
            let Percentiles { p50, p90, p99, p999, max, .. } = percentiles;
            for micros in [p50, p90, p99, p999, max] {
                write!(f, "{:>10.3}", micros / 1000.0)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        write!(f, "{name:<12}")?;
        if let Some(cpu_s) = self.cpu_s {
            write!(f, " CPU {cpu_s:.2} s")?;
        }
        if let Some(micros) = self.cpu_us_per_message {
            write!(f, ", {micros:.2} us per message")?;
        }
        if let Some(total_s) = self.cpu_total_s {
            write!(f, ", {total_s:.2} s in all")?;
        }
        if let Some(Memory { rss_kib, pss_kib }) = self.memory {
            write!(f, "; RSS {rss_kib} KiB")?;
            if let Some(pss_kib) = pss_kib {
                write!(f, ", PSS {pss_kib} KiB")?;
            }
        }
        writeln!(f)
    }
}
