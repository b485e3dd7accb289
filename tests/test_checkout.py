"""Any state of the checkout: it works, or one line says what to type, and nothing is lost."""

import shutil
import sys
from pathlib import Path

import pytest
from helpers.project import Nobodys, Project, needs_posix

pytestmark = needs_posix

MAKE_REPRO = ("make", "-o", "setup", f"BIN={Path(sys.executable).parent}", "repro")


def test_without_a_git_identity_the_workflow_runs_and_an_experiment_is_refused_and_loses_nothing(trained):
    (trained.path / "README.md").write_text("an edit")
    nobodys, before = Nobodys(trained), trained.run("git", "diff").stdout

    nobodys.run("dvc", "exp", "run", "-S", "epochs=1", ok=False)

    assert trained.run("git", "diff").stdout == before
    assert "git config --global user.name NAME" in nobodys.run(*MAKE_REPRO).stdout


def test_a_download_without_git_is_told_what_to_type_and_that_works(trained, fails):
    shutil.rmtree(trained.path / ".git")
    fails(trained.run(*MAKE_REPRO, ok=False), "git init && git add -A . && git commit -m start")

    trained.run("sh", "-c", "git init -q && git add -A . && git commit -q -m start")

    assert "up to date" in trained.run("dvc", "repro").stdout


def test_what_git_says_of_a_repository_that_it_does_not_trust_is_passed_on(trained, fails):
    fails(trained.run(*MAKE_REPRO, ok=False, GIT_TEST_ASSUME_DIFFERENT_OWNER="1"), "safe.directory")


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (("git", "checkout", "-q", "--detach"), "git switch main"),
        (("git", "config", "remote.origin.partialclonefilter", "blob:none"), "--filter"),
        (("true",), None),
    ],
    ids=["on no branch", "partial", "sound"],
)
def test_a_clone_in_which_dvc_would_lose_a_commit_or_hang_is_noticed_before_the_run(project, state, named):
    project.run(*state)

    warnings = project.run(".ci/check-commit").stderr.splitlines()

    assert len(warnings) == (named is not None)
    assert all(named in line for line in warnings)


@pytest.mark.slow
def test_a_shallow_clone_refuses_an_experiment_that_would_be_lost_and_a_whole_one_keeps_it(trained, fails):
    trained.run("git", "commit", "-q", "--allow-empty", "-m", "one more")
    trained.run("git", "clone", "-q", "--depth", "1", f"file://{trained.path}", "../shallow")
    shallow = Project(trained.path.parent / "shallow")
    shallow.run("dvc", "config", "--local", "cache.dir", str(trained.path / ".dvc/cache"))
    shallow.run("dvc", "checkout", "-q", "dvc.yaml")
    temporary = ("dvc", "exp", "run", "--temp", "-n", "kept", "-S", "offline_fallback=false")
    fails(shallow.run(*temporary, ok=False), "git fetch --unshallow")

    shallow.run("git", "fetch", "-q", "--unshallow")
    shallow.run(*temporary)

    assert "kept" in shallow.run("dvc", "exp", "list").stdout


@pytest.fixture
def subfolder(trained, tmp_path_factory) -> Project:
    """The project as a folder of another repository, committed there."""
    outer = Project(tmp_path_factory.mktemp("outer"))
    outer.run("git", "init", "-q", "-b", "main")
    shutil.copytree(trained.path, outer.path / "inner", ignore=shutil.ignore_patterns(".git"), symlinks=True)
    outer.commit("with a project inside")
    return Project(outer.path / "inner")


@pytest.mark.slow
def test_in_a_folder_of_another_repository_experiments_and_comparisons_work(subfolder):
    subfolder.run("dvc", "exp", "run", "--temp", "-n", "inside", "-S", "checkpoint_minutes=1")
    subfolder.run(".ci/compare", "HEAD", "comparison", EPOCHS="1")

    assert "inside" in subfolder.run("dvc", "exp", "list").stdout
    assert (subfolder.path / "params.yaml").exists()
    assert "learning_curves" in subfolder.read("comparison/README.md")


def test_in_a_folder_of_another_repository_the_first_run_asks_for_a_commit(subfolder, fails):
    subfolder.run("git", "rm", "-q", "-r", "--cached", ".")
    subfolder.run("git", "commit", "-q", "-m", "without the project")

    fails(subfolder.run(*MAKE_REPRO, ok=False), "git add -A . && git commit -m start")
