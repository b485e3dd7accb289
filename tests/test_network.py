"""ResNet-18 for one channel: trimmed it is the same network, and it gives each image its own logits.

Networks are compared in float64: there rounding is a millionth of what it is in float32, and hides no mistake.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.training import MACHINE
from torch import nn

from src.resnet.inference import inference_batch_size, predict_logits, to_input
from src.resnet.machine import Machine
from src.resnet.network import TrimmedConv2d, build_model, trim, untrim


@pytest.fixture(scope="module")
def plain():
    """A network that is not trimmed. Read it only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(10)


def draw(*shape) -> torch.Tensor:
    """The same random numbers each time, in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


# Trimmed convolutions


def responses_to_single_pixels(layer, side) -> list[list[float]]:
    """For each pixel of a map, row by row, the output where that pixel is 1 and the others are 0."""
    maps = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    return layer(maps).flatten(1).tolist()


@pytest.mark.parametrize(
    ("side", "stride", "kept", "responses"),
    [
        (1, 1, [[5]], [[5]]),
        (1, 2, [[5]], [[5]]),
        # The columns of the docstring's matrix, for the taps K[0, 0] = 1 to K[2, 2] = 9.
        (2, 1, [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[5, 4, 2, 1], [6, 5, 3, 2], [8, 7, 5, 4], [9, 8, 6, 5]]),
        (2, 2, [[5, 6], [8, 9]], [[5], [6], [8], [9]]),
    ],
)
def test_a_trimmed_convolution_keeps_the_taps_that_see_the_map(side, stride, kept, responses):
    conv = nn.Conv2d(1, 1, kernel_size=3, stride=stride, padding=1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(1.0, 10).view(1, 1, 3, 3))

    trimmed = TrimmedConv2d(conv, side)

    assert trimmed.weight.tolist() == [[kept]]
    assert responses_to_single_pixels(trimmed, side) == responses_to_single_pixels(conv, side) == responses


@pytest.mark.parametrize("count", [4, 0])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2])
def test_a_trimmed_convolution_of_many_channels_is_the_convolution(side, stride, count):
    conv = nn.Conv2d(5, 7, kernel_size=3, stride=stride, padding=1, bias=False, dtype=torch.float64)
    inputs = draw(count, 5, side, side)

    torch.testing.assert_close(TrimmedConv2d(conv, side)(inputs), conv(inputs))


# The trimmed network


def logits_and_gradients(model, inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits of a model, and the gradient of each of its parameters, by its name."""
    logits = model(inputs)
    F.cross_entropy(logits, torch.arange(len(inputs)) % 10).backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("image_size", [28, 32, 64])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_the_plain_network(plain, image_size, training):
    inputs = draw(4, 1, image_size, image_size)
    ours = trim(plain, image_size).double().train(training)
    theirs = copy.deepcopy(plain).double().train(training)

    our_logits, our_gradients = logits_and_gradients(ours, inputs)
    their_logits, their_gradients = logits_and_gradients(theirs, inputs)

    torch.testing.assert_close(our_logits, their_logits)
    for name, module in ours.named_modules():
        if isinstance(module, TrimmedConv2d):
            gradient = their_gradients[f"{name}.weight"].clone()
            their_gradients[f"{name}.weight"] = gradient[:, :, module.taps, module.taps].clone()
            gradient[:, :, module.taps, module.taps] = 0
            assert gradient.count_nonzero() == 0  # taps that are trimmed never had one
    for name, gradient in their_gradients.items():
        torch.testing.assert_close(our_gradients[name] / gradient.abs().max(), gradient / gradient.abs().max())


def test_at_28_pixels_three_fifths_of_the_weights_see_nothing_and_at_224_all_see_something(plain):
    assert sum(parameter.numel() for parameter in plain.parameters()) == 11_175_370
    assert sum(parameter.numel() for parameter in trim(plain, 28).parameters()) == 4_228_554
    assert str(trim(plain, 224)) == str(plain)


def test_trimming_leaves_the_model_itself_as_it_is(plain):
    model = copy.deepcopy(plain).train()

    trimmed = trim(model, 28)

    assert str(model) == str(plain)
    assert model.training
    assert trimmed.training
    assert torch.equal(model.bn1.running_var, plain.bn1.running_var)
    assert not any(module._forward_pre_hooks for module in [*model.modules(), *trimmed.modules()])


def test_untrimming_brings_the_trained_weights_and_statistics_and_keeps_the_taps_that_saw_nothing(plain):
    trained = trim(plain, 28).double().train()
    inputs = draw(4, 1, 28, 28)
    trained(inputs)  # for other statistics
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.01
    before = copy.deepcopy(plain.state_dict())

    whole = untrim(trained, copy.deepcopy(plain).double())

    torch.testing.assert_close(whole.eval()(inputs), trained.eval()(inputs))
    expected = plain.layer4[1].conv2.weight.detach().double()
    expected[:, :, 1, 1] += 0.01
    assert torch.equal(whole.layer4[1].conv2.weight, expected)
    assert not torch.equal(whole.bn1.running_var, before["bn1.running_var"].double())
    untrim(trained, plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())


def test_another_image_size_is_refused(plain):
    with pytest.raises(ValueError, match="2 x 2, not"):
        trim(plain, 28)(torch.zeros(1, 1, 64, 64))


# Logits


class FirstPixels(nn.Module):
    """In place of a network: its logits are the image's first ten pixels, and it remembers its batches' sizes."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, inputs):
        assert not self.training
        self.sizes.append(len(inputs))
        return inputs[:, 0, 0, :10]


@pytest.fixture
def eight_images():
    """Eight images of noise."""
    return torch.randint(0, 256, (8, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_image_gets_its_logits_where_their_number_does_not_divide(monkeypatch, eight_images):
    monkeypatch.setattr("src.resnet.inference.BATCH_PIXELS", 3 * 28 * 28)
    network = FirstPixels().train()

    logits = predict_logits(network, eight_images, 28, MACHINE)

    assert network.sizes == [3, 3, 2]
    assert torch.equal(logits, to_input(eight_images, 28)[:, 0, 0, :10])


@pytest.mark.parametrize(("image_size", "batch_size"), [(28, 1000), (56, 250), (28 * 1000, 1)])
def test_batches_of_larger_images_are_smaller(image_size, batch_size):
    assert inference_batch_size(image_size) == batch_size


def test_logits_are_computed_in_the_machines_precision_and_given_in_float32(eight_images):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))

    exact = predict_logits(network, eight_images, 28, MACHINE)
    rounded = predict_logits(network, eight_images, 28, Machine(torch.device("cpu"), torch.bfloat16))

    assert exact.dtype == rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert not torch.equal(exact, exact.bfloat16().float())
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("image_size", [28, 32, 64])
def test_no_images_have_no_logits(plain, image_size):
    network = trim(plain, image_size)

    logits = predict_logits(network, torch.zeros(0, 28, 28, dtype=torch.uint8), image_size, MACHINE)

    assert logits.shape == (0, 10)
