"""The trimmed network is the same network, for one image size."""

import copy

import pytest
import torch
import torch.nn.functional as F

from src.resnet.network import build_model
from src.resnet.trim import TrimmedConv2d, restore, trim


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return build_model(10)


def trimmed_convolutions(model) -> dict[str, TrimmedConv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, TrimmedConv2d)}


@pytest.mark.parametrize("image_size", [28, 32, 64])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_the_plain_network(plain, image_size, training):
    torch.manual_seed(1)
    inputs, labels = torch.randn(8, 1, image_size, image_size), torch.randint(0, 10, (8,))
    theirs, ours = copy.deepcopy(plain).train(training), trim(plain, image_size).train(training)
    logits = {model: model(inputs) for model in (theirs, ours)}
    assert torch.allclose(logits[ours], logits[theirs], atol=1e-5)
    for model in (theirs, ours):
        F.cross_entropy(logits[model], labels).backward()
    convolutions = trimmed_convolutions(ours)
    for name, parameter in theirs.named_parameters():
        gradient = parameter.grad
        if convolution := convolutions.get(name.removesuffix(".weight")):
            seen = gradient[:, :, convolution.taps, convolution.taps]
            assert seen.abs().sum() == pytest.approx(gradient.abs().sum().item(), rel=1e-4)  # no other tap has any
            gradient = seen
        error = (ours.get_parameter(name).grad - gradient).abs().max() / gradient.abs().max()
        assert error < 1e-4, name


def test_at_28_pixels_three_fifths_of_the_weights_see_nothing(plain):
    weights = sum(parameter.numel() for parameter in trim(plain, 28).parameters())
    assert weights == 4_228_554
    assert sum(parameter.numel() for parameter in plain.parameters()) == 11_175_370


def test_at_the_seed_recipes_size_nothing_is_trimmed(plain):
    assert str(trim(plain, 224)) == str(plain)


def test_restoring_brings_the_trained_weights_and_keeps_the_others(plain):
    ours = trim(plain, 28)
    with torch.no_grad():
        for tensor in ours.parameters():
            tensor += 1
    whole = restore(plain, ours)
    inputs = torch.randn(4, 1, 28, 28)
    assert torch.allclose(whole.eval()(inputs), ours.eval()(inputs), rtol=1e-3)
    before, after = plain.layer4[1].conv2.weight, whole.layer4[1].conv2.weight
    assert torch.equal(after[:, :, 1, 1], before[:, :, 1, 1] + 1)
    assert torch.equal(after[:, :, 0], before[:, :, 0]) and torch.equal(after[:, :, 1:, 2], before[:, :, 1:, 2])


def test_another_image_size_is_refused(plain):
    with pytest.raises(ValueError, match="trimmed for maps of 2 x 2, not"):
        trim(plain, 28)(torch.zeros(1, 1, 64, 64))
