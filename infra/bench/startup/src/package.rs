//! The size of a binary in a Lambda deployment package.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::Failed;

/// Returns the size of a zip archive with the binary, deflated, as `bootstrap`.
pub(crate) fn zipped(binary: &Path) -> Result<usize, Failed> {
    let content = fs::read(binary)
        .map_err(|error| Failed::new(format!("reading {} failed: {error}", binary.display())))?;
    zip(&content).map_err(|error| Failed::new(format!("{}: {error}", binary.display())))
}

fn zip(content: &[u8]) -> zip::result::ZipResult<usize> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .unix_permissions(0o755);
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    zip.start_file("bootstrap", options)?;
    zip.write_all(content)?;
    Ok(zip.finish()?.into_inner().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zip_is_deflated() {
        let packed = zip(&vec![7; 100_000]).unwrap();
        assert!((100..1_000).contains(&packed), "{packed} bytes");
    }
}
