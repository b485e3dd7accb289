"""The trainer: a run that is stopped or killed anywhere goes on to the same bits, and ends in good order."""

import math
import time

import pytest
import torch
import torch.nn.functional as F
from helpers.processes import run_processes
from helpers.project import slow
from helpers.training import (
    MACHINE,
    Killed,
    StopAt,
    differences,
    small_model,
    small_params,
    small_sets,
    train_to_the_end,
)

from src.resnet.inference import to_input
from src.pipeline.process import Interrupted, UserError
from src.train.batches import Batch
from src.train.checkpoint import Checkpoint
from src.train.processes import ProcessGroup
from src.train.trainer import TrainingState
from src.train.trainer import Trainer

LOOKS = range(1, 15)  # all times that a run of `small_sets` looks for a signal, see StopAt
EACH_STEP = 1e-9  # minutes from one checkpoint to the next


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two threads would wait for each other most of the time, for a model this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def checkpoints_in_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    """What an undisturbed run ends with."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("undisturbed")))
        return train_to_the_end(small_params(), small_sets(digits), ProcessGroup(), Checkpoint({}), StopAt())


def new_trainer(digits, **values) -> Trainer:
    """A trainer of the small model that has taken no step, with an empty checkpoint."""
    trainer = Trainer(small_params(**values), small_model(), small_sets(digits), MACHINE, ProcessGroup())
    trainer.resume(Checkpoint({}))
    return trainer


@pytest.mark.parametrize("look", LOOKS)
def test_a_run_that_is_stopped_anywhere_and_goes_on_ends_with_the_same_bits(digits, undisturbed, look):
    params, sets = small_params(), small_sets(digits)
    with pytest.raises(Interrupted):
        train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt(look))

    result = train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt())

    assert differences(result, undisturbed) == []


@pytest.mark.parametrize("minutes", [EACH_STEP, 60])
@pytest.mark.parametrize("look", LOOKS)
def test_a_run_that_is_killed_anywhere_and_goes_on_ends_with_the_same_bits(digits, undisturbed, look, minutes):
    params, sets = small_params(checkpoint_minutes=minutes), small_sets(digits)
    with pytest.raises(Killed):
        train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt(look, kills=True))

    result = train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt())

    assert differences(result, undisturbed) == []


def test_a_run_without_an_average_goes_on_to_the_same_bits_too(digits):
    params, sets = small_params(ema_decay=0.0, schedule="constant"), small_sets(digits)
    undisturbed = train_to_the_end(params, sets, ProcessGroup(), Checkpoint({"run": 1}), StopAt())
    with pytest.raises(Interrupted):
        train_to_the_end(params, sets, ProcessGroup(), Checkpoint({"run": 2}), StopAt(3))

    result = train_to_the_end(params, sets, ProcessGroup(), Checkpoint({"run": 2}), StopAt())

    assert differences(result, undisturbed) == []


@pytest.mark.parametrize("part", ["model", "averaged", "optimizer", "scheduler", "totals"])
def test_a_part_of_the_state_that_did_not_come_back_would_be_noticed(digits, undisturbed, monkeypatch, part):
    params, sets = small_params(), small_sets(digits)
    with pytest.raises(Interrupted):
        train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt(3))
    load_all = TrainingState.load_state_dict

    def load_all_but_one(self, state):
        load_all(self, state | {part: self.state_dict()[part]})

    monkeypatch.setattr(TrainingState, "load_state_dict", load_all_but_one)
    result = train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt())

    assert differences(result, undisturbed) != []


def disturb_processes(group, sets, folder, looks):
    """In one of several processes: train undisturbed, then with each disturbance; list where the ends differ."""
    params = small_params(checkpoint_minutes=EACH_STEP)
    found = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(folder))
        undisturbed = train_to_the_end(params, sets, group, Checkpoint({}), StopAt())
        for look in looks:
            checkpoint = Checkpoint({"stopped at": look})
            stop = StopAt(look if group.rank == 1 else None)  # one process alone gets the signal
            with pytest.raises(Interrupted):
                train_to_the_end(params, sets, group, checkpoint, stop)
            result = train_to_the_end(params, sets, group, checkpoint, StopAt())
            found[f"stopped at {look}"] = differences(result, undisturbed)

            checkpoint = Checkpoint({"killed at": look})
            with pytest.raises(Killed):
                train_to_the_end(params, sets, group, checkpoint, StopAt(look, kills=True))
            result = train_to_the_end(params, sets, group, checkpoint, StopAt())
            found[f"killed at {look}"] = differences(result, undisturbed)
    return found


@pytest.mark.parametrize(("count", "looks"), [(2, (3, 6)), (3, (3,)), slow(2, (1, 5, 8, 14)), slow(4, (1, 5, 8, 14))])
def test_processes_that_are_stopped_or_killed_end_with_the_same_bits(digits, tmp_path, count, looks):
    found = run_processes(count, tmp_path, disturb_processes, small_sets(digits), tmp_path, looks)

    for of_process in found:
        assert not any(of_process.values()), of_process
        assert len(of_process) == 2 * len(looks)


def test_a_run_that_goes_on_says_where(digits, capsys):
    params, sets = small_params(), small_sets(digits)
    with pytest.raises(Interrupted):
        train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt(3))

    train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt())

    assert "train: going on from step 3 of 10, where a run stopped" in capsys.readouterr().out


def test_a_stop_says_which_step_is_saved_and_ends_as_a_signal_does(digits):
    trainer = new_trainer(digits)

    with pytest.raises(Interrupted) as stopped:
        trainer.run_epoch(StopAt(4))

    assert str(stopped.value) == "step 4 is saved; run the same command again to go on from there"
    assert stopped.value.exit_code == 128 + 15


@pytest.mark.parametrize(("minutes", "saves"), [(EACH_STEP, [1, 2, 3, 4, 5, 5]), (60, [5])])
def test_a_checkpoint_is_saved_when_it_is_due_and_before_each_evaluation(digits, monkeypatch, minutes, saves):
    trainer = new_trainer(digits, checkpoint_minutes=minutes)
    saved_steps = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, step, state: saved_steps.append(step))

    trainer.run_epoch(StopAt())

    assert saved_steps == saves  # with EACH_STEP after each step as well


def count_saves(group, sets, folder):
    """In one of two processes, in each of which a checkpoint is due at first: how often it is saved in two epochs."""
    saves = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(folder))
        monkeypatch.setattr(time, "monotonic", lambda: -7200.0)
        checkpoint = Checkpoint({})
        monkeypatch.undo()
        monkeypatch.setenv("DVC_ROOT", str(folder))
        save = Checkpoint.save
        monkeypatch.setattr(Checkpoint, "save", lambda *arguments: saves.append(arguments[1]) or save(*arguments))
        train_to_the_end(small_params(checkpoint_minutes=60), sets, group, checkpoint, StopAt())
    return saves


def test_a_checkpoint_that_was_due_in_both_of_two_processes_is_saved_once(digits, tmp_path):
    saves, none = run_processes(2, tmp_path, count_saves, small_sets(digits), tmp_path)

    assert saves == [1, 5, 10]  # when it was due, and at the end of each epoch
    assert none == []


def cannot_be_written(*_):
    raise UserError("can't write the checkpoint: No space left on device")


def test_training_goes_on_where_no_checkpoint_can_be_written(digits, monkeypatch, capsys):
    monkeypatch.setattr(Checkpoint, "save", cannot_be_written)
    trainer = new_trainer(digits)

    trainer.run_epoch(StopAt())

    assert len(trainer.history) == 1
    assert "warning: can't write the checkpoint: No space left on device" in capsys.readouterr().err


def test_a_stop_does_not_say_that_a_step_is_saved_where_it_is_not(digits, monkeypatch):
    monkeypatch.setattr(Checkpoint, "save", cannot_be_written)
    trainer = new_trainer(digits)

    with pytest.raises(Interrupted, match="NOT saved"):
        trainer.run_epoch(StopAt(2))


def test_a_loss_that_is_no_number_is_an_error_that_leaves_no_checkpoint(digits, tmp_path):
    model = small_model()
    trainer = Trainer(small_params(), model, small_sets(digits), MACHINE, ProcessGroup())
    checkpoint = Checkpoint({})
    checkpoint.save(0, {})
    trainer.resume(checkpoint)
    with torch.no_grad():
        model[0].weight.fill_(math.nan)

    with pytest.raises(UserError, match="the loss is nan after step 5; try a smaller lr"):
        trainer.run_epoch(StopAt())

    assert checkpoint.load() is None


def test_a_last_step_that_makes_the_model_say_nothing_is_an_error(digits, monkeypatch):
    trainer = new_trainer(digits)
    monkeypatch.setattr(
        "src.train.trainer.predict_logits", lambda _, images, *__: torch.full((len(images), 10), torch.nan)
    )

    with pytest.raises(UserError, match="the loss is nan after step 5; try a smaller lr"):
        trainer.run_epoch(StopAt())

    assert trainer.history == []


def test_an_epochs_line_has_the_metrics_of_each_set(digits, capsys):
    trainer = new_trainer(digits)

    results = trainer.run_epoch(StopAt())

    line = capsys.readouterr().out
    assert line.startswith("epoch 1/2: train loss ")
    for name in ("train", "validation", "test"):
        assert f"{name} loss {results[name].loss:.4f} accuracy {results[name].accuracy:.2%}" in line


def test_the_last_epoch_may_be_a_part_of_one(digits, capsys):
    trainer = new_trainer(digits, epochs=1.4)  # five steps an epoch

    while not trainer.done:
        trainer.run_epoch(StopAt())

    assert (trainer.total_steps, trainer._state.step, len(trainer.history)) == (7, 7, 2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/1.4", "epoch 1.4/1.4"]


@pytest.mark.parametrize(("epochs", "steps"), [(0.001, 1), (0.95, 5), (1.05, 5)])
def test_a_part_of_a_step_is_none_unless_it_is_all_there_is(digits, epochs, steps):
    trainer = new_trainer(digits, epochs=epochs)

    trainer.run_epoch(StopAt())

    assert (trainer._state.step, trainer.done) == (steps, True)


@pytest.mark.parametrize("look", [6, 8, 9, 10])
def test_a_part_of_an_epoch_that_is_killed_goes_on_to_the_same_bits(digits, look):
    params, sets, group = small_params(epochs=1.4), small_sets(digits), ProcessGroup()
    undisturbed = train_to_the_end(params, sets, group, Checkpoint({"undisturbed": True}), StopAt())
    killed = Checkpoint({"killed": True})
    with pytest.raises(Killed):
        train_to_the_end(params, sets, group, killed, StopAt(look, kills=True))

    again = train_to_the_end(params, sets, group, killed, StopAt())

    assert differences(again, undisturbed) == []


def test_a_process_that_is_not_the_main_one_prints_nothing(digits, capsys):
    trainer = Trainer(small_params(), small_model(), small_sets(digits), MACHINE, ProcessGroup())
    trainer._group.rank = 1

    trainer.say("a line")

    assert capsys.readouterr().out == ""


def test_the_metrics_of_the_test_set_are_those_of_the_model_that_is_saved(digits):
    trainer = new_trainer(digits)
    images, labels = small_sets(digits)["test"]

    loss, accuracy = trainer.run_epoch(StopAt())["test"]

    logits = trainer.evaluated_model(to_input(images, 28)).double()
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)  # the logits are fp32
    assert accuracy == (logits.argmax(1) == labels).sum().item() / 20


def test_the_model_that_is_saved_is_the_average_of_all_steps_weights(digits):
    averaged, plain = new_trainer(digits, ema_decay=0.3), new_trainer(digits, ema_decay=0.0)
    averaged.run_epoch(StopAt())
    weights = []

    class Watch(StopAt):
        """Looks at the weights after each step, as it is asked then whether to stop."""

        @property
        def received(self):
            weights.append(plain.evaluated_model[0].weight.detach().clone())

    plain.run_epoch(Watch())

    assert averaged.history[0]["train"] == plain.history[0]["train"]  # the average has no part in the training
    average = weights[0]
    for step in range(1, 5):
        decay = min(0.3, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights[step]
    torch.testing.assert_close(averaged.evaluated_model[0].weight.detach(), average)


def test_the_loss_of_a_step_is_smoothed_as_asked(digits):
    images, labels = small_sets(digits)["train"]
    batch = Batch(to_input(images, 28), labels, len(labels))
    logits = small_model()(batch.inputs).float()

    loss = TrainingState(small_params(label_smoothing=0.25), small_model(), 10, MACHINE, ProcessGroup()).training_step(
        batch
    )

    assert loss.item() == pytest.approx(F.cross_entropy(logits, labels, label_smoothing=0.25).item(), rel=1e-5)
    assert loss.item() != pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-3)
