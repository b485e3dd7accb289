"""The head that tells what is not a digit: what it learns from, how it is fitted, and how it is kept with its model."""

import json

import numpy as np
import pytest
import torch
from helpers.training import MACHINE, MNIST_INPUT

from src.images.dataset import DIGITS, SIDE, Images, load_images, load_manifest
from src.pipeline.process import UserError
from src.reader.head.outlier_head import HEAD_FILE, OutlierHead, TorchClassifier, load_outlier_head, logits_and_features
from src.reader.outliers import stage
from src.reader.outliers.drawings import KINDS, LETTERS, SIGNS, Materials, draw, load_fonts
from src.reader.outliers.stage import FONTS, OTHER_FONTS, fit_head, set_threshold
from src.resnet.inference import to_input
from src.resnet.model_file import encode_model, hash_tensors, model_metadata
from src.resnet.network import build_model, trim
from src.sampling.split import split_validation


@pytest.fixture
def make_materials(digits):
    """A function: materials of real digits, with the random numbers of a seed."""
    return lambda seed: Materials(Images(*digits), ("DejaVuSans.ttf", "DejaVuSerif.ttf"), seed)


@pytest.fixture(scope="module")
def features() -> tuple[torch.Tensor, torch.Tensor]:
    """Features of 4,000 digits and of 4,000 outliers, which lie apart: (4000, 30) each."""
    generator = torch.Generator().manual_seed(0)
    digits, outliers = torch.randn(2, 4000, 30, generator=generator).unbind()
    return digits, outliers + 2


@pytest.mark.parametrize("kind", KINDS)
def test_outliers_come_in_mnists_style_and_from_the_random_numbers_alone(make_materials, kind):
    drawn, again, others = (draw(kind, 20, make_materials(seed)) for seed in (0, 0, 1))

    assert (drawn.shape, drawn.dtype) == ((20, SIDE, SIDE), np.uint8)
    assert drawn.any((1, 2)).all()
    assert drawn.max() > 200
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != others).any()
    assert len(np.unique(drawn.reshape(20, -1), axis=0)) > 15  # hardly one like another


def test_a_chimera_is_of_two_digits(make_materials, monkeypatch):
    take, taken = Materials.digit, []
    monkeypatch.setattr(Materials, "digit", lambda self, digit: taken.append(digit) or take(self, digit))

    draw("chimeras", 200, make_materials(0))

    assert all(one != other for one, other in zip(taken[::2], taken[1::2], strict=True))
    assert set(taken[::2]) == set(range(10))


def test_every_font_has_every_letter_and_sign():
    for font in load_fonts(*FONTS, *OTHER_FONTS):
        drawn = {bytes(font.getmask(sign)) for sign in LETTERS + SIGNS}
        assert len(drawn) == len(LETTERS + SIGNS), font.path


def test_a_head_tells_digits_from_outliers_and_is_a_function_of_its_seed(features):
    digits, outliers = features

    one, same, other = (fit_head(digits[:3000], outliers[:3000], seed) for seed in (0, 0, 1))

    with torch.inference_mode():
        assert (one(outliers[3000:]) > 0).double().mean() > 0.9
        assert (one(digits[3000:]) < 0).double().mean() > 0.9
        assert torch.equal(one(digits), same(digits))
        assert not torch.equal(one(digits), other(digits))


@pytest.mark.parametrize("rate", [0.0035, 0.1, 0.5])
def test_at_the_threshold_at_most_the_given_share_of_digits_is_taken_for_outliers(features, rate):
    digits, outliers = features
    head = fit_head(digits, outliers, seed=0)

    set_threshold(head, digits[:3000], rate)

    with torch.inference_mode():
        above = (head(digits[:3000]) > 0).sum().item()
    assert rate * 3000 - 1 <= above <= rate * 3000


@pytest.mark.parametrize("image_size", [28, 64, 100])
def test_the_features_go_with_the_networks_own_logits(digits, image_size):
    torch.manual_seed(0)
    model = build_model("resnet18", 10).eval()
    inputs = to_input(torch.from_numpy(digits[0][:8]), MNIST_INPUT._replace(image_size=image_size))

    with torch.inference_mode():
        logits, features = logits_and_features(model, inputs)
        trimmed_logits, trimmed_features = logits_and_features(trim(model, image_size), inputs)

        assert torch.equal(logits, model(inputs))
    assert features.shape == (8, 16 * 128 + 4 * 256 + 512 + 10)
    torch.testing.assert_close(trimmed_logits, logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(trimmed_features, features, rtol=1e-2, atol=1e-2)


def test_a_model_of_other_classes_than_digits_is_refused(reader_once, monkeypatch):
    monkeypatch.chdir(reader_once.path)
    monkeypatch.setattr(stage, "load_model", lambda _: (None, {"class_names": ["circle", "square"]}))

    with pytest.raises(UserError, match="digits, not for circle"):
        stage.main()


def test_a_head_belongs_to_its_model(tmp_path):
    torch.manual_seed(0)
    model, other = build_model("resnet18", 10), build_model("resnet18", 10)
    file, model_file = tmp_path / "outliers.safetensors", tmp_path / "model.safetensors"
    file.write_bytes(encode_model(OutlierHead(5), {"model_sha256": hash_tensors(model.state_dict())}))
    model_file.write_bytes(encode_model(model, model_metadata("resnet18", DIGITS, MNIST_INPUT)))

    assert not load_outlier_head(file, model).training
    with pytest.raises(UserError, match=r"another model.*make reader"):
        load_outlier_head(file, other)
    with pytest.raises(UserError, match=r"model\.safetensors"):  # a file of another kind
        load_outlier_head(model_file, model)


def test_the_threshold_is_set_on_the_validation_images_and_the_stage_says_how_well_it_does(reader_once, monkeypatch):
    monkeypatch.chdir(reader_once.path)
    _, validation = split_validation(load_images(load_manifest(), "train"), 0.05)
    classifier = TorchClassifier(stage.MODEL_FILE, MACHINE, HEAD_FILE)

    scores = classifier.predict(torch.from_numpy(validation.images)).outlier_scores

    assert len(scores) == 200  # of which the allowed share is less than one
    assert scores.max() == pytest.approx(0, abs=1e-3)
    rates = json.loads(stage.RATES_FILE.read_text())
    assert 0 <= rates["false_positive_rate"] < 0.05
    assert rates["true_positive_rate"] > 0.3


def test_the_stage_measures_on_digits_and_fonts_that_the_head_was_not_fitted_to(reader, monkeypatch):
    used = []

    def draw_a_few(kind, count, materials):
        used.append(materials)
        return draw(kind, min(count, 20), materials)

    monkeypatch.chdir(reader.path)
    monkeypatch.setattr(stage, "draw", draw_a_few)
    monkeypatch.setattr(stage, "set_up_machine", lambda *_, **__: MACHINE)

    stage.main()

    fonts, other_fonts = ({font.path for font in materials.fonts} for materials in (used[0], used[-1]))
    digits, other_digits = (set(map(bytes, np.concatenate(list(each.digits.values())))) for each in (used[0], used[-1]))
    assert fonts.isdisjoint(other_fonts)
    assert digits.isdisjoint(other_digits)
