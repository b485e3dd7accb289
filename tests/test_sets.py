"""What is trained on, what is held out for validation, and the test set."""

import pytest
import torch
from helpers.training import write_small_project

from src.mnist.dataset import Images
from src.mnist.dataset import load_manifest
from src.sampling.split import load_sets, split_validation
from src.pipeline.process import UserError


@pytest.fixture(scope="module")
def numbered(digits):
    """The digits' labels, with images whose pixels are all the image's number."""
    _, labels = digits
    return Images(torch.arange(5000).view(-1, 1, 1).expand(-1, 28, 28), torch.from_numpy(labels))


def test_the_validation_set_holds_the_same_share_of_each_class(numbered):
    _, validation = split_validation(numbered, 0.1)

    assert validation.labels.bincount().tolist() == [50] * 10


def test_each_image_is_in_one_of_the_two_sets(numbered):
    train, validation = split_validation(numbered, 0.1)

    both = torch.cat([train.images, validation.images])[:, 0, 0]
    assert sorted(both.tolist()) == list(range(5000))


def test_the_same_images_are_held_out_each_time(numbered):
    _, validation = split_validation(numbered, 0.1)
    _, again = split_validation(numbered, 0.1)

    assert torch.equal(again.images, validation.images)


def test_images_stay_with_their_labels(numbered):
    for part in split_validation(numbered, 0.1):
        assert torch.equal(part.labels, numbered.labels[part.images[:, 0, 0]])


def test_nothing_is_held_out_where_nothing_is_asked_for(numbered):
    assert split_validation(numbered, 0) == (numbered, None)


def test_a_share_too_small_for_an_image_of_each_class_is_a_clear_error(numbered):
    with pytest.raises(UserError, match=r"validation_size = 0.0001 is too small for 5000 images"):
        split_validation(numbered, 0.0001)


def test_the_sets_are_read_from_the_downloaded_files(tmp_path, monkeypatch, digits):
    write_small_project(tmp_path, digits)
    monkeypatch.chdir(tmp_path)

    sets = load_sets(load_manifest(), 0.2)

    assert {name: len(data.labels) for name, data in sets.items()} == {"train": 77, "validation": 19, "test": 20}


def test_there_is_no_validation_set_where_nothing_is_held_out(tmp_path, monkeypatch, digits):
    write_small_project(tmp_path, digits)
    monkeypatch.chdir(tmp_path)

    sets = load_sets(load_manifest(), 0)

    assert list(sets) == ["train", "test"]


def test_a_file_that_is_not_the_downloaded_one_is_a_clear_error(tmp_path, monkeypatch, digits):
    write_small_project(tmp_path, digits)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "data/mnist/MNIST/raw/t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")  # a nine that is called a zero

    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte is not the file that data/manifest.json names"):
        load_sets(load_manifest(), 0)
