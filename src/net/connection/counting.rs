//! What a connection's ends and drops are called in the metrics.

use crate::mqtt::ReasonCode;
use crate::ops::metrics::{self, DropReason};
use crate::session::{CloseCause, Drop};

/// The label of a dropped message.
pub(super) fn drop_reason(why: Drop) -> DropReason {
    match why {
        Drop::Expired => DropReason::Expired,
        Drop::NotWritable => DropReason::Refused,
        Drop::TooLarge => DropReason::TooLarge,
    }
}

fn refuse_reason(reason: ReasonCode) -> metrics::RefuseReason {
    use metrics::RefuseReason as Label;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a refusal is one of these; what else there may be is malformed"
    )]
    match reason {
        ReasonCode::UnsupportedProtocolVersion => Label::Version,
        ReasonCode::ClientIdentifierNotValid => Label::ClientId,
        ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized => Label::NotAuthorized,
        ReasonCode::BadAuthenticationMethod | ReasonCode::QoSNotSupported | ReasonCode::RetainNotSupported => {
            Label::Unsupported
        }
        ReasonCode::ServerUnavailable | ReasonCode::ServerBusy => Label::Unavailable,
        _ => Label::Malformed,
    }
}

/// Counts the end of a connection under what ended it.
pub(super) fn count_end(metrics: &metrics::Metrics, cause: CloseCause) {
    use metrics::CloseCause as Label;
    let label = match cause {
        CloseCause::Refused(reason) => {
            metrics.connections_refused.inc(refuse_reason(reason));
            return;
        }
        CloseCause::ConnectTimeout => {
            metrics.connections_refused.inc(metrics::RefuseReason::ConnectTimeout);
            return;
        }
        CloseCause::Disconnected => Label::Disconnect,
        CloseCause::SocketClosed => Label::Lost,
        CloseCause::Protocol(_) => Label::Protocol,
        CloseCause::KeepAlive => Label::KeepAlive,
        CloseCause::TakenOver => Label::TakenOver,
        CloseCause::ShuttingDown => Label::Drained,
        CloseCause::Evicted(_) => Label::Slow,
        CloseCause::AppendFailed => Label::Internal,
    };
    metrics.connections_closed.inc(label);
}
