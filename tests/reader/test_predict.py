"""What ``python -m src.reader`` makes of image files: their digits, and one line for what has none."""

import contextlib
import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.project import ROOT, Project, needs_posix
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from benchmarks.scenes import KINDS, marker, thin_pen
from pictures import (
    MODES_OF_FORMATS,
    Undecided,
    difference,
    drawing,
    encoded,
    huge,
    in_mode,
    progressive_jpeg,
    reading,
    seen,
)
from src.images.dataset import load_images, load_manifest
from src.reader.command import STANDARD_INPUT, parse_arguments, read_picture
from src.reader.ink import PENALTIES, ink_from_border, ink_from_strokes, thicken
from src.reader.outliers.mnist_style import to_mnist_style
from src.reader.picture import LARGEST, find_pictures
from src.reader.recognise import EMPTY, SEVERAL, UNLIKE

LEAST_RIGHT = {  # in %, for a model trained for 5 epochs on 3,800 images; 1 to 15 less than was measured
    "MNIST's test images, PNG": 95,
    "the same, dark on light, JPEG": 94,
    "scikit-learn's digits, enlarged": 80,
    "fonts": 82,
    "fonts, light on dark": 82,
    "fonts, turned by up to 12 degrees": 82,
    "fonts, in a wide margin": 82,
    "scenes: plain paper": 80,
    "scenes: a thin pen": 62,
}

# In MiB. A process's peak counts from the one that it was forked from: hence this small one in between.
PEAK_MEMORY = "import resource as r, subprocess as s, sys; s.run(sys.argv[1:]); print(r.getrusage(-1).ru_maxrss >> 10)"
READ_ONE = "import sys; from src.reader.picture import read_grey; read_grey(open(sys.argv[1], 'rb'))"


