"""Any picture file as grey levels."""

import warnings
from typing import BinaryIO

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

FORMATS = {  # that are read, by Pillow's names, and how the names of their files end
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
WORKING_SIDE = 384  # pixels, the longest side at which ink is looked for
FRAME = 0.03  # of the shorter side: the picture's edge, of which most is taken to be ground
LARGEST = 2**29  # bytes that a picture may take when it is decoded: 178 megapixels in colour

Image.MAX_IMAGE_PIXELS = None  # `LARGEST` takes its place: of a JPEG, few of the pixels are ever in memory
pillow_heif.register_heif_opener()


def read_grey(file: BinaryIO) -> np.ndarray:
    """Read the first frame of a picture, upright, at most `WORKING_SIDE` pixels long.

    Returns:
        (H, W) float32 in [0, 255], 0 for black.

    Raises:
        ValueError: it is no sound picture of the `FORMATS`, or takes more than `LARGEST` bytes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which change no pixel
            with Image.open(file, formats=tuple(FORMATS)) as image:
                return _to_grey(image)
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"no picture of the kinds {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise many kinds for a damaged file
        raise ValueError(f"can't be read as a picture: {' '.join(str(error).split())}") from error


def frame_of(shape: tuple[int, int]) -> np.ndarray:
    """Mark the edge of a picture (H, W): (H, W) bool."""
    frame = np.ones(shape, bool)
    width = max(1, int(FRAME * min(shape)))
    frame[width:-width, width:-width] = False
    return frame


def _to_grey(image: Image.Image) -> np.ndarray:
    image.draft("L", (2 * WORKING_SIDE, 2 * WORKING_SIDE))  # a JPEG is unpacked no larger than needed
    width, height = image.size
    wide = image.mode.startswith(("I", "F"))
    size = width * height * (4 if wide or image.mode == "P" else len(image.getbands()))
    if size > LARGEST:
        raise ValueError(f"{width} × {height} pixels take {size / 2**20:,.0f} MiB, more than {LARGEST // 2**20}")
    if image.mode in ("1", "P"):  # in which no mean of pixels can be had
        image = image.convert("RGBA" if image.has_transparency_data else "L")
    if not wide:
        image.thumbnail((4 * WORKING_SIDE, 4 * WORKING_SIDE), Image.Resampling.BOX)  # before it is copied
    image = ImageOps.exif_transpose(image)
    if wide:
        return _shrink(_stretch(image))
    if image.has_transparency_data:
        return _put_on_ground(_shrink(image.convert("RGBA").convert("LA")))
    return _shrink(image.getchannel("L") if image.mode == "LAB" else image.convert("L"))


def _stretch(image: Image.Image) -> Image.Image:
    """A picture of 16 or 32 bits a pixel, whatever its range, as one of floats in [0, 255]."""
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
    lowest = values.min()
    return Image.fromarray((values - lowest) * (255 / max(values.max() - lowest, 1e-9)))


def _shrink(image: Image.Image) -> np.ndarray:
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)


def _put_on_ground(grey_alpha: np.ndarray) -> np.ndarray:
    """Put a partly transparent picture (H, W, 2) on a ground from which it stands out, or that it already has."""
    grey, opacity = grey_alpha[..., 0], grey_alpha[..., 1] / 255
    frame = frame_of(grey.shape)
    if np.median(opacity[frame]) > 0.5:
        ground = np.median(grey[frame][opacity[frame] > 0.5])
    else:
        ground = 0 if (grey * opacity).sum() > 127.5 * opacity.sum() else 255
    return grey * opacity + ground * (1 - opacity)
