//! What a run leaves behind: run directory, manifest, metrics, console, plots, tables.
