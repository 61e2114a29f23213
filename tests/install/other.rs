//! A static library in Rust that has nothing to do with Sheepdog: tools/test-install.sh.

/// What its program calls: the length of a number in text, -1 after a panic.
#[unsafe(no_mangle)]
pub extern "C" fn other_length(number: i32) -> i32 {
    std::panic::catch_unwind(|| {
        if number < 0 {
            std::panic::resume_unwind(Box::new(number));
        }
        number.to_string().len() as i32
    })
    .unwrap_or(-1)
}
