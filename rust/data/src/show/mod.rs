//! What is in a dataset, as text and as a sheet of images.

mod sheet;
mod summary;

pub use sheet::{SheetLayout, contact_sheet};
pub use summary::summary;
