//! `scenes.csv`: a header, and a line for each scene of a video.

use crate::error::DataError;
use csv::StringRecord;
use hlrp_config::foreign;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Name of the table.
pub(super) const TABLE: &str = "scenes.csv";

const SCENE_FOLDER: &str = "scene_folder";
/// Columns that every table has.
const NEEDED: [&str; 4] = ["scene_idx", SCENE_FOLDER, "start_frame", "end_frame"];
/// Further columns with a meaning; any other is text. A scene has their facts also where the table lacks the column.
const OPTIONAL: [&str; 12] = [
    "label",
    "stabilized_label",
    "max_angle",
    "max_trans",
    "stabilized_max_angle",
    "stabilized_max_trans",
    "contains_hand_sam3",
    "contains_lego_brick_sam3",
    "contains_sam3_hand_motion_cotracker",
    "hand_mask_folder_sam3",
    "lego_brick_mask_folder_sam3",
    "sam3_hand_motion_cotracker_folder",
];
/// Facts that are in no column.
const ADDED: [&str; 2] = ["dataset_type", "video_id"];

/// Longer paths are none.
const MAX_PATH_BYTES: usize = 1024;

const REPAIR: &str = "correct the table, or leave out the line";

/// One line of a table.
#[derive(Debug)]
pub(super) struct Row {
    table: Arc<Table>,
    cells: StringRecord,
}

/// What the lines of a table share.
#[derive(Debug)]
struct Table {
    /// Position of each column.
    columns: BTreeMap<String, usize>,
    video_id: String,
}

/// The scenes of a table, in the order of their indices.
///
/// # Errors
/// The table cannot be read, lacks a column, or has a cell of another type; a scene is listed twice or is not below the table's folder.
pub(super) fn read(path: &Path, video_id: &str) -> Result<Vec<Row>, DataError> {
    let fail = |what: String| DataError::file(path, what, REPAIR);
    let text = foreign::read_text(path).map_err(|error| fail(error.to_string()))?;
    let text = text.trim_start_matches('\u{feff}').as_bytes();
    let mut reader = csv::Reader::from_reader(text);
    let mut columns = BTreeMap::new();
    for (at, name) in reader.headers().map_err(|error| fail(error.to_string()))?.iter().enumerate() {
        if columns.insert(name.trim().to_owned(), at).is_some() {
            return Err(fail(format!("has two columns {:?}", short(name))));
        }
    }
    if let Some(missing) = NEEDED.iter().find(|name| !columns.contains_key(**name)) {
        return Err(fail(format!("has no column `{missing}`")));
    }
    let table = Arc::new(Table { columns, video_id: video_id.to_owned() });
    let mut rows = Vec::new();
    for cells in reader.into_records() {
        let cells = cells.map_err(|error| fail(error.to_string()))?;
        let row = Row { table: Arc::clone(&table), cells };
        row.check().map_err(|what| fail(format!("line {}: {what}", line_of(text, &row.cells))))?;
        rows.push(row);
    }
    rows.sort_by_key(Row::index);
    Ok(rows)
}

impl Row {
    /// Folder of its frames, below that of the table.
    pub(super) fn folder(&self) -> PathBuf {
        PathBuf::from(self.cell(SCENE_FOLDER).unwrap_or_default())
    }

    /// Number of frames that the table says it has.
    pub(super) fn num_frames(&self) -> u64 {
        self.whole("end_frame").saturating_sub(self.whole("start_frame")).max(0).cast_unsigned()
    }

    /// What is known of the scene by this name.
    pub(super) fn fact(&self, name: &str) -> Value {
        match name {
            "dataset_type" => "youtube".into(),
            "video_id" => self.table.video_id.as_str().into(),
            _ => typed(name, self.cell(name)).unwrap_or_default(),
        }
    }

    /// Names of what may be known of it.
    pub(super) fn facts(&self) -> impl Iterator<Item = &str> {
        ADDED.into_iter().chain(OPTIONAL).chain(self.table.columns.keys().map(String::as_str))
    }

    fn index(&self) -> i64 {
        self.whole("scene_idx")
    }

    /// A cell with content.
    fn cell(&self, column: &str) -> Option<&str> {
        let cell = self.cells.get(*self.table.columns.get(column)?)?.trim();
        Some(cell).filter(|cell| !cell.is_empty())
    }

    fn whole(&self, column: &str) -> i64 {
        self.fact(column).as_i64().unwrap_or_default()
    }

    fn check(&self) -> Result<(), String> {
        for name in self.table.columns.keys() {
            typed(name, self.cell(name)).map_err(|what| format!("{name} {what}"))?;
        }
        if self.whole("start_frame") > self.whole("end_frame") {
            return Err("end_frame is before start_frame".into());
        }
        let folder = self.cell(SCENE_FOLDER).unwrap_or_default();
        let is_below = Path::new(folder).components().all(|part| matches!(part, Component::Normal(_)));
        let is_path = (1..MAX_PATH_BYTES).contains(&folder.len()) && !folder.chars().any(char::is_control);
        if !is_below || !is_path {
            return Err(format!("{SCENE_FOLDER} {:?} is not a folder below that of the table", short(folder)));
        }
        Ok(())
    }
}

