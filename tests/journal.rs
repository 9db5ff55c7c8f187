//! The journal's contract, written once and held by every journal.
//!
//! A journal takes part with a [`fixture::Fixture`] and one [`contract_tests!`] line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod journal {
    pub mod appending;
    pub mod fencing;
    pub mod fixture;
    pub mod following;
    pub mod kafka;
    pub mod memory;
    pub mod reading;
}

/// One test per property for a fixture: `$fixture` is an expression of type `Option<impl Fixture>`; `None` skips.
macro_rules! contract_tests {
    ($journal:ident, $fixture:expr) => {
        contract_tests!(@each $journal, $fixture,
            appending: every_accepted_append_has_one_outcome,
            appending: outcomes_name_the_offsets_where_the_records_are,
            appending: appends_to_one_partition_keep_their_order,
            appending: a_full_budget_is_told_and_room_comes_back,
            appending: a_record_beyond_every_batch_is_not_taken,
            appending: a_partition_that_does_not_exist_is_not_written_to,
            appending: flush_waits_for_the_outcomes_of_what_was_taken,
            fencing: every_incarnation_has_a_producer_id_of_its_own,
            fencing: a_fenced_incarnation_writes_nothing_more,
            fencing: a_fence_finds_what_is_queued,
            fencing: a_producer_that_never_wrote_can_be_fenced,
            fencing: a_fence_can_be_repeated_by_anybody,
            fencing: a_fence_says_where_it_failed,
            reading: records_come_back_byte_for_byte,
            reading: the_ends_are_where_the_log_is,
            reading: a_read_goes_on_where_the_last_one_ended,
            reading: a_read_at_the_end_is_empty,
            reading: creating_what_exists_changes_nothing,
            reading: a_kafka_topic_has_the_id_that_the_cluster_gave_it,
            reading: another_journal_reads_the_same_log,
            following: a_tail_sees_what_was_written_before_and_after,
            following: a_tail_starts_at_its_offset,
            following: a_tail_passes_holes,
            following: two_tails_do_not_disturb_each_other,
            following: unfollow_ends_and_follow_moves,
            following: a_tail_may_be_cancelled_at_any_time,
            following: a_tail_knows_the_ends_of_an_empty_partition,
        );
    };
    (@each $journal:ident, $fixture:expr, $($module:ident: $property:ident,)*) => {
        mod $journal {
            $(
                #[tokio::test]
                async fn $property() {
                    let Some(fixture) = $fixture else {
                        eprintln!("skipped: no {} to test with", stringify!($journal));
                        return;
                    };
                    super::journal::fixture::in_time(super::journal::$module::$property(&fixture)).await;
                }
            )*
        }
    };
}

contract_tests!(kafka, super::journal::kafka::KafkaFixture::new());
contract_tests!(memory, Some(super::journal::memory::MemoryFixture::new()));
contract_tests!(memory_fenced_by_records, Some(super::journal::memory::MemoryFixture::fenced_by_records()));
