//! Labels as columns of datasets: which columns, on which scale, and what a batch has of them.
//!
//! Shape suffixes: B samples, N values of a row, S code slots, K codes, D dimensions of a code vector.

use crate::VlaError;
use crate::normalize::Scale;
use crate::observation::LatentTarget;
use hlrp_config::Problem;
use hlrp_data::Description;
use hlrp_schema::policy::label_columns::{CODE_VECTORS, CODES, DESCRIPTION, MANIFEST, VALID, VECTORS};
use hlrp_schema::policy::{LabelDescription, LabelVectors, Scaling, ScalingMode, TeacherIdentity};
use hlrp_track::fs::sha256_of;
use hlrp_train::{DeviceBatch, DeviceVectors};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

/// A dataset with labels.
pub(crate) struct Labelled<'a> {
    /// Names it in errors: the key of its folder.
    pub(crate) key: String,
    /// Its folder.
    pub(crate) root: PathBuf,
    /// What it says about itself.
    pub(crate) description: &'a Description,
}

/// The labels of datasets, all of one origin.
pub(crate) struct LabelColumns {
    identity: TeacherIdentity,
    pub(super) vectors_key: String,
    pub(super) codes_key: Option<String>,
    pub(super) valid_key: String,
    /// `[D]` or `[S,D]`.
    mean: Tensor,
    /// As the mean.
    std: Tensor,
    /// Standardised vectors of the codes.
    codebook_KD: Option<Tensor>,
}

