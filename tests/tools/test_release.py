"""``make release-check`` and ``make lock``: what a contributor sees who edits a comment, a parameter, a result."""

import pytest

CHECK = ("python", "-m", "pytest", "-q", "release", "-k", "sources")
LOCK = ("python", "-m", "release.lock")
READER = """\
stages:
  outliers:
    cmd: echo of no consequence
    wdir: ../..
    deps:
      - src/images
      - src/pipeline
"""


@pytest.mark.slow
def test_after_an_edit_of_a_comment_both_locks_are_mended_in_a_clone_without_data_and_model(trained):
    (trained.path / "src/reader/dvc.yaml").write_text(READER)
    trained.run("dvc", "repro", "src/reader/dvc.yaml")
    trained.commit("a reader")
    source = trained.path / "src/images/dataset.py"
    source.write_text(f"# one more comment\n{source.read_text().replace('as NumPy arrays', 'as arrays of NumPy', 1)}")
    trained.run("sh", "-c", "rm -r data/images data/weights models/* .dvc/cache")
    named = trained.run(*CHECK, ok=False).stdout

    trained.run(*LOCK)

    for name in ("download", "train", "evaluate", "report", "outliers"):
        assert f"src/images changed since the committed run of {name}" in named
    assert "5 passed" in trained.run(*CHECK).stdout
    assert "Running stage" not in trained.run("dvc", "repro", "-P", "--allow-missing").stdout


@pytest.mark.slow
def test_a_changed_result_in_git_is_named(trained):
    metrics = trained.path / "metrics/evaluate/metrics.json"
    text = metrics.read_text()
    metrics.write_text(text.replace('"errors": ', '"errors": 1'))

    named = trained.run(*CHECK, ok=False).stdout
    metrics.write_text(text)

    assert "metrics/evaluate changed since the committed run of report" in named
    assert "metrics/evaluate/metrics.json changed since the committed run of evaluate" in named
    assert "4 passed" in trained.run(*CHECK).stdout


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("src/images/dataset.py", "SIDE = 28", "SIDE = 27", "src/images/dataset.py changed since the run of "),
        ("src/images/new.py", "", "HALF = 0.5\n", "src/images/new.py changed since the run of "),
        ("params.yaml", "\nlr: 0.", "\nlr: 0.1", "params.yaml changed since the run of train"),
        ("dvc.yaml", "python -m src.evaluate", "python -u -m src.evaluate", "the command of evaluate changed"),
        ("models/model.safetensors", "", "of another run", "models/model.safetensors changed since the run of train"),
        ("dvc.lock", "schema", "# of a new run\nschema", "dvc.lock is not committed"),
    ],
)
def test_no_lock_is_mended_where_more_changed_than_comments(trained, fails, name, old, new, said):
    file = trained.path / name
    text = file.read_text() if old else ""
    file.unlink(missing_ok=True)  # DVC's cache may have the same file
    file.write_text(text.replace(old, new, 1) if old else new)
    lock = trained.read("dvc.lock")

    fails(trained.run(*LOCK, ok=False), said)
    assert trained.read("dvc.lock") == lock


@pytest.mark.slow
def test_no_lock_is_mended_where_it_was_committed_with_code_that_had_not_run(trained, fails):
    for name in ("src/resnet/network.py", "dvc.lock"):
        with (trained.path / name).open("a") as file:
            file.write("# merged\n" if name == "dvc.lock" else "\nHALF = 0.5\n")
    trained.commit("code and lock")

    fails(trained.run(*LOCK, ok=False), "src/resnet was not what dvc.lock says", "dvc repro")
    assert trained.read("dvc.lock").endswith("# merged\n")
