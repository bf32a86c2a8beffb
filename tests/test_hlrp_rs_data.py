"""`hlrp_rs.Loader` gives what LeRobot reads, as batches of torch tensors, in an order that is a pure function of seed, rank and position."""

import itertools
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import DATA
from hlrp_rs import Dataset, HlrpError, HlrpValueError, Loader, open_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CHUNK = 30
CASES = {
    "embedded_images": {"camera": "observation.images.front", "size": (48, 64), "fps": 20},
    "pusht_scripted": {"camera": "observation.image", "size": (96, 96), "fps": 10},
    "metaworld_mt5": {"camera": "observation.image", "size": (128, 128), "fps": 80},
}


def open_case(name: str, **options):
    case = CASES[name]
    defaults = {
        "cameras": {"primary": case["camera"]},
        "image_size": case["size"],
        "image_deltas": [0, 2],
        "state_deltas": [-1, 0],
        "action_deltas": list(range(CHUNK)),
        "batch_size": 4,
    }
    return open_dataset(DATA / name, **defaults | options)


def same(a: dict, b: dict) -> bool:
    """Whether two batches are equal in everything."""
    if a.keys() != b.keys():
        return False

    def equal(x, y):
        if isinstance(x, dict):
            return x.keys() == y.keys() and all(equal(x[key], y[key]) for key in x)
        return torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y

    return all(equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", CASES)
def test_batches_hold_what_lerobot_reads(name):
    case = CASES[name]
    seconds = [delta / case["fps"] for delta in range(CHUNK)]
    deltas = {
        case["camera"]: [0.0, 2 / case["fps"]],
        "observation.state": [-1 / case["fps"], 0.0],
        "action": seconds,
    }
    theirs = LeRobotDataset(f"local/{name}", root=DATA / name, delta_timestamps=deltas)
    starts = {row["episode_index"]: row["dataset_from_index"] for row in theirs.meta.episodes}
    loader = Loader(open_case(name), seed=3)
    num_padded = 0
    for batch in itertools.islice(loader, 4):
        assert batch["images"]["primary"].dtype == torch.uint8
        for index, (episode, frame) in enumerate(zip(batch["episode"], batch["frame"], strict=True)):
            item = theirs[starts[int(episode)] + int(frame)]
            theirs_bytes = (item[case["camera"]] * 255).round().to(torch.uint8)
            torch.testing.assert_close(batch["images"]["primary"][index], theirs_bytes, rtol=0, atol=0)
            assert torch.equal(batch["is_real"]["primary"][index], ~item[f"{case['camera']}_is_pad"])
            assert torch.equal(batch["state"][index], item["observation.state"])
            assert torch.equal(batch["state_is_pad"][index], item["observation.state_is_pad"])
            assert torch.equal(batch["action"][index], item["action"])
            assert torch.equal(batch["action_is_pad"][index], item["action_is_pad"])
            assert batch["task"][index] == item["task"]
            assert batch["source"][index] == name
            assert batch["dt"][index].item() == pytest.approx(2 / case["fps"])
            num_padded += int(item["action_is_pad"].sum() + item["observation.state_is_pad"].sum())
    assert num_padded > 0, "some samples lie at an episode's end"


def test_frames_that_the_device_resizes_are_those_of_the_decode_threads_but_for_rounding():
    """`data.resize=device`: the trainer resizes by the rule of the decode threads."""
    size = (64, 48)
    host = open_case("metaworld_mt5", image_size=size)
    device = Dataset(host.config | {"resize": "device"}, size)
    for on_host, on_device in zip(
        *(itertools.islice(Loader(dataset, seed=3), 4) for dataset in (host, device)), strict=True
    ):
        images = [batch.pop("images")["primary"] for batch in (on_host, on_device)]
        assert images[0].shape == images[1].shape == (4, 2, 3, *size)
        distance = (images[0].int() - images[1].int()).abs()
        assert distance.max() <= 1
        assert distance.float().mean() < 0.12, "the decode threads round twice, after each direction"
        assert same(on_host, on_device)
    with pytest.raises(HlrpValueError, match="data.resize: the frame cache holds frames that the host has resized"):
        Dataset(device.config | {"cache": device.config["cache"] | {"enabled": True}}, size)


def test_robots_of_different_widths_are_padded_and_the_batch_says_where():
    roots = {"wide": DATA / "metaworld_mt5", "narrow": DATA / "pusht_scripted"}
    dataset = open_dataset(roots, cameras={"primary": "observation.image"}, image_size=(16, 16), batch_size=8)
    seen = set()
    for batch in itertools.islice(Loader(dataset, seed=0), 6):
        for index, source in enumerate(batch["source"]):
            is_pad = torch.tensor([False, False, source == "narrow", source == "narrow"])
            seen.add(source)
            for vector in ("state", "action"):
                assert torch.equal(batch[f"{vector}_dim_is_pad"][index], is_pad)
                assert (batch[vector][index][:, is_pad] == 0).all()
    assert seen == {"wide", "narrow"}


def test_a_pass_shows_every_sample_once():
    dataset = open_case("embedded_images", batch_size=1)
    loader = Loader(dataset, seed=0)
    seen = [(int(batch["episode"]), int(batch["frame"])) for batch in loader]
    assert len(seen) == len(loader) == dataset.num_train_samples == len(set(seen))
    again = [(int(batch["episode"]), int(batch["frame"])) for batch in loader]
    assert sorted(again) == sorted(seen)
    assert again != seen, "the next epoch has another order"


def test_passes_of_uneven_batches_stay_in_step():
    dataset = open_case("embedded_images", batch_size=5)
    loader = Loader(dataset, seed=0)
    assert len(loader) == -(-dataset.num_train_samples // 5)
    whole = [batch for _ in range(2) for batch in loader]
    assert len(whole) == 2 * len(loader)
    left_early = Loader(dataset, seed=0)
    first = list(itertools.islice(left_early, 3))
    rest = list(left_early)
    assert len(first) + len(rest) == len(loader)
    assert all(same(a, b) for a, b in zip([*first, *rest], whole, strict=False))


def test_a_loader_goes_on_where_another_stopped():
    dataset = open_case("pusht_scripted")
    straight = Loader(dataset, seed=7)
    batches = list(itertools.islice(straight, 6))
    stopped = Loader(dataset, seed=7)
    for _ in itertools.islice(stopped, 2):
        pass
    position = stopped.position
    assert position == {"epoch": 0, "sample": 8, "num_bad_samples": 0}
    resumed = Loader(dataset, seed=7, position=position)
    assert all(same(a, b) for a, b in zip(batches[2:], resumed, strict=False))


def test_threads_do_not_change_what_comes():
    one, four = (Loader(open_case("pusht_scripted", num_workers=count), seed=1) for count in (1, 4))
    assert all(same(a, b) for a, b in itertools.islice(zip(one, four, strict=True), 4))


def test_ranks_share_an_epoch_without_overlap():
    dataset = open_case("embedded_images", batch_size=2)
    ranks = [Loader(dataset, seed=0, rank=rank, world_size=2) for rank in range(2)]
    single = list(itertools.islice(Loader(dataset, seed=0), 4))
    together = list(itertools.islice(zip(*ranks, strict=True), 2))
    frames = [int(f) for pair in together for places in zip(*(b["frame"] for b in pair), strict=True) for f in places]
    assert frames == [int(f) for batch in single for f in batch["frame"]]
    assert all(len(rank) == -(-dataset.num_train_samples // 4) for rank in ranks)


def test_an_epoch_can_be_chosen():
    dataset = open_case("embedded_images", batch_size=1)
    loader = Loader(dataset, seed=0)
    list(loader)
    later = Loader(dataset, seed=0, epoch=1)
    assert all(same(a, b) for a, b in itertools.islice(zip(loader, later, strict=True), 5))


def test_validation_is_one_fixed_pass():
    dataset = open_case("pusht_scripted", num_val_episodes=2)
    passes = [list(dataset.validation()) for _ in range(2)]
    assert dataset.validation().num_batches == len(passes[0])
    assert sum(len(batch["task"]) for batch in passes[0]) == dataset.num_validation_samples
    assert all(same(a, b) for a, b in zip(*passes, strict=True))
    held_out = {int(episode) for batch in passes[0] for episode in batch["episode"]}
    assert len(held_out) == 2
    assert len(list(dataset.validation(limit_batches=2))) == 2
    trained = {int(e) for batch in itertools.islice(Loader(dataset, seed=0), 40) for e in batch["episode"]}
    assert not trained & held_out


def test_frames_come_in_the_wanted_size_and_from_the_cache_too(tmp_path):
    direct = open_case("pusht_scripted", image_size=(32, 32))
    cached = open_case("pusht_scripted", image_size=(32, 32), cache_dir=tmp_path)
    batches = [next(iter(Loader(dataset, seed=0))) for dataset in (direct, cached)]
    assert batches[0]["images"]["primary"].shape == (4, 2, 3, 32, 32)
    assert same(*batches)
    assert any(tmp_path.iterdir())


def test_several_datasets_make_one_stream():
    roots = {"a": DATA / "pusht_scripted", "b": DATA / "metaworld_mt5"}
    camera = {"primary": "observation.image"}
    dataset = open_dataset(roots, cameras=camera, image_size=(64, 64), batch_size=16)
    batch = next(iter(Loader(dataset, seed=0)))
    assert set(batch["source"]) == {"a", "b"}
    assert batch["action"].shape == (16, 1, 4), "narrower actions are padded to the widest"


def test_an_rlds_dataset_opens_with_what_it_does_not_say_itself():
    dataset = open_dataset(
        DATA / "rlds/bridge/0.1.0",
        cameras={"primary": "observation/image"},
        image_size=(32, 32),
        state_key="observation/state",
        action_key="action/world_vector",
        rlds={"split": "train", "val_split": "val", "fps": 5, "task_key": "observation/natural_language_instruction"},
        batch_size=4,
    )
    batch = next(iter(Loader(dataset, seed=0)))
    assert batch["images"]["primary"].shape == (4, 1, 3, 32, 32)
    assert batch["action"].shape == (4, 1, 3)
    assert "open drawer" in batch["task"]


def test_a_stream_feeds_a_training_loop():
    dataset = open_case("pusht_scripted", batch_size=8)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-6)
    for batch in itertools.islice(Loader(dataset, seed=0), 5):
        loss = (layer(batch["state"][:, -1]) - batch["action"][:, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)


def test_tensors_outlive_the_loader():
    loader = Loader(open_case("embedded_images"), seed=0)
    batch = next(iter(loader))
    copy = batch["images"]["primary"].clone()
    del loader
    assert torch.equal(batch["images"]["primary"], copy)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="/no/dataset"):
        open_dataset("/no/dataset", cameras={"primary": "x"}, image_size=(8, 8))
    with pytest.raises(HlrpValueError, match="observation.images.none"):
        open_case("embedded_images", cameras={"primary": "observation.images.none"})
    with pytest.raises(HlrpValueError, match="0.5 is not a whole number of frames"):
        open_case("embedded_images", image_deltas=[0, 0.5])
    with pytest.raises(HlrpValueError, match="data: .*`batchsize`"):
        open_case("embedded_images", batchsize=3)
    dataset = open_case("embedded_images")
    with pytest.raises(HlrpValueError, match="rank 2 of 2 processes does not exist"):
        Loader(dataset, seed=0, rank=2, world_size=2)
    with pytest.raises(HlrpValueError, match="cannot continue at sample 100000"):
        Loader(dataset, seed=0, position={"epoch": 0, "sample": 100000, "num_bad_samples": 0})


def test_a_sample_that_cannot_be_decoded_is_an_error_or_a_warning(tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(DATA / "pusht_scripted", root)
    video = next(root.glob("videos/**/*.mp4"))
    content = bytearray(video.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    video.write_bytes(content)
    options = {"cameras": {"primary": "observation.image"}, "image_size": (96, 96), "batch_size": 4}
    with pytest.raises(HlrpError, match="could not be decoded"):
        list(Loader(open_dataset(root, **options), seed=0))
    tolerant = Loader(open_dataset(root, max_bad_samples=100000, **options), seed=0)
    with pytest.warns(UserWarning, match="could not be decoded and were replaced"):
        list(tolerant)


def test_every_epoch_is_a_whole_pass():
    """Whatever its number, and whether or not the batches fit the samples; a loader at a position finishes the pass that was begun."""
    dataset = open_case("embedded_images", episodes=[0], image_deltas=[0], action_deltas=[0], state_deltas=[0])
    num_batches = -(-dataset.num_train_samples // 4)
    assert dataset.num_train_samples % 4, "the last batch of a pass is not of this epoch alone"
    for epoch in range(4):
        loader = Loader(dataset, seed=0, epoch=epoch)
        passes = [[batch["frame"].tolist() for batch in loader] for _ in range(2)]
        assert [len(batches) for batches in passes] == [num_batches, num_batches], f"epoch {epoch}"
        seen = [frame for batch in passes[0] for frame in batch][: dataset.num_train_samples]
        assert sorted(seen) == sorted(set(seen)), "a pass shows every sample once"

    whole = Loader(dataset, seed=0)
    next(iter(whole))
    assert len(list(Loader(dataset, seed=0, position=whole.position))) == num_batches - 1


# What a child process does with a loader of its parent; an alarm ends it if it waits for ever.
FORK = """
import os, signal, sys
from hlrp_rs import Dataset, HlrpError, Loader, open_dataset
dataset = open_dataset(sys.argv[1], cameras={"p": "observation.images.front"}, image_size=(48, 64), batch_size=2, num_workers=1)
batches = iter(Loader(dataset, seed=0))
next(batches)
if os.fork() == 0:
    signal.alarm(20)
    try:
        {work}
    except HlrpError as error:
        print(error, flush=True)
    del batches, dataset
    os._exit(0)
print("child ended with", os.waitstatus_to_exitcode(os.wait()[1]))
next(batches)
"""


@pytest.mark.parametrize("work", ["next(batches)", "Loader(dataset, seed=0)", "next(iter(dataset.validation()))"])
def test_a_forked_child_is_told_to_open_the_dataset_itself(work):
    """Threads do not survive a fork. The parent's loader goes on."""
    script = FORK.replace("{work}", work).replace("num_workers=1", "num_workers=1, num_val_episodes=1")
    command = [sys.executable, "-c", script, str(DATA / "embedded_images")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "this loader belongs to process" in result.stdout and "open the dataset in the worker" in result.stdout
    assert "child ended with 0" in result.stdout
