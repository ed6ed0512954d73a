//! Files that are generated from code, and compared with it by tests.

use std::{env, fmt::Display, fs, io, path::Path};

/// Compares a file of the repository with its text. With `WRITE_REFERENCES` in the environment, it
/// writes the file.
///
/// # Errors
/// Returns an error if the file has another text.
pub fn file(name: &str, text: &str) -> io::Result<()> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name);
    if env::var_os("WRITE_REFERENCES").is_some() {
        return fs::write(path, text);
    }
    if fs::read_to_string(path)? == text {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{name} is not current: run .ci/references"
        )))
    }
}

/// Compares regions of a file of the repository with their texts. With `WRITE_REFERENCES` in the
/// environment, it writes them.
///
/// # Errors
/// Returns an error if the file lacks a region, or if a region has another text.
pub fn regions(name: &str, regions: &[(impl Display, String)]) -> io::Result<()> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name);
    file(name, &with_regions(&fs::read_to_string(path)?, regions)?)
}

/// Replaces regions of a text, each with a name. A region lies between the lines
/// `# BEGIN generated: NAME` and `# END generated: NAME`, whose indentation its lines get.
///
/// # Errors
/// Returns an error if the text lacks a region.
pub fn with_regions(text: &str, regions: &[(impl Display, String)]) -> io::Result<String> {
    let mut text = text.to_owned();
    for (name, content) in regions {
        let begin = format!("# BEGIN generated: {name}\n");
        let end = format!("# END generated: {name}\n");
        let parts = text.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(&end)?;
            Some((before, after))
        });
        let (before, after) = parts.ok_or_else(|| {
            let marker = begin.trim_end();
            io::Error::other(format!("no region between `{marker}` and its end"))
        })?;
        let indent = " ".repeat(before.len() - before.trim_end_matches(' ').len());
        let lines = content.lines().map(|line| match line {
            "" => "\n".to_owned(),
            line => format!("{indent}{line}\n"),
        });
        let lines: String = lines.collect();
        text = format!("{before}{begin}{lines}{indent}{end}{after}");
    }
    Ok(text)
}
