//! Forward passes, gradients and refresh of the whole model.

use crate::case::{Case, schedule};
use crate::compare::{Comparison, Tolerance};
use crate::draws::RecordedDraws;
use crate::relu_sides;
use anyhow::Context;
use hlrp_laq::{
    CODEBOOK, Codes, FlowTeacher, LaqModel, Parts, RaftTeacher, RefreshSchedule, TrainContext, TrainStep, eval_step,
    load_teachers, raft_size, train_step, unit_frames, weight_at,
};
use hlrp_nn::{Pass, Trace};
use hlrp_torch::World;
use std::collections::BTreeMap;
use tch::{Tensor, no_grad};

/// What the reference shares and this model copies for decoders.
const COPIES: [(&str, &str); 3] = [
    ("aux_rel_pos_bias.", "spatial_rel_pos_bias."),
    ("aux_context_projection.", "pixel_projection."),
    ("decoder_context_projection.", "pixel_projection."),
];

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let frames = unit_frames(&case.input("video_u8")?.permute([0, 2, 1, 3, 4]).contiguous());
    training(case, &frames, comparison)?;
    evaluation(case, &frames, comparison)?;
    refresh(case, &frames, comparison)?;
    schedules(case, comparison)?;
    flow(case, &frames, comparison)
}

/// What the flow's weight does, and what its teacher sees.
fn flow(case: &Case, frames: &Tensor, comparison: &mut Comparison) -> anyhow::Result<()> {
    let config = case.model_config()?;
    let Some(flow) = config.decoders.flow.as_ref().filter(|flow| flow.enabled) else { return Ok(()) };
    let teacher = RaftTeacher::load(
        raft_size(flow.teacher).context("the teacher is no RAFT")?,
        flow.teacher_weights.as_deref().context("no weights")?,
        flow.teacher_num_updates,
        flow.teacher_chunk_size,
        case.device(),
    )?;
    comparison.check("teacher_flow", &case.forward_pass(|| teacher.flow(frames))?, Tolerance::Forward);
    let weight = |step: u64| weight_at(&flow.shared(), Some(step));
    comparison.check(
        "metric.flow_weight",
        &Tensor::from(weight(integer(case.input("train.step")?)?)),
        Tolerance::Forward,
    );
    comparison.check("step0.flow_weight", &Tensor::from(weight(0)), Tolerance::Forward);
    if let Some(steps) = case.outputs.get("warmup.steps") {
        let steps = Vec::<i64>::try_from(steps)?;
        let weights: Vec<f64> = steps.iter().map(|step| weight(step.unsigned_abs())).collect();
        comparison.check("warmup.weights", &Tensor::from_slice(&weights), Tolerance::Formula);
        comparison.check("warmup.steps", &Tensor::from_slice(&steps), Tolerance::Forward);
    }
    let mut model = model(case, false)?;
    let mut draws = draws(case, "step0");
    let (world, pass) = (World::single(), Pass::plain(true));
    let step = case.forward_pass(|| train_step(&mut model, frames, 0, &world, &mut draws, &pass))??;
    comparison.check("step0.loss", &step.loss, Tolerance::Forward);
    Ok(())
}

/// The case's model; `refreshes` as its schedule says, or never.
fn model(case: &Case, refreshes: bool) -> anyhow::Result<LaqModel> {
    let mut config = case.model_config()?;
    if let Some(nsvq) = config.quantizer.nsvq.as_mut().filter(|_| !refreshes) {
        nsvq.refresh_schedule.clear();
    }
    let mut model = LaqModel::new(&config, Parts::All, case.device());
    case.load_model(model.store())?;
    load_teachers(&mut model)?;
    Ok(model)
}

fn codes(model: &LaqModel) -> anyhow::Result<&dyn Codes> {
    model.quantizer.codes().context("the model has no codes")
}

fn integer(tensor: &Tensor) -> anyhow::Result<u64> {
    Ok(u64::try_from(tensor.int64_value(&[]))?)
}

fn draws(case: &Case, pass: &str) -> RecordedDraws {
    let recorded = |what: &str| case.inputs.get(&format!("{pass}.{what}"));
    RecordedDraws::default().normal(recorded("vq_noise")).normal(recorded("randn")).permutation(recorded("randperm"))
}

