//! Generated values for tests.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::ids::{Epoch, Incarnation, Nonce, Origin, Place};
use super::record::Watermark;
use super::state::{
    DueWill, Inbound, Life, OpenDelivery, Outbound, Part, Position, SessionState, SubscriptionState, Unresolved, Will,
};
use crate::mqtt::packet::{RetainHandling, SubscribeOptions};
use crate::mqtt::{PacketId, QoS, TopicFilter};

pub fn nonce(n: u8) -> Nonce {
    Nonce([n; 16])
}

pub fn incarnation(n: u8) -> Incarnation {
    Incarnation([0xA0 | n; 16])
}

pub fn place() -> impl Strategy<Value = Place> {
    (0..3_u32, 0..4_u32).prop_map(|(topic, partition)| Place { topic, partition })
}

pub fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

/// Sorted by place, each once.
pub fn marks() -> impl Strategy<Value = Vec<(Place, i64)>> {
    proptest::collection::btree_map(place(), 0..1_000_000_i64, 0..6).prop_map(|marks| marks.into_iter().collect())
}

pub fn origin() -> impl Strategy<Value = Origin> {
    (place(), 0..1_000_000_i64).prop_map(|(place, offset)| Origin { place, offset })
}

pub fn epoch() -> impl Strategy<Value = Epoch> {
    (0..2_u32, 0..1_000_i64).prop_map(|(generation, offset)| Epoch { generation, offset })
}

fn pending() -> impl Strategy<Value = Vec<(u32, PacketId)>> {
    vec((any::<u32>(), packet_id()), 0..3)
}

fn will() -> impl Strategy<Value = Will> {
    (any::<u8>(), 0..100_u32, vec(any::<u8>(), 0..20)).prop_map(|(n, delay_s, publish)| Will {
        nonce: nonce(n),
        delay_s,
        publish: publish.into(),
    })
}

fn due() -> impl Strategy<Value = Vec<DueWill>> {
    vec((will(), origin()).prop_map(|(will, from)| DueWill { will, from }), 0..2)
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![
        Just(Life::Connected),
        (0..10_000_i64).prop_map(|since_ms| Life::Disconnected { since_ms }),
        Just(Life::Deleted)
    ]
}

fn options() -> impl Strategy<Value = SubscribeOptions> {
    let handling = [RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never];
    (0..3_u8, any::<bool>(), any::<bool>(), proptest::sample::select(handling.to_vec())).prop_map(
        |(qos, no_local, retain_as_published, retain_handling)| SubscribeOptions {
            qos: QoS::from_u8(qos).unwrap(),
            no_local,
            retain_as_published,
            retain_handling,
        },
    )
}

fn subscriptions() -> impl Strategy<Value = Vec<SubscriptionState>> {
    let filter = "[a-c]{1,3}(/[a-c]{1,3}){0,2}(/#|/\\+)?";
    vec((filter, options(), option::of(1..1_000_u32), marks()), 0..3).prop_map(|subscriptions| {
        let subscription = |(filter, options, id, starts): (String, _, _, _)| SubscriptionState {
            filter: TopicFilter::parse(&filter).unwrap(),
            options,
            id,
            starts,
        };
        subscriptions.into_iter().map(subscription).collect()
    })
}

pub fn position() -> impl Strategy<Value = Position> {
    (any::<bool>(), marks(), vec((packet_id(), origin()), 0..3)).prop_map(|(following, from, in_flight)| Position {
        following,
        from,
        in_flight,
    })
}

fn unresolved() -> impl Strategy<Value = Unresolved> {
    let looked = proptest::collection::btree_set(place(), 0..4);
    (any::<u8>(), 0..4_u8, any::<u32>(), pending(), vec(packet_id(), 0..3), looked).prop_map(
        |(n, node, high, pending, released, looked)| Unresolved {
            nonce: nonce(n),
            incarnation: incarnation(node),
            high,
            pending,
            released,
            looked: looked.into_iter().collect(),
        },
    )
}

pub fn inbound() -> impl Strategy<Value = Inbound> {
    (any::<u32>(), vec(packet_id(), 0..3), pending(), vec(unresolved(), 0..2))
        .prop_map(|(high, held, pending, unresolved)| Inbound { high, held, pending, unresolved })
}

fn outbound() -> impl Strategy<Value = Outbound> {
    let open = (packet_id(), origin(), any::<bool>());
    let open = open.prop_map(|(packet_id, origin, released)| OpenDelivery { packet_id, origin, released });
    (vec(open, 0..3), marks()).prop_map(|(open, sent_to)| Outbound { open, sent_to })
}

pub fn state() -> impl Strategy<Value = SessionState> {
    let head = (any::<u32>(), "[a-z]{0,8}", life(), option::of(will()), due());
    (head, subscriptions(), position(), inbound(), outbound()).prop_map(
        |((expiry_s, identity, life, will, due), subscriptions, position, inbound, outbound)| SessionState {
            expiry_s,
            identity: identity.into(),
            life,
            will,
            due,
            subscriptions,
            position,
            inbound,
            outbound,
        },
    )
}

pub fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        (subscriptions(), position())
            .prop_map(|(subscriptions, position)| Part::Subscriptions(subscriptions, position)),
        position().prop_map(Part::Position),
        inbound().prop_map(Part::Inbound),
        outbound().prop_map(Part::Outbound),
        due().prop_map(Part::Due),
    ]
}

pub fn watermark() -> impl Strategy<Value = Watermark> {
    (marks(), marks()).prop_map(|(done, tokens)| Watermark { done, tokens })
}
