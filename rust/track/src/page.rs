//! Pages that can be sent around: one HTML file each, which contains its images and short videos.

use crate::{Result, TrackError, fs::write_atomic, table::ResultTable};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hlrp_config::secret::redact;
use std::{fs, path::Path};

/// Videos in a group of media; the others are links.
const MAX_VIDEOS: usize = 3;
/// A larger video is a link.
const MAX_VIDEO_BYTES: u64 = 4 << 20;

const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-top: 1px solid #ddd; padding-top: 1rem }
p.note { color: #666; margin: .2rem 0 1rem } .wide { overflow-x: auto; white-space: nowrap; margin: 1rem 0 } table { border-collapse: collapse }
th, td { padding: .15rem 1.5rem .15rem 0; text-align: left; vertical-align: top } th { border-bottom: 1px solid #ddd; font-weight: 600 }
td + td { font-variant-numeric: tabular-nums } .media { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; margin-top: 1rem }
figure { margin: 0 } figure img { max-width: 520px; border: 1px solid #eee } figure video { width: 300px; border: 1px solid #eee }
figure.large img { max-width: 100% } figcaption { color: #666; font-size: .85rem }";

/// A page under construction. Every text is shown without secrets.
#[derive(Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// A page with a heading and a line below it.
    pub fn new(title: &str, note: &str) -> Self {
        let title = escaped(title);
        let body = format!("<h1>{title}</h1>\n<p class=\"note\">{}</p>\n", escaped(note));
        Self { title, body }
    }

    /// Begins a section.
    pub fn section(&mut self, title: &str) {
        self.body += &format!("<h2>{}</h2>\n", escaped(title));
    }

    /// A line of explanation.
    pub fn note(&mut self, text: &str) {
        self.body += &format!("<p class=\"note\">{}</p>\n", escaped(text));
    }

    /// A table with titles.
    pub fn table(&mut self, table: &ResultTable) {
        let cells = |kind: &str, cells: &[String]| -> String {
            cells.iter().map(|cell| format!("<{kind}>{}</{kind}>", escaped(cell))).collect()
        };
        let head = format!("<tr>{}</tr>\n", cells("th", table.columns()));
        let rows: String = table.rows().iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
        self.body += &format!("<div class=\"wide\"><table>\n{head}{rows}</table></div>\n");
    }

    /// Names and values.
    pub fn facts(&mut self, facts: &[(String, String)]) {
        let row = |(what, value): &(String, String)| {
            format!("<tr><td>{}</td><td>{}</td></tr>\n", escaped(what), escaped(value))
        };
        self.body += &format!("<table>\n{}</table>\n", facts.iter().map(row).collect::<String>());
    }

    /// A plot as wide as the page, as PNG.
    pub fn plot(&mut self, png: &[u8], caption: &str) {
        let image = image(png, &escaped(caption));
        self.body +=
            &format!("<figure class=\"large\">{image}<figcaption>{}</figcaption></figure>\n", escaped(caption));
    }

    /// Images as PNG and videos beside each other. Links to videos that are not in the page are relative to `folder`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn media(&mut self, folder: &Path, images: &[impl AsRef<Path>], videos: &[impl AsRef<Path>]) -> Result<()> {
        self.body += "<div class=\"media\">\n";
        for path in images.iter().map(AsRef::as_ref) {
            let content = image(&read(path)?, &caption(path));
            self.figure(&content, path);
        }
        for (index, video) in videos.iter().map(AsRef::as_ref).enumerate() {
            let is_small = fs::metadata(video).is_ok_and(|meta| meta.len() <= MAX_VIDEO_BYTES);
            if index < MAX_VIDEOS && is_small {
                let source = format!("data:video/mp4;base64,{}", BASE64.encode(read(video)?));
                self.figure(&format!("<video controls loop muted src=\"{source}\"></video>"), video);
            } else {
                let target = escaped(&video.strip_prefix(folder).unwrap_or(video).display().to_string());
                self.body += &format!("<a href=\"{target}\">{}</a>\n", caption(video));
            }
        }
        self.body += "</div>\n";
        Ok(())
    }

    fn figure(&mut self, content: &str, path: &Path) {
        self.body += &format!("<figure>{content}<figcaption>{}</figcaption></figure>\n", caption(path));
    }

    /// Writes the page.
    ///
    /// # Errors
    /// The system refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        let Self { title, body } = self;
        let page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\n<style>\n{STYLE}\n</style></head>\n\
             <body>\n{body}</body>\n</html>\n"
        );
        write_atomic(path, page)
    }
}

fn image(png: &[u8], alt: &str) -> String {
    format!("<img alt=\"{alt}\" src=\"data:image/png;base64,{}\">", BASE64.encode(png))
}

fn caption(path: &Path) -> String {
    escaped(&path.file_stem().unwrap_or_default().to_string_lossy().replace('_', " "))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(TrackError::io("read", path))
}

/// A text as a page shows it, without secrets.
fn escaped(text: &str) -> String {
    redact(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
