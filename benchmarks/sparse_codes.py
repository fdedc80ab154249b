"""SegmentPool against a dense matrix product, and how often it is right against what theory says.

Speed: 100,000 segments of 40 synapses, codes of 2,000 out of 100,000 units. The dense product, codes (B, units) by weights
(units, segments) in float32, would need 40 GB of weights, so it is measured on a slice of the segments and its time is scaled
by their number; the slice's overlaps are compared with the pool's. Memory is what the peak grows by during a call.

Accuracy: shares of (segment, code) pairs in pools that learnt random patterns, with three standard errors, on the formulas of
eventnet.layers.sparse_codes.

    python benchmarks/sparse_codes.py [--save] [--draw]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from measure import commit, machine, peak_growth, seconds
from torch import Tensor

from eventnet.layers.codes import Codes
from eventnet.layers.segments import SegmentPool
from eventnet.layers.sparse_codes import false_match, false_negative

RESULT = Path(__file__).resolve().parent / "results" / "sparse_codes.json"
SEGMENTS, SYNAPSES, UNITS, ACTIVE, THRESHOLD = 100_000, 40, 100_000, 2000, 8
SLICE = 1000  # segments of the dense product
BATCHES = (16, 64, 256)
POOL, CODES = 4000, 500  # segments and codes of the accuracies: two million pairs


def dense(batch: Tensor, pool: SegmentPool) -> tuple[float, Tensor]:
    """Seconds of the product for all segments, scaled from a slice of them, and the overlaps of the slice."""
    weight = torch.zeros(UNITS, SLICE)
    weight[pool.units[:SLICE].T.long(), torch.arange(SLICE)] = 1.0
    codes = torch.zeros(batch.shape[0], UNITS).scatter_(1, batch, 1.0)
    taken = seconds(lambda: codes @ weight, warm_up=1, repeats=3)
    return taken.best * SEGMENTS / SLICE, (codes @ weight).to(torch.int32)


def speed() -> dict[str, Any]:
    """Seconds per code and bytes, for each size of batch."""
    generator = torch.Generator().manual_seed(0)
    pool = SegmentPool(SEGMENTS, UNITS, SYNAPSES)
    pool.learn(range(SEGMENTS), Codes.random(SEGMENTS, UNITS, SYNAPSES, generator=generator))
    nothing = Codes.from_list([[]], UNITS)

    def index_anew() -> None:
        pool.load_state_dict(pool.state_dict())  # which forgets the index
        pool(nothing)

    index = seconds(index_anew, warm_up=1, repeats=3).best
    ten, shown = (Codes.random(size, UNITS, ACTIVE, generator=generator) for size in (10, 1))

    def online() -> None:
        pool.reinforce(range(10), ten, up=0.0, down=0.0)  # nothing moves, but the segments are indexed anew
        pool(shown)

    step = seconds(online, warm_up=1, repeats=5).best
    rows = []
    for size in BATCHES:
        codes = Codes.random(size, UNITS, ACTIVE, generator=generator)
        product, expected = dense(codes.units.reshape(size, ACTIVE), pool)
        if not torch.equal(pool(codes)[:, :SLICE], expected):
            raise RuntimeError("the pool's overlaps are not those of the dense product: no speed to report")
        row: dict[str, Any] = {"batch": size, "dense": product / size}
        for name, call in (("overlap", lambda: pool(codes)), ("active", lambda: pool.active(codes, THRESHOLD))):  # noqa: B023
            taken = seconds(call, warm_up=1, repeats=5).best / size
            row[name] = {"seconds": taken, "times_dense": product / size / taken, "peak_bytes": peak_growth(call)}
            print(
                f"batch {size:3}: {name:7} {1e3 * taken:6.2f} ms a code, dense {1e3 * product / size:6.0f} ms (scaled from "
                f"{SLICE} segments): {product / size / taken:4.0f} times; peak {row[name]['peak_bytes'] / 2**20:.0f} MiB"
            )
        rows.append(row)
    held = 8 * SEGMENTS * SYNAPSES
    print(f"index made in {index:.2f} s; a step that changes 10 segments and shows one code {1e3 * step:.1f} ms")
    print(f"synapses {held / 2**20:.0f} MiB; dense weights {4 * SEGMENTS * UNITS / 1e9:.0f} GB")
    seconds_of = {"index_seconds": index, "online_step_seconds": step}
    return {"threads": torch.get_num_threads(), "pool_bytes": held} | seconds_of | {"rows": rows}


def point(x: int, hits: Tensor, theory: float) -> dict[str, Any]:
    """The share of the pairs that are hits, its three standard errors (of theory's share), and theory."""
    share, pairs = hits.double().mean().item(), hits.numel()
    return {
        "x": x,
        "share": share,
        "error": 3 * math.sqrt(theory * (1 - theory) / pairs),
        "theory": theory,
        "pairs": pairs,
    }


def false_matches(n: int, a: int, s: int, theta: int, generator: torch.Generator) -> dict[str, Any]:
    """Random codes in front of segments that store one pattern each."""
    pool = SegmentPool(POOL, n, s)
    pool.learn(range(POOL), Codes.random(POOL, n, a, generator=generator), s, generator=generator)
    overlap = pool(Codes.random(CODES, n, a, generator=generator))
    return point(n, overlap >= theta, false_match(n, a, s, theta).item())


def false_negatives(n: int, a: int, s: int, theta: int, lost: int, generator: torch.Generator) -> dict[str, Any]:
    """Noisy versions of a pattern in front of segments that each sampled it."""
    pattern = Codes.random(1, n, a, generator=generator).units
    pool = SegmentPool(POOL, n, s)
    pool.learn(range(POOL), pattern.expand(POOL, a), s, generator=generator)
    kept = pattern[torch.rand(CODES, a, generator=generator).argsort(1)[:, lost:]]
    others = torch.rand(CODES, n, generator=generator).index_fill_(1, pattern, -1.0).topk(lost, 1).indices
    missed = pool(torch.cat([kept, others], 1)) < theta
    return point(lost, missed, false_negative(a, s, theta, lost).item())


def unions(n: int, a: int, s: int, theta: int, most: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """Random codes in front of segments that store more and more patterns; theory for the mean size of the unions."""
    pool = SegmentPool(POOL, n, s * most)
    codes, found = Codes.random(CODES, n, a, generator=generator), []
    for patterns in range(1, most + 1):
        pool.learn(range(POOL), Codes.random(POOL, n, a, generator=generator), s, generator=generator)
        row = point(patterns, pool(codes) >= theta, false_match(n, a, s, theta, patterns=patterns).item())
        found.append(row | {"theory_of_sizes": false_match(n, a, pool.sizes(), theta).mean().item()})
    return found


def accuracy() -> dict[str, Any]:
    """The points of the picture: by name of the panel, then by threshold or by active units."""
    generator = torch.Generator().manual_seed(1)
    matches = {
        f"a = {a}": [false_matches(n, a, 24, 12, generator) for n in range(250, most, 50)]
        for a, most in ((64, 600), (128, 1050))
    }
    misses = {
        f"theta = {theta}": [false_negatives(1000, 128, 30, theta, lost, generator) for lost in range(20, 116, 8)]
        for theta in (8, 12, 16)
    }
    union = {f"theta = {theta}": unions(2000, 40, 20, theta, 12, generator) for theta in (6, 8, 10)}
    panels = {"false match": matches, "false negative": misses, "union": union}
    for name, curves in panels.items():
        rows = [row for curve in curves.values() for row in curve]
        inside = sum(abs(row["share"] - row["theory"]) <= row["error"] for row in rows)
        line = f"{name}: {inside} of {len(rows)} points within three standard errors of theory"
        if name == "union":
            exact = sum(abs(row["share"] - row["theory_of_sizes"]) <= row["error"] for row in rows)
            line += f" with the mean size put in, {exact} with the sizes that the unions have"
        print(line)
    return panels


def plot(panels: dict[str, Any], title: str, path: Path) -> None:
    """One panel each: lines are theory, points are the pool."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    texts = {
        "false match": ("units n", "s = 24, theta = 12"),
        "false negative": ("active units lost, of 128", "s = 30"),
        "union": ("patterns stored M", "n = 2000, a = 40, s = 20 for each"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for axis, (name, curves) in zip(axes, panels.items(), strict=True):
        for (label, rows), colour in zip(curves.items(), ("tab:blue", "tab:red", "tab:green"), strict=False):
            x, theory = [row["x"] for row in rows], [row["theory"] for row in rows]
            axis.semilogy(x, theory, color=colour, linewidth=1, label=label.replace("theta", "θ"))
            seen = [row for row in rows if row["share"] > 0]
            # the lower end of a bar may be below 0, which a logarithmic axis cannot show
            errors = [[min(row["error"], 0.99 * row["share"]) for row in seen], [row["error"] for row in seen]]
            points = [row["x"] for row in seen], [row["share"] for row in seen]
            axis.errorbar(*points, yerr=errors, fmt="o", color=colour, markersize=3.5, capsize=2)
        axis.set(xlabel=texts[name][0], ylim=(1e-7, 2))
        axis.set_title(f"{name}: {texts[name][1]}".replace("theta", "θ"), fontsize=9)
        axis.grid(True, alpha=0.25)
        axis.legend(fontsize=8, frameon=False)
    axes[0].set_ylabel("probability")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help=f"keep the results in {RESULT.name}, and draw them")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    options = parser.parse_args()
    if not options.draw:
        here = machine()
        print(f"{here['cpu']}, {here['cores']} cores, {torch.get_num_threads()} threads")
        found = {"machine": here, "commit": commit(), "speed": speed(), "accuracy": accuracy()}
        if options.save:
            RESULT.write_text(json.dumps(found, indent=1) + "\n")
    if options.save or options.draw:
        panels = json.loads(RESULT.read_text())["accuracy"]
        title = f"SegmentPool (points, 3 standard errors, {POOL * CODES:,} pairs each) and theory (lines)"
        plot(panels, title, RESULT.with_suffix(".png"))


if __name__ == "__main__":
    main()
