"""Writes a dataset that is a twenty-fifth of 24 million samples: a LeRobot v3 dataset of 25,566 episodes over one real video, or with --rlds an
RLDS dataset of 25,600 episodes in 1024 shards.

`bench_loader FOLDER --sources 25` then shows how soon the first batch of such a mixture comes. Episodes of LeRobot are stretches of the recordings in
tests/data/metaworld_mt5; a data file holds 1000 of them, a row group one, as LeRobot's recorder writes. Every shard of RLDS has the same 25 episodes
of small JPEG images, as many frames as those of LeRobot, in a file of its own, as large datasets of Open X-Embodiment have them.
"""

import argparse
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

SEED = Path(__file__).parents[1] / "data" / "metaworld_mt5"
NUM_EPISODES = 25_566
EPISODES_PER_FILE = 1000
CAMERA = "videos/observation.image"
NUM_SHARDS, EPISODES_PER_SHARD = 1024, 25

sys.path.append(str(Path(__file__).parents[1] / "support"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--rlds", action="store_true", help="writes RLDS")
    args = parser.parse_args()
    (write_rlds if args.rlds else write_lerobot)(args.out)


def write_rlds(out: Path) -> None:
    from tfrecords import tensor, write

    image = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(
        image, "JPEG", quality=30
    )
    features = {
        "action": tensor("float32", 4),
        "observation": {"featuresDict": {"features": {"state": tensor("float32", 4)}}},
    }
    camera = {"image": {"dtype": "uint8", "encodingFormat": "jpeg", "shape": {"dimensions": ["32", "32", "3"]}}}
    features["observation"]["featuresDict"]["features"]["image"] = camera

    def episode(number: int) -> dict[str, list]:
        num_steps = 40 + number % 8
        vectors = {f"steps/{key}": [0.5] * 4 * num_steps for key in ("action", "observation/state")}
        return vectors | {"steps/observation/image": [image.getvalue()] * num_steps}

    write(out, [[episode(number) for number in range(EPISODES_PER_SHARD)]], features)
    (shard,) = out.glob("made-train.*")
    for number in range(NUM_SHARDS):
        shutil.copyfile(shard, out / f"made-train.tfrecord-{number:05}-of-{NUM_SHARDS:05}")
    shard.unlink()
    info = json.loads((out / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = [str(EPISODES_PER_SHARD)] * NUM_SHARDS
    (out / "dataset_info.json").write_text(json.dumps(info))


def write_lerobot(out: Path) -> None:
    out.mkdir(parents=True)
    shutil.copytree(SEED / "videos", out / "videos")
    shutil.copytree(SEED / "meta", out / "meta", ignore=shutil.ignore_patterns("episodes"))

    seed_episodes = pq.read_table(SEED / "meta/episodes/chunk-000/file-000.parquet")
    tile = seed_episodes.take(np.arange(NUM_EPISODES) % seed_episodes.num_rows)
    lengths = np.minimum(tile["length"].to_numpy(), 40 + np.arange(NUM_EPISODES) % 8)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    files = np.arange(NUM_EPISODES) // EPISODES_PER_FILE
    columns = {
        "episode_index": np.arange(NUM_EPISODES),
        "length": lengths,
        "dataset_from_index": starts[:-1],
        "dataset_to_index": starts[1:],
        "data/chunk_index": files // 1000,
        "data/file_index": files % 1000,
    }
    for name, values in columns.items():
        place = tile.schema.get_field_index(name)
        tile = tile.set_column(place, name, pa.array(values, tile.schema.field(name).type))
    (out / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(tile, out / "meta/episodes/chunk-000/file-000.parquet")

    info = json.loads((SEED / "meta/info.json").read_text())
    info |= {"total_episodes": NUM_EPISODES, "total_frames": int(starts[-1]), "splits": {"train": f"0:{NUM_EPISODES}"}}
    (out / "meta/info.json").write_text(json.dumps(info, indent=4))
    write_data(out, info["fps"], lengths, starts)


def write_data(out: Path, fps: int, lengths: np.ndarray, starts: np.ndarray) -> None:
    schema = pq.ParquetFile(SEED / "data/chunk-000/file-000.parquet").schema_arrow
    random = np.random.default_rng(0)
    (out / "data/chunk-000").mkdir(parents=True)
    for file in range(-(-NUM_EPISODES // EPISODES_PER_FILE)):
        with pq.ParquetWriter(out / f"data/chunk-000/file-{file:03}.parquet", schema, compression="snappy") as writer:
            for episode in range(file * EPISODES_PER_FILE, min((file + 1) * EPISODES_PER_FILE, NUM_EPISODES)):
                frame = np.arange(lengths[episode])
                vector = pa.FixedSizeListArray.from_arrays(random.random(4 * len(frame), np.float32), 4)
                rows = {
                    "observation.state": vector,
                    "action": vector,
                    "timestamp": (frame / fps).astype(np.float32),
                    "frame_index": frame,
                    "episode_index": np.full(len(frame), episode),
                    "index": starts[episode] + frame,
                    "task_index": np.zeros(len(frame), np.int64),
                }
                writer.write_table(pa.table(rows, schema=schema))


if __name__ == "__main__":
    main()
