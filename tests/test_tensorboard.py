"""`logging.sinks.tensorboard`: event files that are read by TensorBoard's format, by a decoder of protobuf's own and not by ours."""

import signal
import struct
import subprocess
from pathlib import Path

import pytest
from conftest import MINI, REPO, read_metrics, run, train_laq_command
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from interruption import INTERRUPTED, kill, last_step, wait_for
from PIL import Image

ON = "logging.sinks.tensorboard=true"
FIELD = descriptor_pb2.FieldDescriptorProto


def event_class():
    """`Event` of TensorBoard's `event.proto`, as far as a training writes it."""
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="tb", syntax="proto3")

    def message(name: str, **fields: tuple[int, object]) -> None:
        added = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            is_list = isinstance(kind, list)
            kind = kind[0] if is_list else kind
            label = FIELD.LABEL_REPEATED if is_list else FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.field.add(
                    name=field, number=number, label=label, type=FIELD.TYPE_MESSAGE, type_name=f".tb.{kind}"
                )
            else:
                added.field.add(name=field, number=number, label=label, type=kind)

    number, text, whole = FIELD.TYPE_DOUBLE, FIELD.TYPE_STRING, FIELD.TYPE_INT32
    message("Image", height=(1, whole), width=(2, whole), colorspace=(3, whole), encoded=(4, FIELD.TYPE_BYTES))
    of_histogram = {"min": 1, "max": 2, "num": 3, "sum": 4, "sum_squares": 5}
    edges = {"bucket_limit": (6, [number]), "bucket": (7, [number])}
    message("Histo", **{name: (tag, number) for name, tag in of_histogram.items()}, **edges)
    message("Value", tag=(1, text), simple_value=(2, FIELD.TYPE_FLOAT), image=(4, "Image"), histo=(5, "Histo"))
    message("Summary", value=(1, ["Value"]))
    message("Event", wall_time=(1, number), step=(2, FIELD.TYPE_INT64), file_version=(3, text), summary=(5, "Summary"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tb.Event"))


def masked_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def events(run_dir: Path) -> list:
    """The events of all files, oldest file first; each file has to begin with its version, each record with right checksums."""
    event, found = event_class(), []
    for path in sorted((run_dir / "tensorboard").iterdir()):
        assert path.name.startswith("events.out.tfevents.")
        data, of_file = path.read_bytes(), []
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            record, rest = data[12 : 12 + length], data[12 + length :]
            assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
            if len(record) < 100_000:  # the loop over the bits of a large image takes seconds
                assert struct.unpack("<I", rest[:4])[0] == masked_crc32c(record)
            of_file.append(event.FromString(record))
            data = rest[4:]
        assert of_file[0].file_version == "brain.Event:2"
        found += of_file[1:]
    return found


def scalars(found: list) -> dict[tuple[int, str], float]:
    values = [(event.step, value) for event in found for value in event.summary.value]
    plain = [(step, value) for step, value in values if not value.HasField("image") and not value.HasField("histo")]
    assert len({(step, value.tag) for step, value in plain}) == len(plain), "every value of a step once"
    is_time = ("time/", "perf/")
    return {(step, value.tag): value.simple_value for step, value in plain if not value.tag.startswith(is_time)}


def expected(run_dir: Path) -> dict[tuple[int, str], float]:
    rows = [(row.pop("step"), row) for row in read_metrics(run_dir)]
    return {(step, name): value for step, row in rows for name, value in row.items()}


def test_a_training_writes_scalars_images_and_histograms(tmp_path):
    run_dir = tmp_path / "run"
    result = run(train_laq_command(*MINI, ON, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    found = events(run_dir)
    assert scalars(found) == pytest.approx(expected(run_dir), rel=1e-6)
    values = {(event.step, value.tag): value for event in found for value in event.summary.value}
    image = values[24, "validation/reconstructions"].image
    drawn = run_dir / "validation/step-000024/reconstructions.png"
    assert image.encoded[:8] == drawn.read_bytes()[:8] and image.colorspace == 3
    with Image.open(drawn) as picture:
        assert (image.width, image.height) == picture.size
    codes = values[24, "val/slot0_codes"].histo
    used = [row["val/slot0_unique_codes"] for row in read_metrics(run_dir) if "val/slot0_unique_codes" in row][-1]
    assert sum(count > 0 for count in codes.bucket) == used
    assert len(codes.bucket) == len(codes.bucket_limit) and codes.num == sum(codes.bucket) > 0


def test_a_run_has_no_event_file_by_default(uninterrupted):
    assert not (uninterrupted / "tensorboard").exists()


def test_what_an_interrupted_and_a_killed_run_repeat_is_there_once(tmp_path):
    run_dir = tmp_path / "run"

    def start(*words: object) -> subprocess.Popen:
        command = train_laq_command(*words)
        return subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    process = start(*MINI, ON, f"logging.run_dir={run_dir}")
    wait_for(process, lambda: last_step(run_dir) >= 7)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == INTERRUPTED
    process = start("--resume", run_dir)
    wait_for(process, lambda: last_step(run_dir) >= 13)
    kill(process)
    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 0, result.stderr
    assert len(list((run_dir / "tensorboard").iterdir())) == 3
    assert scalars(events(run_dir)) == pytest.approx(expected(run_dir), rel=1e-6)
