//! Several small batches make the step of one large batch.

use crate::common::{Numbers, Regression, alone, checkpoint, metrics, settings, tensors, train, train_until};
use hlrp_config::Hint;
use hlrp_train::{StopRequest, TrainError};

#[test]
fn three_batches_of_four_are_one_batch_of_twelve() {
    three_batches_are_one(false);
}

/// One sample of five is supervised: of twelve in a row two or three, and of four one or none.
#[test]
fn a_masked_mean_divides_by_the_supervised_values_of_all_batches() {
    three_batches_are_one(true);
}

/// As after an error for want of memory: with smaller batches, of which a step has more.
#[test]
fn a_resumed_run_may_divide_its_steps_otherwise() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, divided) = (folder.path().join("whole"), folder.path().join("divided"));
    let short = ["training.max_steps=3", "training.scheduler.warmup_steps=1", "training.checkpoint.every_n_steps=1"];
    let resume = format!("training.resume_from_checkpoint={}", checkpoint(&whole, 1).display());
    let train_with = |run_dir, batch_size: u64, words: &[&str]| {
        let size = format!("data.loader.batch_size={batch_size}");
        let words: Vec<&str> = short.iter().chain(words).copied().chain([size.as_str()]).collect();
        let (mut task, mut data) =
            (Regression::default().without_noise(), Numbers { batch_size, ..Numbers::default() });
        train_until(settings(run_dir, &words), &StopRequest::default(), &mut task, &mut data).map(drop)
    };
    train_with(&whole, 12, &[]).unwrap();
    train_with(&divided, 4, &[&resume, "training.gradient.accumulate_steps=3"]).unwrap();
    let (large, small) = (tensors(&whole, 3, "model.safetensors"), tensors(&divided, 3, "model.safetensors"));
    for (name, tensor) in large.iter().filter(|(name, _)| *name != "num_calls") {
        let error = (tensor - &small[name]).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{name} differs by {error}");
    }
    let refused = train_with(&folder.path().join("other"), 4, &[&resume, "training.gradient.accumulate_steps=2"]);
    let TrainError::Problem(problem) = refused.unwrap_err() else { panic!("no setting is named") };
    let text = "a step had 12 samples (data.loader.batch_size=12 on 1 process, training.gradient.accumulate_steps=1), it would have 8 \
                (data.loader.batch_size=4 on 1 process, training.gradient.accumulate_steps=2)";
    assert!(problem.to_string().contains(text) && Hint::hint(&problem).is_some(), "{problem}");
}

/// Where the order of the samples depends on the batch.
#[test]
fn a_resumed_run_keeps_the_batches_of_its_clips() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, divided) = (folder.path().join("whole"), folder.path().join("divided"));
    let clips = "data.loader.anchors_per_clip=4";
    train(settings(&whole, &[clips])).unwrap();
    let resume = format!("training.resume_from_checkpoint={}", checkpoint(&whole, 4).display());
    let words = [clips, &resume, "data.loader.batch_size=8", "training.gradient.accumulate_steps=2"];
    let error = train(settings(&divided, &words)).unwrap_err().to_string();
    assert!(error.contains("data.loader.anchors_per_clip is set, so the order of the samples depends on"), "{error}");
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
