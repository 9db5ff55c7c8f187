//! CONNECT, CONNACK and DISCONNECT (MQTT5 §3.1, §3.2, §3.14).

use std::num::{NonZeroU16, NonZeroU32};

use super::outgoing::ConnAckParts;
use super::will::OwnedPublish;
use super::{CloseCause, Effect, Effects, Outgoing, PartCause, Phase, Session, Wish, WishedWill};
use crate::mqtt::decode::DecodeError;
use crate::mqtt::packet::{Connect, Disconnect, ProtocolVersion, Will};
use crate::mqtt::{ClientId, ReasonCode};

/// What the client announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Largest packet it takes, bytes.
    pub(super) packet_bytes_max: u32,
    /// Seconds that it asked the session to outlive the connection.
    asked_expiry_s: u32,
    /// The keep-alive, seconds, where it is another than it asked for.
    keep_alive_granted_s: Option<NonZeroU16>,
    assigned_client_id: bool,
}

impl Default for Peer {
    fn default() -> Self {
        Self { packet_bytes_max: u32::MAX, asked_expiry_s: 0, keep_alive_granted_s: None, assigned_client_id: false }
    }
}

/// Whether the session is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It need not be.
    None,
    /// Perhaps.
    Asked,
    /// It is, and it is this connection's.
    Granted,
    /// It is, and somebody else looks after it now.
    Left,
}

/// MQTT 3.1 allows 23 characters.
const V31_CLIENT_ID_CHARS_MAX: usize = 23;

impl Session {
    pub(super) fn on_connect(&mut self, connect: &Connect<'_>, effects: &mut Effects) {
        self.version = connect.version;
        match self.take_connect(connect) {
            Ok(wish) => {
                self.phase = Phase::Claiming;
                self.claim = if wish.needs_claim() { Claim::Asked } else { Claim::None };
                effects.push(Effect::Claim(Box::new(wish)));
            }
            Err(reason) => self.refuse(reason, effects),
        }
    }

    fn take_connect(&mut self, connect: &Connect<'_>) -> Result<Wish, ReasonCode> {
        if connect.properties.authentication_method.is_some() {
            return Err(ReasonCode::BadAuthenticationMethod);
        }
        if connect.properties.user_properties.iter().count() > self.settings.user_properties_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        let client_id = self.client_id_of(connect)?;
        self.client_id = Some(client_id.clone());
        let will = connect.will.as_ref().map(|will| self.take_will(will)).transpose()?;
        self.deliveries.open_window(connect.properties.receive_maximum, self.settings.deliver_window_max);
        self.peer.packet_bytes_max = connect.properties.maximum_packet_bytes.unwrap_or(u32::MAX);
        // A 3.x session without the clean flag has no end of its own.
        self.peer.asked_expiry_s = match connect.version {
            ProtocolVersion::V31 | ProtocolVersion::V311 if connect.clean_start => 0,
            ProtocolVersion::V31 | ProtocolVersion::V311 => u32::MAX,
            ProtocolVersion::V5 => connect.properties.session_expiry_s.unwrap_or(0),
        };
        let granted_s = self.grant_keep_alive(connect);
        // [MQTT-3.1.2-22]: one and a half times the keep-alive.
        self.silence_ms_max = NonZeroU32::new(u32::from(granted_s) * 1_500);
        Ok(Wish {
            client_id,
            clean_start: connect.clean_start,
            expiry_s: self.peer.asked_expiry_s.min(self.settings.session_expiry_s_max),
            will,
            identity: Box::default(),
            assigned: self.peer.assigned_client_id,
        })
    }

