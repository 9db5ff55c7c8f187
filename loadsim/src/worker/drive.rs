//! What one wake-up of one connection does.

use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::{ProtocolVersion, QoS};

use super::{Worker, again};
use crate::client::{Client, ClientError, Event, FRAME_BYTES_MAX, Role, State};
use crate::conn::{Conn, ConnError};

impl Worker {
    /// The socket is there: CONNECT goes out.
    pub(super) fn say_hello(&mut self, at: usize) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        let target = &self.spec.target;
        let client_id = target.client_id.fill(self.spec.run, conn.index);
        let credentials = (target.username.as_deref(), target.password.as_deref());
        self.out.clear();
        let hello = conn.client.connect(&client_id, credentials, &mut self.out).map_err(ConnError::from);
        if let Err(error) = hello.and_then(|()| conn.write(&self.out, self.clock.now_ns())) {
            self.on_failed(at, &error);
        }
    }

    /// Flushes, reads once, answers, publishes what is due, writes once.
    pub(super) fn wake(&mut self, at: usize) {
        let driven = self.drive(at);
        let Some(conn) = self.conns.get_mut(at) else { return };
        conn.is_queued = false;
        match driven {
            Ok(true) => self.enqueue(at),
            Ok(false) => {}
            Err(error) => self.on_failed(at, &error),
        }
    }

    /// To be woken again without an event.
    pub(super) fn enqueue(&mut self, at: usize) {
        if let Some(conn) = self.conns.get_mut(at).filter(|conn| !conn.is_queued) {
            conn.is_queued = true;
            self.runnable.push_back(at);
        }
    }

    /// The end of a connection, with its reason.
    pub(super) fn on_failed(&mut self, at: usize, error: &ConnError) {
        let Some(conn) = self.conns.get_mut(at).filter(|conn| !conn.is_closed()) else { return };
        self.tally.on_error(error.to_string());
        if self.spec.returns && conn.client.has_been_ready() {
            return self.come_back(at);
        }
        conn.close();
        if conn.client.has_been_ready() {
            self.tally.lost += 1;
        } else {
            self.tally.refused += 1;
        }
    }

    /// True if there is more to do that no event will tell of.
    fn drive(&mut self, at: usize) -> Result<bool, ConnError> {
        let Some(conn) = self.conns.get_mut(at).filter(|conn| conn.is_open()) else { return Ok(false) };
        let mut now_ns = self.clock.now_ns();
        conn.flush(now_ns)?;
        if !conn.is_clear() {
            return Ok(false);
        }
        self.out.clear();
        if conn.may_read() {
            let filled = conn.read(&mut self.buffer)?;
            now_ns = self.clock.now_ns();
            let used = self.handle_frames(at, filled, now_ns)?;
            self.keep_rest(at, used, filled)?;
        }
        self.fill(at, now_ns)?;
        let Some(conn) = self.conns.get_mut(at) else { return Ok(false) };
        if !self.out.is_empty() {
            conn.write(&self.out, now_ns)?;
        }
        let can_send = conn.is_clear()
            && conn.client.state() == State::Ready
            && match (&conn.client.role, &self.plan) {
                (Role::Publisher(publisher), Some(plan)) => publisher.can_send(plan, now_ns),
                (Role::Idle | Role::Probe { .. } | Role::Publisher(_) | Role::Subscriber(_), _) => false,
            };
        Ok(conn.may_read() || can_send)
    }

    /// Handles every whole frame of the buffer; returns the bytes of these.
    fn handle_frames(&mut self, at: usize, filled: usize, now_ns: u64) -> Result<usize, ConnError> {
        let version = Some(self.spec.target.version);
        let mut used = 0;
        while let Some(conn) = self.conns.get_mut(at) {
            if !conn.is_open() {
                return Ok(filled);
            }
            let Some((frame, frame_bytes)) = next_frame(self.buffer.get(used..filled), version)? else { break };
            used += frame_bytes;
            let event = conn.client.handle_frame(frame, &mut self.out)?;
            let is_ready = event == Event::Ready;
            match event {
                Event::Nothing | Event::Ready => {}
                Event::Answered { sent, is_success } => {
                    self.tally.on_answered(sent.intended_ns, now_ns, is_success);
                    if is_success {
                        self.tally.owed += self.receivers.count(sent.topic);
                        self.acked.note(sent);
                    }
                }
                Event::Message(publish) => {
                    let arrived = self.verifier.take(conn.index, publish.payload);
                    if let Some(stamp) = arrived {
                        self.tally.on_delivered(stamp.intended_ns, now_ns);
                    }
                    if !conn.behind.is_empty() {
                        again::on_message(conn, publish.payload, &mut self.tally.returns, now_ns);
                    }
                }
            }
            if is_ready {
                self.on_ready(at, now_ns)?;
            }
        }
        Ok(used)
    }

    /// Keeps what is behind the last whole frame, and makes room for a frame that is larger than the buffer.
    fn keep_rest(&mut self, at: usize, used: usize, filled: usize) -> Result<(), ConnError> {
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        let rest = self.buffer.get(used..filled).unwrap_or_default();
        conn.keep(rest);
        let version = Some(self.spec.target.version);
        let head = frame_head(rest, version, Sender::Server, FRAME_BYTES_MAX).map_err(ClientError::from)?;
        if let Some(head) = head.filter(|head| head.frame_bytes() > self.buffer.len()) {
            self.buffer.resize(head.frame_bytes(), 0);
        }
        Ok(())
    }

    /// Appends the messages that are due to what is to be written.
    fn fill(&mut self, at: usize, now_ns: u64) -> Result<(), ConnError> {
        let (Some(plan), Some(Conn { client, .. })) = (&self.plan, self.conns.get_mut(at)) else { return Ok(()) };
        // Before CONNACK it is not known what the broker remembers.
        if client.state() != State::Ready {
            return Ok(());
        }
        let line = client.line();
        let Client { role: Role::Publisher(publisher), .. } = client else { return Ok(()) };
        let (tally, receivers, is_owed) = (&mut self.tally, &self.receivers, publisher.qos() == QoS::AtMostOnce);
        let filled = publisher.fill(plan, now_ns, line, &mut self.payload, &mut self.out, |sent| {
            tally.on_sent(sent.intended_ns, now_ns);
            if is_owed {
                tally.owed += receivers.count(sent.topic);
            }
        });
        Ok(filled.map_err(ClientError::from)?)
    }
}

/// The first whole frame of `buffer` and its length.
fn next_frame(buffer: Option<&[u8]>, version: Option<ProtocolVersion>) -> Result<Option<(&[u8], usize)>, ClientError> {
    let buffer = buffer.unwrap_or_default();
    let Some(head) = frame_head(buffer, version, Sender::Server, FRAME_BYTES_MAX)? else { return Ok(None) };
    let frame_bytes = head.frame_bytes();
    Ok(buffer.get(..frame_bytes).map(|frame| (frame, frame_bytes)))
}
