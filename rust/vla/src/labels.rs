//! Who labels the frame pairs of a batch: a teacher while the policy trains, or `hlrp label` before, in columns of the datasets.
//!
//! Labels of a teacher's codes are the same numbers either way. Labels without codes (vectors before the quantizer, summed actions) are
//! standardised by the statistics of the datasets.
//!
//! Shape suffixes: B samples, S code slots, K codes, D dimensions of a code vector.

use crate::VlaError;
use crate::observation::LatentTarget;
use crate::teacher::Teacher;
use anyhow::Context;
use hlrp_config::Problem;
use hlrp_data::Description;
use hlrp_schema::VlaConfig;
use hlrp_schema::policy::label_columns::{CODE_VECTORS, CODES, DESCRIPTION, MANIFEST, VALID, VECTORS};
use hlrp_schema::policy::{LabelDescription, LabelVectors, TeacherIdentity};
use hlrp_track::fs::sha256_of;
use hlrp_train::{DeviceBatch, DeviceVectors};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Who labels.
pub(crate) enum Labelling {
    /// A stage 1 model, while the policy trains.
    Online(Teacher),
    /// Columns of the datasets.
    Columns(LabelColumns),
}

impl Labelling {
    /// What labels, and the shape of the labels.
    pub(crate) fn identity(&self) -> &TeacherIdentity {
        match self {
            Self::Online(teacher) => teacher.identity(),
            Self::Columns(columns) => &columns.identity,
        }
    }

    /// Standardised vectors `float32 [B,S,D]` of codes `int64 [B,S]`.
    ///
    /// # Errors
    /// Labels without codes.
    pub(crate) fn vectors(&self, codes_BS: &Tensor) -> Result<Tensor, VlaError> {
        match self {
            Self::Online(teacher) => teacher.vectors(codes_BS),
            Self::Columns(columns) => {
                let codes_KD = columns.codebook()?;
                let [num_samples, num_slots] = [codes_BS.size()[0], codes_BS.size()[1]];
                Ok(codes_KD.index_select(0, &codes_BS.flatten(0, -1)).view([num_samples, num_slots, -1]))
            }
        }
    }

    /// The codes `int64 [B,S]` whose vectors are nearest to predicted ones `[B,S,D]`.
    ///
    /// # Errors
    /// Labels without codes.
    pub(crate) fn nearest(&self, latents_BSD: &Tensor) -> Result<Tensor, VlaError> {
        match self {
            Self::Online(teacher) => teacher.nearest(latents_BSD),
            Self::Columns(columns) => {
                let difference_BSKD = latents_BSD.unsqueeze(2) - columns.codebook()?;
                let distance_BSK = difference_BSKD.square().sum_dim_intlist([3].as_slice(), false, Kind::Float);
                Ok(distance_BSK.argmin(-1, false))
            }
        }
    }
}

/// The labels of datasets, all of one origin.
pub(crate) struct LabelColumns {
    identity: TeacherIdentity,
    vectors_key: String,
    codes_key: Option<String>,
    valid_key: String,
    /// `[D]` or `[S,D]`.
    mean: Tensor,
    /// As the mean.
    std: Tensor,
    /// Standardised vectors of the codes.
    codebook_KD: Option<Tensor>,
}

impl LabelColumns {
    /// The labels under the prefix `policy.teacher.label_prefix` in every source.
    ///
    /// # Errors
    /// [`Problem`] with the source that has none, or others than the first.
    pub(crate) fn open(
        config: &VlaConfig,
        prefix: &str,
        datasets: &BTreeMap<String, Description>,
        device: Device,
    ) -> anyhow::Result<Self> {
        let mut of_first: Option<(&str, LabelDescription)> = None;
        for (name, source) in &config.data.sources {
            let own = read(name, &source.root)?;
            match &of_first {
                Some((first, others)) if *others != own => {
                    let message =
                        format!("its labels are not those of source `{first}`: another checkpoint wrote them");
                    let hint = "label all sources with the same checkpoint";
                    return Err(Problem::new(format!("data.sources.{name}.root"), message, hint).into());
                }
                _ => of_first = Some((name, own)),
            }
        }
        let (_, LabelDescription { teacher, scale, codebook }) = of_first.context("there is no source of data")?;
        let choice = config.policy.teacher.label_vectors;
        let has_codes = codebook.is_some();
        if choice == Some(LabelVectors::Code) && !has_codes {
            let hint = "set it to continuous, or label with a teacher that has codes";
            return Err(Problem::new("policy.teacher.label_vectors", "code, but the labels have no codes", hint).into());
        }
        let learns_codes = has_codes && choice != Some(LabelVectors::Continuous);
        let key = |name: &str| format!("{prefix}.{name}");
        let vectors_key = key(if learns_codes { CODE_VECTORS } else { VECTORS });
        let [num_slots, width] = [teacher.code_seq_len, teacher.code_dim];
        let (mean, std) = match scale.filter(|_| learns_codes == has_codes) {
            Some(scale) => (Tensor::from_slice(&scale.mean), Tensor::from_slice(&scale.std)),
            None => {
                let (mean, std) = statistics(&vectors_key, datasets)?;
                let shaped = |values: &[f32]| Tensor::from_slice(values).view([num_slots, width]);
                (shaped(&mean), shaped(&std))
            }
        };
        let [mean, std] = [mean, std].map(|values| values.to_device(device));
        let codebook_KD = codebook.filter(|_| learns_codes).map(|rows| {
            let codes_KD = Tensor::from_slice(&rows.concat()).view([-1, width]).to_device(device);
            (codes_KD - &mean) / &std
        });
        let identity = if learns_codes == has_codes {
            teacher
        } else {
            let sha256 = sha256_of(format!("continuous vectors of {}", teacher.sha256));
            TeacherIdentity { sha256, codebook_size: None, ..teacher }
        };
        let codes_key = learns_codes.then(|| key(CODES));
        Ok(Self { identity, vectors_key, codes_key, valid_key: key(VALID), mean, std, codebook_KD })
    }

