//! The checks on histories made by hand: right ones pass, and each kind of wrong one is found.

use std::num::NonZeroU16;

use millrace::mqtt::packet::{ProtocolVersion, QoS};

use super::cast::{Cast, Death, Dying, Ids, Part, Publishing, Role, Subscribing};
use super::check::{
    Due, Log, Run, check, closed_though_they_had_to_stay, disordered_in_log, disordered_on_the_way, doubled_in_log,
    doubled_on_the_way, figures, lost_in_log, lost_on_the_way, lost_sessions, percentile, wills_due, wrong_wills,
};
use super::history::{Act, ClientNo, Deed, End, Event, What};

/// Two publishers (QoS 2, QoS 1), a subscriber of each and both, one client with a will.
const EXACT: ClientNo = 0;
const OFTEN: ClientNo = 1;
const SUBSCRIBER: ClientNo = 2;
const MORTAL: ClientNo = 3;

struct Play {
    cast: Cast,
    events: Vec<Event>,
    log: Log,
}

impl Play {
    fn new() -> Self {
        let publisher = |qos| Role::Publisher(Publishing { qos, window: 4, ids: Ids::Lowest });
        let subscriber = Role::Subscriber(Subscribing {
            filter: "nodes/#".to_owned(),
            topics: vec![EXACT, OFTEN],
            qos: QoS::ExactlyOnce,
            receive_maximum: NonZeroU16::MAX,
            is_slow: false,
        });
        let mortal = Role::Mortal(Dying { delay_s: 0, death: Death::Cut, after_ms: 0 });
        let roles = [publisher(QoS::ExactlyOnce), publisher(QoS::AtLeastOnce), subscriber, mortal];
        let part = |role| Part { id: String::new(), version: ProtocolVersion::V5, role };
        Self { cast: Cast { clients: roles.map(part).into() }, events: Vec::new(), log: Log::default() }
    }

    /// Everything as it should be: three messages on each topic, delivered.
    fn right() -> Self {
        let mut play = Self::new();
        for client in [EXACT, OFTEN, SUBSCRIBER] {
            play.act(client, Act::Connected { session_present: false });
        }
        play.act(SUBSCRIBER, Act::Subscribed);
        for number in 0..3 {
            for topic in [EXACT, OFTEN] {
                play.published(topic, number);
                play.received(topic, number, true);
            }
        }
        play
    }

    fn act(&mut self, client: ClientNo, act: Act) {
        self.happens(What::Client(client, act));
    }

    fn deed(&mut self, deed: Deed) {
        self.happens(What::Deed(deed));
    }

    fn happens(&mut self, what: What) {
        let at_us = self.events.last().map_or(0, |event| event.at_us) + 1000;
        self.events.push(Event { at_us, what });
    }

    fn passes(&mut self, us: u64) {
        let at_us = self.events.last().map_or(0, |event| event.at_us) + us;
        self.events.push(Event { at_us, what: What::Deed(Deed::Note(String::new())) });
    }

    fn sent(&mut self, topic: ClientNo, number: u64) {
        self.act(topic, Act::Sent { number, id: 1, dup: false });
    }

    fn published(&mut self, topic: ClientNo, number: u64) {
        self.sent(topic, number);
        self.act(topic, Act::Acked { number });
        self.log.topics.entry(topic).or_default().push(number);
    }

    fn received(&mut self, topic: ClientNo, number: u64, is_new: bool) {
        self.act(SUBSCRIBER, Act::Received { topic, number, id: 1, dup: !is_new, is_new });
    }

    fn run(&self) -> Run<'_> {
        Run { cast: &self.cast, events: &self.events, log: &self.log }
    }

    /// One connection of the client with the will.
    fn lived(&mut self, end: End, wills: usize) {
        self.act(MORTAL, Act::Connecting);
        self.act(MORTAL, Act::Connected { session_present: false });
        self.act(MORTAL, Act::Ended(end, String::new()));
        self.log.wills.insert(MORTAL, wills);
    }
}

#[test]
fn a_right_history_has_nothing_wrong() {
    let play = Play::right();
    assert_eq!(check(play.run()), Vec::<String>::new());
    let figures = figures(play.run());
    assert_eq!((figures.acked, figures.received), ([0, 3, 3], [0, 3, 3]));
}

#[test]
fn legal_repetitions_have_nothing_wrong() {
    let mut play = Play::right();
    // QoS 1 was sent again, came again; QoS 2 was sent again and known by its id.
    play.log.topics.insert(OFTEN, vec![0, 1, 0, 1, 2]);
    play.received(OFTEN, 1, true);
    play.received(EXACT, 2, false);
    assert_eq!(check(play.run()), Vec::<String>::new());
    let figures = figures(play.run());
    assert_eq!((figures.repeated_in_log, figures.repeated_on_the_way), (2, 1));
}

