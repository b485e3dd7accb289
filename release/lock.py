"""``make lock``: bring each dvc.lock up to date with sources in which comments, docstrings or the layout changed.

An edited comment gives a stage's folder another hash, and so DVC would run the stage again. This writes the new hashes
and nothing else, where the code is what it was when the dvc.lock was committed. It works in a fresh clone that has
neither data nor model, where ``dvc commit`` does not.
"""

import ast
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from dvc.repo import Repo
from dvc.stage import PipelineStage

SOURCES = "src/"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
    with Repo() as repo, repo.lock:
        stages = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
        stages = [stage for stage in stages if Path(lock_of(stage)).exists()]  # the reader's may have never run
        run_in = {lock: git("log", "-1", "--format=%H", "--", lock).strip() for lock in map(lock_of, stages)}
        for lock, commit in run_in.items():
            if git("status", "--porcelain", lock):
                sys.exit(f"error: {lock} is not committed; commit the run that it is of first")
            if stale := stale_sources(lock, commit):
                sys.exit(f"error: {', '.join(stale)} was not what {lock} says when it was committed: run `dvc repro`")
        for stage in stages:
            before = recorded(stage)
            if stage.cmd_changed:
                sys.exit(f"error: the command of {stage.name} changed since its run: run `dvc repro`")
            stage.save(allow_missing=True, run_cache=False)
            now = recorded(stage)
            changed = [name for name in now if now[name] != before.get(name)]
            sources = [name for name in changed if name.startswith(SOURCES)]
            others = [name for name in changed if name not in sources]
            if others := others or with_other_code(sources, run_in[lock_of(stage)]):
                sys.exit(f"error: {', '.join(others)} changed since the run of {stage.name}: run `dvc repro`")
        for stage in stages:
            stage.dump(update_pipeline=False)
    print(f"lock: {', '.join(run_in)}: the sources as they are now; `make release-check` says whether all agrees")


def lock_of(stage: PipelineStage) -> str:
    """Find the dvc.lock beside a stage's dvc.yaml, by its path in the project."""
    return Path(stage.path_in_repo).with_name("dvc.lock").as_posix()


def recorded(stage: PipelineStage) -> dict[str, object]:
    """List what dvc.lock records of a stage: the hashes of its sources, data and results, its parameters."""
    return {part.def_path: part.hash_info.value for part in (*stage.deps, *stage.outs) if part.hash_info}


def stale_sources(lock: str, commit: str) -> list[str]:
    """List the sources that a lock has other hashes of than the files of the commit that it was committed in."""
    with tempfile.TemporaryDirectory() as folder:
        # A zip: to unpack a tar file with a `filter` takes Python 3.11.4, and Debian 12 has 3.11.2
        archive = subprocess.run(["git", "archive", "--format=zip", commit], capture_output=True, check=True).stdout
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            files.extractall(folder)
        (Path(folder) / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
        with Repo(folder) as repo:
            stages = [stage for stage in repo.index.stages if lock_of(stage) == lock]
            parts = [part for stage in stages for part in stage.deps if part.def_path.startswith(SOURCES)]
            return sorted({part.def_path for part in parts if part.changed_checksum()})


def with_other_code(folders: Sequence[str], then: str) -> list[str]:
    """List the files of some folders whose code is another than in the commit ``then``."""
    if not folders:
        return []
    names = git("ls-tree", "-r", "--name-only", then, *folders).splitlines()
    old = {name: git("show", f"{then}:./{name}") for name in names}
    names = git("ls-files", "-co", "--exclude-standard", *folders).splitlines()
    new = {name: Path(name).read_text(encoding="utf-8") for name in names if Path(name).exists()}
    return [name for name in sorted(old | new) if code(name, old.get(name)) != code(name, new.get(name))]


def code(name: str, text: str | None) -> str | None:
    """Take what of a source file can change a result: of Python all but comments, docstrings and layout."""
    if text is None or not name.endswith(".py"):
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
