//! `loadsim`: open-loop MQTT load on Millrace's own codec.
fn main() {}