/// The value of a cell; null where it has no content.
fn typed(column: &str, cell: Option<&str>) -> Result<Value, String> {
    let is_not = |what: &str| cell.map_or("has no value".to_owned(), |cell| format!("{:?} is not {what}", short(cell)));
    match column {
        "scene_idx" | "start_frame" | "end_frame" => {
            let number = cell.and_then(|cell| cell.parse::<i64>().ok()).filter(|&number| number >= 0);
            number.map(Value::from).ok_or_else(|| is_not("a count"))
        }
        "max_angle" | "max_trans" | "stabilized_max_angle" | "stabilized_max_trans" => {
            cell.unwrap_or("0").parse::<f64>().map(Value::from).map_err(|_| is_not("a number"))
        }
        "contains_hand_sam3" | "contains_lego_brick_sam3" | "contains_sam3_hand_motion_cotracker" => {
            match cell.unwrap_or("false").to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => Ok(true.into()),
                "false" | "0" | "no" => Ok(false.into()),
                _ => Err(is_not("true or false")),
            }
        }
        "label" | "stabilized_label" => Ok(cell.unwrap_or("uncertain").into()),
        _ => Ok(cell.into()),
    }
}

/// The line in which a record begins.
fn line_of(text: &[u8], record: &StringRecord) -> usize {
    // After a line that ends in CR LF, the position is that of LF.
    let at = record.position().map_or(0, |position| position.byte() as usize);
    1 + text.iter().take(at + 1).filter(|&&byte| byte == b'\n').count()
}

/// The beginning of a text of any length.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Vec<Row>, String> {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(TABLE), text).unwrap();
        super::read(&root.path().join(TABLE), "video7").map_err(|error| error.to_string())
    }

    #[test]
    fn cells_have_types_and_other_columns_are_text() {
        let rows = read(
            "\u{feff}scene_idx,scene_folder,start_frame,end_frame,max_trans,contains_hand_sam3,hand_mask_folder_sam3,take\n\
             3,scene_003,30,4500,38.05,Yes,,42\n\
             1,\"scene,001\",0,0,,0,masks,\n",
        )
        .unwrap();
        assert_eq!(rows.iter().map(Row::folder).collect::<Vec<_>>(), ["scene,001", "scene_003"].map(PathBuf::from));
        let (first, third) = (&rows[0], &rows[1]);
        assert_eq!([first.num_frames(), third.num_frames()], [0, 4470]);
        for (fact, value) in [
            ("scene_idx", json!(3)),
            ("max_trans", json!(38.05)),
            ("max_angle", json!(0.0)),
            ("contains_hand_sam3", json!(true)),
            ("contains_lego_brick_sam3", json!(false)),
            ("label", json!("uncertain")),
            ("hand_mask_folder_sam3", json!(null)),
            ("take", json!("42")),
            ("dataset_type", json!("youtube")),
            ("video_id", json!("video7")),
            ("unknown", json!(null)),
        ] {
            assert_eq!(third.fact(fact), value, "{fact}");
        }
        assert_eq!([first.fact("hand_mask_folder_sam3"), first.fact("take")], [json!("masks"), json!(null)]);
        assert!(third.facts().any(|fact| fact == "take") && third.facts().any(|fact| fact == "max_angle"));
    }

    #[test]
    fn what_is_no_table_of_scenes_is_named() {
        let line = |cells: &str| format!("scene_idx,scene_folder,start_frame,end_frame,contains_hand_sam3\n{cells}\n");
        for (text, what) in [
            (String::new(), "no column `scene_idx`"),
            ("scene_idx,scene_idx\n".into(), "two columns \"scene_idx\""),
            ("scene_idx,scene_folder,start_frame\n".into(), "no column `end_frame`"),
            (line("0,a,0"), "found record with 3 fields"),
            (line("zero,a,0,9,1"), "line 2: scene_idx \"zero\" is not a count"),
            (line("0,a,-1,9,1"), "line 2: start_frame \"-1\" is not a count"),
            (line("0,a,5,,1"), "line 2: end_frame has no value"),
            (line("0,a,5,4,1"), "line 2: end_frame is before start_frame"),
            (line("0,a,0,9,maybe"), "line 2: contains_hand_sam3 \"maybe\" is not true or false"),
            (line("0,,0,9,1"), "line 2: scene_folder \"\""),
            (line("0,../a,0,9,1"), "line 2: scene_folder \"../a\""),
            (line("0,/etc,0,9,1"), "line 2: scene_folder \"/etc\""),
            (line("0,\"a\x1b[2J\nb\",0,9,1"), "line 2: scene_folder \"a\\u{1b}[2J\\nb\""),
            (line("=1+1,a,0,9,1"), "line 2: scene_idx \"=1+1\""),
            (line("0,a,0,9,1\n1,b,0,x,1"), "line 3: end_frame \"x\""),
            (line("0,a,0,9,1\n1,b,0,x,1").replace('\n', "\r\n"), "line 3: end_frame \"x\""),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(what), "{what}: {error}");
        }
    }
}