    fn client_id_of(&mut self, connect: &Connect<'_>) -> Result<ClientId, ReasonCode> {
        let invalid = |_| ReasonCode::ClientIdentifierNotValid;
        if connect.client_id.is_empty() {
            let may_assign = match connect.version {
                ProtocolVersion::V31 => false,
                // [MQTT-3.1.3-8] of 3.1.1
                ProtocolVersion::V311 => connect.clean_start,
                ProtocolVersion::V5 => true,
            };
            if !may_assign {
                return Err(ReasonCode::ClientIdentifierNotValid);
            }
            self.peer.assigned_client_id = true;
            let assigned = format!("mr-{:032x}", u128::from_be_bytes(self.nonce.0));
            return ClientId::parse(&assigned, usize::MAX).map_err(invalid);
        }
        let too_long_for_v31 =
            connect.version == ProtocolVersion::V31 && connect.client_id.chars().nth(V31_CLIENT_ID_CHARS_MAX).is_some();
        if too_long_for_v31 {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        ClientId::parse(connect.client_id, self.settings.client_id_bytes_max).map_err(invalid)
    }

    fn take_will(&self, will: &Will<'_>) -> Result<WishedWill, ReasonCode> {
        if !self.settings.allows_topic(will.topic) || will.topic.starts_with('$') {
            return Err(ReasonCode::TopicNameInvalid);
        }
        if will.properties.user_properties.iter().count() > self.settings.user_properties_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        let publish = OwnedPublish::of_will(will).ok_or(ReasonCode::PacketTooLarge)?;
        Ok(WishedWill { delay_s: will.delay_s.unwrap_or(0), publish })
    }

    fn grant_keep_alive(&mut self, connect: &Connect<'_>) -> u16 {
        let cap_s = self.settings.keep_alive_s_max;
        let over = connect.keep_alive_s == 0 || connect.keep_alive_s > cap_s;
        if connect.version == ProtocolVersion::V5 && over {
            self.peer.keep_alive_granted_s = NonZeroU16::new(cap_s);
            return cap_s;
        }
        connect.keep_alive_s
    }

    pub(super) fn on_denied(&mut self, reason: ReasonCode, effects: &mut Effects) {
        if self.phase == Phase::Claiming {
            self.refuse(reason, effects);
        }
    }

    pub(super) fn send_connack(&self, session_present: bool, expiry_s: u32, effects: &mut Effects) {
        let Peer { asked_expiry_s, keep_alive_granted_s, assigned_client_id, .. } = self.peer;
        effects.push(Effect::Send(Outgoing::ConnAck(Box::new(ConnAckParts {
            reason: ReasonCode::Success,
            session_present,
            // MQTT5 §3.2.2.3.2: only if it is another than was asked for.
            session_expiry_s: (expiry_s != asked_expiry_s).then_some(expiry_s),
            receive_maximum: Some(self.settings.receive_maximum),
            packet_bytes_max: u32::try_from(self.settings.packet_bytes_max).ok(),
            assigned_client_id: self.client_id().filter(|_| assigned_client_id).cloned(),
            topic_alias_maximum: self.settings.topic_alias_maximum,
            server_keep_alive_s: keep_alive_granted_s.map(NonZeroU16::get),
        }))));
    }

    /// CONNACK with a failure, then close [MQTT-3.1.4-2].
    fn refuse(&mut self, reason: ReasonCode, effects: &mut Effects) {
        effects.push(Effect::Send(Outgoing::ConnAck(Box::new(ConnAckParts::refusal(reason)))));
        self.close(CloseCause::Refused(reason), effects);
    }

    pub(super) fn refuse_malformed_connect(&mut self, error: &DecodeError, effects: &mut Effects) {
        // The decoder knows in which version's form the client understands an answer, if in any [MQTT-3.1.4-1].
        match (error.connect_version, error.connect_return_code) {
            (Some(version @ ProtocolVersion::V5), _)
            | (Some(version @ (ProtocolVersion::V31 | ProtocolVersion::V311)), Some(_)) => {
                self.version = version;
                self.refuse(error.reason, effects);
            }
            (Some(ProtocolVersion::V31 | ProtocolVersion::V311) | None, _) => {
                self.close(CloseCause::Protocol(error.reason), effects);
            }
        }
    }

    pub(super) fn on_disconnect(&mut self, disconnect: &Disconnect<'_>, effects: &mut Effects) {
        if let Some(asked_s) = disconnect.session_expiry_s {
            // MQTT5 §3.14.2.2.2: a session that ends with the connection cannot be kept after all.
            if asked_s > 0 && self.peer.asked_expiry_s == 0 {
                self.protocol_error(ReasonCode::ProtocolError, effects);
                return;
            }
            if let Some(durable) = self.durable.as_deref_mut() {
                durable.expiry_s = asked_s.min(self.settings.session_expiry_s_max);
            }
        }
        // [MQTT-3.14.4-3]: only a normal disconnection takes the will away.
        self.part_as(if disconnect.reason == ReasonCode::Success { PartCause::Normal } else { PartCause::Broken });
        self.close(CloseCause::Disconnected, effects);
    }
}
