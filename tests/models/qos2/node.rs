//! What a node does: Q1 to Q5.

use super::Variant::{
    CarriedForgets, CarriedMarkAsNow, CarriedMarkAtInheritance, Dup0IsNew, Dup1IsDuplicate, LazyRelease, MarkFifo,
    NoFence, NoLookUp, PubrelUnrecorded, ReadCommitted,
};
use super::inherited;
use super::marks::{mark_of, superseded_at};
use super::{
    Answer, Append, Inbound, Lower, Packet, Pending, Phase, Qos2, Record, Server, State, Token, Variant, Written,
};
use crate::search::Steps;
use crate::small::List;

/// One node in one state.
pub struct Node<'a> {
    pub model: &'a Qos2,
    pub state: &'a State,
    pub me: u8,
    pub server: Server,
    pub out: &'a mut Steps<State>,
}

/// What else a step does than to change the node.
#[derive(Clone, Copy, Default)]
struct Effects {
    say: Option<Answer>,
    write: Option<Record>,
    append: Option<Append>,
    /// The packet on the wire was read.
    read: bool,
}

impl Node<'_> {
    fn is(&self, variant: Variant) -> bool {
        self.model.variant == variant
    }

    fn step(&mut self, label: &str, server: Server, effects: Effects) {
        let (state, me) = (self.state, self.me);
        let mut next = State { servers: state.servers.put(me, server), ..*state };
        if effects.say.is_some() && state.client.connection == Some(me) {
            next.answer = effects.say;
        }
        if effects.read {
            next.wire = state.wire.put(me, None);
        }
        if let Some(append) = effects.append {
            next.appends = state.appends.insert(append);
        }
        if let Some(record) = effects.write {
            next.queues = state.queues.put(me, state.queues.at(me).with(record));
        }
        self.out.will(next, || format!("{me} {label}"));
    }

    /// Everything that the node can do next.
    pub fn steps(&mut self) {
        let server = self.server;
        let Some(claim) = server.claim else { return self.claim() };
        let is_it =
            |record| matches!(record, Record::S { claim: of, version, .. } if of == claim && version == server.version);
        let back = self.state.log.find(is_it);
        let unread = server.recorded <= server.version;
        if let Some(back) = back
            && unread
            && self
                .state
                .log
                .before(back)
                .iter()
                .skip(usize::from(claim) + 1)
                .any(|record| matches!(record, Record::H { .. }))
        {
            return self.step("is fenced", Server { phase: Phase::Dead, ..server }, Effects::default()); // F5, F6
        }
        if server.phase == Phase::Claiming {
            if back.is_some() {
                let say = Some(Answer::Connack);
                let ready = Server { phase: Phase::Ready, recorded: 1, ..server };
                self.step("sends CONNACK", ready, Effects { say, ..Effects::default() });
            }
            return;
        }
        self.read_back(back.is_some() && unread, back.is_some());
        match server.pending {
            Some(Pending::Append { number }) => {
                let token = Token { epoch: claim, number };
                if self.state.messages.iter().any(|message| message.token == token) {
                    let inbound = Inbound { held: Some(token), ..server.inbound };
                    let say = Some(Answer::Pubrec);
                    self.step(
                        "sends PUBREC",
                        Server { inbound, pending: None, ..server },
                        Effects { say, ..Effects::default() },
                    );
                }
            }
            Some(Pending::LookUp { operation }) => self.look_up(claim, operation),
            Some(Pending::Release(_)) | None => {}
        }
        self.mark(claim);
        if server.pending.is_none()
            && let Some(packet) = self.state.wire.at(self.me)
        {
            self.packet(claim, packet);
        }
    }

    fn claim(&mut self) {
        let (me, log) = (self.me, self.state.log);
        let Some(at) = log.find(|record| record == Record::H { node: me }) else { return };
        let mut inbound = Inbound::default();
        let found = inherited(log.before(at + 1));
        if let Some((epoch, theirs)) = found {
            let until = if self.model.carries() && !self.is(CarriedMarkAtInheritance) {
                superseded_at(&log, epoch)
            } else {
                at + 1
            };
            let whose = if self.model.carries() { self.model.host_of(&log, epoch) } else { epoch };
            let mark = mark_of(log.before(until), whose);
            let look_from = theirs.look_from.max(mark);
            inbound = Inbound { look_from, ..theirs };
            if self.model.carries() {
                let older = if self.is(CarriedForgets) { List::default() } else { theirs.lower };
                inbound.lower = older.with(Lower { epoch, look_from });
            }
        }
        if self.model.carries() {
            inbound.look_from = self.state.messages.count();
        }
        let server = Server { claim: Some(at), inbound, looked: found.is_none(), version: 0, ..self.server };
        let write = Some(Record::S { claim: at, version: 0, inbound });
        self.step("writes its set", server, Effects { write, ..Effects::default() });
    }

    fn read_back(&mut self, newly: bool, is_back: bool) {
        let server = self.server;
        let recorded = server.version + 1;
        if let Some(Pending::Release(released)) = server.pending
            && is_back
        {
            let inbound = Inbound { held: None, released: Some(released), ..server.inbound };
            let say = Some(Answer::Pubcomp);
            let done = Server { inbound, pending: None, recorded, ..server };
            self.step("sends PUBCOMP", done, Effects { say, ..Effects::default() });
        } else if newly {
            self.step("reads its set back", Server { recorded, ..server }, Effects::default());
        }
    }

    fn look_up(&mut self, claim: u8, operation: u8) {
        let (server, state) = (self.server, self.state);
        let lower = |node: &Server| node.claim.is_some_and(|of| of < claim);
        let all_fenced = state.servers.numbered().all(|(who, node)| !lower(&node) || state.fenced.has(who));
        if !all_fenced && !self.is(NoFence) {
            return;
        }
        let tokens = state.messages.numbered().filter(|(offset, message)| {
            Some(message.token) > server.inbound.released
                && self.look_from(claim, message.token.epoch).is_some_and(|from| from <= *offset)
        });
        let found = tokens.last();
        let mut inbound = Inbound { look_from: state.messages.count(), ..server.inbound };
        if self.model.carries() {
            inbound = Inbound { lower: List::default(), ..server.inbound };
        }
        if let Some((_, message)) = found
            && !self.is(NoLookUp)
        {
            let held = Inbound { held: Some(message.token), ..inbound };
            let next = Server { inbound: held, looked: true, pending: None, ..server };
            let say = Some(Answer::Pubrec);
            self.step("finds the token, sends PUBREC", next, Effects { say, ..Effects::default() });
        }
        if found.is_none() || self.is(NoLookUp) || self.is(ReadCommitted) {
            let server = Server { inbound, looked: true, ..server };
            self.append("does not find the token, appends", claim, operation, server, false);
        }
    }

    /// From where tokens of this epoch are looked for, if they are.
    fn look_from(&self, claim: u8, epoch: u8) -> Option<u8> {
        let (log, inbound) = (&self.state.log, self.server.inbound);
        if self.model.carries() {
            let lower = inbound.lower.iter().find(|lower| lower.epoch == epoch)?;
            let later = if self.is(CarriedMarkAsNow) { mark_of(log, self.model.host_of(log, epoch)) } else { 0 };
            return Some(lower.look_from.max(later));
        }
        // `mark_fifo`: W.tokens as it was at the own claim, else as it is now.
        let (of, _) = inherited(log.before(claim + 1))?;
        let later = if self.is(MarkFifo) { 0 } else { mark_of(log, of) };
        (epoch < claim).then(|| inbound.look_from.max(later))
    }

    fn mark(&mut self, claim: u8) {
        let (server, state) = (self.server, self.state);
        if self.model.marks == 0 {
            return;
        }
        let tokens = state.messages.count();
        let rises = server.marked < self.model.marks && tokens > server.inbound.look_from;
        if rises && !self.model.carries() && self.model.may_be_passed(state, self.me, server) {
            let write = Some(Record::W { of: claim, tokens });
            let marked = Server { marked: server.marked + 1, ..server };
            self.step("writes W.tokens", marked, Effects { write, ..Effects::default() });
        }
        let own_set = Record::S { claim, version: server.version, inbound: server.inbound };
        let written = state.log.contains(&own_set) || state.queues.at(self.me).contains(&own_set);
        let is_back = server.recorded > server.version;
        if server.pending.is_none() && server.inbound.held.is_some() && !written && is_back {
            let version = server.version + 1;
            let write = Some(Record::S { claim, version, inbound: server.inbound });
            self.step("records its token", Server { version, ..server }, Effects { write, ..Effects::default() });
        }
    }

    fn packet(&mut self, claim: u8, packet: Packet) {
        let (server, read) = (self.server, Effects { read: true, ..Effects::default() });
        match packet {
            Packet::Publish { operation, dup } => {
                let unclear = dup && !server.looked;
                let known = server.inbound.held.is_some() && (dup || !self.is(Dup0IsNew));
                if known || (unclear && self.is(Dup1IsDuplicate)) {
                    let say = Some(Answer::Pubrec);
                    self.step("knows the id (or believes DUP=1), sends PUBREC", server, Effects { say, ..read });
                } else if unclear {
                    let pending = Some(Pending::LookUp { operation });
                    self.step("holds the PUBLISH", Server { pending, ..server }, read);
                } else {
                    self.append("appends", claim, operation, server, true);
                }
            }
            Packet::Pubrel { .. } => {
                let known = server.inbound.held.is_some();
                if known || (!server.looked && !self.is(PubrelUnrecorded)) {
                    self.release(claim);
                } else {
                    self.step("sends PUBCOMP", server, Effects { say: Some(Answer::Pubcomp), ..read });
                }
            }
        }
    }

    fn release(&mut self, claim: u8) {
        let server = self.server;
        let released = server.inbound.held.unwrap_or(Token { epoch: claim, number: 0 }); // Q4
        let inbound = Inbound { held: None, released: Some(released), ..server.inbound };
        let version = server.version + 1;
        let effects = Effects { write: Some(Record::S { claim, version, inbound }), read: true, ..Effects::default() };
        if self.is(LazyRelease) {
            let say = Some(Answer::Pubcomp);
            self.step("sends PUBCOMP at once", Server { inbound, version, ..server }, Effects { say, ..effects });
        } else {
            let pending = Some(Pending::Release(released));
            self.step("writes the release", Server { pending, version, ..server }, effects);
        }
    }

    fn append(&mut self, label: &str, epoch: u8, operation: u8, server: Server, read: bool) {
        let number = server.count + 1;
        let written = Written { token: Token { epoch, number }, operation };
        let append = Some(Append { node: self.me, written });
        let pending = Some(Pending::Append { number });
        self.step(label, Server { count: number, pending, ..server }, Effects { append, read, ..Effects::default() });
    }
}
