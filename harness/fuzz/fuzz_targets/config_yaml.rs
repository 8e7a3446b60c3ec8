#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kleidi_fuzz::config_yaml(bytes));
