//! Several small batches make the step of one large batch.

use crate::common::{Numbers, Regression, alone, metrics, settings, tensors, train_until};
use hlrp_train::StopRequest;

#[test]
fn three_batches_of_four_are_one_batch_of_twelve() {
    three_batches_are_one(false);
}

/// One sample of five is supervised: of twelve in a row two or three, and of four one or none.
#[test]
fn a_masked_mean_divides_by_the_supervised_values_of_all_batches() {
    three_batches_are_one(true);
}

fn three_batches_are_one(is_masked: bool) {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str, batch_size, accumulate: u64| {
        let run_dir = folder.path().join(name);
        let words = format!("training.gradient.accumulate_steps={accumulate}");
        // Without noise: the two ways draw it in different portions.
        let mut task = Regression::default().without_noise();
        let mut data = Numbers { batch_size, ..Numbers::default() };
        if is_masked {
            (task, data.supervised_every) = (task.masked(), 5);
        }
        // Before the first rewritten row, which is random.
        let words = [words.as_str(), "training.max_steps=3", "training.scheduler.warmup_steps=1"];
        train_until(settings(&run_dir, &words), &StopRequest::default(), &mut task, &mut data).unwrap();
        (tensors(&run_dir, 3, "model.safetensors"), metrics(&run_dir))
    };
    let (large, large_metrics) = weights("large", 12, 1);
    let (small, small_metrics) = weights("small", 4, 3);
    for (name, tensor) in large.iter().filter(|(name, _)| *name != "num_calls") {
        let error = (tensor - &small[name]).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{name} differs by {error}");
    }
    let loss = |metrics: &[(u64, Vec<(String, u64)>)], row: usize, name: &str| {
        metrics[row].1.iter().find(|(known, _)| known == name).map(|(_, bits)| f64::from_bits(*bits)).unwrap()
    };
    for name in ["train/loss", "train/mse", "train/grad_norm"] {
        let (large, small) = (loss(&large_metrics, 1, name), loss(&small_metrics, 1, name));
        assert!((large - small).abs() < 1e-5 * large, "{name}: {large} and {small}");
    }
}
