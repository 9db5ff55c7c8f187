//! The names of our record headers, and how a user property named like one of them is kept apart.
//!
//! Numbers are decimal ASCII text, flags are `0` or `1`, strings are UTF-8, so that a program in any language, or
//! a person at a console, can read and write them.

/// Every header whose name begins so is ours; clients cannot write one, see [`ESCAPE`].
pub const PREFIX: &str = "mqtt-";

/// Quality of service of the publish: `0`, `1` or `2`. Absent means 2: the subscription alone decides. So a QoS 2
/// publish and a plain record have none.
pub const QOS: &str = "mqtt-qos";
/// `1`: the publish had its retain flag set. Absent means it had not.
pub const RETAIN: &str = "mqtt-retain";
/// Content type.
pub const CONTENT_TYPE: &str = "mqtt-content-type";
/// Response topic, a topic name.
pub const RESPONSE_TOPIC: &str = "mqtt-response-topic";
/// Correlation data, bytes as they are.
pub const CORRELATION_DATA: &str = "mqtt-correlation-data";
/// When the message expires: milliseconds since the Unix epoch.
pub const EXPIRES_AT: &str = "mqtt-expires-at";
/// Payload format indicator: `0` bytes, `1` UTF-8 text.
pub const PAYLOAD_FORMAT: &str = "mqtt-payload-format";
/// Client id of the publisher: without it a subscription with No Local cannot tell (MQTT5 §3.8.3.1).
pub const PUBLISHER: &str = "mqtt-publisher";
/// Names a QoS 2 publish across connections and nodes; bytes of our own.
pub const TOKEN: &str = "mqtt-token";
/// Of a retained record: where its message is, as kafka topic number, partition and offset with commas between.
pub const SOURCE: &str = "mqtt-source";
/// Of a retained record whose source does not say everything: two numbers, greater is newer.
pub const RANK: &str = "mqtt-rank";
/// The record is a fence, not a message: readers drop it.
pub const FENCE: &str = "mqtt-fence";

/// Put before the name of a user property that begins with [`PREFIX`]: the property `mqtt-qos` is the header
/// `mqtt-user-mqtt-qos`. Taken off again on the way out, once.
pub const ESCAPE: &str = "mqtt-user-";

/// Whether a user property of this name must be escaped.
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with(PREFIX)
}