#[test]
fn an_acknowledged_message_that_is_not_in_kafka_is_lost() {
    let mut play = Play::right();
    play.log.topics.insert(OFTEN, vec![0, 2]);
    assert_eq!(lost_in_log(play.run()).len(), 1);
    assert!(lost_in_log(Play::right().run()).is_empty());
}

#[test]
fn a_message_that_was_not_acknowledged_may_be_missing() {
    let mut play = Play::right();
    play.sent(EXACT, 3);
    assert_eq!(check(play.run()), Vec::<String>::new());
}

#[test]
fn a_record_that_nobody_sent_is_found() {
    let mut play = Play::right();
    play.log.topics.entry(EXACT).or_default().push(9);
    assert_eq!(lost_in_log(play.run()).len(), 1);
}

#[test]
fn qos_2_twice_in_kafka_is_found_acknowledged_or_not() {
    let mut play = Play::right();
    play.log.topics.entry(EXACT).or_default().push(1);
    assert_eq!(doubled_in_log(play.run()).len(), 1);
    let mut play = Play::right();
    play.sent(EXACT, 3);
    play.log.topics.entry(EXACT).or_default().extend([3, 3]);
    assert_eq!(doubled_in_log(play.run()).len(), 1);
}

#[test]
fn disorder_in_kafka_is_found() {
    let mut play = Play::right();
    play.log.topics.insert(EXACT, vec![0, 2, 1]);
    assert_eq!(disordered_in_log(play.run()).len(), 1);
    play.log.topics.insert(EXACT, vec![0, 1, 0, 1, 2]);
    assert_eq!(disordered_in_log(play.run()).len(), 0);
}

#[test]
fn a_message_that_did_not_reach_its_subscriber_is_lost_acknowledged_or_not() {
    let mut play = Play::right();
    play.published(OFTEN, 3);
    assert_eq!(lost_on_the_way(play.run()).len(), 1);
    let mut play = Play::right();
    play.sent(EXACT, 3);
    play.log.topics.entry(EXACT).or_default().push(3);
    assert_eq!(lost_on_the_way(play.run()).len(), 1);
}

#[test]
fn nothing_is_owed_from_before_the_subscription() {
    let mut play = Play::new();
    play.published(OFTEN, 0);
    play.act(SUBSCRIBER, Act::Subscribed);
    assert_eq!(lost_on_the_way(play.run()).len(), 0);
    // A session that was deleted with its kafka topic begins anew with the next subscription.
    play.published(OFTEN, 1);
    assert_eq!(lost_on_the_way(play.run()).len(), 1);
    play.act(SUBSCRIBER, Act::Subscribed);
    assert_eq!(lost_on_the_way(play.run()).len(), 0);
}

#[test]
fn a_second_transmission_does_not_stand_for_the_time_of_the_first() {
    let mut play = Play::new();
    play.sent(OFTEN, 0);
    play.act(SUBSCRIBER, Act::Subscribed);
    play.act(OFTEN, Act::Sent { number: 0, id: 1, dup: true });
    play.log.topics.insert(OFTEN, vec![0]);
    assert_eq!(lost_on_the_way(play.run()).len(), 0);
}

#[test]
fn qos_2_twice_at_an_application_is_found() {
    let mut play = Play::right();
    play.received(EXACT, 1, true);
    assert_eq!(doubled_on_the_way(play.run()).len(), 1);
}

#[test]
fn a_delivery_that_is_not_in_kafka_is_found() {
    let mut play = Play::right();
    play.received(OFTEN, 7, true);
    assert_eq!(doubled_on_the_way(play.run()).len(), 1);
}

#[test]
fn disorder_at_a_subscriber_is_found() {
    let mut play = Play::right();
    play.received(OFTEN, 4, true);
    play.received(OFTEN, 1, true);
    assert_eq!(disordered_on_the_way(play.run()).len(), 0, "1 is a repetition");
    play.received(OFTEN, 3, true);
    assert_eq!(disordered_on_the_way(play.run()).len(), 1);
}

