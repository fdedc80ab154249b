"""The command line: ``eventnet train | evaluate | export | benchmark | report | recipes | kernels | demo``.

What an option is called, its type, unit and default come from the recipe; Lightning is loaded when training
starts.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from eventnet import __version__
from eventnet.packages import MissingPackage
from eventnet.training.errors import UserError
from eventnet.training.evaluation import Evaluation
from eventnet.training.recipe import PANELS, GatedRecipe, Recipe
from eventnet.training.recipes import RECIPES, find
from eventnet.training.run import Result
from eventnet.training.setting import Setting, fields_of, parse

__all__ = ["app", "main"]

RUNS = Path("runs")
INTERRUPTED = 130  # exit code of a command stopped by Ctrl+C, as in shells

DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        help="Folder with the recordings; digits, yinyang, xor, mackey_glass need none. "
        + escape("[env: EVENTNET_DATA]"),
        show_default=False,
    ),
]

ChipStep = Annotated[
    float | None,
    typer.Option(
        help="Length of a step of the chip (s). " + escape("[default: 1e-3, and of gated units their own]"),
        show_default=False,
    ),
]


class _RecipeGroup(TyperGroup):
    """Its commands are the recipes; another word is an error that names the nearest one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in RECIPES:
            find(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="eventnet",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)
recipes_app = typer.Typer(cls=_RecipeGroup)

