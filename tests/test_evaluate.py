"""What ``evaluate`` says of a model: the scores of each class, how far its confidence can be trusted, each answer."""

import csv
import json
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.evaluate.stage import class_table, prediction_table
from src.evaluate.stage import calibration_table, expected_calibration_error

PREDICTIONS = st.tuples(st.floats(0.1, 1), st.booleans())  # the confidence, and whether it was right


def read_predictions(project) -> list[dict[str, str]]:
    """The rows of ``evaluate``'s table of predictions."""
    return list(csv.DictReader(project.read("metrics/evaluate/predictions.csv").splitlines()))


def test_a_calibration_table_gives_each_bins_limits_number_confidence_and_accuracy():
    confidences = np.array([0.64, 0.65, 0.95, 0.96, 0.97, 1.0])
    right = np.array([True, False, True, True, True, False])

    table = calibration_table(confidences, right)

    assert table == [
        pytest.approx({"from": 9 / 15, "to": 10 / 15, "images": 2, "confidence": 0.645, "accuracy": 0.5}),
        pytest.approx({"from": 14 / 15, "to": 1, "images": 4, "confidence": 0.97, "accuracy": 0.75}),
    ]


def test_a_calibration_table_has_no_empty_bins():
    table = calibration_table(np.array([0.1, 0.5, 0.5]), np.array([True, True, False]))

    assert [row["images"] for row in table] == [1, 2]


def test_a_bin_ends_with_its_upper_limit():
    table = calibration_table(np.array([0.2, 0.2000001]), np.array([True, True]))

    assert [row["to"] for row in table] == [pytest.approx(3 / 15), pytest.approx(4 / 15)]


def test_the_calibration_error_is_that_of_a_hand_count():
    confidences = np.array([0.64, 0.65, 0.99, 0.99, 0.99, 0.99])
    right = np.array([True, False, True, True, True, False])

    error = expected_calibration_error(calibration_table(confidences, right))

    assert error == pytest.approx(2 / 6 * (0.645 - 1 / 2) + 4 / 6 * (0.99 - 3 / 4))


@given(st.lists(PREDICTIONS, min_size=1))
def test_the_bins_hold_every_prediction_where_the_paper_puts_it(predictions):
    confidences = np.array([confidence for confidence, _ in predictions])
    right = np.array([was_right for _, was_right in predictions])

    table = calibration_table(confidences, right)

    assert sum(row["images"] for row in table) == len(predictions)
    assert sum(row["accuracy"] * row["images"] for row in table) == pytest.approx(right.sum())
    for row in table:
        assert row["from"] - 1e-9 <= row["confidence"] <= row["to"] + 1e-9


@given(st.lists(PREDICTIONS, min_size=1))
def test_the_calibration_error_is_a_share(predictions):
    confidences = np.array([confidence for confidence, _ in predictions])
    right = np.array([was_right for _, was_right in predictions])

    error = expected_calibration_error(calibration_table(confidences, right))

    assert 0 <= error <= 1


def test_a_class_table_gives_each_class_its_precision_recall_and_f1():
    actual = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 1, 1, 1, 1, 1])

    table = class_table(actual, predicted, ["a", "b"])

    assert [row.pop("class") for row in table] == ["a", "b"]
    assert table == [
        pytest.approx({"precision": 1, "recall": 1 / 4, "f1": 2 / 5}),
        pytest.approx({"precision": 2 / 5, "recall": 1, "f1": 4 / 7}),
    ]


def test_a_class_that_was_never_predicted_scores_0():
    table = class_table(np.array([0, 1]), np.array([0, 0]), ["a", "b"])

    assert table[1] == {"class": "b", "precision": 0, "recall": 0, "f1": 0}


def test_a_prediction_table_keeps_the_images_order():
    table = prediction_table(np.array([1, 0]), np.array([1, 1]), np.array([0.75, 0.5]), ["a", "b"])

    assert table == [
        {"actual": "b", "predicted": "b", "confidence": "0.750000"},
        {"actual": "a", "predicted": "b", "confidence": "0.500000"},
    ]


def test_the_metrics_and_the_predictions_say_the_same(trained_once):
    test = json.loads(trained_once.read("metrics/evaluate/metrics.json"))["test"]
    predictions = read_predictions(trained_once)

    errors = sum(row["actual"] != row["predicted"] for row in predictions)

    assert test["images"] == len(predictions) == 1000
    assert test["errors"] == errors
    assert test["accuracy"] == pytest.approx(1 - errors / 1000)


def test_each_image_of_the_test_set_has_its_prediction(trained_once):
    predictions = read_predictions(trained_once)

    images = Counter(row["actual"] for row in predictions)

    assert images == dict.fromkeys("0123456789", 100)


def test_dvc_shows_the_calibration_error_among_the_metrics(trained_once):
    shown = json.loads(trained_once.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]

    assert 0 < shown["metrics/evaluate/metrics.json"]["data"]["test"]["calibration_error"] < 1


def test_evaluating_again_in_another_folder_gives_the_same_bytes(trained, trained_once):
    results = sorted((trained.path / "metrics/evaluate").iterdir())
    for path in results:
        path.unlink()

    trained.run(sys.executable, "-m", "src.evaluate", PYTHONHASHSEED="7", TZ="Asia/Tokyo")  # a process of its own

    for path in results:
        assert path.read_bytes() == (trained_once.path / "metrics/evaluate" / path.name).read_bytes(), path.name
