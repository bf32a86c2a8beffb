//! Weights in the number format of their products.

use super::ExpertModel;
use super::model::{BACKBONE, EXPERT};
use tch::{Kind, Tensor, no_grad};

/// Tables that are looked up, not multiplied with.
const TABLES: [&str; 2] = ["embed_tokens.weight", "position_embedding.weight"];

impl ExpertModel {
    /// Stores the matrices of backbone and expert in bfloat16, for predictions only.
    ///
    /// Under bf16 autocast the results stay what they were to the last bit: autocast rounds the same matrices at every use. Norms, biases,
    /// tables and heads stay float32. The float32 weights are gone afterwards.
    pub fn store_matrices_in_bf16(&self) {
        let is_multiplied = |name: &str, tensor: &Tensor| {
            let is_inside = [BACKBONE, EXPERT].iter().any(|part| name.starts_with(part));
            is_inside && tensor.dim() >= 2 && !TABLES.iter().any(|table| name.ends_with(table))
        };
        let matrices = self.store().state().into_iter().filter(|(name, tensor)| is_multiplied(name, tensor));
        for (_, matrix) in matrices {
            no_grad(|| {
                let mut matrix = matrix.set_requires_grad(false);
                matrix.set_data(&matrix.to_kind(Kind::BFloat16));
            });
        }
    }
}
