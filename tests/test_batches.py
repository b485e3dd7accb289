"""The batches of an epoch, and the seeds that they come from."""

import pytest
import torch
from helpers.project import quick_params

from src.mnist.dataset import Images
from src.pipeline.process import UserError
from src.sampling.seeding import derive_seed, make_generator
from src.train.batches import Batches
from src.train.processes import ProcessGroup

GREY_LEVEL = 1 / 255 / 0.3081  # the least difference of two pixels, in what the network sees


@pytest.fixture(scope="module")
def hundred(digits):
    """A hundred digits, labelled by their numbers, so that a batch tells which images it holds."""
    images, _ = digits
    return Images(torch.from_numpy(images[::50]), torch.arange(100))


def make_batches(data, rank=0, world_size=1, **values) -> Batches:
    """The batches of one of several processes, of at most 16 images."""
    return Batches(data, quick_params(**{"batch_size": 16} | values), ProcessGroup(rank, world_size))


def numbers(batches, epoch) -> list[int]:
    """The numbers of an epoch's images, in order."""
    return torch.cat([batch.labels for batch in batches.epoch(epoch)]).tolist()


def test_an_epoch_takes_each_image_once(hundred):
    batches = make_batches(hundred)

    assert sorted(numbers(batches, 0)) == list(range(100))
    assert batches.images == 100


def test_the_sizes_of_an_epochs_batches_differ_by_one_at_most(hundred):
    batches = make_batches(hundred)

    sizes = [len(batch.labels) for batch in batches.epoch(0)]

    assert sizes == [15, 15, 14, 14, 14, 14, 14]
    assert len(batches) == 7


def test_a_batch_that_leaves_a_process_without_an_image_is_refused(hundred):
    with pytest.raises(UserError, match="batch_size = 3 is too small for 4 processes"):
        make_batches(hundred, world_size=4, batch_size=3)


def test_a_batch_of_one_process_is_the_whole_batch(hundred):
    for batch in make_batches(hundred).epoch(0):
        assert batch.size == len(batch.labels) == len(batch.inputs)


def test_inputs_and_labels_are_what_the_network_takes(hundred):
    batch = next(make_batches(hundred, image_size=32).epoch(0))

    assert batch.inputs.shape == (15, 1, 32, 32)
    assert batch.inputs.dtype == torch.float32
    assert batch.labels.dtype == torch.int64


def test_the_order_depends_on_the_epoch_and_on_the_seed(hundred):
    first = numbers(make_batches(hundred), 0)

    assert numbers(make_batches(hundred), 0) == first
    assert numbers(make_batches(hundred), 1) != first
    assert numbers(make_batches(hundred, seed=1), 0) != first


def test_an_image_is_warped_anew_in_each_epoch_and_step_and_by_each_seed():
    alike = Images(torch.full((32, 28, 28), 255, dtype=torch.uint8), torch.arange(32))
    batches, with_seed_1 = make_batches(alike, batch_size=16), make_batches(alike, batch_size=16, seed=1)

    first, again = next(batches.epoch(0)).inputs, next(batches.epoch(0)).inputs
    others = [next(batches.epoch(1)), next(batches.epoch(0, first_step=1)), next(with_seed_1.epoch(0))]

    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    for other in others:
        assert not torch.equal(first, other.inputs)


def test_without_augmentation_no_image_is_warped():
    alike = Images(torch.full((16, 28, 28), 255, dtype=torch.uint8), torch.arange(16))

    batch = next(make_batches(alike, augment=False).epoch(0))

    assert torch.equal(batch.inputs, batch.inputs[:1].expand_as(batch.inputs))


@pytest.mark.parametrize("step", range(8))
def test_an_epoch_can_be_taken_up_at_any_step(hundred, step):
    batches = make_batches(hundred)

    whole, rest = list(batches.epoch(1)), list(batches.epoch(1, first_step=step))

    assert len(rest) == 7 - step
    for expected, batch in zip(whole[step:], rest, strict=True):
        assert torch.equal(batch.labels, expected.labels)
        assert torch.equal(batch.inputs, expected.inputs)


@pytest.mark.parametrize("count", [2, 3])
def test_the_processes_shards_are_the_one_processs_batches(hundred, count):
    alone = list(make_batches(hundred).epoch(1))

    by_rank = [list(make_batches(hundred, rank, count).epoch(1)) for rank in range(count)]

    for step, batch in enumerate(alone):
        shards = [batches[step] for batches in by_rank]
        assert torch.equal(torch.cat([shard.labels for shard in shards]), batch.labels)
        inputs = torch.cat([shard.inputs for shard in shards])
        # A warp's products are split otherwise in a smaller batch, so its sums may round otherwise.
        torch.testing.assert_close(inputs, batch.inputs, rtol=0, atol=GREY_LEVEL / 100)
        assert {shard.size for shard in shards} == {batch.size}


def test_seeds_of_different_purposes_are_all_different():
    seeds = set()
    for seed in range(10):
        for purpose in ("order", "augment"):
            for epoch in range(50):
                seeds.add(derive_seed(seed, purpose, epoch))

    assert len(seeds) == 1000


def test_a_seed_is_the_same_everywhere():
    assert derive_seed(0, "order", 1) == 1_332_101_017_241_992_705


def test_a_generator_draws_the_same_for_the_same_purpose():
    first = torch.rand(3, generator=make_generator(0, "augment", 1, 2))
    again = torch.rand(3, generator=make_generator(0, "augment", 1, 2))
    other = torch.rand(3, generator=make_generator(0, "augment", 1, 3))

    assert torch.equal(again, first)
    assert not torch.equal(other, first)