def predict(project: Project, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess:
    """Run the command in a project."""
    return project.run("python", "-m", "src.reader", *arguments, ok=ok)


def answers(done: subprocess.CompletedProcess) -> list[dict]:
    """What a command printed with ``--json``."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def grey_of(picture: Image.Image) -> np.ndarray:
    """A grey picture as the reader takes it."""
    return np.asarray(picture, np.float32)


def fill(folder: Path, pictures: dict[str, Image.Image | bytes]) -> None:
    """Write pictures, or whatever bytes, to files."""
    for name, picture in pictures.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture if isinstance(picture, bytes) else encoded(picture))


@pytest.fixture
def file(tmp_path):
    """A picture's file, alone in a folder."""
    fill(tmp_path / "one", {"1.png": drawing()})
    return tmp_path / "one/1.png"


def test_it_does_well_on_pictures_that_are_not_mnists(trained_once, tmp_path, tries):
    tries("pictures of nine kinds asked about", quick=0, full=1)
    project = trained_once.copy(tmp_path)
    project.set_params(epochs=5)
    for stage in ("train", "evaluate", "reader.outliers"):
        project.run("python", "-m", f"src.{stage}")

    project.run("python", "-m", "benchmarks.pictures", "--photos", "40")

    kinds = json.loads(project.read("benchmarks/pictures.json"))["kinds"]
    right = {kind: 100 * kinds[kind]["right"] / kinds[kind]["pictures"] for kind in LEAST_RIGHT}
    assert {kind: share for kind, share in right.items() if share < LEAST_RIGHT[kind]} == {}
    evaluated = json.loads(project.read("metrics/evaluate/metrics.json"))["test"]["accuracy"]
    assert right["MNIST's test images, PNG"] == pytest.approx(100 * evaluated, abs=0.5)


def test_each_test_image_gets_as_json_the_digit_that_evaluate_gave_it(reader_once, monkeypatch, tmp_path):
    monkeypatch.chdir(reader_once.path)
    images = load_images(load_manifest(), "test").images
    fill(tmp_path, {f"{number:04}.png": Image.fromarray(image) for number, image in enumerate(images)})
    table = csv.DictReader(reader_once.read("metrics/evaluate/predictions.csv").splitlines())

    given = answers(predict(reader_once, "--json", str(tmp_path)))

    for answer in given:
        assert answer.keys() == {"file", "digit", "probability", "runners_up", "warning"}
        first, second, third = ranking = [answer, *answer["runners_up"]]
        assert len({each["digit"] for each in ranking} & set(range(10))) == 3
        assert 1 >= first["probability"] >= second["probability"] >= third["probability"] >= 0
    same = sum(answer["digit"] == int(row["predicted"]) for answer, row in zip(given, table, strict=True))
    assert same >= 940  # of 1,000: a file's digit is moved and scaled by parts of a pixel


@needs_posix
def test_files_folders_and_standard_input_are_answered_in_a_table(reader_once, tmp_path):
    names = ("no suffix", "folder/a.JPG", "folder/b.png", "folder/inner/c.tif")
    fill(tmp_path, dict.fromkeys(names, drawing()))
    command = (
        f'python -m src.reader "{tmp_path}/no suffix" {tmp_path}/folder "{tmp_path}/no suffix" - '
        f"< {tmp_path}/folder/b.png"
    )

    header, *rows = reader_once.run("bash", "-c", command).stdout.splitlines()

    assert header.split() == ["digit", "probability", "runners-up", "file"]
    files = [row.split(maxsplit=6)[6] for row in rows]
    assert files == [*(f"{tmp_path}/{name}" for name in names), f"{tmp_path}/no suffix", "-"]
    assert len({row[:39] for row in rows}) == 1  # the files hold the same picture
    assert re.match(r" +\d +\d+\.\d\d%  \d \d+\.\d\d%, \d \d+\.\d\d% +\S", rows[0])


def test_a_folder_is_read_but_for_what_is_hidden_or_no_picture_and_what_is_damaged_is_one_line_each(
    reader_once, tmp_path
):
    pictures = {"a.heic": "HEIF", "b.gif": "GIF", "c.jfif": "JPEG", "d.avif": "AVIF"}
    wrong = {"e.png": b"no image at all", "f.png": encoded(drawing())[:300], "g.png": huge()}
    others = ("._a.heic", ".ipynb_checkpoints/a.png", "notes.txt", "film.mov", "other.mov")
    fill(tmp_path, {name: encoded(drawing(), kind) for name, kind in pictures.items()} | wrong)
    fill(tmp_path, dict.fromkeys(others, b"?"))
    (tmp_path / "empty").mkdir()

    done = predict(reader_once, "--json", *(str(tmp_path / name) for name in ("", "missing.png", "empty")), ok=False)

    assert done.returncode == 1
    assert [answer["file"] for answer in answers(done)] == [f"{tmp_path}/{name}" for name in pictures]
    assert len({answer["digit"] for answer in answers(done)}) == 1
    *lines, passed_over = done.stderr.splitlines()
    names = (*wrong, "missing.png", "empty")
    assert [line.split(": ")[:2] for line in lines] == [["error", str(tmp_path / name)] for name in names]
    assert "HEIF" in lines[0]  # of the formats that it reads
    assert "50000 × 50000" in lines[2]
    assert passed_over.endswith(": 2 .mov, 1 .txt")


def test_a_folder_that_cannot_be_listed_is_one_line(file, monkeypatch, capsys):
    closed = file.parent / "closed"
    closed.mkdir()

    scandir = os.scandir

    def refuse(path):  # as the system does, but for root
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    files = list(find_pictures([str(file.parent)], Counter()))

    assert files == [file, closed]
    assert [read_picture(each) is None for each in files] == [False, True]
    assert capsys.readouterr().err == f"error: {closed}: Permission denied\n"


def test_a_files_name_may_start_with_a_dash(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predict.py", "--json", "-5.PNG", "--strict.jpg", "-"])

    arguments = parse_arguments()

    assert (arguments.json, arguments.strict) == (True, False)
    assert [Path(name) for name in arguments.images] == [Path("-5.PNG"), Path("--strict.jpg"), STANDARD_INPUT]


def test_without_an_environment_the_line_says_what_to_type(tmp_path):
    shutil.copy(ROOT / "predict.py", tmp_path)

    command = [sys.executable, "-S", "-E", "predict.py", "1.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert re.fullmatch(r"error: .*`make reader`.*\n", done.stderr)


@needs_posix
def test_any_python_hands_over_to_the_projects_environment(reader, file):
    (reader.path / ".venv").symlink_to(sys.prefix)

    command = [sys._base_executable, reader.path / "predict.py", "--json", file]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["file"] == str(file)


@needs_posix
def test_head_ends_it_without_a_word(reader_once, tmp_path):
    fill(tmp_path, dict.fromkeys((f"{number}.png" for number in range(150)), drawing()))  # more than one `CHUNK`

    done = reader_once.run("bash", "-c", f"python -m src.reader {tmp_path} | head -n 1")

    assert done.stdout.startswith("digit")
    assert done.stderr == ""


def test_a_files_name_comes_out_as_it_is(reader_once, tmp_path):
    name = b"\xff \xe4.png"
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(encoded(drawing()))
    except OSError:
        pytest.skip("this file system takes no name that is not UTF-8")

    command = [sys.executable, "-m", "src.reader", str(tmp_path)]
    done = subprocess.run(command, cwd=reader_once.path, capture_output=True, check=True)

    assert done.stdout.splitlines()[1].endswith(name)


def test_either_file_of_the_model_gives_the_same_answers_and_one_without_its_head_no_warning(reader_once, tmp_path):
    fill(tmp_path / "pictures", {f"{digit}.png": drawing(digit=digit) for digit in "0123456789A"})
    shutil.copy(reader_once.path / "models/model.safetensors", tmp_path)
    shutil.copy(reader_once.path / "models/model.onnx", tmp_path / "M.ONNX")

    both, onnx, alone = (
        answers(predict(reader_once, "--json", "--tta", "5", "--model", str(model), str(tmp_path / "pictures")))
        for model in ("models/model.safetensors", tmp_path / "M.ONNX", tmp_path / "model.safetensors")
    )
    plain = answers(predict(reader_once, "--json", str(tmp_path / "pictures")))

    assert [one["warning"] for one in alone] == [None] * 11
    assert [one["warning"] for one in plain] == [one["warning"] for one in both]
    assert [one["probability"] for one in plain] != [one["probability"] for one in both]
    for one, other in zip(both, onnx, strict=True):
        assert (one["file"], one["digit"], one["warning"]) == (other["file"], other["digit"], other["warning"])
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-3)


def test_without_a_reader_the_line_says_what_to_type(project, file, fails):
    fails(predict(project, str(file), ok=False), "make reader")
    fails(predict(project, "--model", "5.onnx", str(file), ok=False), "5.onnx")


def test_a_warning_is_in_the_table_in_json_and_where_asked_for_in_the_exit_status(reader_once, tmp_path):
    fill(tmp_path, {"1.png": Image.new("RGB", (50, 50), "white")})

    row = predict(reader_once, str(tmp_path)).stdout.splitlines()[1]
    strict = predict(reader_once, "--json", "--strict", str(tmp_path), ok=False)

    assert row.split() == ["-", "-", str(tmp_path / "1.png"), "(an", "empty", "picture)"]
    assert strict.returncode == 3
    assert [(answer["digit"], answer["warning"]) for answer in answers(strict)] == [(None, EMPTY)]


@needs_posix
def test_memory_does_not_grow_with_the_number_of_pictures(reader_once, tmp_path, tries):
    many = tries("pictures in one call", quick=0, full=5000)
    picture, peaks = encoded(drawing(200)), {}  # 160 kB of grey levels
    for count in (500, many):
        folder = tmp_path / str(count)
        fill(folder, dict.fromkeys((f"{number}.png" for number in range(count)), picture))
        command = ("python", "-c", PEAK_MEMORY, "python", "-m", "src.reader", "--json", str(folder))
        *lines, peak = reader_once.run(*command).stdout.splitlines()
        assert len(lines) == count
        peaks[count] = float(peak)

    assert peaks[many] < peaks[500] + 80


LARGE = {
    **{f"JPEG {side}": lambda side=side: progressive_jpeg(side) for side in (12_000, 16_000, 60_000)},
    "PNG of 16 bits": lambda: encoded(Image.new("I;16", (10_000, 10_000))),
    "PNG with a palette": lambda: encoded(Image.new("P", (10_000, 10_000)), transparency=b"\0", bits=8),
}


@needs_posix
@pytest.mark.parametrize("name", LARGE)
def test_a_picture_is_read_within_the_memory_that_its_size_may_take_or_refused(tmp_path, name):
    (tmp_path / "file").write_bytes(LARGE[name]())

    command = [sys.executable, "-c", PEAK_MEMORY, sys.executable, "-c", READ_ONE, tmp_path / "file"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert int(done.stdout) < LARGEST / 2**20 + 150  # with Python and its libraries


# From a file to the ink, in MNIST's style


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES_OF_FORMATS.items() for mode in modes])
def test_each_format_and_mode_gives_the_same_image(kind, mode):
    assert difference(seen(in_mode(drawing(), mode), kind), seen(drawing())) < 10


def painted(colour: str, background: tuple[int, ...]) -> Image.Image:
    """A digit in a colour on another, which may be transparent."""
    picture = Image.new("RGBA", (200, 200), background)
    picture.paste(colour, mask=drawing(ink=255, background=0))
    return picture


def in_transparent_corners() -> Image.Image:
    """A digit on a card with round corners, beyond which all is transparent."""
    picture, mask = drawing().convert("RGBA"), Image.new("L", (200, 200))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 199, 199), 40, fill=255)
    picture.putalpha(mask)
    return picture


