"""Checkpoints belong to one run, and are whole or not there."""

import hashlib
import os
import pickle
import time
from pathlib import Path

import pytest
import torch
import torchvision
from helpers.project import QUICK, quick_params
from helpers.training import FROM_RANDOM_WEIGHTS, MACHINE
from helpers.values import OTHER_VALUES

from src.resnet.machine import Machine
from src.train import checkpoint as module
from src.train.checkpoint import CPU_VARIABLES, DIGEST_SIZE, Checkpoint, run_identity
from src.train.processes import ProcessGroup


@pytest.fixture(autouse=True)
def project_folder(tmp_path, monkeypatch):
    """The working folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)


def state(step: int) -> dict:
    """A state like those of training: plain values and tensors."""
    return {"step": step, "weights": torch.full((3,), float(step)), "history": [{"train": (0.5, 0.9)}]}


def saved(*steps: int) -> Checkpoint:
    """The checkpoint of a run that has saved its state at these steps."""
    checkpoint = Checkpoint({"seed": 0})
    for step in steps:
        checkpoint.save(step, state(step))
    return checkpoint


def names(checkpoint: Checkpoint) -> list[str]:
    """The names of a run's files."""
    return sorted(path.name for path in checkpoint.folder.iterdir())


def test_the_newest_state_comes_back_and_the_last_two_are_kept():
    saved(5, 10, 100)

    loaded = Checkpoint({"seed": 0}).load()

    assert loaded | {"weights": loaded["weights"].tolist()} == state(100) | {"weights": [100, 100, 100]}
    assert names(Checkpoint({"seed": 0})) == ["000000010.pt", "000000100.pt"]


def test_an_experiment_in_a_folder_of_its_own_finds_the_projects_checkpoints(tmp_path, monkeypatch):
    saved(5)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # as DVC does for `dvc exp run --temp` and the queue

    assert Checkpoint({"seed": 0}).load()["step"] == 5


def test_the_age_is_the_time_since_the_start_or_the_last_save(monkeypatch):
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    checkpoint = Checkpoint({"seed": 0})

    clock = 1007.0
    before = checkpoint.age
    checkpoint.save(5, state(5))
    clock = 1010.0

    assert (before, checkpoint.age) == (7, 3)


@pytest.mark.parametrize(("steps", "loaded"), [((5, 10), 5), ((10,), None)])
def test_a_damaged_checkpoint_is_set_aside_with_a_line_and_the_one_before_is_taken(capsys, steps, loaded):
    checkpoint = saved(*steps)
    newest = checkpoint.folder / "000000010.pt"
    newest.write_bytes(newest.read_bytes()[:-1])

    found = checkpoint.load()

    assert (found["step"] if found else None) == loaded
    assert f"{newest} is damaged" in capsys.readouterr().out
    assert "000000010.damaged" in names(checkpoint)
    assert "000000010.pt" not in names(checkpoint)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "Input/output error"), RuntimeError("can't allocate memory")]
)
def test_a_checkpoint_that_cannot_be_read_just_now_is_not_called_damaged(monkeypatch, error):
    checkpoint = saved(5)

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

    checkpoint = saved(10)
    payload = pickle.dumps({"step": Trap()}, protocol=2)
    (checkpoint.folder / "000000010.pt").write_bytes(hashlib.sha256(payload).digest() + payload)

    assert checkpoint.load() is None

    assert "damaged" in capsys.readouterr().out
    assert not (tmp_path / "sprung").exists()


def test_any_mutation_of_a_checkpoint_is_noticed(tries, mutations, capsys):
    checkpoint = saved(10)
    file = checkpoint.folder / "000000010.pt"
    number = tries("checkpoint file mutated", quick=20, full=100)

    for mutated in mutations(file.read_bytes(), number, first=DIGEST_SIZE):
        file.write_bytes(mutated)

        assert checkpoint.load() is None
        assert "damaged" in capsys.readouterr().out


def test_an_old_checkpoint_that_cannot_be_deleted_ends_no_training(monkeypatch):
    def in_use(path):
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "unlink", in_use)

    assert saved(5, 10, 15, 20).load()["step"] == 20


# The run that a checkpoint belongs to


def folder(params=None, manifest=FROM_RANDOM_WEIGHTS, machine=MACHINE, group=None) -> Path:
    """Where a run keeps its checkpoints."""
    return Checkpoint(run_identity(params or quick_params(), manifest, machine, group or ProcessGroup())).folder


@pytest.mark.parametrize("name", QUICK)
def test_a_run_with_another_parameter_is_another_run_where_training_depends_on_it(name):
    other = quick_params(**{name: OTHER_VALUES[name]})

    assert (folder(other) == folder(quick_params())) is (name in {"checkpoint_minutes", "launcher"})


@pytest.mark.parametrize(
    "other",
    [
        {"manifest": FROM_RANDOM_WEIGHTS.model_copy(update={"sha256": {"data/file": "another hash"}})},
        {"machine": Machine(torch.device("cpu"), torch.bfloat16)},
        {"group": ProcessGroup(0, 2)},
        (torch, "__version__", "0.1"),
        (torchvision, "__version__", "0.1"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "another"),
        (torch.cpu, "get_capabilities", lambda: {"another": True}),
        (torch, "get_num_threads", lambda: 99),
        "ONEDNN_MAX_CPU_ISA",
        "DNNL_MAX_CPU_ISA",
        "MKL_CBWR",
    ],
    ids=str,
)
def test_a_run_on_other_data_by_other_libraries_or_on_another_machine_is_another_run(monkeypatch, other):
    monkeypatch.setattr(ProcessGroup, "require_same", lambda group, values: None)  # there is no second one here
    for variable in CPU_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    before, arguments = folder(), {}

    match other:
        case dict():
            arguments = other
        case str():
            monkeypatch.setenv(other, "AVX2")
        case _:
            monkeypatch.setattr(*other)

    assert folder(**arguments) != before


def test_how_many_processors_there_are_makes_no_other_run(monkeypatch):
    before = folder()
    capabilities = torch.cpu.get_capabilities()

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities | {"num_cores": 999})

    assert folder() == before


def test_a_run_of_other_sources_is_another_run_wherever_they_lie(tmp_path, monkeypatch):
    folders = []
    for place, content in (("one", "x = 1"), ("two", "x = 1"), ("three", "x = 2")):
        source = tmp_path / place / "src/train/trainer.py"
        source.parent.mkdir(parents=True)
        source.write_text(content)
        monkeypatch.setattr(module, "ROOT", tmp_path / place)
        monkeypatch.setattr(module, "imported_sources", lambda source=source: [source])
        folders.append(folder())

    assert folders[0] == folders[1] != folders[2]


def test_the_processes_of_a_run_find_the_same_folder_and_must_compute_in_the_same_precision(monkeypatch):
    compared = []
    monkeypatch.setattr(ProcessGroup, "require_same", lambda group, values: compared.append(values))

    assert folder(group=ProcessGroup(1, 2)) == folder(group=ProcessGroup(0, 2))

    folder(machine=Machine(torch.device("cpu"), torch.bfloat16))
    assert [values["precision"] for values in compared] == ["torch.float32", "torch.float32", "torch.bfloat16"]
    assert all(values["lr"] == QUICK["lr"] and values["torch"] == torch.__version__ for values in compared)
