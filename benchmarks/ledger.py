"""A ledger: rows that compare something with a reference, the tolerance each must keep, and when it last did."""

from __future__ import annotations

import datetime
import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from measure import commit

HEAD = """\
# Fidelity ledger

Every model against a reference, written by `benchmarks/fidelity.py`: the largest error found,
the tolerance it must keep, and when that was last measured. What must be the same has a tolerance of 0.

| model | reference | compared | largest error | tolerance | cases | date |
|---|---|---|---|---|---|---|
"""


class NotHere(Exception):
    """The reference of a row is not installed here; the message says what is missing."""


@dataclass(frozen=True)
class Row:
    """One line of the ledger: ``error`` is the largest that was found, in the unit of ``compared``."""

    model: str
    reference: str
    compared: str
    error: float
    tolerance: float
    cases: str


def version(package: str) -> str:
    """That of an installed package.

    Raises:
        NotHere: it is not installed.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise NotHere(package) from None


Check = Callable[[str | None], Row]  # of the folder of the data sets
Rows = dict[str, dict[str, Any]]


def run(checks: Mapping[str, Check], data_root: str | None, known: Rows) -> Rows:
    """All rows, new where the reference is here, else as known."""
    rows: Rows = {}
    for name, check in checks.items():
        try:
            row = check(data_root)
        except NotHere as missing:
            kept = "; keeping the last result" if name in known else ""
            print(f"{name}: {missing} is not here{kept}", file=sys.stderr)
            if name in known:
                rows[name] = known[name]
            continue
        rows[name] = asdict(row) | {"date": datetime.date.today().isoformat(), "commit": commit()}
        verdict = "ok" if kept_tolerance(rows[name]) else "MISSED"
        print(f"{name:20} {row.error:9.1e} (tolerance {row.tolerance:.0e}) {verdict}: {row.cases}")
    return rows


def kept_tolerance(row: Mapping[str, Any]) -> bool:
    """Not so if the error is NaN."""
    return bool(row["error"] <= row["tolerance"])


def markdown(rows: Rows) -> str:
    """The ledger as a Markdown table; a miss stands out."""
    lines = []
    for row in rows.values():
        error = _number(row["error"], ".1e")
        error = error if kept_tolerance(row) else f"**{error}**"
        shown = row | {"error": error, "tolerance": _number(row["tolerance"], ".0e")}
        names = ("model", "reference", "compared", "error", "tolerance", "cases", "date")
        lines.append("| " + " | ".join(shown[name] for name in names) + " |\n")
    return HEAD + "".join(lines)


def _number(x: float, form: str) -> str:
    """Formatted so; 0 is exactly that."""
    return format(x, form) if x else "0"
