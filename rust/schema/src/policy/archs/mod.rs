//! The architectures: each has a section of its own, and a description has exactly one.

mod expert;
mod pooled;

pub use expert::{ExpertSpec, ImageSpecialTokens, LatentHead};
pub use pooled::PooledSpec;

use crate::policy::{BackboneFacts, BackboneSizes, LatentShape, Mode, ModelSpec};
use crate::rules::Checked;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::{fmt, path::Path};

/// What the section of an architecture says to the rest of a description.
pub trait Arch {
    /// Checks the section within its model, whose other parts are checked already.
    ///
    /// # Errors
    /// The first invalid value; its key is relative to the model.
    fn check(&self, model: &ModelSpec) -> Checked;

    /// Checks that the model has everything that this architecture cannot do without.
    ///
    /// # Errors
    /// The first value that is null and must not be; its key is relative to the model.
    fn check_resolved(&self, model: &ModelSpec) -> Checked;

    /// Steps of an action chunk.
    fn chunk_size(&self) -> i64;

    /// Most dimensions of a state; none for an architecture that sees no state.
    fn max_state_dim(&self) -> Option<i64>;

    /// Most dimensions of an action; none where every width has a head of its own.
    fn max_action_dim(&self) -> Option<i64>;

    /// Key and value of a fixed length of the prefix, if there is one.
    fn prefix_length(&self) -> Option<(&'static str, i64)> {
        None
    }

    /// Key (relative to the model) and value of a LeRobot policy to start from, if there is one.
    fn smolvla_checkpoint(&self) -> Option<(&'static str, &Path)> {
        None
    }

    /// Special tokens around each image.
    fn num_tokens_around_image(&self) -> i64 {
        0
    }

    /// The heads of a model for `mode`, given the data's actions and the teacher's codes: dimensions of an action and shape of a latent action.
    fn heads(
        &self,
        mode: Mode,
        action_dim: Option<i64>,
        latent: Option<LatentShape>,
    ) -> (Option<i64>, Option<LatentShape>);

    /// Fills what is null from the sizes in use and what the backbone says, and drops the paths.
    ///
    /// # Errors
    /// A value that contradicts the backbone; its key is relative to the model.
    fn resolve(&mut self, sizes: &BackboneSizes, backbone: &BackboneFacts) -> Checked;
}

/// Registers architectures: the key of the section, the variant and the struct.
macro_rules! architectures {
    ($($key:literal $variant:ident($spec:ty)),+ $(,)?) => {
        /// The section of one architecture, under its name.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)] // each is explained at its struct
        pub enum ArchSpec {
            $($variant($spec)),+
        }

        impl ArchSpec {
            /// Every name.
            pub const NAMES: &[&str] = &[$($key),+];

            /// The name, as in the configuration.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $key),+
                }
            }

            /// The section.
            pub fn get(&self) -> &dyn Arch {
                match self {
                    $(Self::$variant(spec) => spec),+
                }
            }

            pub(in crate::policy) fn get_mut(&mut self) -> &mut dyn Arch {
                match self {
                    $(Self::$variant(spec) => spec),+
                }
            }
        }

        impl Serialize for ArchSpec {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(1))?;
                match self {
                    $(Self::$variant(spec) => map.serialize_entry($key, spec)?),+
                }
                map.end()
            }
        }

        impl<'de> Visitor<'de> for OneArch {
            type Value = ArchSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "the section of one architecture ({})", ArchSpec::NAMES.join(" or "))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ArchSpec, A::Error> {
                let Some(name) = map.next_key::<String>()? else { return Err(A::Error::invalid_length(0, &self)) };
                let spec = match name.as_str() {
                    $($key => ArchSpec::$variant(map.next_value()?),)+
                    other => return Err(A::Error::unknown_field(other, ArchSpec::NAMES)),
                };
                match map.next_key::<String>()? {
                    None => Ok(spec),
                    Some(_) => Err(A::Error::invalid_length(2, &self)),
                }
            }
        }
    };
}

architectures! {
    "expert" Expert(ExpertSpec),
    "pooled" Pooled(PooledSpec),
}

struct OneArch;

impl<'de> Deserialize<'de> for ArchSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OneArch)
    }
}
