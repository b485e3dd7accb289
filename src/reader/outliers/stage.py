"""Stage ``outliers``: a head that tells what is no digit, fitted to the trained model's own features."""

from src.pipeline.process import before_imports, exit_on_user_error, run_and_exit

if __name__ == "__main__":
    before_imports()

import numpy as np
import torch

from src.mnist.dataset import Images, load_manifest, load_test_images, load_training_images
from src.pipeline.files import write_file, write_json
from src.pipeline.params import load_params
from src.pipeline.paths import MODEL_FILE, OUTLIER_HEAD_FILE, OUTLIERS_METRICS_FILE
from src.reader.head.outlier_head import logits_and_features
from src.reader.outliers.drawings import KINDS, draw
from src.reader.outliers.fitting import fit_head, set_threshold
from src.reader.outliers.materials import Materials, load_fonts
from src.resnet.inference import run_batches
from src.resnet.machine import set_up_machine
from src.resnet.model_file import encode_model, load_model, weights_hash
from src.resnet.network import trim
from src.sampling.seeding import make_numpy_generator
from src.sampling.split import split_validation

DIGITS = 10_000  # to fit to, at most
OUTLIERS = {  # of each kind to fit to, for each digit
    "pairs": 0.2,
    "chimeras": 0.08,
    "turned": 0.12,
    "letters": 0.45,
    "scribbles": 0.6,
    "pieces": 0.12,
    "boxed": 0.08,
    "shapes": 0.12,
}
MEASURED = 500  # of each kind to measure with, at most
HELD_OUT = 0.05  # of the training images, where no validation set is: the network has seen them, the head has not
FONTS, OTHER_FONTS = ("DejaVu",), ("STIXGeneral", "cmb", "cmr", "cmss", "cmtt")  # to fit to, to measure with


@exit_on_user_error
def main() -> None:
    params = load_params()
    machine = set_up_machine(params.device, "fp32", params.threads)

    # Load the model, and the digits that it was trained on, was not trained on, and is tested on.
    model, metadata = load_model(MODEL_FILE)
    trimmed = trim(model, metadata["image_size"]).to(machine.device).to(memory_format=torch.channels_last)
    manifest = load_manifest()
    train, validation = split_validation(load_training_images(manifest), params.validation_size or HELD_OUT)
    assert validation is not None
    test = load_test_images(manifest)

    def features(images: torch.Tensor | np.ndarray) -> torch.Tensor:
        return run_batches(
            lambda inputs: logits_and_features(trimmed, inputs)[1],
            torch.as_tensor(images).to(machine.device),
            metadata["image_size"],
            machine,
        ).cpu()

    # Draw what is no digit, and fit the head.
    print(f"outliers: drawing {len(OUTLIERS)} kinds of what is no digit")
    materials = Materials(by_class(train), load_fonts(*FONTS), make_numpy_generator(params.seed, "outliers"))
    chosen = make_numpy_generator(params.seed, "digits").permutation(len(train.images))[:DIGITS]
    drawn = np.concatenate([draw(kind, int(share * len(chosen)), materials) for kind, share in OUTLIERS.items()])
    head = fit_head(features(train.images[chosen]), features(drawn), params.seed)
    set_threshold(head, features(validation.images), params.false_positive_rate)

    # Measure it on what it has not seen: other digits, other fonts.
    unseen = Materials(by_class(validation), load_fonts(*OTHER_FONTS), make_numpy_generator(params.seed, "measured"))
    count = min(MEASURED, len(validation.images))

    def share_of_outliers(images: torch.Tensor | np.ndarray) -> float:
        with torch.inference_mode():
            return (head(features(images)) > 0).double().mean().item()

    detected = {kind: share_of_outliers(draw(kind, count, unseen)) for kind in KINDS}
    rates = {
        "false_positive_rate": share_of_outliers(test.images),
        "true_positive_rate": sum(detected.values()) / len(detected),  # the mean over the kinds
    }

    # Save.
    write_file(OUTLIER_HEAD_FILE, encode_model(head, {"model_sha256": weights_hash(model)}))
    write_json(OUTLIERS_METRICS_FILE, {"outliers": rates})
    table = ", ".join(f"{kind} {share:.0%}" for kind, share in detected.items())
    print(f"outliers: {rates['false_positive_rate']:.2%} of the test images called unlike any digit, and of {table}")


def by_class(data: Images) -> dict[int, np.ndarray]:
    """Part images by their label: (N, 28, 28) uint8 each."""
    return {label: data.images[data.labels == label].numpy() for label in data.labels.unique().tolist()}


if __name__ == "__main__":
    run_and_exit(main)
