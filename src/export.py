"""Stage ``export``: the trained model as ONNX with its preprocessing inside, checked against PyTorch."""

from src.pipeline.errors import UserError, before_imports, exit_on_user_error, run_and_exit

if __name__ == "__main__":
    before_imports()

import json

import numpy as np
import onnxruntime
import torch
from torch import nn

from src.mnist.images import SIDE, load_test_images
from src.mnist.inputs import to_input
from src.mnist.manifest import load_manifest
from src.pipeline.files import write_file, write_json
from src.pipeline.machine import set_up_machine
from src.pipeline.params import load_params
from src.pipeline.results import EXPORT_METRICS_FILE, MODEL_FILE, ONNX_FILE
from src.resnet.inference import batch_size, predict_logits
from src.resnet.model_file import METADATA_KEY, load_model
from src.resnet.trim import as_convolutions, trim

OPSET, IR_VERSION = 18, 8  # of 2022: runtimes of 2023 open it
TOLERANCE = 1e-3  # of a logit, absolute or relative: far above rounding, far below what changes a prediction


@exit_on_user_error
def main() -> None:
    params = load_params()
    machine = set_up_machine("cpu", "fp32", params.threads)

    # Load the model and the test images.
    model, metadata = load_model(MODEL_FILE)
    images, _ = load_test_images(load_manifest())

    # Translate.
    print(f"export: translating the model, then checking it on {len(images):,} test images")
    onnx = encode_onnx(model, metadata)

    # Compare its answers with PyTorch's.
    expected = predict_logits(model, images, metadata["image_size"], machine).numpy()
    logits = run_onnx(onnx, images.numpy(), batch_size(metadata["image_size"]))
    difference = float(np.abs(logits - expected).max())
    same = float((logits.argmax(1) == expected.argmax(1)).mean())
    if not np.allclose(logits, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise UserError(f"the ONNX model differs from PyTorch's by {difference:.2g} in a logit")

    # Save.
    write_file(ONNX_FILE, onnx)
    write_json(EXPORT_METRICS_FILE, {"onnx": {"same_predictions": same}})
    print(f"export: {ONNX_FILE} predicts as PyTorch does for {same:.2%} of them, its logits within {difference:.1e}")


class WithPreprocessing(nn.Module):
    """From images (N, 28, 28) uint8 as MNIST has them to logits (N, C) float32."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        super().__init__()
        self.model, self.image_size = model, image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(to_input(images, self.image_size))


def encode_onnx(model: nn.Module, metadata: dict) -> bytes:
    """Encode ``model`` with its preprocessing as ONNX: the same bytes for the same weights and metadata.

    Its input is ``images`` (N, 28, 28) uint8, its output ``logits`` (N, C) float32, N free.

    Args:
        model: in evaluation mode, on the CPU.
        metadata: as `load_model` returns it; it goes in as JSON under the key that the model's own file has it under.
    """
    trimmed = as_convolutions(trim(model, metadata["image_size"]))  # two fifths of the weights, the same answers
    program = torch.onnx.export(
        WithPreprocessing(trimmed, metadata["image_size"]).eval(),
        (torch.zeros(2, SIDE, SIDE, dtype=torch.uint8),),  # 2, because torch.export takes a size of 1 for fixed
        input_names=["images"],
        output_names=["logits"],
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


def run_onnx(onnx: bytes, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Run onnxruntime on the CPU over ``images`` (N, 28, 28) uint8; return logits (N, C) float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    return np.concatenate([np.asarray(session.run(["logits"], {"images": batch})[0]) for batch in batches])


if __name__ == "__main__":
    run_and_exit(main)