app.add_typer(
    recipes_app,
    name="train",
    help="Train by a recipe; eventnet train RECIPE --help shows its fields.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        _out().print(f"eventnet {__version__}", highlight=False)
        raise typer.Exit()


@app.callback()
def _eventnet(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train event-based networks with exact gradients."""


@recipes_app.callback(invoke_without_command=True)
def _train(
    context: typer.Context,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.", show_default=False)] = None,
    data_root: DataRoot = None,
) -> None:
    if context.invoked_subcommand is not None:  # what stands before the recipe's name counts as if it stood after it
        context.default_map = {context.invoked_subcommand: {"resume": resume, "data_root": data_root}}
        return
    if resume is None:
        _out().print(context.get_help(), markup=False, highlight=False)
        raise typer.Exit(0)
    _run(None, resume, resume=True, data_root=data_root)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    part: Annotated[
        str | None,
        typer.Option(
            help="train, validation or test. " + escape("[default: test, if the run is finished]"), show_default=False
        ),
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Measure the network of a run on a part of its data."""
    from eventnet import training

    found = training.evaluate(run, part=part, data_root=data_root)
    name, score = found.score
    _show(
        {
            f"{part or 'test'} {name}": f"{score} of {found.samples} samples",
            **_of_each_task(found),
            "loss": f"{found.loss:.4g}",
            "input events per inference": f"{found.input_events_per_inference:.1f}",
            **_activity(found),
        }
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    to: Annotated[str, typer.Option(help="loihi, lava or nir.")] = "loihi",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into. " + escape("[default: RUN/TO]"), show_default=False)
    ] = None,
    dt: ChipStep = None,
    try_dt: Annotated[
        str | None, typer.Option(help="Show what other lengths cost, such as 2e-3,5e-4 (s).", show_default=False)
    ] = None,
    calibration: Annotated[int, typer.Option(help="Training samples that the integers are fitted to.")] = 64,
    finetune: Annotated[int, typer.Option(help="Epochs of training through the chip's integers.")] = 0,
    tolerance: Annotated[float, typer.Option(help="Accuracy that may be lost.")] = 0.01,
    samples: Annotated[int, typer.Option(help="Samples that the files check themselves with, in Lava too.")] = 3,
    steps: Annotated[int, typer.Option(help="How many of their first steps.")] = 200,
    limit: Annotated[
        int | None,
        typer.Option(help="Compare on so many samples of the test part; all by default.", show_default=False),
    ] = None,
    chip: Annotated[str, typer.Option(help="Chip whose limits are checked.")] = "loihi2",
    data_root: DataRoot = None,
) -> None:
    """Carry the network of a run to a chip, and check that it is still the same; the exit code is 1 if it is not."""
    options: dict[str, Any] = {"dt": dt, "calibration": calibration, "epochs": finetune, "tolerance": tolerance}
    options |= {"samples": samples, "steps": steps, "limit": limit, "chip": chip, "data_root": data_root}
    try:
        options["try_dt"] = [] if try_dt is None else [float(x) for x in try_dt.split(",")]
    except ValueError:
        raise UserError(f"--try-dt: expected seconds such as 2e-3,5e-4, got {try_dt}") from None
    if not _export(run, to, run / to if out is None else out, **options):
        raise typer.Exit(1)


@app.command()
def benchmark(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    dt: ChipStep = None,
    baseline_dt: Annotated[
        float | None,
        typer.Option(
            help="Length of a step of the dense baselines (s). "
            + escape("[default: that of the task's answers, or of gated units; else --dt]"),
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="So many samples of the test part; all by default.", show_default=False)
    ] = None,
    calibration: Annotated[int, typer.Option(help="Training samples that the fixed-point twin is fitted to.")] = 64,
    data_root: DataRoot = None,
) -> None:
    """Count what a run's network does on the test part, and estimate its energy beside dense networks: RUN/benchmark.json."""
    from eventnet.cli_hardware import benchmark_run, summary

    facts = benchmark_run(
        run, dt=dt, baseline_dt=baseline_dt, limit=limit, calibration=calibration, data_root=data_root, say=_say
    )
    for part in summary(facts):
        _out().print(part)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page. " + escape("[default: RUN/report.html, of several ./report.html]"), show_default=False
        ),
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Draw a page of runs: accuracy, energy ranges, baselines, break-even, activity. Runs without a benchmark get one first."""
    from eventnet.cli_hardware import report_runs

    path = out or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    report_runs(runs, path, data_root=data_root, say=_say)
    _show({"report": str(path)})


@app.command()
def recipes() -> None:
    """List the recipes."""
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "network", "epochs", "what"):
        table.add_column(heading, no_wrap=heading != "what")
    for name, recipe in RECIPES.items():
        kind = f" {recipe.unit}" if isinstance(recipe, GatedRecipe) else ""
        network = f"{'-'.join(map(str, recipe.hidden))}{kind}, {recipe.readout}"
        table.add_row(name, network, str(recipe.total_epochs), recipe.summary)
    _out().print(table)


@app.command()
def kernels() -> None:
    """Show which kernels this installation has."""
    from eventnet import kernels as backends

    _show(backends.available())


@app.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for the run. " + escape("[default: runs/demo]"), show_default=False),
    ] = None,
) -> None:
    """Train a classifier of handwritten digits in under a minute and show what it can do."""
    import time

    from eventnet.training.gradient_check import max_relative_error
    from eventnet.training.run import fresh_folder

    console = _out()
    console.print("Are the gradients exact? Three layers of spiking neurons, float64, every parameter:", soft_wrap=True)
    started = time.perf_counter()
    error = max_relative_error()
    console.print(
        f"  EventProp vs finite differences, max relative error: [bold]{error:.1e}[/bold] "
        f"({time.perf_counter() - started:.1f} s)",
        soft_wrap=True,
    )
    console.print("\nTraining on 8x8 handwritten digits, each pixel one event, the darker the earlier:", soft_wrap=True)
    folder = fresh_folder(RUNS / "demo") if out is None else out
    _run(find("digits"), folder)
    console.print(
        "\nThe same network on a neuromorphic chip, 8-bit weights, steps of 1 ms, simulated bit for bit:",
        soft_wrap=True,
    )
    _export(folder, "loihi", folder / "loihi")
    console.print("\nWhat an answer costs, counted on the fixed-point network; energies are estimates:", soft_wrap=True)
    from eventnet.cli_hardware import benchmark_run, headline, report_runs

    page = folder / "report.html"
    _show(headline(benchmark_run(folder)))
    report_runs([folder], page)
    _show({"report": f"{page}: baselines, break-even, sources"})
    console.print(
        "\nTry next:\n"
        f"  eventnet evaluate {folder} --part validation\n"
        f"  eventnet export {folder} --to nir\n"
        f"  eventnet benchmark {folder}\n"
        "  eventnet train digits --hidden 100,100 --epochs 20\n"
        "  eventnet train yinyang",
        highlight=False,
        soft_wrap=True,
    )


# ---- one command per recipe -------------------------------------------------------------------------------


def _add(recipe: Recipe) -> None:
    """``eventnet train <recipe>`` with an option for each field, built as the signature that typer reads."""
    own = fields_of(recipe)

    def command(**given: Any) -> None:
        changes: dict[str, Any] = {}
        for setting in own:
            text = given[setting.name]
            if isinstance(text, list):
                for item in text:
                    changes[setting.name] = {**changes.get(setting.name, {}), **parse(setting, item)}
            elif isinstance(text, bool):
                changes[setting.name] = text
            elif text is not None:
                changes[setting.name] = parse(setting, text)
        from eventnet.training.run import fresh_folder, recipe_of

        resume, out = given["resume"], given["out"]
        options = {"data_root": given["data_root"], "accelerator": given["accelerator"]}
        if resume is None:
            folder = fresh_folder(RUNS / recipe.name) if out is None else out
            _run(recipe.changed(**changes), folder, **options)
            return
        if out is not None:
            raise UserError(f"--resume {resume} writes into that folder; leave --out {out} out")
        stored = recipe_of(resume)
        if stored.name != recipe.name:
            raise UserError(f"{resume} is a run of the recipe {stored.name}, not of {recipe.name}")
        _run(stored.changed(**changes), resume, resume=True, **options)

    compiled = any(setting.name == "backend" and "reference" in setting.choices for setting in own)
    where = f"cpu, gpu or auto{'; gpu needs --backend reference' if compiled else ''}."
    parameters = [_parameter(setting, panel) for setting, panel in _with_panels(own)]
    path, text = Path | None, str
    parameters += [
        _keyword("data_root", DataRoot, None),
        _keyword("out", Annotated[path, _option(f"New folder for the run. [default: runs/{recipe.name}]")], None),
        _keyword("resume", Annotated[path, _option("Go on with the run in this folder.")], None),
        _keyword("accelerator", Annotated[text, _option(where)], "cpu"),
    ]  # fmt: skip
    signature = inspect.Signature(parameters)
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    help_text = f"{recipe.summary[:1].upper()}{recipe.summary[1:]}."
    recipes_app.command(recipe.name, help=escape(help_text))(command)


def _with_panels(own: Sequence[Setting]) -> list[tuple[Setting, str]]:
    panel, found = "", []
    for setting in own:
        panel = PANELS.get(setting.name, panel)
        found.append((setting, panel))
    return found


def _parameter(setting: Setting, panel: str) -> inspect.Parameter:
    help_text = f"{setting.help[:1].upper()}{setting.help[1:]}."
    repeated = setting.element is dict
    if setting.choices:
        help_text += f" One of {', '.join(setting.choices)}."
    if repeated:
        help_text += " May be given several times."
    # Text throughout: the recipe reads and checks the values, so that all errors speak one language.
    name, flag = setting.name.replace("_", "-"), setting.element is bool
    option = typer.Option(
        f"--{name}/--no-{name}" if flag else f"--{name}",
        metavar=None if flag else f"{setting.kind} ({setting.unit})" if setting.unit else setting.kind,
        help=escape(f"{help_text} [default: {setting.shown_default}]"),
        show_default=False,
        rich_help_panel=panel,
    )
    kind: Any = Annotated[list[str] | None if repeated else bool | None if flag else str | None, option]
    return _keyword(setting.name, kind, None)


def _option(help_text: str) -> Any:
    return typer.Option(help=escape(help_text), show_default=False)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


for _recipe in RECIPES.values():
    _add(_recipe)


# ---- running and showing ----------------------------------------------------------------------------------


def _run(recipe: Recipe | None, folder: Path, **options: Any) -> None:
    from eventnet import training

    result = training.train(recipe, folder, **options)
    test = result.test
    name, score = test.score
    _show(
        {
            f"test {name}": f"{score} of {test.samples} samples, never used before",
            **_of_each_task(test),
            **_best(result),
            "input events per inference": f"{test.input_events_per_inference:.1f}",
            **_activity(test),
            "training time": f"{result.seconds:.1f} s",
            "run": str(result.folder),
            "plots": "  ".join(path.name for path in result.plots) + f"  in {result.folder / 'plots'}",
        }
    )


def _export(run: Path, to: str, out: Path, data_root: Path | None = None, **options: Any) -> bool:
    """Export a run's network and show the gates; whether none failed."""
    from eventnet.cli_hardware import export_run

    report = export_run(run, to, out, data_root=data_root, say=_say, **options)
    _show({gate.name: str(gate).removeprefix(f"{gate.name}  ") for gate in report.gates})
    _show({"files": str(out), "report": str(out / "parity.html")})
    return bool(report.ok)


