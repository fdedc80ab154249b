"""The pictures show what they are given, and are written whole or not at all."""

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from eventnet import Events, plots


def history(epochs: int = 5) -> list[dict[str, float]]:
    names = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "train_spikes_per_neuron")
    return [{"epoch": k, **{name: 1 / (k + i) for i, name in enumerate(names)}} for k in range(1, epochs + 1)]


def some_activity(**changes) -> plots.Activity:
    inputs = Events.from_list([([0.001, 0.004, 0.01], [0, 2, 1])], num_units=3, duration=0.02)
    hidden = Events.from_list([([0.005, 0.012], [4, 1])], num_units=6, duration=0.02)
    times = torch.linspace(0, 0.02, 30)
    voltage = torch.stack([torch.sin(times * 100 * (k + 1)) for k in range(4)], 1)
    given = dict(inputs=inputs, hidden=[hidden], times=times, voltage=voltage, label=2, predicted=1)
    return plots.Activity(**(given | changes))


def pixels(figure, path) -> np.ndarray:
    image = matplotlib.image.imread(plots.save(figure, path))
    assert image.shape[0] > 200 and image.shape[1] > 400
    return image


def titles(figure) -> str:
    texts = [axis.get_title(loc="left") for axis in figure.axes]
    return "\n".join(texts + [text.get_text() for axis in figure.axes for text in axis.texts])


def test_learning_curve_has_every_series(tmp_path):
    figure = plots.learning_curve(history(), best_epoch=3, test_accuracy=0.5)
    loss, accuracy, spikes = figure.axes
    assert [line.get_label() for line in loss.lines[:2]] == ["training", "validation"]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1 / k for k in range(1, 6)])
    np.testing.assert_allclose(spikes.lines[0].get_ydata(), [1 / (k + 4) for k in range(1, 6)])
    assert any("test 50.0%" in text.get_text() for text in accuracy.get_legend().get_texts())
    assert pixels(figure, tmp_path / "curve.png").std() > 0.05


@pytest.mark.parametrize("epochs", [1, 2])
def test_learning_curve_of_a_short_run(tmp_path, epochs):
    """A line through one point shows nothing: every series has its points marked, at ticks that are epochs."""
    figure = plots.learning_curve(history(epochs), best_epoch=1, test_accuracy=1.0)
    pixels(figure, tmp_path / "curve.png")
    for axis, series in zip(figure.axes, (2, 2, 1), strict=True):
        for line in axis.lines[:series]:
            assert len(line.get_xdata()) == epochs and line.get_marker() == "o"
        low, high = axis.get_xlim()
        assert [tick for tick in axis.get_xticks() if low <= tick <= high] == list(range(1, epochs + 1))
    figure.draw_without_rendering()  # places everything at the figure's own resolution
    inside = figure.bbox
    for text in (text for axis in figure.axes for text in axis.texts):
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1


def test_learning_curve_shows_all_spikes_and_plain_losses(tmp_path):
    rows = history(40)
    figure = plots.learning_curve(rows, best_epoch=40)
    pixels(figure, tmp_path / "curve.png")
    loss, _, spikes = figure.axes
    assert spikes.get_ylim()[0] == 0
    assert spikes.get_ylim()[1] > max(row["train_spikes_per_neuron"] for row in rows)
    low, high = loss.get_ylim()
    shown = [label.get_text() for label in loss.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert {"0.05", "0.1", "0.5"} <= set(shown)
    assert loss.lines[0].get_marker() == "None"
    silent = [row | {"train_spikes_per_neuron": 0.0} for row in rows]
    assert plots.learning_curve(silent).axes[2].get_ylim() == (0, 1)


def by_task(tasks: int, epochs: int) -> list[dict[str, float]]:
    """Each task loses a tenth in each later epoch."""
    rows = []
    for epoch in range(1, tasks * epochs + 1):
        begun = range(1 + (epoch - 1) // epochs)
        of_each = [0.9 ** (epoch - k * epochs) for k in begun]
        named = {f"validation_accuracy_of_task_{k + 1}": of_each[k] for k in begun}
        rows.append({"epoch": epoch, "validation_accuracy": sum(of_each) / len(of_each), **named})
    return rows


@pytest.mark.parametrize(("tasks", "epochs"), [(3, 2), (2, 1), (1, 1), (25, 2)])
def test_each_task_has_a_line_from_its_beginning(tmp_path, tasks, epochs):
    rows = by_task(tasks, epochs)
    figure = plots.accuracy_by_task(rows, epochs=epochs)
    (axis,) = figure.axes
    marks = [line for line in axis.lines if line.get_linestyle() == "--"]
    *lines, mean = [line for line in axis.lines if line not in marks]
    assert [line.get_xdata()[0] for line in marks] == [0.5 + k * epochs for k in range(tasks)]
    assert len(lines) == tasks
    for k, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_xdata(), range(k * epochs + 1, tasks * epochs + 1))
        np.testing.assert_allclose(line.get_ydata(), [100 * 0.9**n for n in range(1, (tasks - k) * epochs + 1)])
        assert line.get_marker() == "o" and line.get_linewidth() < mean.get_linewidth()
    np.testing.assert_allclose(mean.get_ydata(), [100 * row["validation_accuracy"] for row in rows])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["mean of the tasks so far"]
    shown = {text.get_text(): text for text in axis.texts}
    assert list(shown)[:2] == ["task 1", "4" if tasks == 25 else "2"][:tasks]
    for name, text in shown.items():  # stands where its task begins, in its colour
        k = int(name.removeprefix("task ")) - 1
        assert text.get_position()[0] == marks[k].get_xdata()[0] and text.get_color() == lines[k].get_color()
    low, high = axis.get_xlim()
    assert all(tick == int(tick) for tick in axis.get_xticks() if low <= tick <= high)
    assert pixels(figure, tmp_path / "tasks.png").std() > 0.02
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in (axis._left_title, *axis.texts)]
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])


