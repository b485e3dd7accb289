"""MNIST as it is read from its files, and what of it is held out for validation."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.training import write_small_project

from src.images.dataset import Images, load_images, load_manifest
from src.pipeline.process import UserError
from src.sampling.split import split_validation


@pytest.fixture
def small_project(tmp_path, monkeypatch, digits):
    """The working folder holds 96 training and 20 test images as ``download`` leaves them."""
    write_small_project(tmp_path, digits)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def numbered(digits):
    """The digits' labels, 500 of each class and sorted, with images whose pixels are all the image's number."""
    _, labels = digits
    return Images(np.broadcast_to(np.arange(5000)[:, None, None], (5000, 28, 28)), labels.astype(np.int64))


def numbers(data: Images) -> np.ndarray:
    return data.images[:, 0, 0]


def test_a_file_that_is_not_the_downloaded_one_is_named(small_project):
    file = Path("data/images/test_labels.npy")
    np.save(file, np.zeros(20, np.int64))  # as many labels, and all of them zeros

    with pytest.raises(UserError, match=f"{file} .*dvc repro -f download"):
        load_images(load_manifest(), "test")


@pytest.mark.parametrize("change", [{"training_images": 0}, {"sha256": None}, None])
def test_a_manifest_that_is_damaged_or_not_there_is_named(small_project, change):
    file = Path("data/manifest.json")
    if change:
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    else:
        file.unlink()

    with pytest.raises(UserError, match=f"{file} .*dvc repro -f download"):
        load_manifest()


def test_a_split_holds_out_the_same_share_of_each_class_and_each_image_is_in_one_part(numbered):
    train, validation = split_validation(numbered, 1 / 3)

    by_class = np.bincount(validation.labels)
    assert by_class.sum() == round(5000 / 3)
    assert by_class.max() - by_class.min() <= 1
    assert sorted([*numbers(train), *numbers(validation)]) == list(range(5000))
    assert np.array_equal(train.labels, numbered.labels[numbers(train)])
    assert numbers(split_validation(numbered, 0.1)[1])[:8].tolist() == [23, 31, 32, 36, 51, 62, 69, 87]


def test_whole_writers_are_held_out_with_the_share_that_was_asked_for_whoever_of_the_others(numbered):
    writers = np.random.default_rng(0).integers(0, 100, 5000) ** 2 % 541  # some of them write much, some little

    train, validation = split_validation(numbered, 1 / 6, writers)

    assert sorted([*numbers(train), *numbers(validation)]) == list(range(5000))
    assert not set(writers[numbers(train)]) & set(writers[numbers(validation)])
    assert len(validation.labels) == pytest.approx(5000 / 6, abs=3)
    assert 10 < len(set(writers[numbers(validation)])) < 30


@pytest.mark.parametrize("writers", [None, np.arange(5000) // 50])
def test_a_share_too_small_for_an_image_of_each_class_is_an_error_that_names_it(numbered, writers):
    with pytest.raises(UserError, match=r"validation_size = 0\.0001 .* 5000 images"):
        split_validation(numbered, 0.0001, writers)
