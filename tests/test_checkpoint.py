"""Checkpoints belong to one run, and are whole or not there."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from helpers.project import QUICK, quick_params
from helpers.training import FROM_RANDOM_WEIGHTS, MACHINE

from src.pipeline.process import UserError
from src.resnet.machine import Machine
from src.train import checkpoint as module
from src.train.checkpoint import DIGEST_SIZE, Checkpoint, run_identity
from src.train.processes import ProcessGroup


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """The working folder is an experiment's, beside the project, as for `dvc exp run --temp` and the queue."""
    (tmp_path / "experiment").mkdir()
    monkeypatch.chdir(tmp_path / "experiment")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def saved(*steps: int) -> Checkpoint:
    """The checkpoint of a run that has saved its state at these steps: plain values and tensors."""
    checkpoint = Checkpoint({"seed": 0})
    for step in steps:
        state = {"step": step, "weights": torch.full((3,), float(step)), "history": [{"train": (0.5, 0.9)}]}
        checkpoint.save(step, state)
    return checkpoint


def test_the_newest_state_comes_back_and_the_last_two_are_kept_in_the_project(tmp_path):
    saved(5, 10, 100)

    loaded = Checkpoint({"seed": 0}).load()

    assert loaded.pop("weights").tolist() == [100, 100, 100]
    assert loaded == {"step": 100, "history": [{"train": (0.5, 0.9)}]}
    (run,) = (tmp_path / ".dvc/tmp/checkpoints").iterdir()
    assert sorted(path.name for path in run.iterdir()) == ["000000010.pt", "000000100.pt"]


class Trap:
    def __reduce__(self):
        return open, ("sprung", "w")


TRAP = pickle.dumps({"step": Trap()}, protocol=2)


@pytest.mark.parametrize(("digest", "payload"), [(bytes(DIGEST_SIZE), None), (hashlib.sha256(TRAP).digest(), TRAP)])
def test_a_checkpoint_that_is_damaged_or_a_pickle_is_set_aside_and_the_one_before_is_taken(capsys, digest, payload):
    checkpoint = saved(5, 10)
    newest = checkpoint.folder / "000000010.pt"
    newest.write_bytes(digest + (payload or newest.read_bytes()[DIGEST_SIZE:]))

    assert checkpoint.load()["step"] == 5

    assert f"{newest} is damaged" in capsys.readouterr().out
    assert newest.with_suffix(".damaged").exists()
    assert not newest.exists()
    assert not Path("sprung").exists()


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_a_checkpoint_that_cannot_be_read_just_now_is_not_called_damaged(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    checkpoint = saved(5)

    with pytest.raises(type(error)):
        checkpoint.load()

    assert (checkpoint.folder / "000000005.pt").exists()


# The run that a checkpoint belongs to


class Pair(ProcessGroup):
    """Two processes; what the second has otherwise than this one is given."""

    def __init__(self, **differing: object) -> None:
        super().__init__(0, 2)
        self._differing = differing

    def all_gather(self, value: dict) -> list[dict]:
        return [value, value | {name: self._differing[name] for name in value.keys() & self._differing}]


def folder(params=None, manifest=FROM_RANDOM_WEIGHTS, machine=MACHINE, group=None) -> Path:
    """Where a run of two processes keeps its checkpoints."""
    return Checkpoint(run_identity(params or quick_params(), manifest, machine, group or Pair())).folder


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_run_with_another_parameter_is_another_run_where_training_depends_on_it():
    others = {name: folder(quick_params().model_copy(update={name: "another"})) for name in QUICK}

    before = folder()
    assert {name for name, other in others.items() if other == before} == {"checkpoint_minutes", "launcher"}


OTHER_RUNS = {
    "data": {"manifest": FROM_RANDOM_WEIGHTS.model_copy(update={"sha256": {"data/file": "another hash"}})},
    "precision": {"machine": Machine(torch.device("cpu"), torch.bfloat16)},
    "number of processes": {"group": ProcessGroup()},
    "the other's processor": {"group": Pair(processor="another")},
    "the other's machine": {"group": Pair(machine="another")},
    "torch": (torch, "__version__", "0.1"),
    "torchvision": (torchvision, "__version__", "0.1"),
    "instructions": (torch.backends.cpu, "get_cpu_capability", lambda: "another"),
    "processor": (torch.cpu, "get_capabilities", lambda: {"another": True}),
    "threads": (torch, "get_num_threads", lambda: 99),
}


@pytest.mark.parametrize("other", OTHER_RUNS.values(), ids=OTHER_RUNS)
def test_a_run_on_other_data_by_other_libraries_or_on_another_machine_is_another_run(monkeypatch, other):
    before = folder()
    if isinstance(other, tuple):
        monkeypatch.setattr(*other)

    assert folder(**other if isinstance(other, dict) else {}) != before


def test_a_run_of_other_sources_is_another_run_wherever_they_lie(tmp_path, monkeypatch):
    folders = []
    for place, content in (("one", "x = 1"), ("two", "x = 1"), ("three", "x = 2")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "trainer.py").write_text(content)
        monkeypatch.setattr(module, "ROOT", tmp_path / place)
        monkeypatch.setattr(module, "imported_sources", lambda: list(module.ROOT.iterdir()))
        folders.append(folder())

    assert folders[0] == folders[1] != folders[2]


@pytest.mark.parametrize("name", ["lr", "torch", "precision"])
def test_the_processes_of_a_run_must_agree_on_parameters_libraries_and_precision(name):
    with pytest.raises(UserError, match=f"process 1 .* {name}$"):
        folder(group=Pair(**{name: "another"}))
