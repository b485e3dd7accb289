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


def drawing(side: int = 200, *, digit: str = "5", ink: int = 20, background: int = 240) -> Image.Image:
    """Draw a printed digit in the middle of a grey picture; ``ink`` and ``background`` are grey levels."""
    picture = Image.new("L", (side, side), background)
    font = ImageFont.load_default(round(0.8 * side))
    ImageDraw.Draw(picture).text((side / 2, side / 2), digit, fill=ink, font=font, anchor="mm")
    return picture


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Convert a grey picture to another of Pillow's modes, 16 bits and floats with a range of their own."""
    levels = np.asarray(picture)
    match mode:
        case "I;16":
            return Image.fromarray(levels.astype(np.uint16) * 40)
        case "I":
            return Image.fromarray(levels.astype(np.int32) * 70_000 - 9)
        case "F":
            return Image.fromarray(levels.astype(np.float32) / 255 - 0.5)
        case "LAB":
            neutral = Image.new("L", picture.size, 128)
            return Image.merge("LAB", [picture, neutral, neutral])
        case "CMYK":
            picture = picture.convert("RGB")  # from grey there is no direct way
    return picture.convert(mode, dither=Image.Dither.NONE)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Encode a picture as a file of the format ``kind``, with Pillow's ``options`` of it."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def huge() -> bytes:
    """A PNG file of a few bytes whose header says 50,000 × 50,000 pixels."""
    content = bytearray(encoded(drawing()))
    content[16:24] = struct.pack(">II", 50_000, 50_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def progressive_jpeg(side: int) -> bytes:
    """A progressive JPEG of a few bytes whose header says ``side`` × ``side`` pixels, each of three coefficients."""
    content = bytearray(encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True, subsampling=0))
    start = content.index(b"\xff\xc2")
    content[start + 5 : start + 9] = struct.pack(">HH", side, side)
    return bytes(content)


class Undecided:
    """A model that predicts nothing for any image, and gives each the same ``outlier_score``."""

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
