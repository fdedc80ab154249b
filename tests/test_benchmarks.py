"""The benchmarks: the contenders are the same model, void runs are refused, tables come from results."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import accuracy  # noqa: E402
import contenders  # noqa: E402
import error_curve  # noqa: E402
import fidelity  # noqa: E402
import fsdd_folds  # noqa: E402
import grid_gather  # noqa: E402
import gru  # noqa: E402
import ledger  # noqa: E402
import measure  # noqa: E402
import networks  # noqa: E402
import picture  # noqa: E402
import scaling  # noqa: E402
import speed  # noqa: E402
import suite  # noqa: E402
import tables  # noqa: E402
from shapes import SHAPES, Problem, Shape  # noqa: E402

from eventnet import Events, cli, data  # noqa: E402
from eventnet.training import Recipe, find  # noqa: E402

SMALL = Shape("small", (30, 20, 4), 3, 60, 40e-3, 50e-3, (1e-3,), (0.3, 0.5), (0.0, 0.5), (5, 400))
KINDS = {
    "plain": SMALL,
    "recurrent": replace(SMALL, name="small-recurrent", recurrent=0.5),
    "delays": replace(SMALL, name="small-delays", delay=(0.0, 12e-3)),
}


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def compiled():
    try:
        return grid_gather.compile_library()
    except RuntimeError as error:
        pytest.skip(str(error))


class FastSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / (1 + 25 * x.abs()) ** 2


def grid_in_torch(problem: Problem, dt: float, learnt: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The same grid by plain autograd, float64, the readout stepped too."""
    decay = networks.Decay(dt)
    raster = networks.raster(problem, dt).double()
    batch, hidden, outputs = problem.events.batch_size, *learnt["w2"].shape
    i, v, i2, v2 = (torch.zeros(batch, n, dtype=torch.float64) for n in (hidden, hidden, outputs, outputs))
    total, fired = torch.zeros_like(v2), torch.zeros(batch, dtype=torch.float64)
    late = round(max(dt, 1e-3) / dt)
    drive = delayed_drive(raster, dt, **learnt) if "delay" in learnt else raster @ learnt["w1"]
    spikes: list[Tensor] = []
    for k, x in enumerate(drive):
        i = decay.a * i + x
        if "recurrent" in learnt and k >= late:
            i = i + spikes[k - late] @ learnt["recurrent"]
        u = decay.b * v + decay.k * i
        s = FastSigmoid.apply(u - 1.0)
        spikes.append(s)
        v = u * (1 - s.detach())
        i2 = decay.a * i2 + s @ learnt["w2"]
        v2 = decay.b * v2 + decay.k * i2
        total, fired = total + v2, fired + s.detach().sum(1)
    return total / len(raster), fired


def delayed_drive(raster: Tensor, dt: float, w1: Tensor, delay: Tensor, **_: Tensor) -> Tensor:
    """What arrives in each step: every synapse by itself, interpolated between two steps."""
    late = delay / dt
    whole = late.detach().floor()
    drive = torch.zeros(*raster.shape[:2], w1.shape[1], dtype=raster.dtype)
    for more, share in ((0, 1 - (late - whole)), (1, late - whole)):
        for steps in range(min(int(whole.max()) + 2, len(raster))):
            weight = w1 * share * (whole + more == steps)
            drive = drive + torch.cat([torch.zeros_like(drive[:steps]), (raster @ weight)[: len(raster) - steps]])
    return drive


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dt", [1e-3, 0.5e-3, 10e-3])
@pytest.mark.parametrize("hidden", [20, 64, 130])
def test_grid_gather_equals_autograd_through_the_same_grid(compiled, kind: str, dt: float, hidden: int) -> None:
    problem = replace(KINDS[kind], layers=(30, hidden, 4), batch=11).problem()
    given = {"w1": problem.w1, "w2": problem.w2, "recurrent": problem.recurrent, "delay": problem.delay}
    results = []
    for dtype in (torch.float64, torch.float32):
        learnt = {name: x.to(dtype).requires_grad_() for name, x in given.items() if x is not None}
        if dtype == torch.float64:
            voltage, fired = grid_in_torch(problem, dt, learnt)
        else:
            steps = networks.steps_of(problem.shape, dt)
            settings = dict(dt=dt, steps=steps, recurrent_delay=max(dt, 1e-3))
            voltage, fired = grid_gather.grid_gather(problem.events, **learnt, **settings)
        torch.nn.functional.cross_entropy(voltage, problem.labels).backward()
        results.append((fired, voltage, *(x.grad for x in learnt.values())))
    (expected_fired, *expected), (fired, *found) = results
    assert expected_fired.sum() > 0
    assert fired.tolist() == expected_fired.tolist()
    for a, b in zip(expected, found, strict=True):
        assert a.abs().max() > 0
        assert (a - b).norm() < 1e-5 * a.norm()


