"""Training: its means, its optimizer, its average, and that a run stopped anywhere goes on to the same bits."""

import copy
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers.processes import run_processes
from helpers.project import quick_params, slow
from helpers.training import MACHINE, MNIST_INPUT, Killed, StopAt, differences, small_model, small_params, small_sets
from torch import nn

from src.pipeline.process import Interrupted, UserError
from src.resnet.inference import to_input
from src.train.batches import Batch
from src.train.checkpoint import Checkpoint
from src.train.processes import ProcessGroup
from src.train.trainer import Trainer, TrainingState, average_decay, build_optimizer, build_schedule

# The times that 1.4 epochs of `small_sets` look for a signal, see StopAt. First those after an epoch's first and last
# step, its statistics and its last evaluation, after a step of the second epoch and at its end.
LOOKS = [1, 5, 6, 8, 9, 13, *map(slow, (2, 3, 4, 7, 10, 11, 12))]
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


# Optimizer, schedule, average


def settings(steps, name, **values) -> list:
    params = quick_params(**values)
    optimizer = build_optimizer(params, nn.Linear(1, 1))
    schedule = build_schedule(params, optimizer, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0][name])
        optimizer.step()
        schedule.step()
    return found


def test_one_cycle_rises_over_the_first_three_tenths_and_then_falls_to_nearly_0():
    rates = settings(100, "lr", schedule="one_cycle", lr=0.5)

    assert rates[:30] == sorted(rates[:30])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert max(rates) == pytest.approx(0.5, rel=0.01)  # the peak lies between two steps
    assert 1e-5 < rates[-1] < 1e-3  # it still moves the weights
    assert min(settings(1, "lr", schedule="one_cycle", lr=0.5)) > 0


def test_the_optimizer_and_its_settings_are_those_asked_for():
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        assert type(build_optimizer(quick_params(optimizer=name), nn.Linear(1, 1))) is kind
    assert settings(1, "weight_decay", weight_decay=0.25) == [0.25]
    assert settings(10, "lr", schedule="constant", lr=0.5) == [0.5] * 10
    assert settings(10, "betas", schedule="one_cycle") == [(0.9, 0.999)] * 10


def new_state(**values) -> TrainingState:
    """The state of a run of the small model over ten steps, none of them taken."""
    return TrainingState(small_params(**values), small_model(), 10, MACHINE, ProcessGroup())


@pytest.fixture(scope="module")
def batch(digits):
    train = small_sets(digits)["train"]
    images, labels = map(torch.from_numpy, (train.images, train.labels))
    return Batch(to_input(images, MNIST_INPUT), labels, len(labels))


def test_each_step_takes_its_rate_from_the_schedule(batch):
    training, rates = new_state(), []

    for _ in range(5):
        training.training_step(batch)
        rates.append(training._optimizer.param_groups[0]["lr"])

    assert rates == settings(10, "lr")[1:6]  # each after the step before


def test_the_average_starts_with_a_small_decay_and_then_keeps_the_one_asked_for():
    assert [average_decay(0.998, step) for step in (0, 8, 100_000)] == [0.1, 0.5, 0.998]
    assert math.prod(average_decay(0.998, step) for step in range(300)) < 1e-6  # what is left of the first weights


def test_the_model_that_is_saved_is_the_average_of_all_steps_weights(batch):
    name, averaged, plain = "0.weight", new_state(ema_decay=0.3), new_state(ema_decay=0.0)
    expected = 0

    for step in range(5):
        averaged.training_step(batch)
        plain.training_step(batch)
        decay = average_decay(0.3, step) if step else 0  # of the first weights nothing is left
        expected = decay * expected + (1 - decay) * plain.evaluated_model([]).state_dict()[name]

    torch.testing.assert_close(averaged.evaluated_model([]).state_dict()[name], expected)


