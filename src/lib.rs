//! Millrace, a Kafka-native MQTT broker.
//!
//! Every MQTT message is one plain Kafka record whose key is the MQTT topic and whose value is the payload. Nodes hold
//! nothing that Kafka does not. `ARCHITECTURE.md` tells the whole story; this page is the map.
//!
//! # Layers
//! A module imports only from smaller numbers (`tests/tidy.rs` holds the table).
//!
//! | layer | modules | |
//! |---|---|---|
//! | 0 | [`mqtt`] | bytes ↔ packets |
//! | 1 | [`route`], [`message`], [`ledger`] | who wants a topic and where it lives; PUBLISH ↔ record; what the log says |
//! | 2 | [`session`] | one client's protocol machine, sans-I/O |
//! | 3 | [`journal`], [`ops`], [`clock`] | the log; metrics, health, tasks; time |
//! | 4 | [`node`] | the actors between sockets and log |
//! | 5 | [`net`] | sockets of clients |
//! | 6 | [`config`], [`topics`], [`server`] | what the operator wants; kafka topics; everything wired |
//! | 7 | `main` | arguments and exit codes |
//!
//! # A PUBLISH of QoS 1, from socket to acknowledgement
//! 1. [`net::connection::serve`] reads once, [`mqtt::head::frame_head`] finds a whole packet, [`mqtt::decode::packet`]
//!    borrows it.
//! 2. [`session::Session::handle`] answers with [`session::Effect::Append`]. No PUBACK exists yet.
//! 3. [`node::writer::Writer::append`] asks [`route::mapping::Mapping::to_kafka`] and
//!    [`route::partition::partition_of`], and [`message::encode`] lends the record to [`journal::Journal::append`],
//!    which puts it straight into the open batch of its partition.
//! 4. Kafka acknowledges with acks=all: [`journal::AckSink::on_acks`] of [`node::writer::AckRouter`] brings the outcome to
//!    the connection's [`node::mailbox::Mailbox`] and wakes it once.
//! 5. [`session::Input::Appended`] → the session's `on_appended`, the only place that builds a PUBACK.
//!
//! # The same message, from log to subscriber
//! 1. [`journal::Tail::next`] hands a whole [`journal::Batch`] to the actor in [`node::fanout`].
//! 2. [`route::mapping::Mapping::to_mqtt`] gives the topic of a key, [`route::trie::Trie::matches`] who wants it; a
//!    record that nobody wants ends here, its value and headers never looked at.
//! 3. [`message::decode`] makes one [`message::Message`] for all of them; [`node::mailbox::Mailbox::push_delivery`] never
//!    waits: who has no room lags and reads from Kafka later what it missed.
//! 4. The connection hands it to the session ([`session::Input::Deliver`]), whose window decides when it is sent.
//!
//! # A CONNECT that takes a session over from another node
//! 1. [`session::Effect::Claim`] → [`node::steward::StewardHandle::claim`]: a claim with a new nonce is appended.
//! 2. Every node applies it ([`ledger::sessions::Sessions::apply`]); what it does to a session that a node has is
//!    [`ledger::claim::Claim`]'s to say. The loser's connection gets 0x8E, its last word follows its last append.
//! 3. The claimer inherits ([`ledger::sessions::Sessions::inherited`]) and writes its own set, one record.
//! 4. Read back with no other claim before it: [`session::Input::Granted`], CONNACK, [`session::Effect::Resume`].
//!
//! //! # A SUBSCRIBE
//! 1. [`session::Effect::Follow`] → [`node::fanout::FanoutHandle::follow`]: the filters are in the trie at once, what
//!    they match is held.
//! 2. One question for the ends of their partitions, shared by all who subscribe meanwhile ([`journal::Journal::ends`]).
//! 3. The answer is where they start: held messages from there on are delivered, and SUBACK is sent.

pub mod clock;
pub mod config;
pub mod journal;
pub mod ledger;
pub mod message;
pub mod mqtt;
pub mod net;
pub mod node;
pub mod ops;
pub mod route;
pub mod server;
pub mod session;
pub mod topics;
