"""Stage ``export``: the trained model as ONNX with its preprocessing inside, checked against PyTorch."""

from src.pipeline.process import UserError, before_imports, exit_on_user_error, run_and_exit

if __name__ == "__main__":
    before_imports()

import torch

from src.mnist.dataset import load_manifest, load_test_images
from src.pipeline.files import write_file, write_json
from src.pipeline.params import load_params
from src.pipeline.paths import EXPORT_METRICS_FILE, MODEL_FILE, ONNX_FILE, OUTLIER_HEAD_FILE
from src.reader.export.onnx_classifier import OnnxClassifier
from src.reader.export.translation import encode_onnx
from src.resnet.inference import Classifier
from src.resnet.machine import set_up_machine
from src.resnet.model_file import load_model, load_outlier_head

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


if __name__ == "__main__":
    run_and_exit(main)