def far_away() -> Image.Image:
    """A small digit on a large sheet."""
    picture = Image.new("L", (4000, 4000), 255)
    picture.paste(drawing(110, background=255), (3100, 800))  # 85 pixels high
    return picture


def with_specks() -> Image.Image:
    """A digit beside a speck and a line that runs over the picture's edge."""
    picture = drawing()
    ImageDraw.Draw(picture).rectangle((15, 15, 18, 18), fill=20)
    ImageDraw.Draw(picture).line((0, 185, 60, 199), fill=20, width=3)
    return picture


@pytest.mark.parametrize(
    ("picture", "limit"),
    [
        *((drawing(side), 10) for side in (24, 60, 500, 2000)),
        *((drawing(ink=ink, background=other), 2) for ink, other in ((240, 20), (255, 0), (0, 255), (110, 130))),
        *((painted(colour, (0, 0, 0, 0)), 4) for colour in ("black", "white", "red")),
        *((painted("red", (0, 130, 0)).convert(mode), 4) for mode in ("RGB", "RGBA", "P")),  # as bright as each other
        (far_away(), 12),
        (in_transparent_corners(), 4),
        (with_specks(), 1),
    ],
)
def test_size_contrast_margins_transparency_and_specks_make_no_difference(picture, limit):
    assert difference(seen(picture), seen(drawing())) < limit


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_a_transparent_colour_of_a_palette_is_seen(kind):
    picture = Image.new("P", (200, 200))
    picture.putpalette([0, 0, 0] * 2)  # the background is as black as the ink
    picture.paste(1, mask=drawing(ink=255, background=0).point(lambda level: 255 * (level > 127)))

    assert difference(seen(picture, kind, transparency=0), seen(drawing())) < 10


