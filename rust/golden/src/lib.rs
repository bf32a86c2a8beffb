//! Forms of the models that only comparisons with other implementations need. The program `hlrp-golden` and the examples use them.
#![allow(non_snake_case)] // shape suffixes

pub mod joint;
pub mod smolvlm;
