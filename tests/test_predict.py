"""What ``python -m src.predict`` makes of image files: their digits, and one line for what has none."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pictures import (
    FORMATS_AND_MODES,
    LEAST_RIGHT_BY_KIND,
    MODES_OF_FORMATS,
    Undecided,
    centre_of_mass,
    difference,
    drawing,
    encoded,
    extent,
    form,
    form_of,
    huge,
    in_mode,
    reading,
)
from helpers.project import ROOT, Project, needs_posix
from PIL import Image, ImageDraw

from benchmarks.pictures import enlarged_digits, fine_pen, marker, photograph
from src.reader.outliers.mnist_style import to_form
from src.mnist.dataset import load_test_images
from src.mnist.dataset import load_manifest
from src.reader.ink import guess_ground, guess_strokes
from src.reader.picture import read_grey
from src.reader.recognise import EMPTY, read_digits
from src.reader.strokes import thicken

ORIENTATIONS = {  # EXIF's, each with what a picture of it looks like before it is turned as it says
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(scope="module")
def well_trained(trained_once, tmp_path_factory):
    """A clone with a model that is worth asking: 5 epochs on the sample."""
    project = trained_once.copy(tmp_path_factory.mktemp("well_trained"))
    project.set_params(epochs=5)
    for stage in ("train", "evaluate", "outliers"):
        project.run("python", "-m", f"src.{stage}")
    return project


@pytest.fixture(scope="module")
def shares(well_trained):
    """What is right in % of each kind of picture, measured as the figures of docs/use.md are."""
    table = well_trained.run("python", "-m", "benchmarks.pictures", "--photos", "40").stdout
    rows = re.findall(r"^\| (.*?) \| [\d,]+ \| ([\d.]+)% \| [\d.]+% \|$", table, re.M)
    return {kind: float(share) for kind, share in rows}


@pytest.fixture
def right(tries, request):
    """The same, and under "data set" what is right of the test images themselves; only where there is time for it."""
    tries("pictures of nine kinds asked about", quick=0, full=1)
    metrics = json.loads(request.getfixturevalue("well_trained").read("metrics/evaluate/metrics.json"))
    return request.getfixturevalue("shares") | {"data set": 100 * metrics["test"]["accuracy"]}


def predict(project: Project, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess:
    """Run the command in a project."""
    return project.run("python", "-m", "src.predict", *arguments, ok=ok)


def predict_and_measure(project: Project, folder: str) -> tuple[int, int]:
    """Run the command on a folder: the number of its answers, and the most memory that it took, in MiB."""
    command = ("python", "-m", "src.predict", "--json", folder)
    *answers, peak = project.run("python", "-m", "benchmarks.peak_memory", *command).stdout.splitlines()
    return len(answers), int(peak.split()[-2])


def test_it_does_well_on_pictures_that_are_not_mnists(right):
    too_few = {kind: right[kind] for kind, least in LEAST_RIGHT_BY_KIND.items() if right[kind] < least}

    assert too_few == {}


def test_mnists_own_images_are_read_as_well_from_files_as_from_the_data_set(right):
    assert right["MNIST's test images, PNG"] == pytest.approx(right["data set"], abs=0.5)


def test_an_image_of_the_test_set_gets_from_a_file_the_answer_that_evaluate_gave(trained_once, monkeypatch, tmp_path):
    monkeypatch.chdir(trained_once.path)
    images, _ = load_test_images(load_manifest())
    for number, image in enumerate(images.numpy()):
        Image.fromarray(image).save(tmp_path / f"{number:04}.png")
    table = list(csv.DictReader(trained_once.read("metrics/evaluate/predictions.csv").splitlines()))

    done = predict(trained_once, "--json", str(tmp_path))

    answers = [json.loads(line)["digit"] for line in done.stdout.splitlines()]
    evaluated = [int(row["predicted"]) for row in table]
    same = sum(answer == other for answer, other in zip(answers, evaluated, strict=True))
    assert same >= 940  # of 1,000: a file's digit is moved and scaled by parts of a pixel


@needs_posix
def test_files_folders_and_standard_input_are_answered_in_a_table(trained_once, tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for name in ("no suffix", "folder/b.png", "folder/a.JPG", "folder/inner/c.tif", "folder/notes.txt"):
        (tmp_path / name).write_bytes(encoded(drawing()))
    command = f'python -m src.predict "{tmp_path}/no suffix" {tmp_path}/folder - < {tmp_path}/folder/b.png'

    header, *rows = trained_once.run("bash", "-c", command).stdout.splitlines()

    assert header.split() == ["digit", "probability", "runners-up", "file"]
    assert [row.split(maxsplit=6)[6] for row in rows] == [
        f"{tmp_path}/no suffix",
        f"{tmp_path}/folder/a.JPG",
        f"{tmp_path}/folder/b.png",
        f"{tmp_path}/folder/inner/c.tif",
        "-",
    ]
    answers = {row[:39] for row in rows}  # all but the files' names
    assert len(answers) == 1  # the files hold the same picture
    assert re.match(r" +\d +\d+\.\d\d%  \d \d+\.\d\d%, \d \d+\.\d\d% +\S", rows[0])


def test_json_is_one_object_a_line(trained_once, tmp_path):
    (tmp_path / "1.png").write_bytes(encoded(drawing()))
    (tmp_path / "2.png").write_bytes(encoded(drawing(digit="2")))

    done = predict(trained_once, "--json", str(tmp_path))

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [str(tmp_path / "1.png"), str(tmp_path / "2.png")]
    for answer in answers:
        assert answer.keys() == {"file", "digit", "probability", "runners_up", "warning"}
        ranking = [answer, *answer["runners_up"]]
        assert len({each["digit"] for each in ranking} & set(range(10))) == len(ranking) == 3
        assert 1 >= ranking[0]["probability"] >= ranking[1]["probability"] >= ranking[2]["probability"] >= 0


def test_what_cannot_be_answered_is_one_line_each_and_the_rest_is_answered(trained_once, tmp_path):
    contents = {
        "1.png": encoded(drawing()),
        "2.png": b"no image at all",
        "3.png": encoded(drawing())[:300],
        "4.png": encoded(Image.new("RGB", (50, 50), "white")),
        "5.png": huge(),
        "6.png": encoded(drawing(digit="2")),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty").mkdir()

    missing, empty = str(tmp_path / "missing.png"), str(tmp_path / "empty")

    done = predict(trained_once, "--json", str(tmp_path), missing, empty, ok=False)

    assert done.returncode == 1
    answered = [json.loads(line)["file"] for line in done.stdout.splitlines()]
    assert answered == [str(tmp_path / name) for name in ("1.png", "4.png", "6.png")]
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    assert (
        lines[0] == f"error: {tmp_path / '2.png'}: no picture of the kinds PNG, JPEG, BMP, GIF, WEBP, TIFF, AVIF, HEIF"
    )
    assert lines[1].startswith(f"error: {tmp_path / '3.png'}: can't be read as a picture: ")
    assert lines[2].startswith(f"error: {tmp_path / '5.png'}: can't be read as a picture: 50000 × 50000 pixels take")
    assert lines[3] == f"error: {missing}: No such file or directory"
    assert lines[4] == f"error: {empty}: a folder without images"


@pytest.mark.slow
def test_it_runs_from_any_folder(trained_once, tmp_path):
    (tmp_path / "1.png").write_bytes(encoded(drawing()))
    expected = predict(trained_once, str(tmp_path / "1.png")).stdout.splitlines()[1].split()

    command = [sys.executable, trained_once.path / "predict.py", "1.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[1].split() == [*expected[:-1], "1.png"]


def test_without_an_environment_the_line_says_what_to_type(tmp_path):
    shutil.copy(ROOT / "predict.py", tmp_path)

    done = subprocess.run(
        [sys.executable, "-S", "-E", "predict.py", "1.png"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr == f"error: no environment yet; run `make repro` in {tmp_path}\n"


@needs_posix
def test_any_python_hands_over_to_the_projects_environment(trained, tmp_path):
    (trained.path / ".venv").symlink_to(sys.prefix)
    picture = tmp_path / "1.png"
    picture.write_bytes(encoded(drawing()))

    command = [sys._base_executable, trained.path / "predict.py", "--json", picture]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["file"] == str(picture)


@needs_posix
def test_a_reader_that_has_seen_enough_ends_it_without_a_word(trained_once, tmp_path):
    for number in range(150):  # more than are read at a time
        (tmp_path / f"{number}.png").write_bytes(encoded(drawing()))

    done = trained_once.run("bash", "-c", f"python -m src.predict {tmp_path} | head -n 1")

    assert done.stdout.startswith("digit")
    assert done.stderr == ""


def test_a_files_name_comes_out_as_it_is(trained_once, tmp_path):
    name = b"\xff \xe4.png"
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(encoded(drawing()))
    except OSError:
        pytest.skip("this file system takes no name that is not UTF-8")

    command = [sys.executable, "-m", "src.predict", str(tmp_path)]
    done = subprocess.run(command, cwd=trained_once.path, capture_output=True, check=True)

    assert done.stdout.splitlines()[1].endswith(name)


def test_either_file_of_the_model_gives_the_same_answers(trained_once, tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(encoded(drawing(digit=str(number))))

    answers = [
        [
            json.loads(line)
            for line in predict(trained_once, "--json", "--model", model, str(tmp_path)).stdout.splitlines()
        ]
        for model in ("models/model.safetensors", "models/model.onnx")
    ]

    for one, other in zip(*answers, strict=True):
        assert (one["file"], one["digit"], one["warning"]) == (other["file"], other["digit"], other["warning"])
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-3)


def test_a_warning_is_in_the_table_in_json_and_where_asked_for_in_the_exit_status(trained_once, tmp_path):
    (tmp_path / "1.png").write_bytes(encoded(Image.new("L", (50, 50), 255)))

    row = predict(trained_once, str(tmp_path)).stdout.splitlines()[1]
    strict = predict(trained_once, "--json", "--strict", str(tmp_path), ok=False)

    assert row.split() == ["-", "-", str(tmp_path / "1.png"), "(an", "empty", "picture)"]
    assert strict.returncode == 3
    assert json.loads(strict.stdout)["warning"] == "an empty picture"
    assert json.loads(strict.stdout)["digit"] is None


def test_a_folder_from_a_phone_is_read_without_what_systems_leave_in_it(trained_once, tmp_path):
    for name in ("a.heic", "b.gif", "c.jfif", "d.avif"):
        kind = {"heic": "HEIF", "jfif": "JPEG"}.get(name[2:], name[2:].upper())
        (tmp_path / name).write_bytes(encoded(drawing(), kind))
    for name in ("._a.heic", ".ipynb_checkpoints/a.png", "notes.txt", "film.mov", "other.mov"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"?")

    done = predict(trained_once, "--json", str(tmp_path))

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [
        f"{tmp_path}/{name}" for name in ("a.heic", "b.gif", "c.jfif", "d.avif")
    ]
    assert len({answer["digit"] for answer in answers}) == 1
    assert done.stderr.splitlines() == ["passed over, by their names no pictures: 2 .mov, 1 .txt"]


def test_a_missing_model_is_a_clear_line(project, tmp_path, fails):
    (tmp_path / "1.png").write_bytes(encoded(drawing()))

    done = predict(project, f"{tmp_path}/1.png", ok=False)

    fails(done, "models/model.safetensors", "repro")


@needs_posix
def test_memory_does_not_grow_with_the_number_of_pictures(trained_once, tmp_path, tries):
    many = tries("pictures in one call", quick=0, full=5000)
    picture = encoded(drawing(200))  # 160 kB of grey levels
    for folder, count in (("few", 500), ("many", many)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / f"{number:04}.png").write_bytes(picture)

    answers_to_few, memory_of_few = predict_and_measure(trained_once, f"{tmp_path}/few")
    answers_to_many, memory_of_many = predict_and_measure(trained_once, f"{tmp_path}/many")

    assert (answers_to_few, answers_to_many) == (500, many)
    assert memory_of_many < memory_of_few + 80


@pytest.mark.parametrize(("kind", "mode"), FORMATS_AND_MODES)
def test_each_format_and_mode_gives_the_same_form(kind, mode):
    made = form_of(in_mode(drawing(), mode), kind)

    assert difference(made, form_of(drawing())) < 10


@pytest.mark.parametrize("side", [24, 60, 500, 2000])
def test_the_size_makes_no_difference(side):
    made = form_of(drawing(side))

    assert difference(made, form_of(drawing(400))) < 10


@pytest.mark.parametrize(("ink", "ground"), [(240, 20), (255, 0), (0, 255), (90, 130), (130, 90)])
def test_dark_on_light_and_light_on_dark_give_the_same_form(ink, ground):
    made = form_of(drawing(ink=ink, ground=ground))

    assert difference(made, form_of(drawing())) < 2


def test_margins_make_no_difference():
    picture = Image.new("L", (900, 700), 240)
    picture.paste(drawing(), (650, 40))

    made = form_of(picture)

    assert difference(made, form_of(drawing())) < 10


@pytest.mark.parametrize("colour", ["black", "white", "red"])
def test_a_digit_on_a_transparent_ground_is_seen(colour):
    mask = drawing(ink=255, ground=0)
    picture = Image.new("RGBA", mask.size, (0, 0, 0, 0))
    picture.paste(colour, mask=mask)

    made = form_of(picture)

    assert difference(made, form_of(drawing())) < 4


@pytest.mark.parametrize("format_", ["GIF", "PNG"])
def test_a_transparent_colour_of_a_palette_is_seen(format_):
    picture = Image.new("P", drawing().size)
    picture.putpalette([0, 0, 0] * 2)  # the ground is as black as the ink
    picture.paste(1, mask=drawing(ink=255, ground=0).point(lambda level: 255 * (level > 127)))

    made = form_of(picture, format_, transparency=0)

    assert difference(made, form_of(drawing())) < 10


def test_transparent_corners_are_taken_for_ground():
    picture = drawing().convert("RGBA")
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 199, 199), 40, fill=255)
    picture.putalpha(mask)

    made = form_of(picture)

    assert difference(made, form_of(drawing())) < 4


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_photo_is_turned_as_its_exif_says(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = drawing().transpose(ORIENTATIONS[orientation])

    made = form_of(turned, "JPEG", exif=exif)

    assert difference(made, form_of(drawing(), "JPEG")) < 4


def test_of_several_frames_the_first_is_read():
    made = form_of(drawing(), "TIFF", save_all=True, append_images=[drawing(digit="2")])

    assert difference(made, form_of(drawing())) < 1


@pytest.mark.parametrize("drawn", [np.asarray, marker])
def test_a_form_is_what_mnists_makers_made(digits, drawn):
    for image in digits[0][::400]:
        made = form_of(Image.fromarray(drawn(image)))

        assert max(extent(made)) == pytest.approx(20, abs=1)
        assert centre_of_mass(made) == pytest.approx((14, 14), abs=0.6)
        assert made.max() >= 250


def test_mnists_own_images_stay_nearly_as_they_are(digits):
    differences = [difference(form_of(Image.fromarray(image)), image) for image in digits[0][::10]]

    assert np.mean(differences) < 1.5
    assert np.percentile(differences, 95) < 4


def test_uneven_light_a_shadow_and_grain_leave_no_trace(digits):
    chance = np.random.default_rng(0)
    differences = []
    for image in digits[0][::500]:
        photo, _ = photograph(marker(image), 0, chance)
        with contextlib.suppress(ValueError):  # what is too faint is called empty
            differences.append(difference(form_of(photo, "JPEG"), form_of(Image.fromarray(marker(image)))))

    assert len(differences) >= 9  # of 10
    assert np.median(differences) < 16  # they are turned by up to 8 degrees


def test_a_fine_pen_is_drawn_as_wide_as_mnists(digits):
    images = digits[0][::250]

    ink_of_fine_pen = np.median([form_of(Image.fromarray(fine_pen(image))).sum() for image in images])

    ink_of_mnist = np.median([image.sum() for image in images])
    assert 0.6 < ink_of_fine_pen / ink_of_mnist < 1.2


def test_specks_and_what_reaches_over_the_edge_are_no_part_of_the_digit():
    picture = drawing()
    brush = ImageDraw.Draw(picture)
    brush.rectangle((15, 15, 18, 18), fill=20)
    brush.line((0, 185, 60, 199), fill=20, width=3)

    made = form_of(picture)

    assert difference(made, form_of(drawing())) < 1


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 900), (28, 28), (3000, 2)])
def test_a_picture_of_one_colour_is_called_empty(size):
    assert reading(encoded(Image.new("L", size, 77))).warning == EMPTY


def test_blank_paper_is_called_empty():
    grain = np.random.default_rng(0).normal(200, 4, (600, 800)).clip(0, 255).astype(np.uint8)

    assert reading(encoded(Image.fromarray(grain), "JPEG")).warning == EMPTY


def test_levels_of_16_bits_that_differ_by_next_to_nothing_are_one(tmp_path):
    grey = np.full((64, 64), 65535, np.uint16)
    grey[20:40, 20:40] = 0
    grey[25, 25] = 1
    Image.fromarray(grey).save(tmp_path / "picture.png")

    read = read_grey(tmp_path / "picture.png")

    assert guess_ground(read).ink.shape == (20, 20)
    assert list(guess_strokes(read)) == []  # too wide for a stroke


def test_a_decompression_bomb_is_refused():
    with pytest.raises(ValueError, match="more than 512"):
        form(huge())


@pytest.mark.parametrize("kind", MODES_OF_FORMATS)
def test_a_damaged_file_is_read_or_refused_but_breaks_nothing(kind, mutations, tries):
    content = encoded(drawing(80).convert("RGB"), kind)
    for damaged in mutations(content, tries(f"{kind} file damaged", quick=100, full=5000)):
        try:
            made = form(damaged)
        except ValueError:
            continue
        assert made.shape == (28, 28)
        assert made.dtype == np.uint8


def test_a_photo_of_108_megapixels_is_read():
    picture = Image.new("L", (12_000, 9_000), 240)
    picture.paste(drawing().resize((6000, 6000)), (3000, 1500))

    made = form_of(picture, "JPEG")

    assert difference(made, form_of(drawing())) < 10


class Judge(Undecided):
    """A model to which an image is the more like a digit, the more ink it has: a pair fills half of the box."""

    def answers(self, images):
        return super().answers(images)._replace(outlier_scores=-images.double().mean((1, 2)).float())


class Severe(Undecided):
    """A model to which nothing is like a digit."""

    def answers(self, images):
        return super().answers(images)._replace(outlier_scores=torch.ones(len(images)))


def side_by_side(gap: int) -> Image.Image:
    """Two printed digits, so many pixels apart."""
    picture = Image.new("L", (400 + gap, 240), 240)
    picture.paste(drawing(digit="4"), (0, 20))
    picture.paste(drawing(digit="2"), (200 + gap, 20))
    return picture


@pytest.mark.parametrize("gap", [0, 40, 100])
def test_two_digits_are_told_from_one_by_their_parts(gap):
    grey = read_grey(io.BytesIO(encoded(side_by_side(gap))))

    assert read_digits([grey], Judge())[0].warning == "more than one digit"


def test_what_is_like_no_digit_is_said(digits):
    grey = [read_grey(io.BytesIO(encoded(drawing())))]

    assert read_digits(grey, Severe())[0].warning == "unlike any digit"
    assert read_digits(grey, Undecided())[0].warning is None


def test_where_the_ink_is_hard_to_find_a_score_just_below_its_threshold_is_enough_for_a_warning(monkeypatch):

    class Barely(Undecided):
        def answers(self, images):
            return super().answers(images)._replace(outlier_scores=torch.full((len(images),), -0.01))

    grey = read_grey(io.BytesIO(encoded(drawing())))
    monkeypatch.setattr("src.reader.recognise.guess_strokes", lambda *_: [])
    warnings = []

    for handicap in (0.0, 0.5):
        found = guess_ground(grey)._replace(handicap=handicap)
        monkeypatch.setattr("src.reader.recognise.guess_ground", lambda _, found=found: found)
        warnings += [reading.warning for reading in read_digits([grey], Barely())]

    assert warnings == [None, "unlike any digit"]


@pytest.mark.parametrize("frame", ["box", "sheet"])
def test_a_box_and_a_sheets_edge_are_no_part_of_the_digit(frame):
    if frame == "box":
        picture = Image.new("L", (300, 300), 240)
        picture.paste(drawing(), (50, 50))
        ImageDraw.Draw(picture).rectangle((40, 40, 260, 260), outline=20, width=4)
    else:
        picture = Image.new("L", (300, 300), 30)
        picture.paste(drawing(220), (0, 80))
    forms = [to_form(thicken(guess.ink)) for guess in guess_strokes(np.asarray(picture, np.float32), dark=True)]

    assert min(difference(made, form_of(drawing())) for made in forms) < 6


def test_ink_that_lies_across_a_shadows_edge_is_seen_whole():
    light = np.where(np.add(*np.indices((200, 200))) > 200, 0.5, 1)
    picture = np.asarray(drawing(), np.float32) * light

    forms = [to_form(thicken(guess.ink)) for guess in guess_strokes(picture.astype(np.float32), dark=True)]

    assert min(difference(made, form_of(drawing())) for made in forms) < 6


def test_what_reaches_two_edges_is_certainly_ink_where_the_ground_is_of_one_grey():
    grey = np.asarray(drawing().crop(drawing().point(lambda level: level < 128, "1").getbbox()), np.float32)
    noise = np.random.default_rng(0).normal(0, 2, grey.shape).astype(np.float32)

    drawn, photographed = guess_ground(grey), guess_ground(grey + noise)

    assert drawn.dark is True
    assert photographed.dark is None
    assert drawn.handicap < photographed.handicap


def test_a_drawing_that_was_enlarged_keeps_its_faint_side_and_its_blurred_strokes_are_thinned():
    small = np.zeros((8, 8), np.uint8)  # a zero
    small[:, 1] = small[[0, 7], 1:5] = 255
    small[:, 5] = 60
    grey = np.asarray(Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC), np.float32)

    made = guess_ground(grey).ink

    assert made.shape == pytest.approx((128, 88), abs=8)
    assert (made[32:96, :32] > 0.5).sum(1).mean() < 15  # 18 of 128 pixels before


def test_tiny_digits_are_fitted_into_the_same_box():
    for picture, _ in list(enlarged_digits())[:100]:
        made = form_of(picture.resize((8, 8), Image.Resampling.BOX))

        assert max(extent(made)) == pytest.approx(20, abs=1)
