//! The expert policy with prefix and suffix in one forward pass, every layer written out: the form in which LeRobot trains.
//!
//! `hlrp-vla` runs the prefix once and lets any number of suffixes read its keys and values, which must give the same velocities for less
//! work. This form is built from the model's tensors and description alone.
//!
//! Shape suffixes: B samples, P prefix tokens, S suffix tokens, L = P + S tokens of both streams, D width of the text model or dimensions of
//! a flow variable, X width of the expert, A query heads, G key/value heads, E width of a head, C = A·E.

use anyhow::Context;
use hlrp_nn::llama::{LlamaLayer, LlamaLayerConfig, LlamaStack, RmsNorm, Rope, additive_mask, attend};
use hlrp_nn::{Linear, Pass, Scope, Store, Trace};
use hlrp_schema::policy::ModelSpec;
use hlrp_vla::flow::embed_time;
use hlrp_vla::{Architecture, ExpertModel, HeadKind, Observation, block_mask, positions};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Longest wavelength of the rotary positions of both streams.
const ROPE_WAVELENGTH: f64 = 10_000.0;

/// The velocity `[B,S,D]` at `x_BSD`. Records the prefix as the model does, then every layer of both streams as `vlm.layer{i}.*` and
/// `expert.layer{i}.*`.
///
/// # Errors
/// An observation that does not fit the model, or a head that it lacks.
pub fn joint_velocity(
    model: &ExpertModel,
    observation: &Observation,
    kind: HeadKind,
    x_BSD: &Tensor,
    time_B: &Tensor,
    pass: &Pass<'_>,
) -> anyhow::Result<Tensor> {
    let streams = Streams::of(model)?;
    let prefix = Prefix::of(model, observation, pass)?;
    let head = match kind {
        HeadKind::Action => "action",
        HeadKind::Latent => "latent",
    };
    let tokens_BSX = suffix_tokens(model, head, x_BSD, time_B, pass)?;
    let out_BSX = streams.forward(&prefix, &tokens_BSX, pass);
    Ok(linear(model, &format!("model.{head}_out_proj"))?.forward(&out_BSX))
}

/// Noisy steps `[B,S,D]` at times `[B]` as tokens `[B,S,X]` of the expert.
fn suffix_tokens(
    model: &ExpertModel,
    head: &str,
    x_BSD: &Tensor,
    time_B: &Tensor,
    pass: &Pass<'_>,
) -> anyhow::Result<Tensor> {
    let steps_BSX = linear(model, &format!("model.{head}_in_proj"))?.forward(x_BSD);
    let expert_dim = steps_BSX.size()[2];
    let time_BSX = embed_time(&model.spec().flow, time_B, expert_dim).unsqueeze(1).expand_as(&steps_BSX);
    let [mlp_in, mlp_out] = ["in", "out"].map(|side| linear(model, &format!("model.action_time_mlp_{side}")));
    let tokens_BSX = mlp_out?.forward(&mlp_in?.forward(&Tensor::cat(&[steps_BSX, time_BSX], 2)).silu());
    pass.record(|| "suffix_embeddings".into(), &tokens_BSX);
    Ok(tokens_BSX)
}

/// The model's linear map of this name.
fn linear(model: &ExpertModel, name: &str) -> anyhow::Result<Linear> {
    let tensors: BTreeMap<String, Tensor> = model.store().state().into_iter().collect();
    let weight = tensors.get(&format!("{name}.weight")).with_context(|| format!("the model has no {name}"))?;
    let (out_dim, in_dim) = weight.size2()?;
    let store = Store::over(tensors.into_iter().collect());
    Ok(Linear::new(&scope_of(&store, name), in_dim, out_dim, true))
}

fn scope_of<'a>(store: &'a Store, name: &str) -> Scope<'a> {
    store.root().child(name)
}

/// The prefix of a batch.
struct Prefix {
    x_BPD: Tensor,
    is_valid_BP: Tensor,
    opens_block_BP: Tensor,
}

