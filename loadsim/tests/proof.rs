//! The program against a broker that misbehaves in known ways: it must find each one, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use self::broker::{Broker, Cut, Fault};

struct Ran {
    exit_code: Option<i32>,
    report: Value,
    complaint: String,
}

impl Ran {
    fn proof(&self) -> [u64; 3] {
        ["lost", "duplicated", "reordered"].map(|name| self.number(&format!("/whole_run/{name}")))
    }

    fn number(&self, pointer: &str) -> u64 {
        let value = self.report.pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("no number {pointer} in {:#}, {}", self.report, self.complaint))
    }
}

fn spawn(broker: SocketAddr, command: &str, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_loadsim"))
        .args([command, "--json", "--broker", &broker.to_string()])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn result(child: Child) -> Ran {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Ran {
        exit_code: status.code(),
        report: serde_json::from_slice(&stdout).unwrap_or(Value::Null),
        complaint: String::from_utf8(stderr).unwrap(),
    }
}

/// 300 messages as fast as they go, from three publishers to three subscribers.
fn bench(fault: Fault, further: &[&str]) -> Ran {
    let common = ["--publishers", "3", "--subscribers", "3", "--rate", "max", "--count", "300", "--warm-up-s", "0"];
    let broker = Broker::start(fault);
    result(spawn(broker.address, "bench", &[&common, further].concat()))
}

#[test]
fn nothing_is_wrong_with_a_broker_that_does_nothing_wrong() {
    for (protocol, qos) in [("3.1.1", "0"), ("3.1.1", "1"), ("5", "0"), ("5", "1"), ("3.1", "1")] {
        let ran = bench(Fault::Nothing, &["--protocol", protocol, "--qos", qos, "--threads", "2"]);
        assert_eq!(ran.exit_code, Some(0), "{:#} {}", ran.report, ran.complaint);
        assert_eq!(ran.proof(), [0, 0, 0]);
        assert_eq!(ran.number("/whole_run/expected"), 300);
        assert_eq!(ran.number("/whole_run/delivered"), 300);
        let acked = if qos == "1" { 300 } else { 0 };
        assert_eq!(ran.number("/messages/acked"), acked);
        assert_eq!(ran.report.pointer("/latency_us/ack/count").map_or(0, |n| n.as_u64().unwrap()), acked);
        assert_eq!(ran.number("/latency_us/end_to_end/count"), 300);
    }
}

#[test]
fn an_open_loop_sends_what_it_intends() {
    let broker = Broker::start(Fault::Nothing);
    let arguments = ["--publishers", "7", "--rate", "2000", "--count", "500", "--warm-up-s", "0"];
    let ran = result(spawn(broker.address, "bench", &[&arguments[..], &["--filter", "bench/#"]].concat()));
    assert_eq!(ran.exit_code, Some(0), "{:#} {}", ran.report, ran.complaint);
    assert_eq!((ran.number("/messages/intended"), ran.number("/whole_run/sent")), (500, 500));
    assert_eq!(ran.number("/latency_us/send_lag/count"), 500);
    assert_eq!(ran.proof(), [0, 0, 0]);
}

#[test]
fn acknowledged_messages_that_never_arrive_are_lost_and_fail_the_run() {
    let ran = bench(Fault::Drop(10), &["--drain-s", "0.3"]);
    assert_eq!((ran.exit_code, ran.proof()), (Some(1), [30, 0, 0]));
    let ran = bench(Fault::Drop(10), &["--drain-s", "0.3", "--allow-loss"]);
    assert_eq!((ran.exit_code, ran.proof()), (Some(0), [30, 0, 0]));
}

#[test]
fn each_subscriber_that_misses_a_message_counts() {
    let ran = bench(Fault::Drop(100), &["--drain-s", "0.3", "--filter", "bench/+"]);
    assert_eq!((ran.number("/whole_run/expected"), ran.proof()), (900, [9, 0, 0]));
}

#[test]
fn loss_at_qos_0_is_counted_but_was_never_promised() {
    let ran = bench(Fault::Drop(10), &["--drain-s", "0.3", "--qos", "0"]);
    assert_eq!((ran.exit_code, ran.proof()), (Some(0), [30, 0, 0]));
}

#[test]
fn duplicates_are_counted() {
    let ran = bench(Fault::Duplicate(10), &[]);
    assert_eq!((ran.exit_code, ran.proof()), (Some(0), [0, 30, 0]));
    assert_eq!(ran.number("/whole_run/delivered"), 300);
}

#[test]
fn messages_that_overtake_others_of_their_topic_are_counted() {
    let topic = ["--topic", "one", "--filter", "one", "--publishers", "1", "--subscribers", "1"];
    let broker = Broker::start(Fault::Swap(10));
    let counts = ["--rate", "max", "--count", "299", "--warm-up-s", "0"];
    let ran = result(spawn(broker.address, "bench", &[&topic[..], &counts[..]].concat()));
    assert_eq!((ran.exit_code, ran.proof()), (Some(0), [0, 0, 29]));
}

#[test]
fn what_the_broker_rejects_is_not_owed() {
    let ran = bench(Fault::Reject(10), &["--protocol", "5"]);
    assert_eq!((ran.exit_code, ran.proof()), (Some(0), [0, 0, 0]));
    assert_eq!((ran.number("/whole_run/rejected"), ran.number("/whole_run/expected")), (30, 270));
}

#[test]
fn a_connection_that_ends_during_the_run_fails_it() {
    let ran = bench(Fault::HangUp(250), &[]);
    assert_eq!((ran.exit_code, ran.number("/connections/lost")), (Some(1), 1));
    assert_eq!(ran.proof()[0], 0);
    // Whether it is the end or the reset that is seen first is up to the system.
    assert_eq!(ran.report["errors"].as_object().map(serde_json::Map::len), Some(1), "{:#}", ran.report);
}

#[test]
fn a_refusal_says_what_was_refused_and_why() {
    let ran = bench(Fault::RefuseConnect, &[]);
    assert_eq!(ran.exit_code, Some(2));
    assert!(ran.complaint.contains("the broker refused CONNECT: NotAuthorized (0x87)"), "{}", ran.complaint);
    let ran = bench(Fault::RefuseSubscribe, &[]);
    assert_eq!(ran.exit_code, Some(2));
    assert!(ran.complaint.contains("the broker refused the subscription to `bench/"), "{}", ran.complaint);
}

#[test]
fn a_port_that_nobody_listens_on_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let complaint = format!("cannot connect to {address}");
    let ran = result(spawn(address, "pub", &[]));
    assert_eq!(ran.exit_code, Some(2));
    assert!(ran.complaint.contains(&complaint), "{}", ran.complaint);
    let ran = result(spawn(address, "conn", &["--connections", "3", "--duration-s", "0"]));
    assert_eq!((ran.exit_code, ran.number("/connections/refused")), (Some(1), 3));
}

