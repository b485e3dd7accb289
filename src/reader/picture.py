"""From what a user names to pictures as grey levels."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import mul
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pillow_heif
from PIL import Image, ImageOps, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "AVIF", "HEIF")  # that are read, by Pillow's names
FRAME_PIXELS = 10**8  # that are looked at in an animation or a scan, where its first frames are of one colour
WORKING_SIDE = 384  # pixels, the longest side at which ink is looked for
BORDER = 0.03  # of the shorter side: the width of the picture's border, most of which is taken to be background
VISIBLE = 16  # grey levels between a flat background and what is on it
SMALL = 48  # pixels of `WORKING_SIDE`: a smaller digit is looked for in the larger picture
COLOURED = 5  # how many times a picture's colours must differ by more than its grey levels do
LARGEST = 2**30  # bytes that a picture may take while it is decoded
DECODER = {"GIF": 16, "WEBP": 18, "TIFF": 16, "AVIF": 16, "HEIF": 16}  # bytes a pixel, as measured and rounded up
OTHER_DECODER = 10  # the most is a transparent picture with a palette, converted and copied

PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # pyrefly: ignore  # bytes: a large text or profile changes no pixel
Image.MAX_IMAGE_PIXELS = None  # `LARGEST` takes its place: of a JPEG, few of the pixels are ever in memory
pillow_heif.register_heif_opener()
SUFFIXES = tuple(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)


def find_pictures(names: Sequence[str], passed_over: Counter[str]) -> Iterator[Path]:
    """Expand file and folder arguments to picture files.

    A folder stands for the pictures in it and in its subfolders, in the order of their names. Hidden files and folders
    are left out: what systems and editors put there, such as a Mac's ``._5.png``. A folder without pictures is yielded
    itself, and so is one that can't be read.

    Args:
        names: of files, which are taken as they are, and of folders.
        passed_over: counts the other files in folders, by their suffix.
    """
    for path in map(Path, names):
        errors: list[OSError] = []
        files: list[Path] = []
        for folder, subfolders, inside in os.walk(path, onerror=errors.append):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            files += [Path(folder, name) for name in inside if not name.startswith(".")]
        pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
        pictures += [Path(error.filename) for error in errors if isinstance(error, PermissionError)]
        others = [suffix for file in files if (suffix := file.suffix.lower()) not in SUFFIXES]
        passed_over.update(suffix or "without a suffix" for suffix in others)
        yield from sorted(pictures) or [path]


def read_grey(file: BinaryIO) -> np.ndarray:
    """Read a picture, upright, at most `WORKING_SIDE` pixels long.

    Args:
        file: of its frames, the first that is not of one colour is read.

    Returns:
        (H, W) float32 in [0, 255], 0 for black.

    Raises:
        ValueError: it is not a picture of the `FORMATS`, is damaged, or takes more than `LARGEST` bytes.
    """
    try:
        # Warnings are of odd metadata, which change no pixel.
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            most = 1 if isinstance(image, JpegImageFile) else getattr(image, "n_frames", 1)  # a phone's aids
            frames = max(1, min(most, FRAME_PIXELS // (image.width * image.height)))
            for number in range(frames):
                image.seek(number)
                _check_size(image)
                grey = _to_grey(image if frames == 1 else ImageOps.exif_transpose(image))
                if np.ptp(grey):
                    break
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"not a picture of the kinds {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise many kinds for a damaged file
        raise ValueError(f"can't be read as a picture: {' '.join(str(error).split())}") from error
    return grey


def border_of(shape: tuple[int, int]) -> np.ndarray:
    """Mark the border of a picture (H, W): (H, W) bool."""
    border = np.ones(shape, bool)
    width = max(1, int(BORDER * min(shape)))
    border[width:-width, width:-width] = False
    return border


def _check_size(image: Image.Image) -> None:
    """Raise `ValueError` where the decoder would hold more than `LARGEST`."""
    width, height = image.size
    image.draft("YCbCr", (2 * WORKING_SIDE, 2 * WORKING_SIDE))  # a JPEG is unpacked no larger than needed
    size = image.width * image.height * DECODER.get(image.format or "", OTHER_DECODER)
    if isinstance(image, JpegImageFile):  # a progressive one has its coefficients in memory, 16 bits each, in full size
        _, across, down, _ = zip(*image.layer, strict=True)
        size += 2 * width * height * sum(map(mul, across, down)) // (max(across) * max(down))
    if isinstance(image, TiffImageFile):  # a tile may be larger than the picture
        size = max(size, image.tag_v2.get(TILEWIDTH, 0) * image.tag_v2.get(TILELENGTH, 0) * DECODER["TIFF"])
    if size > LARGEST:
        raise ValueError(f"{width} × {height} pixels take {size / 2**20:,.0f} MiB, more than {LARGEST // 2**20:,}")


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode in ("1", "P"):  # whose pixels have no mean
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    wide = image.mode.startswith(("I", "F"))  # 16 or 32 bits a pixel, of any range
    gap = None if wide else 2.0  # Pillow's faster way knows no 16 bits
    image.thumbnail((4 * WORKING_SIDE, 4 * WORKING_SIDE), Image.Resampling.BOX, gap)  # before it is copied
    image = ImageOps.exif_transpose(image)
    if wide:
        values = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
        values -= values.min()
        return _shrink(Image.fromarray(values * (255 / max(values.max(), 1e-9))))
    grey = _levels(image)
    box = _box_of_small_ink(grey)
    if box is None or max(image.size) <= WORKING_SIDE:
        return grey
    return _levels(image.crop(tuple(round(side * image.width / grey.shape[1]) for side in box)))


def _box_of_small_ink(grey: np.ndarray) -> tuple[int, int, int, int] | None:
    """Find what is alone on a flat background, too small to be read at this size: left, top, right and bottom."""
    border = border_of(grey.shape)
    ink = np.abs(grey - np.median(grey[border])) > VISIBLE
    if not ink.any() or ink[border].any():
        return None
    (top, left), (bottom, right) = np.argwhere(ink).min(0), np.argwhere(ink).max(0)
    side = int(max(bottom - top, right - left)) + 1
    return (left - side, top - side, right + side, bottom + side) if side < SMALL else None


def _levels(image: Image.Image) -> np.ndarray:
    """The grey levels of a picture, shrunk; its colours' own, where these differ and its grey hardly does."""
    if image.mode == "LAB":  # which Pillow does not convert
        return _shrink(image.getchannel("L"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        grey, colours = (_put_on_background(_shrink(image.convert(mode))) for mode in ("LA", "RGBA"))
        grey = grey[..., 0]
    else:
        grey, colours = _shrink(image.convert("L")), _shrink(image.convert("RGB"))
    offsets = colours.reshape(-1, 3) - colours.mean((0, 1))
    variances, axes = np.linalg.eigh(offsets.T @ offsets / len(offsets))
    if variances[-1] <= COLOURED**2 * grey.var():
        return grey
    along = (offsets @ axes[:, -1]).reshape(grey.shape)
    along -= along.min()
    return along * min(1, 255 / along.max())


def _shrink(image: Image.Image) -> np.ndarray:
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)


def _put_on_background(picture: np.ndarray) -> np.ndarray:
    """Put a picture (H, W, C + 1), opacity last, on the background that it has, or on one that it stands out from."""
    levels, opacity = picture[..., :-1], picture[..., -1:] / 255
    border = border_of(picture.shape[:2])
    opaque = opacity[border][:, 0] > 0.5
    if np.median(opacity[border]) > 0.5:
        background = np.median(levels[border][opaque], axis=0)
    else:
        background = 0 if (levels * opacity).mean(2).sum() > 127.5 * opacity.sum() else 255
    return levels * opacity + background * (1 - opacity)
