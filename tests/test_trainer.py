"""Training: its means, its optimizer, its average, and that a run stopped anywhere goes on to the same bits."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.processes import run_processes
from helpers.project import quick_params, slow
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
from torch import nn

from src.pipeline.process import Interrupted, UserError
from src.resnet.inference import to_input
from src.train.batches import Batch
from src.train.checkpoint import Checkpoint
from src.train.processes import ProcessGroup
from src.train.trainer import (
    CHECK_EVERY,
    MeanMetrics,
    Trainer,
    TrainingState,
    average_decay,
    build_optimizer,
    build_schedule,
)

LOOKS = range(1, 15)  # all times that a run of `small_sets` looks for a signal, see StopAt
EACH_STEP = 1e-9  # minutes from one checkpoint to the next
SUM_ROUNDING = 1e-6  # relative, of a sum of ten float32 numbers, each rounded to 6e-8


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


# Means


def test_loss_and_accuracy_are_true_means_over_batches_of_any_size():
    draws = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(10, 10, generator=draws), torch.randint(0, 10, (10,), generator=draws)
    means = MeanMetrics(torch.device("cpu"))

    means.update(logits[:7], labels[:7])
    means.update(logits[7:], labels[7:])

    loss, accuracy = means.compute(ProcessGroup())
    assert loss == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=SUM_ROUNDING)
    assert accuracy == (logits.argmax(1) == labels).sum().item() / 10
    assert means.totals.dtype == torch.float64


# Optimizer, schedule, average


def settings(steps, name, **values) -> list:
    """A setting of the optimizer at each step of a run."""
    params = quick_params(**values)
    optimizer = build_optimizer(params, nn.Linear(1, 1))
    schedule = build_schedule(params, optimizer, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0][name])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_one_asked_for(name, kind):
    optimizer = build_optimizer(quick_params(optimizer=name, lr=0.5, weight_decay=0.25), nn.Linear(1, 1))

    assert type(optimizer) is kind
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.5, 0.25)


def test_one_cycle_rises_over_the_first_three_tenths_and_then_falls_to_nearly_0():
    rates = settings(100, "lr", schedule="one_cycle", lr=0.5)

    assert rates[:30] == sorted(rates[:30])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert max(rates) == pytest.approx(0.5, rel=0.01)  # the peak lies between two steps
    assert 1e-5 < rates[-1] < 1e-3  # it still moves the weights
    for steps in (1, 2, 3):
        assert min(settings(steps, "lr", schedule="one_cycle", lr=0.5)) > 0


@pytest.mark.parametrize(
    ("schedule", "name", "value"),
    [("constant", "lr", 0.5), ("constant", "betas", (0.9, 0.999)), ("one_cycle", "betas", (0.9, 0.999))],
)
def test_the_other_settings_stay_as_they_are(schedule, name, value):
    assert settings(10, name, schedule=schedule, lr=0.5) == [value] * 10


class Watch(StopAt):
    """Calls a function after each step of a run and after each batch of its evaluation."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    @property
    def received(self):
        self._function()


def test_each_step_takes_its_rate_from_the_schedule(digits):
    trainer, rates = new_trainer(digits), []

    trainer.run_epoch(Watch(lambda: rates.append(trainer._state._optimizer.param_groups[0]["lr"])))

    assert rates[:5] == settings(10, "lr")[1:6]  # each after the step before


def test_the_average_starts_with_a_small_decay_and_then_keeps_the_one_asked_for():
    assert [average_decay(0.998, step) for step in (0, 8, 100_000)] == [0.1, 0.5, 0.998]
    assert math.prod(average_decay(0.998, step) for step in range(300)) < 1e-6  # what is left of the first weights


def test_the_model_that_is_saved_is_the_average_of_all_steps_weights_and_statistics(digits):
    averaged, plain = new_trainer(digits, ema_decay=0.3), new_trainer(digits, ema_decay=0.0)
    averaged.run_epoch(StopAt())
    states = []

    def watch():
        model = plain.evaluated_model
        states.append([tensor.detach().clone() for tensor in (model[0].weight, model[1].running_mean)])

    plain.run_epoch(Watch(watch))

    assert averaged.history[0]["train"] == plain.history[0]["train"]  # the average has no part in the training
    model = averaged.evaluated_model
    for number, found in enumerate((model[0].weight.detach(), model[1].running_mean)):
        average = states[0][number]
        for step in range(1, 5):
            decay = average_decay(0.3, step)
            average = decay * average + (1 - decay) * states[step][number]
        torch.testing.assert_close(found, average)


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_the_loss_of_a_step_is_smoothed_as_asked_and_what_is_reported_is_not(digits, smoothing):
    images, labels = map(torch.from_numpy, small_sets(digits)["train"])
    batch = Batch(to_input(images, 28), labels, len(labels))
    logits = small_model()(batch.inputs)
    training = TrainingState(small_params(label_smoothing=smoothing), small_model(), 10, MACHINE, ProcessGroup())

    loss = training.training_step(batch).item()

    assert loss == pytest.approx(F.cross_entropy(logits, labels, label_smoothing=smoothing).item(), rel=1e-5)
    reported = training.totals.compute(ProcessGroup())
    assert reported.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert (loss == pytest.approx(reported.loss, rel=1e-5)) is (smoothing == 0)


