#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kleidi_fuzz::encryption_config_yaml(bytes));
