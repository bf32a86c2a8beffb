//! Images: a file of the session, and the value that refers to it. Histograms: a value.

use super::super::{Histogram, NamedImage};
use crate::{Result, TrackError};
use image::ImageFormat;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{fmt::Write, fs, io::Cursor, path::Path};

/// Characters of the digest in a file name, as in the official client's.
const DIGEST_IN_NAME: usize = 20;

/// Key of a validation's images.
pub(super) fn key(image: &NamedImage) -> String {
    format!("validation/{}", image.name)
}

/// The value of a histogram.
pub(super) fn histogram(histogram: &Histogram) -> Value {
    json!({ "_type": "histogram", "values": histogram.counts(), "bins": histogram.edges() })
}

/// Writes the PNG file of `image` below `files`. Returns its path there and the value for the row of `step`.
pub(super) fn save(files: &Path, step: u64, image: &NamedImage) -> Result<(String, Value)> {
    let mut bytes = Vec::new();
    image
        .image
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .map_err(|error| TrackError::Plot { path: files.join(&image.name), reason: error.to_string() })?;
    let sha256 = Sha256::digest(&bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    });
    let path = format!("media/images/{}_{step}_{}.png", plain(&key(image)), &sha256[..DIGEST_IN_NAME]);
    let file = files.join(&path);
    let folder = file.parent().unwrap_or(files);
    fs::create_dir_all(folder).map_err(TrackError::io("create", folder))?;
    fs::write(&file, &bytes).map_err(TrackError::io("write", &file))?;
    let value = json!({
        "_type": "image-file",
        "sha256": sha256,
        "size": bytes.len(),
        "path": path,
        "format": "png",
        "width": image.image.width(),
        "height": image.image.height(),
    });
    Ok((path, value))
}

/// A relative path without parts that lead elsewhere.
fn plain(key: &str) -> String {
    let parts = key.split('/').filter(|part| !part.is_empty());
    parts
        .map(|part| if part.starts_with('.') { part.replace('.', "_") } else { part.to_owned() })
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_leads_nowhere_else() {
        assert_eq!(super::plain("/validation/../a b"), "validation/__/a b");
    }
}