impl LabelColumns {
    /// The labels under `prefix` in every one of `datasets`, of which there is at least one; `vectors` says which.
    ///
    /// # Errors
    /// [`Problem`] with the dataset that has none, or others than the first.
    pub(crate) fn open(
        datasets: &[Labelled<'_>],
        prefix: &str,
        vectors: Option<LabelVectors>,
        device: Device,
    ) -> Result<Self, VlaError> {
        let mut of_first: Option<(&str, LabelDescription)> = None;
        for dataset in datasets {
            let own = dataset.read()?;
            match &of_first {
                Some((first, others)) if *others != own => {
                    let message = format!("its labels are not those of {first}: another checkpoint wrote them");
                    return Err(dataset.problem(message, "label all sources with the same checkpoint").into());
                }
                _ => of_first = Some((&dataset.key, own)),
            }
        }
        let (_, LabelDescription { teacher, scale, codebook }) =
            of_first.ok_or_else(|| VlaError::input("labels", "there is no dataset", NO_LABELS))?;
        let has_codes = codebook.is_some();
        if vectors == Some(LabelVectors::Code) && !has_codes {
            let hint = "set it to continuous, or label with a teacher that has codes";
            return Err(Problem::new("policy.teacher.label_vectors", "code, but the labels have no codes", hint).into());
        }
        let learns_codes = has_codes && vectors != Some(LabelVectors::Continuous);
        let key = |name: &str| format!("{prefix}.{name}");
        let vectors_key = key(if learns_codes { CODE_VECTORS } else { VECTORS });
        let [num_slots, width] = [teacher.code_seq_len, teacher.code_dim];
        let [mean, std] = match scale.filter(|_| learns_codes == has_codes) {
            Some(scale) => [scale.mean, scale.std].map(|values| Tensor::from_slice(&values).to_device(device)),
            None => {
                let Scale { center, divisor, .. } = Scale::of(&scaling(&vectors_key, datasets)?, device);
                [center, divisor].map(|values| values.view([num_slots, width]))
            }
        };
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

    /// What labelled, and the shape of the labels.
    pub(crate) fn identity(&self) -> &TeacherIdentity {
        &self.identity
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
        let at = |key: &String| Ok::<_, VlaError>(stream(batch, key)?.values_BTN.select(1, index));
        let codes_BS = self.codes_key.as_ref().map(at).transpose()?;
        Ok(self.target(&at(&self.vectors_key)?, codes_BS, self.is_valid(batch, index)?))
    }

    /// The target of rows of the columns.
    pub(super) fn target(&self, vectors_BN: &Tensor, codes_BS: Option<Tensor>, is_valid_B: Tensor) -> LatentTarget {
        let TeacherIdentity { code_seq_len, code_dim, .. } = self.identity;
        let vectors_BSD = (vectors_BN.view([-1, code_seq_len, code_dim]) - &self.mean) / &self.std;
        let codes_BS = codes_BS.map(|codes_BS| codes_BS.to_kind(Kind::Int64));
        LatentTarget { vectors_BSD: Some(vectors_BSD), codes_BS, is_valid_B }
    }

    /// `bool [B]`: whether the frames at `index` have a label.
    ///
    /// # Errors
    /// A batch without labels.
    pub(crate) fn is_valid(&self, batch: &DeviceBatch, index: i64) -> Result<Tensor, VlaError> {
        let DeviceVectors { values_BTN, is_pad_BT, .. } = stream(batch, &self.valid_key)?;
        let is_inside_B = is_pad_BT.select(1, index).logical_not();
        Ok(values_BTN.select(1, index).squeeze_dim(1).gt(0.5).logical_and(&is_inside_B))
    }

    /// Standardised vectors `float32 [B,S,D]` of codes `int64 [B,S]`.
    ///
    /// # Errors
    /// Labels without codes.
    pub(super) fn vectors(&self, codes_BS: &Tensor) -> Result<Tensor, VlaError> {
        let codes_KD = self.codebook()?;
        let [num_samples, num_slots] = [codes_BS.size()[0], codes_BS.size()[1]];
        Ok(codes_KD.index_select(0, &codes_BS.flatten(0, -1)).view([num_samples, num_slots, -1]))
    }

    /// The codes `int64 [B,S]` whose vectors are nearest to predicted ones `[B,S,D]`.
    ///
    /// # Errors
    /// Labels without codes.
    pub(super) fn nearest(&self, latents_BSD: &Tensor) -> Result<Tensor, VlaError> {
        let difference_BSKD = latents_BSD.unsqueeze(2) - self.codebook()?;
        let distance_BSK = difference_BSKD.square().sum_dim_intlist([3].as_slice(), false, Kind::Float);
        Ok(distance_BSK.argmin(-1, false))
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

impl Labelled<'_> {
    fn problem(&self, message: impl Into<String>, hint: &str) -> Problem {
        Problem::new(&self.key, message, hint)
    }

    /// What it says of its labels.
    fn read(&self) -> Result<LabelDescription, Problem> {
        let file = self.root.join(MANIFEST);
        let refuse = |problem: String| self.problem(format!("{}: {problem}", file.display()), NO_LABELS);
        let text = std::fs::read_to_string(&file).map_err(|error| refuse(error.to_string()))?;
        serde_json::from_str::<serde_json::Value>(&text)
            .and_then(|manifest| serde_json::from_value(manifest[DESCRIPTION].clone()))
            .map_err(|error| refuse(format!("{DESCRIPTION}: {error}")))
    }
}

/// What to do about a dataset without labels.
const NO_LABELS: &str = "write labels with `hlrp label`, and give the dataset that it wrote";

/// By the mean and std of a column over the labelled rows of all datasets.
fn scaling(key: &str, datasets: &[Labelled<'_>]) -> Result<Scaling, Problem> {
    let (mut num, mut sums, mut squares) = (0.0, Vec::new(), Vec::new());
    for dataset in datasets {
        let recorded = dataset.description.statistics.get(key);
        let of = |statistic: &str| recorded.and_then(|found| found.values.get(statistic));
        let (Some(mean), Some(std), Some([count, ..])) = (of("mean"), of("std"), of("count").map(Vec::as_slice)) else {
            let message = format!("meta/stats.json has no statistics of `{key}`");
            return Err(dataset.problem(message, "write the labels again with `hlrp label`"));
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
    let std = squares.iter().zip(&mean).map(|(square, mean)| (square / num - mean * mean).max(0.0).sqrt()).collect();
    Ok(Scaling {
        mode: ScalingMode::MeanStd,
        dim: Some(mean.len()),
        statistics: Some([("mean".to_owned(), mean), ("std".to_owned(), std)].into()),
    })
}