impl Prefix {
    /// As the model embeds it, from its records.
    fn of(model: &ExpertModel, observation: &Observation, pass: &Pass<'_>) -> anyhow::Result<Self> {
        let trace = Trace::default();
        model.prefill(observation, &Pass { train: pass.train, trace: Some(&trace) })?;
        let mut records = BTreeMap::new();
        for (name, tensor) in trace.into_records() {
            if !name.starts_with("cache.") {
                pass.record(|| name.clone(), &tensor);
                records.insert(name, tensor);
            }
        }
        let mut take = |name: &str| records.remove(name).with_context(|| format!("the model records no {name}"));
        Ok(Self {
            x_BPD: take("prefix_embeddings")?,
            is_valid_BP: take("prefix_pad_mask")?,
            opens_block_BP: take("prefix_block_flags")?,
        })
    }
}

/// What the expert does at a layer of the backbone; the index is the expert layer's.
enum Role {
    /// Attends with the backbone over one sequence.
    Joint(usize),
    /// Attends to the backbone's keys and values.
    Cross(usize),
    /// Has no layer here.
    Absent,
}

/// The layers of backbone and expert.
struct Streams {
    backbone: LlamaStack,
    expert: Vec<LlamaLayer>,
    expert_norm: RmsNorm,
    roles: Vec<Role>,
    head_dim: i64,
}

impl Streams {
    fn of(model: &ExpertModel) -> anyhow::Result<Self> {
        let (spec, own): (&ModelSpec, _) = (model.spec(), model.own());
        let sizes = spec.backbone.sizes()?;
        let text = &sizes.text;
        let store = Store::over(model.store().state().into_iter().collect());
        let scope = scope_of(&store, "model.vlm_with_expert");
        let expert = scope.child("lm_expert");
        let layer = |index: i64| {
            let is_joint = index % own.self_attn_every_n_layers == 0;
            let config = LlamaLayerConfig {
                dim: own.dim(sizes),
                mlp_dim: own.mlp_dim(sizes),
                num_heads: text.num_attention_heads,
                num_kv_heads: text.num_key_value_heads,
                head_dim: text.head_dim,
                kv_in_dim: if is_joint { own.dim(sizes) } else { text.num_key_value_heads * text.head_dim },
                norm_eps: text.rms_norm_eps,
            };
            LlamaLayer::new(&expert.child("layers").child(index), &config)
        };
        let num_expert_layers = own.num_layers(text.num_hidden_layers);
        let spacing = text.num_hidden_layers / num_expert_layers;
        let role = |index: i64| match (index % spacing, index % own.self_attn_every_n_layers) {
            (0, 0) => Role::Joint((index / spacing) as usize),
            (0, _) => Role::Cross((index / spacing) as usize),
            _ => Role::Absent,
        };
        Ok(Self {
            expert: (0..num_expert_layers).map(layer).collect(),
            expert_norm: RmsNorm::new(&expert.child("norm"), own.dim(sizes), text.rms_norm_eps),
            roles: (0..text.num_hidden_layers).map(role).collect(),
            head_dim: text.head_dim,
            backbone: LlamaStack::new(&scope.child("vlm.model.text_model"), text),
        })
    }

