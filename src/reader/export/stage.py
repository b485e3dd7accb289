"""Stage ``export``: the trained model as ONNX with its preprocessing inside, checked against PyTorch."""

import copy
import json
from pathlib import Path
from threading import RLock

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.v2 import functional as TF
from tqdm import tqdm

from src.images.dataset import SIDE, load_images, load_manifest
from src.pipeline.files import write_file, write_json
from src.pipeline.params import load_params
from src.pipeline.paths import MODEL_FILE
from src.pipeline.process import UserError, require_unchanged_inputs
from src.reader.export.onnx_classifier import INPUT, LOGITS, ONNX_FILE, SCORE, OnnxClassifier
from src.reader.head.outlier_head import HEAD_FILE, OutlierHead, TorchClassifier, load_outlier_head, logits_and_features
from src.resnet.inference import InputFormat, to_unit_range
from src.resnet.machine import set_up_machine
from src.resnet.model_file import METADATA_KEY, load_model
from src.resnet.network import TrimmedConv2d, trim

CHECK_FILE = Path("metrics/reader/export.json")
CHECKED = 1_000  # of the test images, at most
OPSET, IR_VERSION = 18, 8  # of 2022: runtimes of 2023 open it
TOLERANCE = 1e-3  # of a logit, absolute or relative: far above rounding, far below what changes a prediction


def main() -> None:
    tqdm.set_lock(RLock())  # as `download` does; torch.export shows bars
    params = load_params()
    machine = set_up_machine("cpu", "fp32", params.threads)

    # Load the model and test images.
    model, metadata = load_model(MODEL_FILE)
    head = load_outlier_head(HEAD_FILE, model)
    images = torch.from_numpy(load_images(load_manifest(), "test").images[:CHECKED])

    # Translate, and compare its predictions with PyTorch's.
    print(f"export: translating the model, then checking it on {len(images):,} test images")
    onnx = encode_onnx(model, head, metadata)
    expected = TorchClassifier(MODEL_FILE, machine, HEAD_FILE).predict(images)
    predictions = OnnxClassifier(onnx).predict(images)
    for output, other in zip(predictions, expected, strict=True):
        if not torch.allclose(output, other, rtol=TOLERANCE, atol=TOLERANCE):
            raise UserError(f"the ONNX model differs from PyTorch's by {(output - other).abs().max().item():.2g}")
    same = (predictions.logits.argmax(1) == expected.logits.argmax(1)).double().mean().item()
    difference = (predictions.logits - expected.logits).abs().max().item()

    # Save.
    require_unchanged_inputs()
    write_file(ONNX_FILE, onnx)
    write_json(CHECK_FILE, {"same_predictions": same})
    print(f"export: {ONNX_FILE} predicts as PyTorch does for {same:.2%} of them, its logits within {difference:.1e}")


class WholeModel(nn.Module):
    """From images (N, 1, 28, 28) uint8 as MNIST has them to logits (N, C) and outlier scores (N,), float32."""

    def __init__(self, model: nn.Module, head: OutlierHead, form: InputFormat) -> None:
        super().__init__()
        self.model, self.head, self.form = model, head, form

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch = TF.normalize(to_unit_range(images), [self.form.mean], [self.form.std])
        # `to_input` by one operator: to enlarge, antialiasing changes nothing, and the reader takes images of `SIDE`.
        factor = self.form.image_size / SIDE
        inputs = batch if factor == 1 else F.interpolate(batch, scale_factor=factor, mode="bilinear")
        logits, features = logits_and_features(self.model, inputs)
        return logits, self.head(features)


def encode_onnx(model: nn.Module, head: OutlierHead, metadata: dict) -> bytes:
    """Encode ``model`` with its preprocessing as ONNX: the same bytes for the same weights and metadata.

    Its input is ``images`` (N, 1, 28, 28) uint8. Its outputs are ``logits`` (N, C) float32 and ``outlier_score`` (N,)
    float32, above 0 for what is unlike any digit. N is free.

    Args:
        model, head: in evaluation mode, on the CPU.
        metadata: as `load_model` returns it; it goes in as JSON under the key that the model's own file has it under.
    """
    form = InputFormat.of_model(metadata)
    trimmed = as_convolutions(trim(model, form.image_size))  # two fifths of the weights, the same predictions
    program = torch.onnx.export(
        WholeModel(trimmed, head, form).eval(),
        (torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8),),  # 2, because torch.export takes a size of 1 for fixed
        input_names=[INPUT],
        output_names=[LOGITS, SCORE],
        dynamic_shapes=({0: "N"},),
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None  # it is for those exporters that write a file
    proto = program.model_proto
    proto.ir_version = IR_VERSION
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")  # stack traces, with the paths of this machine
    proto.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata, sort_keys=True))
    return proto.SerializeToString(deterministic=True)


def as_convolutions(trimmed: nn.Module) -> nn.Module:
    """Copy ``trimmed`` with a plain convolution, of the taps that are left, in place of each `TrimmedConv2d`.

    The same outputs, from operators that every runtime has.
    """
    model = copy.deepcopy(trimmed)
    for name, module in trimmed.named_modules():
        if isinstance(module, TrimmedConv2d):
            channels_out, channels_in, taps, _ = module.weight.shape
            conv = nn.Conv2d(channels_in, channels_out, taps, module.stride, padding=1 - module.taps.start, bias=False)
            conv.weight = nn.Parameter(module.weight.detach().clone())
            model.set_submodule(name, conv)
    return model
