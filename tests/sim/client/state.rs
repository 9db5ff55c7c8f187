//! A client's half of a session, as libraries keep it.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Message, Name};

/// A publish on its way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) id: u16,
    pub(crate) message: Message,
    /// PUBREC came, PUBREL is what is sent now.
    pub(crate) is_released: bool,
}

/// A SUBSCRIBE or UNSUBSCRIBE that has no answer yet; a new connection knows nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Subscribe(Vec<(String, u8)>),
    Unsubscribe(Vec<String>),
}

/// What the client owes the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    Ack(u16),
    Received(u16),
    Release(u16),
    Complete(u16),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// In the order of the first sending.
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) requests: BTreeMap<u16, Request>,
    /// QoS 2 messages that were not released yet.
    received: BTreeMap<u16, Name>,
    /// QoS 1 messages whose PUBACK was not sent yet: true if they came on this connection.
    unacked: BTreeMap<u16, (Name, bool)>,
    /// Of a session that is over, to be published again in the next one.
    anew: Vec<Message>,
    /// Of `received`: came or were repeated on this connection.
    received_here: BTreeSet<u16>,
}

/// What the client has to do with publishes of before after CONNACK.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// To be sent again, in this order: PUBLISH with DUP, or PUBREL.
    pub(crate) again: Vec<Outgoing>,
    /// The session is gone; these are published anew.
    pub(crate) anew: Vec<Message>,
    /// The session is gone, and what became of these is unknown.
    pub(crate) abandoned: Vec<Name>,
}

impl Outgoing {
    /// Whether it is published again when its session is gone; what became of one of QoS 2 would be unknown.
    fn is_repeatable(&self) -> bool {
        self.message.qos == 1
    }
}

impl State {
    /// The lowest packet id that is free, as real libraries choose; `None` when `window` are on their way.
    pub(crate) fn take_id(&self) -> u16 {
        let is_free = |id: &u16| !self.requests.contains_key(id) && self.outgoing.iter().all(|out| out.id != *id);
        (1..=u16::MAX).find(is_free).unwrap()
    }

    pub(crate) fn send(&mut self, message: Message) -> u16 {
        let id = self.take_id();
        self.outgoing.push(Outgoing { id, message, is_released: false });
        id
    }

    /// A new connection was accepted.
    pub(crate) fn on_accepted(&mut self, session_present: bool) -> Resumed {
        self.requests.clear();
        self.received_here.clear();
        for (_, here) in self.unacked.values_mut() {
            *here = false;
        }
        let abandoned = if session_present { Vec::new() } else { self.discard() };
        Resumed { again: self.outgoing.clone(), anew: std::mem::take(&mut self.anew), abandoned }
    }

