//! A contact sheet: one line of images per episode and camera, at times spread evenly over the episode.

use super::canvas::{Canvas, GAP, GLYPH, LABEL_LETTERS, LABEL_WIDTH, TITLE_HEIGHT};
use super::here::EpisodesHere;
use crate::error::DataError;
use crate::formats::Dataset;
use crate::frames::FrameSize;
use crate::request::EpisodeSpan;
use image::RgbImage;
use std::{collections::HashSet, sync::Arc};

/// How many images a contact sheet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SheetLayout {
    /// Episodes, spread evenly over the dataset.
    pub num_episodes: usize,
    /// Times of each episode, from its first frame to its last.
    pub num_times: usize,
    /// Height of an image in pixels.
    pub thumb_height: usize,
}

/// Draws the contact sheet of a dataset, of the episodes whose files are in its folder; `name` is its title.
///
/// # Errors
/// When an image cannot be read.
pub fn contact_sheet(dataset: &Arc<dyn Dataset>, name: &str, layout: SheetLayout) -> Result<RgbImage, DataError> {
    let EpisodesHere { with_images, .. } = EpisodesHere::of(&**dataset)?;
    let all = dataset.episodes();
    let is_shown = |span: &&EpisodeSpan| with_images.values().any(|here| here.contains(span));
    let episodes: Vec<&EpisodeSpan> = all.iter().filter(is_shown).collect();
    let chosen: Vec<&EpisodeSpan> = spread(episodes.len(), layout.num_episodes).map(|at| episodes[at]).collect();
    let lines = with_images.iter().filter(|(_, episodes)| !episodes.is_empty());
    let lines: Vec<_> = lines.map(|(camera, here)| Line::new(dataset, camera, here, layout.thumb_height)).collect();
    let line_height = layout.thumb_height as u32 + GLYPH + 2 * GAP;
    let widest = lines.iter().map(|line| line.thumb.width as u32).max().unwrap_or(0);
    let (columns, rows) = (layout.num_times as u32, (chosen.len() * lines.len()) as u32);
    let mut canvas = Canvas::new(LABEL_WIDTH + columns * (widest + GAP) + GAP, TITLE_HEIGHT + rows * line_height);
    let description = dataset.describe();
    let rate = if description.is_fps_known { format!(" at {} fps", description.fps) } else { String::new() };
    let title = format!("{name}: {} episodes, {} frames{rate}", all.len(), description.num_frames);
    canvas.text(8, 12, 2, &title);
    let mut y = TITLE_HEIGHT;
    for episode in chosen {
        for line in &lines {
            line.draw(dataset, episode, layout.num_times, &mut canvas, y)?;
            y += line_height;
        }
    }
    Ok(canvas.into_image())
}

/// One camera of the sheet.
struct Line<'a> {
    camera: &'a str,
    /// The episodes whose images are in the folder.
    episodes: &'a HashSet<EpisodeSpan>,
    thumb: FrameSize,
}

impl<'a> Line<'a> {
    /// Images of this height that keep the camera's aspect ratio.
    fn new(dataset: &Arc<dyn Dataset>, camera: &'a str, episodes: &'a HashSet<EpisodeSpan>, height: usize) -> Self {
        let native = dataset.describe().features[camera].frame_size();
        let width = native.map_or(height, |size| (size.width * height / size.height).max(1));
        Self { camera, episodes, thumb: FrameSize { height, width } }
    }

    fn draw(
        &self,
        dataset: &Arc<dyn Dataset>,
        episode: &EpisodeSpan,
        num_times: usize,
        canvas: &mut Canvas,
        y: u32,
    ) -> Result<(), DataError> {
        let rows: Vec<u64> =
            spread(episode.num_frames() as usize, num_times).map(|frame| episode.from_row + frame as u64).collect();
        let frame_len = self.thumb.frame_bytes();
        let mut pixels_TCHW = Vec::new();
        if self.episodes.contains(episode) {
            pixels_TCHW.resize(rows.len() * frame_len, 0);
            Arc::clone(dataset).frame_store(self.camera, Some(self.thumb))?.reader(1)?.read(&rows, &mut pixels_TCHW)?;
        } else {
            canvas.text(LABEL_WIDTH, y, 1, "its file is not in the folder");
        }
        let (width, height) = (self.thumb.width as u32, self.thumb.height as u32);
        canvas.text(8, y, 1, &format!("episode {}", episode.episode));
        canvas.text(8, y + 12, 1, &format!("{} frames", episode.num_frames()));
        canvas.text(8, y + 24, 1, &self.camera.chars().take(LABEL_LETTERS).collect::<String>());
        let max_lines = (height.saturating_sub(28) / (GLYPH + 3)) as usize;
        canvas.paragraph(8, y + 38, LABEL_LETTERS, max_lines, &dataset.task(episode.from_row)?);
        for (nth, (row, pixels_CHW)) in (0..).zip(rows.iter().zip(pixels_TCHW.chunks_exact(frame_len))) {
            let x = LABEL_WIDTH + nth * (width + GAP);
            canvas.paste(x, y, width, height, pixels_CHW);
            let (frame, description) = (row - episode.from_row, dataset.describe());
            let time = match description.is_fps_known {
                true => format!("{:.2} s", frame as f64 / description.fps),
                false => format!("frame {frame}"),
            };
            canvas.text(x, y + height + 2, 1, &time);
        }
        Ok(())
    }
}

/// `count` of `total` positions, from the first to the last; all of them when there are fewer.
pub fn spread(total: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(total);
    (0..count).map(move |nth| if count < 2 { 0 } else { nth * (total - 1) / (count - 1) })
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn positions_are_spread_from_the_first_to_the_last() {
        assert_eq!(spread(10, 4).collect::<Vec<_>>(), [0, 3, 6, 9]);
        assert_eq!(spread(2, 4).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(spread(0, 4).count(), 0);
    }
}
