"""A command of ours or of DVC's, run by a process that has its libraries already: they take most of its seconds."""

import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

LIBRARIES = [  # not pygit2, which reads HOME when it is imported
    *("torch", "torchvision", "scipy.ndimage", "matplotlib.figure", "dvclive", "pydantic"),
    *("dvc.cli.parser", "dvc.repo.experiments.queue.celery", "dvc.render.match", "tabulate"),
]
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"  # macOS: its libraries do not survive a fork
if START_METHOD == "forkserver":  # a server that has imported them forks the processes
    multiprocessing.set_forkserver_preload(LIBRARIES)


def run_module(
    module: str, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess:
    """Do what ``python -m module arguments`` does in ``folder``, without a terminal."""
    # The tests' workers share some folders, hence the process's number.
    outputs = [folder.parent / f".{folder.name}.{os.getpid()}.{name}" for name in ("out", "err")]
    process = multiprocessing.get_context(START_METHOD).Process(
        target=_run, args=(module, arguments, folder, environment, outputs)
    )
    process.start()
    process.join(timeout=900)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"{module} {' '.join(arguments)} has not ended")
    printed = [file.read_text() for file in outputs]
    for file in outputs:
        file.unlink()
    return subprocess.CompletedProcess((module, *arguments), process.exitcode, *printed)


def _run(
    module: str, arguments: tuple[str, ...], folder: Path, environment: dict[str, str], outputs: list[Path]
) -> None:
    for number, file in enumerate(outputs, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, "")
    sys.argv[1:] = arguments
    if module == "dvc":
        import dvc.cli

        sys.argv[0] = shutil.which("dvc") or "dvc"  # what it starts its workers by
        sys.exit(dvc.cli.main(sys.argv[1:]))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("src", module.partition(".")[0])]:
        del sys.modules[name]  # those of the project that the tests were started from
    runpy.run_module(module, run_name="__main__", alter_sys=True)