def test_grid_gather_refuses_what_it_cannot_do(compiled) -> None:
    problem = SMALL.problem()
    run = partial(grid_gather.grid_gather, problem.events, problem.w1, problem.w2, dt=1e-3, steps=50)
    own = torch.zeros(20, 20)
    with pytest.raises(ValueError, match="0 steps late"):
        run(recurrent=own, recurrent_delay=1e-4)
    with pytest.raises(ValueError, match="not both"):
        run(recurrent=own, delay=problem.w1.abs())
    with pytest.raises(ValueError, match="not negative"):
        run(delay=problem.w1)
    with pytest.raises(TypeError, match="delay must be float32"):
        run(delay=problem.w1.double())


def test_grid_gather_repeats_bit_for_bit_and_ignores_events_after_the_end(compiled) -> None:
    problem = SMALL.problem()
    late = Events.from_list(
        [(torch.cat([t, torch.tensor([0.06])]), torch.cat([u, u[:1]])) for t, u in problem.events.to_list()],
        30,
        SMALL.duration,
    )
    grads = []
    for events in (problem.events, problem.events, late):
        w1 = problem.w1.clone().requires_grad_()
        voltage, _ = grid_gather.grid_gather(events, w1, problem.w2, dt=1e-3, steps=50)
        torch.nn.functional.cross_entropy(voltage, problem.labels).backward()
        grads.append(w1.grad)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_every_instruction_set_compiles(isa: str, compiled) -> None:
    if isa == "avx2" and grid_gather.instruction_set() == "baseline":
        pytest.skip("no AVX2 here")
    assert grid_gather.compile_library(isa).exists()


def test_a_raster_holds_every_event_once() -> None:
    problem = SMALL.problem()
    dense = networks.raster(problem, 1e-3)
    assert dense.shape == (50, 3, 30)
    assert torch.equal(dense, problem.events.to_dense(1e-3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["eventnet", "grid-gather", "floor"])
def test_a_contender_is_measured(compiled, name: str, kind: str) -> None:
    contender = contenders.CONTENDERS[name]
    result = speed.measure(KINDS[kind].problem(), contender, 1e-3 if contender.grid else None, repeats=1)
    json.dumps(result)
    assert result["seconds"]["train"]["best"] > 0
    assert (result["spikes"] is None) == (name == "floor")
    if sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK):
        assert 0 <= result["bytes"] < 100e6
    assert name in speed.table([result])


