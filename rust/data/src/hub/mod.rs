//! Datasets and models of the Hugging Face Hub.
//!
//! What is fetched is kept as `huggingface_hub` keeps it (`hlrp_schema::hub`), so that each finds what the other fetched. [`download()`] asks for the commit of
//! a revision and the list of its files (`listing`), chooses those that a request needs (`formats::lerobot`; of a model `model`), and fetches each into a
//! blob (`blob`): whole and with the right digest, or not at all. Requests, redirects and what an answer means are in `client`, addresses and tokens in
//! `settings`, errors in `error`. [`locate`] finds the folder of a source.

mod blob;
mod client;
mod download;
mod error;
mod listing;
mod location;
mod model;
mod settings;
mod stream;

pub use client::Hub;
pub use download::{Downloaded, Fetch, Selection, download};
pub use error::HubError;
pub(crate) use location::require_files;
pub use location::{Location, locate, recorded};
pub use model::download_model;
pub use settings::{HubSettings, cache_dir};
#[cfg(feature = "ffmpeg")]
pub(crate) use stream::RemoteVideo;
pub use stream::Streams;
