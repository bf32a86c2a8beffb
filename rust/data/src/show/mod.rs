//! What is in a dataset, as text and as a sheet of images; what a filter drops of it.

mod canvas;
mod filter_sheet;
mod here;
mod sheet;
mod summary;

pub use filter_sheet::filter_sheet;
pub use sheet::{SheetLayout, contact_sheet, spread};
pub use summary::summary;