    /// The session is over, or will be by a clean start: nothing of it may be used in another one (3.1.1 §3.1.2.4). Returns
    /// the publishes whose fate is unknown.
    pub(crate) fn discard(&mut self) -> Vec<Name> {
        self.received.clear();
        self.received_here.clear();
        self.unacked.clear();
        let (repeated, abandoned): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.outgoing).into_iter().partition(Outgoing::is_repeatable);
        self.anew.extend(repeated.into_iter().map(|out| out.message));
        abandoned.into_iter().map(|out| out.message.name).collect()
    }

    /// An answer to a publish, with the reason code if it was a refusal. `Err` says what is wrong with it.
    pub(crate) fn on_answer(&mut self, id: u16, answer: Answer, qos: u8) -> Result<(Message, Answer), String> {
        let Some(at) = self.outgoing.iter().position(|out| out.id == id) else {
            return Err(format!("{answer:?} for packet id {id}, which is not in use"));
        };
        let out = &mut self.outgoing[at];
        if out.message.qos != qos {
            return Err(format!("{answer:?} for packet id {id}, which is of QoS {}", out.message.qos));
        }
        match answer {
            Answer::Received if out.is_released => Err(format!("a second PUBREC for packet id {id}")),
            Answer::Received => {
                out.is_released = true;
                Ok((out.message.clone(), answer))
            }
            Answer::Completed if !out.is_released => Err(format!("PUBCOMP before PUBREC for packet id {id}")),
            Answer::Acked | Answer::Completed | Answer::Refused(_) => Ok((self.outgoing.remove(at).message, answer)),
        }
    }

    /// A message of QoS 1 or 2: whether it is fresh. `Err` says what is wrong with it.
    pub(crate) fn on_publish(&mut self, id: u16, name: Name, qos: u8, dup: bool) -> Result<bool, String> {
        if qos == 1 {
            if self.received.contains_key(&id) {
                return Err(format!("packet id {id} of {name} is in use for a message of QoS 2"));
            }
            return match self.unacked.insert(id, (name, true)) {
                Some((before, true)) => Err(format!("packet id {id} of {name} is in use for {before}")),
                // A server need not remember a packet id of QoS 1 when its node dies.
                Some((_, false)) | None => Ok(true),
            };
        }
        if self.unacked.get(&id).is_some_and(|(_, here)| *here) {
            return Err(format!("packet id {id} of {name} is in use for a message of QoS 1"));
        }
        self.unacked.remove(&id);
        match self.received.get(&id) {
            Some(before) if *before != name => {
                Err(format!("packet id {id} of {name} is in use for {before}, which is not released"))
            }
            Some(before) if !self.received_here.insert(id) => Err(format!("{before} was sent twice on one connection")),
            Some(_) if !dup => Err(format!("{name} was sent again without DUP")),
            Some(_) => Ok(false),
            None => {
                self.received.insert(id, name);
                self.received_here.insert(id);
                Ok(true)
            }
        }
    }

    /// PUBREL: the id is free once PUBCOMP is sent.
    pub(crate) fn on_release(&mut self, id: u16) {
        self.received.remove(&id);
        self.received_here.remove(&id);
    }

    /// PUBACK was sent: the id is free.
    pub(crate) fn on_puback_sent(&mut self, id: u16) {
        self.unacked.remove(&id);
    }

    /// Messages of QoS 1 and 2 that came on this connection and were not answered to the end.
    pub(crate) fn open_here(&self) -> usize {
        self.unacked.values().filter(|(_, here)| *here).count() + self.received_here.len()
    }

    /// Nothing is on its way.
    pub(crate) fn is_settled(&self) -> bool {
        self.outgoing.is_empty() && self.anew.is_empty() && self.requests.is_empty() && self.received.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u32, qos: u8) -> Message {
        Message { name: Name::Message { client: 0, number }, topic: "t".into(), qos, retain: false }
    }

    #[test]
    fn the_lowest_free_packet_id_is_used_again() {
        let mut state = State::default();
        assert_eq!((state.send(message(0, 1)), state.send(message(1, 1)), state.send(message(2, 2))), (1, 2, 3));
        state.on_answer(2, Answer::Acked, 1).unwrap();
        assert_eq!(state.send(message(3, 1)), 2);
        state.on_answer(3, Answer::Received, 2).unwrap();
        assert_eq!(state.take_id(), 4, "an id is in use until PUBCOMP");
    }

    #[test]
    fn a_resumed_session_sends_again_in_order_and_a_lost_one_forgets_qos_2() {
        let mut state = State::default();
        for number in 0..3 {
            state.send(message(number, if number == 1 { 1 } else { 2 }));
        }
        state.on_answer(1, Answer::Received, 2).unwrap();
        let again = state.on_accepted(true).again;
        assert_eq!(
            again.iter().map(|out| (out.id, out.is_released)).collect::<Vec<_>>(),
            [(1, true), (2, false), (3, false)]
        );
        let resumed = state.on_accepted(false);
        assert_eq!(resumed.anew, [message(1, 1)]);
        assert_eq!(resumed.abandoned, [message(0, 2).name, message(2, 2).name]);
        assert!(state.is_settled());
    }

    #[test]
    fn a_qos_2_message_is_fresh_once_until_it_is_released() {
        let mut state = State::default();
        let (one, two) = (message(1, 2).name, message(2, 2).name);
        assert_eq!(state.on_publish(5, one, 2, false), Ok(true));
        assert!(state.on_publish(5, one, 2, true).is_err(), "twice on one connection");
        state.on_accepted(true);
        assert_eq!(state.on_publish(5, one, 2, true), Ok(false));
        assert!(state.on_publish(5, two, 2, true).is_err(), "another message under an id in use");
        state.on_release(5);
        assert_eq!(state.on_publish(5, two, 2, false), Ok(true));
    }

    #[test]
    fn an_answer_that_fits_nothing_is_an_error() {
        let mut state = State::default();
        assert!(state.on_answer(1, Answer::Acked, 1).is_err());
        state.send(message(0, 2));
        assert!(state.on_answer(1, Answer::Acked, 1).is_err());
        assert!(state.on_answer(1, Answer::Completed, 2).is_err());
    }
}