@pytest.mark.parametrize("kind", KINDS)
def test_eventnet_and_the_fine_grid_agree(compiled, kind: str) -> None:
    """What makes their seconds comparable: the same network."""
    problem = KINDS[kind].problem()
    fine = contenders.CONTENDERS["grid-gather"].build(problem, 1e-5).forward(problem)
    ours = contenders.CONTENDERS["eventnet"].build(problem, 0.0).forward(problem)
    torch.testing.assert_close(ours[0], fine[0], rtol=2e-2, atol=2e-4)
    assert ours[1]().sum().item() == pytest.approx(fine[1].sum().item(), rel=0.02)


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in contenders.LIBRARIES for kind in contenders.CONTENDERS[name].kinds]
)
def test_every_library_computes_the_same_network(compiled, name: str, kind: str) -> None:
    contender = contenders.CONTENDERS[name]
    for package in {contender.package, "spikingjelly" if name == "dcls" else contender.package}:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (make peers)")
    problem = KINDS[kind].problem()
    network = contender.build(problem, 1e-3)
    voltage, spikes = network.forward(problem)
    expected, counts = contenders.CONTENDERS["grid-gather"].build(problem, 1e-3).forward(problem)
    if name == "snntorch":  # its own reset
        assert spikes().sum().item() == pytest.approx(counts.sum().item(), rel=0.1)
    else:
        assert spikes().tolist() == counts.tolist()
        torch.testing.assert_close(voltage, expected, rtol=1e-3, atol=1e-5)
    network.train(problem)
    assert len(network.parameters) == (2 if kind == "plain" else 3)
    assert all(p.grad.abs().sum() > 0 for p in network.parameters)


def test_a_silent_hidden_layer_voids_the_run(compiled) -> None:
    silent = replace(SMALL, weight=(0.0, 1e-3)).problem()
    with pytest.raises(speed.Void, match="0 hidden spikes"):
        speed.measure(silent, contenders.CONTENDERS["grid-gather"], 1e-3)


def test_nothing_is_measured_while_tests_are_red(monkeypatch, tmp_path: Path) -> None:
    red = tmp_path / "test_red.py"
    red.write_text("def test_red():\n    assert False\n")
    monkeypatch.setattr(speed, "TESTS", [str(red)])
    with pytest.raises(SystemExit, match="nothing measured"):
        speed.check_tests()


def test_shapes_are_the_same_in_every_process() -> None:
    for shape in SHAPES.values():
        if shape.events > 10_000:
            continue
        first, second = shape.problem(), shape.problem()
        assert torch.equal(first.events.times, second.events.times)
        assert torch.equal(first.w1, second.w1)
        assert first.events.lengths.tolist() == [shape.events] * shape.batch
        assert first.events.times.max() <= shape.window


@pytest.mark.slow
def test_scaling_is_measured_and_drawn(tmp_path: Path, monkeypatch) -> None:
    assert [scaling.place("fan-out", shape) for shape in scaling.shapes("fan-out")] == list(scaling.FAN_OUT)
    assert {shape.layers[1] for shape in scaling.shapes("events")} == {256}
    sizes = [replace(SMALL, name=f"small-{n}", layers=(30, n, 4)) for n in (20, 30)]
    monkeypatch.setattr(scaling, "shapes", lambda axis: sizes)
    monkeypatch.setattr(scaling, "check_tests", lambda: None)
    monkeypatch.setattr("sys.argv", ["scaling.py", "--results", str(tmp_path), "--repeats", "1"])
    scaling.main()
    rows = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    assert [(r["axis"], r["at"], r["threads"]) for r in rows[-4:]] == [
        ("fan-out", n, threads) for n in (20, 30) for threads in (1, 2)
    ]
    assert all(0 < scaling.per_event(r, "forward") < 1e-3 for r in rows)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_no_library_is_asked_for_a_layer_that_it_does_not_have(monkeypatch, capsys) -> None:
    asked: list[str] = []
    monkeypatch.setattr(speed, "_spawn", lambda shape, contender, step, repeats: asked.append(contender.name))
    everybody = list(contenders.CONTENDERS.values())
    speed._run("speech-delays-30", everybody, 1)
    assert asked == ["eventnet", "grid-gather", "dcls", "floor"]
    assert "speech-delays-30: norse has no such layer" in capsys.readouterr().err
    asked.clear()
    speed._run("speech-recurrent", everybody, 1)
    assert set(contenders.CONTENDERS) - set(asked) == {"dcls"}


def test_peak_growth_sees_a_short_peak() -> None:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("no /proc/self/clear_refs here")
    grown = measure.peak_growth(lambda: torch.ones(10_000_000).sum())
    assert 35e6 < grown < 60e6


