//! Counts in `meta/info.json` against the episodes and tasks.

use super::Findings;
use crate::lerobot::Dataset;

pub(super) fn check(dataset: &Dataset, findings: &mut Findings) {
    let info = dataset.info();
    let path = dataset.root().join("meta/info.json");
    let counts = [
        ("total_episodes", info.total_episodes, dataset.episodes().len() as u64, "episodes in meta/episodes"),
        ("total_frames", info.total_frames, dataset.num_frames(), "frames in meta/episodes"),
        ("total_tasks", info.total_tasks, dataset.tasks().len() as u64, "tasks in meta/tasks.parquet"),
    ];
    for (key, said, found, what) in counts {
        if said != found {
            findings.add(&path, &format!("{key} is {said}, but there are {found} {what}"));
        }
    }
    let mut next_row = 0;
    for (position, episode) in dataset.episodes().iter().enumerate() {
        if episode.index != position as u64 {
            findings.add(&dataset.root().join("meta/episodes"), &format!("episode {position} is missing"));
            break;
        }
        if episode.from_row != next_row {
            let what = format!("episode {} starts at row {}, not at row {next_row}", episode.index, episode.from_row);
            findings.add(&dataset.root().join("meta/episodes"), &what);
        }
        next_row = episode.to_row;
    }
}
