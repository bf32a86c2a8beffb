//! The files of an analysis, and its part of the report.

use crate::validation::{Row, render_rows};
use anyhow::Context;
use hlrp_track::fs::write_atomic;
use hlrp_track::page::Page;
use hlrp_track::plot::{RgbImage, png_bytes};
use hlrp_track::table::ResultTable;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Images of one analysis in the report; the others are files only.
const MAX_SHOWN: usize = 16;

/// The folder of an analysis, and what of it the report shows.
pub(super) struct Output {
    dir: PathBuf,
    section: Section,
}

/// Part of the report.
#[derive(Default)]
pub(super) struct Section {
    notes: Vec<String>,
    tables: Vec<ResultTable>,
    images: Vec<(String, Vec<u8>)>,
}

impl Output {
    /// The folder `dir`, which is created.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir: dir.to_path_buf(), section: Section::default() })
    }

    /// Adds a sentence.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.section.notes.push(text.into());
    }

    /// Adds a table of the report, which is no file.
    pub(super) fn table(&mut self, table: ResultTable) {
        self.section.tables.push(table);
    }

    /// Writes the image `<name>.png`; a name may have a folder.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn image(&mut self, name: &str, image: &RgbImage) -> anyhow::Result<()> {
        let png = png_bytes(image)?;
        self.file(&format!("{name}.png"), &png)?;
        self.section.images.push((name.to_owned(), png));
        Ok(())
    }

    /// Writes rows of images as `<name>.png`; nothing without a row.
    ///
    /// # Errors
    /// Images of different sizes, or the system refuses.
    pub(super) fn rows(&mut self, name: &str, title: &str, columns: &[&str], rows: &[Row]) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.image(name, &render_rows(name, title.to_owned(), columns, rows)?)
    }

    /// Writes `<name>.json`.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn json(&mut self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        self.file(&format!("{name}.json"), format!("{}\n", serde_json::to_string_pretty(value)?).as_bytes())
    }

    /// Writes `<name>.csv`.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn csv(&mut self, name: &str, columns: &[String], rows: &[Vec<String>]) -> anyhow::Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(columns)?;
        rows.iter().try_for_each(|row| writer.write_record(row))?;
        self.file(&format!("{name}.csv"), &writer.into_inner()?)
    }

    /// Writes `README.md`, and says the same in the report.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn readme(&mut self, text: &str) -> anyhow::Result<()> {
        self.note(text);
        self.file("README.md", format!("{text}\n").as_bytes())
    }

    fn file(&mut self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(write_atomic(&path, content)?)
    }

    /// What the report shows.
    pub(super) fn take(self) -> Section {
        self.section
    }
}

impl Section {
    /// Adds the section to `page`.
    ///
    /// # Errors
    /// None at present; the page is in memory.
    pub(super) fn add_to(self, page: &mut Page, title: &str) -> anyhow::Result<()> {
        page.section(title);
        self.notes.iter().for_each(|note| page.note(note));
        self.tables.iter().for_each(|table| page.table(table));
        let num_images = self.images.len();
        for (name, png) in self.images.into_iter().take(MAX_SHOWN) {
            page.plot(&png, &name.replace('_', " "));
        }
        if num_images > MAX_SHOWN {
            page.note(&format!("{} further images are in the folder", num_images - MAX_SHOWN));
        }
        Ok(())
    }
}

/// Counts the images below `run_dir`, and those that are empty, into `output_checks.json`.
///
/// # Errors
/// The system refuses.
pub(super) fn check(run_dir: &Path) -> anyhow::Result<()> {
    let mut images = Vec::new();
    find_images(run_dir, &mut images)?;
    let num_empty = images.iter().filter(|path| fs::metadata(path).is_ok_and(|meta| meta.len() == 0)).count();
    let checks = serde_json::json!({
        "num_pngs": images.len(),
        "num_empty_pngs": num_empty,
        "has_collection_stats": run_dir.join("collection_stats.json").is_file(),
        "has_sanity_checks": run_dir.join("sanity_checks.json").is_file(),
    });
    Ok(write_atomic(&run_dir.join("output_checks.json"), format!("{checks:#}\n"))?)
}

fn find_images(folder: &Path, images: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_images(&path, images)?;
        } else if path.extension().is_some_and(|extension| extension == "png") {
            images.push(path);
        }
    }
    Ok(())
}
