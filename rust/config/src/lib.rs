//! Hydra-style configuration: composition, provenance, typed extraction.

pub mod schema;
