"""Neurons in steps, against plain loops and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from resistive_cases import DT, F64, drawn, one

from eventnet import Events
from eventnet.hardware.resistive.reservoir import Reservoir
from eventnet.hardware.resistive.stepped import Drive, spikes_in_steps


def by_loop(reservoir: Reservoir, events: Events) -> torch.Tensor:
    """``(T, B, out)``, 0 or 1, in plain Python."""
    x = events.to_dense(reservoir.dt).tolist()
    w, r = reservoir.weight.tolist(), reservoir.recurrent_weight.tolist()
    out, batch = len(r), events.batch_size
    steps = events.num_steps(reservoir.dt).tolist()
    u = [[0.0] * out for _ in range(batch)]
    s = [[0] * out for _ in range(batch)]
    found = []
    for t in range(len(x)):
        for b in range(batch):
            before = s[b]
            s[b] = [0] * out
            for n in range(out):
                total = sum(x[t][b][j] * w[j][n] for j in range(len(w))) + sum(before[m] * r[m][n] for m in range(out))
                u[b][n] = reservoir.decay * u[b][n] * (1 - before[n]) + reservoir.gain * total
                s[b][n] = int(u[b][n] > reservoir.threshold and t < steps[b])
        found.append([list(each) for each in s])
    return torch.tensor(found)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["plain", "graded", "grid", "late", "ragged"])
def test_steps_are_the_loop(seed, kind):
    events = drawn(seed, graded=kind == "graded", grid=DT / 2 if kind == "grid" else None, late=kind == "late")
    if kind == "ragged":
        events = replace(events, duration=torch.tensor([0.05, 0.02, 0.031, 0.013], dtype=F64))
    reservoir = one(seed=seed, gain=1.0)
    spikes, expected = reservoir(events), by_loop(reservoir, events)
    assert expected.sum() > 8
    assert torch.equal(spikes.to_dense(DT).long(), expected)
    Events(spikes.times, spikes.units, spikes.offsets, spikes.num_units, spikes.duration)  # runs its checks


def test_by_hand():
    """u: 0.6, then 0.9 0.6 + 0.6 = 1.14 fires, then 0.6 again, from 0, and what the other neuron's spike adds."""
    events = Events.from_list([([0.0, DT, 2 * DT], [0, 0, 0])], 1, 4 * DT, dtype=F64)
    weight = torch.tensor([[0.6, 0.0]], dtype=F64)
    recurrent = torch.tensor([[0.0, 1.5], [0.5, 0.0]], dtype=F64)
    spikes = spikes_in_steps(events, weight, recurrent, dt=DT, decay=0.9, threshold=1.0)
    assert spikes.to_dense(DT)[:, 0].tolist() == [[0, 0], [1, 0], [0, 1], [1, 0]]  # at last 0.9 0.6 + 0.5 = 1.04


def test_threshold_itself_is_no_spike():
    events = Events.from_list([([0.0], [0])], 1, DT)
    assert spikes_in_steps(events, torch.ones(1, 1), dt=DT, threshold=1.0).num_events == 0
    assert spikes_in_steps(events, torch.ones(1, 1), dt=DT, threshold=0.999).num_events == 1


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"threshold": -1.0}, ValueError, "threshold must be > 0, got -1"),
        ({"threshold": torch.tensor([1.0, 0.0])}, ValueError, "threshold must be > 0"),
        ({"decay": 2.0}, ValueError, "decay must be from 0 to 1, got 2"),
        ({"weight": torch.full((6, 2), torch.nan)}, ValueError, "the weight is not finite"),
        ({"recurrent_weight": torch.full((2, 2), torch.inf)}, ValueError, "the recurrent_weight is not finite"),
        ({"recurrent_weight": torch.ones(3, 2)}, ValueError, r"a recurrent_weight \(2, 2\), got \(3, 2\)"),
        ({"recurrent_weight": torch.ones(2, 2, dtype=F64)}, TypeError, "one dtype"),
    ],
)
def test_errors_say_what_came(changes, error, said):
    given = {"weight": torch.ones(6, 2), "threshold": 1.0, **changes}
    with pytest.raises(error, match=said):
        spikes_in_steps(drawn(), dt=DT, **given)


def test_a_sample_ends_with_its_duration():
    """A neuron that keeps itself going, and an event at the very end."""
    lasting = torch.tensor([3 * DT, 7 * DT, 5.5 * DT], dtype=F64)
    events = Events.from_list([([0.0], [0])] * 3, 1, lasting, dtype=F64)
    spikes = spikes_in_steps(events, torch.ones(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64), dt=DT, threshold=0.5)
    assert spikes.counts().flatten().tolist() == [3, 7, 6]
    late = Events.from_list([([0.01], [0]), ([0.004], [0])], 1, torch.tensor([0.01, 0.004], dtype=F64), dtype=F64)
    assert spikes_in_steps(late, torch.ones(1, 1, dtype=F64), dt=DT, threshold=0.5).num_events == 0


def test_parameters_per_neuron():
    events = drawn()
    reservoir = one()
    w, r = reservoir.weight * 0.5, reservoir.recurrent_weight * 0.5
    decay, threshold = torch.linspace(0.5, 0.95, 5, dtype=F64), torch.linspace(0.3, 2, 5, dtype=F64)
    alone = [
        spikes_in_steps(events, w[:, [n]], None, dt=DT, decay=float(decay[n]), threshold=float(threshold[n])).counts()
        for n in range(5)
    ]
    both = spikes_in_steps(events, w, None, dt=DT, decay=decay, threshold=threshold)
    assert torch.equal(both.counts(), torch.cat(alone, 1)) and both.num_events
    assert not torch.equal(
        spikes_in_steps(events, w, r, dt=DT, decay=decay, threshold=threshold).counts(), both.counts()
    )


def test_drive_is_the_dense_product():
    events = drawn(1, graded=True, late=True)
    weight = torch.randn(6, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    drive = Drive(events, DT, weight)
    found = torch.stack([drive.at(t) for t in range(drive.num_steps)])
    assert torch.allclose(found, events.to_dense(DT) @ weight, atol=1e-13)
    assert drive.at(drive.num_steps).abs().max() == 0


@pytest.mark.parametrize("dt", [1e-3, 0.1, 0.34 / 50])
def test_steps_of_a_raster_are_its_rows(dt):
    """Also where t * dt, in single precision, is a little less than it should be."""
    raster = torch.randint(0, 3, (300, 2, 3), generator=torch.Generator().manual_seed(0)).float()
    drive = Drive(Events.from_dense(raster, dt), dt, torch.eye(3))
    assert torch.equal(torch.stack([drive.at(t) for t in range(drive.num_steps)]), raster)
