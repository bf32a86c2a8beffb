//! `hlrp-train-laq`: trains stage 1.

mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
