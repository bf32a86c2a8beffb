//! Which frames may be anchors, how they are numbered, and how episodes are split.
#![allow(clippy::unwrap_used)]

mod fake;

use fake::{FakeDataset, source, source_config};
use hlrp_config::with_hint;
use hlrp_data::{AnchorTable, EpisodeSpan, Split, held_out_positions};

fn spans(lengths: &[u64], first_row: u64) -> Vec<EpisodeSpan> {
    let mut spans = FakeDataset::new(lengths).spans;
    spans.iter_mut().for_each(|s| (s.from_row, s.to_row) = (s.from_row + first_row, s.to_row + first_row));
    spans
}

#[test]
fn numbering_equals_a_walk_over_all_frames() {
    let sources = [spans(&[5, 1, 9, 3], 0), spans(&[2, 2], 100), spans(&[4, 30], 7)];
    for reach in [(0, 0), (0, 3), (-2, 0), (-2, 3), (-1, 1)] {
        let mut table = AnchorTable::new();
        let mut walked = Vec::new();
        for (number, spans) in sources.iter().enumerate() {
            table.push(number, spans.iter().copied(), reach);
            for span in spans {
                for row in span.from_row..span.to_row {
                    let (first, last) = (row as i64 + reach.0, row as i64 + reach.1);
                    if first >= span.from_row as i64 && last < span.to_row as i64 {
                        walked.push((number, span.episode, row));
                    }
                }
            }
        }
        let numbered: Vec<_> = (0..table.len())
            .map(|index| table.get(index).unwrap())
            .map(|anchor| (anchor.source, anchor.span.episode, anchor.row))
            .collect();
        assert_eq!(numbered, walked, "reach {reach:?}");
        assert_eq!(table.get(table.len()), None);
    }
}

#[test]
fn episodes_shorter_than_the_offsets_hold_no_anchor() {
    let mut table = AnchorTable::new();
    table.push(0, spans(&[3, 2, 1], 0), (0, 3));
    assert!(table.is_empty());
}

#[test]
fn held_out_episodes_are_spread_evenly() {
    assert_eq!(held_out_positions(50, 5).collect::<Vec<_>>(), [5, 15, 25, 35, 45]);
    assert_eq!(held_out_positions(10, 3).collect::<Vec<_>>(), [1, 5, 8]);
    assert_eq!(held_out_positions(10, 0).count(), 0);
    assert_eq!(held_out_positions(4, 4).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn the_two_splits_share_no_episode_and_lose_none() {
    let mut config = source_config(2);
    config.episodes = Some(vec![8, 1, 2, 3, 5, 6]);
    let source = source("fake", FakeDataset::new(&[10; 9]), &config).unwrap();
    let episodes = |split| source.episodes(split).iter().map(|span| span.episode).collect::<Vec<_>>();
    assert_eq!(episodes(Split::Train), [1, 3, 5, 8]);
    assert_eq!(episodes(Split::Validation), [2, 6]);
}

#[test]
fn impossible_choices_of_episodes_are_refused() {
    let refuse = |episodes: Option<Vec<u64>>, num_val_episodes| {
        let config = hlrp_schema::SourceConfig { episodes, ..source_config(num_val_episodes) };
        with_hint(&source("robot", FakeDataset::new(&[10; 4]), &config).err().unwrap())
    };
    assert!(
        refuse(Some(vec![4]), 0)
            .starts_with("data.sources.robot.episodes: there is no episode 4\nhint: the dataset has 4")
    );
    assert!(refuse(None, 4).starts_with("data.sources.robot.num_val_episodes: 4 of 4 episodes leave none"));
}
