"""What ``evaluate`` says of a model: its loss, the scores of each class, how far its confidence can be trusted."""

import json

import numpy as np
import pytest
import torch
from helpers.training import MACHINE, MNIST_INPUT

from src.evaluate import stage
from src.evaluate.stage import calibration_table, expected_calibration_error, standard_error
from src.images.dataset import Images, load_images, load_manifest
from src.pipeline.files import read_columns
from src.resnet.inference import SHIFTS, predict_probabilities, to_input


def test_a_calibration_table_gives_the_limits_number_confidence_and_accuracy_of_each_bin_that_is_not_empty():
    confidences = np.array([0.2, 0.64, 0.65, 0.95, 0.96, 0.97, 1.0])  # the first and the last are limits of bins
    right = np.array([True, True, False, True, True, True, False])

    table = calibration_table(confidences, right)

    assert table == [
        pytest.approx({"from": 2 / 15, "to": 3 / 15, "images": 1, "confidence": 0.2, "accuracy": 1}),
        pytest.approx({"from": 9 / 15, "to": 10 / 15, "images": 2, "confidence": 0.645, "accuracy": 0.5}),
        pytest.approx({"from": 14 / 15, "to": 1, "images": 4, "confidence": 0.97, "accuracy": 0.75}),
    ]
    error = (1 * (1 - 0.2) + 2 * (0.645 - 0.5) + 4 * (0.97 - 0.75)) / 7
    assert expected_calibration_error(table) == pytest.approx(error)


def test_a_standard_error_is_the_usual_one_for_single_values_and_that_of_drawing_whole_clusters_for_others():
    draws = np.random.default_rng(0)
    clusters = np.repeat(np.arange(300), draws.integers(10, 60, 300))
    values = draws.random(len(clusters)) < draws.beta(50, 1, 300)[clusters]  # some clusters are harder than others
    sums, sizes = np.bincount(clusters, values), np.bincount(clusters)

    drawn = draws.integers(0, 300, (5000, 300))
    bootstrap = (sums[drawn].sum(1) / sizes[drawn].sum(1)).std()

    assert standard_error(values, clusters) == pytest.approx(bootstrap, rel=0.05)
    assert standard_error(values, np.arange(len(values))) == pytest.approx(values.std() / len(values) ** 0.5)
    assert standard_error(values, clusters) > 1.2 * standard_error(values, np.arange(len(values)))


def test_the_answer_of_several_copies_is_the_mean_over_the_image_and_its_shifts_by_a_pixel():
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    images[0, 10, 10], images[1, 20, 5] = 255, 255
    model = torch.nn.Flatten()  # the logits are the pixels

    found = predict_probabilities(model, images, MNIST_INPUT, MACHINE, 5)

    plain = [to_input(images.roll(shift, (1, 2)), MNIST_INPUT).flatten(1).double().softmax(1) for shift in SHIFTS[:5]]
    torch.testing.assert_close(found, torch.stack(plain).mean(0))
    brightest = [set(each.topk(5).indices.tolist()) for each in found]
    assert brightest == [{y * 28 + x + step for step in (0, 1, -1, 28, -28)} for y, x in ((10, 10), (20, 5))]


def test_test_time_augmentation_is_a_second_figure_and_no_figure_is_of_the_trainings_precision(
    trained, monkeypatch, torch_as_it_was
):
    monkeypatch.chdir(trained.path)
    test_set, found = load_images(load_manifest(), "test"), {}
    fifty = Images(test_set.source[:50], test_set.labels[:50])
    monkeypatch.setattr(stage, "load_images", lambda *_: fifty)

    for copies, precision in ((1, "fp32"), (5, "bf16")):
        trained.set_params(tta=copies, precision=precision)
        stage.main()
        found[copies] = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]

    second = found[5].pop("tta")
    assert found[5] == found[1]
    assert second["copies"] == 5
    assert second["accuracy"] == pytest.approx(1 - second["errors"] / 50)
    assert second["loss"] != found[1]["loss"]
    assert 0 < second["loss"] < 10 * found[1]["loss"]  # a mean too


def test_the_figures_of_a_run_agree_with_each_other(trained_once):
    test = json.loads(trained_once.read("metrics/evaluate/metrics.json"))["test"]
    folder, scores = trained_once.path / "metrics/evaluate", ("precision", "recall", "f1")
    predictions, classes, bins = (
        read_columns(folder / f"{name}.csv", parsers)
        for name, parsers in {
            "predictions": {"actual": str, "predicted": str, "confidence": float},
            "classes": {"class": str} | dict.fromkeys(scores, float),
            "calibration": {"accuracy": float},
        }.items()
    )

    actual, predicted = np.array(predictions["actual"]), np.array(predictions["predicted"])
    right = actual == predicted

    assert len(right) == test["images"] == 1000
    assert b"\r" not in (folder / "predictions.csv").read_bytes()
    assert test["errors"] == (~right).sum()
    assert test["accuracy"] == right.mean()
    for name, *found in zip(classes["class"], *(classes[score] for score in scores), strict=True):
        precision, recall = right[predicted == name].mean(), right[actual == name].mean()
        assert found == pytest.approx([precision, recall, 2 * precision * recall / (precision + recall)])
    table = calibration_table(np.array(predictions["confidence"]), right)
    assert bins["accuracy"] == pytest.approx([row["accuracy"] for row in table])
    assert test["calibration_error"] == pytest.approx(expected_calibration_error(table), abs=1e-5)
