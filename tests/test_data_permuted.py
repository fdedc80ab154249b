"""Permuted MNIST: tasks are the images with their pixels in another order, made when samples are taken."""

import pytest
import torch
from test_data_idx import write

from eventnet import Events, data
from eventnet.data import permuted
from eventnet.data.permuted import TaskDataset, permutations


def test_tasks_are_the_images_with_their_pixels_permuted(tmp_path):
    made = write(tmp_path / "mnist", sizes=(60, 20))
    splits = data.load("permuted_mnist", tmp_path, tasks=3, validation_fraction=1 / 6, seed=4)
    assert (splits.num_units, splits.num_classes, splits.step) == (784, 10, 1e-3)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3 * 50, 3 * 10, 3 * 20]
    assert splits.note.endswith("60 of 60000 training, 20 of 10000 test, in each of 3 tasks") and not splits.forecasts
    images, labels = made["test"]
    pixels = torch.tensor(images.reshape(20, 784)) / torch.tensor(255.0)
    events, found = splits.test.__getitems__(range(60))
    dense = events.to_dense(1e-3)
    assert len(dense) == 1
    for task, order in enumerate(permutations(784, 3, seed=4)):
        torch.testing.assert_close(dense[0, 20 * task : 20 * (task + 1)], pixels[:, order].float(), rtol=0, atol=0)
    assert found.tolist() == splits.test.labels.tolist() == labels.tolist() * 3
    assert splits.test.tasks.tolist() == [0] * 20 + [1] * 20 + [2] * 20


def test_permutations_follow_the_seed_and_are_the_same_for_all_parts(tmp_path):
    write(tmp_path, sizes=(60, 10))
    first, again, other = (data.load("permuted_mnist", tmp_path, tasks=4, seed=seed) for seed in (1, 1, 2))
    assert first.train.orders.equal(again.test.orders) and first.train.orders.equal(first.validation.orders)
    assert not first.train.orders.equal(other.train.orders)
    assert first.train.orders[0].equal(torch.arange(784)) and not first.train.orders[1].equal(first.train.orders[2])
    assert first.train.orders.sort(1).values.equal(torch.arange(784).expand(4, -1))


def some() -> TaskDataset:
    events = Events.from_list([([0.1, 0.2], [0, 2]), ([], []), ([0.3], [1])], num_units=3, duration=1.0)
    return TaskDataset(data.EventDataset(events, torch.tensor([5, 6, 7])), torch.tensor([[0, 1, 2], [1, 2, 0]]))


def test_single_samples_and_single_tasks():
    tasks = some()
    assert [int(label) for _, label in tasks] == [5, 6, 7, 5, 6, 7]
    events, label = tasks[3]
    assert (events.batch_size, events.units.tolist(), events.units.dtype, int(label)) == (1, [2, 1], torch.int32, 5)
    second = tasks.only([1])
    assert len(second) == 3 and second[0][0].units.equal(events.units) and second.labels.tolist() == [5, 6, 7]
    assert second.numbers == (1,) and second.tasks.tolist() == [1, 1, 1] and len(tasks.only([])) == 0
    with pytest.raises(IndexError, match="expected indices from 0 to 5"):
        tasks[6]
    with pytest.raises(IndexError, match="expected indices"):
        tasks.__getitems__([0, -1])


def test_a_loader_takes_batches_from_it():
    batches = list(torch.utils.data.DataLoader(some(), batch_size=4, collate_fn=data.collate))
    assert [labels.tolist() for _, labels in batches] == [[5, 6, 7, 5], [6, 7]]
    assert batches[0][0].units.tolist() == [0, 2, 1, 2, 1]


def test_what_is_no_permutation_is_refused(tmp_path):
    wrong = [[0, 1, 1]], [0, 1, 2], [[0, 1]], [[0.5, 1.0, 2.0]]
    for orders in wrong:
        with pytest.raises(ValueError, match=r"expected orders of shape \(tasks, 3\)"):
            TaskDataset(some().data, torch.tensor(orders))
    for numbers in ([0], [0, 0], [0, 1, 2]):
        with pytest.raises(ValueError, match="expected 2 different numbers of tasks"):
            TaskDataset(some().data, some().orders, numbers)
    with pytest.raises(ValueError, match=r"expected some of the tasks \(0, 1\), got \[2\]"):
        some().only([1, 2])
    with pytest.raises(ValueError, match="tasks: expected at least one, got 0"):
        permuted.load(tmp_path, tasks=0)
    with pytest.raises(FileNotFoundError, match="mnist"):
        data.load("permuted_mnist", tmp_path)
