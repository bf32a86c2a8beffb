//! Memory that runs out: an error with step, sizes and last checkpoint, where the bindings of libtorch panic.

use crate::common::{Numbers, Regression, alone, checkpoint, settings, train_until};
use hlrp_config::with_hint;
use hlrp_track::exit_code;
use hlrp_train::{Checkpoint, EXIT_CODES, StopRequest};
use tch::{Device, Kind, Tensor};

#[test]
fn the_step_the_sizes_and_the_last_checkpoint_are_named() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let mut task = Regression::default().calling(|step| {
        if step == 6 {
            let _ = Tensor::zeros([1 << 46], (Kind::Float, Device::Cpu)); // 256 TiB: more than addresses reach
        }
    });
    let outcome = train_until(settings(&run_dir, &[]), &StopRequest::default(), &mut task, &mut Numbers::default());
    let error = outcome.unwrap_err();
    assert_eq!(exit_code::of(&error, EXIT_CODES), exit_code::OUT_OF_MEMORY);
    let text = with_hint(&error);
    assert!(text.starts_with("out of memory in step 6: "), "{text}");
    assert!(
        text.contains("data.loader.batch_size=16") && text.contains("hint: lower data.loader.batch_size"),
        "{text}"
    );
    assert!(text.contains(&format!("last checkpoint: {}", checkpoint(&run_dir, 5).display())), "{text}");
    assert_eq!(Checkpoint::open(&run_dir).unwrap().state().step, 5, "it is whole");
}

#[test]
fn another_panic_is_reported_as_a_defect() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut task = Regression::default().calling(|step| assert!(step < 3, "step {step} is too much"));
    let settings = settings(&folder.path().join("run"), &[]);
    let outcome = train_until(settings, &StopRequest::default(), &mut task, &mut Numbers::default());
    let text = with_hint(&outcome.unwrap_err());
    assert!(text.contains("step 3 is too much") && text.contains("hint: this is a defect"), "{text}");
}
