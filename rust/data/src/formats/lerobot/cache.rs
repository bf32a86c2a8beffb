//! Memory for what was read from parquet files: the least recently used goes first.

use super::table::{Table, open_table};
use crate::{error::DataError, lock::lock, lru::ByteLru};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

/// Footers and columns of any number of datasets, together within one budget.
pub struct TableCache {
    num_datasets: AtomicU32,
    tables: Mutex<ByteLru<PathBuf, Arc<Table>>>,
    blocks: Mutex<ByteLru<BlockKey, Arc<Block>>>,
}

/// One column of one row group of one file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey {
    pub(crate) dataset: u32,
    pub(crate) file: u32,
    pub(crate) group: u32,
    pub(crate) column: u32,
}

/// Values of one column in one row group.
pub(crate) struct Block {
    /// Global rows.
    pub(crate) rows: std::ops::Range<u64>,
    pub(crate) values: Values,
}

/// Values of a block, in the smallest form that has all of them.
pub(crate) enum Values {
    /// `[rows, width]`.
    Each(Vec<f32>),
    /// One value per row, the same in all of them.
    Constant(f32),
    /// Timestamps that are all frame number / fps.
    Regular,
}

/// Footers may take a quarter of the budget, and so many files stay open.
const MAX_OPEN_TABLES: usize = 256;

impl TableCache {
    /// A cache that keeps at most about `budget_bytes`.
    #[must_use]
    pub fn new(budget_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            num_datasets: AtomicU32::new(0),
            tables: Mutex::new(ByteLru::new(budget_bytes / 4, MAX_OPEN_TABLES)),
            blocks: Mutex::new(ByteLru::new(budget_bytes - budget_bytes / 4, usize::MAX)),
        })
    }

    /// Names a dataset's entries.
    pub(crate) fn register(&self) -> u32 {
        self.num_datasets.fetch_add(1, Ordering::Relaxed)
    }

    /// The open file at `path`, of the dataset at `root`.
    pub(crate) fn table(&self, root: &Path, path: &Path) -> Result<Arc<Table>, DataError> {
        if let Some(table) = lock(&self.tables).get(path) {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(open_table(root, path)?);
        lock(&self.tables).put(path.to_owned(), Arc::clone(&table), table.memory_size());
        Ok(table)
    }

    /// The block of a key, read by `read` unless it is cached.
    pub(crate) fn block(
        &self,
        key: BlockKey,
        read: impl FnOnce() -> Result<Block, DataError>,
    ) -> Result<Arc<Block>, DataError> {
        if let Some(block) = lock(&self.blocks).get(&key) {
            return Ok(Arc::clone(block));
        }
        let block = Arc::new(read()?);
        let values = if let Values::Each(values) = &block.values { size_of_val(values.as_slice()) } else { 0 };
        let size = size_of::<Block>() + values;
        lock(&self.blocks).put(key, Arc::clone(&block), size);
        Ok(block)
    }
}
