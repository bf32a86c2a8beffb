//! How well the actions of held-out episodes can be read from the latents, beside floors and ceilings.

use super::Scene;
use super::output::Output;
use crate::probes;

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let (batch_size, num_pairs) = (scene.batch_size, scene.config.num_probe_pairs);
    let Some(found) = probes::probe(scene.model, scene.data, &scene.request, batch_size, num_pairs)? else {
        output.note("nothing can be fitted: not every source has actions, or there are too few episodes");
        return Ok(());
    };
    output.note(found.note);
    output.json("probes", &found.rows)?;
    output.table(found.table);
    Ok(())
}
