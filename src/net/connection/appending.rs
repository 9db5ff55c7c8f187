//! Publishes of the client on their way to the writer, and those for which it has no room.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

use super::Connection;
use crate::journal::NotTaken;
use crate::ledger::ids::Token;
use crate::mqtt::ReasonCode;
use crate::mqtt::packet::Publish;
use crate::node::writer::Origin;
use crate::session::{AppendOutcome, OwnedPublish};

/// Publishes for which the journal had no room, in order. While there is one, the socket is not read.
pub(super) struct Parked {
    waiting: VecDeque<Waiting>,
    room: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Parked {
    /// What was not handed over.
    pub(super) fn sequences(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().map(|waiting| waiting.sequence)
    }
}

struct Waiting {
    sequence: u64,
    publish: OwnedPublish,
    token: Option<Token>,
}

impl Connection {
    /// Appends the PUBLISH in hand.
    pub(super) fn append(&mut self, sequence: Option<u64>, publish: &Publish<'_>, topic: &str, token: Option<Token>) {
        let Some(sequence) = sequence else {
            if let Some(client_id) = self.session.client_id() {
                self.node.writer.append_qos0(publish, topic, client_id.as_str());
            }
            return;
        };
        let result =
            if self.parked.is_some() { Err(NotTaken::Full) } else { self.try_append(sequence, publish, topic, token) };
        match result {
            Ok(()) => {}
            Err(NotTaken::Full) => {
                self.node.metrics.backpressure.inc();
                let with_topic = Publish { topic, ..publish.clone() };
                match OwnedPublish::new(&with_topic) {
                    Some(publish) => self.park(Waiting { sequence, publish, token }),
                    None => self.fail_append(sequence, NotTaken::TooLarge),
                }
            }
            Err(error) => self.fail_append(sequence, error),
        }
    }

    /// Appends a PUBLISH that the session held back.
    pub(super) fn append_kept(&mut self, sequence: u64, publish: OwnedPublish, token: Option<Token>) {
        let result = match publish.publish() {
            Some(_) if self.parked.is_some() => Err(NotTaken::Full),
            Some(kept) => self.try_append(sequence, &kept, kept.topic, token),
            None => Err(NotTaken::TooLarge),
        };
        match result {
            Ok(()) => {}
            Err(NotTaken::Full) => self.park(Waiting { sequence, publish, token }),
            Err(error) => self.fail_append(sequence, error),
        }
    }

    fn try_append(
        &self,
        sequence: u64,
        publish: &Publish<'_>,
        topic: &str,
        token: Option<Token>,
    ) -> Result<(), NotTaken> {
        let Some(client_id) = self.session.client_id() else { return Err(NotTaken::Closed) };
        if token.is_some() && self.session.is_durable() {
            // Q5: the watermark must know of it before it can be in the log.
            self.report_progress();
        }
        self.node.writer.append(self.id, sequence, publish, topic, Origin { publisher: client_id.as_str(), token })
    }

    fn park(&mut self, waiting: Waiting) {
        let room = self.room();
        let parked = self.parked.get_or_insert_with(|| Box::new(Parked { waiting: VecDeque::new(), room }));
        parked.waiting.push_back(waiting);
        // The room may be there already: it is asked before the next packet.
        self.mailbox.post_nothing();
    }

    /// Tries the parked publishes again when the journal has room.
    pub(super) fn poll_parked(&mut self, cx: &mut Context<'_>) {
        while let Some(mut parked) = self.parked.take() {
            if parked.room.as_mut().poll(cx).is_pending() {
                self.parked = Some(parked);
                return;
            }
            while let Some(waiting) = parked.waiting.pop_front() {
                let Some(publish) = waiting.publish.publish() else { continue };
                match self.try_append(waiting.sequence, &publish, publish.topic, waiting.token) {
                    Ok(()) => {}
                    Err(NotTaken::Full) => {
                        parked.room = self.room();
                        parked.waiting.push_front(waiting);
                        self.parked = Some(parked);
                        break;
                    }
                    Err(error) => self.fail_append(waiting.sequence, error),
                }
            }
        }
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let writer = Arc::clone(&self.node.writer);
        Box::pin(async move { writer.room().await })
    }

    /// Through the mailbox, so that it is handled in its turn like any outcome.
    fn fail_append(&self, sequence: u64, error: NotTaken) {
        let outcome = match error {
            NotTaken::TooLarge => AppendOutcome::Refused(ReasonCode::QuotaExceeded),
            NotTaken::NoSuchPartition => AppendOutcome::Refused(ReasonCode::ImplementationSpecificError),
            // It was certainly not appended, but the client can only send it again elsewhere.
            NotTaken::Full | NotTaken::Closed => AppendOutcome::Unknown,
        };
        if let Some(waker) = self.mailbox.push_outcome(sequence, outcome) {
            waker.wake();
        }
    }
}