def test_spikes_are_matched_in_order() -> None:
    truth = Events.from_list([([0.01, 0.02, 0.05], [0, 0, 1])], 2, 0.1)
    found = Events.from_list([([0.011, 0.0215, 0.04, 0.0501], [0, 0, 0, 1])], 2, 0.1)
    errors, left = error_curve.match(found, truth)
    assert sorted(errors.tolist()) == pytest.approx([0.0001, 0.001, 0.0015], abs=1e-6)
    assert left == 1
    assert error_curve.match(truth, truth)[1] == 0


def test_results_are_merged_and_tables_filled(tmp_path: Path) -> None:
    seconds = {"best": 2e-3, "median": 3e-3, "repeats": 5}
    row = {
        "contender": "eventnet",
        "version": "1",
        "shape": "yin-yang",
        "step": None,
        "bytes": 1_000_000,
        "spikes": 90.0,
        "seconds": {"forward": seconds, "train": seconds},
        "torch": "2",
        "commit": "abc",
        "machine": {"cpu": "CPU", "cores": 2, "features": ["avx2"]},
    }
    slow = row | {
        "contender": "norse",
        "step": 1e-3,
        "seconds": {k: seconds | {"best": 0.1, "median": 0.1} for k in ("forward", "train")},
    }
    delays = [row | {"shape": "speech-delays-30"}, slow | {"shape": "speech-delays-30", "contender": "dcls"}]
    speed.save([row, *delays], tmp_path / "speed.json")
    speed.save([slow, row | {"commit": "new"}], tmp_path / "speed.json")
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert [(r["contender"], r["commit"]) for r in kept if r["shape"] == "yin-yang"] == [
        ("eventnet", "new"),
        ("norse", "abc"),
    ]
    untouched = "after\n<!-- accuracy:begin -->\nx\n<!-- accuracy:end -->\n"
    text = "before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\n" + untouched
    filled = tables.fill(text, tmp_path)
    assert "old" not in filled
    assert "50 / 33×" in filled
    assert "| shape | eventnet, forward + backward | DCLS | Norse |" in filled
    assert "| speech-delays-30, 1 ms | 2 ms, 1 MB | 50 / 33×, 1 MB |  |" in filled
    assert filled.startswith("before\n") and untouched in filled
    assert "| yin-yang, 1 ms | 2 ms |  | 50× (Norse) |  | 1× |" in tables.brief_speed_table(tmp_path).splitlines()
    assert tables.fill(filled, tmp_path) == filled
    with pytest.raises(ValueError, match="pair"):
        tables.fill("<!-- speed:begin -->", tmp_path)


@pytest.mark.parametrize("name", fidelity.CHECKS)
def test_the_ledger_keeps_its_tolerances(name: str) -> None:
    try:
        row = fidelity.CHECKS[name](os.environ.get("EVENTNET_DATA"))
    except ledger.NotHere as missing:
        pytest.skip(f"{missing} is not here")
    assert row.error <= row.tolerance, row


def test_a_row_without_its_reference_keeps_its_last_result() -> None:
    def gone(_: str | None) -> ledger.Row:
        raise ledger.NotHere("the simulator")

    def here(_: str | None) -> ledger.Row:
        return ledger.Row("LIF", "reference", "times, s", 2e-3, 1e-3, "3 spikes")

    known = {"gone": {"date": "2020-01-01"}, "removed": {}}
    rows = ledger.run({"gone": gone, "new": gone, "here": here}, None, known)
    assert list(rows) == ["gone", "here"]
    assert rows["gone"] == {"date": "2020-01-01"}
    assert "**2.0e-03**" in ledger.markdown({"here": rows["here"]})  # a miss stands out
    nan = rows["here"] | {"error": float("nan")}
    assert "**nan**" in ledger.markdown({"here": nan})


def test_spike_trains_differ_by_their_largest_error_or_their_number() -> None:
    one = Events.from_list([([0.1, 0.2, 0.3], [0, 1, 0]), ([0.1], [1])], 2, 1.0, dtype=torch.float64)
    other = Events.from_list([([0.1, 0.25, 0.3], [0, 1, 0]), ([0.1], [1])], 2, 1.0, dtype=torch.float64)
    assert fidelity.largest(fidelity.trains(one), fidelity.trains(other)) == pytest.approx(0.05)
    assert fidelity.largest(fidelity.trains(one), fidelity.trains(one.keep(one.times < 0.3))) == float("inf")


