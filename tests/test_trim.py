"""The trimmed network is the same network, for one image size.

Networks are compared in float64: there rounding is a millionth of what it is in float32, and hides no mistake.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.resnet.network import build_model
from src.resnet.network import TrimmedConv2d, as_convolutions, trim, untrim


@pytest.fixture(scope="module")
def plain():
    """A network that is not trimmed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(10)


def draw(*shape) -> torch.Tensor:
    """The same random numbers each time, in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def numbered_kernel(stride) -> nn.Conv2d:
    """A 3 × 3 convolution of one channel, with padding 1, whose taps are 1 to 9."""
    conv = nn.Conv2d(1, 1, kernel_size=3, stride=stride, padding=1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(1.0, 10).view(1, 1, 3, 3))
    return conv


def answers_to_single_pixels(layer, side) -> list[list[float]]:
    """For each pixel of a map, row by row, the output where that pixel is 1 and the others are 0."""
    maps = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    return layer(maps).flatten(1).tolist()


def test_side_1_stride_1_keeps_the_centre():
    conv = numbered_kernel(stride=1)

    trimmed = TrimmedConv2d(conv, 1)

    assert trimmed.weight.tolist() == [[[[5]]]]
    assert answers_to_single_pixels(trimmed, 1) == answers_to_single_pixels(conv, 1) == [[5]]


def test_side_1_stride_2_keeps_the_centre():
    conv = numbered_kernel(stride=2)

    trimmed = TrimmedConv2d(conv, 1)

    assert trimmed.weight.tolist() == [[[[5]]]]
    assert answers_to_single_pixels(trimmed, 1) == answers_to_single_pixels(conv, 1) == [[5]]


def test_side_2_stride_1_keeps_all_taps():
    conv = numbered_kernel(stride=1)

    trimmed = TrimmedConv2d(conv, 2)

    assert trimmed.weight.tolist() == [[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]]
    # The columns of the docstring's matrix, for the taps K[0, 0] = 1 to K[2, 2] = 9.
    expected = [[5, 4, 2, 1], [6, 5, 3, 2], [8, 7, 5, 4], [9, 8, 6, 5]]
    assert answers_to_single_pixels(trimmed, 2) == answers_to_single_pixels(conv, 2) == expected


def test_side_2_stride_2_keeps_the_lower_right_taps():
    conv = numbered_kernel(stride=2)

    trimmed = TrimmedConv2d(conv, 2)

    assert trimmed.weight.tolist() == [[[[5, 6], [8, 9]]]]
    assert answers_to_single_pixels(trimmed, 2) == answers_to_single_pixels(conv, 2) == [[5], [6], [8], [9]]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2])
def test_a_trimmed_convolution_of_many_channels_is_the_convolution(side, stride):
    conv = nn.Conv2d(5, 7, kernel_size=3, stride=stride, padding=1, bias=False, dtype=torch.float64)
    inputs = draw(4, 5, side, side)

    outputs = TrimmedConv2d(conv, side)(inputs)

    torch.testing.assert_close(outputs, conv(inputs))


def test_a_trimmed_convolution_takes_no_images_too():
    conv = nn.Conv2d(5, 7, kernel_size=3, stride=2, padding=1, bias=False)

    assert TrimmedConv2d(conv, 2)(torch.zeros(0, 5, 2, 2)).shape == (0, 7, 1, 1)


def loss_and_gradients(model, inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits of a model, and the gradient of each of its parameters, by its name."""
    labels = torch.arange(len(inputs)) % 10
    logits = model(inputs)
    F.cross_entropy(logits, labels).backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("image_size", [28, 32, 64])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_the_plain_network(plain, image_size, training):
    inputs = draw(4, 1, image_size, image_size)
    ours = trim(plain, image_size).double().train(training)
    theirs = copy.deepcopy(plain).double().train(training)

    our_logits, our_gradients = loss_and_gradients(ours, inputs)
    their_logits, their_gradients = loss_and_gradients(theirs, inputs)

    torch.testing.assert_close(our_logits, their_logits)
    for name, module in ours.named_modules():
        if isinstance(module, TrimmedConv2d):
            weight = f"{name}.weight"
            their_gradients[weight] = their_gradients[weight][:, :, module.taps, module.taps]
    for name, gradient in their_gradients.items():
        scale = gradient.abs().max()
        torch.testing.assert_close(
            our_gradients[name] / scale, gradient / scale, msg=lambda text, name=name: name + text
        )


def test_taps_that_are_trimmed_never_had_a_gradient(plain):
    theirs = copy.deepcopy(plain).double().train()

    _, gradients = loss_and_gradients(theirs, draw(4, 1, 28, 28))

    for name, module in trim(plain, 28).named_modules():
        if isinstance(module, TrimmedConv2d):
            gradient = gradients[f"{name}.weight"].clone()
            gradient[:, :, module.taps, module.taps] = 0
            assert gradient.count_nonzero() == 0


def test_at_28_pixels_three_fifths_of_the_weights_see_nothing(plain):
    assert sum(parameter.numel() for parameter in plain.parameters()) == 11_175_370
    assert sum(parameter.numel() for parameter in trim(plain, 28).parameters()) == 4_228_554


def test_at_the_seed_recipes_size_nothing_is_trimmed(plain):
    assert str(trim(plain, 224)) == str(plain)


def test_trimming_leaves_the_model_itself_as_it_is(plain):
    model = copy.deepcopy(plain)

    trim(model, 28)

    assert str(model) == str(plain)
    assert model.training
    assert torch.equal(model.bn1.running_var, plain.bn1.running_var)


def test_untrimming_brings_the_trained_weights(plain):
    trained = trim(plain, 28).double()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.01
    inputs = draw(4, 1, 28, 28)

    whole = untrim(trained, copy.deepcopy(plain).double())

    torch.testing.assert_close(whole.eval()(inputs), trained.eval()(inputs))


def test_untrimming_keeps_the_taps_that_saw_nothing(plain):
    trained = trim(plain, 28)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 1

    whole = untrim(trained, plain)

    expected = plain.layer4[1].conv2.weight.detach().clone()
    expected[:, :, 1, 1] += 1
    assert torch.equal(whole.layer4[1].conv2.weight, expected)


def test_untrimming_brings_the_statistics_of_batch_normalisation(plain):
    trained = trim(plain, 28).train()
    trained(draw(4, 1, 28, 28).float())

    whole = untrim(trained, plain)

    assert torch.equal(whole.bn1.running_var, trained.bn1.running_var)
    assert not torch.equal(whole.bn1.running_var, plain.bn1.running_var)


def test_another_image_size_is_refused(plain):
    trimmed = trim(plain, 28)

    with pytest.raises(ValueError, match="trimmed for maps of 2 x 2, not"):
        trimmed(torch.zeros(1, 1, 64, 64))


@pytest.mark.parametrize("image_size", [28, 33, 45, 64])
def test_as_plain_convolutions_it_gives_the_same_answers(plain, image_size):
    trimmed = trim(plain, image_size).double().eval()
    images = draw(2, 1, image_size, image_size)

    convolutions = as_convolutions(trimmed)

    assert not any(isinstance(module, TrimmedConv2d) for module in convolutions.modules())
    torch.testing.assert_close(convolutions(images), trimmed(images), rtol=1e-9, atol=1e-9)
    weights = [sum(weight.numel() for weight in model.parameters()) for model in (convolutions, trimmed)]
    assert weights[0] == weights[1]
