//! include/sheepdog.h is what src/ffi says: generates it and compares.
//!
//! `UPDATE=1 cargo test --test header` writes it.

use std::path::Path;

/// The chapters of the header, in its order.
const CHAPTERS: [&str; 11] =
    ["result", "last", "log", "cluster", "vdi", "attr", "snapshot", "list", "aio", "event", "wake"];

#[test]
fn the_committed_header_is_the_generated_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for chapter in CHAPTERS {
        builder = builder.with_src(root.join("src/ffi").join(chapter).with_extension("rs"));
    }
    let mut generated = Vec::new();
    builder.generate().unwrap().write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    // cbindgen has no function types, only pointers to functions.
    let generated = [
        ("sd_callback_fn fn", "sd_callback_fn *fn"),
        ("void (*fn)(int level, const char *message, void *opaque)", "sd_log_fn *fn"),
        ("int (*fn)(off_t offset, size_t len, int status, void *opaque)", "sd_extent_fn *fn"),
    ]
    .iter()
    .fold(generated, |text, (pointer, name)| text.replace(pointer, name));
    let path = root.join("include/sheepdog.h");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        generated == committed,
        "include/sheepdog.h is not what src/ffi says: UPDATE=1 cargo test --test header"
    );
}
