//! Wills that are due while nodes die (V1 to V5).

use super::{Caught, Scene};

pub(super) const SCENES: &[Scene] = &[];

pub(super) const CAUGHT: &[Caught] = &[];