# Epochs


def new_trainer(digits, model=None, **values) -> Trainer:
    """A trainer of the small model that has taken no step, with an empty checkpoint."""
    model = model or small_model()
    return Trainer(small_params(**values), model, small_sets(digits), MACHINE, ProcessGroup(), Checkpoint({}))


def test_the_metrics_of_each_set_are_those_of_the_model_that_is_saved_and_are_printed(digits, capsys):
    trainer = new_trainer(digits)

    results = trainer.run_epoch(StopAt())

    assert trainer.history == [results]
    line = capsys.readouterr().out
    assert line.startswith("epoch 1/2: ")
    for name in ("validation", "test"):
        images, labels = map(torch.from_numpy, small_sets(digits)[name])
        logits = trainer.evaluated_model(to_input(images, 28)).double()
        assert results[name].loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)  # fp32's
        assert results[name].accuracy == (logits.argmax(1) == labels).sum().item() / len(labels)
        assert f"{name} loss {results[name].loss:.4f} accuracy {results[name].accuracy:.2%}" in line


def test_the_means_of_each_epoch_are_of_its_own_images(digits, monkeypatch):
    compute, images = MeanMetrics.compute, []
    monkeypatch.setattr(
        MeanMetrics, "compute", lambda self, group: images.append(int(self.totals[2])) or compute(self, group)
    )
    trainer = new_trainer(digits)

    for _ in range(2):
        trainer.run_epoch(StopAt())

    assert images == [75, 21, 20] * 2


@pytest.mark.parametrize(
    ("epochs", "steps", "names"),
    [
        (1.4, 7, ["epoch 1/1.4", "epoch 1.4/1.4"]),  # five steps an epoch
        (0.001, 1, ["epoch 0.001/0.001"]),
        (0.95, 5, ["epoch 0.95/0.95"]),
        (1.05, 5, ["epoch 1/1.05"]),
    ],
)
def test_the_last_epoch_may_be_a_part_of_one(digits, capsys, epochs, steps, names):
    trainer = new_trainer(digits, epochs=epochs)

    while not trainer.done:
        trainer.run_epoch(StopAt())

    assert trainer.total_steps == trainer._state.step == steps
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == names


@pytest.mark.parametrize(
    ("batch_size", "look", "step"),
    [(16, None, 5), (3, None, CHECK_EVERY), (16, 2, 2)],
    ids=["at the end of the epoch", "after so many steps", "before a stop saves it"],
)
def test_a_loss_that_is_no_number_is_an_error_that_leaves_no_checkpoint(digits, batch_size, look, step):
    model = small_model()
    trainer = new_trainer(digits, model, batch_size=batch_size)
    Checkpoint({}).save(0, {})
    with torch.no_grad():
        model[0].weight.fill_(math.nan)

    with pytest.raises(UserError, match=f"the loss is nan after step {step}; .* lr"):
        trainer.run_epoch(StopAt(look))

    assert Checkpoint({}).load() is None
    assert trainer.history == []


def test_a_last_step_that_spoils_the_model_is_an_error(digits, monkeypatch):
    trainer = new_trainer(digits)
    monkeypatch.setattr(
        "src.train.trainer.predict_logits", lambda _, images, *__: torch.full((len(images), 10), torch.nan)
    )

    with pytest.raises(UserError, match="the loss is nan after step 5"):
        trainer.run_epoch(StopAt())

    assert trainer.history == []


