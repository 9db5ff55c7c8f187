//! The journal in memory.