def test_a_photo_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise, as of a phone held upright
    photo = drawing().transpose(Image.Transpose.ROTATE_90)

    assert difference(seen(photo, "JPEG", exif=exif), seen(drawing(), "JPEG")) < 4


@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
@pytest.mark.parametrize("blank", [0, 1, 3])
def test_of_several_frames_the_first_that_is_not_blank_is_read(kind, blank):
    frames = [Image.new("L", (200, 200), level) for level in (240, 255, 230)[:blank]]
    first, *others = [*frames, drawing(), drawing(digit="2")]

    assert difference(seen(first, kind, save_all=True, append_images=others), seen(drawing())) < 1


def test_a_large_profile_or_text_beside_the_pixels_changes_nothing():
    text = PngInfo()
    text.add_text("name", "0" * 3 * 2**20, zip=True)

    np.testing.assert_array_equal(seen(drawing(), pnginfo=text), seen(drawing()))
    np.testing.assert_array_equal(seen(drawing(), icc_profile=bytes(3 * 2**20)), seen(drawing()))


def test_the_network_sees_what_mnists_makers_made(digits):
    for image in digits[0][::400]:
        made = seen(Image.fromarray(marker(image)))

        assert np.ptp(np.argwhere(made), axis=0).max() + 1 == pytest.approx(20, abs=1)
        assert ndimage.center_of_mass(made) == pytest.approx((14, 14), abs=0.6)
        assert made.max() >= 250


def test_mnists_own_images_stay_nearly_as_they_are(digits):
    differences = [difference(seen(Image.fromarray(image)), image) for image in digits[0][::10]]

    assert np.mean(differences) < 1.5
    assert np.percentile(differences, 95) < 4


def test_uneven_light_a_shadow_and_grain_leave_no_trace(digits):
    rng = np.random.default_rng(0)

    differences = [
        difference(seen(KINDS["half in shadow"](image, rng), "JPEG"), seen(Image.fromarray(marker(image))))
        for image in digits[0][::500]
    ]

    assert np.median(differences) < 16  # they are turned by up to 8 degrees


def test_a_thin_pen_is_drawn_as_wide_as_mnists(digits):
    images = digits[0][::250]

    ink_of_thin_pen = np.median([seen(Image.fromarray(thin_pen(image))).sum() for image in images])

    assert 0.6 < ink_of_thin_pen / np.median([image.sum() for image in images]) < 1.2


def grain() -> Image.Image:
    """Blank paper, as a camera sees it."""
    return Image.fromarray(np.random.default_rng(0).normal(200, 4, (600, 800)).clip(0, 255).astype(np.uint8))


OF_ONE_COLOUR = [Image.new("L", size, 77) for size in ((1, 1), (2, 1), (1, 900), (28, 28), (3000, 2))]


