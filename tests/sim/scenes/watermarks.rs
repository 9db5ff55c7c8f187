//! Positions and watermarks around slow and dying sessions (W1 to W5).

use super::{Caught, Scene};

pub(super) const SCENES: &[Scene] = &[];

pub(super) const CAUGHT: &[Caught] = &[];
