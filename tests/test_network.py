"""A ResNet for one channel: trimmed it is the same network, and it gives each image its own logits.

Networks are compared in float64: there rounding is a millionth of what it is in float32, and hides no mistake.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.training import MACHINE, MNIST_INPUT
from torch import nn

from src.resnet.inference import predict_logits, to_input
from src.resnet.machine import Machine
from src.resnet.network import TrimmedConv2d, build_model, trim, untrim


def build(network: str) -> nn.Module:
    """A network that is not trimmed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(network, 10)


@pytest.fixture(scope="module")
def plain():
    """A ResNet-18 that is not trimmed. Read it only."""
    return build("resnet18")


def draw(*shape) -> torch.Tensor:
    """The same random numbers each time, in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


# The trimmed network


def logits_and_gradients(model, inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits = model(inputs)
    F.cross_entropy(logits, torch.arange(len(inputs)) % 10).backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("network", "image_size", "training"), [("resnet18", 28, True), ("resnet18", 64, True), ("resnet50", 32, False)]
)
def test_outputs_and_gradients_are_those_of_the_plain_network(network, image_size, training):
    plain, inputs = build(network), draw(4, 1, image_size, image_size)
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


def test_at_28_pixels_three_fifths_of_the_weights_see_nothing(plain):
    assert sum(parameter.numel() for parameter in plain.parameters()) == 11_175_370
    assert sum(parameter.numel() for parameter in trim(plain, 28).parameters()) == 4_228_554


def test_untrimming_brings_the_trained_weights_and_statistics_and_keeps_the_taps_that_saw_nothing(plain):
    trained = trim(plain, 28).double().train()
    inputs = draw(4, 1, 28, 28)
    trained(inputs)  # for other statistics
    with torch.no_grad():
        trained.layer4[1].conv2.weight += 0.01

    whole = untrim(trained, copy.deepcopy(plain).double())

    torch.testing.assert_close(whole.eval()(inputs), trained.eval()(inputs))
    expected = plain.layer4[1].conv2.weight.detach().double()
    expected[:, :, 1, 1] += 0.01
    assert torch.equal(whole.layer4[1].conv2.weight, expected)


def test_no_images_have_no_logits_and_those_of_another_size_are_refused(plain):
    model = trim(plain, 28)

    assert model(torch.zeros(0, 1, 28, 28)).shape == (0, 10)
    with pytest.raises(ValueError, match="2 x 2, not"):
        model(torch.zeros(1, 1, 64, 64))


# Logits


@pytest.fixture
def eight_images():
    return torch.randint(0, 256, (8, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_image_gets_its_logits_in_batches_that_are_smaller_where_the_images_are_larger(eight_images):
    images, form = eight_images.repeat(5, 1, 1), MNIST_INPUT._replace(image_size=224)
    sizes, network = [], nn.Flatten()  # the logits are the pixels
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))

    logits = predict_logits(network, images, form, MACHINE)

    assert sizes == [15, 15, 10]
    assert torch.equal(logits, to_input(images, form).flatten(1))


def test_logits_are_computed_in_the_machines_precision_and_given_in_float32(eight_images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))

    exact = predict_logits(network, eight_images, MNIST_INPUT, MACHINE)
    rounded = predict_logits(network, eight_images, MNIST_INPUT, Machine(torch.device("cpu"), torch.bfloat16))

    assert exact.dtype == rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert not torch.equal(exact, exact.bfloat16().float())
