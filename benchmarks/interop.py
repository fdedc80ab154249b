"""Networks of snnTorch and Norse beside ours: what a step costs in spike times, and what exact gradients make of a trained one.

    python benchmarks/interop.py error [--save]                        spike-time error against the step, from 2 ms to 10 us
    python benchmarks/interop.py finetune --data digits [--save]       trained in snnTorch, converted, trained on
    python benchmarks/interop.py finetune --data nmnist --data-root FOLDER [--save]

``error`` converts one network of ours, 30-40-20, and compares it on the same events. The k-th spike of each neuron there is
compared with the k-th here; "unpaired" ones have no partner. A grid tells a spike at the start of its step.

``finetune`` trains 100 Synaptic neurons and a readout in snnTorch at step dt (its default surrogate gradient), converts them and
trains on with exact gradients; the control trains on in snnTorch for as many epochs. Adam's steps are in units of the parameters,
so ``--rate-here`` is multiplied by what the conversion multiplied each parameter by. Its default, a tenth of the rate there, was
chosen on validation samples of N-MNIST: at the full rate the exact gradients, larger where spikes barely reach the threshold,
undo more than they mend. FOLDER has ``nmnist_1k``.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from measure import commit, machine
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from eventnet import LIF, Events, data
from eventnet.data.dataset import EventDataset
from eventnet.files import write_files
from eventnet.interop import Report, from_snntorch, to_norse, to_snntorch

RESULT = Path(__file__).with_name("results") / "interop.json"
PICTURE = RESULT.with_suffix(".png")
STEPS = (2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5)
DURATION, SAMPLES, SIZES = 0.1, 4, (30, 40, 20)
TAU_MEM, TAU_SYN = 20e-3, 5e-3
SCALE = 5.0  # of the mean voltage in the cross-entropy


# ---- the error of a step ----------------------------------------------------------------------------------------------------


def a_network(recurrent: bool) -> list[LIF]:
    """In float64, with weights that make a neuron fire a few times in a sample."""
    torch.manual_seed(0)
    own = {"tau_mem": TAU_MEM, "tau_syn": TAU_SYN, "dtype": torch.float64}
    layers = [LIF(SIZES[0], SIZES[1], recurrent=recurrent, **own), LIF(SIZES[1], SIZES[2], **own)]
    with torch.no_grad():
        for layer, scale in zip(layers, (6.0, 9.0), strict=True):
            layer.weight.mul_(scale)
    return layers


def a_probe() -> Events:
    """Events at whole milliseconds, which all steps share but that of 2 ms."""
    generator = torch.Generator().manual_seed(1)
    raster = torch.rand(round(DURATION / 2e-3), SAMPLES, SIZES[0], generator=generator) < 0.08
    return Events.from_dense(raster.double(), 2e-3)


def a_leaky(dt: float) -> nn.Module:
    """The same model at every step: its jumps and its decay in seconds do not depend on it."""
    import snntorch as snn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZES[0], SIZES[1], bias=False), snn.Leaky(beta=math.exp(-dt / TAU_MEM)))
    with torch.no_grad():
        model[0].weight.mul_(5.0)
    return model.double()


def conversions() -> dict[str, Callable[[float, Events], Report]]:
    """From a step and a probe to a report."""

    def snntorch(recurrent: bool, **reset: Any) -> Callable[[float, Events], Report]:
        return lambda dt, probe: to_snntorch(a_network(recurrent), dt, probe=probe, **reset)[1]

    def norse(recurrent: bool) -> Callable[[float, Events], Report]:
        return lambda dt, probe: to_norse(a_network(recurrent), dt, probe=probe)[1]

    return {
        "snnTorch Synaptic, subtract, a step late": snntorch(False),
        "snnTorch Synaptic, subtract, at once": snntorch(False, reset_delay=False),
        "snnTorch Synaptic, zero, a step late": snntorch(False, reset_mechanism="zero"),
        "snnTorch RSynaptic": snntorch(True),
        "snnTorch Leaky, tau_syn = dt": lambda dt, probe: from_snntorch(a_leaky(dt), dt, tau_syn=dt, probe=probe)[1],
        "Norse LIF": norse(False),
        "Norse LIFRecurrent": norse(True),
    }


def errors() -> list[dict[str, Any]]:
    """One row per conversion, step and layer."""
    rows, probe = [], a_probe()
    for name, convert in conversions().items():
        for dt in STEPS:
            for number, layer in enumerate(convert(dt, probe).layers, 1):
                assert layer.spikes is not None
                rows.append(
                    {
                        "conversion": name,
                        "dt": dt,
                        "layer": number,
                        "first_error": layer.first_error,
                        "median_error": layer.error[0],
                        "largest_error": layer.error[1],
                        "spikes_there": layer.spikes[0],
                        "spikes_here": layer.spikes[1],
                        "unpaired": layer.unpaired,
                        "voltage_error": layer.voltage_error,
                    }
                )
                print(f"{name:42} {1e3 * dt:6g} ms  layer {number}  {line_of(rows[-1])}", flush=True)
    return rows


def line_of(row: dict[str, Any]) -> str:
    return (
        f"median {1e6 * row['median_error']:8.2f} us, first {1e6 * row['first_error']:9.1f} us, spikes {row['spikes_there']:5} "
        f"{row['spikes_here']:5}, unpaired {row['unpaired']:4}, voltages {row['voltage_error']:.1e}"
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Error and share of unpaired spikes against the step, of the last layer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
    for color, name in enumerate(dict.fromkeys(row["conversion"] for row in rows)):
        deepest = max(row["layer"] for row in rows if row["conversion"] == name)
        own = [row for row in rows if row["conversion"] == name and row["layer"] == deepest]
        steps = [row["dt"] for row in own]
        style = {"color": f"C{color}", "marker": "o", "markersize": 3.5, "linewidth": 1.2}
        axes[0].loglog(steps, [row["median_error"] for row in own], label=f"{name} (layer {deepest})", **style)
        share = [100 * row["unpaired"] / (row["spikes_there"] + row["spikes_here"]) for row in own]
        axes[1].semilogx(steps, share, **style)
    axes[0].loglog(STEPS, [dt / 2 for dt in STEPS], color="0.6", linestyle="--", linewidth=1, label="half a step")
    axes[0].set_ylabel("spike-time error, median (s)")
    axes[1].set_ylabel("spikes without a partner (%)")
    for axis in axes:
        axis.set_xlabel("step (s)")
        axis.grid(True, alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7.5, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    plt.close(figure)
    write_files({path: picture.getvalue()})


# ---- trained there, trained on here -----------------------------------------------------------------------------------------


class There:
    """100 Synaptic neurons and a readout in snnTorch, at a step."""

    def __init__(self, num_in: int, classes: int, dt: float) -> None:
        import snntorch as snn

        decay = {"alpha": math.exp(-dt / TAU_SYN), "beta": math.exp(-dt / TAU_MEM)}
        self.dt = dt
        self.model = nn.Sequential(
            nn.Linear(num_in, 100), snn.Synaptic(**decay), nn.Linear(100, classes), snn.Synaptic(**decay, reset_mechanism="none")
        )  # fmt: skip

    def __call__(self, events: Events) -> tuple[Tensor, Tensor]:
        """Mean readout voltage ``(B, classes)`` and spikes of the hidden layer per sample."""
        drive = self.model[0](events.to_dense(self.dt))
        spikes, (syn, mem) = [], (torch.zeros_like(drive[0]), torch.zeros_like(drive[0]))
        for x in drive:
            spk, syn, mem = self.model[1](x, syn, mem)
            spikes.append(spk)
        raster = torch.stack(spikes)
        drive, voltages = self.model[2](raster), []
        syn = mem = torch.zeros_like(drive[0])
        for x in drive:
            _, syn, mem = self.model[3](x, syn, mem)
            voltages.append(mem)
        return torch.stack(voltages).mean(0), raster.detach().sum((0, 2))

    def learnt(self) -> list[nn.Parameter]:
        return [p for layer in (self.model[0], self.model[2]) for p in (layer.weight, layer.bias)]


class Here:
    """The same converted."""

    def __init__(self, there: There, probe: Events) -> None:
        self.network, self.report = from_snntorch(there.model, there.dt, probe=probe)

    def __call__(self, events: Events) -> tuple[Tensor, Tensor]:
        spikes = self.network[0](events)
        return self.network[1](spikes).mean(), spikes.lengths

    def learnt(self) -> list[nn.Parameter]:
        return [p for layer in self.network for p in (layer.weight, layer.bias)]


Network = There | Here


def measured(network: Network, part: EventDataset) -> dict[str, float]:
    """Accuracy and hidden spikes per sample."""
    right, spikes = 0, 0.0
    with torch.no_grad():
        for index in torch.arange(len(part)).split(100):
            events, labels = part.__getitems__(index.tolist())
            voltage, fired = network(events)
            right += int((voltage.argmax(1) == labels).sum())
            spikes += float(fired.sum())
    return {"accuracy": right / len(part), "spikes": spikes / len(part)}


def trained(network: Network, part: EventDataset, groups: list[dict[str, Any]], epochs: int, batch: int) -> list[float]:
    """Seconds of each epoch."""
    optimizer, taken = torch.optim.Adam(groups, betas=(0.9, 0.99)), []
    for _ in range(epochs):
        start = time.perf_counter()
        for index in torch.randperm(len(part)).split(batch):
            events, labels = part.__getitems__(index.tolist())
            loss = cross_entropy(SCALE * network(events)[0], labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        taken.append(time.perf_counter() - start)
    return taken


def finetuned(
    splits: data.Splits, dt: float, seed: int, epochs: int, more: int, rate: float, rate_here: float
) -> Iterator[dict[str, Any]]:
    """Rows: in snnTorch, converted, trained on here, trained on there."""
    torch.manual_seed(seed)
    batch = 32
    there = There(splits.num_units, splits.num_classes, dt)
    setting = {"data": splits.name, "dt": dt, "seed": seed}
    taken = trained(there, splits.train, [{"params": there.learnt(), "lr": rate}], epochs, batch)
    yield {**setting, "row": "snnTorch", "seconds": statistics.median(taken), **measured(there, splits.test)}
    here = Here(there, splits.train.__getitems__(list(range(4)))[0])
    yield {**setting, "row": "converted", "seconds": None, **measured(here, splits.test)}
    control = copy.deepcopy(there)
    pairs = zip(here.learnt(), there.learnt(), strict=True)
    groups = [{"params": [p], "lr": rate_here * (p.norm() / q.norm()).item()} for p, q in pairs]
    taken = trained(here, splits.train, groups, more, batch)
    yield {**setting, "row": "trained on here", "seconds": statistics.median(taken), **measured(here, splits.test)}
    taken = trained(control, splits.train, [{"params": control.learnt(), "lr": rate}], more, batch)
    yield {**setting, "row": "trained on there", "seconds": statistics.median(taken), **measured(control, splits.test)}


def finetuning(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows of one data set."""
    splits = data.load(args.data, root=None if args.data == "digits" else Path(args.data_root) / "nmnist_1k")
    rows = []
    for dt in args.dt:
        for seed in args.seeds:
            for row in finetuned(splits, dt, seed, args.epochs, args.more, args.rate, args.rate_here):
                rows.append(
                    row | {"epochs": args.epochs, "more": args.more, "rate": args.rate, "rate_here": args.rate_here}
                )
                took = "" if row["seconds"] is None else f"{row['seconds']:6.2f} s per epoch"
                print(
                    f"{row['data']} {1e3 * dt:g} ms seed {seed} {row['row']:18} {100 * row['accuracy']:5.1f} %  "
                    f"{row['spikes']:7.1f} spikes  {took}",
                    flush=True,
                )
    return rows


