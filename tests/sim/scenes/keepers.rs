//! Keepers of absent sessions and clients that come back (K1 to K3).

use super::{Caught, Scene};

pub(super) const SCENES: &[Scene] = &[];

pub(super) const CAUGHT: &[Caught] = &[];