def finished_run(folder: Path, seed: int, score: float, **changes: object) -> Path:
    folder.mkdir(parents=True)
    files = {
        "config": {"recipe": {"name": "small", "seed": seed, "epochs": 2} | changes, "data": "some"},
        "environment": {"torch": "2"},
        "result": {"best_epoch": 1, "validation_accuracy": 0.8, "seconds": 1.0, "test": {"accuracy": score}},
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "metrics.csv").write_text("epoch,validation_loss\n1,0.5\n2,0.6\n")
    return folder


def test_accuracy_collects_runs_and_refuses_to_mix_settings(tmp_path: Path, monkeypatch) -> None:
    runs = {seed: finished_run(tmp_path / str(seed), seed, 0.9 + 0.01 * seed) for seed in (0, 1, 2)}
    published = {"accuracy": 0.92, "source": "somebody"}
    monkeypatch.setattr(accuracy, "PUBLISHED", {"small": published})
    monkeypatch.setattr(accuracy, "load_model", lambda folder: (torch.nn.Linear(2, 3), {}))
    collected = accuracy.collect("small", runs)
    assert [(run["parameters"], run["validation_loss"]) for run in collected["runs"]] == [(9, 0.5)] * 3
    assert collected["mean"] == pytest.approx(0.91)
    assert collected["standard_deviation"] == pytest.approx(0.01)
    assert collected["met"] is True
    assert accuracy.summary([0.9, 0.901, 0.902], published)["met"] is False
    runs[3] = finished_run(tmp_path / "3", 3, 0.9, epochs=5)
    with pytest.raises(ValueError, match=r"seeds 0 and 3 differ in epochs"):
        accuracy.collect("small", runs)


