//! Plots as PNG: curves, bars, and grids of images. The font is in the program; nothing of the system is needed.

mod axes;
mod bars;
mod canvas;
mod curves;
mod grid;
mod heatmap;
mod panels;
mod points;

pub use bars::{BarChart, draw_bars, render_bars};
pub use canvas::png_bytes;
pub(crate) use canvas::save;
pub use curves::{Curve, CurveChart, draw_curves, draw_metrics, render_curves};
pub use grid::{GridImage, ImageGrid, draw_grid, render_grid};
pub use heatmap::{Heatmap, render_heatmap};
pub use image::RgbImage;
pub use panels::{PanelGrid, PanelLine, draw_panels, render_panels};
pub use points::{PointChart, PointGroup, render_points};
