//! The interleaved layers of backbone and expert.
//!
//! The backbone's stream (the prefix) never sees the expert's (the suffix). So the prefix runs once and its keys and values are kept;
//! any number of suffixes reads them: the losses of one batch, or the steps of a sampler.
//!
//! In a joint layer the suffix attends to the prefix and itself. In a cross layer it attends to the prefix alone, through the expert's own
//! projections of the backbone's keys and values; those do not depend on the suffix either and are computed with the prefix.
//!
//! Shape suffixes: B samples, P prefix tokens, S suffix tokens, K = P + S, D width of the text model, X width of the expert, A query heads,
//! G key/value heads, E width of a head.

use super::prefix::Prefix;
use crate::masks;
use hlrp_nn::llama::{KvCache, LlamaLayer, LlamaLayerConfig, LlamaStack, RmsNorm, Rope, additive_mask, attend};
use hlrp_nn::{Pass, Scope};
use hlrp_schema::policy::{BackboneSizes, ExpertSpec};
use tch::{Device, Kind, Tensor};

/// Longest wavelength of the rotary positions of both streams (the text model alone uses another one).
pub(crate) const ROPE_WAVELENGTH: f64 = 10_000.0;

/// What the expert does at one layer of the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpertRole {
    /// Attends with the backbone over one sequence; the expert layer's index.
    Joint(usize),
    /// Attends to the backbone's keys and values; the expert layer's index.
    Cross(usize),
    /// Has no layer here.
    Absent,
}

/// What the expert does at each of `num_text_layers` layers of the backbone.
fn roles(spec: &ExpertSpec, num_text_layers: i64) -> Vec<ExpertRole> {
    let spacing = num_text_layers / spec.num_layers(num_text_layers);
    (0..num_text_layers)
        .map(|layer| match (layer % spacing, layer % spec.self_attn_every_n_layers, (layer / spacing) as usize) {
            (0, 0, index) => ExpertRole::Joint(index),
            (0, _, index) => ExpertRole::Cross(index),
            _ => ExpertRole::Absent,
        })
        .collect()
}

/// The last layer of the backbone whose keys and values the expert reads; the layers' outputs from there on reach no loss.
pub(crate) fn last_layer_read(roles: &[ExpertRole]) -> usize {
    roles.iter().rposition(|role| *role != ExpertRole::Absent).unwrap_or(0)
}

/// The expert's layers and which of the backbone's they belong to.
pub(crate) struct ExpertStack {
    pub(crate) layers: Vec<LlamaLayer>,
    pub(crate) norm: RmsNorm,
    pub(crate) roles: Vec<ExpertRole>,
    pub(crate) head_dim: i64,
}

/// What the suffix reads of one layer of the backbone.
enum LayerMemory {
    /// Expert layer, keys and values of a joint layer.
    Joint(usize, [Tensor; 2]),
    /// Expert layer, its projections of the backbone's keys and values.
    Cross(usize, [Tensor; 2]),
}

/// What the suffixes of a prefix read of it.
pub struct PrefixMemory {
    layers: Vec<LayerMemory>,
    is_valid_BP: Tensor,
}

impl ExpertStack {
    /// Registers `layers.N` and `norm`.
    pub(crate) fn new(scope: &Scope<'_>, spec: &ExpertSpec, sizes: &BackboneSizes) -> Self {
        let text = &sizes.text;
        let expert_dim = spec.dim(sizes);
        let layer = |index: i64| {
            let crosses = index % spec.self_attn_every_n_layers != 0;
            let layer_config = LlamaLayerConfig {
                dim: expert_dim,
                mlp_dim: spec.mlp_dim(sizes),
                num_heads: text.num_attention_heads,
                num_kv_heads: text.num_key_value_heads,
                head_dim: text.head_dim,
                kv_in_dim: if crosses { text.num_key_value_heads * text.head_dim } else { expert_dim },
                norm_eps: text.rms_norm_eps,
            };
            LlamaLayer::new(&scope.child("layers").child(index), &layer_config)
        };
        Self {
            layers: (0..spec.num_layers(text.num_hidden_layers)).map(layer).collect(),
            norm: RmsNorm::new(&scope.child("norm"), expert_dim, text.rms_norm_eps),
            roles: roles(spec, text.num_hidden_layers),
            head_dim: text.head_dim,
        }
    }

