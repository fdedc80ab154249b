"""From and to Norse: LIF, LIFCell, LIFRecurrent, LIFRecurrentCell, LI and LICell, with Linear layers before them.

    Norse                      eventnet                why
    Linear + LIF, LIFCell      LIF                     tau_syn_inv, tau_mem_inv: see ``grid``
    LIFRecurrent(Cell)         LIF(recurrent=True)     its spikes come back a step later: recurrent_delay = dt
    Linear + LI, LICell        LI                      last only
    v_leak, v_th, v_reset      bias, threshold, reset  the same

Norse steps our very equations by Euler's rule, dt tau_inv of the difference in each step. What is converted is the network at
this step: time constants are those of the decay that a step really makes, -dt / ln(1 - dt tau_inv), not 1 / tau_inv.

Update order: the input of a step enters the current, the current the voltage, then v > v_th is asked, and v set to v_reset at
once; then the current decays. v starts at v_leak.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eventnet.events import Events
from eventnet.interop.grid import GridLayer, check_row, check_step, from_layer, note_on_start, refused, said, to_layer
from eventnet.interop.probe import Report, Trace, probe_of, report_on
from eventnet.interop.stages import Stage, copied, dtype_of, layers_of, linear_of, stages_of
from eventnet.packages import need

__all__ = ["from_norse", "to_norse"]

INSTALL = "pip install 'eventnet[interop]'"


class Kind(NamedTuple):
    """What a module of Norse has: a threshold, weights of its own, a loop over time."""

    spiking: bool
    recurrent: bool
    sequence: bool


KINDS: Mapping[str, Kind] = {
    "LIF": Kind(True, False, True),
    "LIFCell": Kind(True, False, False),
    "LIFRecurrent": Kind(True, True, True),
    "LIFRecurrentCell": Kind(True, True, False),
    "LI": Kind(False, False, True),
    "LICell": Kind(False, False, False),
}


def from_norse(
    model: nn.Module | Iterable[nn.Module],
    dt: float | None = None,
    *,
    probe: Events | Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[nn.Sequential, Report]:
    """A Norse network as layers of eventnet, and the report of both on a probe.

    Args:
        model: a ``SequentialState`` (or ``nn.Sequential``) of ``nn.Linear`` and neurons, or these layers in the order in which
            the model's ``forward`` calls them.
        dt: seconds of a step; the one that the neurons were made with if not given, and an error if it is another.
        probe: events or a raster (T, B, in), of spikes or of any numbers, for the check; drawn if not given. Best a batch of
            your data.
        dtype: of the new parameters; the model's if not given, float32 for one in half precision. In float64 ``to_norse`` returns
            the weights of a float32 model bit for bit, in float32 within a rounding.

    Returns:
        ``nn.Sequential`` of ``LIF`` layers, the last one ``LI`` if the model's is; and the ``Report``.

    Raises:
        NotImplementedError: something has no equal in eventnet; the message names it and says what to do.

    Example:
        >>> import norse.torch as norse
        >>> _ = torch.manual_seed(0)
        >>> network, report = from_norse(norse.SequentialState(nn.Linear(20, 5), norse.LIF(dt=1e-4)))
        >>> round(network[0].tau_mem.item(), 6), report.layers[0].voltage_error < 1e-6  # tau_mem_inv = 100 in steps of 0.1 ms
        (0.00995, True)
    """
    need("norse", "from_norse", INSTALL)
    stages = _stages(model)
    steps = {_dt(stage) for stage in stages}
    dt = min(steps) if dt is None else dt
    check_step(dt)
    if steps != {dt}:
        raise ValueError(
            f"dt: the neurons were made with {sorted(steps)} s, not all of them with {dt}; give them one dt"
        )
    grids = [_read(stage, dt, stage is stages[-1]) for stage in stages]
    check_row(grids)
    dtype = dtype or dtype_of(stages)
    network = [to_layer(grid, None, dtype) for grid in grids]
    raster = probe_of(probe, grids)
    report = report_on("Norse -> eventnet", grids, network, raster, _run(stages, raster), note_on_start(grids))
    return nn.Sequential(*network).to(stages[0].device), report


def to_norse(
    network: nn.Module | Iterable[nn.Module],
    dt: float,
    *,
    probe: Events | Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[nn.Module, Report]:
    """Layers of eventnet as a Norse network on a grid of step ``dt``, and the report of both on a probe.

    Args:
        network: an ``LIF``, or an ``nn.Sequential`` of them, the last one possibly an ``LI``; or these in order.
        dt: seconds of a step.
        probe: events or a raster (T, B, in) for the check; drawn if not given.
        dtype: of the new parameters; the network's if not given.

    Returns:
        ``SequentialState`` of ``nn.Linear``, ``LIF`` and ``LI``, or ``LIFRecurrent``, for rasters (T, B, in); and the ``Report``.

    Raises:
        NotImplementedError: something has no equal in Norse; the message names it and says what to do.

    Example:
        >>> from eventnet import LIF
        >>> model, report = to_norse(LIF(20, 5), dt=1e-3)
        >>> [type(part).__name__ for part in model], round(model[1].p.tau_mem_inv.item(), 3)  # 1 / 20 ms is 50
        (['Linear', 'LIF'], 48.771)
    """
    need("norse", "to_norse", INSTALL)
    import norse.torch as norse

    check_step(dt)
    layers = layers_of(network)
    pairs = [from_layer(layer, str(i), dt, "1 - beta") for i, layer in enumerate(layers)]
    check_row([grid for grid, _ in pairs])
    dtype = dtype or layers[0].weight.dtype
    model = norse.SequentialState(*(part for grid, _ in pairs for part in _written(grid, dtype)))
    stages = _stages(model)
    grids = [_read(stage, dt, stage is stages[-1]) for stage in stages]
    raster = probe_of(probe, grids)
    notes = [note for _, own in pairs for note in own]
    report = report_on("eventnet -> Norse", grids, layers, raster, _run(stages, raster), notes)
    return model.to(layers[0].weight.device), report


def _stages(model: nn.Module | Iterable[nn.Module]) -> list[Stage]:
    import norse.torch as norse

    def unwrapped(module: nn.Module) -> nn.Module:
        return module.lifted_module if isinstance(module, norse.Lift) else module

    def is_neuron(module: nn.Module) -> bool:
        return type(module).__module__.startswith("norse") and not isinstance(module, norse.Lift | nn.Sequential)

    return stages_of(model, is_neuron, "Norse", unwrapped)


# ---- read -------------------------------------------------------------------------------------------------------------------


def _read(stage: Stage, dt: float, last: bool) -> GridLayer:
    """The layer that a linear layer and its neurons are."""
    neuron: Any = stage.neuron
    kind, name = _kind(stage), f"{stage.name} {type(neuron).__name__}"
    if not kind.spiking and not last:
        raise refused(f"{name} before the last layer", "only the last layer may be a readout")
    if kind.recurrent == (stage.linear is not None):
        remedy = (
            "multiply the two into its input_weights" if kind.recurrent else "add one with the identity as its weight"
        )
        raise refused(f"{name} {'after' if kind.recurrent else 'without'} an nn.Linear", remedy)
    p = neuron.p
    bias = None if stage.linear is None else stage.linear.bias
    weight = neuron.input_weights if stage.linear is None else stage.linear.weight
    recurrent = _double(neuron.recurrent_weights).T if kind.recurrent else None
    free = recurrent is None or neuron.autapses
    return GridLayer(
        name,
        dt,
        _double(weight).T,
        _tau(p.tau_mem_inv, dt, f"{name}: tau_mem_inv"),
        _tau(p.tau_syn_inv, dt, f"{name}: tau_syn_inv"),
        "1 - beta",
        _double(p.v_leak),
        threshold=_double(p.v_th) if kind.spiking else None,
        reset="value",
        reset_value=_double(p.v_reset) if kind.spiking else torch.zeros((), dtype=torch.float64),
        bias=None if bias is None else _double(bias),
        recurrent_weight=recurrent,
        recurrent_mask=None if free or recurrent is None else ~torch.eye(len(recurrent), dtype=torch.bool),
        learn=tuple(_learnt(stage, kind, weight)),
        told={
            "weight": f"{'weight' if stage.linear is not None else 'input_weights'} {tuple(weight.shape)}",
            "bias": f"bias, v_leak={said(_double(p.v_leak))}",
            "leak": f"v_leak={said(_double(p.v_leak))}",
            "tau_mem": f"tau_mem_inv={said(_double(p.tau_mem_inv))}",
            "tau_syn": f"tau_syn_inv={said(_double(p.tau_syn_inv))}",
            "recurrent_weight": "recurrent_weights" + ("" if free else ", autapses=False"),
            "reset": f"v_reset={said(_double(p.v_reset))}, at once" if kind.spiking else type(neuron).__name__,
        },
    )


def _dt(stage: Stage) -> float:
    """The step that the neurons were made with."""
    _kind(stage)
    return float(stage.neuron.dt)  # type: ignore[arg-type]


def _kind(stage: Stage) -> Kind:
    kind = KINDS.get(type(stage.neuron).__name__)
    if kind is None:
        raise refused(f"{stage.name} {type(stage.neuron).__name__}", f"convert {', '.join(KINDS)}")
    return kind


def _tau(inverse: Tensor, dt: float, what: str) -> Tensor:
    """The time constant of the decay that a step makes."""
    share = _double(inverse) * dt
    if not bool(((share > 0) & (share < 1)).all()):
        raise refused(
            f"{what}={said(_double(inverse))} in steps of {dt:g} s", "a step must be shorter than the time constant"
        )
    return -dt / torch.log1p(-share)


def _learnt(stage: Stage, kind: Kind, weight: Tensor) -> Iterator[str]:
    """What requires grad, by our names."""
    neuron: Any = stage.neuron
    p = neuron.p
    held = {"weight": weight, "tau_mem": p.tau_mem_inv, "tau_syn": p.tau_syn_inv, "bias": p.v_leak}
    held |= {"threshold": p.v_th, "reset": p.v_reset} if kind.spiking else {}
    held |= {"recurrent_weight": neuron.recurrent_weights} if kind.recurrent else {}
    linear_bias = stage.linear is not None and stage.linear.bias is not None and stage.linear.bias.requires_grad
    return (name for name, x in held.items() if torch.as_tensor(x).requires_grad or (name == "bias" and linear_bias))


def _double(x: Any) -> Tensor:
    """In float64 here; one number as 0-d."""
    x = torch.as_tensor(x).detach().double().cpu()
    return x.reshape(()) if x.numel() == 1 and x.dim() == 1 else x


# ---- write ------------------------------------------------------------------------------------------------------------------


def _written(grid: GridLayer, dtype: torch.dtype) -> list[nn.Module]:
    """The modules that a layer is."""
    import norse.torch as norse

    assert grid.tau_syn is not None
    rates = {"tau_mem": grid.tau_mem, "tau_syn": grid.tau_syn}
    held = {f"{name}_inv": (name, -torch.expm1(-grid.dt / tau) / grid.dt) for name, tau in rates.items()}
    held["v_leak"] = ("bias" if grid.bias is None else "", grid.leak)  # else the linear layer has it
    if grid.threshold is not None:
        held |= {"v_th": ("threshold", grid.threshold), "v_reset": ("reset", grid.reset_value)}
    given = {key: value.to(dtype, copy=True).requires_grad_(name in grid.learn) for key, (name, value) in held.items()}
    if grid.recurrent_weight is not None:
        return [_recurrent(grid, norse.LIFParameters(**given), dtype)]
    linear = linear_of(grid.weight, grid.bias, "weight" in grid.learn, "bias" in grid.learn, dtype)
    if grid.threshold is None:
        return [linear, norse.LI(norse.LIParameters(**given), dt=grid.dt)]
    return [linear, norse.LIF(norse.LIFParameters(**given), dt=grid.dt)]


def _recurrent(grid: GridLayer, p: Any, dtype: torch.dtype) -> nn.Module:
    """Recurrent neurons, whose weights are their own."""
    import norse.torch as norse

    if grid.bias is not None:
        remedy = "v_leak is one number: give all neurons one bias, and let them start there"
        raise refused(f"{grid.name}: a recurrent layer with a bias per neuron", remedy)
    assert grid.recurrent_weight is not None
    no_autapses = ~torch.eye(grid.weight.shape[1], dtype=torch.bool)
    autapses = grid.recurrent_mask is None or not torch.equal(grid.recurrent_mask.cpu(), no_autapses)
    weights = {"weight": grid.weight, "recurrent_weight": grid.recurrent_weight}
    own = {name: nn.Parameter(x.T.to(dtype).contiguous(), name in grid.learn) for name, x in weights.items()}
    given = {"input_weights": own["weight"], "recurrent_weights": own["recurrent_weight"]}
    return norse.LIFRecurrent(*grid.weight.shape, p, dt=grid.dt, autapses=autapses, **given)


# ---- run --------------------------------------------------------------------------------------------------------------------


def _run(stages: Sequence[Stage], raster: Tensor) -> list[Trace]:
    """What each layer does with an input ``(T, B, N)``, by Norse's own steps, in float64."""
    found = []
    for stage in stages:
        neuron: Any = copied(stage.neuron)
        kind = KINDS[type(neuron).__name__]
        own = [neuron.input_weights, neuron.recurrent_weights] if kind.recurrent else []
        p = type(neuron.p)(*(x.detach().double().cpu() if isinstance(x, Tensor) else x for x in neuron.p))
        spikes, voltages = [], []
        with torch.no_grad():
            drive = stage.drive(raster)
            state = neuron.state_fallback(drive if kind.sequence else drive[0])
            state = type(state)(*(x.double() for x in state))
            for x in drive:
                out, state = neuron.activation(x, state, *own, p, neuron.dt)
                spikes.append(out)
                voltages.append(state.v.expand_as(out))
        voltage = torch.stack(voltages)
        found.append(Trace(voltage, torch.stack(spikes) if kind.spiking else None))
        raster = torch.stack(spikes)
    return found
