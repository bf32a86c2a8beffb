//! When the codebook is refreshed, and how loss weights warm up.
#![allow(clippy::unwrap_used)] // a test may panic

use hlrp_laq::{RefreshSchedule, weight_at};
use hlrp_schema::DecoderConfig;

#[test]
fn the_default_schedule_refreshes_44_times_in_100000_steps() {
    let schedule =
        RefreshSchedule::new(&[[10, 100], [100, 1000], [500, 5000], [1000, 10_000], [5000, 50_000], [10_000, 100_000]]);
    let due: Vec<u64> = (0..=100_000).filter(|step| schedule.is_due(*step)).collect();
    assert_eq!(due.len(), 44);
    assert_eq!(due[..3], [10, 20, 30]);
    assert_eq!(due[due.len() - 2..], [80_000, 90_000]);
}

#[test]
fn an_empty_schedule_never_refreshes() {
    assert!((0..1000).all(|step| !RefreshSchedule::new(&[]).is_due(step)));
}

#[test]
fn a_loss_weight_rises_linearly_and_evaluation_takes_it_whole() {
    let decoder = DecoderConfig {
        enabled: true,
        depth: 1,
        loss_weight: 2.0,
        warmup_steps: 10,
        motion_weight: 0.0,
        motion_threshold: None,
        from_latent_only: false,
        trains_codes: true,
    };
    assert_eq!(weight_at(&decoder, Some(1)), 0.2);
    assert_eq!(weight_at(&decoder, Some(5)), 1.0);
    assert_eq!(weight_at(&decoder, Some(10)), 2.0);
    assert_eq!(weight_at(&decoder, Some(1000)), 2.0);
    assert_eq!(weight_at(&decoder, None), 2.0);
}
