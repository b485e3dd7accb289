"""Data of one's own, and another network: the same workflow by one parameter."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.project import quick_params
from helpers.training import FROM_RANDOM_WEIGHTS, MACHINE, MNIST_INPUT
from PIL import Image, ImageDraw

from src.download import stage as download
from src.images.dataset import load_images, load_manifest
from src.pictures.read import read_picture
from src.pipeline.process import UserError
from src.report.figures import confusion_matrix
from src.resnet.model_file import load_model
from src.sampling.split import load_sets
from src.train.batches import Batches, ImagesOnDevice
from src.train.processes import ProcessGroup

SHAPES = ("circle", "square", "wedge, left|right")


def draw(shape: str, side: int, seed: int) -> Image.Image:
    """Draw a bright shape of a random colour on a dark one."""
    colours = np.random.default_rng(seed).integers([0, 150], [90, 255], (3, 2))
    dark, bright = map(tuple, colours.T.tolist())
    picture = Image.new("RGB", (side, side + seed % 9), dark)
    box, pen = (side // 6, side // 6, side - side // 6, side - side // 6), ImageDraw.Draw(picture)
    if shape == "square":
        pen.rectangle(box, bright)
    else:
        pen.pieslice(box, 30, 390 if shape == "circle" else 120, bright)
    return picture


def draw_folder(folder: Path, *, test: bool = True, count: int = 20) -> Path:
    for part, number in (("train/", count), ("test/", count // 4)) if test else (("", count),):
        for shape in SHAPES:
            (folder / f"{part}{shape}").mkdir(parents=True)
            for i in range(number):
                suffix = ("png", "jpg", "bmp")[i % 3]
                seed = i + 1000 * (part == "test/")
                draw(shape, (20, 40, 90)[i % 3], seed).save(folder / f"{part}{shape}" / f"{i}.{suffix}")
    return folder


def test_a_folder_of_pictures_goes_through_the_workflow_with_another_network(project):
    draw_folder(project.path / "data/own/shapes")
    project.set_params(
        dataset="data/own/shapes", network="resnet34", weights="random", batch_size=10, epochs=1, image_size=32
    )
    project.commit("shapes")

    project.run("dvc", "repro")

    run, (model, metadata) = (
        json.loads(project.read("models/run.json")),
        load_model(project.path / "models/model.safetensors"),
    )
    assert (run["network"], run["dataset"], run["test_split"]) == ("resnet34", "shapes", "folder")
    assert metadata["architecture"] == "resnet34"
    assert tuple(metadata["class_names"]) == SHAPES
    assert len(model.layer1) == 3  # blocks, as ResNet-34 has them
    manifest = json.loads(project.read("data/manifest.json"))
    assert (manifest["training_images"], manifest["test_images"], manifest["side"]) == (60, 15, 32)
    report, card = project.read("metrics/report.md"), project.read("models/README.md")
    for page in (report, card):
        assert "ResNet-34" in page
        assert "digit" not in page
    assert "| wedge, left\\|right |" in report
    header = yaml.safe_load(card.split("---\n")[1])
    figures = {metric["type"]: metric["value"] for metric in header["model-index"][0]["results"][0]["metrics"]}
    test = json.loads(project.read("metrics/evaluate/metrics.json"))["test"]
    assert figures == pytest.approx({name: test[name] for name in ("accuracy", "loss")}, abs=1e-6)
    picture = "data/own/shapes/test/circle/0.png"
    answer = json.loads(project.run("python", "predict.py", "--json", picture).stdout)
    assert answer["file"] == picture
    assert sum(answer["probabilities"].values()) == pytest.approx(1)

    # An unchanged picture runs nothing, a changed one the download.
    (project.path / picture).touch()
    assert project.run("dvc", "status", "train", "download").stdout.count("changed") == 0
    draw("square", 50, 7).save(project.path / "data/own/shapes/train/circle/0.png")
    assert "data/own" in project.run("dvc", "status", "download").stdout


def test_without_a_test_set_a_share_of_each_class_is_held_out(in_project):
    folder = draw_folder(in_project.path / "shapes", test=False)
    (folder / SHAPES[0] / "Thumbs.db").write_bytes(b"a file manager's")
    in_project.set_params(dataset="./shapes", weights="random")

    download.main()

    manifest = load_manifest()
    train, test = (load_images(manifest, name) for name in ("train", "test"))
    assert manifest.test_split == "class"
    assert np.bincount(train.labels).tolist() == [16] * 3
    assert np.bincount(test.labels).tolist() == [4] * 3
    everything = {read_picture(file, manifest.side).tobytes() for file in folder.rglob("[0-9]*.*")}
    assert {image.tobytes() for image in (*train.images, *test.images)} == everything


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def leave_one_class(folder: Path) -> None:
    for shape in SHAPES[1:]:
        (folder / shape).rename(folder.parent / shape)


@pytest.mark.parametrize(
    ("place", "spoil"),
    [
        ("train/square/3.png", cut_short),
        ("train/empty", Path.mkdir),
        ("test/star", Path.mkdir),
        ("train/Circle", Path.mkdir),
        ("train", leave_one_class),
    ],
)
def test_a_folder_that_is_not_as_it_should_be_is_one_line_that_names_the_place(in_project, place, spoil):
    named = draw_folder(in_project.path / "shapes", count=4) / place
    spoil(named)
    in_project.set_params(dataset=str(in_project.path / "shapes"), weights="random")

    with pytest.raises(UserError, match=f"{named}[^\n]*$"):
        download.main()

    assert not Path("data/manifest.json").exists()


@pytest.mark.parametrize(
    ("dataset", "weights", "named"),
    [
        ("./no such folder", "random", "no such folder"),
        ("./mnist", "random", "./mnist: .*rename it"),
        ("sample", "imagenet", "resnet50"),
    ],
)
def test_what_is_not_there_or_of_another_network_is_named(in_project, dataset, weights, named):
    in_project.set_params(dataset=dataset, weights=weights, network="resnet50")

    with pytest.raises(UserError, match=named):
        download.main()


def in_bits(picture: Image.Image, mode: str) -> Image.Image:
    values = np.asarray(picture)
    return Image.fromarray(values.astype(np.uint16) * 257 if mode == "I;16" else values.astype(np.float32) / 9)


@pytest.mark.parametrize(
    ("suffix", "mode"), [("png", "P"), ("png", "RGBA"), ("png", "I;16"), ("jpg", "CMYK"), ("tiff", "F")]
)
def test_a_picture_is_grey_and_upright_whatever_its_kind(tmp_path, suffix, mode):
    grey = Image.new("L", (60, 40), 255)
    ImageDraw.Draw(grey).rectangle((0, 0, 29, 39), 0)  # the left half is black
    picture = in_bits(grey, mode) if mode in ("I;16", "F") else grey.convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # it is to be turned by 90 degrees
    picture.save(tmp_path / f"picture.{suffix}", exif=exif)

    found = read_picture(tmp_path / f"picture.{suffix}", 32).astype(int)

    assert found.shape == (32, 32)
    assert found[:16].mean() < 15
    assert found[16:].mean() > 240


def test_what_is_transparent_is_white(tmp_path):
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "picture.png")

    assert (read_picture(tmp_path / "picture.png", 28) == 255).all()


def anonymous_memory() -> int:
    """The bytes in this process's memory that lie in no file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"^RssAnon:\s+(\d+) kB", status, re.M)[1])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux's count of a process's memory")
