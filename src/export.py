"""Stage ``export``: the trained model as ONNX with its preprocessing inside, checked against PyTorch."""

from src.pipeline.errors import UserError, before_imports, exit_on_user_error, run_and_exit

if __name__ == "__main__":
    before_imports()

import json

import torch
from torch import nn

from src.mnist.images import SIDE, load_test_images
from src.mnist.inputs import to_input
from src.mnist.manifest import load_manifest
from src.pipeline.files import write_file, write_json
from src.pipeline.machine import set_up_machine
from src.pipeline.params import load_params
from src.pipeline.results import EXPORT_METRICS_FILE, MODEL_FILE, ONNX_FILE, OUTLIER_HEAD_FILE
from src.resnet.inference import Classifier
from src.resnet.model_file import METADATA_KEY, load_model, load_outlier_head
from src.resnet.onnx_model import INPUT, LOGITS, SCORE, OnnxClassifier
from src.resnet.outliers import OutlierHead, logits_and_features
from src.resnet.trim import as_convolutions, trim

OPSET, IR_VERSION = 18, 8  # of 2022: runtimes of 2023 open it
TOLERANCE = 1e-3  # of a logit, absolute or relative: far above rounding, far below what changes a prediction


@exit_on_user_error
def main() -> None:
    params = load_params()
    machine = set_up_machine("cpu", "fp32", params.threads)

    # Load the model and the test images.
    model, metadata = load_model(MODEL_FILE)
    head = load_outlier_head(OUTLIER_HEAD_FILE, model)
    images, _ = load_test_images(load_manifest())

    # Translate.
    print(f"export: translating the model, then checking it on {len(images):,} test images")
    onnx = encode_onnx(model, head, metadata)

    # Compare its answers with PyTorch's.
    expected = Classifier(MODEL_FILE, machine, OUTLIER_HEAD_FILE).answers(images)
    answers = OnnxClassifier(onnx).answers(images)
    difference = (answers.logits - expected.logits).abs().max().item()
    same = (answers.logits.argmax(1) == expected.logits.argmax(1)).double().mean().item()
    for output, other in zip(answers, expected, strict=True):
        if not torch.allclose(output, other, rtol=TOLERANCE, atol=TOLERANCE):
            raise UserError(f"the ONNX model differs from PyTorch's by {(output - other).abs().max().item():.2g}")

    # Save.
    write_file(ONNX_FILE, onnx)
    write_json(EXPORT_METRICS_FILE, {"onnx": {"same_predictions": same}})
    print(f"export: {ONNX_FILE} predicts as PyTorch does for {same:.2%} of them, its logits within {difference:.1e}")


class WholeModel(nn.Module):
    """From images (N, 1, 28, 28) uint8 as MNIST has them to logits (N, C) and outlier scores (N,), float32."""

    def __init__(self, model: nn.Module, head: OutlierHead, image_size: int) -> None:
        super().__init__()
        self.model, self.head, self.image_size = model, head, image_size

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, features = logits_and_features(self.model, to_input(images, self.image_size))
        return logits, self.head(features)


def encode_onnx(model: nn.Module, head: OutlierHead, metadata: dict) -> bytes:
    """Encode ``model`` with its preprocessing as ONNX: the same bytes for the same weights and metadata.

    Its input is ``images`` (N, 1, 28, 28) uint8. Its outputs are ``logits`` (N, C) float32 and ``outlier_score`` (N,)
    float32, above 0 for what is unlike any digit. N is free.

    Args:
        model, head: in evaluation mode, on the CPU.
        metadata: as `load_model` returns it; it goes in as JSON under the key that the model's own file has it under.
    """
    trimmed = as_convolutions(trim(model, metadata["image_size"]))  # two fifths of the weights, the same answers
    program = torch.onnx.export(
        WholeModel(trimmed, head, metadata["image_size"]).eval(),
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


if __name__ == "__main__":
    run_and_exit(main)
