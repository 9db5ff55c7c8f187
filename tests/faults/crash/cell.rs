//! The cells: which step, where in it the node dies, how the client goes on, and in which version.

use std::fmt::{self, Display};

use millrace::ledger::record::{PartKind, Slot};
use millrace::mqtt::packet::ProtocolVersion;

/// What becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// QoS 2 in: the append of the message with its token, before PUBREC.
    Message,
    /// The same under a packet id that an earlier, complete message had.
    MessageAgain,
    /// QoS 2 in: the record of the release, before PUBCOMP.
    Release,
    /// QoS 2 out: the record of packet id and message, before PUBLISH.
    Delivery,
    /// QoS 2 out: the record of PUBREC, before PUBREL.
    Receipt,
    /// QoS 2 out: PUBCOMP, which is recorded with whatever comes next.
    Completion,
    /// The claim of a take-over, with QoS 2 open in both directions.
    Claim,
    /// The set of a take-over, likewise.
    Set,
    /// The set that a DISCONNECT leaves, likewise.
    Farewell,
    /// The last word of a nonce, likewise.
    LastWord,
}

/// Where the node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Before Kafka is given the record.
    Before,
    /// When the record is on its way, where it stays until the client goes on at another node.
    Late,
    /// When the record is on its way, where it stays until the other node has finished: Kafka must refuse it.
    TooLate,
    /// When Kafka has the record, before it says so.
    Written,
    /// When Kafka has said so, before the node has read the record back.
    Unread,
    /// When the answer has left for the client, which does not get it.
    Lost,
    /// When the client has the answer.
    Seen,
}

/// How the client goes on at another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It sends again what has no answer: PUBLISH with DUP, or PUBREL as its first packet.
    AtOnce,
    /// As `AtOnce`, but first it says farewell and comes back once more, to a third node.
    AfterFarewell,
    /// It repeats what it need not: PUBREC or PUBCOMP before it is asked, in 3.1.1 PUBLISH though PUBREC came.
    Repeating,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    pub step: Step,
    pub point: Point,
    pub way: Way,
    /// MQTT 5, else 3.1.1.
    pub is_v5: bool,
}

impl Step {
    const ALL: [Self; 10] = [
        Self::Message,
        Self::MessageAgain,
        Self::Release,
        Self::Delivery,
        Self::Receipt,
        Self::Completion,
        Self::Claim,
        Self::Set,
        Self::Farewell,
        Self::LastWord,
    ];

    /// Its record in `mqtt.sessions`; none for a message.
    pub fn slot(self) -> Option<Slot> {
        match self {
            Self::Message | Self::MessageAgain => None,
            Self::Release => Some(Slot::Part(PartKind::Inbound)),
            Self::Delivery | Self::Receipt | Self::Completion => Some(Slot::Part(PartKind::Outbound)),
            Self::Claim => Some(Slot::Claim),
            Self::Set | Self::Farewell => Some(Slot::Set),
            Self::LastWord => Some(Slot::Final),
        }
    }

    fn points(self) -> &'static [Point] {
        use Point::{Before, Late, Lost, Seen, TooLate, Unread, Written};
        match self {
            // PUBREC waits for nothing to be read back.
            Self::Message | Self::MessageAgain => &[Before, Late, TooLate, Written, Lost, Seen],
            Self::Release | Self::Delivery | Self::Receipt | Self::Set => {
                &[Before, Late, TooLate, Written, Unread, Lost, Seen]
            }
            // PUBCOMP has no answer; the claim's is the CONNACK of the step after it.
            Self::Completion | Self::Claim => &[Before, Late, TooLate, Written, Unread],
            // Nobody waits for it.
            Self::Farewell | Self::LastWord => &[Before, Late, TooLate, Written],
        }
    }

    /// Whether there is something to repeat.
    fn has_way(self, way: Way, point: Point, is_v5: bool) -> bool {
        match self {
            Self::Message | Self::MessageAgain => way != Way::Repeating || (point == Point::Seen && !is_v5),
            Self::Release => way != Way::Repeating,
            Self::Delivery
            | Self::Receipt
            | Self::Completion
            | Self::Claim
            | Self::Set
            | Self::Farewell
            | Self::LastWord => true,
        }
    }
}

impl Way {
    pub const ALL: [Self; 3] = [Self::AtOnce, Self::AfterFarewell, Self::Repeating];
}

impl Cell {
    pub fn version(self) -> ProtocolVersion {
        if self.is_v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 }
    }

    /// Each step before, in and after its record.
    pub fn is_of_the_few(self) -> bool {
        let turn = self.step as usize;
        let wanted = match self.point {
            Point::Before => !turn.is_multiple_of(2),
            Point::Late => turn.is_multiple_of(2),
            Point::Written => true,
            Point::TooLate | Point::Unread | Point::Lost | Point::Seen => false,
        };
        wanted && self.way == Way::AtOnce && self.is_v5 != turn.is_multiple_of(3)
    }
}

pub fn every_cell() -> Vec<Cell> {
    let mut cells = Vec::new();
    for step in Step::ALL {
        for &point in step.points() {
            for way in Way::ALL {
                let versions = [true, false].into_iter().filter(|&is_v5| step.has_way(way, point, is_v5));
                cells.extend(versions.map(|is_v5| Cell { step, point, way, is_v5 }));
            }
        }
    }
    cells
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message => "in: the message, before PUBREC",
            Self::MessageAgain => "in: the message, with a packet id used before",
            Self::Release => "in: the release, before PUBCOMP",
            Self::Delivery => "out: id and message, before PUBLISH",
            Self::Receipt => "out: PUBREC, before PUBREL",
            Self::Completion => "out: PUBCOMP, with the next record",
            Self::Claim => "take-over: the claim",
            Self::Set => "take-over: the set, before CONNACK",
            Self::Farewell => "DISCONNECT: the last set",
            Self::LastWord => "DISCONNECT: the last word",
        })
    }
}

impl Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "not given to Kafka",
            Self::Late => "on its way, lands when the client goes on elsewhere",
            Self::TooLate => "on its way, lands when all is over",
            Self::Written => "in Kafka, not acknowledged",
            Self::Unread => "acknowledged, not read back",
            Self::Lost => "answered, the answer lost",
            Self::Seen => "answered",
        })
    }
}

impl Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "goes on at once",
            Self::AfterFarewell => "goes on after a DISCONNECT",
            Self::Repeating => "repeats what it said",
        })
    }
}

impl Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.is_v5 { "5" } else { "3.1.1" };
        write!(f, "{}: {}: {}, MQTT {version}", self.step, self.point, self.way)
    }
}
