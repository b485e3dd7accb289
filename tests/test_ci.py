"""What keeps the project in order: the Makefile's targets, the linters, what CI runs, and where the tests may run."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from helpers.project import ROOT, Nobodys, needs_posix

pytestmark = needs_posix

WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
BIN = f"BIN={Path(sys.executable).parent}"  # the tools of this environment
LINT = ("make", "-o", "setup-dev", BIN, "lint")
MISTAKES = {  # a file to add, and a part of what the linters say of it
    "src/unformatted.py": ("x = 1;y = 2\n", "src/unformatted.py"),
    "src/unused.py": ("import os\n", "F401"),
    "src/report/mistyped.py": ('count: int = "one"\n', "src/report/mistyped.py"),
    ".github/workflows/misspelt.yml": ("on: push\njobs: {a: {runs-on: x, step: []}}\n", "'step' was unexpected"),
    ".github/workflows/unsafe.yml": (
        "on: push\njobs: {a: {runs-on: x, steps: [{run: 'echo ${{ github.event.head_commit.message }}'}]}}\n",
        "template-injection",
    ),
}


def test_make_help_names_every_target(project):
    (targets,) = re.findall(r"^\.PHONY: (.+)$", project.read("Makefile"), re.M)

    lines = project.run("make", "help").stdout.splitlines()

    assert {line.split()[0] for line in lines} == set(targets.split())


def test_make_repro_ends_with_where_the_results_are_and_what_comes_next(trained):
    test = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]

    output = trained.run("make", "-o", "setup", BIN, "repro").stdout

    named = re.findall(r"\b(?:models|metrics)/[\w/]+\.\w+", output[output.index("\nmodel ") :])
    assert f"{test['accuracy']:.2%}" in output
    assert len(named) == 4
    assert [name for name in named if not (trained.path / name).is_file()] == []


def test_make_repro_refuses_a_wrong_parameter_before_dvc_removes_any_result(trained, fails):
    trained.set_params(epochs=0)

    fails(trained.run("make", "-o", "setup", BIN, "repro", ok=False), "epochs = 0")
    assert (trained.path / "models/model.safetensors").exists()


@pytest.mark.slow
def test_make_lint_accepts_the_project_and_finds_what_is_wrong(project):
    project.run(*LINT)
    for name, (text, _) in MISTAKES.items():
        (project.path / name).write_text(text)

    done = project.run(*LINT, "-i")  # goes on after an error

    for _, message in MISTAKES.values():
        assert message in done.stdout + done.stderr


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_holds_no_more_rights_than_it_needs_and_no_secret(name):
    needed = {"contents": "read"} | ({"pull-requests": "write"} if name == "compare" else {})

    assert WORKFLOWS[name]["permissions"] == {}
    assert [job["permissions"] for job in WORKFLOWS[name]["jobs"].values() if job["permissions"] != needed] == []
    assert "secrets." not in (ROOT / f".github/workflows/{name}.yml").read_text()


@pytest.mark.slow
def test_the_tests_run_from_a_git_hook_and_from_their_own_folder_touch_no_repository_of_the_users(project):
    before = project.run("git", "log", "--format=%H %s").stdout
    hook = f"GIT_DIR='{project.path}/.git' GIT_INDEX_FILE='{project.path}/.git/index'"
    command = f"cd tests && env -u PYTEST_XDIST_WORKER {hook} python -m pytest -q test_ci.py -k 'make_help or workflow'"

    project.run("sh", "-c", command)

    assert project.run("git", "log", "--format=%H %s").stdout == before
    assert project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_compare_puts_two_commits_on_one_page_and_leaves_the_workspace_alone(trained):
    source = trained.path / "src/report/figures.py"
    source.write_text(source.read_text().replace('"D"', '"o"'))
    trained.commit("round markers in the reliability diagram")
    errors = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]["errors"]

    Nobodys(trained).run(".ci/compare", "HEAD~1", "comparison", EPOCHS="1")  # as on a runner

    page = trained.read("comparison/README.md")
    before, after = (f"{when}_metrics_report_reliability.png" for when in ("before", "after"))
    recorded = (trained.path / "metrics/report/reliability.png").read_bytes()
    assert re.search(rf"test.errors +\| {errors} +\| {errors} +\| 0 +\|$", page, re.M)
    assert f"![before]({before})\n![after]({after})" in page
    assert (trained.path / "comparison" / before).read_bytes() == recorded
    assert (trained.path / "comparison" / after).read_bytes() != recorded
    assert trained.run("git", "status", "--porcelain").stdout == ""
