"""Kill it, starve it, feed it damaged files: the end is the undisturbed result or one clear line, and nothing is lost.

`make test` runs a quick selection, `make test-all` the full campaign; both print how often each fault was tried.
"""

import contextlib
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Project, make_project
from torchvision.models import resnet18

from src.mnist.idx import encode_idx, read_idx
from src.mnist.manifest import Manifest, check_file
from src.pipeline.errors import UserError
from src.pipeline.files import sha256
from src.resnet.model_file import encode_model, load_model
from src.resnet.network import build_model, load_imagenet_weights

EPOCHS = 3  # so that there are epochs' ends to be killed at


class Undisturbed:
    """A clone where ``dvc repro`` ran to its end, and how long each stage took there."""

    def __init__(self, path: Path) -> None:
        self.project = fresh(path)
        self.seconds: dict[str, float] = {}
        process, stage, start = start_repro(self.project), None, 0.0
        for line in process.stdout:
            if found := re.match(r"Running stage '(\w+)'", line):
                stage, start = found[1], time.monotonic()
            elif stage:
                self.seconds[stage] = time.monotonic() - start
        assert process.wait() == 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))


def start_repro(project: Project) -> subprocess.Popen:
    """``dvc repro`` in a process group of its own, its output to be read."""
    return subprocess.Popen(
        ["dvc", "repro"],
        cwd=project.path, env=project.environment() | {"PYTHONUNBUFFERED": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip


def heed_ctrl_c() -> None:
    """For a new process: a shell makes what it starts in the background, the tests perhaps, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def disturb(project: Project, mark: str, seconds: float, number: int, *, group: bool = True) -> str | None:
    """Run ``dvc repro`` and send it a signal some seconds after it prints ``mark``.

    Returns:
        What it printed, None where it was through before the signal came.
    """
    process = start_repro(project)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if mark in line:
            break
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, number)
    lines += process.stdout  # to the end of all processes of the group: each holds the pipe open
    return "".join(lines) if process.wait(timeout=60) else None


def status(project: Project) -> str:
    """All that lies in a project and is not committed: its results, and what a fault left lying about."""
    return project.run("git", "status", "--porcelain", "--untracked-files=all").stdout


def check_whole(project: Project, undisturbed: Undisturbed) -> None:
    """What stands under a final name is whole, whatever happened."""
    for folder in ("data", "models", "metrics"):
        for expected in (undisturbed.project.path / folder).rglob("*"):
            found = project.path / expected.relative_to(undisturbed.project.path)
            if expected.is_file() and found.exists():
                assert found.read_bytes() == expected.read_bytes(), found


def check_end(project: Project, undisturbed: Undisturbed) -> None:
    """``dvc repro`` goes on to the undisturbed end, and leaves nothing lying about."""
    project.run("dvc", "repro")
    assert project.read("dvc.lock") == undisturbed.project.read("dvc.lock")
    assert status(project) == status(undisturbed.project)
    leftovers = [*project.path.glob("metrics/.*"), *project.path.glob(".dvc/tmp/checkpoints/*")]
    leftovers += [path for folder in ("data", "models") for path in (project.path / folder).rglob(".*.partial")]
    assert leftovers == []


def fresh(path: Path) -> Project:
    """A clone where nothing has run."""
    project = make_project(path)
    project.set_params(epochs=EPOCHS)
    project.commit("start")
    return project


def test_after_a_sigkill_at_any_moment_the_next_run_ends_as_if_undisturbed(undisturbed, tmp_path, tries):
    chance = random.Random(0)
    total = tries("SIGKILL of the process group, then dvc repro", quick=2, full=32)
    plan = ["download", *["train"] * 4, "evaluate", "report", "export"] if total > 2 else ["train", "evaluate"]
    kills = resumed = 0
    for number in range(2 * total):
        project = fresh(tmp_path / str(number))
        for stage in plan[: total - kills]:
            after = chance.uniform(0, undisturbed.seconds[stage])
            output = disturb(project, f"Running stage '{stage}'", after, signal.SIGKILL)
            kills += output is not None
            resumed += "going on from step" in (output or "")
            check_whole(project, undisturbed)
        check_end(project, undisturbed)
        if kills == total:
            break
    assert kills == total
    assert total < 10 or resumed  # some kill did fall between a checkpoint and the end


@pytest.mark.parametrize(("how", "quick"), [("SIGINT", 1), ("SIGTERM", 0), ("SIGTERM to dvc alone", 0)])
def test_a_signal_lets_the_batch_end_saves_and_says_how_to_go_on(undisturbed, tmp_path, tries, how, quick):
    chance = random.Random(how)
    number = getattr(signal, how.split()[0])
    for attempt in range(tries(f"{how}, then dvc repro", quick=quick, full=4)):
        project = fresh(tmp_path / str(attempt))
        output = disturb(project, f"epoch 1/{EPOCHS}", chance.uniform(0, 1), number, group="alone" not in how)
        assert output, "training was through before the signal came"
        assert re.search(r"interrupted: step \d+ is saved; run the same command again to go on", output), output
        assert "Traceback" not in output
        check_whole(project, undisturbed)
        check_end(project, undisturbed)


@pytest.mark.parametrize("stage", ["download", "train", "evaluate"])
def test_ctrl_c_while_a_stage_imports_its_libraries_is_no_traceback_either(trained, tries, stage):
    chance = random.Random(stage)
    for _ in range(tries("SIGINT while a stage starts", quick=1, full=10)):
        process = subprocess.Popen(
            ["python", "-m", f"src.{stage}"],
            cwd=trained.path, env=trained.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=heed_ctrl_c,
        )  # fmt: skip
        time.sleep(chance.uniform(0.2, 1.5))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "interrupted" in errors and "Traceback" not in errors, errors


def test_idx_files_of_any_damage_are_refused_or_read_right(tmp_path, tries, mutations):
    array = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    plain, file = encode_idx(array), tmp_path / "images.gz"
    regions = {"gzip header": (0, 10), "IDX header": (10, 31), "pixels": (31, len(plain) - 8), "trailer": (-8, None)}
    for region, (first, last) in regions.items():
        first = first % len(plain)
        count = tries("IDX file mutated", quick=20, full=80)
        for content in mutations(plain, count, first, last):
            file.write_bytes(content)
            try:
                read = read_idx(file, shape=array.shape)
            except UserError as error:
                assert "dvc repro download" in str(error) and "\n" not in str(error)
            else:
                assert np.array_equal(read, array), f"{region}: read wrong"


@pytest.mark.parametrize(
    ("fault", "content"),
    [
        ("wrong magic", gzip.compress(b"\0\0\x09\x01\0\0\0\x03abc")),
        ("wrong count", encode_idx(np.arange(4, dtype=np.uint8))),
        ("wrong dimensions", encode_idx(np.zeros((1, 3), np.uint8))),
        ("no gzip", b"\0\0\x08\x01\0\0\0\x03abc"),
        ("gzip bomb", gzip.compress(bytes(200_000_000))),
    ],
)
def test_idx_files_of_another_kind_are_refused(tmp_path, tries, fault, content):
    tries("IDX file of another kind", quick=1, full=1)
    (tmp_path / "labels.gz").write_bytes(content)
    with pytest.raises(UserError, match="dvc repro download"):
        read_idx(tmp_path / "labels.gz", shape=(3,))


def test_labels_over_nine_are_refused(trained, tries, fails):
    tries("IDX file of another kind", quick=1, full=1)
    file = trained.path / "data/mnist/t10k-labels-idx1-ubyte.gz"
    file.write_bytes(encode_idx(np.full(1000, 10, np.uint8)))
    manifest = json.loads(trained.read("data/manifest.json"))
    manifest["sha256"]["data/mnist/t10k-labels-idx1-ubyte.gz"] = sha256(file)
    (trained.path / "data/manifest.json").write_text(json.dumps(manifest))
    fails(trained.run("python", "-m", "src.evaluate", ok=False), "has the label 10; labels are 0 to 9")


def test_any_mutation_of_the_model_is_noticed(tmp_path, tries, mutations):
    content = encode_model(build_model(10), {"class_names": list("0123456789")})
    header = 8 + int.from_bytes(content[:8], "little")
    count = tries("model file mutated", quick=10, full=60)
    for first, last in ((0, header), (header, None)):
        for mutated in mutations(content, count // 2, first, last):
            (tmp_path / "model").write_bytes(mutated)
            try:
                load_model(tmp_path / "model")
            except ValueError as error:
                assert "missing or damaged" in str(error) and "\n" not in str(error)
            else:  # only metadata that is not needed to load it
                assert mutated[header:] == content[header:]


def test_any_mutation_of_the_weights_file_is_noticed(tmp_path, monkeypatch, tries, mutations):
    monkeypatch.chdir(tmp_path)
    file = Path("data/weights/resnet18.pth")
    file.parent.mkdir(parents=True)
    torch.save(resnet18().state_dict(), file)
    content = file.read_bytes()
    manifest = Manifest(
        dataset="mnist", training_images=1, test_images=1, initial_weights="imagenet1k_v1",
        sha256={file.as_posix(): sha256(file)},
    )  # fmt: skip
    check_file(manifest, file)
    model = build_model(10)
    for mutated in mutations(content, tries("weights file mutated", quick=10, full=60)):
        file.write_bytes(mutated)
        with pytest.raises(UserError, match="is not the file that"):
            check_file(manifest, file)
        try:  # and what would happen had the hash not told
            load_imagenet_weights(model, file, "summed")
        except ValueError as error:
            assert "holds no ResNet-18 weights" in str(error) and "\n" not in str(error)


FULL, READ_ONLY = "disk full", "read-only folder"
MOUNT = {
    FULL: 'size=$(($(du -sm "$1" | cut -f1) + 8))m && cp -a "$1" copy.tmp && mount -t tmpfs -o size=$size tmpfs "$1"'
    ' && cp -a copy.tmp/. "$1" && rm -r copy.tmp && { cat /dev/zero > "$1/filler" 2>/dev/null || true; }',
    READ_ONLY: 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"',
}


def with_fault(fault: str, folder: str, command: str) -> list[str]:
    """A command that runs another one in a mount namespace of its own, where ``folder`` takes nothing."""
    return ["unshare", "--mount", "--map-root-user", "sh", "-c", f"{MOUNT[fault]} && {command}", "sh", folder]


@pytest.fixture(scope="module")
def can_mount(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("mount")
    (folder / "output").mkdir()
    if (
        shutil.which("unshare") is None
        or subprocess.run(with_fault(FULL, "output", "true"), cwd=folder, capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount in a namespace of its own")


@pytest.mark.parametrize("fault", [FULL, READ_ONLY])
@pytest.mark.parametrize(
    ("stage", "folder", "named"),
    [
        ("download", "data/mnist", "data/mnist/train-images-idx3-ubyte.gz"),
        ("download", "data", "data/"),
        ("train", "models", "models/model.safetensors"),
        ("train", "metrics", "metrics/"),
        ("evaluate", "metrics/evaluate", "metrics/evaluate/"),
        ("report", "metrics", "metrics/report.md"),
        ("export", "models", "models/model.onnx"),
        ("export", "metrics/export", "metrics/export/metrics.json"),
    ],
)
def test_an_output_that_cannot_be_written_is_a_clear_line_and_the_earlier_one_stays(
    trained, can_mount, tries, fails, stage, folder, named, fault
):
    tries(f"{fault} while writing an output", quick=int(fault == FULL), full=1)
    if stage == "download" and folder == "data/mnist":
        (trained.path / "data/mnist/train-images-idx3-ubyte.gz").unlink()
    elif stage == "download":
        trained.set_params(dataset="sample")
    else:
        trained.set_params(seed=1)
    kept = {path: path.read_bytes() for path in (trained.path / folder).rglob("*") if path.is_file()}
    listing = 'find "$1" -type f ! -name filler ! -name "*.gitignore" -exec sha256sum {} + 1>&2; exit $code'
    done = trained.run(*with_fault(fault, folder, f"{{ python -m src.{stage}; code=$?; {listing}; }}"), ok=False)
    fails(done, "can't write", named)
    for path, content in kept.items():
        assert path.read_bytes() == content
    inside = dict(reversed(line.split("  ")) for line in done.stderr.splitlines() if re.match(r"[0-9a-f]{64}  ", line))
    for path in kept:
        if path.name != ".gitignore":
            name = path.relative_to(trained.path).as_posix()
            assert inside[name] == sha256(path), name
    assert not [name for name in inside if "partial" in name]


@pytest.mark.parametrize("fault", [FULL, READ_ONLY])
def test_training_goes_on_where_no_checkpoint_can_be_written(trained, can_mount, tries, fault):
    tries(f"{fault} while writing an output", quick=int(fault == FULL), full=1)
    model = trained.path / "models/model.safetensors"
    content = model.read_bytes()
    model.unlink()
    done = trained.run(*with_fault(fault, ".dvc/tmp/checkpoints", "python -m src.train"))
    assert "warning: can't write" in done.stderr and "training goes on without this checkpoint" in done.stderr
    assert model.read_bytes() == content


def test_a_lock_of_a_killed_dvc_does_not_keep_the_next_run_from_starting(trained):
    with subprocess.Popen(["true"]) as process:
        pass  # a process number that was in use and is free
    lock = {
        "write": {str(trained.path / "models/model.safetensors"): {"pid": process.pid, "cmd": "dvc repro"}},
        "read": {},
    }
    (trained.path / ".dvc/tmp/rwlock").write_text(json.dumps(lock))
    (trained.path / ".dvc/tmp/lock").write_text(f" {process.pid}\n")
    trained.set_params(seed=1)
    trained.run("dvc", "repro", "evaluate")
