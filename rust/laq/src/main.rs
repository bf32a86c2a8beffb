//! Trains the latent action model.
fn main() {}