def test_the_average_has_statistics_of_its_own_on_plain_inputs_and_the_run_goes_on_as_if_it_had_not(batch):
    training, plain_inputs = new_state(), [batch.inputs[:40], batch.inputs[40:]]
    training.training_step(batch)
    before = copy.deepcopy(training.state_dict())

    model = training.evaluated_model(plain_inputs)

    maps = [model[0](inputs) for inputs in plain_inputs]  # what batch normalisation sees
    for found, statistic in ((model[1].running_mean, torch.mean), (model[1].running_var, torch.var)):
        expected = torch.stack([statistic(each, dim=(0, 2, 3)) for each in maps]).mean(0)
        torch.testing.assert_close(found, expected)
    assert differences(training.state_dict(), before) == []


def test_without_an_average_the_models_running_statistics_stay(batch):
    training = new_state(ema_decay=0.0)
    training.training_step(batch)

    model = training.evaluated_model([batch.inputs])

    assert differences(model.state_dict(), training.state_dict()["model"]) == []


def test_the_loss_of_a_step_is_smoothed_as_asked_and_what_is_reported_is_not(batch):
    logits = small_model()(batch.inputs)
    training = new_state(label_smoothing=0.25)

    loss = training.training_step(batch).item()

    smoothed, plain = (F.cross_entropy(logits, batch.labels, label_smoothing=value).item() for value in (0.25, 0))
    assert loss == pytest.approx(smoothed, rel=1e-5)
    assert training.totals.compute(ProcessGroup()).loss == pytest.approx(plain, rel=1e-5)
    assert loss != pytest.approx(plain, rel=1e-5)


# Epochs


def new_trainer(digits, model=None, **values) -> Trainer:
    """A trainer of the small model that has taken no step, with an empty checkpoint."""
    model = model or small_model()
    return Trainer(
        small_params(**values), MNIST_INPUT, model, small_sets(digits), MACHINE, ProcessGroup(), Checkpoint({})
    )


def test_the_metrics_of_each_set_are_means_over_its_images_by_the_model_that_is_saved(digits, monkeypatch):
    monkeypatch.setattr("src.resnet.inference.BATCH_PIXELS", 11 * 28 * 28)  # evaluated in batches of two sizes
    trainer = new_trainer(digits)

    results = trainer.run_epoch(StopAt())

    assert trainer.state.history == [results]
    assert not trainer.state.totals.totals.any()  # the next epoch's means are of its own images
    assert trainer.state.totals.totals.dtype == torch.float64
    for name in ("validation", "test"):
        data = small_sets(digits)[name]
        images, labels = map(torch.from_numpy, (data.images, data.labels))
        logits = trainer.model(to_input(images, MNIST_INPUT)).double()
        assert results[name].loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)  # fp32's
        assert results[name].accuracy == (logits.argmax(1) == labels).sum().item() / len(labels)


@pytest.mark.parametrize(
    ("epochs", "steps", "names"),  # of five steps an epoch
    [(1.4, 7, ["epoch 1/1.4", "epoch 1.4/1.4"]), (0.001, 1, ["epoch 0.001/0.001"]), (0.95, 5, ["epoch 0.95/0.95"])],
)
def test_the_last_epoch_may_be_a_part_of_one(digits, capsys, epochs, steps, names):
    trainer = new_trainer(digits, epochs=epochs)

    while not trainer.done:
        trainer.run_epoch(StopAt())

    assert trainer.total_steps == trainer.state.step == steps
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == names


@pytest.mark.parametrize(("batch_size", "look", "step"), [(3, None, 20), (16, 2, 2)])  # once in so many; at a stop
def test_a_loss_that_is_no_number_is_an_error_that_leaves_no_checkpoint(digits, batch_size, look, step):
    model = small_model()
    trainer = new_trainer(digits, model, batch_size=batch_size)
    Checkpoint({}).save(0, {})
    with torch.no_grad():
        model[0].weight.fill_(math.nan)

    with pytest.raises(UserError, match=f"the loss is nan after step {step}; .* lr"):
        trainer.run_epoch(StopAt(look))

    assert Checkpoint({}).load() is None


