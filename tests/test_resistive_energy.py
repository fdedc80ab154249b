"""Energy of arrays: each cause by hand, bounds that hold, shares, reads of placed models, errors."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from eventnet import EGRU, LI, LIF, Events
from eventnet.counting import count
from eventnet.hardware.energy import Interval
from eventnet.hardware.energy_profiles import Coefficient
from eventnet.hardware.resistive import ADC, DAC, Cell, Reservoir, array_energy, place, reads_of, reads_of_reservoir
from eventnet.hardware.resistive.array_costs import ARRAY_CAUSES, CLOCKED, ArrayCosts
from eventnet.hardware.resistive.energy import Reads

PICO = 1e-12


def costs(**changed: object) -> ArrayCosts:
    """Round numbers, in pJ: cells 1-2, drivers 3, converters 5-7 at 8 bits, digital 11, buffers 13, neurons 17-19."""

    def joules(low: float, high: float | None = None) -> Coefficient:
        return Coefficient(low * PICO, (low if high is None else high) * PICO, "J", "by hand", "estimated")

    given = {"cells": joules(1, 2), "drivers": joules(3), "converters": {8: joules(5, 7)}, "digital": joules(11)}
    return ArrayCosts(**{**given, "buffers": joules(13), "neurons": joules(17, 19), **changed})


def pico(interval: Interval, low: float, high: float | None = None) -> bool:
    """Whether these are the bounds, in pJ; one number: both."""
    bounds = interval.low / PICO, interval.high / PICO
    return bounds == pytest.approx((low, low if high is None else high), rel=1e-9, abs=1e-9)


def test_every_cause_by_hand():
    # 200 inputs, 130 outputs, arrays of 128 x 64: 2 tiles of rows, 3 of columns, 12 arrays, 50 reads, 300 events
    found = array_energy({"w": Reads(130, 200, 50, 300, tile=(128, 64), updates=6500)}, costs()).causes
    used, there = 2 * 200 * 130, 12 * 128 * 64
    assert pico(found["cells"], 50 * used * 1, 50 * there * 2)
    assert pico(found["drivers"], 300 * 2 * 3 * 3)  # G+ and G- of three tiles of columns
    assert pico(found["converters"], 50 * 2 * 130 * 5, 50 * 2 * 130 * 7)
    assert pico(found["digital"], 50 * 1 * 130 * 11)
    assert pico(found["buffers"], 50 * 12 * 13, 50 * 12 * 13 * 2)  # 128 x 64 is two blocks of 64 x 64
    assert pico(found["neurons"], 6500 * 17, 6500 * 19)


def test_graded_and_unknown_inputs_are_between_bounds():
    graded = array_energy({"w": Reads(10, 20, 5, 30, input_bits=4)}, costs()).causes["drivers"]
    assert pico(graded, 30 * 4 * 2 * 3, 100 * 8 * 2 * 3)  # bit by bit, to all rows at 2^3
    unknown = array_energy({"w": Reads(10, 20, 5)}, costs()).causes["drivers"]
    assert pico(unknown, 0, 100 * 2 * 3)


def test_the_law_of_joule_where_a_voltage_is_given():
    ohmic = costs(voltage=0.2, read_time=10e-9)
    reads = Reads(10, 20, 5, 30, conductance=20e-6)
    assert pico(array_energy({"w": reads}, ohmic).causes["cells"], 4.8)  # 0.2^2 x 10 ns x 20 uS x 30 x 20
    graded = array_energy({"w": dataclasses.replace(reads, input_bits=8)}, ohmic).causes["cells"]
    assert pico(graded, 0, 4.8)
    with pytest.raises(ValueError, match="w: conductance"):
        array_energy({"w": Reads(10, 20, 5)}, ohmic)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 100), st.sampled_from([None, (32, 32), (128, 128)]))
def test_shares_and_totals_hang_together(out, inputs, reads, tile):
    one = Reads(out, inputs, reads, reads * inputs / 2, tile, updates=out * reads)
    found, twice = array_energy({"a": one}), array_energy({"a": one, "b": one})
    assert math.isclose(twice.total.high, 2 * found.total.high) and math.isclose(twice.total.low, 2 * found.total.low)
    for cause in ARRAY_CAUSES:
        assert 0 <= found.share(cause).low <= found.share(cause).high <= 1
    assert math.isclose(found.total.low, sum(each.low for each in found.causes.values()))
    assert not reads or sum(found.share(cause).high for cause in ARRAY_CAUSES) >= 1 - 1e-9


def test_the_share_of_the_converters_is_printed_and_bounded_by_hand():
    found = array_energy({"w": Reads(10, 20, 5, 30)}, costs())
    low = found.causes["converters"].low / (
        found.causes["converters"].low + found.total.high - found.causes["converters"].high
    )
    assert found.adc_share.low == pytest.approx(low)
    assert "ADC share" in str(found) and "converters" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["adc_share"] == found.adc_share.to_list()


def test_the_numbers_have_sources_and_none_is_free():
    for name, each in CLOCKED.numbers.items():
        assert each.source and 0 < each.low <= each.high < 1e-9, name
    assert set(CLOCKED.unverified) == {"drivers", *(f"converters_{bits}_bits" for bits in range(4, 11))}
    # SpikeSim, 64 x 64 cells, 4 bits: crossbars 14.1 pJ, ADC and multiplexer 136 pJ, buffers and wires 560 pJ
    found = array_energy({"w": Reads(64, 64, 1, 64, tile=(64, 64), adc_bits=4)}).causes
    assert pico(found["cells"], 2 * 8 * 1.76423)
    assert pico(found["converters"], 64 * 0.79, 64 * (2.03084 + 0.094245))
    assert pico(found["buffers"], 2 * (397 + 8 * 19.64 + 4.64 + 8 * 0.2))


def test_the_reads_of_a_placed_model():
    torch.manual_seed(0)
    model = nn.Sequential(LIF(4, 30, recurrent=True), LI(30, 2))
    with torch.no_grad():
        model[0].weight.fill_(20.0)
    events = Events.from_list([([0.01, 0.02], [2, 0]), ([], [])], num_units=4, duration=0.1)
    placed = place(model, cell=Cell(), tile=(16, 16))
    counts = count(placed.model, [events], dt=1e-3)
    found = reads_of(placed, counts)
    spikes = counts["0"].spikes / 2
    assert spikes > 0 and [each.reads for each in found.values()] == [100.0] * 3
    assert [each.inputs for each in found.values()] == [1.0, spikes, spikes]
    assert [each.input_bits for each in found.values()] == [1, 1, 1]
    assert [each.updates for each in found.values()] == [3000.0, 0.0, 200.0]  # neurons are charged once
    assert [each.arrays for each in found.values()] == [4, 8, 4]
    assert found["0.weight"].conductance == pytest.approx(20e-6)  # all at G_max, their partners at 0
    assert array_energy(found).total.low > 0


def test_the_reads_of_gated_units_and_products():
    class Network(nn.Module):
        def __init__(self, layers: int) -> None:
            super().__init__()
            self.hidden, self.readout = EGRU(4, 8, layers, step=1e-2), nn.Linear(8, 3)

        def forward(self, events: Events) -> torch.Tensor:
            return self.readout(self.hidden(events)[0][-1])

    events = Events.from_list([([0.01, 0.02], [2, 0])], num_units=4, duration=0.1)
    for layers in (1, 2):
        placed = place(Network(layers), cell=Cell(), dac=DAC(6), adc=ADC(5))
        found = reads_of(placed, count(placed.model, [events], dt=1e-2), adc_bits=7)
        assert found["hidden.weight_ih_l0"].inputs == (2 if layers == 1 else None)
        assert found["readout.weight"].reads == 1
        bits = {name: (each.input_bits, each.adc_bits) for name, each in found.items()}
        assert bits["readout.weight"] == (6, 5) and bits["hidden.weight_hh_l0"] == (8, 7)


def test_the_reads_of_a_reservoir():
    """Two samples of 4 and 6 steps; two events of a unit in one step are one input."""
    events = Events.from_list([([0.0, 0.0001, 0.002], [1, 1, 0]), ([0.005], [2])], num_units=3, duration=0.006)
    events = dataclasses.replace(events, duration=torch.tensor([0.004, 0.006]))
    reservoir = Reservoir(torch.ones(3, 200), torch.zeros(200, 200), dt=1e-3, threshold=0.5, gain=1.0)
    found = reads_of_reservoir(reservoir, events, tile=(64, 64), adc_bits=6)
    assert found["weight"] == Reads(200, 3, 5.0, 1.5, (64, 64), 1, 6, updates=1000.0)
    assert found["recurrent_weight"] == Reads(200, 200, 5.0, 300.0, (64, 64), 1, 6)
    graded = dataclasses.replace(events, values=torch.ones(4))
    alone = reads_of_reservoir(dataclasses.replace(reservoir, recurrent_weight=None), graded)
    assert list(alone) == ["weight"] and alone["weight"].input_bits == 8 and alone["weight"].adc_bits == 8
    assert "ADC share" in str(array_energy(found))
    with pytest.raises(ValueError, match="at least one sample, got none"):
        reads_of_reservoir(reservoir, Events.from_list([], 3, 0.01))
    with pytest.raises(TypeError, match=r"events: expected eventnet\.Events, got Tensor"):
        reads_of_reservoir(reservoir, torch.ones(2, 3))


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: array_energy({}), "at least one matrix"),
        (lambda: array_energy({"w": Reads(3, 4, 1, adc_bits=12)}), "w: adc_bits: a figure is known for 4, 5"),
        (lambda: Reads(0, 4, 1), "at least one output"),
        (lambda: Reads(3, 4, 1, tile=(0, 2)), "tile"),
        (lambda: Reads(3, 4, -1), "reads"),
        (lambda: Reads(3, 4, 1, -1), "inputs"),
        (lambda: Reads(3, 4, 1, input_bits=0), "input_bits"),
        (lambda: Reads(3, 4, 1, updates=-1.0), "updates: expected .*got -1"),
        (lambda: Reads(3, 4, 1, conductance=math.nan), "conductance: expected .*got nan"),
        (lambda: costs(voltage=0.2), "voltage and read_time > 0, or neither"),
        (lambda: costs(voltage=-1.0, read_time=1.0), "voltage and read_time > 0"),
        (
            lambda: costs(digital=Coefficient(1.0, 1.0, "W", "by hand", "estimated")),
            "digital: expected a coefficient in J",
        ),
        (lambda: reads_of(place(nn.Linear(2, 2)), {"x": None}), "layer '' of weight was not counted"),
    ],
)
def test_errors_say_what_came(call, says):
    with pytest.raises(ValueError, match=says):
        call()
