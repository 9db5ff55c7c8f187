//! QoS 2 publishes whose fate a death leaves open (Q1 to Q5).

use super::{Caught, Scene};

pub(super) const SCENES: &[Scene] = &[];

pub(super) const CAUGHT: &[Caught] = &[];