def _say(text: str) -> None:
    _out().print(f"  {text}", highlight=False, markup=False, soft_wrap=True)


def _best(result: Result) -> dict[str, str]:
    """The validation part after the epoch that was kept, by what it was chosen first."""
    epoch = f"(epoch {result.best_epoch}, the best)"
    if result.recipe.best == "last":
        return {"validation accuracy": f"{result.validation_accuracy:.2%} (epoch {result.best_epoch}, the last)"}
    if result.recipe.best == "loss":
        return {"validation loss": f"{result.validation_loss:.4g} {epoch}"}
    return {"validation accuracy": f"{result.validation_accuracy:.2%} {epoch}"}


def _of_each_task(found: Evaluation) -> dict[str, str]:
    """The accuracy of each task, if there are some, from the first to the last, and that of their contexts."""
    tasks = {"accuracy of each task": " ".join(f"{x:.2%}" for x in found.of_each_task)} if found.of_each_task else {}
    share = found.contexts_right
    contexts = {} if share is None else {"contexts": f"{share:.2%} of the samples are given that of their own task"}
    return tasks | contexts


def _activity(found: Evaluation) -> dict[str, str]:
    """What the hidden units did, in words."""
    did = found.activity
    silent = {"silent units": f"{did['silent_share']:.1%} of the hidden ones"}
    if "spikes_per_inference" in did:
        return {"spikes per inference": f"{did['spikes_per_inference']:.1f}"} | silent
    if "multiplications" not in did:
        return {"active units": f"{did['activity']:.1%} of the hidden ones"} | silent
    work, dense = did["multiplications"], did["dense_multiplications"]
    return {
        "active units": f"{did['activity']:.1%} of the hidden ones in a step, {did['backward_activity']:.1%} have a gradient",
        "multiplications": f"{work:,.0f} of the layers in a step ({work / dense:.1%} of {dense:,.0f} with zeros)",
    } | silent