@pytest.mark.parametrize("picture", [*OF_ONE_COLOUR, grain()])
def test_blank_paper_is_called_empty(picture):
    assert reading(encoded(picture, "JPEG")).warning == EMPTY


def test_levels_of_16_bits_that_differ_by_next_to_nothing_are_one():
    grey = np.full((64, 64), 255, np.float32)
    grey[20:40, 20:40] = 0
    grey[25, 25] = 1 / 257

    assert ink_from_border(grey).ink.shape == (20, 20)
    assert list(ink_from_strokes(grey)) == []  # too wide for a stroke


@pytest.mark.parametrize("kind", MODES_OF_FORMATS)
def test_a_damaged_file_is_read_or_refused_but_breaks_nothing(kind, mutations, tries):
    content = encoded(drawing(80).convert("RGB"), kind)
    for damaged in mutations(content, tries(f"{kind} file damaged", quick=100, full=5000)):
        with contextlib.suppress(ValueError):
            assert reading(damaged).mnist_image.shape == (28, 28)


def test_a_photo_of_108_megapixels_is_read():
    picture = Image.new("L", (12_000, 9_000), 240)
    picture.paste(drawing().resize((6000, 6000)), (3000, 1500))

    assert difference(seen(picture, "JPEG"), seen(drawing())) < 10


# What is taken for the digit, and what is warned of


class Judge(Undecided):
    """A model to which an image is the more like a digit, the more ink it has: a pair fills half of the box."""

    def predict(self, images):
        return super().predict(images)._replace(outlier_scores=-images.double().mean((1, 2)).float())


@pytest.mark.parametrize("gap", [0, 40, 100])
def test_two_digits_are_told_from_one_by_their_parts(gap):
    picture = Image.new("L", (400 + gap, 240), 240)
    picture.paste(drawing(digit="4"), (0, 20))
    picture.paste(drawing(digit="2"), (200 + gap, 20))

    assert reading(encoded(picture), Judge()).warning == SEVERAL


@pytest.mark.parametrize(
    ("score", "penalty", "warning"),
    [(1, -3, UNLIKE), (-0.01, 0, None), (-0.01, 0.5, UNLIKE), (np.nan, -3, None), (np.nan, 0.5, None)],
)
def test_what_is_unlike_a_digit_is_said_and_sooner_where_its_ink_is_hard_to_find(score, penalty, warning, monkeypatch):
    monkeypatch.setattr("src.reader.ink.PENALTIES", dict.fromkeys(PENALTIES, penalty))

    assert reading(encoded(drawing()), Undecided(score)).warning == warning


def in_a_box() -> np.ndarray:
    """A digit in a printed box."""
    picture = Image.new("L", (300, 300), 240)
    picture.paste(drawing(), (50, 50))
    ImageDraw.Draw(picture).rectangle((40, 40, 260, 260), outline=20, width=4)
    return grey_of(picture)


def at_a_sheets_edge() -> np.ndarray:
    """A digit on a sheet that lies on a dark desk."""
    picture = Image.new("L", (300, 300), 30)
    picture.paste(drawing(220), (0, 80))
    return grey_of(picture)


@pytest.mark.parametrize("make", [in_a_box, at_a_sheets_edge])
def test_a_box_and_a_sheets_edge_do_not_belong_to_the_digit(make):
    images = [to_mnist_style(thicken(guess.ink)) for guess in ink_from_strokes(make(), dark=True)]

    assert min(difference(image, seen(drawing())) for image in images) < 6


def test_what_reaches_two_edges_is_certainly_ink_where_the_background_is_of_one_grey():
    grey = grey_of(drawing().crop(drawing().point(lambda level: level < 128, "1").getbbox()))
    noise = np.random.default_rng(0).normal(0, 2, grey.shape).astype(np.float32)

    drawn, photographed = ink_from_border(grey), ink_from_border(grey + noise)

    assert (drawn.dark, drawn.penalty) == (True, PENALTIES["cut out of a flat background"])
    assert (photographed.dark, photographed.penalty) == (None, PENALTIES["free of the edge"])


def test_a_drawing_that_was_enlarged_keeps_its_faint_side_and_its_blurred_strokes_are_thinned():
    small = np.zeros((8, 8), np.uint8)  # a zero
    small[:, 1] = small[[0, 7], 1:5] = 255
    small[:, 5] = 60
    grey = grey_of(Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC))

    made = ink_from_border(grey).ink

    assert made.shape == pytest.approx((128, 88), abs=8)
    assert (made[32:96, :32] > 0.5).sum(1).mean() < 15  # 18 of 128 pixels before
