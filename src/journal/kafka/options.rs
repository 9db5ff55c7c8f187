//! How the Kafka journal is set up: every number with its unit and default.

use std::time::Duration;

use super::records::Compression;
use super::security::Security;

/// Settings of a Kafka journal. [`KafkaOptions::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port` of some Kafka nodes; they name the others.
    pub bootstrap: Vec<String>,
    /// Shows up in Kafka's logs and quotas. Default `millrace`.
    pub client_id: String,
    /// How connections are secured. Default plaintext.
    pub security: Security,
    /// For a TCP connection, and again for each question of its handshake. Default 3,000.
    pub connect_timeout_ms: u64,
    /// What an answer may take beyond the time that the request itself allows Kafka to wait; then the connection is
    /// closed. Default 3,000.
    pub request_timeout_ms: u64,
    /// Leaders, nodes and partition counts are asked for at least this often. Default 30,000.
    pub metadata_refresh_ms: u64,
    /// How long [`super::KafkaJournal::open`] tries. Default 10,000.
    pub open_timeout_ms: u64,
    /// After this an append that has no outcome is `Refused(Deadline)` if it was certainly never sent, else `Unknown`.
    /// Until then it is sent again with the same bytes and sequence. Default 120,000.
    pub delivery_timeout_ms: u64,
    /// A kafka topic that the cluster does not know for this long is gone for those who append to it. Default 10,000.
    pub missing_topic_ms: u64,
    /// How long Kafka may wait for the in-sync replicas of one request. Default 2,000.
    pub produce_wait_ms: u32,
    /// Bytes taken and not yet decided, above which appends are not taken. Default 64 MiB.
    pub append_bytes_max: usize,
    /// Largest batch, uncompressed, and so the largest record. Default 1,000,000 (Kafka's own default limit is
    /// 1,048,588).
    pub batch_bytes_max: usize,
    /// A batch of this size does not wait for the request before it. Default 256 KiB.
    pub group_bytes: usize,
    /// A batch this old does not wait for the request before it. Default 2.
    pub linger_ms: u64,
    /// Requests to one node keep this distance from each other, in microseconds, unless a batch of `group_bytes` is ready: at
    /// moderate rates fewer of them, each with more records, cost less. A record waits at most so long for it (and up to a
    /// millisecond more, which is how exactly timers go); after a pause of this length it is sent at once. Default 1,000.
    pub produce_interval_us: u64,
    /// Produce requests under way to one node. Default 2.
    pub requests_in_flight_max: usize,
    /// Bytes of batches in one Produce request. Default 8 MiB.
    pub request_bytes_max: usize,
    /// `Lz4` (batches above 1 KB, where it helps) or `None`. Default `Lz4`.
    pub compression: Compression,
    /// How long a tail's request is parked at a node without news. Default 500.
    pub fetch_wait_ms: u32,
    /// A tail's requests to one node keep this distance from each other, in microseconds, as long as answers are small: at
    /// moderate rates fewer answers, each with more records, cost less. Default 1,000, and up to a millisecond more, which
    /// is how exactly timers go.
    pub fetch_interval_us: u64,
    /// Most bytes of one answer to a tail. Default 8 MiB.
    pub fetch_bytes_max: u32,
    /// Most bytes of one partition in an answer to a tail. Default 1 MiB.
    pub fetch_partition_bytes_max: u32,
    /// Largest batch after decompression. Default 64 MiB.
    pub decompressed_bytes_max: usize,
}

impl KafkaOptions {
    /// Defaults, for a cluster with these bootstrap nodes.
    pub fn new(bootstrap: Vec<String>) -> Self {
        Self {
            bootstrap,
            client_id: "millrace".to_owned(),
            security: Security::Plaintext,
            connect_timeout_ms: 3_000,
            request_timeout_ms: 3_000,
            metadata_refresh_ms: 30_000,
            open_timeout_ms: 10_000,
            delivery_timeout_ms: 120_000,
            missing_topic_ms: 10_000,
            produce_wait_ms: 2_000,
            append_bytes_max: 64 << 20,
            batch_bytes_max: 1_000_000,
            group_bytes: 256 << 10,
            linger_ms: 2,
            produce_interval_us: 1_000,
            requests_in_flight_max: 2,
            request_bytes_max: 8 << 20,
            compression: Compression::Lz4,
            fetch_wait_ms: 500,
            fetch_interval_us: 1_000,
            fetch_bytes_max: 8 << 20,
            fetch_partition_bytes_max: 1 << 20,
            decompressed_bytes_max: 64 << 20,
        }
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}
