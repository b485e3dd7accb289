"""Stage ``outliers``: a head that tells what is not a digit, fitted to the trained model's own features."""

from pathlib import Path
from threading import RLock

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from src.images.dataset import DIGITS, load_manifest
from src.pipeline.files import write_file, write_json
from src.pipeline.params import load_params
from src.pipeline.paths import MODEL_FILE, SETS
from src.pipeline.process import UserError, require_unchanged_inputs
from src.reader.head.outlier_head import HEAD_FILE, OutlierHead, logits_and_features
from src.reader.outliers.drawings import KINDS, Materials, draw
from src.resnet.inference import InputFormat, run_batches
from src.resnet.machine import set_up_machine
from src.resnet.model_file import encode_model, hash_tensors, load_model
from src.resnet.network import trim
from src.sampling.seeding import derive_seed, make_generator
from src.sampling.split import load_sets

RATES_FILE = Path("metrics/reader/outliers.json")
FALSE_POSITIVE_RATE = 0.0035  # of the validation images: at most so many may be called unlike any digit
FITTED_DIGITS = 7_000  # to fit to, at most
MEASURED = 200  # of each kind to measure with, at most
HELD_OUT = 0.05  # of the training images, where no validation set is: the network has seen them, the head has not
FONTS, OTHER_FONTS = ("DejaVu",), ("STIXGeneral", "cmb", "cmr", "cmss", "cmtt")  # to fit to, to measure with
EPOCHS, BATCH_SIZE, LR, WEIGHT_DECAY = 10, 256, 4e-3, 1e-2
STD_FLOOR = 0.05  # of the mean standard deviation, added to each feature's: some never change


def main() -> None:
    tqdm.set_lock(RLock())  # as `download` does
    params = load_params()
    machine = set_up_machine(params.device, "fp32", params.threads)

    # Load the model, and the digits that it was trained on, was not trained on, and is tested on.
    model, metadata = load_model(MODEL_FILE)
    if tuple(metadata["class_names"]) != DIGITS:
        names = ", ".join(metadata["class_names"][:2])
        raise UserError(f"the reader of pictures is for digits, not for {names}, ...; for these there is ./predict.py")
    form = InputFormat.of_model(metadata)
    trimmed = trim(model, form.image_size).to(machine.device).to(memory_format=torch.channels_last)

    def features(images: np.ndarray) -> torch.Tensor:
        """What the outlier head takes of images (N, 28, 28) uint8: (N, D), on the CPU."""
        return run_batches(lambda x: logits_and_features(trimmed, x)[1], torch.from_numpy(images), form, machine).cpu()

    sets = load_sets(load_manifest(), params.validation_size or HELD_OUT)
    train, validation, test = (sets[name] for name in SETS)

    # Draw what is not a digit, and fit the head.
    print(f"outliers: drawing {len(KINDS)} kinds of what is not a digit")
    materials = Materials(train, FONTS, derive_seed(params.seed, "outliers"))
    chosen = np.random.default_rng(derive_seed(params.seed, "digits")).permutation(len(train.images))[:FITTED_DIGITS]
    kinds = tqdm(KINDS.items(), "drawing", disable=None, leave=False, unit=" kinds")
    drawn = np.concatenate([draw(kind, int(share * len(chosen)), materials) for kind, (_, share) in kinds])
    head = fit_head(features(train.images[chosen]), features(drawn), params.seed)
    set_threshold(head, features(validation.images), FALSE_POSITIVE_RATE)

    # Measure it on what it has not seen: other digits, other fonts.
    unseen = Materials(validation, OTHER_FONTS, derive_seed(params.seed, "measured"))
    count = min(MEASURED, len(validation.images))
    detected = [share_of_outliers(head, features(draw(kind, count, unseen))) for kind in KINDS]
    rates = {
        "false_positive_rate": share_of_outliers(head, features(test.images)),
        "true_positive_rate": sum(detected) / len(detected),  # the mean over the kinds
    }

    # Save.
    require_unchanged_inputs()
    write_file(HEAD_FILE, encode_model(head, {"model_sha256": hash_tensors(model.state_dict())}))
    write_json(RATES_FILE, rates)
    false_positives, true_positives = rates.values()
    print(f"outliers: called unlike any digit: {false_positives:.2%} of test images, {true_positives:.1%} of drawings")


def fit_head(digits: torch.Tensor, outliers: torch.Tensor, seed: int) -> OutlierHead:
    """Fit a head to features (N, D) of digits and (M, D) of outliers, on the CPU. Its threshold is still 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "outlier head"))
        head = OutlierHead(digits.shape[1])
    std = digits.std(0)
    head.mean, head.std = digits.mean(0), std + STD_FLOOR * std.mean()
    features = torch.cat([digits, outliers])
    targets = torch.cat([torch.zeros(len(digits)), torch.ones(len(outliers))])
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    steps = -(-len(features) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(features), generator=make_generator(seed, "outlier batches", epoch))
        for batch in order.split(BATCH_SIZE):
            loss = F.binary_cross_entropy_with_logits(head(features[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.eval()


@torch.no_grad()
def set_threshold(head: OutlierHead, digits: torch.Tensor, false_positive_rate: float) -> None:
    """Set the threshold so that at most the share ``false_positive_rate`` of digits, features (N, D), lies above it."""
    highest = float(np.quantile(head(digits).numpy(), 1 - false_positive_rate, method="higher"))
    head.threshold = head.threshold + highest


@torch.no_grad()
def share_of_outliers(head: OutlierHead, features: torch.Tensor) -> float:
    """The share of features (N, D) that the head calls unlike any digit."""
    return (head(features) > 0).double().mean().item()