def test_tasks_that_an_older_version_did_not_measure_have_no_line(tmp_path):
    rows = [{name: row[name] for name in ("epoch", "validation_accuracy")} for row in by_task(3, 2)[:4]]
    (axis,) = plots.accuracy_by_task(rows + by_task(3, 2)[4:], epochs=2).axes
    drawn = [list(line.get_xdata()) for line in axis.lines if line.get_linestyle() == "-"]
    assert drawn == [[5, 6], [5, 6], [5, 6], [1, 2, 3, 4, 5, 6]]
    figure = plots.accuracy_by_task(rows, epochs=2)
    assert len(figure.axes[0].lines[-1].get_xdata()) == 4
    pixels(figure, tmp_path / "old.png")


def test_activity_names_prediction_and_counts(tmp_path):
    figure = plots.activity(some_activity(), some_activity(predicted=2))
    shown = titles(figure)
    assert "before training: predicts 1 (wrong: it is 2)" in shown
    assert "after training: predicts 2 (right)" in shown
    assert "input, 3 events" in shown
    assert "hidden layer, 2 spikes from 2 of 6 neurons" in shown
    assert pixels(figure, tmp_path / "activity.png").std() > 0.05


def test_activity_of_silent_spiking_and_stepwise_readouts(tmp_path):
    silent = Events.from_list([([], [])], num_units=6, duration=0.02)
    before = some_activity(hidden=[silent, silent], predicted=-1, output=silent, threshold=1.0)
    output = Events.from_list([([0.01], [2])], num_units=4, duration=0.02)
    after = some_activity(hidden=[silent, silent], predicted=2, output=output, threshold=1.0)
    figure = plots.activity(before, after)
    assert "before training: all outputs silent (wrong: it is 2)" in titles(figure)
    pixels(figure, tmp_path / "silent.png")
    many = torch.linspace(0, 1, 30)[:, None] * torch.arange(9)
    figure = plots.activity(*[some_activity(label=None, predicted=None, voltage=many)] * 2)
    pixels(figure, tmp_path / "steps.png")
    figure.draw_without_rendering()
    for axis in figure.axes[-2:]:  # six names fit beside the title
        assert [text.get_text() for text in axis.get_legend().get_texts()] == [*"012345", "others"]
        assert axis.get_legend().get_window_extent().x0 > axis._left_title.get_window_extent().x1


def test_pareto_shows_kinds_and_front(tmp_path):
    points = {"dense": [(100.0, 0.9)], "sparse": [(10.0, 0.8), (20.0, 0.7), (50.0, 0.95)], "none": []}
    figure = plots.pareto(points, cost="multiplications", score="accuracy")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["dense", "sparse", "front"]
    assert axis.get_xscale() == "log" and axis.get_ylabel() == "accuracy (%)"
    front = axis.get_lines()[0]
    assert list(front.get_xdata()) == [10.0, 50.0] and list(front.get_ydata()) == pytest.approx([80.0, 95.0])
    assert pixels(figure, tmp_path / "pareto.png").std() > 0.02


def test_the_front_keeps_what_nothing_beats():
    assert plots.front_of([(1.0, 0.5), (1.0, 0.6), (2.0, 0.6), (3.0, 0.7)]) == [(1.0, 0.6), (3.0, 0.7)]
    assert plots.front_of([]) == []


def test_firing_rates_counts_neurons(tmp_path):
    figure = plots.firing_rates([[0.0, 10.0, 20.0], [0.0] * 5], before=[[0.0, 0.0, 5.0], [1.0] * 5])
    assert "10.0 Hz on average, 1 of 3 silent" in titles(figure)
    assert "Hidden layer 2: 0.0 Hz on average, 5 of 5 silent" in titles(figure)
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert sum(bar.get_height() for bar in bars) == 3
    pixels(figure, tmp_path / "rates.png")


def test_save_leaves_the_old_picture_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "plot.png"
    path.write_bytes(b"old")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        plots.save(plots.firing_rates([[1.0]]), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
