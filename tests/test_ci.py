"""What keeps the project in order: the Makefile's targets, the linters, and what CI runs."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
LINT = ("make", "-o", ".venv/requirements-dev.installed", "lint")  # with the tools of this environment


def test_make_help_names_every_target(project):
    (targets,) = re.findall(r"^\.PHONY: (.+)$", project.read("Makefile"), re.M)
    listed = dict(line.split(maxsplit=1) for line in project.run("make", "help").stdout.splitlines())
    assert set(listed) == set(targets.split())


def test_make_repro_ends_with_where_the_results_are_and_what_comes_next(trained):
    *_, model, metrics, report, keep, then = trained.run(
        "make", "-o", ".venv/requirements.installed", "repro"
    ).stdout.splitlines()
    test = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]
    assert f"{test['accuracy']:.2%} right of 1,000 test images, from random weights" in model
    named = re.findall(r"\b(?:models|metrics)/[\w/]+\.\w+", "\n".join((model, metrics, report)))
    assert len(named) == 6 and all((trained.path / name).is_file() for name in named)
    assert "git commit" in keep and "dvc exp run" in then


def test_make_lint_accepts_the_project(project):
    project.run(*LINT)


def test_make_lint_finds_what_is_wrong(project):
    mistakes = {
        "src/unformatted.py": ("x = 1;y = 2\n", "src/unformatted.py"),
        "src/unused.py": ("import os\n", "F401"),
        "src/mistyped.py": ('count: int = "one"\n', "src/mistyped.py"),
        ".github/workflows/misspelt.yml": ("on: push\njobs: {a: {runs-on: x, step: []}}\n", "'step' was unexpected"),
        ".github/workflows/unsafe.yml": (
            "on: push\njobs: {a: {runs-on: x, steps: [{run: 'echo ${{ github.event.head_commit.message }}'}]}}\n",
            "template-injection",
        ),
    }
    for name, (text, _) in mistakes.items():
        (project.path / name).write_text(text)
    done = project.run(*LINT, "-i")  # goes on after an error
    for _, message in mistakes.values():
        assert message in done.stdout + done.stderr
    project.run(*LINT, ok=False)


def test_ci_lints_and_then_tests(project):
    commands = [line for line in project.read(".ci/run").splitlines() if line.startswith("make ")]
    assert commands == ["make lint", "make test"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_holds_no_more_rights_and_no_other_secret_than_it_needs(name):
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {}
    granted = [job["permissions"] for job in workflow["jobs"].values()]
    expected = {"test": {"contents": "read"}, "compare": {"contents": "read", "pull-requests": "write"}}
    assert granted == [expected[name]]
    secrets = re.findall(r"secrets\.(\w+)", (ROOT / f".github/workflows/{name}.yml").read_text())
    assert set(secrets) <= {"GITHUB_TOKEN"}


def test_compare_puts_two_commits_on_one_page_and_leaves_the_workspace_alone(trained):
    source = trained.path / "src/figures.py"
    source.write_text(source.read_text().replace('"D"', '"o"'))
    trained.commit("round markers in the reliability diagram")
    trained.run(".ci/compare", "HEAD~1", "comparison", EPOCHS="1")
    page = trained.read("comparison/README.md")
    for name in ("learning_curves", "confusion_matrix", "mistakes", "reliability"):
        before, after = (f"{when}_metrics_evaluate_{name}.png" for when in ("before", "after"))
        assert f"![before]({before})\n![after]({after})" in page
        recorded = (trained.path / f"metrics/evaluate/{name}.png").read_bytes()
        assert (trained.path / "comparison" / before).read_bytes() == recorded
        assert ((trained.path / "comparison" / after).read_bytes() == recorded) is (name != "reliability")
    errors = json.loads(trained.read("metrics/evaluate/metrics.json"))["test"]["errors"]
    assert re.search(
        rf"^\| metrics/evaluate/metrics.json +\| test.errors +\| {errors} +\| {errors} +\| 0 +\|$", page, re.M
    )
    assert trained.run("git", "status", "--porcelain").stdout == "?? comparison/\n"
