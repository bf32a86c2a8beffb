//! `meta/tasks.parquet`: the instructions.

use super::{table::Table, values};
use crate::DataError;
use std::path::Path;

/// Reads the instructions, in the order of their `task_index`.
///
/// # Errors
/// When the file is missing or damaged, or an index is outside 0..N.
pub(crate) fn read_tasks(root: &Path) -> Result<Vec<String>, DataError> {
    let path = root.join("meta/tasks.parquet");
    if !path.is_file() {
        let hint = "it holds the instructions: fetch the dataset's folder meta again";
        return Err(DataError::file(&path, "the file is missing", hint));
    }
    let table = Table::open(&path)?;
    let names = table.column_names();
    // The text is the index of a pandas frame: its column is named after the index, if that has a name.
    let text = names.iter().copied().find(|name| *name != "task_index").unwrap_or("task");
    let bad = |what: String| DataError::file(table.path(), what, "fetch or record it again");
    let mut tasks: Vec<Option<String>> = Vec::new();
    for batch in table.read(&["task_index", text])? {
        let indices = values::ints(batch.column(0)).map_err(|what| bad(format!("column `task_index` {what}")))?;
        let texts = values::texts(batch.column(1)).map_err(|what| bad(format!("column `{text}` {what}")))?;
        for (index, text) in indices.into_iter().zip(texts) {
            let slot = usize::try_from(index).ok().filter(|&slot| slot < table.num_rows() as usize);
            let slot = slot.ok_or_else(|| bad(format!("task_index {index} is outside 0..{}", table.num_rows())))?;
            tasks.resize(tasks.len().max(slot + 1), None);
            tasks[slot] = Some(text);
        }
    }
    let whole: Option<Vec<String>> = tasks.into_iter().collect();
    whole.ok_or_else(|| bad("has a task_index twice, so that another is missing".into()))
}