    /// Runs the prefix through the backbone.
    ///
    /// Stops at the last layer that the expert reads, of which only keys and values are needed. A watched pass goes on to the end and
    /// records every layer's keys and values.
    pub(crate) fn prefill(&self, backbone: &LlamaStack, prefix: &Prefix, pass: &Pass<'_>) -> PrefixMemory {
        let mut parts = PrefixPart::all(prefix, self.head_dim);
        let last_read = last_layer_read(&self.roles);
        let mut layers = Vec::new();
        for (index, (layer, role)) in backbone.layers().iter().zip(&self.roles).enumerate() {
            let needs_output = index < last_read || pass.trace.is_some();
            let [k_BGPE, v_BGPE] = run_layer(layer, &mut parts, needs_output);
            pass.record(|| format!("cache.layer{index}.keys"), &k_BGPE);
            pass.record(|| format!("cache.layer{index}.values"), &v_BGPE);
            match *role {
                ExpertRole::Cross(own) => layers.push(LayerMemory::Cross(own, self.project(own, &k_BGPE, &v_BGPE))),
                ExpertRole::Joint(own) => layers.push(LayerMemory::Joint(own, [k_BGPE, v_BGPE])),
                ExpertRole::Absent => {}
            }
            if !needs_output {
                break;
            }
        }
        PrefixMemory { layers, is_valid_BP: prefix.is_valid_BP.shallow_clone() }
    }

    /// The keys and values `[B,G,P,E]` that cross layer `own` of the expert makes of the backbone's.
    pub(crate) fn project(&self, own: usize, k_BGPE: &Tensor, v_BGPE: &Tensor) -> [Tensor; 2] {
        let merged = |x_BGPE: &Tensor| x_BGPE.transpose(1, 2).flatten(2, 3);
        [self.layers[own].keys(&merged(k_BGPE)), self.layers[own].values(&merged(v_BGPE))]
    }

    /// Runs suffix tokens `[B,S,X]` over a prefix, to `[B,S,X]` after the final norm.
    pub(crate) fn denoise(&self, reader: &SuffixReader<'_>, tokens_BSX: &Tensor, pass: &Pass<'_>) -> Tensor {
        let mut x_BSX = tokens_BSX.shallow_clone();
        let mut num_joint = 0;
        for memory in &reader.memory.layers {
            let attended_BSC = match memory {
                LayerMemory::Joint(own, prefix) => {
                    let (layer, normed_BSX) = (&self.layers[*own], self.layers[*own].input_norm(&x_BSX));
                    let q_BASE = reader.joint_rope.rotate(&layer.queries(&normed_BSX));
                    let k_BGSE = reader.joint_rope.rotate(&layer.keys(&normed_BSX));
                    let [k_BGKE, v_BGKE] = reader.after_prefix(num_joint, prefix, &k_BGSE, &layer.values(&normed_BSX));
                    num_joint += 1;
                    attend(&q_BASE, &k_BGKE, &v_BGKE, Some(&reader.joint_mask))
                }
                LayerMemory::Cross(own, [k_BGPE, v_BGPE]) => {
                    let layer = &self.layers[*own];
                    let q_BASE = reader.cross_rope.rotate(&layer.queries(&layer.input_norm(&x_BSX)));
                    attend(&q_BASE, k_BGPE, v_BGPE, Some(&reader.cross_mask))
                }
            };
            x_BSX = self.layers[memory.expert_layer()].finish(&x_BSX, &attended_BSC);
        }
        let out_BSX = self.norm.forward(&x_BSX);
        pass.record(|| "expert.normed".into(), &out_BSX);
        out_BSX
    }
}

/// A part of the prefix on its way through the backbone: it sees itself and the parts before it.
struct PrefixPart {
    x_BND: Tensor,
    rope: Rope,
    mask: Tensor,
}

impl PrefixPart {
    fn all(prefix: &Prefix, head_dim: i64) -> Vec<Self> {
        let (positions_BP, allowed_BPP) = (masks::positions(&prefix.is_valid_BP), prefix.mask());
        let mut start = 0;
        let mut part = |x_BND: Tensor| {
            let length = x_BND.size()[1];
            let rope = Rope::new(&positions_BP.narrow(1, start, length), head_dim, ROPE_WAVELENGTH);
            let mask = additive_mask(&allowed_BPP.narrow(1, start, length).narrow(2, 0, start + length));
            start += length;
            Self { x_BND, rope, mask }
        };
        prefix.parts().into_iter().map(&mut part).collect()
    }
}

