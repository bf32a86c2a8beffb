//! Stage 1: the latent action model, its training program and its inference.
