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

from src.export import encode_onnx, run_onnx
from src.mnist.images import MEAN, SIDE, STD
from src.mnist.inputs import to_input
from src.resnet.model_file import METADATA_KEY, load_model
from src.resnet.network import build_model

METADATA = {"architecture": "resnet18", "class_names": list("0123456789"), "image_size": SIDE, "mean": MEAN, "std": STD}

# Stands for a machine without torch: whatever of it is asked for is not there.
WITHOUT_TORCH = """
import json, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "src"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import numpy as np, onnxruntime

try:
    import torch
except ModuleNotFoundError:
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    images = np.load(sys.argv[2])
    (logits,) = session.run(["logits"], {"images": images})
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["mnist-resnet"])
    print(json.dumps({"logits": logits.tolist(), "class_names": metadata["class_names"]}))
"""


@pytest.fixture
def images(digits) -> np.ndarray:
    """50 digits (50, 28, 28) uint8."""
    return digits[0][::100]


def test_the_metrics_say_that_it_predicts_as_pytorch_does(trained_once):
    metrics = json.loads(trained_once.read("metrics/export/metrics.json"))["onnx"]
    assert metrics["images"] == metrics["same_prediction"] == 1000
    assert 0 < metrics["max_logit_difference"] < 1e-3


def test_it_answers_without_torch_what_pytorch_answers(trained_once, images, tmp_path):
    model_file = trained_once.path / "models/model.onnx"
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_TORCH, model_file, tmp_path / "images.npy"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    model, metadata = load_model(trained_once.path / "models/model.safetensors")
    with torch.inference_mode():
        expected = model(to_input(torch.from_numpy(images), metadata["image_size"]))
    np.testing.assert_allclose(answer["logits"], expected, rtol=1e-3, atol=1e-3)
    assert answer["class_names"] == metadata["class_names"]


@pytest.mark.parametrize("image_size", [28, 45])
def test_the_preprocessing_is_inside_and_any_number_of_images_goes_in(image_size, images):
    model = build_model(10).eval()
    content = encode_onnx(model, METADATA | {"image_size": image_size})
    with torch.inference_mode():
        expected = model(to_input(torch.from_numpy(images), image_size)).numpy()
    for batch_size in (1, 7, 50):
        np.testing.assert_allclose(run_onnx(content, images, batch_size), expected, rtol=1e-3, atol=1e-3)


def test_it_is_one_sound_file_that_says_what_goes_in_and_comes_out(trained_once):
    model = onnx.load(trained_once.path / "models/model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    session = onnxruntime.InferenceSession(trained_once.path / "models/model.onnx")
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["N", 28, 28])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["N", 10])
    assert json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])["architecture"] == "resnet18"


def test_another_folder_gives_the_same_bytes_and_none_is_named_in_them(trained_once, trained):
    first = (trained_once.path / "models/model.onnx").read_bytes()
    metrics = trained_once.read("metrics/export/metrics.json")
    (trained.path / "models/model.onnx").unlink()
    (trained.path / "metrics/export/metrics.json").unlink()
    trained.run("python", "-m", "src.export")
    assert (trained.path / "models/model.onnx").read_bytes() == first
    assert trained.read("metrics/export/metrics.json") == metrics
    strings = b"\n".join(re.findall(rb"[ -~]{8,}", first))
    for trace in (str(trained_once.path).encode(), b"site-packages", b"stack_trace", b".py"):
        assert trace not in strings


def test_a_model_that_differs_from_pytorchs_is_not_kept(trained, monkeypatch):
    from src import export

    monkeypatch.chdir(trained.path)
    (trained.path / "models/model.onnx").unlink()
    right = export.run_onnx
    monkeypatch.setattr(export, "run_onnx", lambda *arguments: right(*arguments) + 0.1)
    with pytest.raises(SystemExit, match=r"error: the ONNX model differs from PyTorch's by 0\.1 in a logit"):
        export.main()
    assert not (trained.path / "models/model.onnx").exists()
