"""The paths of data and results that several rooms use. `dvc.yaml` says which stage writes each of them."""

from pathlib import Path

MANIFEST_FILE = Path("data/manifest.json")
MNIST_DIR = Path("data/mnist")
RAW_DIR = MNIST_DIR / "MNIST" / "raw"  # where torchvision's MNIST("data/mnist") looks
MNIST_FILES = {  # images and labels
    "train": (RAW_DIR / "train-images-idx3-ubyte", RAW_DIR / "train-labels-idx1-ubyte"),
    "test": (RAW_DIR / "t10k-images-idx3-ubyte", RAW_DIR / "t10k-labels-idx1-ubyte"),
}
WEIGHTS_DIR = Path("data/weights")
IMAGENET_FILE = Path("data/imagenet/resnet18.safetensors")  # in Git; README.md beside it says whose it is
WRITERS_FILES = {"train": Path("data/writers/train.xz"), "test": Path("data/writers/test.xz")}  # the same

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
PICTURES_DIR = Path("metrics/report")

TRY_AGAIN = "dvc repro -f download && dvc repro"  # what to type once the network is there
