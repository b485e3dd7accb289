"""The paths of data and results that several rooms use. `dvc.yaml` says which stage writes each of them."""

from pathlib import Path

MANIFEST_FILE = Path("data/manifest.json")
IMAGES_DIR = Path("data/images")
IMAGES_FILES = {  # images (N, S, S) uint8 and labels (N,) int64, as NumPy has them
    name: (IMAGES_DIR / f"{name}_images.npy", IMAGES_DIR / f"{name}_labels.npy") for name in ("train", "test")
}
WEIGHTS_DIR = Path("data/weights")
IMAGENET_FILE = Path("data/imagenet/resnet18.safetensors")  # in Git; README.md beside it says whose it is
WRITERS_FILES = {"train": Path("data/writers/train.xz"), "test": Path("data/writers/test.xz")}  # the same

SPEED_FILE = Path(".dvc/tmp/speed.csv")  # what each epoch of the last training took; no result of it
MODEL_FILE = Path("models/model.safetensors")
RUN_FILE = Path("models/run.json")  # what a training run used: device, precision, libraries, data, weights

TRAIN_METRICS_DIR = Path("metrics/train")  # dvclive's
TRAIN_METRICS_FILE = TRAIN_METRICS_DIR / "metrics.json"
TRAIN_CURVES_DIR = TRAIN_METRICS_DIR / "plots/metrics"  # <set>/<metric>.tsv, a row for each epoch
SETS = ("train", "validation", "test")

EVALUATE_METRICS_FILE = Path("metrics/evaluate/metrics.json")
PREDICTIONS_FILE = Path("metrics/evaluate/predictions.csv")  # a row for each test image, in the published order
CLASSES_FILE = Path("metrics/evaluate/classes.csv")  # precision, recall and F1 of each class
CALIBRATION_FILE = Path("metrics/evaluate/calibration.csv")  # a row for each bin of confidence that holds predictions

REPORT_FILE = Path("metrics/report.md")
CARD_FILE = Path("models/README.md")  # where model hubs look for it
PICTURES_DIR = Path("metrics/report")

TRY_AGAIN = "dvc repro -f download && dvc repro"  # what to type once the network is there
