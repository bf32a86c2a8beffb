//! The part of the training data whose actions may be seen.

use crate::anchors::AnchorTable;
use crate::error::DataError;
use crate::mixture::Mixture;
use crate::source::{Source, Split};
use hlrp_config::Problem;
use hlrp_schema::LoaderConfig;
use hlrp_track::run::LabelShare;
use std::collections::BTreeMap;

impl Mixture {
    /// The same sources with labelled episodes alone for training, whose anchors are drawn one by one.
    ///
    /// # Errors
    /// [`Problem`] with a source without actions, or with actions of other dimensions than those of another source.
    pub fn labelled(&self) -> Result<Self, DataError> {
        self.require_like_actions()?;
        let sources = self.sources.iter().map(Source::labelled_only).collect();
        let loader = LoaderConfig { labelled_fraction: None, anchors_per_clip: 1, ..self.loader.clone() };
        Self::new(sources, self.layout.size, loader)
    }

    /// By source how much of the training data shows its actions; sources without actions are left out.
    #[must_use]
    pub fn label_shares(&self) -> BTreeMap<String, LabelShare> {
        let share = |source: &Source| {
            source.action.as_ref()?;
            let [(num_episodes, num_samples), (of_episodes, of_samples)] =
                [&source.labelled_only(), source].map(size_of_training);
            Some((source.name.clone(), LabelShare { num_episodes, num_samples, of_episodes, of_samples }))
        };
        self.sources.iter().filter_map(share).collect()
    }

    /// Refuses sources that teach nothing where actions alone are learned.
    ///
    /// # Errors
    /// [`Problem`] with a source without actions.
    pub fn require_actions(&self) -> Result<(), Problem> {
        let Some(source) = self.sources.iter().find(|source| source.action.is_none()) else { return Ok(()) };
        let name = &source.name;
        let key = format!("data.sources.{name}.action_key");
        let hint = format!("leave the source out with ~data.sources.{name}, or learn latent actions as well");
        Err(Problem::new(key, "the source has no actions, and nothing else is learned", hint))
    }

    /// Refuses sources whose actions one network cannot predict.
    ///
    /// # Errors
    /// [`Problem`] with a source without actions, or with actions of other dimensions than those of another source.
    pub fn require_like_actions(&self) -> Result<(), Problem> {
        let widths: Vec<_> = self.sources.iter().map(|source| source.action.as_ref().map(|key| key.width)).collect();
        let Some(other) = widths.iter().position(|width| width.is_none() || *width != widths[0]) else {
            return Ok(());
        };
        let key = format!("data.sources.{}.action_key", self.sources[other].name);
        let dims = widths[other].map_or("no actions".to_owned(), |width| format!("actions of {width} dimensions"));
        let message = format!("it has {dims}, unlike source `{}`", self.sources[0].name);
        Err(Problem::new(key, message, "train on sources of one robot, or leave this one out"))
    }
}

/// Training episodes of a source and their anchors.
fn size_of_training(source: &Source) -> (u64, u64) {
    let spans = source.episodes(Split::Train);
    let mut anchors = AnchorTable::new();
    let rows = spans.iter().map(|span| (*span, source.kept_rows(span)));
    anchors.push_rows(0, rows, source.request.anchor_reach());
    (spans.len() as u64, anchors.len())
}