/// Moves every part through one layer of the backbone, if its output is needed; returns the keys and values `[B,G,P,E]` of all of them.
fn run_layer(layer: &LlamaLayer, parts: &mut [PrefixPart], needs_output: bool) -> [Tensor; 2] {
    let mut seen: Option<[Tensor; 2]> = None;
    for part in parts {
        let normed_BND = layer.input_norm(&part.x_BND);
        let own = [part.rope.rotate(&layer.keys(&normed_BND)), layer.values(&normed_BND)];
        let [k_BGME, v_BGME] = match seen {
            None => own,
            Some([k_BGME, v_BGME]) => [Tensor::cat(&[&k_BGME, &own[0]], 2), Tensor::cat(&[&v_BGME, &own[1]], 2)],
        };
        if needs_output {
            let q_BANE = part.rope.rotate(&layer.queries(&normed_BND));
            part.x_BND = layer.finish(&part.x_BND, &attend(&q_BANE, &k_BGME, &v_BGME, Some(&part.mask)));
        }
        seen = Some([k_BGME, v_BGME]);
    }
    seen.expect("a prefix has at least one part")
}

impl LayerMemory {
    fn expert_layer(&self) -> usize {
        match self {
            Self::Joint(own, _) | Self::Cross(own, _) => *own,
        }
    }
}

/// How suffixes of one layout read a prefix: positions and masks, computed once for all steps of a sampler.
pub(crate) struct SuffixReader<'a> {
    memory: &'a PrefixMemory,
    joint_rope: Rope,
    cross_rope: Rope,
    joint_mask: Tensor,
    cross_mask: Tensor,
    /// Keys and values of the joint layers with room for the suffix, when no gradient is wanted.
    room: Option<KvCache>,
}

/// Whether a suffix is differentiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Keys and values are concatenated: every suffix has its own.
    Once,
    /// One static buffer per joint layer is overwritten by each suffix. No gradient flows.
    Repeatedly,
}

/// Where the tokens of a suffix are, and which of them see each other.
pub(crate) struct SuffixLayout {
    /// Position of the first token after the prefix.
    pub(crate) first_position: i64,
    /// `bool [S,S]` or `[B,S,S]`: query × key.
    pub(crate) is_seen: Tensor,
}

impl SuffixLayout {
    /// Each token sees itself and those before it.
    pub(crate) fn causal(first_position: i64, num_tokens: i64, device: Device) -> Self {
        Self { first_position, is_seen: masks::causal(num_tokens, device) }
    }
}

impl<'a> SuffixReader<'a> {
    pub(crate) fn new(memory: &'a PrefixMemory, layout: &SuffixLayout, head_dim: i64, reading: Reading) -> Self {
        let is_valid_BP = &memory.is_valid_BP;
        let (size, device) = (is_valid_BP.size(), is_valid_BP.device());
        let (first, num_suffix) = (layout.first_position, layout.is_seen.size()[layout.is_seen.dim() - 1]);
        let step_S = Tensor::arange_start(first, first + num_suffix, (Kind::Int64, device));
        let num_valid_B1 = is_valid_BP.sum_dim_intlist([1].as_slice(), true, Kind::Int64);
        let prefix_BSP = is_valid_BP.unsqueeze(1).expand([size[0], num_suffix, size[1]], false);
        let is_seen_BSS = layout.is_seen.expand([size[0], num_suffix, num_suffix], false);
        Self {
            memory,
            joint_rope: Rope::new(&(num_valid_B1 + step_S.unsqueeze(0)), head_dim, ROPE_WAVELENGTH),
            cross_rope: Rope::new(&step_S.unsqueeze(0), head_dim, ROPE_WAVELENGTH),
            joint_mask: additive_mask(&Tensor::cat(&[&prefix_BSP, &is_seen_BSS], 2)),
            cross_mask: additive_mask(&prefix_BSP),
            room: (reading == Reading::Repeatedly).then(|| memory.room_for(size[1], num_suffix)),
        }
    }

    /// Keys and values `[B,G,K,E]` of the prefix followed by those of the suffix.
    fn after_prefix(&self, num_joint: usize, prefix: &[Tensor; 2], k_BGSE: &Tensor, v_BGSE: &Tensor) -> [Tensor; 2] {
        match &self.room {
            Some(room) => room.with_suffix(num_joint, k_BGSE, v_BGSE).into(),
            None => [Tensor::cat(&[&prefix[0], k_BGSE], 2), Tensor::cat(&[&prefix[1], v_BGSE], 2)],
        }
    }
}

impl PrefixMemory {
    /// Samples of the observation.
    pub fn num_samples(&self) -> i64 {
        self.is_valid_BP.size()[0]
    }

    /// Its device.
    pub fn device(&self) -> Device {
        self.is_valid_BP.device()
    }

    fn room_for(&self, num_prefix: i64, num_suffix: i64) -> KvCache {
        let mut room = KvCache::new(num_prefix, num_suffix);
        for memory in &self.layers {
            if let LayerMemory::Joint(_, [k_BGPE, v_BGPE]) = memory {
                room.push_layer(k_BGPE, v_BGPE);
            }
        }
        room
    }
}
