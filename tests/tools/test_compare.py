"""``make compare``: the experiments in the columns that people choose by, in lines that fit a page."""

import re

from helpers.project import quick_params

from experiments.compare import table


def row(name: str | None, loss: float | None, **params: object) -> dict:
    metrics = {"test.accuracy": 0.965, "test.errors": 35.0, "test.loss": 0.1, "validation.loss": loss}
    return {"Experiment": name, "rev": "main"} | quick_params().model_dump() | params | metrics


def test_the_experiments_of_the_last_commit_are_listed_by_validation_loss_with_what_they_changed(longer_once):
    lines = longer_once.run("python", "-m", "experiments.compare").stdout.splitlines()

    rows = [re.split(r"  +", line) for line in lines[2:]]
    assert lines[0].split() == ["experiment", "test", "errors", "test", "validation", "parameters", "that", "differ"]
    assert {row[0]: row[5:] for row in rows} == {"longer": ["epochs=1.2, ema_decay=0"], "main (baseline)": []}
    assert float(rows[0][4]) <= float(rows[1][4])


def test_no_line_is_wider_than_a_hundred_characters_and_none_loses_a_word():
    changed = {"lr": 0.0034879123, "batch_size": 448.0, "launcher": "torchrun --standalone --nproc-per-node 2 -m"}
    name = "sweep-imagenet-epochs-20-image-size-40-label-smoothing-0-1-seed-0"

    lines = table([row(None, 0.2), row(name, 0.1, **changed), row("without", None)])

    text = re.sub(r"\s+", "", "".join(lines))
    assert max(map(len, lines)) <= 100
    assert "batch_size=448,lr=0.0034879" in text
    assert "".join(line[:24].strip() for line in lines[2:-2]) == name
    assert lines[-2].startswith("main (baseline) ")
    assert lines[-1].split() == ["without", "96.50%", "35", "0.10000", "-"]
