"""The head that tells what is no digit: what it learns from, how it is fitted, and how it is kept with its model."""

import json
import re

import numpy as np
import pytest
import torch
from helpers.project import needs_posix
from helpers.training import MACHINE

from src.mnist.dataset import SIDE
from src.resnet.inference import to_input
from src.outliers import __main__ as stage
from src.reader.outliers.stage import FONTS, OTHER_FONTS, OUTLIERS
from src.reader.outliers.drawings import KINDS, LETTERS, SIGNS, draw
from src.reader.outliers.fitting import fit_head, set_threshold
from src.reader.outliers.materials import Materials, load_fonts
from src.pipeline.process import UserError
from src.resnet.model_file import encode_model, load_model, load_outlier_head, model_metadata, weights_hash
from src.resnet.network import build_model
from src.reader.head.outlier_head import OutlierHead, logits_and_features
from src.resnet.network import trim


@pytest.fixture
def make_materials(digits):
    """A function: materials of real digits, with the random numbers of a seed."""
    images, labels = digits
    by_class = {digit: images[labels == digit] for digit in range(10)}
    fonts = load_fonts("DejaVuSans.ttf", "DejaVuSerif.ttf")
    return lambda seed: Materials(by_class, fonts, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def features() -> tuple[torch.Tensor, torch.Tensor]:
    """Features of 4,000 digits and of 4,000 outliers, which lie apart: (4000, 30) each."""
    generator = torch.Generator().manual_seed(0)
    digits, outliers = torch.randn(2, 4000, 30, generator=generator).unbind()
    return digits, outliers + 2


@pytest.mark.parametrize("kind", KINDS)
def test_outliers_come_in_mnists_form_and_from_the_random_numbers_alone(make_materials, kind):
    drawn, again, others = (draw(kind, 20, make_materials(seed)) for seed in (0, 0, 1))

    assert (drawn.shape, drawn.dtype) == ((20, SIDE, SIDE), np.uint8)
    assert drawn.any((1, 2)).all()
    assert drawn.max() > 200
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != others).any()
    assert len(np.unique(drawn.reshape(20, -1), axis=0)) > 15  # hardly one like another


def test_a_chimera_is_of_two_digits(make_materials):
    materials = make_materials(0)
    taken = []

    class Noted(Materials):
        def digit(self, *classes):
            taken.append(classes)
            return super().digit(*classes)

    draw("chimeras", 200, Noted(*materials))

    pairs = list(zip(taken[::2], taken[1::2], strict=True))
    assert all(len(one) == len(other) == 1 and one != other for one, other in pairs)
    assert {one[0] for one, _ in pairs} == set(range(10))


def test_every_font_has_every_letter_and_sign():
    for families in (FONTS, OTHER_FONTS):
        for font in load_fonts(*families):
            drawn = {bytes(font.getmask(sign)) for sign in LETTERS + SIGNS}
            assert len(drawn) == len(LETTERS + SIGNS), font.path


def test_each_kind_has_its_share():
    assert OUTLIERS.keys() == KINDS.keys()
    assert all(share > 0 for share in OUTLIERS.values())


def test_a_head_tells_digits_from_outliers(features):
    digits, outliers = features

    head = fit_head(digits[:3000], outliers[:3000], seed=0)

    with torch.inference_mode():
        assert (head(outliers[3000:]) > 0).double().mean() > 0.9
        assert (head(digits[3000:]) < 0).double().mean() > 0.9


def test_a_head_is_a_function_of_its_seed(features):
    one, same, other = (fit_head(*features, seed=seed).state_dict() for seed in (0, 0, 1))

    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["layers.0.weight"], other["layers.0.weight"])


@pytest.mark.parametrize("false_positive_rate", [0.01, 0.1, 0.5])
def test_at_the_threshold_no_more_digits_are_taken_for_outliers_than_was_asked_for(features, false_positive_rate):
    digits, outliers = features
    head = fit_head(digits, outliers, seed=0)

    set_threshold(head, digits, false_positive_rate)

    with torch.inference_mode():
        share = (head(digits) > 0).double().mean().item()
    assert false_positive_rate - 0.01 <= share <= false_positive_rate


@pytest.mark.parametrize("image_size", [28, 64, 100])
def test_the_features_go_with_the_networks_own_logits(digits, image_size):
    torch.manual_seed(0)
    model = build_model(10).eval()
    inputs = to_input(torch.from_numpy(digits[0][:8]), image_size)

    with torch.inference_mode():
        logits, features = logits_and_features(model, inputs)
        trimmed_logits, trimmed_features = logits_and_features(trim(model, image_size), inputs)

        assert torch.equal(logits, model(inputs))
    assert features.shape == (8, 16 * 128 + 4 * 256 + 512 + 10)
    torch.testing.assert_close(trimmed_logits, logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(trimmed_features, features, rtol=1e-2, atol=1e-2)


def test_a_head_belongs_to_its_model(tmp_path):
    torch.manual_seed(0)
    model, other = build_model(10), build_model(10)
    file = tmp_path / "outliers.safetensors"
    file.write_bytes(encode_model(OutlierHead(5), {"model_sha256": weights_hash(model)}))

    assert not load_outlier_head(file, model).training
    with pytest.raises(UserError, match=r"it was fitted to another model; run `dvc repro outliers`"):
        load_outlier_head(file, other)


def test_another_kind_of_file_is_refused(tmp_path):
    torch.manual_seed(0)
    model = build_model(10)
    (tmp_path / "model").write_bytes(encode_model(model, model_metadata(28)))

    with pytest.raises(UserError, match="missing or damaged"):
        load_outlier_head(tmp_path / "model", model)


def test_the_stage_says_how_well_it_does(trained_once):
    metrics = json.loads(trained_once.read("metrics/outliers/metrics.json"))["outliers"]
    model, _ = load_model(trained_once.path / "models/model.safetensors")

    head = load_outlier_head(trained_once.path / "models/outliers.safetensors", model)

    assert metrics.keys() == {"false_positive_rate", "true_positive_rate"}
    assert 0 <= metrics["false_positive_rate"] < 0.05
    assert metrics["true_positive_rate"] > 0.3
    assert head.threshold != 0


def test_the_stage_measures_on_digits_and_fonts_that_the_head_was_not_fitted_to(trained, monkeypatch):
    used = []

    def draw_a_few(kind, count, materials):
        used.append(materials)
        return draw(kind, min(count, 20), materials)

    monkeypatch.chdir(trained.path)
    monkeypatch.setattr(stage, "draw", draw_a_few)
    monkeypatch.setattr(stage, "set_up_machine", lambda *_, **__: MACHINE)

    stage.main()

    fitted_to, measured_on = used[0], used[-1]
    assert not {font.path for font in fitted_to.fonts} & {font.path for font in measured_on.fonts}
    digits = [
        {image.tobytes() for images in each.digits.values() for image in images} for each in (fitted_to, measured_on)
    ]
    assert not digits[0] & digits[1]
    assert measured_on.rng is not fitted_to.rng


@pytest.mark.slow
@needs_posix
def test_the_stage_gives_the_same_bytes_again(trained):
    names = ("models/outliers.safetensors", "metrics/outliers/metrics.json")
    before = [(trained.path / name).read_bytes() for name in names]

    done = trained.run("python", "-m", "src.outliers")

    assert [(trained.path / name).read_bytes() for name in names] == before
    assert re.search(r"\d\.\d\d% of the test images called unlike any digit", done.stdout)
