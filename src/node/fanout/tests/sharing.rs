//! Those who lag share what is read for them.

use super::*;

const SESSIONS: u64 = 10_000;
const PARTITIONS: u32 = 4;

/// Sessions that were away for a while come back at once, each with a topic of its own and one that all have.
async fn come_back(stage: &mut Stage) -> Vec<Client> {
    for number in 1..=SESSIONS {
        stage.write(&format!("own/{number}"));
    }
    stage.write_many("all", 10);
    let clients: Vec<Client> = (0..SESSIONS).map(|_| stage.client()).collect();
    for client in &clients {
        let own = format!("own/{}", client.id.as_u64());
        stage.resume(client, &[&own, "all"], &[]);
    }
    stage.settle().await;
    clients
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_sessions_that_come_back_do_not_read_kafka_ten_thousand_times() {
    let mut stage = Stage::new(PARTITIONS, 0);
    let clients = come_back(&mut stage).await;
    for client in &clients {
        let got = stage.take_all(client).await;
        let own = format!("own/{}", client.id.as_u64());
        assert_eq!(got.iter().filter(|delivery| delivery.message.topic() == own).count(), 1);
        assert_eq!(got.len(), 11);
    }
    assert_eq!(stage.lagging(), 0);
    let reads = stage.fanout.metrics.catch_up_reads.get();
    assert!((1..100).contains(&reads), "{reads} reads");
}

#[tokio::test(start_paused = true)]
async fn what_is_still_in_memory_is_not_read_from_kafka_at_all() {
    let mut stage = Stage::new(PARTITIONS, 16 << 20);
    let always_there = stage.client();
    stage.follow(&always_there, "#");
    stage.settle().await;
    let clients = come_back(&mut stage).await;
    assert_eq!(stage.fanout.metrics.catch_up_reads.get(), 0);
    assert_eq!(stage.take_all(&clients[5_000]).await.len(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_slow_one_among_them_holds_nobody_up_and_gets_everything() {
    let mut stage = Stage::new(1, 0);
    stage.write_many("a", 1_000);
    let slow = stage.client_with(MailboxLimits { deliveries_max: 4, ..MailboxLimits::default() });
    let quick = stage.client();
    for client in [&slow, &quick] {
        stage.resume(client, &["#"], &[]);
    }
    stage.settle().await;
    assert_eq!(stage.offsets(&quick).await, (0..1_000).collect::<Vec<_>>());
    assert_eq!(stage.lagging(), 1);
    assert_eq!(stage.offsets(&slow).await, (0..1_000).collect::<Vec<_>>());
    assert_eq!(stage.lagging(), 0);
}
