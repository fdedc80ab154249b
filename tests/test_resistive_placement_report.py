"""Reports of placed models: cells and arrays by hand, what is and what is not modelled."""

from __future__ import annotations

import pytest
from torch import nn

from eventnet import EGRU, LI, LIF
from eventnet.hardware.resistive import ADC, DAC, HFOX, Cell, place
from eventnet.hardware.resistive.effects import HFO2_STUCK


def test_a_report_counts_cells_and_arrays():
    placed = place(nn.Sequential(nn.Linear(200, 130), nn.Linear(130, 10)), cell=Cell(stuck=HFO2_STUCK), tile=(128, 64))
    report = placed.report()
    assert [each.cells for each in report.matrices.values()] == [2 * 200 * 130, 2 * 130 * 10]
    assert [each.arrays for each in report.matrices.values()] == [2 * 2 * 3, 2 * 2 * 1]
    assert report.cells == 54_600 and report.arrays == 16
    assert report.matrices["0.weight"].filled == pytest.approx(52_000 / (12 * 128 * 64))
    assert report.stuck == pytest.approx(0.1079, abs=0.005)
    assert "54,600" in str(report) and report.to_dict()["matrices"]["1.weight"]["cells"] == 2600


def test_notes_say_what_is_and_what_is_not_modelled():
    told = " ".join(
        place([EGRU(6, 4, step=5e-3), nn.Linear(4, 3)], cell=HFOX, dac=DAC(8), adc=ADC(8), wire_resistance=0.1).notes
    )
    for words in ("programming noise", "IR drop", "read noise, DAC, ADC", "not modelled: read noise and converters"):
        assert words in told
    assert "not modelled" not in " ".join(place([LIF(6, 4), LI(4, 3)], cell=Cell()).notes)
    assert "nn.Linear" not in " ".join(place([LIF(6, 4), LI(4, 3)]).notes)


def test_notes_say_what_is_assumed_of_the_scores():
    layers = [LIF(6, 4), LI(4, 3)]
    assert any("largest voltage, assumed" in note for note in place(layers).report().notes)
    for said in (place(layers, reading="mean"), place([EGRU(6, 4), nn.Linear(4, 3)]), place(nn.Linear(4, 3))):
        assert "assumed" not in " ".join(said.notes)  # nothing is, or there are no scores of events
