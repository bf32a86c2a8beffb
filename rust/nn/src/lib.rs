//! Layers, backbones and weight files.