    /// Keys of the columns.
    pub(crate) fn keys(&self) -> Vec<String> {
        [&self.vectors_key, &self.valid_key].into_iter().chain(&self.codes_key).cloned().collect()
    }

    /// The labels of the frames at `index` of the label streams.
    ///
    /// # Errors
    /// A batch without them.
    pub(crate) fn label(&self, batch: &DeviceBatch, index: i64) -> Result<LatentTarget, VlaError> {
        let TeacherIdentity { code_seq_len, code_dim, .. } = self.identity;
        let at = |key| Ok::<_, VlaError>(stream(batch, key)?.values_BTN.select(1, index));
        let vectors_BSD = (at(&self.vectors_key)?.view([-1, code_seq_len, code_dim]) - &self.mean) / &self.std;
        let codes_BS = self.codes_key.as_ref().map(|key| Ok::<_, VlaError>(at(key)?.to_kind(Kind::Int64)));
        Ok(LatentTarget {
            vectors_BSD: Some(vectors_BSD),
            codes_BS: codes_BS.transpose()?,
            is_valid_B: self.is_valid(batch, index)?,
        })
    }

    /// `bool [B]`: whether the frames at `index` have a label.
    ///
    /// # Errors
    /// A batch without labels.
    pub(crate) fn is_valid(&self, batch: &DeviceBatch, index: i64) -> Result<Tensor, VlaError> {
        let DeviceVectors { values_BTN, is_pad_BT } = stream(batch, &self.valid_key)?;
        let is_inside_B = is_pad_BT.select(1, index).logical_not();
        Ok(values_BTN.select(1, index).squeeze_dim(1).gt(0.5).logical_and(&is_inside_B))
    }

    fn codebook(&self) -> Result<&Tensor, VlaError> {
        let hint = "label with a teacher that has codes";
        self.codebook_KD.as_ref().ok_or_else(|| VlaError::input("labels", "they have no codes", hint))
    }
}

fn stream<'a>(batch: &'a DeviceBatch, key: &str) -> Result<&'a DeviceVectors, VlaError> {
    let hint = "give datasets that `hlrp label` wrote";
    batch.labels.get(key).ok_or_else(|| VlaError::input(format!("labels `{key}`"), "the batch lacks them", hint))
}

/// What a dataset says of its labels.
fn read(source: &str, root: &Path) -> Result<LabelDescription, Problem> {
    let file = root.join(MANIFEST);
    let refuse = |problem: String| {
        let hint = "write labels with `hlrp label`, and give the dataset that it wrote";
        Problem::new(format!("data.sources.{source}.root"), problem, hint)
    };
    let text = std::fs::read_to_string(&file).map_err(|error| refuse(format!("{}: {error}", file.display())))?;
    let description = serde_json::from_str::<serde_json::Value>(&text)
        .and_then(|manifest| serde_json::from_value(manifest[DESCRIPTION].clone()))
        .map_err(|error| refuse(format!("{}: {DESCRIPTION}: {error}", file.display())))?;
    Ok(description)
}

/// Mean and std of a column over the labelled rows of all datasets; a constant value has a std of 1.
fn statistics(key: &str, datasets: &BTreeMap<String, Description>) -> Result<(Vec<f32>, Vec<f32>), Problem> {
    let (mut num, mut sums, mut squares) = (0.0, Vec::new(), Vec::new());
    for (name, dataset) in datasets {
        let of = |statistic: &str| dataset.statistics.get(key).and_then(|found| found.values.get(statistic));
        let (Some(mean), Some(std), Some([count, ..])) = (of("mean"), of("std"), of("count").map(Vec::as_slice)) else {
            let hint = "write the labels again with `hlrp label`";
            let message = format!("meta/stats.json has no statistics of `{key}`");
            return Err(Problem::new(format!("data.sources.{name}.root"), message, hint));
        };
        num += count;
        sums.resize(mean.len(), 0.0);
        squares.resize(mean.len(), 0.0);
        for (at, (mean, std)) in mean.iter().zip(std).enumerate() {
            sums[at] += count * mean;
            squares[at] += count * (std * std + mean * mean);
        }
    }
    let mean: Vec<f64> = sums.iter().map(|sum| sum / num).collect();
    let std = squares.iter().zip(&mean).map(|(square, mean)| (square / num - mean * mean).max(0.0).sqrt());
    let std = std.map(|std| if std > 1e-6 { std as f32 } else { 1.0 }).collect();
    Ok((mean.into_iter().map(|mean| mean as f32).collect(), std))
}
