"""The ONNX file that ``export`` leaves: PyTorch's predictions, the same bytes each time, no need of torch."""

import json
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.project import needs_posix
from helpers.training import MNIST_INPUT

from src.images.dataset import DIGITS
from src.pipeline.process import UserError
from src.reader.export import stage
from src.reader.export.onnx_classifier import ONNX_FILE, OnnxClassifier
from src.reader.export.stage import TOLERANCE, encode_onnx
from src.reader.head.outlier_head import OutlierHead, Predictions, logits_and_features
from src.resnet.inference import InputFormat, to_input
from src.resnet.model_file import METADATA_KEY, load_model, model_metadata
from src.resnet.network import build_model

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
(logits,) = session.run(["logits"], {"images": np.load("images.npy")[:, None]})
np.save("logits.npy", logits)
"""


@pytest.fixture
def images(digits) -> np.ndarray:
    """50 digits (50, 28, 28) uint8."""
    return digits[0][::100]


def test_without_torch_it_gives_pytorchs_logits(reader_once, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    model, metadata = load_model(reader_once.path / "models/model.safetensors")

    subprocess.run([sys.executable, "-I", "-c", WITHOUT_TORCH, reader_once.path / ONNX_FILE], cwd=tmp_path, check=True)

    with torch.inference_mode():
        expected = model(to_input(torch.from_numpy(images), InputFormat.of_model(metadata))).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert json.loads(reader_once.read("metrics/reader/export.json")) == {"same_predictions": 1}


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [28, 45])
def test_the_preprocessing_is_inside_and_any_number_of_images_goes_in(image_size, images):
    torch.manual_seed(0)
    model, head = build_model("resnet18", 10).eval(), OutlierHead(2048 + 1024 + 512 + 10).eval()

    form = MNIST_INPUT._replace(image_size=image_size)
    session = onnxruntime.InferenceSession(encode_onnx(model, head, model_metadata("resnet18", DIGITS, form)))

    with torch.inference_mode():
        logits, features = logits_and_features(model, to_input(torch.from_numpy(images), form))
        expected = [logits.numpy(), head(features).numpy()]
    for count in (1, 7, 50):
        outputs = session.run(["logits", "outlier_score"], {"images": images[:count, None]})
        for output, other in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output, other[:count], rtol=TOLERANCE, atol=TOLERANCE)


def test_it_is_one_sound_file_without_needless_weights_or_traces_of_the_machine_that_runtimes_of_2023_open(reader_once):
    """Opset 18 and version 8 of the format came in 2022. onnxruntime 1.16.3 and OpenCV 4.8.1 of 2023 were tried.

    OpenCV 4.8.1 takes no other change of dimensions before the first convolution than one `Resize`.
    """
    content = (reader_once.path / ONNX_FILE).read_bytes()
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)

    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    # Weights that meet nothing but padding are left out.
    assert len(content) < 0.4 * (reader_once.path / "models/model.safetensors").stat().st_size
    strings = b"\n".join(re.findall(rb"[ -~]{8,}", content))
    assert b"resnet18" in strings
    for trace in (str(reader_once.path).encode(), b"site-packages", b"stack_trace", b".py"):
        assert trace not in strings
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 18)]
    assert proto.ir_version == 8
    operators = [node.op_type for node in proto.graph.node]
    assert operators[: operators.index("Conv")] == ["Cast", "Div", "Sub", "Div", "Resize"]


def test_it_says_what_goes_in_what_comes_out_and_what_the_models_own_file_says(reader_once):
    session = onnxruntime.InferenceSession(reader_once.path / ONNX_FILE)
    _, metadata = load_model(reader_once.path / "models/model.safetensors")

    nodes = [(node.name, node.type, node.shape) for node in (*session.get_inputs(), *session.get_outputs())]

    assert nodes == [
        ("images", "tensor(uint8)", ["N", 1, 28, 28]),
        ("logits", "tensor(float)", ["N", 10]),
        ("outlier_score", "tensor(float)", ["N"]),
    ]
    assert json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY]) == metadata


@pytest.mark.slow
@needs_posix
def test_the_readers_stages_give_the_same_bytes_in_another_folder(reader_once, reader):
    for name in ("outliers", "export"):
        reader.run("python", "-m", f"src.reader.{name}")

    for name in ("models/outliers.safetensors", "metrics/reader/outliers.json", "models/model.onnx"):
        assert (reader.path / name).read_bytes() == (reader_once.path / name).read_bytes()


def test_a_model_that_differs_from_pytorchs_is_not_kept(reader, monkeypatch, torch_as_it_was):
    monkeypatch.chdir(reader.path)
    content = ONNX_FILE.read_bytes()
    ONNX_FILE.unlink()
    predict = OnnxClassifier.predict
    monkeypatch.setattr(stage, "encode_onnx", lambda *_: content)  # making it takes seconds
    monkeypatch.setattr(OnnxClassifier, "predict", lambda *given: Predictions(*(x + 0.1 for x in predict(*given))))

    with pytest.raises(UserError, match=r"differs from PyTorch's by 0\.1"):
        stage.main()

    assert not ONNX_FILE.exists()
