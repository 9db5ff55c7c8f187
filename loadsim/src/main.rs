//! `loadsim`: open-loop MQTT load on Millrace's own codec that proves loss, duplicates and order.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] → [`spec`] | what was typed → a run, checked |
//! | [`schedule`], [`stamp`], [`sequences`], [`verify`] | pure: when a message is due, what it carries, what became of it |
//! | [`client`], [`publisher`], [`inflight`] | pure: the protocol of one connection |
//! | [`conn`], [`worker`] | sockets: an event loop per thread, each with its share of the connections |
//! | [`conductor`] | the phases of a run; meets the workers only in [`shared`] |
//! | [`tally`] → [`report`] | what is counted → what is printed |
//!
//! Invariant: the intended time of a message never depends on what the broker or this program did before. Being late
//! delays messages, and shows as latency from the intended time; it drops none and moves no intended time.

mod args;
mod client;
mod clock;
mod conductor;
mod conn;
mod inflight;
mod process;
mod publisher;
mod report;
mod schedule;
mod sequences;
mod shared;
mod spec;
mod stamp;
mod sys;
mod tally;
mod template;
mod verify;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, CommonArgs};
use crate::clock::Clock;
use crate::report::{Report, Setup};

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let CommonArgs { pid, json, allow_loss, .. } = *command.common();
    let run = run_id();
    let (name, spec) = match command {
        Command::Conn(args) => ("conn", args.into_spec(run)),
        Command::Pub(args) => ("pub", args.into_spec(run)),
        Command::Sub(args) => ("sub", args.into_spec(run)),
        Command::Bench(args) => ("bench", args.into_spec(run)),
        Command::Resume(args) => ("resume", args.into_spec(run)),
    };
    let setup = Setup::of(name, &spec);
    let report = match conductor::run(spec, pid) {
        Ok(run) => Report::new(setup, pid, run, allow_loss),
        Err(error) => {
            eprintln!("loadsim {name}: {error}");
            return ExitCode::from(2);
        }
    };
    match serde_json::to_string(&report) {
        Ok(text) if json => println!("{text}"),
        Ok(_) | Err(_) => print!("{report}"),
    }
    if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tells this run from others at about the same time or on the same host.
fn run_id() -> u32 {
    let [a, b, c, d, ..] = (Clock::start().now_ns() / 1000).to_le_bytes();
    u32::from_le_bytes([a, b, c, d]).rotate_left(16) ^ std::process::id()
}
