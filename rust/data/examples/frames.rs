//! Writes frames as this crate reads them: `frames DATASET CAMERA ROW,… [--alone]` prints one line with height and width, then the
//! bytes of all frames (`uint8 [T,3,H,W]`). Rows are read in one call, or with `--alone` one after the other by the same reader.
#![allow(non_snake_case, clippy::print_stderr, missing_docs, reason = "a program")]

use anyhow::{Context, Result};
use clap::Parser;
use hlrp_config::with_hint;
use hlrp_data::{
    DataError, FrameSize,
    formats::{self, OpenOptions},
};
use std::{
    io::{Write, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// Writes frames as this crate reads them.
#[derive(Parser)]
struct Args {
    /// Folder of a dataset.
    dataset: PathBuf,
    /// Feature key of the camera.
    camera: String,
    /// Global rows.
    #[arg(value_delimiter = ',')]
    rows: Vec<u64>,
    /// Reads the rows one after the other.
    #[arg(long)]
    alone: bool,
    /// Largest difference between the time of a row and that of its frame, seconds; the format's default when absent.
    #[arg(long)]
    tolerance_s: Option<f64>,
    /// Folder for the index of an RLDS dataset.
    #[arg(long)]
    index_dir: Option<PathBuf>,
    /// Height and width of the frames; the recorded size when absent.
    #[arg(long, num_args = 2)]
    size: Option<Vec<usize>>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    match read(&args.dataset, &args) {
        Ok((height, width, bytes)) => {
            let mut out = stdout().lock();
            writeln!(out, "{height} {width}")?;
            out.write_all(&bytes).context("the frames cannot be written")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("{}", with_hint(&error));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn read(root: &Path, args: &Args) -> Result<(usize, usize, Vec<u8>), DataError> {
    let options =
        OpenOptions { tolerance_s: args.tolerance_s, index_dir: args.index_dir.clone(), ..OpenOptions::new(1 << 24) };
    let dataset = formats::open(root, &options)?;
    let size = args.size.as_ref().map(|size| FrameSize { height: size[0], width: size[1] });
    let store = Arc::clone(&dataset).frame_store(&args.camera, size)?;
    let mut reader = store.reader(4)?;
    let size = store.size();
    let mut out = vec![0; args.rows.len() * size.frame_bytes()];
    let at_once = if args.alone { 1 } else { args.rows.len().max(1) };
    let chunks = args.rows.chunks(at_once).zip(out.chunks_mut(at_once * size.frame_bytes()));
    for (rows, out_TCHW) in chunks {
        reader.read(rows, out_TCHW)?;
    }
    Ok((size.height, size.width, out))
}
