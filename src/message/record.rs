//! A Kafka record as a value that borrows: what is appended, and what is read.

/// One header. Names are UTF-8 in Kafka; a foreign producer's value may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Header name, duplicates allowed.
    pub name: &'a str,
    /// Header value.
    pub value: Option<&'a [u8]>,
}

/// A record to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Record key: the MQTT topic or the mapping's key template, filled in.
    pub key: Option<&'a [u8]>,
    /// Record value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since the Unix epoch (`CreateTime`).
    pub timestamp_ms: i64,
}