#[test]
fn a_session_may_be_gone_only_when_it_was_deleted() {
    let mut play = Play::right();
    play.act(EXACT, Act::Connected { session_present: true });
    assert_eq!(lost_sessions(play.run()).len(), 0);
    play.act(EXACT, Act::Connected { session_present: false });
    assert_eq!(lost_sessions(play.run()).len(), 1);

    let mut play = Play::right();
    play.deed(Deed::SessionsDeleted);
    play.act(EXACT, Act::Connected { session_present: false });
    play.deed(Deed::SessionsBack);
    play.act(OFTEN, Act::Connected { session_present: false });
    assert_eq!(lost_sessions(play.run()).len(), 0);
    play.act(EXACT, Act::Connected { session_present: true });
    play.act(EXACT, Act::Connected { session_present: false });
    assert_eq!(lost_sessions(play.run()).len(), 1);
}

#[test]
fn a_will_is_due_once_however_the_client_died() {
    for end in [End::Cut, End::Broker, End::Silence] {
        for (wills, wrong) in [(0, 1), (1, 0), (2, 1)] {
            let mut play = Play::new();
            play.lived(end, wills);
            assert_eq!(wrong_wills(play.run()).len(), wrong, "{end:?}, {wills} wills");
        }
    }
}

#[test]
fn a_will_is_never_due_after_a_farewell() {
    let mut play = Play::new();
    play.lived(End::Disconnected, 1);
    assert_eq!(wrong_wills(play.run()).len(), 1);
    play.log.wills.clear();
    assert_eq!(wrong_wills(play.run()).len(), 0);
}

#[test]
fn a_farewell_that_a_node_took_into_its_grave_leaves_the_will_open() {
    let mut play = Play::new();
    play.lived(End::Disconnected, 1);
    play.deed(Deed::Killed(0));
    assert_eq!(wills_due(play.run()).get(&MORTAL), Some(&Due::AtMostOnce));
    let mut play = Play::new();
    play.lived(End::Disconnected, 1);
    play.passes(10_000_000);
    play.deed(Deed::Killed(0));
    assert_eq!(wills_due(play.run()).get(&MORTAL), Some(&Due::Never));
}

#[test]
fn a_farewell_while_others_learn_that_a_node_is_dead_leaves_the_will_open() {
    for (others_learn, due) in [(true, Due::AtMostOnce), (false, Due::Never)] {
        let mut play = Play::new();
        play.deed(Deed::Killed(0));
        play.passes(3_000_000);
        if others_learn {
            play.act(EXACT, Act::Ended(End::Broker, String::new()));
        }
        play.lived(End::Disconnected, 1);
        assert_eq!(wills_due(play.run()).get(&MORTAL), Some(&due));
    }
}

#[test]
fn a_client_that_was_never_answered_may_have_a_will() {
    let mut play = Play::new();
    play.act(MORTAL, Act::Connecting);
    play.act(MORTAL, Act::NotConnected(String::new()));
    for (wills, wrong) in [(0, 0), (1, 0), (2, 1)] {
        play.log.wills.insert(MORTAL, wills);
        assert_eq!(wrong_wills(play.run()).len(), wrong);
    }
}

#[test]
fn a_connection_that_is_closed_while_all_must_stay_is_found() {
    let closed = |end| Act::Ended(end, String::new());
    let mut play = Play::right();
    play.act(EXACT, closed(End::Broker));
    play.deed(Deed::StayBegins);
    play.act(EXACT, closed(End::Cut));
    play.act(EXACT, closed(End::Disconnected));
    assert_eq!(closed_though_they_had_to_stay(play.run()).len(), 0);
    play.act(EXACT, closed(End::Broker));
    play.act(OFTEN, closed(End::Silence));
    assert_eq!(closed_though_they_had_to_stay(play.run()).len(), 2);
    play.deed(Deed::StayEnds);
    play.act(EXACT, closed(End::Broker));
    assert_eq!(closed_though_they_had_to_stay(play.run()).len(), 2);
}

#[test]
fn what_a_client_finds_odd_is_told() {
    let mut play = Play::right();
    play.act(SUBSCRIBER, Act::Odd("PUBLISH after DISCONNECT".to_owned()));
    assert_eq!(check(play.run()).len(), 1);
}

#[test]
fn times_are_measured_from_the_right_events() {
    let mut play = Play::new();
    play.act(EXACT, Act::Ended(End::Broker, String::new()));
    play.act(EXACT, Act::Connecting);
    play.act(EXACT, Act::NotConnected(String::new()));
    play.act(EXACT, Act::Connecting);
    play.act(EXACT, Act::Connected { session_present: true });
    let figures = figures(play.run());
    assert_eq!((figures.resume_us, figures.away_us), (vec![1000], vec![4000]));
    assert_eq!((percentile(&[1, 2, 3, 4], 50), percentile(&[1, 2, 3, 4], 99), percentile(&[], 50)), (2, 4, 0));
}
