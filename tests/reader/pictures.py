"""Pictures of digits as people have them, as files."""

import io
import struct
import zlib

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from src.images.dataset import DIGITS
from src.reader.head.outlier_head import Predictions
from src.reader.picture import read_grey
from src.reader.recognise import Reading, recognise

MODES_OF_FORMATS = {  # of what people have, what each format can hold
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "BMP": ["1", "L", "P", "RGB"],
    "GIF": ["L", "P"],
    "WEBP": ["RGB", "RGBA"],
    "AVIF": ["L", "RGB", "RGBA"],
    "HEIF": ["L", "RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"],
}
FORMATS_AND_MODES = [(kind, mode) for kind, modes in MODES_OF_FORMATS.items() for mode in modes]


def drawing(side: int = 200, *, digit: str = "5", ink: int = 20, background: int = 240) -> Image.Image:
    """Draw a printed digit in the middle of a grey picture; ``ink`` and ``background`` are grey levels."""
    picture = Image.new("L", (side, side), background)
    font = ImageFont.load_default(round(0.8 * side))
    ImageDraw.Draw(picture).text((side / 2, side / 2), digit, fill=ink, font=font, anchor="mm")
    return picture


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Convert a grey picture to another of Pillow's modes, 16 bits and floats with a range of their own."""
    match mode:
        case "I;16":
            return Image.fromarray(np.asarray(picture).astype(np.uint16) * 40)
        case "I":
            return Image.fromarray(np.asarray(picture).astype(np.int32) * 70_000 - 9)
        case "F":
            return Image.fromarray(np.asarray(picture).astype(np.float32) / 255 - 0.5)
        case "1":
            return picture.convert("1", dither=Image.Dither.NONE)
        case "LAB":
            neutral = Image.new("L", picture.size, 128)
            return Image.merge("LAB", [picture, neutral, neutral])
        case "CMYK":
            picture = picture.convert("RGB")  # from grey there is no direct way
    return picture.convert(mode)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Encode a picture as a file of the format ``kind``, with Pillow's ``options`` of it."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def huge() -> bytes:
    """A PNG file of a few bytes whose header says 50,000 × 50,000 pixels."""
    return png(50_000, rows=0)


def png(side: int, rows: int | None = None, depth: int = 8, colour: int = 0, *chunks: tuple[bytes, bytes]) -> bytes:
    """A black PNG of ``side`` × ``side`` pixels, with other chunks (name, content); ``colour`` is PNG's own number."""
    row = bytes(1 + side * depth // 8)
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(row) for _ in range(side if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def progressive_jpeg(side: int) -> bytes:
    """A progressive JPEG of a few bytes whose header says ``side`` × ``side`` pixels, each of three coefficients."""
    content = bytearray(encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True, subsampling=0))
    start = content.index(b"\xff\xc2")
    content[start + 5 : start + 9] = struct.pack(">HH", side, side)
    return bytes(content)


class Undecided:
    """A model that predicts nothing for any image.

    Attributes:
        outlier_score: what it gives each image.
    """

    def __init__(self, outlier_score: float = np.nan) -> None:
        self.class_names, self.outlier_score = list(DIGITS), outlier_score

    def predict(self, images: torch.Tensor) -> Predictions:
        return Predictions(torch.zeros(len(images), len(DIGITS)), torch.full((len(images),), float(self.outlier_score)))


def reading(content: bytes, model: object = None) -> Reading:
    """Read the content of a picture file, by default without a model."""
    return recognise([read_grey(io.BytesIO(content))], model or Undecided())[0]


def seen(picture: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    """Encode a picture and bring it to MNIST's style, as the command does: (28, 28) uint8."""
    return reading(encoded(picture, kind, **options)).mnist_image


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The mean absolute difference of two images in grey levels. Of two printed digits it is 20 and more."""
    return np.abs(one.astype(int) - other).mean()
