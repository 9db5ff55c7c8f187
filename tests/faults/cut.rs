//! The way to Kafka is cut, or holds up what was sent.

use std::time::Duration;

use tokio::time::sleep;

use crate::cluster::{Cluster, ONE, Setup, is_wanted};
use crate::proxy::Proxy;
use crate::stage::{PLAIN, Stage, run_on, wait};

const CUTS: usize = 20;

/// A run over a proxy.
fn run_over_proxy(fault: &str, cause: impl AsyncFnOnce(&mut Stage, &Proxy)) {
    if is_wanted(fault) {
        let proxy = Proxy::start();
        let cluster = Cluster::start(Setup { advertised_port: Some(proxy.port), ..ONE });
        proxy.lead_to(&cluster.bootstrap[0]);
        run_on(fault, cluster, PLAIN, async |stage| cause(stage, &proxy).await);
    }
}

#[test]
fn connections_are_cut_after_the_send_and_before_the_answer() {
    run_over_proxy("connection cut after the send, before the answer, 20 times", async |_, proxy| {
        for _ in 0..CUTS {
            proxy.cut_before_next_answer();
            wait("a cut", async || proxy.cuts_left() == 0).await;
            sleep(Duration::from_millis(50)).await;
        }
        // Two attempts of the same batch, one after the other.
        proxy.cut_before_next_answer();
        proxy.cut_before_next_answer();
        proxy.cut_before_next_answer();
        wait("three cuts", async || proxy.cuts_left() == 0).await;
    });
}

#[test]
fn connections_are_cut_within_a_request() {
    run_over_proxy("connection cut within a request, 20 times", async |_, proxy| {
        for _ in 0..CUTS {
            proxy.cut_within_next_request();
            wait("a cut", async || proxy.cuts_left() == 0).await;
            sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
#[ignore = "takes more than 20 s"]
fn requests_that_were_given_up_land_later() {
    run_over_proxy("requests held up for 12 s, then they all land", async |_, proxy| {
        proxy.hold("millrace");
        sleep(Duration::from_secs(12)).await;
        assert!(proxy.held_requests() > 1, "no attempt was given up");
        proxy.release();
    });
}

#[test]
#[ignore = "longer than the delivery time-out of 2 minutes"]
fn requests_land_after_their_appends_were_given_up() {
    run_over_proxy("requests held up for 130 s, then they all land", async |_, proxy| {
        proxy.hold("millrace");
        sleep(Duration::from_secs(130)).await;
        proxy.release();
    });
}
