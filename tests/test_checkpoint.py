"""Checkpoints belong to one run, and are whole or not there."""

import hashlib
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from helpers.project import QUICK, ROOT, quick_params
from helpers.training import FROM_RANDOM_WEIGHTS, MACHINE
from helpers.values import OTHER_VALUES

from src.pipeline.process import UserError
from src.resnet.machine import Machine
from src.train.checkpoint import DIGEST_SIZE, WITHOUT_EFFECT, Checkpoint, run_identity
from src.train.processes import ProcessGroup


@pytest.fixture(autouse=True)
def project_folder(tmp_path, monkeypatch):
    """The working folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)


def state(step: int) -> dict:
    """A state like those of training: plain values and tensors."""
    return {"step": step, "weights": torch.full((3,), float(step)), "history": [{"train": (0.5, 0.9)}]}


def test_the_newest_state_comes_back():
    for step in (5, 10, 15):
        Checkpoint({"seed": 0}).save(step, state(step))

    loaded = Checkpoint({"seed": 0}).load()

    assert loaded["step"] == 15
    assert loaded["weights"].tolist() == [15, 15, 15]
    assert loaded["history"] == [{"train": (0.5, 0.9)}]


def test_where_nothing_was_saved_there_is_nothing():
    assert Checkpoint({"seed": 0}).load() is None


def test_the_last_two_checkpoints_are_kept():
    checkpoint = Checkpoint({"seed": 0})

    for step in (5, 10, 15):
        checkpoint.save(step, state(step))

    assert sorted(path.name for path in checkpoint.folder.iterdir()) == ["000000010.pt", "000000015.pt"]


def test_another_run_finds_nothing():
    Checkpoint({"seed": 0}).save(5, state(5))

    assert Checkpoint({"seed": 1}).load() is None


def test_an_experiment_in_a_folder_of_its_own_finds_the_projects_checkpoints(tmp_path, monkeypatch):
    Checkpoint({"seed": 0}).save(5, state(5))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # as DVC does for `dvc exp run --temp` and the queue

    assert Checkpoint({"seed": 0}).load()["step"] == 5


def test_a_removed_checkpoint_leaves_nothing(tmp_path):
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(5, state(5))

    checkpoint.remove()

    assert checkpoint.load() is None
    assert list((tmp_path / ".dvc/tmp/checkpoints").iterdir()) == []


def test_the_age_is_the_time_since_the_last_save(monkeypatch):
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    checkpoint = Checkpoint({"seed": 0})

    clock = 1007.0
    before = checkpoint.age
    checkpoint.save(5, state(5))
    clock = 1010.0

    assert (before, checkpoint.age) == (7, 3)


def damage_newest(checkpoint: Checkpoint) -> None:
    """Cut the newest checkpoint short by a byte."""
    newest = sorted(checkpoint.folder.iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-1])


def test_in_place_of_a_damaged_checkpoint_the_one_before_is_taken():
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(5, state(5))
    checkpoint.save(10, state(10))
    damage_newest(checkpoint)

    assert checkpoint.load()["step"] == 5


def test_where_the_only_checkpoint_is_damaged_there_is_nothing():
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(10, state(10))
    damage_newest(checkpoint)

    assert checkpoint.load() is None


def test_a_damaged_checkpoint_is_set_aside_with_a_line_that_says_so(capsys):
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(10, state(10))
    damage_newest(checkpoint)

    checkpoint.load()

    assert "000000010.pt is damaged (its hash is wrong), set aside as 000000010.damaged" in capsys.readouterr().out
    assert [path.name for path in checkpoint.folder.iterdir()] == ["000000010.damaged"]


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "Input/output error"), RuntimeError("can't allocate memory")]
)
def test_a_checkpoint_that_cannot_be_read_just_now_is_not_called_damaged(monkeypatch, error):
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(5, state(5))

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(type(error)):
            checkpoint.load()

    assert checkpoint.load()["step"] == 5


def test_a_pickle_in_place_of_a_checkpoint_is_never_executed(tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    checkpoint = Checkpoint({"seed": 0})
    checkpoint.folder.mkdir(parents=True)
    payload = pickle.dumps({"step": Trap()}, protocol=2)
    (checkpoint.folder / "000000010.pt").write_bytes(hashlib.sha256(payload).digest() + payload)

    assert checkpoint.load() is None

    assert "damaged" in capsys.readouterr().out
    assert not (tmp_path / "sprung").exists()


def test_any_mutation_of_a_checkpoint_is_noticed(tries, mutations, capsys):
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(10, state(10))
    file = checkpoint.folder / "000000010.pt"
    content = file.read_bytes()
    number = tries("checkpoint file mutated", quick=20, full=100)

    for mutated in mutations(content, number, first=DIGEST_SIZE):
        file.write_bytes(mutated)

        assert checkpoint.load() is None
        assert "damaged" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(monkeypatch):
    checkpoint = Checkpoint({"seed": 0})
    checkpoint.save(5, state(5))

    def full_disk(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        checkpoint.save(10, state(10))

    assert checkpoint.load()["step"] == 5


def test_an_old_checkpoint_that_cannot_be_deleted_ends_no_training(monkeypatch):
    checkpoint = Checkpoint({"seed": 0})

    def in_use(path):
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "unlink", in_use)
    for step in (5, 10, 15, 20):
        checkpoint.save(step, state(step))

    assert checkpoint.load()["step"] == 20


def folder(params=None, manifest=FROM_RANDOM_WEIGHTS, machine=MACHINE, group=None):
    """Where a run keeps its checkpoints."""
    return Checkpoint(run_identity(params or quick_params(), manifest, machine, group or ProcessGroup())).folder


def test_the_same_run_finds_its_folder_again():
    assert folder() == folder(quick_params())


@pytest.mark.parametrize("name", [name for name in QUICK if name not in WITHOUT_EFFECT])
def test_a_run_with_another_parameter_is_another_run(name):
    assert folder(quick_params(**{name: OTHER_VALUES[name]})) != folder()


@pytest.mark.parametrize("name", ["checkpoint_minutes", "false_positive_rate"])
def test_a_run_with_other_values_of_what_training_does_not_depend_on_is_the_same_run(name):
    assert folder(quick_params(**{name: OTHER_VALUES[name]})) == folder()


def test_a_run_that_something_else_starts_is_the_same_run():
    assert folder(quick_params(launcher=OTHER_VALUES["launcher"])) == folder()


def test_a_run_on_other_data_is_another_run():
    one = FROM_RANDOM_WEIGHTS.model_copy(update={"sha256": {"data/file": "a hash"}})
    other = FROM_RANDOM_WEIGHTS.model_copy(update={"sha256": {"data/file": "another hash"}})

    assert folder(manifest=one) != folder(manifest=other)


@pytest.mark.parametrize("library", [torch, torchvision])
def test_a_run_with_another_version_of_a_library_is_another_run(monkeypatch, library):
    before = folder()

    monkeypatch.setattr(library, "__version__", "0.1")

    assert folder() != before


def test_a_run_in_another_precision_is_another_run():
    assert folder(machine=Machine(torch.device("cpu"), torch.bfloat16)) != folder()


def test_a_run_with_other_instructions_of_the_cpu_is_another_run(monkeypatch):
    before = folder()

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")

    assert folder() != before


def test_a_run_on_another_kind_of_processor_is_another_run(monkeypatch):
    before = folder()

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"another": True})

    assert folder() != before


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR"])
def test_a_run_whose_libraries_may_use_fewer_instructions_is_another_run(monkeypatch, variable):
    monkeypatch.delenv(variable, raising=False)
    before = folder()

    monkeypatch.setenv(variable, "AVX2")

    assert folder() != before


def test_a_run_with_another_number_of_threads_is_another_run(monkeypatch):
    before = folder()

    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)

    assert folder() != before


def test_a_run_on_another_gpu_is_another_run(monkeypatch):
    machine = Machine(torch.device("cuda"), torch.float32)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "one GPU")
    before = folder(machine=machine)

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "another GPU")

    assert folder(machine=machine) != before


def test_a_run_of_another_number_of_processes_is_another_run(monkeypatch):
    monkeypatch.setattr(ProcessGroup, "require_same", lambda group, values: None)  # there is no second one here

    assert folder(group=ProcessGroup(0, 2)) != folder(group=ProcessGroup(0, 1))


def test_the_processes_of_a_run_find_the_same_folder(monkeypatch):
    monkeypatch.setattr(ProcessGroup, "require_same", lambda group, values: None)

    assert folder(group=ProcessGroup(1, 2)) == folder(group=ProcessGroup(0, 2))


def test_the_processes_of_a_run_must_compute_in_the_same_precision(monkeypatch):
    compared = []
    monkeypatch.setattr(ProcessGroup, "require_same", lambda group, values: compared.append(values["precision"]))

    for dtype in (torch.float32, torch.bfloat16):
        folder(quick_params(precision="auto"), machine=Machine(torch.device("cpu"), dtype))

    assert compared == ["torch.float32", "torch.bfloat16"]


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of the sources, which a run's identity is taken from."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("src.train.checkpoint.__file__", str(tmp_path / "src/train/checkpoint.py"))
    return tmp_path / "src"


@pytest.mark.parametrize("name", ["train/trainer.py", "resnet/trim.py", "mnist/inputs.py", "pipeline/params.py"])
def test_a_run_of_another_source_is_another_run(sources, name):
    before = folder()

    with (sources / name).open("a") as file:
        file.write("# a change")

    assert folder() != before


def test_a_run_with_one_more_source_is_another_run(sources):
    before = folder()

    (sources / "train/new.py").write_text("")

    assert folder() != before


def test_a_run_after_a_change_of_another_stage_is_the_same_run(sources):
    before = folder()

    (sources / "report/page.py").write_text("")

    assert folder() == before


def test_the_sources_do_not_depend_on_where_they_lie(sources, monkeypatch):
    before = folder()

    monkeypatch.setattr("src.train.checkpoint.__file__", str(ROOT / "src/train/checkpoint.py"))

    assert folder() == before


def test_the_sources_that_count_are_those_that_dvc_looks_at():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    rooms = {path.removeprefix("src/") for path in stages["train"]["deps"] if path.startswith("src/")}

    identity = run_identity(quick_params(), FROM_RANDOM_WEIGHTS, MACHINE, ProcessGroup())

    expected = {path.relative_to(ROOT).as_posix() for room in rooms for path in (ROOT / "src" / room).rglob("*.py")}
    assert {name for name in identity if name.endswith(".py")} == expected
