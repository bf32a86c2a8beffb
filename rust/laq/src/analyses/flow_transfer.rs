//! Analysis 7: the motion that a sequence of codes stands for on other images: by the flow decoder, or, without one, between an image
//! and what the sequence makes of it.

use super::collect::{Visual, frames_of, tokens_of};
use super::examples::place;
use super::output::Output;
use super::transfer::targets;
use super::{Inspected, Scene, sources};
use crate::decoders::flow_colors;
use crate::validation::{FrameImage, Row, frame_image};
use hlrp_nn::Pass;
use tch::{Tensor, no_grad};

/// Images of one sequence, seed images, and candidates for a swap.
const NUM_IMAGES: usize = 8;
const NUM_SEEDS: usize = 4;
const MAX_CANDIDATES: usize = 80;

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let names: Vec<&str> = scene.inspected.iter().map(|sequence| sequence.name.as_str()).collect();
    output.readme(&format!("Inspected sequences, in this order: {}", names.join(", ")))?;
    let shown = &scene.inspected[..scene.config.top_k_transfer_tokens.min(scene.inspected.len())];
    for sequence in shown.iter().take(scene.config.top_k_transfer) {
        let targets = targets(scene, sequence, NUM_IMAGES, NUM_IMAGES);
        let Some(rows) = flows(scene, sequence, &targets)? else {
            output.note("no decoder predicts flow or a frame");
            return Ok(());
        };
        let title = format!("Motion of sequence {} on other images", sequence.name);
        output.rows(
            &format!("same_token_{}", sequence.name),
            &title,
            &["frame t", "its own motion", "predicted"],
            &rows,
        )?;
    }
    for source in sources(scene.collected) {
        let own = || scene.collected.visuals.iter().filter(|visual| visual.record.source == source);
        for (index, seed) in own().take(NUM_SEEDS).enumerate() {
            let row = many_sequences(scene, seed, shown)?;
            let title = format!("Motion of several sequences on one image of {source}, its own first");
            let titles: Vec<String> = std::iter::once("frame t".to_owned()).chain(row.1).collect();
            let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
            output.rows(&format!("diff_tokens_{source}_{index}"), &title, &titles, &[row.0])?;
        }
        let candidates: Vec<&Visual> = own().take(MAX_CANDIDATES).collect();
        if let Some((a, b)) = nearest_start(&candidates) {
            let rows = [(a, a), (a, b), (b, b), (b, a)].map(|(image, codes)| swapped(scene, image, codes));
            let rows = rows.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
            let title = format!("Two pairs of {source} that start alike, with their sequences swapped");
            output.rows(
                &format!("similar_start_swap_{source}"),
                &title,
                &["frame t", "its own motion", "predicted"],
                &rows,
            )?;
        }
    }
    Ok(())
}

/// Predicted motion as colors `[N,3,H,W]` of sequences on frames `[N,C,H,W]`; none without a decoder for it.
fn predicted(scene: &Scene<'_>, frames_NCHW: &Tensor, sequences: &[&[i64]]) -> anyhow::Result<Option<Tensor>> {
    let tokens_NSD = tokens_of(scene.model, sequences)?;
    let by_decoder = scene.model.decoders.get("flow").and_then(|decoder| {
        let predictions = no_grad(|| scene.model.predict(&frames_NCHW.unsqueeze(1), &tokens_NSD, &Pass::plain(false)));
        decoder.image(predictions.get("flow")?, frames_NCHW).map(|(_, colors)| colors)
    });
    Ok(by_decoder.or_else(|| {
        let decoded_NCHW = scene.model.predicted_frame(frames_NCHW, &tokens_NSD)?;
        Some(flow_colors(&scene.flow(&Tensor::stack(&[frames_NCHW, &decoded_NCHW], 1))))
    }))
}

/// Images beside their own motion and that of a sequence.
pub(super) fn flows(scene: &Scene<'_>, sequence: &Inspected, targets: &[&Visual]) -> anyhow::Result<Option<Vec<Row>>> {
    if targets.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let frames_NTCHW = frames_of(scene.model, targets);
    let own_NCHW = flow_colors(&scene.flow(&frames_NTCHW));
    let earlier_NCHW = frames_NTCHW.select(1, 0);
    let codes = vec![sequence.codes.as_slice(); targets.len()];
    let Some(predicted_NCHW) = predicted(scene, &earlier_NCHW, &codes)? else { return Ok(None) };
    let row = |(index, target): (usize, &&Visual)| {
        let columns = [&earlier_NCHW, &own_NCHW, &predicted_NCHW];
        let images = columns.iter().map(|images| frame_image(&images.select(0, index as i64)));
        Ok(Row { label: place(target), images: images.collect::<anyhow::Result<_>>()? })
    };
    targets.iter().enumerate().map(row).collect::<anyhow::Result<_>>().map(Some)
}

/// One image with the motion of its own sequence and of others, and their names.
fn many_sequences(scene: &Scene<'_>, seed: &Visual, others: &[Inspected]) -> anyhow::Result<(Row, Vec<String>)> {
    let mut sequences: Vec<&[i64]> = vec![&seed.record.codes];
    sequences.extend(others.iter().map(|other| other.codes.as_slice()).filter(|codes| *codes != seed.record.codes));
    let earlier_1CHW = frames_of(scene.model, &[seed]).select(1, 0);
    let num = sequences.len() as i64;
    let frames_NCHW = earlier_1CHW.repeat([num, 1, 1, 1]);
    let mut images: Vec<FrameImage> = vec![frame_image(&earlier_1CHW.select(0, 0))?];
    if let Some(colors_NCHW) = predicted(scene, &frames_NCHW, &sequences)? {
        for index in 0..num {
            images.push(frame_image(&colors_NCHW.select(0, index))?);
        }
    }
    let names = sequences.iter().map(|codes| crate::validation::sequence_name(codes)).collect();
    Ok((Row { label: place(seed), images }, names))
}

/// An image with its own motion and that of another pair's sequence.
fn swapped(scene: &Scene<'_>, image: &Visual, codes: &Visual) -> anyhow::Result<Row> {
    let frames_1TCHW = frames_of(scene.model, &[image]);
    let own_1CHW = flow_colors(&scene.flow(&frames_1TCHW));
    let earlier_1CHW = frames_1TCHW.select(1, 0);
    let predicted = predicted(scene, &earlier_1CHW, &[&codes.record.codes])?;
    let predicted_1CHW = predicted.unwrap_or_else(|| own_1CHW.ones_like());
    let columns = [&earlier_1CHW, &own_1CHW, &predicted_1CHW];
    let images = columns.iter().map(|images| frame_image(&images.select(0, 0))).collect::<anyhow::Result<_>>()?;
    let label = format!("{}\ncodes {}", place(image), crate::validation::sequence_name(&codes.record.codes));
    Ok(Row { label, images })
}

/// The two pairs with different sequences whose start states are nearest.
fn nearest_start<'a>(candidates: &[&'a Visual]) -> Option<(&'a Visual, &'a Visual)> {
    let mut best: Option<(f64, (&Visual, &Visual))> = None;
    for (index, a) in candidates.iter().copied().enumerate() {
        for b in candidates[index + 1..].iter().copied().filter(|b| b.record.codes != a.record.codes) {
            let (Some(x), Some(y)) = (&a.record.state, &b.record.state) else { continue };
            let distance: f64 = x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum();
            if best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, (a, b)));
            }
        }
    }
    best.map(|(_, pair)| pair)
}