#[test]
fn a_run_in_which_nobody_would_get_anything_does_not_start() {
    let ran = bench(Fault::Nothing, &["--filter", "other/{i}"]);
    assert_eq!(ran.exit_code, Some(2));
    assert!(ran.complaint.contains("no subscriber's filter matches"), "{}", ran.complaint);
}

#[test]
fn idle_connections_are_held_and_counted() {
    let arguments = ["--connections", "200", "--duration-s", "0.2", "--source-addresses", "127.0.0.1-127.0.0.3"];
    let ran = result(spawn(Broker::start(Fault::Nothing).address, "conn", &arguments));
    assert_eq!((ran.exit_code, ran.number("/connections/ready")), (Some(0), 200), "{}", ran.complaint);
    assert_eq!(ran.number("/latency_us/connect/count"), 200);

    let ran = result(spawn(
        Broker::start(Fault::RefuseConnect).address,
        "conn",
        &["--connections", "20", "--duration-s", "0"],
    ));
    assert_eq!((ran.exit_code, ran.number("/connections/refused")), (Some(1), 20));
}

#[test]
fn a_subscriber_in_its_own_process_sees_gaps() {
    let broker = Broker::start(Fault::Drop(10));
    let child = spawn(broker.address, "sub", &["--subscribers", "2", "--count", "190", "--duration-s", "20"]);
    broker.wait_for_subscribers(2);
    let publishing = result(spawn(broker.address, "pub", &["--publishers", "1", "--count", "105", "--rate", "max"]));
    assert_eq!(
        (publishing.exit_code, publishing.number("/messages/acked")),
        (Some(0), 105),
        "{}",
        publishing.complaint
    );
    let subscribing = result(child);
    assert_eq!((subscribing.exit_code, subscribing.proof()), (Some(1), [20, 0, 0]), "{}", subscribing.complaint);
    assert_eq!(subscribing.number("/latency_us/end_to_end/count"), 190);
}

/// As [`bench`], with sessions that last and clients that come back.
fn bench_with_sessions(fault: Fault, further: &[&str]) -> Ran {
    let lasting = ["--protocol", "5", "--session-expiry-s", "60", "--reconnect"];
    bench(fault, &[&lasting, further].concat())
}

#[test]
fn qos_2_is_proved_in_every_version() {
    for protocol in ["3.1", "3.1.1", "5"] {
        let ran = bench(Fault::Nothing, &["--protocol", protocol, "--qos", "2"]);
        assert_eq!((ran.exit_code, ran.proof()), (Some(0), [0, 0, 0]), "{:#} {}", ran.report, ran.complaint);
        assert_eq!((ran.number("/messages/acked"), ran.number("/whole_run/delivered")), (300, 300));
    }
}

#[test]
fn a_duplicate_at_qos_2_fails_the_run() {
    let ran = bench(Fault::Duplicate(10), &["--qos", "2"]);
    assert_eq!((ran.exit_code, ran.proof()), (Some(1), [0, 30, 0]));
    let ran = bench(Fault::Duplicate(10), &["--qos", "2", "--sub-qos", "1"]);
    assert_eq!(ran.exit_code, Some(0), "at QoS 1 it is allowed");
}

