//! Documents that are generated from code, and compared with it.

use std::{env, fs, path::Path};

/// Asserts that a file of docs/ has this text. With `WRITE_REFERENCES=1` in the environment the file is written instead.
pub(crate) fn assert_generated(file: &str, text: &str) {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).join(file);
    if env::var_os("WRITE_REFERENCES").is_some() {
        fs::write(path, text).unwrap();
        return;
    }
    let current = fs::read_to_string(path).unwrap_or_default();
    assert!(
        current == text,
        "docs/{file} is not current: run .ci/references"
    );
}
