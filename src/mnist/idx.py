"""The IDX format of MNIST's files, gzipped as they are published.

Format: http://yann.lecun.com/exdb/mnist/ ("The IDX file format"). A big-endian header (two zero bytes, the type
code, the number of dimensions, each dimension as 32 bits), then the values in C order. MNIST's are unsigned bytes.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from src.pipeline.errors import UserError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, shape: tuple[int, ...]) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes.

    Args:
        path: the ``.gz`` file.
        shape: the shape that the file must have. No more than that is ever unpacked, whatever the file holds.

    Returns:
        A writable array of ``shape``, uint8.

    Raises:
        UserError: the file can't be read, is damaged, or holds something else.
    """
    header = struct.pack(f">HBB{len(shape)}I", 0, UNSIGNED_BYTE, len(shape), *shape)
    expected = len(header) + math.prod(shape)
    try:
        with gzip.open(path) as file:
            content = file.read(expected + 1)  # one byte more tells a longer file, and unpacks no gzip bomb
            file.read(0)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: {error}; delete it and run `dvc repro download`") from error
    if content[: len(header)] != header or len(content) != expected:
        raise UserError(f"{path} is no IDX file of {shape} unsigned bytes; delete it and run `dvc repro download`")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()


def encode_idx(array: np.ndarray) -> bytes:
    """The gzipped IDX file of a uint8 array: the same bytes on every machine.

    zlib promises no particular compressed bytes across versions, so the data is stored, not compressed
    (RFC 1952, and RFC 1951 section 3.2.4: blocks of at most 65,535 bytes, the last one marked).
    """
    if array.dtype != np.uint8:
        raise ValueError(f"an IDX file of MNIST's kind holds uint8, not {array.dtype}")
    data = struct.pack(f">HBB{array.ndim}I", 0, UNSIGNED_BYTE, array.ndim, *array.shape) + array.tobytes()
    blocks = [data[start : start + 0xFFFF] for start in range(0, len(data), 0xFFFF)]
    stored = b"".join(
        struct.pack("<BHH", index == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for index, block in enumerate(blocks)
    )
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return header + stored + struct.pack("<II", zlib.crc32(data), len(data))