def test_a_last_step_that_spoils_the_model_is_an_error(digits, monkeypatch):
    no_numbers = torch.full((21, 10), torch.nan)
    monkeypatch.setattr("src.train.trainer.predict_logits", lambda _, images, *__: no_numbers[: len(images)])

    with pytest.raises(UserError, match="nan after step 5"):
        new_trainer(digits).run_epoch(StopAt())


# Stopped, killed, resumed


def train_to_the_end(params, sets, group, checkpoint, stop) -> dict:
    """Train the `small_model` from ``checkpoint`` on as ``src.train`` does; return all that there is at the end."""
    trainer = Trainer(params, MNIST_INPUT, small_model(), sets, MACHINE, group, checkpoint)
    trainer.resume()
    while not trainer.done:
        trainer.run_epoch(stop)
    return {
        "checkpoint": checkpoint.load(),
        "history": trainer.state.history,
        "model": trainer.model.state_dict(),
    }


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    """What an undisturbed run of an epoch and a part of one ends with."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("undisturbed")))
        return train_to_the_end(small_params(epochs=1.4), small_sets(digits), ProcessGroup(), Checkpoint({}), StopAt())


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("kills", [False, True])
def test_a_run_that_is_disturbed_anywhere_and_goes_on_ends_with_the_same_bits(digits, undisturbed, capsys, look, kills):
    params = small_params(epochs=1.4, checkpoint_minutes=EACH_STEP if kills else 60)
    sets = small_sets(digits)
    with pytest.raises(Killed if kills else Interrupted) as stopped:
        train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt(look, kills=kills))
    done = (Checkpoint({}).load() or {"step": 0})["step"]
    assert kills or (stopped.value.exit_code == 128 + 15 and f"step {done} is saved" in str(stopped.value))

    result = train_to_the_end(params, sets, ProcessGroup(), Checkpoint({}), StopAt())

    assert differences(result, undisturbed) == []
    assert (f"from step {done} of 7" in capsys.readouterr().out) is (done > 0)


def test_a_checkpoint_is_saved_so_many_minutes_after_the_last_and_before_each_evaluation(digits, monkeypatch):
    clock, saved_steps, save = itertools.count(step=31), [], Checkpoint.save
    monkeypatch.setattr("src.train.checkpoint.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(Checkpoint, "save", lambda *call: saved_steps.append(call[1]) or save(*call))

    new_trainer(digits, checkpoint_minutes=1).run_epoch(StopAt())  # half a minute for a step

    assert saved_steps == [2, 4, 5]


def test_where_no_checkpoint_can_be_written_training_goes_on_and_a_stop_says_so(digits, monkeypatch, capsys):
    def cannot_be_written(*_):
        raise UserError("No space left on device")

    monkeypatch.setattr(Checkpoint, "save", cannot_be_written)
    trainer = new_trainer(digits)

    trainer.run_epoch(StopAt())
    with pytest.raises(Interrupted, match="NOT saved"):
        trainer.run_epoch(StopAt(2))

    assert "warning: No space left on device" in capsys.readouterr().err


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
                with pytest.raises(Killed if kills else Interrupted if group.is_main else SystemExit):
                    train_to_the_end(params, sets, group, checkpoint, stop)
                result = train_to_the_end(params, sets, group, checkpoint, StopAt())
                found[look, kills] = differences(result, undisturbed)
    return found


@pytest.mark.parametrize(("count", "looks"), [(2, (3, 6)), slow(3, (3,)), slow(4, (1, 5, 8, 14))])
def test_processes_that_are_stopped_or_killed_end_with_the_same_bits(digits, tmp_path, count, looks):
    found = run_processes(count, tmp_path, disturb_processes, small_sets(digits), tmp_path, looks)

    for of_process in found:
        assert of_process == {(look, kills): [] for look in looks for kills in (False, True)}
