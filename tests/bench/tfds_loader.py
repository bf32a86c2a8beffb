"""Random pairs of an RLDS dataset through tensorflow-datasets: one JSON line of rates.

The peer of `bench_loader` (rust/data/examples): the same frames, state and action of each anchor whose frames are all in its episode.

  write     writes a LeRobot dataset as RLDS with TensorFlow Datasets' own writer (JPEG images), episodes as they are
  decoded   tfds decodes each image of an episode once; pairs of images pass through a shuffle buffer
  encoded   images are decoded behind a shuffle buffer of encoded pairs, which holds more of them in the same memory
  exact     the same with libjpeg's exact transform; TensorFlow's default is an approximation that is off by up to 16 levels
  frames    writes the images of the first rows (`uint8 [T,3,H,W]`), decoded exactly, to be compared with ours
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402

NAME = "bench_rlds"
NUM_SHARDS = 4
EXACT = "INTEGER_ACCURATE"


def write(root: Path, out: Path) -> None:
    import tensorflow_datasets as tfds
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    source = LeRobotDataset("local/bench", root=root, return_uint8=True)
    (camera,) = source.meta.camera_keys
    features, rows = tfds.features, source.hf_dataset.with_format("numpy")

    def vector(key: str) -> tfds.features.Tensor:
        return features.Tensor(shape=source.meta.shapes[key], dtype=np.float32)

    image = features.Image(shape=source.meta.shapes[camera], dtype=np.uint8, encoding_format="jpeg")
    observation = features.FeaturesDict({"image": image, "state": vector("observation.state")})
    steps = features.Dataset(
        {"observation": observation, "action": vector("action"), "language_instruction": features.Text()}
    )

    class Builder(tfds.core.GeneratorBasedBuilder):
        name = NAME
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features.FeaturesDict({"steps": steps}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            bounds = zip(
                source.meta.episodes["dataset_from_index"], source.meta.episodes["dataset_to_index"], strict=True
            )
            for episode, (start, end) in enumerate(bounds):
                yield episode, {"steps": [step(row) for row in range(start, end)]}

    def step(row: int) -> dict:
        sample, vectors = source[row], rows[row]
        return {
            "observation": {"image": sample[camera].permute(1, 2, 0).numpy(), "state": vectors["observation.state"]},
            "action": vectors["action"],
            "language_instruction": sample["task"],
        }

    builder = Builder(data_dir=out)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=NUM_SHARDS))


def pipeline(root: Path, deltas: list[int], batch_size: int, buffer: int, kind: str):
    """Endless batches of random pairs."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    builder = tfds.builder_from_directory(root)
    # One thread, as every program of this comparison has one that decodes; more of them cost more CPU time for the same samples.
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    skip = {"steps": {"observation": {"image": tfds.decode.SkipDecoding()}}} if kind != "decoded" else None
    read = tfds.ReadConfig(try_autocache=False, shuffle_seed=0, options=options)
    episodes = builder.as_dataset(split="train", shuffle_files=True, decoders=skip, read_config=read).repeat()
    reach = max(deltas)

    def samples(episode: dict) -> tf.data.Dataset:
        steps = episode["steps"].batch(tf.cast(episode["steps"].cardinality(), tf.int64)).get_single_element()
        starts = tf.data.Dataset.range(tf.cast(tf.shape(steps["action"])[0], tf.int64) - reach)

        def sample(start: tf.Tensor) -> dict:
            return {
                "image": tf.gather(steps["observation"]["image"], start + tf.constant(deltas, tf.int64)),
                "state": steps["observation"]["state"][start],
                "action": steps["action"][start],
            }

        return starts.map(sample)

    shape = builder.info.features["steps"]["observation"]["image"].shape

    method = EXACT if kind == "exact" else ""

    def decoded(sample: dict) -> dict:
        images = [tf.io.decode_jpeg(sample["image"][i], channels=3, dct_method=method) for i in range(len(deltas))]
        return sample | {"image": tf.stack([tf.ensure_shape(image, shape) for image in images])}

    pairs = episodes.flat_map(samples).shuffle(buffer, seed=0)
    pairs = pairs if kind == "decoded" else pairs.map(decoded)
    return tfds.as_numpy(pairs.batch(batch_size, drop_remainder=True).prefetch(1))


def write_frames(root: Path, num: int) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    read = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    skip = {"steps": {"observation": {"image": tfds.decode.SkipDecoding()}}}
    episodes = tfds.builder_from_directory(root).as_dataset(split="train", decoders=skip, read_config=read)
    images: list[np.ndarray] = []
    for episode in tfds.as_numpy(episodes):
        encoded = (step["observation"]["image"] for step in episode["steps"])
        images.extend(tf.io.decode_jpeg(image, channels=3, dct_method=EXACT).numpy() for image in encoded)
        if len(images) >= num:
            break
    frames = np.stack(images[:num]).transpose(0, 3, 1, 2)
    sys.stdout.buffer.write(b"%d %d\n" % frames.shape[2:] + frames.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("write", "decoded", "encoded", "exact", "frames"))
    parser.add_argument("root", type=Path, help="folder of an RLDS dataset; with `write`, of the LeRobot dataset")
    parser.add_argument("--out", type=Path, help="with `write`: folder for the RLDS dataset")
    parser.add_argument("--deltas", type=lambda text: [int(word) for word in text.split(",")], default=[0, 5])
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--buffer", type=int, default=256, help="pairs of the shuffle buffer")
    parser.add_argument("--num-frames", type=int, default=16, help="with `frames`: how many")
    args = parser.parse_args()
    if args.kind == "write":
        write(args.root, args.out)
        return
    if args.kind == "frames":
        write_frames(args.root, args.num_frames)
        return
    start = time.perf_counter()
    batches = iter(pipeline(args.root, args.deltas, args.batch_size, args.buffer, args.kind))
    first = next(batches)
    first_batch_s = time.perf_counter() - start
    assert first["image"].shape[:2] == (args.batch_size, len(args.deltas)) and first["image"].dtype == np.uint8
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(args.batches):
        next(batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    num_samples = args.batches * args.batch_size
    print(
        json.dumps(
            {"samples_per_s": num_samples / wall, "cpu_s_per_sample": cpu / num_samples, "first_batch_s": first_batch_s}
        )
    )


if __name__ == "__main__":
    main()
