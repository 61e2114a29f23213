#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sheepdog_fuzz::hostile::run(data));
