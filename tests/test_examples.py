"""Every example runs with ``--quick`` and reaches its number."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("one_thread")

EXAMPLES = Path(__file__).parents[1] / "examples"
README = EXAMPLES.with_name("README.md")


def load(stem: str):
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{stem}", EXAMPLES / f"{stem}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_nmnist(folder: Path) -> None:
    """Two classes of 5-byte event files that any classifier can tell apart: left half or right half of the sensor."""
    generator = np.random.default_rng(0)
    for part, count in (("Train", 24), ("Test", 4)):
        for digit in (0, 1):
            (folder / part / str(digit)).mkdir(parents=True)
            for k in range(1, count + 1):
                n = 300
                t = np.sort(generator.integers(0, 300_000, n))
                x, y = generator.integers(0, 17, n) + 17 * digit, generator.integers(0, 34, n)
                p = generator.integers(0, 2, n)
                raw = np.stack([x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255], 1).astype(np.uint8)
                (folder / part / str(digit) / f"{k:05d}.bin").write_bytes(raw.tobytes())


def test_first_spike():
    assert load("01_first_spike").main(quick=True) < 1e-6


def test_yin_yang():
    assert load("02_yin_yang").main(quick=True) > 0.85


def test_check_the_gradient():
    assert load("03_check_the_gradient").main(quick=True) < 1e-6


def test_nmnist_through_tonic(tmp_path):
    write_nmnist(tmp_path / "nmnist")
    assert load("04_nmnist_through_tonic").main(str(tmp_path / "nmnist"), quick=True) > 0.9


def test_egru():
    found = load("08_egru").main(quick=True)
    assert found["EGRU"][0] > 0.9 and found["EGRU"][1] < 0.6 * found["GRU"][1]


def test_egru_sweep(tmp_path):
    found = load("09_egru_sweep").main(quick=True, out=tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    assert found["GRU"][0][1] > 0.85 and max(accuracy for _, accuracy in found["EGRU"]) > 0.85
    for kind in ("GRU, pruned", "GRU, gated without training", "EGRU", "EGRU, pruned"):
        assert found[kind] and all(cost < found["GRU"][0][0] for cost, _ in found[kind])


def test_a_gru_that_is_gated_by_nothing_is_the_gru():
    example = load("09_egru_sweep")
    torch.manual_seed(0)
    model, rows = example.Reader(torch.nn.GRU(8, example.HIDDEN)), torch.rand(8, 50, 8)
    labels = model(rows)[0].argmax(1)
    assert example.measure_gated(model, rows, labels, 0.0) == example.measure(model, rows, labels) == (12288.0, 1.0)


@pytest.mark.skipif("EVENTNET_DATA" not in os.environ, reason="real recordings: set EVENTNET_DATA")
def test_nmnist_on_real_recordings():
    root = Path(os.environ["EVENTNET_DATA"]) / "nmnist_1k"
    if not root.exists():
        pytest.skip(f"no {root.name} in EVENTNET_DATA")
    assert load("04_nmnist_through_tonic").main(str(root), quick=True) > 0.6


def test_inside_a_module():
    assert load("05_inside_a_module").main(quick=True) > 0.85


def test_learn_delays():
    assert load("06_learn_delays").main(quick=True) > 0.95


def test_long_recording():
    seen, kept = load("07_long_recording").main(quick=True)
    assert seen == 20_000 and 0 < kept < 300  # what is younger than the longest delay, whatever was seen


def test_export(tmp_path):
    found = load("10_export").main(quick=True, out=tmp_path)
    for target, report in found.items():
        passed = {gate.name: gate.passed for gate in report.gates}
        assert passed["L0"] and passed["L1"], report.gates
        assert (tmp_path / target / "parity.html").stat().st_size > 10_000
        assert report.facts["accuracy"]["trained"]["share"] > 0.6


def test_reservoir():
    found = load("11_reservoir").main(quick=True)
    shares = [share for name, share in found.items() if "traces" in name]
    assert len(shares) == 6 and min(shares) > 0.75 and found["event counts"] > 0.8
    assert found["event counts in 4 windows"] > max(shares)  # as its docstring says


def test_readme(capsys, tmp_path, monkeypatch):
    """The README's Python runs as it stands there and prints about what it says."""
    monkeypatch.chdir(tmp_path)  # it saves a file
    text = README.read_text()
    code = "".join(re.findall(r"```python\n(.*?)```", text, re.S))
    said = float(re.search(r"validation accuracy (0\.\d+)\n<!-- example:end", text).group(1))
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    printed = float(re.search(r"validation accuracy (0\.\d+)", out).group(1))
    assert printed == pytest.approx(said, abs=0.03)
    assert "L1  passed" in out and "L2  passed" in out


def test_examples_are_all_tested():
    """No example without a test."""
    tested = (Path(__file__)).read_text()
    assert all(f'"{path.stem}"' in tested for path in EXAMPLES.glob("*.py")), sys.argv


def test_sparse_codes():
    found = load("12_sparse_codes").main(quick=True)
    assert found["right"] > found["right, at least"] - 0.03
    assert found["missed"] == pytest.approx(found["missed, theory"], abs=0.015)
    assert found["false matches"] == pytest.approx(found["false matches, theory"], abs=6e-5)


def test_active_dendrites():
    found = load("13_active_dendrites").main(quick=True)
    assert found["both"] > found["neither"] and min(found.values()) > 0.3


def test_elm():
    assert load("14_elm").main(quick=True) > 0.7


def test_branches():
    found = load("15_branches").main(quick=True)
    assert found[2] > found[1] + 0.1


def test_inside_a_cnn():
    assert load("19_inside_a_cnn").main(quick=True) > 0.9


def test_from_snntorch():
    pytest.importorskip("snntorch")
    found = load("16_from_snntorch").main(quick=True)
    assert found["trained on, exact gradients"] > max(found["converted"], 0.88)


def test_from_norse():
    pytest.importorskip("norse.torch")
    coarse, fine, accuracy = load("17_from_norse").main(quick=True)
    assert coarse > 5 * fine and accuracy > 0.7
