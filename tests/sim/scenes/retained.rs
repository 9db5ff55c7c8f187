//! Retained messages whose writers die or race (R1 to R6).

use super::{Caught, Scene};

pub(super) const SCENES: &[Scene] = &[];

pub(super) const CAUGHT: &[Caught] = &[];