# Stopped, killed, resumed


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    """What an undisturbed run ends with."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("undisturbed")))
        return train_to_the_end(small_params(), small_sets(digits), ProcessGroup(), Checkpoint({}), StopAt())


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(("kills", "minutes"), [(False, 60), (True, EACH_STEP)])
def test_a_run_that_is_disturbed_anywhere_and_goes_on_ends_with_the_same_bits(
    digits, undisturbed, capsys, look, kills, minutes
):
    params, sets = small_params(checkpoint_minutes=minutes), small_sets(digits)
    with pytest.raises(Killed if kills else Interrupted) as stopped:
        train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt(look, kills=kills))
    done = (Checkpoint({}).load() or {"step": 0})["step"]
    assert kills or (stopped.value.exit_code == 128 + 15 and f"step {done} is saved" in str(stopped.value))

    result = train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt())

    assert differences(result, undisturbed) == []
    assert (f"from step {done} of 10" in capsys.readouterr().out) is (done > 0)


@pytest.mark.parametrize("values", [{"ema_decay": 0.0, "schedule": "constant"}, {"epochs": 1.4}])
@pytest.mark.parametrize("look", [3, 6, 9])
def test_a_run_without_an_average_or_of_a_part_of_an_epoch_goes_on_to_the_same_bits_too(digits, values, look):
    params, sets = small_params(**values), small_sets(digits)
    undisturbed = train_to_the_end(params, sets, ProcessGroup(), Checkpoint({"run": 1}), StopAt())
    with pytest.raises(Interrupted):
        train_to_the_end(params, sets, ProcessGroup(), Checkpoint({"run": 2}), StopAt(look))

    result = train_to_the_end(params, sets, ProcessGroup(), Checkpoint({"run": 2}), StopAt())

    assert differences(result, undisturbed) == []


@pytest.mark.parametrize(("minutes", "saves"), [(EACH_STEP, [1, 2, 3, 4, 5, 5]), (60, [5])])
def test_a_checkpoint_is_saved_when_it_is_due_and_before_each_evaluation(digits, monkeypatch, minutes, saves):
    trainer = new_trainer(digits, checkpoint_minutes=minutes)
    saved_steps = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, step, state: saved_steps.append(step))

    trainer.run_epoch(StopAt())

    assert saved_steps == saves  # with EACH_STEP after each step as well


def test_where_no_checkpoint_can_be_written_training_goes_on_and_a_stop_says_that_nothing_is_saved(
    digits, monkeypatch, capsys
):
    def cannot_be_written(*_):
        raise UserError("can't write the checkpoint: No space left on device")

    monkeypatch.setattr(Checkpoint, "save", cannot_be_written)
    trainer = new_trainer(digits)

    trainer.run_epoch(StopAt())
    with pytest.raises(Interrupted, match="NOT saved"):
        trainer.run_epoch(StopAt(2))

    assert len(trainer.history) == 1
    assert "warning: can't write the checkpoint: No space left on device" in capsys.readouterr().err


# Several processes


def disturb_processes(group, sets, folder, looks):
    """In one of several processes: train undisturbed, then with each disturbance; list where the ends differ."""
    params = small_params(checkpoint_minutes=EACH_STEP)
    found = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(folder))
        undisturbed = train_to_the_end(params, sets, group, Checkpoint({}), StopAt())
        for look in looks:
            for kills in (False, True):
                checkpoint = Checkpoint({"look": look, "kills": kills})
                stop = StopAt(look if kills or group.rank == 1 else None, kills=kills)  # one alone gets the SIGTERM
                with pytest.raises(Killed if kills else Interrupted):
                    train_to_the_end(params, sets, group, checkpoint, stop)
                result = train_to_the_end(params, sets, group, checkpoint, StopAt())
                found[look, kills] = differences(result, undisturbed)
    return found


@pytest.mark.parametrize(("count", "looks"), [(2, (3, 6)), slow(3, (3,)), slow(4, (1, 5, 8, 14))])
def test_processes_that_are_stopped_or_killed_end_with_the_same_bits(digits, tmp_path, count, looks):
    found = run_processes(count, tmp_path, disturb_processes, small_sets(digits), tmp_path, looks)

    for of_process in found:
        assert of_process == {(look, kills): [] for look in looks for kills in (False, True)}


def save_where_mains_is_not_due(group, sets, folder):
    """In one of several processes: which steps it saves where a checkpoint is due in all but the main one."""
    saves = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(folder))
        monkeypatch.setattr(Checkpoint, "save", lambda self, step, state: saves.append(step))
        monkeypatch.setattr(Checkpoint, "age", 0 if group.is_main else math.inf)  # it never saves, so it grows
        train_to_the_end(small_params(epochs=1), sets, group, Checkpoint({}), StopAt())
    return saves


def test_the_main_process_alone_saves_and_when_its_own_checkpoint_is_due(digits, tmp_path):
    assert run_processes(2, tmp_path, save_where_mains_is_not_due, small_sets(digits), tmp_path) == [[5], []]