def save(part: str, rows: list[dict[str, Any]]) -> None:
    """Keep the rows; of ``finetune`` instead of earlier ones of the same data, step and seed, beside all others."""
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    new = {_run_of(row) for row in rows}
    old = [row for row in kept.get(part, {"rows": []})["rows"] if part == "finetune" and _run_of(row) not in new]
    kept[part] = {"machine": machine(), "commit": commit(), "rows": old + rows}
    write_files({RESULT: (json.dumps(kept, indent=1) + "\n").encode()})


def table(found: dict[str, Any]) -> str:
    """What was kept: spikes against the step, networks before and after training on."""
    parts = [error_table(found["error"]["rows"])] if "error" in found else []
    parts += [finetune_table(found["finetune"]["rows"])] if "finetune" in found else []
    return "\n\n".join(parts)


def error_table(rows: list[dict[str, Any]]) -> str:
    """Of the last layer of each conversion, at some steps."""
    last = {row["conversion"]: row["layer"] for row in rows}
    rows = [row for row in rows if row["layer"] == last[row["conversion"]]]
    steps = [dt for dt in (1e-3, 1e-4, 1e-5) if any(row["dt"] == dt for row in rows)]
    lines = [
        "| converted | layer | median error, spikes there / here: "
        + " | ".join(f"{1e3 * dt:g} ms" for dt in steps)
        + " |",
        "|---|---|" + "---|" * len(steps),
    ]
    for conversion, layer in last.items():
        of = {row["dt"]: row for row in rows if row["conversion"] == conversion}
        cells = [
            f"{1e6 * of[dt]['median_error']:.0f} us, {of[dt]['spikes_there']} / {of[dt]['spikes_here']}"
            if dt in of
            else ""
            for dt in steps
        ]
        lines.append(f"| {conversion} | {layer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def finetune_table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds."""
    lines = [
        "| data, step | network | test accuracy | hidden spikes per sample | seconds per epoch | seeds |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["dt"], row["row"]), []).append(row)
    for (name, dt, what), found in groups.items():
        accuracy, spikes = (statistics.mean(row[key] for row in found) for key in ("accuracy", "spikes"))
        taken = [row["seconds"] for row in found if row["seconds"] is not None]
        seconds = f"{statistics.mean(taken):.2f}" if taken else ""
        lines.append(f"| {name}, {1e3 * dt:g} ms | {what} | {accuracy:.1%} | {spikes:.0f} | {seconds} | {len(found)} |")
    return "\n".join(lines)


def _run_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("data", "dt", "seed"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("error", "finetune"))
    parser.add_argument("--data", choices=("digits", "nmnist"), default="digits")
    parser.add_argument("--data-root", help="folder with nmnist_1k")
    parser.add_argument("--dt", type=float, nargs="+", default=[1e-3, 4e-3], help="seconds per step of snnTorch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=20, help="in snnTorch, before the conversion")
    parser.add_argument("--more", type=int, default=10, help="epochs after it")
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam's in snnTorch")
    parser.add_argument("--rate-here", type=float, default=2e-4, help="Adam's here, in units of snnTorch's parameters")
    parser.add_argument("--save", action="store_true", help="keep the result in results/")
    args = parser.parse_args()
    if args.part == "error":
        rows = errors()
        if args.save:
            draw(rows, PICTURE)
    else:
        rows = finetuning(args)
    if args.save:
        save(args.part, rows)


if __name__ == "__main__":
    main()
