"""Makes the small datasets of tests/data that LeRobot's own demos do not cover, and what LeRobot reads of them.

    .venv/bin/python tests/support/make_fixtures.py [NAME ...]

For each name a folder tests/data/NAME and a file tests/data/oracle_NAME.jsonl, which `make oracle` compares with what
this project reads. A folder that is there already is left alone.
"""

import argparse
import hashlib
import json
from pathlib import Path

import av
import numpy as np
import torch
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

DATA = Path(__file__).parent.parent / "data"
CAMERA = "observation.images.front"
FPS = 20
# LeRobot finds a wrong frame where pictures before a key picture build on it (and says so): nothing to compare with.
NO_ORACLE = {"hevc_open_gop"}

EPISODE_LENGTHS = [30, 7, 25]
PAIR_DELTA = 5
ACTION_CHUNK = 8

# Names to (height, width), encoder. The encoder of embedded pictures is None.
FIXTURES = {
    "h264_bframes": ((48, 64), RGBEncoderConfig(vcodec="h264", g=12, crf=23, extra_options={"bf": "3"})),
    "h264_bt709": (
        (36, 52),
        RGBEncoderConfig(vcodec="h264", g=10, crf=23, extra_options={"x264-params": "colormatrix=bt709"}),
    ),
    "hevc": ((48, 64), RGBEncoderConfig(vcodec="hevc", g=12, crf=23, extra_options={"x265-params": "open-gop=0"})),
    "hevc_open_gop": ((48, 64), RGBEncoderConfig(vcodec="hevc", g=12, crf=23)),
    "embedded_images": ((48, 64), None),
}


def picture(rng, t, height, width):
    """A soft coloured background with a square that moves."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack(
        [128 + 100 * np.sin(x / 9 + t / 5), 128 + 90 * np.cos(y / 7 - t / 6), 40 + 3 * ((x + y + t) % 60)], -1
    )
    top, left = (3 * t) % (height - 8), (5 * t) % (width - 8)
    image[top : top + 8, left : left + 8] = (250, 20, 30)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def record(root, size, encoder):
    height, width = size
    features = {
        CAMERA: {
            "dtype": "video" if encoder else "image",
            "shape": (height, width, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["dx", "dy"]},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    }
    extra = {"rgb_encoder": encoder} if encoder else {}
    dataset = LeRobotDataset.create(
        f"local/{root.name}", FPS, features, root=root, robot_type="none", use_videos=bool(encoder), **extra
    )
    rng = np.random.default_rng(0)
    for episode, length in enumerate(EPISODE_LENGTHS):
        for t in range(length):
            dataset.add_frame(
                {
                    CAMERA: picture(rng, t + 13 * episode, height, width),
                    "observation.state": rng.normal(size=3).astype(np.float32),
                    "action": rng.normal(size=2).astype(np.float32),
                    "next.done": np.array([t == length - 1]),
                    "task": ["follow the square", "wait"][episode % 2],
                }
            )
        dataset.save_episode()
    dataset.finalize()


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return value


def rgb(image):
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return {
        "shape": list(pixels.shape),
        "mean": [round(float(mean), 4) for mean in pixels.reshape(-1, 3).mean(0)],
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }


def planes(path, number):
    """The picture of this number in a file, decoded in order by PyAV: its time, pixel format and hash."""
    with av.open(str(path)) as container:
        for at, frame in enumerate(container.decode(video=0)):
            if at == number:
                packed = b""
                for plane in frame.planes:
                    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                    packed += rows[:, : plane.width].tobytes()
                return frame.time, frame.format.name, hashlib.sha256(packed).hexdigest()
    raise IndexError(number)


def oracle(root, out):
    name = f"local/{root.name}"
    dataset = LeRobotDataset(name, root=root)
    meta = dataset.meta
    features = {key: {"dtype": f["dtype"], "shape": list(f["shape"])} for key, f in meta.features.items()}
    lines = [
        {
            "kind": "header",
            "root": root.name,
            "fps": meta.fps,
            "episodes": meta.total_episodes,
            "frames": meta.total_frames,
            "cameras": meta.camera_keys,
            "features": features,
        }
    ]
    for index, episode in enumerate(meta.episodes):
        videos = {
            key: {
                "file": str(meta.get_video_file_path(index, key)),
                "from": episode[f"videos/{key}/from_timestamp"],
                "to": episode[f"videos/{key}/to_timestamp"],
            }
            for key in meta.video_keys
        }
        lines.append(
            {
                "kind": "episode",
                "episode": index,
                "start": episode["dataset_from_index"],
                "end": episode["dataset_to_index"],
                "length": episode["length"],
                "tasks": episode["tasks"],
                "data": str(meta.get_data_file_path(index)),
                "videos": videos,
            }
        )
    rng = np.random.default_rng(1)
    columns = [key for key in meta.features if key not in meta.camera_keys]
    for row in sorted(rng.choice(len(dataset), 20, replace=False).tolist()):
        item = dataset[row]
        line = {"kind": "frame", "i": row, "cams": {}}
        for key in meta.camera_keys:
            line["cams"][key] = rgb(item[key])
            if key in meta.video_keys:
                episode = meta.episodes[int(item["episode_index"])]
                time = episode[f"videos/{key}/from_timestamp"] + float(item["timestamp"])
                number = round(time * meta.fps)
                file = str(meta.get_video_file_path(int(item["episode_index"]), key))
                pts, pixel_format, sha256 = planes(root / file, number)
                line["cams"][key] |= {"n": number, "pts": pts, "pix_fmt": pixel_format, "yuv_sha256": sha256}
        lines.append(line | {key: plain(item[key]) for key in columns} | {"task": item["task"]})
    for delta in (PAIR_DELTA, -2):
        windows = {key: [0, delta / meta.fps] for key in [*meta.camera_keys, "observation.state"]}
        windows["action"] = [step / meta.fps for step in range(ACTION_CHUNK)]
        pairs = LeRobotDataset(name, root=root, delta_timestamps=windows)
        borders = [0, 1, 27, 29, 30, 33, 36, 37, len(dataset) - 1]
        for row in sorted({*borders, *rng.choice(len(dataset), 8, replace=False).tolist()}):
            item = pairs[row]
            line = {"kind": "pair", "i": row, "k": delta}
            line["cams"] = {key: [rgb(image) for image in item[key]] for key in meta.camera_keys}
            line |= {key: plain(item[key]) for key in columns}
            line |= {f"{key}_is_pad": plain(item[f"{key}_is_pad"]) for key in windows}
            lines.append(line | {"task": item["task"]})
    out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(FIXTURES)}; all when absent")
    for name in parser.parse_args().names or FIXTURES:
        root = DATA / name
        if root.exists():
            print(f"{root} is there already")
        else:
            size, encoder = FIXTURES[name]
            record(root, size, encoder)
        if name not in NO_ORACLE:
            oracle(root, DATA / f"oracle_{name}.jsonl")
        print(f"{root}: {sum(file.stat().st_size for file in root.rglob('*') if file.is_file()) // 1024} KiB")


if __name__ == "__main__":
    main()
