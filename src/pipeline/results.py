"""The paths of results that several packages use. `dvc.yaml` says which stage writes each of them."""

from pathlib import Path

MODEL_FILE = Path("models/model.safetensors")
RUN_FILE = Path("models/run.json")  # what a training run used: device, precision, libraries, data, weights
OUTLIER_HEAD_FILE = Path("models/outliers.safetensors")  # what tells that an image is no digit
ONNX_FILE = Path("models/model.onnx")

TRAIN_METRICS_DIR = Path("metrics/train")  # dvclive's
TRAIN_METRICS_FILE = TRAIN_METRICS_DIR / "metrics.json"
TRAIN_CURVES_DIR = TRAIN_METRICS_DIR / "plots/metrics"  # <set>/<metric>.tsv, a row for each epoch
SETS = ("train", "validation", "test")

EVALUATE_METRICS_FILE = Path("metrics/evaluate/metrics.json")
PREDICTIONS_FILE = Path("metrics/evaluate/predictions.csv")  # a row for each test image, in the published order
CLASSES_FILE = Path("metrics/evaluate/classes.csv")  # precision, recall and F1 of each class
CALIBRATION_FILE = Path("metrics/evaluate/calibration.csv")  # a row for each bin of confidence that holds predictions

OUTLIERS_METRICS_FILE = Path("metrics/outliers/metrics.json")
EXPORT_METRICS_FILE = Path("metrics/export/metrics.json")

TRY_AGAIN = "dvc repro -f download && dvc repro"  # what to type once the network is there
