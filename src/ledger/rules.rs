//! The rules of fencing, wills, QoS 2, watermarks and retained messages, one by one, so that a simulation can take one
//! out and show what goes wrong without it.

use std::fmt;

macro_rules! rules {
    ($($rule:ident $text:literal),* $(,)?) => {
        /// A rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $text] $rule),*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$rule),*];

            /// What it says, in a line.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$rule => $text),*
                }
            }
        }
    };
}

rules! {
    F1 "The last counted claim owns the session; its epoch is the generation and the offset of the nonce's first claim.",
    F2 "A claim is acted on only when the own tail passed it.",
    F3 "The state set with the highest epoch is inherited.",
    F4 "The take-over set is one record, and its key has the nonce.",
    F5 "The world is told only what was read back while owner.",
    F6 "Fenced once is fenced for ever.",
    F7 "State of lower epochs is removed only after the own set was read back as owner.",
    F8 "A session exists if a live set exists.",
    F9 "A dead node is fenced at every partition leader before anybody looks for what it wrote.",
    F10 "A session ends with a set that says so; it is removed only when no older state can come back.",
    F11 "Publishes are held back until every lower nonce is final or fenced.",
    K1 "A keeper's claim counts only if the last counted claim before it is the expected one.",
    K2 "A keeper's claim has a key of its own and is never appended twice.",
    K3 "A claim is removed only for a higher claim of a connection whose set was read back, or when no set is left.",
    V1 "Whoever owns the session publishes the will that is due.",
    V2 "Where to look for the will is recorded and read back before the will is appended.",
    V3 "Who inherits a will that is due keeps where to look for it.",
    V4 "The will is appended only if it is not there, and looked for only when every lower nonce is final or fenced.",
    V5 "A nonce is final only when it has no append in flight, and then appends nothing more.",
    Q1 "A QoS 2 publish is appended with its token; PUBREC when the append is acknowledged.",
    Q2 "A repeated publish with an unknown id is looked for when every lower nonce is final or fenced.",
    Q3 "A release is recorded and read back before PUBCOMP.",
    Q4 "A release of an unknown id releases the tokens of lower epochs with this id.",
    Q5 "The mark for tokens passes none that is neither released nor recorded, and no append without outcome.",
    W1 "A session starts to follow only when it acknowledged at least the last watermark.",
    W2 "A watermark never exceeds what a following session acknowledged.",
    W3 "A session's own position is appended before the next watermark when it stops to follow.",
    W4 "Positions and watermarks are in one partition, by one producer.",
    W5 "A watermark of another incarnation never counts.",
    R1 "The node that appended a retained message writes it to the retained topic after its acknowledgement.",
    R2 "Readers keep the retained record of the highest rank.",
    R3 "A writer that reads back a higher record before its own writes the higher one again.",
    R4 "Below a node's mark all its retained records are complete and read back.",
    R5 "A new subscription gets late retained records until all marks have passed its start.",
    R6 "Tombstones of retained messages outlive every append that can still land.",
}

/// Which rules hold: all of them, except in a simulation that shows what a rule is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    without: u64,
}

impl Rules {
    /// Every rule holds.
    pub const ALL: Self = Self { without: 0 };

    /// Every rule but one.
    pub const fn without(rule: Rule) -> Self {
        Self { without: 1 << rule as u64 }
    }

    /// Whether the rule holds.
    pub const fn holds(self, rule: Rule) -> bool {
        self.without & (1 << rule as u64) == 0
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = Rule::ALL.iter().filter(|rule| !self.holds(**rule));
        f.write_str("all but ")?;
        f.debug_list().entries(missing).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_is_taken_out_and_all_others_hold() {
        for rule in Rule::ALL {
            let rules = Rules::without(*rule);
            assert_eq!(Rule::ALL.iter().filter(|other| !rules.holds(**other)).collect::<Vec<_>>(), [rule]);
            assert!(Rules::ALL.holds(*rule), "{}", rule.text());
        }
    }
}
