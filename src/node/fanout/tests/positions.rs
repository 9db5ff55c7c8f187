//! Where a session is, whatever happened to it or to the log.

use super::*;
use crate::journal::Offset;

fn small() -> MailboxLimits {
    MailboxLimits { deliveries_max: 3, ..MailboxLimits::default() }
}

#[tokio::test(start_paused = true)]
async fn a_resumed_session_gets_everything_from_its_position_on_and_nothing_older() {
    for recent in [0, RECENT] {
        let mut stage = Stage::new(1, recent);
        stage.write_many("a", 10);
        let (here, client) = (stage.place(0), stage.client());
        stage.resume(&client, &["#"], &[(here, 4)]);
        stage.settle().await;
        assert_eq!(stage.offsets(&client).await, [4, 5, 6, 7, 8, 9]);
        assert_eq!(stage.lagging(), 0);
        stage.write_many("a", 2);
        stage.settle().await;
        assert_eq!(stage.offsets(&client).await, [10, 11]);
        assert_eq!(stage.gone(&client, &[]).from, [(here, 12)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_resumed_subscription_that_started_behind_the_position_gets_nothing_older() {
    let mut stage = Stage::new(1, RECENT);
    for topic in ["a", "b", "a", "b"] {
        stage.write(topic);
    }
    let (here, client) = (stage.place(0), stage.client());
    let mut filters = follows(&["a", "b"]);
    filters[1].starts = vec![(here, 2)];
    stage.command(Command::Resume { subscriber: client.subscriber(), filters, from: vec![(here, 0)] });
    stage.settle().await;
    assert_eq!(stage.offsets(&client).await, [0, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn each_new_subscription_is_told_where_it_starts() {
    let mut stage = Stage::new(1, RECENT);
    stage.write_many("a", 3);
    let (here, client) = (stage.place(0), stage.client());
    stage.follow(&client, "a");
    stage.settle().await;
    match client.notices().as_slice() {
        [Notice::Followed { starts, .. }] => {
            assert_eq!(*starts, [(TopicFilter::parse("a").unwrap(), vec![(here, 3)])]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_session_resumes_comes_once_and_in_order() {
    let mut stage = Stage::new(1, RECENT);
    let other = stage.client();
    stage.follow(&other, "#");
    stage.settle().await;
    stage.write_many("a", 3);
    let (here, client) = (stage.place(0), stage.client());
    stage.resume(&client, &["a", "#"], &[(here, 1)]);
    stage.write_many("a", 3);
    stage.settle().await;
    assert_eq!(stage.offsets(&client).await, [1, 2, 3, 4, 5]);
    assert_eq!(stage.fanout.metrics.catch_up_reads.get(), 0, "all of it was in memory");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_ahead_of_this_nodes_tail_gets_nothing_twice() {
    let mut stage = Stage::new(1, RECENT);
    let (here, client, other) = (stage.place(0), stage.client(), stage.client());
    stage.follow(&other, "#");
    stage.settle().await;
    stage.write_many("a", 10);
    // The tail of this node has not read anything of it yet.
    stage.resume(&client, &["#"], &[(here, 7)]);
    assert_eq!(stage.fanout.position_of(client.id), [(here, 7)]);
    stage.settle().await;
    assert_eq!(stage.offsets(&client).await, [7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn qos_0_does_not_wait_for_what_a_resumed_session_still_reads_and_nothing_old_comes() {
    let mut stage = Stage::new(1, RECENT);
    let (here, client, other) = (stage.place(0), stage.client(), stage.client());
    stage.follow(&other, "#");
    stage.settle().await;
    stage.write_many("a", 5);
    stage.write_many("b", 2);
    // The tail has read nothing of it yet; the session was at 6 when its old node died.
    let filters = [follows(&["a"]), follows_with(QoS::AtMostOnce, &["b"])].concat();
    stage.resume_with(&client, filters, &[(here, 6)]);
    stage.write("a");
    stage.write("b");
    stage.settle_without_sweeps().await;
    assert_eq!((stage.offsets(&client).await, stage.lagging()), (vec![6, 8], 1));
    stage.settle().await;
    assert_eq!((stage.offsets(&client).await, stage.lagging()), (vec![7], 0));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_a_position_does_not_know_is_read_from_its_start() {
    let mut stage = Stage::new(2, RECENT);
    let topics: Vec<String> = (0..20).map(|n| format!("a/{n}")).collect();
    for topic in &topics {
        stage.write(topic);
    }
    let (here, there, client) = (stage.place(0), stage.place(1), stage.client());
    let there_count = topics.iter().filter(|topic| partition_of(topic.as_bytes(), 2) == 1).count();
    stage.resume(&client, &["#"], &[(here, 20 - i64::try_from(there_count).unwrap())]);
    stage.settle().await;
    let got = stage.take_all(&client).await;
    assert!(got.iter().all(|delivery| delivery.origin.unwrap().place == there));
    assert_eq!(got.len(), there_count);
}

#[tokio::test(start_paused = true)]
async fn a_position_in_a_kafka_topic_that_was_created_anew_means_the_start_of_the_new_one() {
    let mut stage = Stage::new(1, RECENT);
    let old = stage.place(0);
    let mut live = stage.client();
    stage.follow(&live, "#");
    stage.settle().await;
    live.notices();
    stage.write_many("a", 10);
    stage.settle().await;
    assert_eq!(stage.offsets(&live).await.len(), 10);
    stage.log.with(|log| log.recreate_topic(TOPIC));
    stage.write_many("a", 3);
    stage.settle().await;
    let new = stage.place(0);
    assert_ne!(old, new);
    let (following, from) = live.expect_positions();
    assert_eq!((following, from.as_slice()), (true, &[(new, 0)][..]), "it was told before anything was pushed");
    assert_eq!(stage.offsets(&live).await, [0, 1, 2]);
    live = stage.client();
    stage.resume(&live, &["#"], &[(old, 5)]);
    stage.settle().await;
    assert_eq!(stage.offsets(&live).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_position_that_retention_passed_goes_on_at_the_logs_start_and_the_loss_is_counted() {
    let mut stage = Stage::new(1, 0);
    stage.write_many("a", 10);
    let (here, client) = (stage.place(0), stage.client());
    stage.log.with(|log| log.delete_before(TOPIC, 0, Offset(6)));
    stage.resume(&client, &["#"], &[(here, 2)]);
    stage.settle().await;
    assert_eq!(stage.offsets(&client).await, [6, 7, 8, 9]);
    assert_eq!(stage.fanout.metrics.records_lost.get(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_is_overtaken_by_retention_and_goes_on() {
    let mut stage = Stage::new(1, 0);
    let client = stage.client_with(small());
    stage.follow(&client, "#");
    stage.settle().await;
    stage.write_many("a", 10);
    stage.settle().await;
    assert_eq!(stage.lagging(), 1);
    stage.log.with(|log| log.delete_before(TOPIC, 0, Offset(6)));
    assert_eq!(stage.offsets(&client).await, [0, 1, 2, 6, 7, 8, 9]);
    assert_eq!((stage.lagging(), stage.fanout.metrics.records_lost.get()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_position_beyond_the_logs_end_is_taken_back_to_it() {
    let mut stage = Stage::new(1, RECENT);
    stage.write_many("a", 3);
    let (here, client) = (stage.place(0), stage.client());
    stage.resume(&client, &["#"], &[(here, 50)]);
    stage.settle().await;
    stage.write_many("a", 2);
    stage.settle().await;
    assert_eq!(stage.offsets(&client).await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_a_connection_leaves_behind_is_lowered_to_all_that_was_not_acknowledged() {
    let mut stage = Stage::new(1, RECENT);
    let (here, client) = (stage.place(0), stage.client());
    stage.follow(&client, "#");
    stage.settle().await;
    stage.write_many("a", 6);
    stage.settle().await;
    let taken = [0, 1].map(|_| client.mailbox.pop_delivery().0.unwrap().origin.unwrap());
    let position = stage.gone(&client, &[(5, taken[1])]);
    assert_eq!(position, Position { following: false, from: vec![(here, 1)], in_flight: vec![(id(5), taken[1])] });

    let client = stage.client();
    stage.follow(&client, "#");
    stage.settle().await;
    stage.write_many("a", 2);
    stage.settle().await;
    assert_eq!(stage.gone(&client, &[]).from, [(here, 6)], "it waited");
}

#[tokio::test(start_paused = true)]
async fn what_came_after_the_connection_had_closed_is_not_skipped() {
    let mut stage = Stage::new(1, RECENT);
    let (here, client) = (stage.place(0), stage.client());
    stage.follow(&client, "#");
    stage.settle().await;
    client.mailbox.close();
    stage.write_many("a", 2);
    stage.settle().await;
    assert_eq!(stage.gone(&client, &[]).from, [(here, 0)]);
    assert_eq!(stage.lagging(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_lags_is_where_it_stopped() {
    let mut stage = Stage::new(1, RECENT);
    let (here, client) = (stage.place(0), stage.client_with(small()));
    stage.follow(&client, "#");
    stage.settle().await;
    stage.write_many("a", 10);
    stage.settle().await;
    assert_eq!(stage.fanout.position_of(client.id), [(here, 3)]);
    assert_eq!(stage.gone(&client, &[]).from, [(here, 0)], "what waits was not acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_starts_where_the_log_ends_and_says_so() {
    let mut stage = Stage::new(1, RECENT);
    stage.write_many("a", 5);
    let (here, client) = (stage.place(0), stage.client());
    stage.follow(&client, "a");
    stage.settle().await;
    assert_eq!(client.expect_followed(), [(here, 5)]);
    stage.follow(&client, "b");
    // Before the tail has read them: the second subscription must not be taken back to them.
    stage.write_many("a", 2);
    stage.settle().await;
    assert_eq!(client.expect_followed(), [(here, 5)], "they wait");
    assert_eq!(stage.offsets(&client).await, [5, 6]);
}

#[tokio::test(start_paused = true)]
async fn what_an_unsubscribed_filter_missed_holds_nobody_up() {
    let mut stage = Stage::new(1, RECENT);
    let client = stage.client_with(small());
    stage.follow(&client, "#");
    stage.settle().await;
    stage.write_many("a", 10);
    stage.settle().await;
    let command =
        Command::Unfollow { connection: client.id, packet_id: id(2), filters: vec![TopicFilter::parse("#").unwrap()] };
    stage.command(command);
    assert_eq!(stage.fanout.position_of(client.id), []);
    assert_eq!(stage.offsets(&client).await, [0, 1, 2]);
    assert_eq!(stage.lagging(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lagging_subscribers_new_subscription_brings_nothing_older() {
    let mut stage = Stage::new(1, RECENT);
    let client = stage.client_with(small());
    stage.follow(&client, "a");
    stage.settle().await;
    stage.write_many("a", 5);
    stage.write_many("late", 2);
    stage.settle().await;
    stage.follow(&client, "late");
    stage.settle().await;
    stage.write("late");
    stage.settle().await;
    assert_eq!(stage.offsets(&client).await, [0, 1, 2, 3, 4, 7]);
}

mod watermarks {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as it is compared")]
    fn round(
        done: Option<(Place, i64)>,
        detached: &[ConnectionId],
        attached: &[ConnectionId],
    ) -> Option<WatermarkRound> {
        let done = done.map(|position| vec![position]);
        Some(WatermarkRound { detached: detached.to_vec(), attached: attached.to_vec(), done })
    }

    #[tokio::test(start_paused = true)]
    async fn the_watermark_follows_those_who_keep_up_and_a_slow_one_is_detached_before_it() {
        let mut stage = Stage::new(1, RECENT);
        let (here, quick, slow) = (stage.place(0), stage.client(), stage.client());
        for client in [&quick, &slow] {
            stage.follow(client, "#");
            stage.settle().await;
            client.expect_followed();
        }
        stage.write_many("a", 4);
        stage.settle().await;
        stage.take_all(&quick).await;
        stage.take_all(&slow).await;
        quick.ack_all();
        stage.tick();
        assert_eq!(stage.round(), None, "nothing was sampled before");
        stage.tick();
        assert_eq!(stage.round(), round(Some((here, 4)), &[slow.id], &[]));
        assert_eq!(slow.expect_positions(), (false, vec![(here, 4)]));
        assert!(quick.notices().is_empty());
        slow.ack_all();
        stage.tick();
        assert_eq!(slow.expect_positions(), (true, vec![(here, 4)]));
        assert_eq!(stage.round(), round(None, &[], &[slow.id]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_resumed_session_follows_once_it_has_acknowledged_what_it_missed() {
        let mut stage = Stage::new(1, RECENT);
        stage.write_many("a", 4);
        let (here, client) = (stage.place(0), stage.client());
        stage.resume(&client, &["#"], &[(here, 1)]);
        stage.tick();
        stage.settle().await;
        for _ in 0..3 {
            stage.tick();
            assert!(client.notices().is_empty(), "it waits in the mailbox");
        }
        stage.take_all(&client).await;
        stage.tick();
        assert!(client.notices().is_empty(), "it is not acknowledged");
        client.ack_all();
        stage.tick();
        assert_eq!(client.expect_positions(), (true, vec![(here, 4)]));
        assert_eq!(stage.round(), round(None, &[], &[client.id]), "nobody followed");
        stage.write("a");
        stage.settle().await;
        stage.take_all(&client).await;
        client.ack_all();
        stage.tick();
        assert_eq!(stage.round(), round(Some((here, 4)), &[], &[]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_until_its_subscription_has_started_counts_as_not_acknowledged() {
        let mut stage = Stage::new(1, RECENT);
        let client = stage.client();
        stage.follow(&client, "a");
        stage.settle().await;
        client.expect_followed();
        stage.follow(&client, "b");
        stage.write("b");
        // The tail hands it out before the answer to the question where "b" starts.
        while stage.fanout.asked.as_ref().is_none_or(|asked| asked.held.is_empty()) {
            let event = stage.tail.next().await;
            stage.fanout.on_tail(event, &mut *stage.tail);
        }
        stage.tick();
        stage.tick();
        assert!(!client.expect_positions().0);
        assert_eq!(stage.round(), round(None, &[client.id], &[]));
    }

    #[tokio::test(start_paused = true)]
    async fn when_kafka_loses_the_end_of_a_log_nobody_follows_a_watermark_beyond_it() {
        let mut stage = Stage::new(1, RECENT);
        let (here, client) = (stage.place(0), stage.client());
        stage.follow(&client, "#");
        stage.settle().await;
        client.expect_followed();
        stage.write_many("a", 10);
        stage.settle().await;
        stage.take_all(&client).await;
        client.ack_all();
        stage.tick();
        stage.tick();
        assert_eq!(stage.round(), round(Some((here, 10)), &[], &[]));
        stage.log.with(|log| log.lose_end(TOPIC, 0, Offset(6)));
        stage.settle().await;
        assert_eq!(client.expect_positions(), (false, vec![(here, 6)]));
        assert_eq!(stage.round(), round(None, &[client.id], &[]));
        stage.tick();
        assert_eq!(stage.round(), round(Some((here, 6)), &[], &[client.id]));
        assert_eq!(client.expect_positions(), (true, vec![(here, 6)]));
        stage.write("a");
        stage.settle().await;
        assert_eq!(stage.offsets(&client).await, [6]);
    }

    #[tokio::test(start_paused = true)]
    async fn new_partitions_are_in_the_positions_of_those_who_touch_them() {
        let mut stage = Stage::new(1, RECENT);
        let client = stage.client();
        stage.follow(&client, "#");
        stage.settle().await;
        client.expect_followed();
        stage.log.with(|log| log.add_partitions(TOPIC, 2));
        stage.settle().await;
        let (here, there) = (stage.place(0), stage.place(1));
        assert_eq!(client.expect_positions(), (true, vec![(here, 0), (there, 0)]));
    }
}
