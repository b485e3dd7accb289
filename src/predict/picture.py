"""Any picture file as grey levels."""

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
WORKING_SIDE = 384  # pixels, the longest side at which ink is looked for
FRAME = 0.03  # of the shorter side: the picture's edge, of which most is taken to be ground


def read_grey(file: BinaryIO) -> np.ndarray:
    """Read the first frame of a picture, upright, at most `WORKING_SIDE` pixels long.

    Returns:
        (H, W) float32 in [0, 255], 0 for black.

    Raises:
        ValueError: it is no sound picture of the `FORMATS`, or has more than Pillow's `MAX_IMAGE_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which change no pixel
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
            image.draft("L", (2 * WORKING_SIDE, 2 * WORKING_SIDE))  # a JPEG is unpacked no larger than needed
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I", "F")):
                return _shrink(_stretch(image))
            if image.has_transparency_data:
                return _put_on_ground(_shrink(image.convert("RGBA").convert("LA")))
            return _shrink(image.getchannel("L") if image.mode == "LAB" else image.convert("L"))
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