#[test]
fn clients_come_back_go_on_with_their_sessions_and_lose_and_double_nothing() {
    for qos in ["1", "2"] {
        for cut in [Cut::Message, Cut::Answer] {
            let ran = bench_with_sessions(Fault::Cut(150, cut), &["--qos", qos]);
            assert_eq!(ran.exit_code, Some(0), "QoS {qos} {cut:?} {:#} {}", ran.report, ran.complaint);
            assert_eq!((ran.number("/whole_run/acked"), ran.proof()[0]), (300, 0));
            assert_eq!((ran.number("/returns/ended"), ran.number("/returns/resumed")), (6, 6));
            assert_eq!((ran.number("/connections/ready"), ran.number("/connections/lost")), (6, 0));
            assert_eq!(ran.number("/latency_us/away/count"), 6);
            assert_eq!(ran.number("/latency_us/caught_up/count"), 3);
            if qos == "2" {
                assert_eq!(ran.proof(), [0, 0, 0], "{cut:?}");
            }
        }
    }
}

#[test]
fn sessions_of_mqtt_3_last_without_a_clean_start() {
    let further = ["--protocol", "3.1.1", "--clean-start", "false", "--reconnect", "--qos", "2", "--drain-s", "5"];
    let ran = bench(Fault::Cut(150, Cut::Answer), &further);
    assert_eq!((ran.exit_code, ran.proof()), (Some(0), [0, 0, 0]), "{:#} {}", ran.report, ran.complaint);
    assert_eq!(ran.number("/returns/resumed"), 6);
}

#[test]
fn a_broker_that_forgets_what_it_took_doubles_qos_2_and_is_found() {
    let ran = bench_with_sessions(Fault::Cut(150, Cut::Memory), &["--qos", "2"]);
    assert_eq!((ran.exit_code, ran.proof()), (Some(1), [0, 1, 0]), "{:#} {}", ran.report, ran.complaint);
}

#[test]
fn a_broker_that_loses_sessions_is_found() {
    let ran = bench_with_sessions(Fault::Cut(150, Cut::Sessions), &["--qos", "1", "--drain-s", "0.5"]);
    assert_eq!(ran.exit_code, Some(1), "{:#} {}", ran.report, ran.complaint);
    assert_eq!((ran.number("/returns/sessions_lost"), ran.number("/returns/resumed")), (6, 0));
}

#[test]
fn resuming_subscribers_are_timed_beside_probes() {
    let broker = Broker::start(Fault::Cut(100, Cut::Answer));
    let further = ["--subscribers", "20", "--rate", "200", "--duration-s", "3", "--probes", "4", "--protocol", "5"];
    let ran = result(spawn(broker.address, "resume", &further));
    assert_eq!((ran.exit_code, ran.proof()[0]), (Some(0), 0), "{:#} {}", ran.report, ran.complaint);
    assert_eq!(ran.number("/returns/resumed"), 21, "{:#}", ran.report);
    assert_eq!(ran.number("/latency_us/caught_up/count"), 20);
    assert!(ran.number("/latency_us/probe_resume/count") >= 2, "{:#}", ran.report);
    assert!(ran.number("/latency_us/probe_clean/count") >= 2, "{:#}", ran.report);
    let since = |name| ran.report.pointer(name).and_then(Value::as_f64).unwrap();
    assert!(since("/returns/all_caught_up_s") >= 0.05);
    assert!(since("/returns/all_ready_s") >= 0.05);
}

#[test]
fn clients_turn_to_another_node_when_theirs_is_gone() {
    // The other node knows nothing of the sessions: that is how it is recognized.
    let (first, other) = (Broker::start(Fault::HangUp(100)), Broker::start(Fault::Nothing));
    let further = ["--publishers", "1", "--subscribers", "1", "--rate", "500", "--count", "200", "--reconnect"];
    let other = other.address.to_string();
    let lasting = ["--protocol", "5", "--session-expiry-s", "60", "--drain-s", "0.2", "--fallback", &other];
    let ran = result(spawn(first.address, "bench", &[&further[..], &lasting].concat()));
    assert_eq!(ran.number("/returns/ended"), 1, "{:#} {}", ran.report, ran.complaint);
    assert_eq!((ran.number("/returns/sessions_lost"), ran.number("/returns/resumed")), (1, 0));
}

#[test]
fn the_process_to_end_must_be_there() {
    let broker = Broker::start(Fault::Nothing);
    let ran = result(spawn(broker.address, "resume", &["--kill-pid", "4194304", "--subscribers", "1"]));
    assert_eq!(ran.exit_code, Some(2));
    assert!(ran.complaint.contains("there is no process 4194304"), "{}", ran.complaint);
}

#[test]
fn the_process_to_end_is_ended_when_it_is_time() {
    let broker = Broker::start(Fault::Nothing);
    let mut victim = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = victim.id().to_string();
    let further = ["--kill-pid", &pid, "--kill-after-s", "0.1", "--duration-s", "0.3", "--subscribers", "2"];
    let ran = result(spawn(broker.address, "resume", &further));
    assert_eq!(ran.exit_code, Some(0), "{:#} {}", ran.report, ran.complaint);
    assert!(!victim.wait().unwrap().success());
}
