//! Sizes of what a sample holds: the same for every sample of a mixture.

use super::Source;
use crate::{DataError, FrameSize, LoadError};

/// Sizes of one sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleLayout {
    /// Camera roles, sorted.
    pub roles: Vec<String>,
    /// Images per role.
    pub num_images: usize,
    /// Size of an image.
    pub size: FrameSize,
    /// States `[T,N]`, when every source has them; N is the widest.
    pub state: Option<[usize; 2]>,
    /// Actions `[T,N]`, when every source has them; N is the widest.
    pub action: Option<[usize; 2]>,
}

impl SampleLayout {
    /// The layout that all sources share.
    ///
    /// # Errors
    /// There is no source, one lacks a role that another has, a role's frames come in another size, or a feature has no width.
    pub(crate) fn of(sources: &[Source], size: FrameSize) -> Result<Self, DataError> {
        let Some(first) = sources.first() else {
            let hint = "name at least one dataset: data.sources.<name>.root=<folder>";
            return Err(LoadError::setting("data.sources", "there is none", hint).into());
        };
        if first.cameras.is_empty() {
            let key = format!("data.sources.{}.cameras", first.name);
            return Err(LoadError::setting(&key, "there is none", "map a role to a camera of the dataset").into());
        }
        for source in sources {
            if let Some(missing) = differing_role(first, source) {
                let key = format!("data.sources.{}.cameras", source.name);
                let problem = format!("roles differ from source `{}`: `{missing}` is in one of them only", first.name);
                return Err(LoadError::setting(&key, &problem, "every role must be mapped in every source").into());
            }
        }
        Ok(Self {
            roles: first.cameras.keys().cloned().collect(),
            num_images: first.request.image_deltas.len(),
            size,
            state: width(sources, |s| s.state.as_ref().map(|v| v.width)).map(|n| [first.request.state_deltas.len(), n]),
            action: width(sources, |s| s.action.as_ref().map(|v| v.width))
                .map(|n| [first.request.action_deltas.len(), n]),
        })
    }

    /// Bytes of the images of one role of one sample.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.num_images * self.size.frame_bytes()
    }

    /// Bytes of one sample.
    #[must_use]
    pub fn sample_bytes(&self) -> usize {
        let vectors = [self.state, self.action].into_iter().flatten().map(|[t, n]| t * (n * size_of::<f32>() + 1));
        self.roles.len() * (self.image_bytes() + self.num_images) + vectors.sum::<usize>()
    }
}

/// The first role that only one of two sources has.
fn differing_role<'a>(a: &'a Source, b: &'a Source) -> Option<&'a str> {
    let only_in = |x: &'a Source, y: &Source| x.cameras.keys().find(|role| !y.cameras.contains_key(*role));
    only_in(a, b).or_else(|| only_in(b, a)).map(String::as_str)
}

/// The widest of a vector that every source has.
fn width(sources: &[Source], of: impl Fn(&Source) -> Option<usize>) -> Option<usize> {
    sources.iter().map(of).collect::<Option<Vec<_>>>()?.into_iter().max()
}