    /// Runs both streams; returns the expert's after its final norm, `[B,S,X]`.
    fn forward(&self, prefix: &Prefix, suffix_BSX: &Tensor, pass: &Pass<'_>) -> Tensor {
        let (num_prefix, num_suffix) = (prefix.is_valid_BP.size()[1], suffix_BSX.size()[1]);
        let ones_BS = suffix_BSX.select(2, 0).ones_like();
        let suffix_valid_BS = ones_BS.to_kind(Kind::Bool);
        let suffix_opens_BS = ones_BS.to_kind(Kind::Int64);
        let is_valid_BL = Tensor::cat(&[&prefix.is_valid_BP, &suffix_valid_BS], 1);
        let opens_block_BL = Tensor::cat(&[&prefix.opens_block_BP, &suffix_opens_BS], 1);
        let allowed_BLL = block_mask(&is_valid_BL, &opens_block_BL);
        let positions_BL = positions(&is_valid_BL);
        for (name, tensor) in [
            ("suffix_pad_mask", &suffix_valid_BS),
            ("suffix_block_flags", &suffix_opens_BS),
            ("attention_mask", &allowed_BLL),
            ("position_ids", &positions_BL),
        ] {
            pass.record(|| name.into(), tensor);
        }

        let suffix_positions_BS = positions_BL.narrow(1, num_prefix, num_suffix);
        let from_zero_BS = &suffix_positions_BS - suffix_positions_BS.amin([1].as_slice(), true);
        let rope = Rope::new(&positions_BL, self.head_dim, ROPE_WAVELENGTH);
        let prefix_rope = Rope::new(&positions_BL.narrow(1, 0, num_prefix), self.head_dim, ROPE_WAVELENGTH);
        let cross_rope = Rope::new(&from_zero_BS, self.head_dim, ROPE_WAVELENGTH);
        let joint_mask = additive_mask(&allowed_BLL);
        let to_prefix_BLP = allowed_BLL.narrow(2, 0, num_prefix);
        let prefix_mask = additive_mask(&to_prefix_BLP.narrow(1, 0, num_prefix));
        let cross_mask = additive_mask(&to_prefix_BLP.narrow(1, num_prefix, num_suffix));

        let mut x_BPD = prefix.x_BPD.shallow_clone();
        let mut x_BSX = suffix_BSX.shallow_clone();
        for (index, (layer, role)) in self.backbone.layers().iter().zip(&self.roles).enumerate() {
            pass.record(|| format!("vlm.layer{index}.in"), &x_BPD);
            let normed_BPD = layer.input_norm(&x_BPD);
            let [q_BAPE, k_BGPE, v_BGPE] =
                [layer.queries(&normed_BPD), layer.keys(&normed_BPD), layer.values(&normed_BPD)];
            let own = match *role {
                Role::Joint(own) => {
                    let (own_layer, normed_BSX) = (&self.expert[own], self.expert[own].input_norm(&x_BSX));
                    let both = |prefix: &Tensor, suffix: &Tensor| Tensor::cat(&[prefix, suffix], 2);
                    let q_BALE = rope.rotate(&both(&q_BAPE, &own_layer.queries(&normed_BSX)));
                    let k_BGLE = rope.rotate(&both(&k_BGPE, &own_layer.keys(&normed_BSX)));
                    let v_BGLE = both(&v_BGPE, &own_layer.values(&normed_BSX));
                    let attended_BLC = attend(&q_BALE, &k_BGLE, &v_BGLE, Some(&joint_mask));
                    Some((own, attended_BLC.narrow(1, 0, num_prefix), attended_BLC.narrow(1, num_prefix, num_suffix)))
                }
                Role::Cross(own) => {
                    let k_BGPE = prefix_rope.rotate(&k_BGPE);
                    let attended_BPC = attend(&prefix_rope.rotate(&q_BAPE), &k_BGPE, &v_BGPE, Some(&prefix_mask));
                    let merged = |x_BGPE: &Tensor| x_BGPE.transpose(1, 2).flatten(2, 3);
                    let own_layer = &self.expert[own];
                    let (own_k_BGPE, own_v_BGPE) =
                        (own_layer.keys(&merged(&k_BGPE)), own_layer.values(&merged(&v_BGPE)));
                    let q_BASE = cross_rope.rotate(&own_layer.queries(&own_layer.input_norm(&x_BSX)));
                    Some((own, attended_BPC, attend(&q_BASE, &own_k_BGPE, &own_v_BGPE, Some(&cross_mask))))
                }
                Role::Absent => None,
            };
            let attended_BPC = match own {
                Some((own, attended_BPC, attended_BSC)) => {
                    pass.record(|| format!("expert.layer{index}.in"), &x_BSX);
                    pass.record(|| format!("expert.layer{index}.attention"), &attended_BSC);
                    x_BSX = self.expert[own].finish(&x_BSX, &attended_BSC);
                    attended_BPC
                }
                None => attend(&prefix_rope.rotate(&q_BAPE), &prefix_rope.rotate(&k_BGPE), &v_BGPE, Some(&prefix_mask)),
            };
            pass.record(|| format!("vlm.layer{index}.attention"), &attended_BPC);
            x_BPD = layer.finish(&x_BPD, &attended_BPC);
        }
        pass.record(|| "vlm.last".into(), &x_BPD);
        pass.record(|| "vlm.normed".into(), &self.backbone.norm().forward(&x_BPD));
        pass.record(|| "expert.last".into(), &x_BSX);
        let out_BSX = self.expert_norm.forward(&x_BSX);
        pass.record(|| "expert.normed".into(), &out_BSX);
        out_BSX
    }
}
