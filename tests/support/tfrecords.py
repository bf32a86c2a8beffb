"""Small RLDS datasets in the form of TensorFlow Datasets, written and read by hand so that every byte can be chosen."""

import json
import struct
from pathlib import Path

TABLE = [0] * 256
for index in range(256):
    value = index
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    TABLE[index] = value


def masked_crc(content: bytes) -> int:
    """TFRecord's checksum: CRC32C, rotated, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(content: bytes, length: int | None = None) -> bytes:
    """A record as it is in a file, also with another length than it has."""
    head = struct.pack("<Q", len(content) if length is None else length)
    return head + struct.pack("<I", masked_crc(head)) + content + struct.pack("<I", masked_crc(content))


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: list) -> bytes:
    """A feature of bytes, floats or integers."""
    if values and isinstance(values[0], bytes):
        return field(1, b"".join(field(1, value) for value in values))
    if values and isinstance(values[0], float):
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
    return field(3, field(1, b"".join(varint(value & (1 << 64) - 1) for value in values)))


def example(features: dict[str, list]) -> bytes:
    entries = (field(1, key.encode()) + field(2, feature(values)) for key, values in features.items())
    return field(1, b"".join(field(1, entry) for entry in entries))


def read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (content[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if content[at - 1] < 0x80:
            return value, at


def fields(content: bytes):
    at = 0
    while at < len(content):
        tag, at = read_varint(content, at)
        length, at = read_varint(content, at)
        yield tag >> 3, content[at : at + length]
        at += length


def images(shard: Path, name: str) -> list[list[bytes]]:
    """The encoded images of a feature: of each record, of each step."""
    content, at, found = shard.read_bytes(), 0, []
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        [(_, features)] = fields(content[at + 12 : at + 12 + length])
        at += length + 16
        for _, entry in fields(features):
            parts = dict(fields(entry))
            if parts[1].decode() == name:
                [(_, values)] = fields(parts[2])
                found.append([value for _, value in fields(values)])
    return found


def tensor(dtype: str, *shape: int) -> dict:
    return {"tensor": {"dtype": dtype, "encoding": "none", "shape": {"dimensions": [str(size) for size in shape]}}}


FEATURES = {
    "observation": {
        "featuresDict": {
            "features": {
                "image": {
                    "image": {"dtype": "uint8", "encodingFormat": "png", "shape": {"dimensions": ["32", "48", "3"]}}
                },
                "state": tensor("float32", 2),
                "text": {"text": {}},
            }
        }
    },
    "action": tensor("float32", 3),
    "is_first": tensor("bool"),
}


def write(root: Path, shards: list[list[dict | bytes]], features: dict = FEATURES, split: str = "train") -> Path:
    """A dataset: of each shard its episodes, as features by name or as bytes of an example."""
    root.mkdir(parents=True)
    steps = {"sequence": {"feature": {"featuresDict": {"features": features}}, "length": "-1"}}
    (root / "features.json").write_text(json.dumps({"featuresDict": {"features": {"steps": steps}}}))
    lengths = [str(len(episodes)) for episodes in shards]
    info = {
        "name": "made",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": [{"name": split, "shardLengths": lengths}],
    }
    (root / "dataset_info.json").write_text(json.dumps(info))
    for number, episodes in enumerate(shards):
        content = b"".join(record(e if isinstance(e, bytes) else example(e)) for e in episodes)
        (root / f"made-{split}.tfrecord-{number:05}-of-{len(shards):05}").write_bytes(content)
    return root
