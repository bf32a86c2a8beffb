//! A teacher is what its checkpoint says.

use crate::fixtures::distance;
use crate::stage_1::{pairs, run_of_stage_1};
use hlrp_config::with_hint;
use hlrp_laq::{LaqInference, Parts};
use hlrp_schema::policy::LatentShape;
use hlrp_vla::{Teacher, TeacherInit};
use tch::{Device, Kind, Tensor};

#[test]
fn labels_with_the_codebook_rows_of_its_checkpoint() {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = run_of_stage_1(parent.path());
    let teacher = Teacher::load(&run_dir, TeacherInit::Trained, Device::Cpu).unwrap();
    let laq = LaqInference::load(&run_dir, Parts::Encoder, Device::Cpu).unwrap();

    // Labels: the vectors of the codes; a pair with a frame that is not real does not count.
    let pairs = pairs();
    let is_real_BT = Tensor::from_slice(&[true, true, true, false, false, true, true, true]).view([4, 2]);
    let labels = teacher.label(&pairs, &is_real_BT).unwrap();
    // scaled to mean 0 and std 1 over the codebook.
    let num_codes = laq.dims().codebook_size;
    let codebook = laq.code_vectors(&Tensor::arange(num_codes, (Kind::Int64, Device::Cpu)).unsqueeze(1)).unwrap();
    let (mean, std) =
        (codebook.mean_dim([0].as_slice(), true, Kind::Float), codebook.std_dim([0].as_slice(), false, true));
    let expected_BSD = (laq.code_vectors(&laq.codes(&pairs).unwrap()).unwrap() - mean) / std;
    assert!(distance(labels.vectors_BSD.as_ref().unwrap(), &expected_BSD) < 1e-5);
    assert_eq!(Vec::<bool>::try_from(&labels.is_valid_B).unwrap(), [true, false, false, true]);

    // Frames of another size are brought to the teacher's: of a plain colour nothing is lost.
    let plain = |side: i64| {
        let colour_BT = Tensor::from_slice(&[10_u8, 200, 40, 90, 250, 0, 128, 127]).view([4, 2, 1, 1, 1]);
        colour_BT.expand([4, 2, 3, side, side], false).contiguous()
    };
    let vectors_BSD = |side: i64| teacher.label(&plain(side), &is_real_BT).unwrap().vectors_BSD.unwrap();
    assert_eq!(distance(&vectors_BSD(48), &vectors_BSD(32)), 0.0);

    // Sizes come from the checkpoint.
    let own = teacher.identity().latent();
    assert_eq!(own, LatentShape { code_seq_len: laq.dims().code_seq_len, code_dim: 8, codebook_size: Some(num_codes) });
    assert_eq!(teacher.identity().sha256.len(), 64);
}

#[test]
fn a_folder_that_is_no_checkpoint_of_stage_1_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    let error = with_hint(&Teacher::load(empty.path(), TeacherInit::Trained, Device::Cpu).err().unwrap());
    assert!(error.contains(&empty.path().display().to_string()) && error.contains("hint:"), "{error}");
}

/// Bytes that this thread has read from files.
fn bytes_read() -> u64 {
    let counts = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn a_load_compares_every_file_with_its_digest_once() {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = run_of_stage_1(parent.path());
    let size = |path: &std::path::Path| path.metadata().unwrap().len();
    let checkpoint = run_dir.join("checkpoints/step-000002");
    let all: u64 = std::fs::read_dir(&checkpoint).unwrap().map(|entry| size(&entry.unwrap().path())).sum();
    let before = bytes_read();
    Teacher::load(&run_dir, TeacherInit::Trained, Device::Cpu).unwrap();
    let read = bytes_read() - before;
    // Once for the digests, the weights once more to load them, and small files.
    let once = all + size(&checkpoint.join("model.safetensors"));
    assert!(read >= all && read < once + all / 4, "{read} bytes of {all} were read");
}