fn training(case: &Case, frames: &Tensor, comparison: &mut Comparison) -> anyhow::Result<()> {
    let mut model = model(case, false)?;
    if comparison.is_rounded() {
        let (_, records) = traced_step(case, &mut self::model(case, false)?, frames)?;
        relu_sides::restore(case, &model, &records.into_iter().collect())?;
    }
    let (step, records) = traced_step(case, &mut model, frames)?;
    for (name, tensor) in records {
        check_record(comparison, &name, &tensor);
    }
    comparison.check("vq.indices", step.ids_BS.as_ref().context("no codes")?, Tolerance::Forward);
    comparison.check("vq.usage_after", codes(&model)?.usage().window(), Tolerance::Forward);
    comparison.check("loss.total", &step.loss, Tolerance::Forward);
    for (name, loss) in model.decoders.metrics(&step.losses) {
        comparison.check(&format!("loss.{}", name.trim_end_matches("_loss")), &loss, Tolerance::Forward);
    }
    check_metrics(comparison, "metric", &step);
    step.loss.backward();
    check_gradients(case, &model, comparison);
    Ok(())
}

/// The recorded training step, with its intermediate results.
fn traced_step(
    case: &Case,
    model: &mut LaqModel,
    frames: &Tensor,
) -> anyhow::Result<(TrainStep, Vec<(String, Tensor)>)> {
    let trace = Trace::default();
    let pass = Pass { train: true, trace: Some(&trace) };
    let number = integer(case.input("train.step")?)?;
    let (world, mut draws) = (World::single(), draws(case, "train"));
    let step = case.forward_pass(|| train_step(model, frames, number, &world, &mut draws, &pass))??;
    Ok((step, trace.into_records()))
}

/// Brings a record to the reference's order of elements.
fn check_record(comparison: &mut Comparison, name: &str, tensor: &Tensor) {
    if name == "tokens" {
        for frame in 0..2 {
            comparison.check(&format!("tokens.frame{frame}"), &tensor.select(1, frame), Tolerance::Forward);
        }
    } else if name.starts_with("enc_temporal.") {
        comparison.check(name, &tensor.permute([0, 2, 3, 1, 4]), Tolerance::Forward);
    } else {
        comparison.check(name, tensor, Tolerance::Forward);
    }
}

fn check_metrics(comparison: &mut Comparison, prefix: &str, step: &TrainStep) {
    for (name, value) in &step.metrics {
        comparison.check(&format!("{prefix}.{name}"), value, Tolerance::Forward);
    }
}

fn check_gradients(case: &Case, model: &LaqModel, comparison: &mut Comparison) {
    let parameters = model.store().parameters();
    let mut gradients: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, parameter) in &parameters {
        let shared =
            COPIES.iter().find_map(|(copy, original)| name.strip_prefix(copy).map(|rest| format!("{original}{rest}")));
        let gradient = parameter.grad();
        let name = shared.unwrap_or_else(|| name.clone());
        let sum = gradients.get(&name).map_or_else(|| gradient.copy(), |sum| sum + &gradient);
        gradients.insert(name, sum);
    }
    let last_bias =
        parameters.iter().rev().map(|(name, _)| name.as_str()).find(|name| name.starts_with("vq.cnn_encoder"));
    let is_zero = |name: &str| name == "spatial_rel_pos_bias.net.2.bias" || Some(name) == last_bias;
    let norms: Vec<Tensor> = gradients.values().map(Tensor::norm).collect();
    comparison.check("grad.TOTAL_NORM", &Tensor::stack(&norms, 0).norm(), Tolerance::Gradient);
    for (name, gradient) in &gradients {
        let tolerance = if is_zero(name) { Tolerance::Zero } else { Tolerance::Gradient };
        comparison.check(&format!("grad.{name}"), gradient, tolerance);
    }
    let Some(recorded) = case.scalars["grad.l2_by_parameter"].as_object() else { return };
    for (name, norm) in recorded {
        let label = format!("grad.l2_by_parameter.{name}");
        match (gradients.get(name), norm.as_f64()) {
            (Some(gradient), Some(norm)) => {
                let tolerance = if is_zero(name) { Tolerance::Zero } else { Tolerance::Gradient };
                comparison.check_number(&label, gradient.norm().double_value(&[]), norm, tolerance);
            }
            // What the reference registers and never reads: empty null keys, and the context norm of self-attention.
            (None, norm) => {
                let unused = norm.is_none() || norm == Some(0.0);
                comparison.meant_difference(&label, unused, "has a gradient in the reference and does not exist here");
                let name = format!("grad.{name}");
                if comparison.holds(&name) {
                    comparison.meant_difference(
                        &name,
                        case.outputs[&name].numel() == 0,
                        "is not empty and does not exist here",
                    );
                }
            }
            (Some(_), None) => comparison.meant_difference(&label, false, "gets no gradient in the reference"),
        }
    }
}

