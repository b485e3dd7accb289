"""What ``evaluate`` says of a model: its loss, the scores of each class, how far its confidence can be trusted."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.evaluate.stage import calibration_table, class_table, expected_calibration_error, prediction_table

PREDICTIONS = st.tuples(st.floats(0.1, 1), st.booleans())  # the confidence, and whether it was right


def test_a_calibration_table_gives_the_limits_number_confidence_and_accuracy_of_each_bin_that_is_not_empty():
    confidences = np.array([0.64, 0.65, 0.95, 0.96, 0.97, 1.0])
    right = np.array([True, False, True, True, True, False])

    table = calibration_table(confidences, right)

    assert table == [
        pytest.approx({"from": 9 / 15, "to": 10 / 15, "images": 2, "confidence": 0.645, "accuracy": 0.5}),
        pytest.approx({"from": 14 / 15, "to": 1, "images": 4, "confidence": 0.97, "accuracy": 0.75}),
    ]


def test_a_bin_ends_with_its_upper_limit():
    table = calibration_table(np.array([0.2, 0.2000001]), np.array([True, True]))

    assert [row["to"] for row in table] == [pytest.approx(3 / 15), pytest.approx(4 / 15)]


def test_the_calibration_error_is_that_of_a_hand_count():
    confidences = np.array([0.64, 0.65, 0.99, 0.99, 0.99, 0.99])
    right = np.array([True, False, True, True, True, False])

    error = expected_calibration_error(calibration_table(confidences, right))

    assert error == pytest.approx(2 / 6 * (0.645 - 1 / 2) + 4 / 6 * (0.99 - 3 / 4))


@given(st.lists(PREDICTIONS, min_size=1))
def test_the_bins_hold_every_prediction_where_the_paper_puts_it_and_the_error_is_a_share(predictions):
    confidences, right = (np.array(column) for column in zip(*predictions, strict=True))

    table = calibration_table(confidences, right)

    assert sum(row["images"] for row in table) == len(predictions)
    assert sum(row["accuracy"] * row["images"] for row in table) == pytest.approx(right.sum())
    for row in table:
        assert row["from"] - 1e-9 <= row["confidence"] <= row["to"] + 1e-9
    assert 0 <= expected_calibration_error(table) <= 1


def test_a_class_table_gives_each_class_its_precision_recall_and_f1_and_0_where_it_was_never_predicted():
    actual = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 1, 1, 1, 1, 1, 0])

    table = class_table(actual, predicted, ["a", "b", "c", "d"])

    assert [row.pop("class") for row in table] == ["a", "b", "c", "d"]
    assert table == [
        pytest.approx({"precision": 1 / 2, "recall": 1 / 4, "f1": 1 / 3}),
        pytest.approx({"precision": 2 / 5, "recall": 1, "f1": 4 / 7}),
        {"precision": 0, "recall": 0, "f1": 0},
        {"precision": 0, "recall": 0, "f1": 0},
    ]


def test_a_prediction_table_keeps_the_images_order():
    table = prediction_table(np.array([1, 0]), np.array([1, 1]), np.array([0.75, 0.5]), ["a", "b"])

    assert table == [
        {"actual": "b", "predicted": "b", "confidence": "0.750000"},
        {"actual": "a", "predicted": "b", "confidence": "0.500000"},
    ]


def read_table(project, name) -> dict[str, np.ndarray]:
    """The columns of one of ``evaluate``'s tables, by their names."""
    rows = list(csv.DictReader(project.read(f"metrics/evaluate/{name}.csv").splitlines()))
    return {column: np.array([float(row[column]) if row[column] else 0 for row in rows]) for column in rows[0]}


def test_the_figures_of_a_run_agree_with_each_other(trained_once):
    test = json.loads(trained_once.read("metrics/evaluate/metrics.json"))["test"]
    predictions, classes, bins = (read_table(trained_once, name) for name in ("predictions", "classes", "calibration"))

    right = predictions["actual"] == predictions["predicted"]

    assert Counter(predictions["actual"]) == dict.fromkeys(range(10), 100)
    assert (test["images"], test["errors"]) == (1000, 1000 - right.sum())
    assert test["accuracy"] == pytest.approx(right.mean())
    assert classes["recall"].mean() == pytest.approx(right.mean())  # the classes are of one size
    table = calibration_table(predictions["confidence"], right)
    assert bins["accuracy"].tolist() == [pytest.approx(row["accuracy"]) for row in table]
    assert test["calibration_error"] == pytest.approx(expected_calibration_error(table), abs=1e-5)
    assert 0.1 < predictions["confidence"].min() < predictions["confidence"].max() <= 1