def test_accuracy_of_older_runs_is_that_of_the_same_settings(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(accuracy, "load_model", lambda folder: (torch.nn.Linear(2, 3), {}))
    new = {"family": "spiking", "best": "accuracy"}
    runs = {0: finished_run(tmp_path / "0", 0, 0.9), 1: finished_run(tmp_path / "1", 1, 0.8, **new)}
    assert accuracy.collect("small", runs)["mean"] == pytest.approx(0.85)


def test_gated_recipes_have_a_table_of_their_own(tmp_path: Path) -> None:
    test = {"activity": 0.2, "backward_activity": 0.5, "multiplications": 250.0, "dense_multiplications": 1000.0}
    run = {"test_accuracy": 0.9, "validation_loss": 0.123456, "parameters": 1234, "test": test}
    for name, recipe in (
        ("rows", {"family": "gated", "unit": "egru", "hidden": [64, 64]}),
        ("rows_gru", {"family": "gated", "unit": "gru", "hidden": [64, 64]}),
        ("plain", {}),
    ):
        (tmp_path / "accuracy").mkdir(exist_ok=True)
        (tmp_path / "accuracy" / f"{name}.json").write_text(json.dumps({"runs": [{**run, "recipe": recipe}]}))
    gated = tables.gated_table(tmp_path).splitlines()
    assert (
        len(gated) == 4
        and "| rows | 64-64 EGRU | 1,234 | 1 | 90.00 % | 0.1235 | 20.0% | 50.0% | 250 (25% of the" in gated[2]
    )
    assert "| rows_gru | 64-64 GRU |" in gated[3]
    spiking = tables.accuracy_table(tmp_path)
    assert "| plain | 90.00 % |" in spiking and "rows" not in spiking
    assert tables.gated_table(tmp_path / "nothing") is None


def test_accuracy_starts_resumes_and_keeps_runs(tmp_path: Path, monkeypatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(
        accuracy.subprocess, "run", lambda command: calls.append(command) or argparse.Namespace(returncode=0)
    )
    monkeypatch.setattr(accuracy, "commit", lambda: "abc")
    finished_run(tmp_path / "0", 0, 0.9)
    finished_run(tmp_path / "1", 1, 0.9)
    (tmp_path / "1" / "result.json").unlink()
    for seed in (0, 1, 2):
        accuracy.train("small", seed, tmp_path / str(seed), "DATA", ["batch_size=8", "recurrent=yes", "delay=0,0.03"])
    resumed, started = (call[len(accuracy.EVENTNET) :] for call in calls)
    assert resumed == ["train", "small", "--resume", str(tmp_path / "1"), "--data-root", "DATA"]
    assert started[:2] == ["train", "small"]
    assert started[started.index("--seed") + 1] == "2"
    assert {"--batch-size=8", "--recurrent", "--delay=0,0.03"} <= set(started)
    assert accuracy.commits(tmp_path / "2") == ["abc"]


def test_the_linear_floor_sees_counts_and_latencies() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(300, 2, generator=generator)
    labels = (points[:, 0] > points[:, 1]).long()
    by_time = Events.from_latency(points, 0.0, 0.02)
    samples = [([0.001 * k for k in range(int(9 * y) + 1)], [0] * (int(9 * y) + 1)) for y in labels.tolist()]
    by_count = Events.from_list(samples, 2, 0.02)
    for events, expected in ((by_time, "ridge on first times"), (by_count, "ridge on event counts")):
        parts = {
            name: argparse.Namespace(events=events[part], labels=labels[part])
            for name, part in (
                ("train", slice(0, 150)),
                ("validation", slice(150, 200)),
                ("test", slice(200, 300)),
            )
        }
        score, what = accuracy.linear_floor(argparse.Namespace(**parts))
        assert what == expected
        assert score > 0.9


def test_the_linear_floor_of_steps_sees_when(monkeypatch) -> None:
    """The class is the step of the only event; counts are the same for all."""
    classes = torch.arange(60) % 3
    events = Events.from_list([([0.01 * int(k)], [0]) for k in classes], 1, [0.03] * 60)
    parts = {name: argparse.Namespace(events=events, labels=classes) for name in ("train", "validation", "test")}
    assert accuracy.linear_floor(argparse.Namespace(**parts), step=0.01) == (1.0, "ridge on all steps")
    monkeypatch.setattr(accuracy, "MOST", 100)
    assert accuracy.linear_floor(argparse.Namespace(**parts), step=0.01) is None


def test_the_linear_floor_of_labelled_steps_sees_traces() -> None:
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(60, generator=generator) * 0.1
    events = Events.from_list([([float(t)], [0]) for t in times], 1, 0.1)
    labels = (torch.arange(1, 11) * 0.01 > times[:, None]).long()  # whether the event has been
    cuts = {"train": slice(0, 30), "validation": slice(30, 40), "test": slice(40, 60)}
    parts = {name: argparse.Namespace(events=events[cut], labels=labels[cut]) for name, cut in cuts.items()}
    score, what = accuracy.linear_floor(argparse.Namespace(**parts))
    assert what == "ridge on 5 traces per unit"
    assert score > 0.95


def test_the_picture_is_the_one_of_the_run(tmp_path: Path, monkeypatch) -> None:
    drawn = tmp_path / "run" / "plots" / "activity.png"
    drawn.parent.mkdir(parents=True)
    drawn.write_bytes(b"picture")
    monkeypatch.setattr(picture, "PICTURE", tmp_path / "readme.png")
    monkeypatch.setattr(picture, "write_report", lambda run, path: None)  # needs a real run and a browser
    monkeypatch.setattr("sys.argv", ["picture.py", str(tmp_path / "run")])
    picture.main()
    assert picture.PICTURE.read_bytes() == b"picture"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["readme.png", "run"]


def test_the_readmes_are_up_to_date() -> None:
    for readme in tables.READMES:
        if not readme.exists():
            pytest.skip("no README.md in this installation")
        assert tables.fill(readme.read_text()) == readme.read_text(), "run python benchmarks/tables.py"


# ---- one speaker left out ---------------------------------------------------------------------------------


def beeps(size: int) -> data.Splits:
    """Two classes that differ in the order of two units."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(size) % 2
    first = 0.02 + 0.02 * torch.rand(size, generator=generator)
    samples = [([t, t + 0.05], [y, 1 - y]) for t, y in zip(first.tolist(), labels.tolist(), strict=True)]
    parts = [data.EventDataset(Events.from_list(samples, 2, 0.15), labels)] * 3
    return data.Splits(*parts, name="beeps", num_units=2, num_classes=2, sensor_size=None, note="made here")


def test_a_gru_learns_an_order_and_repeats_itself() -> None:
    options = dict(seed=1, epochs=25, learning_rate=1e-2, batch_size=8, dropout=0.0, shift=0)
    found, again = (gru.train(beeps(32), 300, **options) for _ in range(2))
    assert found["test_accuracy"] == 1 and 200 < found["parameters"] <= 300
    assert {**found, "seconds": 0} == {**again, "seconds": 0}
    assert found["settings"] == options


@pytest.mark.parametrize("parameters", [5_000, 250_000, 1_000_000])
def test_the_gru_has_as_many_parameters_as_asked_for(parameters: int) -> None:
    sizes = [gru.size_for(parameters, 700, 10) + more for more in (0, 1)]
    fits, larger = (sum(p.numel() for p in gru.BinnedGRU(700, h, 10).parameters()) for h in sizes)
    assert fits <= parameters < larger


def test_folds_are_run_once_and_make_a_table(tmp_path: Path, monkeypatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(
        fsdd_folds.subprocess, "run", lambda command: calls.append(command) or argparse.Namespace(returncode=0)
    )
    monkeypatch.setattr(accuracy, "commit", lambda: "abc")
    fsdd_folds.run("fsdd", "theo", 3, tmp_path, "DATA", ["epochs=1"])
    fsdd_folds.run("gru", "theo", 3, tmp_path, "DATA", ["epochs=1"])
    spiking, dense = calls
    assert "--epochs" not in dense
    for contender in ("fsdd", "gru"):
        fsdd_folds.run(contender, "lucas", 3, tmp_path, "DATA", [], epochs=7)
    short, short_dense = calls[2:]
    decay = next(float(x.partition("=")[2]) for x in short if x.startswith("--learning-rate-decay"))
    whole = find("fsdd")
    assert "--epochs=7" in short and decay**7 == pytest.approx(whole.learning_rate_decay**whole.epochs, rel=1e-2)
    assert short_dense[short_dense.index("--epochs") + 1] == "7"
    assert {"--data-options=speaker=theo", "--epochs=1", "--seed"} <= set(spiking)
    assert spiking[spiking.index("--out") + 1] == str(tmp_path / "fsdd-theo-3")
    assert dense[dense.index("--fold") + 1] == "theo" and dense[dense.index("--seeds") + 1] == "3"
    (tmp_path / "gru-theo-3").mkdir()
    (tmp_path / "gru-theo-3" / "result.json").write_text(json.dumps({"test_accuracy": 0.5, "parameters": 1000}))
    folder = fsdd_folds.run("gru", "theo", 3, tmp_path, "DATA", [])
    assert len(calls) == 4  # what is finished is kept
    fold = fsdd_folds.read("gru", "theo", 3, folder)
    spiking_fold = {"contender": "fsdd", "speaker": "george", "seed": 3, "test_accuracy": 0.6, "parameters": 900}
    folds = fsdd_folds.merged([fold], [spiking_fold, {**fold, "test_accuracy": 0.7}])
    lines = tables.fold_table(folds).splitlines()
    assert lines[0] == "| contender | parameters | george | theo | mean | spikes per digit |"
    assert lines[2:] == ["| fsdd | 900 | 60.0 % |  |  |  |", "| gru | 1,000 |  | 70.0 % |  |  |"]


def test_the_gru_of_a_fold_is_as_large_as_the_recurrent_network(tmp_path: Path, monkeypatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(fsdd_folds.data, "load", lambda name, root, **options: asked.update(options) or beeps(8))
    monkeypatch.setattr(fsdd_folds.gru, "train", lambda splits, size, **options: {"size": size, **options})
    fsdd_folds.gru_fold("ben", 2, tmp_path / "fold", None)
    found = json.loads((tmp_path / "fold" / "result.json").read_text())
    hidden = find("fsdd_recurrent").hidden[0]
    assert found["size"] == hidden * (2 + hidden + 2) and found["seed"] == 2 and found["data"] == "made here"
    assert asked["speaker"] == "ben" and asked["seed"] == 2


# ---- every recipe at a declared size ----------------------------------------------------------------------


@pytest.mark.slow
def test_the_suite_trains_counts_and_tabulates(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(suite, "RESULTS", tmp_path / "results" / "suite")
    monkeypatch.setattr(
        suite, "SIZES", {"quick": {"train": ["--epochs", "1", "--hidden", "20"], "benchmark": ["--limit", "9"]}}
    )
    monkeypatch.setattr(tables, "update", lambda: [])
    monkeypatch.setattr(
        "sys.argv", ["suite.py", "digits", "nmnist", "--runs", str(tmp_path), "--data-root", str(tmp_path)]
    )
    suite.main()
    assert [path.name for path in suite.RESULTS.iterdir()] == ["digits.json"]  # there is no N-MNIST in that folder
    found = json.loads((suite.RESULTS / "digits.json").read_text())
    assert found["benchmark"]["identity"]["samples"] == 9 and found["peak_bytes"] > 50e6
    row = tables.suite_table(tmp_path / "results").splitlines()[-1]
    assert row.startswith("| digits | quick | ") and f"{found['test']['accuracy']:.2%}" in row
    assert "J" in row and "MiB" in row and f" of {found['test']['samples']} |" in row and " of 9 |" in row
    assert row.count("J |") == 3  # the network, and both dense ones
    assert not list(tmp_path.rglob("*.part")) and found["commit"] == found["benchmark_commit"]
    memory = tmp_path / "quick" / "digits.memory.json"
    memory.write_text(json.dumps(json.loads(memory.read_text()) | {"commit": "as it was trained"}))
    suite.main()  # the finished run is kept
    again = json.loads((suite.RESULTS / "digits.json").read_text())
    assert again["train_seconds"] == found["train_seconds"] and again["commit"] == "as it was trained"


def test_a_quick_training_of_the_suite_has_two_epochs(tmp_path: Path, monkeypatch) -> None:
    """Also of a recipe that has tasks: of these one epoch each. The full one is the recipe."""
    trained: list[Recipe] = []
    monkeypatch.setattr(cli, "_run", lambda recipe, folder, **options: (trained.append(recipe), folder.mkdir()))
    monkeypatch.setattr(suite, "run", lambda command: (cli.main(command), 1.0, 5))
    for name in ("digits", "permuted_mnist"):
        for size in suite.SIZES:
            suite.train(name, size, tmp_path / f"{name}-{size}", tmp_path / "memory.json", [])
        quick, full = trained[-2:]
        assert quick.name == name and quick.total_epochs == 2 and full == find(name)
    assert (quick.tasks, quick.epochs) == (2, 1)


def test_a_training_of_the_suite_is_finished_only_with_its_memory(tmp_path: Path, monkeypatch) -> None:
    """Stopped before the memory was written, the run has not got its name; and the training is not done again."""
    folder, memory, calls = tmp_path / "digits", tmp_path / "digits.memory.json", []

    def run(command: list[str]) -> tuple[int, float, int]:
        calls.append(command)
        part = Path(command[-1])
        part.mkdir()
        (part / "result.json").write_text("{}")
        return 0, 1.0, 5

    def stopped(contents) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "run", run)
    with monkeypatch.context() as broken:
        broken.setattr(suite, "write_files", stopped)
        with pytest.raises(KeyboardInterrupt):
            suite.train("digits", "quick", folder, memory, [])
    assert not folder.exists() and not memory.exists()
    suite.train("digits", "quick", folder, memory, [])
    assert (
        len(calls) == 1 and (folder / "result.json").is_file() and json.loads(memory.read_text())["peak_bytes"] is None
    )
