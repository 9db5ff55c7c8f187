//! The bounds of a session, each named with its unit (DESIGN "Limits").

use std::num::NonZeroU16;
use std::time::Duration;

use crate::ledger::rules::Rules;

/// What a session allows and announces. Shared by all sessions of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time from accept to a complete CONNECT.
    pub connect_timeout_ms: u64,
    /// Time from CONNECT until the session is granted; then CONNACK says Server unavailable.
    pub claim_timeout_ms: u64,
    /// Largest CONNECT packet.
    pub connect_bytes_max: usize,
    /// Largest packet after CONNECT; announced as Maximum Packet Size.
    pub packet_bytes_max: usize,
    /// Longest client identifier.
    pub client_id_bytes_max: usize,
    /// Longest topic name or filter.
    pub topic_bytes_max: usize,
    /// Most levels of a topic name or filter.
    pub topic_levels_max: usize,
    /// Most user properties of a packet.
    pub user_properties_max: usize,
    /// Publishes of the client that may wait for their acknowledgement; announced as Receive Maximum.
    pub receive_maximum: NonZeroU16,
    /// Topic aliases that the client may use; announced as Topic Alias Maximum.
    pub topic_alias_maximum: u16,
    /// Subscriptions of a session.
    pub subscriptions_max: usize,
    /// SUBSCRIBE and UNSUBSCRIBE packets that may wait for their answer.
    pub subscribe_packets_max: usize,
    /// Longest keep-alive that is granted, seconds. MQTT 3.x cannot be told and keeps its own.
    pub keep_alive_s_max: u16,
    /// Longest session expiry interval that is granted, seconds; `u32::MAX`: for ever. What an MQTT 3.x session without
    /// the clean flag gets.
    pub session_expiry_s_max: u32,
    /// How long a QoS 1 publish is held back while appends of an earlier connection may still land (F11),
    /// milliseconds; `u32::MAX`: for ever.
    pub hold_back_ms: u32,
    /// Most QoS 2 publishes of an MQTT 3.x client that are not complete; a client of MQTT 5 has the receive maximum.
    pub exactly_once_max: usize,
    /// Most publishes to the client that wait for its acknowledgement, whatever it announces.
    pub deliver_window_max: u16,
    /// Which rules hold: all of them, but where a simulation shows what one is for.
    pub rules: Rules,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            claim_timeout_ms: 5_000,
            connect_bytes_max: 8 * 1024,
            packet_bytes_max: 256 * 1024,
            client_id_bytes_max: 128,
            topic_bytes_max: 1024,
            topic_levels_max: 32,
            user_properties_max: 32,
            receive_maximum: NonZeroU16::MIN.saturating_add(63),
            topic_alias_maximum: 16,
            subscriptions_max: 200,
            subscribe_packets_max: 16,
            keep_alive_s_max: 20 * 60,
            session_expiry_s_max: 6 * 24 * 60 * 60,
            hold_back_ms: 2_000,
            exactly_once_max: 1_000,
            deliver_window_max: 64,
            rules: Rules::ALL,
        }
    }
}

impl Settings {
    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(super) fn claim_timeout(&self) -> Duration {
        Duration::from_millis(self.claim_timeout_ms)
    }

    /// Whether a topic name or filter is within the bounds.
    pub(super) fn allows_topic(&self, text: &str) -> bool {
        text.len() <= self.topic_bytes_max && text.bytes().filter(|&b| b == b'/').count() < self.topic_levels_max
    }
}