def test_images_that_do_not_fit_in_memory_are_read_as_they_are_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count, side = 65_000, 128
    Path("data/images").mkdir(parents=True)
    for name in ("train", "test"):
        np.lib.format.open_memmap(
            f"data/images/{name}_images.npy", "w+", np.uint8, (count, side, side)
        )  # 1 GiB, sparse
        np.save(f"data/images/{name}_labels.npy", np.arange(count) % 10)
    monkeypatch.setattr("src.images.dataset.Manifest.check", lambda *_: None)
    monkeypatch.setattr("src.train.batches.ON_DEVICE", 2**29)
    before = anonymous_memory()

    sets = load_sets(FROM_RANDOM_WEIGHTS, 0.5)
    data = {name: ImagesOnDevice(images, MACHINE.device) for name, images in sets.items()}
    batches = Batches(data["train"], quick_params(batch_size=256), MNIST_INPUT, ProcessGroup())
    for _, batch in zip(range(10), batches.epoch(0), strict=False):
        assert batch.inputs.shape == (256, 1, 28, 28)
    for indices in torch.arange(len(data["validation"])).split(1000):
        images, _ = data["validation"].take(indices)
        assert len(images) == len(indices)

    assert anonymous_memory() - before < 300 * 2**20  # of twice 1 GiB


def test_a_thousand_classes_are_drawn():
    labels = np.arange(1000)

    assert confusion_matrix(labels, labels[::-1], [f"a class with a long name {label}" for label in labels])
