"""Stage ``export``: the kept model as ONNX with its preprocessing inside, checked against PyTorch on the test set."""

import json

import numpy as np
import onnxruntime
import torch
from torch import nn

from src.mnist.images import SIDE, load_test_images
from src.mnist.inputs import to_input
from src.mnist.manifest import load_manifest
from src.pipeline.errors import UserError, exit_on_user_error
from src.pipeline.files import atomic_write, write_json
from src.pipeline.machine import set_up_machine
from src.pipeline.params import load_params
from src.pipeline.results import EXPORT_METRICS_FILE, MODEL_FILE, ONNX_FILE
from src.resnet.inference import EVALUATION_PIXELS, batch_predictions
from src.resnet.model_file import METADATA_KEY, load_model

TOLERANCE = 1e-3  # of a logit, absolute or relative: far above rounding, far below what changes a prediction


@exit_on_user_error
def main() -> None:
    params = load_params()
    manifest = load_manifest()
    machine = set_up_machine("cpu", "fp32", params.threads)
    try:
        model, metadata = load_model(MODEL_FILE)
    except ValueError as error:
        raise UserError(f"{error}; run `dvc repro train`") from error
    data = load_test_images(manifest)

    print(f"export: translating the model, then checking it on {len(data.labels):,} test images", flush=True)
    onnx = encode_onnx(model, metadata)
    expected = torch.cat([logits for logits, _ in batch_predictions(model, data, metadata["image_size"], machine)])
    logits = run_onnx(onnx, data.images.numpy(), max(1, EVALUATION_PIXELS // metadata["image_size"] ** 2))
    metrics = agreement(logits, expected.numpy())
    if not np.allclose(logits, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise UserError(f"the ONNX model differs from PyTorch's by {metrics['max_logit_difference']:.2g} in a logit")
    with atomic_write(ONNX_FILE) as file:
        file.write(onnx)
    write_json(EXPORT_METRICS_FILE, {"onnx": metrics})
    print(
        f"export: {ONNX_FILE} predicts as PyTorch does in {metrics['same_prediction']:,} of {metrics['images']:,} "
        f"test images, its logits within {metrics['max_logit_difference']:.1e}"
    )


class WithPreprocessing(nn.Module):
    """From images (N, 28, 28) uint8 as MNIST has them to logits (N, C) float32."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        super().__init__()
        self.model, self.image_size = model, image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(to_input(images, self.image_size))


def encode_onnx(model: nn.Module, metadata: dict) -> bytes:
    """The ONNX file of ``model`` with its preprocessing: the same bytes for the same weights and metadata.

    Its input is ``images`` (N, 28, 28) uint8, its output ``logits`` (N, C) float32, N free.

    Args:
        model: in evaluation mode, on the CPU.
        metadata: as `load_model` returns it; it goes in as JSON under the key that the model's own file has it under.
    """
    program = torch.onnx.export(
        WithPreprocessing(model, metadata["image_size"]).eval(),
        (torch.zeros(2, SIDE, SIDE, dtype=torch.uint8),),  # 2, because torch.export takes a size of 1 for fixed
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "N"},),
        verbose=False,
    )
    assert program is not None  # it is for those exporters that write a file
    proto = program.model_proto
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")  # stack traces, with the paths of this machine
    proto.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata, sort_keys=True))
    return proto.SerializeToString(deterministic=True)


def run_onnx(onnx: bytes, images: np.ndarray, batch_size: int) -> np.ndarray:
    """The logits (N, C) float32 that onnxruntime computes on the CPU for ``images`` (N, 28, 28) uint8."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    return np.concatenate([np.asarray(session.run(["logits"], {"images": batch})[0]) for batch in batches])


def agreement(logits: np.ndarray, expected: np.ndarray) -> dict[str, int | float]:
    """How near two arrays of logits (N, C) are."""
    return {
        "images": len(expected),
        "same_prediction": int((logits.argmax(1) == expected.argmax(1)).sum()),
        "max_logit_difference": float(np.abs(logits - expected).max()),
    }


if __name__ == "__main__":
    main()
