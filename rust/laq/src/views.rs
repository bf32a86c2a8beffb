//! Several cameras: their images side by side in one wide image, their tokens side by side in one wide grid.
//!
//! The encoder sees each view by itself and a learned vector says which view a token is of; transformers, decoders and everything after them
//! see the wide grid. The grid encoder of the quantizer sees the views as channels. A model with one camera has none of this.
//!
//! Shape suffixes: B samples, T frames, C channels, H×W pixels or tokens of all views, D token width, V views.

use crate::dims::Dims;
use crate::encoders::{Encoder, FrameTokens};
use crate::flow_teachers::FlowTeacher;
use hlrp_nn::{Init, Pass, Scope};
use tch::{Kind, Tensor};

/// Std of fresh view embeddings.
const EMBEDDING_STD: f64 = 0.5;

/// The views of a model with several cameras.
pub(crate) struct Views {
    embedding_VD: Tensor,
    /// Fraction of views that the encoder does not see in training.
    dropout: f64,
    /// Columns of tokens of one view.
    num_columns: i64,
}

impl Views {
    /// With fresh weights below `root`; none for one camera.
    pub(crate) fn new(root: &Scope<'_>, dims: &Dims, dropout: f64) -> Option<Self> {
        let embedding =
            || root.parameter("view_embedding", &[dims.num_views, dims.dim], Init::ScaledNormal(EMBEDDING_STD));
        (dims.num_views > 1).then(|| Self { embedding_VD: embedding(), dropout, num_columns: dims.grid })
    }

    /// The tokens of frames `[B,T,C,H,W]` by `encoder`, each with the vector of its view.
    pub(crate) fn tokens(&self, encoder: &dyn Encoder, frames_BTCHW: &Tensor, pass: &Pass<'_>) -> FrameTokens {
        let num_views = self.embedding_VD.size()[0];
        let FrameTokens { tokens_BTHWD, features_BTHWC } = tokens_by_view(encoder, frames_BTCHW, num_views, pass);
        FrameTokens { tokens_BTHWD: tokens_BTHWD + self.embedding_WD(), features_BTHWC }
    }

    /// In training, tokens `[B,T,H,W,D]` without what some views show: their tokens are the vectors of their views. One view of each sample
    /// always stays.
    pub(crate) fn dropped(&self, tokens_BTHWD: Tensor, pass: &Pass<'_>) -> Tensor {
        if !pass.train || self.dropout == 0.0 {
            return tokens_BTHWD;
        }
        let shape = [tokens_BTHWD.size()[0], self.embedding_VD.size()[0]];
        let drawn_BV = Tensor::rand(shape, (Kind::Float, tokens_BTHWD.device()));
        let stays_BV = drawn_BV.ge(self.dropout).logical_or(&drawn_BV.eq_tensor(&drawn_BV.amax([1], true)));
        let stays_BW = stays_BV.repeat_interleave_self_int(self.num_columns, 1, None);
        let stays_B11W1 = stays_BW.unsqueeze(1).unsqueeze(1).unsqueeze(-1);
        tokens_BTHWD.where_self(&stays_B11W1, &self.embedding_WD().to_kind(tokens_BTHWD.kind()))
    }

    /// The vector of the view of each column of tokens.
    fn embedding_WD(&self) -> Tensor {
        self.embedding_VD.repeat_interleave_self_int(self.num_columns, 0, None)
    }
}

/// The tokens by `encoder` of frames `[B,T,C,H,W]` of `num_views` views, in one wide grid.
pub(crate) fn tokens_by_view(
    encoder: &dyn Encoder,
    frames_BTCHW: &Tensor,
    num_views: i64,
    pass: &Pass<'_>,
) -> FrameTokens {
    if num_views == 1 {
        return encoder.tokens(frames_BTCHW, pass);
    }
    let FrameTokens { tokens_BTHWD, features_BTHWC } = encoder.tokens(&split_views(frames_BTCHW, num_views), pass);
    let joined = |tokens: Tensor| tokens.unflatten(0, [-1, num_views]).movedim_int(1, 3).flatten(3, 4);
    FrameTokens { tokens_BTHWD: joined(tokens_BTHWD), features_BTHWC: features_BTHWC.map(joined) }
}

/// Wide images `[B,…,H,W]` as images of each view `[B·V,…,H,W/V]`.
pub(crate) fn split_views(images: &Tensor, num_views: i64) -> Tensor {
    if num_views == 1 {
        return images.shallow_clone();
    }
    images.unflatten(-1, [num_views, -1]).movedim_int(-2, 1).flatten(0, 1)
}

/// The inverse of [`split_views`].
pub(crate) fn join_views(images: &Tensor, num_views: i64) -> Tensor {
    if num_views == 1 {
        return images.shallow_clone();
    }
    images.unflatten(0, [-1, num_views]).movedim_int(1, -2).flatten(-2, -1)
}

/// The flow of wide frame pairs `[B,2,C,H,W]`, whose views `teacher` sees as images of their own: `[B,2,H,W]` in pixels.
pub(crate) fn flow_of_views(teacher: &dyn FlowTeacher, frames_BTCHW: &Tensor, num_views: i64) -> Tensor {
    join_views(&teacher.flow(&split_views(frames_BTCHW, num_views)), num_views)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn views_are_parts_of_the_width_and_come_back() {
        let wide = Tensor::rand([2, 2, 3, 4, 15], (Kind::Float, Device::Cpu));
        let views = split_views(&wide, 3);
        assert_eq!(views.size(), [6, 2, 3, 4, 5]);
        for (index, (sample, view)) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)].into_iter().enumerate() {
            assert!(views.get(index as i64).equal(&wide.get(sample).narrow(-1, view * 5, 5)));
        }
        assert!(join_views(&views, 3).equal(&wide));
    }
}
