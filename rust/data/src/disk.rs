//! How a run uses its disk, from the configuration.

use hlrp_schema::{ClusterConfig, LoggingConfig};
use hlrp_track::fs::{DiskRules, Superseded};

/// The rules of the run in `logging.run_dir`.
pub fn disk_rules(cluster: &ClusterConfig, logging: &LoggingConfig) -> DiskRules {
    DiskRules {
        min_free_gb: logging.min_free_gb,
        min_free_files: logging.min_free_files,
        quota_command: cluster.quota_command.clone(),
        superseded: Superseded::new(cluster.keep_superseded, &logging.run_dir),
    }
}
