#![no_main]

#[path = "../../tests/codec/checks.rs"]
#[allow(dead_code)]
mod checks;
#[path = "../../tests/codec/generate.rs"]
mod generate;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::topic(bytes));