def _show(facts: dict[str, str]) -> None:
    """Names and values, aligned; a line each, whatever the terminal's width."""
    width = max(map(len, facts))
    for name, value in facts.items():
        _out().print(f"  {name:<{width}}  {value}", highlight=False, markup=False, soft_wrap=True)


def _out() -> Console:
    return Console()  # made when used: the current stdout


def _call(action: Callable[[], Any]) -> int:
    """The exit code; errors of the user's making are one line on stderr."""
    problem = Console(stderr=True)

    def say(text: object) -> None:
        line = " ".join(str(text).split())
        problem.print(f"eventnet: error: {line}", highlight=False, markup=False, soft_wrap=True)

    try:
        code = int(action() or 0)
    except (UserError, MissingPackage) as error:
        say(_with_options(str(error)))
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        # typer's usage errors: their classes are click's in some versions and typer's own in others
        if not hasattr(error, "format_message"):
            raise
        if text := _usage_error(error):  # none where help was shown instead
            say(f"{text} (--help shows what there is)")
        return int(getattr(error, "exit_code", 2))
    if code == INTERRUPTED:  # what newer typers make of Ctrl+C
        say("interrupted")
    return code


def _with_options(text: str) -> str:
    """An error in the words of the command line: ``--batch-size`` for ``batch_size``, ``--part test`` for ``part=test``."""
    fields = dict.fromkeys(setting.name for family in Recipe.__subclasses__() for setting in fields_of(family))
    for name in (*fields, "accelerator", "data_root", "part"):
        option, word = f"--{name.replace('_', '-')}", rf"(?<![\w./-]){name}"
        text = re.sub(f"{word}=", f"{option} ", text)
        # a field of one word, such as data, is meant only where it says what was expected of it
        text = re.sub(rf"{word}\b" if "_" in name else f"{word}(?=: expected|: unknown)", option, text)
    return text.replace("download=True", "--data-options download=true")


def _usage_error(error: Any) -> str:
    """The text of an error of typer's; an unknown option may be the first letters of one: --lr, --learning-rate."""
    if hasattr(error, "possibilities"):
        options = [name for parameter in error.ctx.command.params for name in parameter.opts]
        letters = error.option_name.removeprefix("--")
        meant = [name for name in options if letters == "".join(word[:1] for word in name.split("-"))]
        error.possibilities = meant or error.possibilities
    return str(error.format_message())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 1 for an error in data, files or values, 2 for a wrong command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return _call(lambda: app(given, standalone_mode=False, prog_name="eventnet"))
