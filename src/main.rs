//! The `millrace` program: arguments, config, logging, then [`millrace`]'s composition root.
fn main() {}
