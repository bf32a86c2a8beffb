"""Datasets as batches of torch tensors, for any training loop in Python."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from hlrp_rs._core import Dataset, compose_config
from hlrp_rs.types import Batch, Position


def config_folder() -> Path:
    """The configuration tree that came with the package; in a checkout of the project, the repository's."""
    repository = Path(__file__).parents[2]
    return (repository if (repository / "pyproject.toml").is_file() else Path(__file__).parent) / "config"


def open_dataset(
    roots: str | Path | Mapping[str, str | Path],
    *,
    cameras: Mapping[str, str],
    image_size: tuple[int, int],
    state_key: str | None = "observation.state",
    action_key: str | None = "action",
    episodes: Sequence[int] | None = None,
    num_val_episodes: int = 0,
    tolerance_s: float | None = None,
    unit: Literal["frames", "seconds"] = "frames",
    image_deltas: Sequence[float] = (0,),
    state_deltas: Sequence[float] = (0,),
    action_deltas: Sequence[float] = (0,),
    cache_dir: str | Path | None = None,
    rlds: Mapping[str, str | float | None] | None = None,
    **loader: int,
) -> Dataset:
    """Opens datasets of any format that hlrp reads, LeRobot's and RLDS.

    `roots`: folder of a dataset, or names to folders. `cameras`: role to feature key. `image_size`: height and width in pixels that frames are
    resized to (antialiased; decoded frames of that size stay as they are). `episodes`: those in use, all when `None`.
    `tolerance_s`: largest difference in seconds between the recorded time of a row and that of its frame; LeRobot's 1e-4 when `None`.
    `unit`, `*_deltas`: offsets of what a sample consists of from its anchor frame, in frames or seconds. `cache_dir`: where decoded frames are kept
    from then on. `rlds`: what an RLDS dataset does not say itself, all of `split`, `val_split`, `fps` and `task_key`. `loader`: keys of section
    `data.loader`, such as `batch_size`, `num_workers` or `anchors_per_clip`; the others have the values of `config/data/lerobot.yaml`.
    """
    named = roots if isinstance(roots, Mapping) else {Path(roots).name: roots}
    config = compose_config(["~experiment", "+data=lerobot", "experiment.name=dataset"], config_folder())["data"]
    config["sources"] = {
        name: {
            "root": str(root),
            "cameras": dict(cameras),
            "state_key": state_key,
            "action_key": action_key,
            "episodes": None if episodes is None else list(episodes),
            "num_val_episodes": num_val_episodes,
            "tolerance_s": tolerance_s,
            "rlds": None if rlds is None else dict(rlds),
        }
        for name, root in named.items()
    }
    config["request"] = {
        "unit": unit,
        "image_deltas": list(image_deltas),
        "state_deltas": list(state_deltas),
        "action_deltas": list(action_deltas),
    }
    config["loader"] |= loader
    if cache_dir is not None:
        config["cache"] |= {"enabled": True, "dir": str(cache_dir)}
    return Dataset(config, image_size)


class Loader:
    """Training batches of one rank, pass by pass: `for batch in loader`, as with torch's `DataLoader`.

    A pass is `len(loader)` batches, enough to show every sample once over all ranks; the underlying stream is endless, so the last batch of a
    pass may have the first samples of the next epoch, and the next pass continues after it. Its content is a pure function of seed, rank and
    position, whatever the number of threads. Leaving a pass early loses nothing: the next one continues there.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        position: Position | None = None,
    ):
        """`epoch`: the epoch to begin with; or `position`: where another loader with the same seed, sizes and `loader` settings stopped."""
        start = position or Position(epoch=epoch, sample=0, num_bad_samples=0)
        self.dataset = dataset
        # Batches since a pass began. Passes begin where this loader begins; a loader at a position continues those of a loader that
        # began with the first sample of epoch 0.
        self._num_done = 0
        self._samples_per_batch = dataset.batch_size * world_size
        if position is not None:
            num_samples = start["epoch"] * dataset.num_train_samples + start["sample"]
            self._num_done = num_samples // self._samples_per_batch
        self._num_bad = start["num_bad_samples"]
        self._stream = dataset.train(seed=seed, rank=rank, world_size=world_size, position=start)

    def __len__(self) -> int:
        """Batches of a whole pass."""
        return -(-self.dataset.num_train_samples // self._samples_per_batch)

    def __iter__(self) -> Iterator[Batch]:
        """The batches that remain of the pass."""
        for _ in range(len(self) - self._num_done % len(self)):
            batch = next(self._stream)
            self._num_done += 1
            self._warn_of_bad_samples()
            yield batch

    @property
    def position(self) -> Position:
        """Position after the last batch; pass it to a new loader to continue there."""
        position = self._stream.position
        assert position is not None, "a training stream knows its place"
        return position

    @property
    def stats(self) -> dict[str, float]:
        """What the decode threads did: see `BatchStream.stats`."""
        return self._stream.stats

    def _warn_of_bad_samples(self) -> None:
        num_bad = self.position["num_bad_samples"]
        if num_bad > self._num_bad:
            warnings.warn(f"{num_bad} samples could not be decoded and were replaced by neighbours", stacklevel=3)
            self._num_bad = num_bad
