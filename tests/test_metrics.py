"""The means that are reported, and the network's answers that they are of."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.resnet.inference import to_input
from src.pipeline.process import UserError
from src.resnet.machine import Machine
from src.resnet.inference import Classifier, inference_batch_size, predict_logits
from src.train.trainer import MeanMetrics, mean_metrics
from src.resnet.model_file import encode_model, model_metadata
from src.resnet.network import build_model
from src.resnet.network import trim

CPU = Machine(torch.device("cpu"), torch.float32)
SUM_ROUNDING = 1e-6  # relative, of a sum of ten float32 numbers, each rounded to 6e-8


class FirstPixels(nn.Module):
    """In place of a network: its answers are the image's first ten pixels, and it remembers its batches' sizes."""

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


def test_loss_and_accuracy_are_true_means_over_batches_of_any_size():
    draws = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(10, 10, generator=draws), torch.randint(0, 10, (10,), generator=draws)
    means = MeanMetrics(torch.device("cpu"))

    means.update(logits[:7], labels[:7])
    means.update(logits[7:], labels[7:])

    loss, accuracy = mean_metrics(means.totals)
    assert loss == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=SUM_ROUNDING)
    assert accuracy == (logits.argmax(1) == labels).sum().item() / 10


def test_the_totals_are_losses_right_answers_and_images():
    means = MeanMetrics(torch.device("cpu"))
    sure_of_class_2 = torch.tensor([[0.0, 0.0, 100.0]])

    means.update(sure_of_class_2, torch.tensor([2]))
    means.update(sure_of_class_2, torch.tensor([1]))

    assert means.totals.tolist() == [100, 1, 2]


def test_sums_of_many_batches_are_kept_in_float64():
    means = MeanMetrics(torch.device("cpu"))

    assert means.totals.dtype == torch.float64


def test_on_a_device_of_apples_the_sums_are_in_float32(monkeypatch):
    made_on = []
    zeros = torch.zeros

    def zeros_on_the_cpu(*size, dtype, device):
        made_on.append(device.type)
        return zeros(*size, dtype=dtype)

    monkeypatch.setattr(torch, "zeros", zeros_on_the_cpu)  # there is no such device here
    means = MeanMetrics(torch.device("mps"))
    means.update(torch.tensor([[0.0, 100.0]]), torch.tensor([0]))

    assert made_on == ["mps"]
    assert means.totals.dtype == torch.float32
    assert mean_metrics(means.totals) == (100, 0)


def test_each_image_is_answered_once_where_their_number_does_not_divide(monkeypatch, eight_images):
    monkeypatch.setattr("src.resnet.inference.BATCH_PIXELS", 3 * 28 * 28)
    network = FirstPixels()

    logits = predict_logits(network, eight_images, 28, CPU)

    assert network.sizes == [3, 3, 2]
    assert torch.equal(logits, to_input(eight_images, 28)[:, 0, 0, :10])


def test_batches_of_larger_images_are_smaller():
    assert inference_batch_size(28) == 1000
    assert inference_batch_size(56) == 250
    assert inference_batch_size(28 * 1000) == 1


def test_a_network_answers_in_evaluation_mode(eight_images):
    network = FirstPixels().train()

    predict_logits(network, eight_images, 28, CPU)

    assert not network.training


def test_answers_are_float32_in_any_precision(eight_images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))

    logits = predict_logits(network, eight_images, 28, Machine(torch.device("cpu"), torch.bfloat16))

    assert logits.dtype == torch.float32


@pytest.mark.parametrize("image_size", [28, 32, 64])
def test_no_images_have_no_answers(image_size):
    network = trim(build_model(10), image_size)

    logits = predict_logits(network, torch.zeros(0, 28, 28, dtype=torch.uint8), image_size, CPU)

    assert logits.shape == (0, 10)


@pytest.mark.parametrize("image_size", [28, 32])
def test_a_classifier_gives_the_answers_of_the_model_in_its_file(tmp_path, eight_images, image_size):
    model = build_model(10)
    (tmp_path / "model").write_bytes(encode_model(model, model_metadata(image_size)))

    classifier = Classifier(tmp_path / "model", CPU)

    network = trim(model, image_size).to(memory_format=torch.channels_last)
    assert torch.equal(classifier.logits(eight_images), predict_logits(network, eight_images, image_size, CPU))
    assert classifier.class_names == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]


def test_a_classifier_without_a_model_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"model is missing or damaged: .*; run `dvc repro train`"):
        Classifier(tmp_path / "model", CPU)
