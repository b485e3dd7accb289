"""Pictures of any kind that Pillow reads, as the network takes them: grey, square, eight bits."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from src.pipeline.process import UserError, first_line


def read_picture(path: Path, side: int) -> np.ndarray:
    """Read a picture's first frame, upright, and resize it to a square as torchvision's ``Resize`` would.

    Args:
        path: of the file. Colour becomes grey, and what is transparent white. Of 16 bits the upper eight are taken;
            32 bits, which have no range of their own, are stretched to it.
        side: in pixels.

    Returns:
        (side, side) uint8, 0 for black.

    Raises:
        UserError: it is not a picture, or a damaged one.
    """
    try:
        # Warnings are of odd metadata, which change no pixel.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            image.draft("L", (side, side))  # a JPEG is unpacked no larger than needed
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            elif upright.mode in ("I", "F"):
                values = np.asarray(upright, np.float64)
                values = (values - values.min()) / (np.ptp(values) or 1)
                upright = Image.fromarray((255 * values).astype(np.uint8))
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            return np.asarray(upright.convert("L").resize((side, side), Image.Resampling.BILINEAR))
    except Exception as error:  # Pillow's decoders raise many kinds for a damaged file
        raise UserError(f"{path} can't be read as a picture: {first_line(error)}") from error
