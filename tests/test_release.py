"""``make release-check`` and ``make lock``: what a contributor sees who edits a comment, a parameter, a result."""

import shutil

import pytest

CHECK = ("python", "-m", "pytest", "-q", "release", "-k", "sources or parameters or results")


def edit_a_comment(project):
    file = project.path / "src/resnet/trim.py"
    first, rest = file.read_text().split("\n", maxsplit=1)
    file.write_text(f"{first} One more docstring.\n# one more comment\n{rest}")


def test_a_committed_run_agrees_with_itself(trained):
    trained.run(*CHECK)


@pytest.mark.slow
def test_an_edited_comment_is_named_with_the_two_commands_that_mend_it(trained):
    edit_a_comment(trained)

    done = trained.run(*CHECK, ok=False)

    assert "src/resnet changed since the committed run of train" in done.stdout
    assert "`dvc repro`" in done.stdout
    assert "`make lock`" in done.stdout


@pytest.mark.slow
def test_the_lock_is_mended_in_a_clone_that_has_neither_data_nor_model(trained):
    edit_a_comment(trained)
    shutil.rmtree(trained.path / "data/mnist")
    shutil.rmtree(trained.path / "data/weights")
    for file in (trained.path / "models").glob("[!.]*"):
        file.unlink()
    shutil.rmtree(trained.path / ".dvc/cache")

    trained.run("python", "-m", "release.lock")

    trained.run(*CHECK)
    assert "Running stage" not in trained.run("dvc", "repro", "--allow-missing").stdout


def test_the_lock_is_not_mended_where_a_parameter_changed(trained, fails):
    lock = trained.read("dvc.lock")
    trained.set_params(lr=0.001)

    done = trained.run("python", "-m", "release.lock", ok=False)

    fails(done, "params.yaml changed since the run of train", "dvc repro")
    assert trained.read("dvc.lock") == lock


@pytest.mark.parametrize(
    ("name", "text"),
    [("src/resnet/trim.py", "\nHALF = 0.5\n"), ("src/resnet/new.py", "HALF = 0.5\n"), ("src/mnist/table.csv", "1\n")],
)
def test_the_lock_is_not_mended_where_the_code_changed(trained, fails, name, text):
    lock = trained.read("dvc.lock")
    with (trained.path / name).open("a") as file:
        file.write(text)

    done = trained.run("python", "-m", "release.lock", ok=False)

    fails(done, f"{name} changed since the run of ", "dvc repro")
    assert trained.read("dvc.lock") == lock


def test_the_lock_is_not_mended_where_a_stage_depends_on_more_than_before(trained, fails):
    (trained.path / "src/extra").mkdir()
    (trained.path / "src/extra/table.py").write_text("HALF = 0.5\n")
    dvc_yaml = trained.path / "dvc.yaml"
    dvc_yaml.write_text(dvc_yaml.read_text().replace("      - src/train\n", "      - src/train\n      - src/extra\n"))
    lock = trained.read("dvc.lock")

    done = trained.run("python", "-m", "release.lock", ok=False)

    fails(done, "src/extra/table.py changed since the run of train", "dvc repro")
    assert trained.read("dvc.lock") == lock


@pytest.mark.slow
def test_the_lock_is_not_mended_where_it_was_committed_with_code_that_had_not_run(trained, fails):
    with (trained.path / "src/resnet/trim.py").open("a") as file:
        file.write("\nHALF = 0.5\n")
    lock = trained.path / "dvc.lock"
    lock.write_text(lock.read_text() + "# merged\n")
    trained.commit("code and lock")

    done = trained.run("python", "-m", "release.lock", ok=False)

    fails(done, "src/resnet was not what dvc.lock says", "dvc repro")
    assert lock.read_text().endswith("# merged\n")


def test_the_lock_is_not_mended_before_the_run_is_committed(trained, fails):
    with (trained.path / "dvc.lock").open("a") as file:
        file.write("# of a new run\n")

    fails(trained.run("python", "-m", "release.lock", ok=False), "dvc.lock is not committed")


def test_the_lock_is_not_mended_where_a_result_is_of_another_run(trained, fails):
    lock = trained.read("dvc.lock")
    (trained.path / "models/model.safetensors").unlink()
    (trained.path / "models/model.safetensors").write_bytes(b"of another run")

    done = trained.run("python", "-m", "release.lock", ok=False)

    fails(done, "models/model.safetensors changed since the run of train", "dvc repro")
    assert trained.read("dvc.lock") == lock


@pytest.mark.slow
def test_a_changed_result_in_git_is_named(trained):
    metrics = trained.path / "metrics/evaluate/metrics.json"
    metrics.write_text(metrics.read_text().replace('"errors": ', '"errors": 1'))

    done = trained.run(*CHECK, ok=False)

    assert "metrics/evaluate/metrics.json and dvc.lock are of different runs" in done.stdout
