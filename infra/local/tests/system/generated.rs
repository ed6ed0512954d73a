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

/// Asserts that each named region of a file of docs/ has its text. A region lies between the lines
/// `# BEGIN generated: NAME` and `# END generated: NAME`, whose indentation its lines get.
pub(crate) fn assert_regions(file: &str, regions: &[(&str, String)]) {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).join(file);
    let mut text = fs::read_to_string(path).unwrap();
    for (name, content) in regions {
        let (begin, end) = (
            format!("# BEGIN generated: {name}\n"),
            format!("# END generated: {name}\n"),
        );
        let (before, rest) = text.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        let indent = " ".repeat(before.len() - before.trim_end_matches(' ').len());
        let lines = content.lines().map(|line| match line {
            "" => "\n".to_owned(),
            line => format!("{indent}{line}\n"),
        });
        let lines: String = lines.collect();
        text = format!("{before}{begin}{lines}{indent}{end}{after}");
    }
    assert_generated(file, &text);
}
