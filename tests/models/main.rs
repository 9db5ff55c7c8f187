//! The rules by which nodes share sessions, wills and retained messages, searched exhaustively.
//!
//! These models are the specification. Each module says of one part what its state is, what the adversary may do, the
//! rules with their names (F1, K1, Q1 ...), and which property they keep; then every state that two or three nodes and
//! messages can reach is visited. The bounds are small on purpose: every counterexample found so far fits into them.
//!
//! **Change a rule here first**, let the broken variants fail again, then change the code that follows the rule.
//!
//! * `good::*` are the rules as they are: the property holds in every reachable state, and the number of states is
//!   stated, so that a change of the model which takes something away from the adversary does not pass unseen. If you
//!   changed a model on purpose, look at why the number is another one, then write it down.
//! * `broken::*` leave one rule out each. They must end in a violation after the stated number of steps, the fewest
//!   possible. A broken variant that passes is as bad as a good one that fails: then the model no longer sees what it
//!   was written to see.
//!
//! To see a counterexample, state a number of steps that is wrong. After a change of a rule run the larger bounds too:
//! `cargo test --test models -- --include-ignored`. Nothing here uses the library.

mod search;
mod small;

mod f9;
mod fence;
mod hold_back;
mod qos2;
mod retained;
mod retained_subscriber;
mod session_end;
mod watermark;
mod will;