fn evaluation(case: &Case, frames: &Tensor, comparison: &mut Comparison) -> anyhow::Result<()> {
    let mut model = model(case, false)?;
    let evaluation = case.forward_pass(|| eval_step(&model, frames))?;
    let ids_BS = evaluation.latent.ids_BS.context("no codes")?;
    comparison.check("ids_only", &ids_BS, Tolerance::Forward);
    comparison.check("inference.ids", &ids_BS, Tolerance::Forward);
    comparison.check("inference.before_project_out", &codes(&model)?.vectors(&ids_BS), Tolerance::Forward);
    comparison.check("inference.action_tokens", &evaluation.action_tokens_BSD, Tolerance::Forward);
    let Some(aux) = evaluation.predictions.get("aux") else { return Ok(()) };
    comparison.check("inference.recons", aux, Tolerance::Forward);

    // The reference reconstructs from noisy vectors; here evaluation has none, so the pass is put together by hand.
    let pass = Pass::plain(false);
    let noisy = if case.inputs.contains_key("recons.vq_noise") {
        let (world, mut draws) = (World::single(), draws(case, "recons"));
        let mut context = TrainContext { step: 0, world: &world, draws: &mut draws, pass: &pass };
        let change_BSQ = &evaluation.encoded.change_BSQ;
        let noisy = case.forward_pass(|| no_grad(|| model.quantizer.train_pass(change_BSQ, &mut context)))??;
        Some(noisy.latent.vectors_BSQ)
    } else {
        None
    };
    let aux_of = |vectors: &Tensor| {
        let predictions = case.forward_pass(|| {
            let tokens = model.bottleneck.action_tokens(vectors);
            no_grad(|| model.predict(&frames.narrow(1, 0, 1), &tokens, &pass))
        })?;
        predictions.get("aux").map(Tensor::shallow_clone).context("no aux decoder")
    };
    if let Some(noisy) = noisy {
        comparison.check("recons_only", &aux_of(&noisy)?, Tolerance::Forward);
    }

    let forced = |ids: &Tensor| aux_of(&codes(&model)?.vectors(&ids.view_as(&ids_BS)));
    if let Some(ids) = case.outputs.get("inference.user_list") {
        comparison.check("inference.user_list", ids, Tolerance::Forward);
        comparison.check("inference.user_list.recons", &forced(ids)?, Tolerance::Forward);
    }
    if let Some(id) = case.config["inference_user_int"].as_i64() {
        comparison.check("inference.user_int.recons", &forced(&ids_BS.full_like(id))?, Tolerance::Forward);
    }
    Ok(())
}

fn refresh(case: &Case, frames: &Tensor, comparison: &mut Comparison) -> anyhow::Result<()> {
    let Some(step) = case.inputs.get("replace.step") else { return Ok(()) };
    let mut model = model(case, true)?;
    let codebook_name = format!("{}.{}", LaqModel::QUANTIZER, CODEBOOK);
    let parameters = model.store().parameters();
    let codebook = &parameters.iter().find(|(name, _)| *name == codebook_name).context("no codebook")?.1;
    comparison.check("replace.codebooks_before", codebook, Tolerance::Forward);
    // The batch permutation of an ablated forward pass is recorded once, under the name of the first pass.
    let mut draws = draws(case, "replace").permutation(case.inputs.get("train.randperm"));
    let (number, world, pass) = (integer(step)?, World::single(), Pass::plain(true));
    let result = case.forward_pass(|| train_step(&mut model, frames, number, &world, &mut draws, &pass))??;
    let counts =
        result.ids_BS.as_ref().context("no codes")?.reshape([-1]).bincount::<Tensor>(None, model.dims().codebook_size);
    comparison.check("replace.usage_before", &counts, Tolerance::Forward);
    comparison.check("replace.usage_after", codes(&model)?.usage().window(), Tolerance::Forward);
    comparison.check("replace.codebooks_after", codebook, Tolerance::Forward);
    comparison.check("replace.loss", &result.loss, Tolerance::Forward);
    check_metrics(comparison, "replace.metric", &result);
    Ok(())
}

fn schedules(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let Some(entries) = case.config["schedules"].as_object() else { return Ok(()) };
    for (name, entry) in entries {
        let key = format!("schedule.{name}");
        let Some(bits) = case.outputs.get(&key) else { continue };
        let schedule = RefreshSchedule::new(&schedule(entry)?);
        let due: Vec<i64> = (0..bits.size()[0]).map(|step| i64::from(schedule.is_due(step.unsigned_abs()))).collect();
        comparison.check(&key, &Tensor::from_slice(&due), Tolerance::Forward);
    }
    Ok(())
}
