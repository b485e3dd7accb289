"""The ONNX file that ``export`` leaves: the same answers as PyTorch's, the same bytes each time, no need of torch."""

import json
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.project import ROOT

from src.export import __main__ as export
from src.reader.export.translation import encode_onnx
from src.resnet.inference import to_input
from src.pipeline.process import UserError
from src.resnet.inference import Answers
from src.resnet.model_file import METADATA_KEY, load_model, model_metadata
from src.resnet.network import build_model
from src.reader.export.onnx_classifier import OnnxClassifier
from src.reader.head.outlier_head import OutlierHead, logits_and_features

TOLERANCE = 1e-3  # of a logit: thousands of times float32's rounding, and far below what changes a prediction


@pytest.fixture
def images(digits) -> np.ndarray:
    """50 digits (50, 28, 28) uint8."""
    return digits[0][::100]


def answers_of_pytorch(model: torch.nn.Module, images: np.ndarray, image_size: int) -> np.ndarray:
    """The logits (N, C) of PyTorch for images (N, 28, 28) uint8."""
    with torch.inference_mode():
        return model(to_input(torch.from_numpy(images), image_size)).numpy()


def test_the_metrics_say_that_it_predicts_as_pytorch_does(trained_once):
    metrics = json.loads(trained_once.read("metrics/export/metrics.json"))

    assert metrics == {"onnx": {"same_predictions": 1.0}}


def test_it_answers_without_torch_what_pytorch_answers(trained_once, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    model, metadata = load_model(trained_once.path / "models/model.safetensors")
    script, onnx_file = ROOT / "tests/helpers/without_torch.py", trained_once.path / "models/model.onnx"

    command = [sys.executable, "-I", script, onnx_file, "images.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    answer = json.loads(done.stdout)
    expected = answers_of_pytorch(model, images, metadata["image_size"])
    np.testing.assert_allclose(answer["logits"], expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert answer["class_names"] == list("0123456789")


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [28, 45])
def test_the_preprocessing_is_inside_and_any_number_of_images_goes_in(image_size, images):
    torch.manual_seed(0)
    model = build_model(10).eval()

    head = OutlierHead(2048 + 1024 + 512 + 10).eval()

    session = onnxruntime.InferenceSession(encode_onnx(model, head, model_metadata(image_size)))

    with torch.inference_mode():
        logits, features = logits_and_features(model, to_input(torch.from_numpy(images), image_size))
        expected = [logits.numpy(), head(features).numpy()]
    for count in (1, 7, 50):
        answers = session.run(["logits", "outlier_score"], {"images": images[:count, None]})
        for answer, other in zip(answers, expected, strict=True):
            np.testing.assert_allclose(answer, other[:count], rtol=TOLERANCE, atol=TOLERANCE)


def test_it_is_one_sound_file(trained_once):
    model = onnx.load(trained_once.path / "models/model.onnx", load_external_data=False)

    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_it_holds_no_weight_that_only_meets_padding(trained_once):
    size = (trained_once.path / "models/model.onnx").stat().st_size

    assert size < 0.4 * (trained_once.path / "models/model.safetensors").stat().st_size


def test_runtimes_of_2023_can_open_it(trained_once):
    """Opset 18 and version 8 of the format came in 2022. onnxruntime 1.16.3 and OpenCV 4.8.1 of 2023 were tried."""
    model = onnx.load(trained_once.path / "models/model.onnx")

    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert model.ir_version == 8


def test_it_has_no_operator_that_opencv_stumbles_over(trained_once):
    """OpenCV 4.8.1 takes no change of dimensions before the first convolution."""
    graph = onnx.load(trained_once.path / "models/model.onnx").graph

    operators = [node.op_type for node in graph.node]

    assert operators[: operators.index("Conv")] == ["Cast", "Div", "Sub", "Div"]


def test_it_says_what_goes_in_and_what_comes_out(trained_once):
    session = onnxruntime.InferenceSession(trained_once.path / "models/model.onnx")

    (images,) = session.get_inputs()
    logits, score = session.get_outputs()

    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["N", 1, 28, 28])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["N", 10])
    assert (score.name, score.type, score.shape) == ("outlier_score", "tensor(float)", ["N"])


def test_its_metadata_are_those_of_the_models_own_file(trained_once):
    session = onnxruntime.InferenceSession(trained_once.path / "models/model.onnx")
    _, expected = load_model(trained_once.path / "models/model.safetensors")

    metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])

    assert metadata == expected
    assert metadata["architecture"] == "resnet18"


@pytest.mark.slow
def test_another_folder_gives_the_same_bytes(trained_once, trained):
    (trained.path / "models/model.onnx").unlink()
    (trained.path / "metrics/export/metrics.json").unlink()

    trained.run("python", "-m", "src.export")

    for name in ("models/model.onnx", "metrics/export/metrics.json"):
        assert (trained.path / name).read_bytes() == (trained_once.path / name).read_bytes(), name


def test_it_names_no_folder_and_no_source_of_the_machine_that_made_it(trained_once):
    content = (trained_once.path / "models/model.onnx").read_bytes()

    strings = b"\n".join(re.findall(rb"[ -~]{8,}", content))

    assert b"resnet18" in strings
    for trace in (str(trained_once.path).encode(), b"site-packages", b"stack_trace", b".py"):
        assert trace not in strings


def test_a_model_that_differs_from_pytorchs_is_not_kept(trained, monkeypatch, torch_as_it_was):
    monkeypatch.chdir(trained.path)
    model = (trained.path / "models/model.onnx").read_bytes()
    (trained.path / "models/model.onnx").unlink()
    answers = OnnxClassifier.answers
    monkeypatch.setattr(export, "encode_onnx", lambda *_: model)  # making it takes seconds
    monkeypatch.setattr(OnnxClassifier, "answers", lambda *arguments: Answers(*(x + 0.1 for x in answers(*arguments))))

    with pytest.raises(SystemExit, match=r"error: the ONNX model differs from PyTorch's by 0\.1"):
        export.main()

    assert not (trained.path / "models/model.onnx").exists()


def test_a_damaged_model_in_memory_is_not_printed():
    with pytest.raises(
        UserError, match=r"^the exported model is missing or damaged: .{1,200}; run `dvc repro export`$"
    ):
        OnnxClassifier(b"\x08" * 10_000)
