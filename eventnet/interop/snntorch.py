"""From and to snnTorch: Linear layers with Leaky, Synaptic, RLeaky or RSynaptic neurons.

    snnTorch             eventnet                       why
    Linear + Synaptic    LIF                            alpha, beta: see ``grid``
    Linear + RSynaptic   LIF(recurrent=True)            its spikes come back a step later: recurrent_delay = dt
    Linear + Leaky       LIF with a short tau_syn       Leaky has no synaptic current: the nearest, not an equal
    Linear + RLeaky      LIF(recurrent=True), likewise
    the last one, with reset_mechanism="none"           LI: its mem is read

Update order in all of them: the input of a step enters the current, the current the voltage, then V > threshold is asked; the
reset (unless ``reset_delay=False``) comes with the next step. mem starts at 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from eventnet.events import Events
from eventnet.interop.grid import GridLayer, check_row, check_step, from_layer, note_on_start, refused, said, to_layer
from eventnet.interop.probe import Report, Trace, probe_of, report_on
from eventnet.interop.stages import Stage, copied, dtype_of, layers_of, linear_of, stages_of
from eventnet.packages import need

__all__ = ["from_snntorch", "to_snntorch"]

INSTALL = "pip install 'eventnet[interop]'"


class Kind(NamedTuple):
    """What a neuron class of snnTorch has: a synaptic current, recurrent connections."""

    synaptic: bool
    recurrent: bool


KINDS: Mapping[str, Kind] = {
    "Leaky": Kind(False, False),
    "Synaptic": Kind(True, False),
    "RLeaky": Kind(False, True),
    "RSynaptic": Kind(True, True),
}
NAMES = {kind: name for name, kind in KINDS.items()}


def from_snntorch(
    model: nn.Module | Iterable[nn.Module],
    dt: float,
    *,
    tau_syn: float | None = None,
    probe: Events | Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[nn.Sequential, Report]:
    """An snnTorch network as layers of eventnet, and the report of both on a probe.

    Args:
        model: an ``nn.Sequential`` of ``nn.Linear`` and neurons, or these layers in the order in which the model's ``forward``
            calls them: ``[net.fc1, net.lif1, net.fc2, net.lif2]``.
        dt: seconds that a step stands for. snnTorch has none: choose what your data has.
        tau_syn: seconds, for Leaky and RLeaky, which have no synaptic current; tau_mem (1 - beta), just below one step, if not
            given. A shorter one is closer to the jumps of the original and gives weaker and less even gradients: a spike then
            hardly moves with a weight.
        probe: events or a raster (T, B, in), of spikes or of any numbers, for the check; drawn if not given. Best a batch of
            your data.
        dtype: of the new parameters; the model's if not given, float32 for one in half precision. In float64 ``to_snntorch``
            returns every parameter of a float32 model bit for bit, in float32 within a rounding.

    Returns:
        ``nn.Sequential`` of ``LIF`` layers, the last one ``LI`` if the model's never resets; and the ``Report``.

    Raises:
        NotImplementedError: something has no equal in eventnet; the message names it and says what to do.

    Example:
        >>> import snntorch as snn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(20, 5), snn.Synaptic(alpha=0.8, beta=0.95, init_hidden=True))
        >>> network, report = from_snntorch(model, dt=1e-3)
        >>> round(network[0].tau_mem.item(), 6), report.layers[0].voltage_error < 1e-6  # -1 ms / ln 0.95
        (0.019496, True)
    """
    need("snntorch", "from_snntorch", INSTALL)
    check_step(dt)
    stages = stages_of(model, _is_neuron, "snnTorch")
    grids = [_read(stage, dt, stage is stages[-1]) for stage in stages]
    check_row(grids)
    dtype = dtype or dtype_of(stages)
    network = [to_layer(grid, tau_syn, dtype) for grid in grids]
    raster = probe_of(probe, grids)
    notes = [*note_on_start(grids), *_notes(stages, grids)]
    report = report_on("snnTorch -> eventnet", grids, network, raster, _run(stages, raster), notes)
    return nn.Sequential(*network).to(stages[0].device), report


def to_snntorch(
    network: nn.Module | Iterable[nn.Module],
    dt: float,
    *,
    leaky: bool = False,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    probe: Events | Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[nn.Sequential, Report]:
    """Layers of eventnet as an snnTorch network on a grid of step ``dt``, and the report of both on a probe.

    Args:
        network: an ``LIF``, or an ``nn.Sequential`` of them, the last one possibly an ``LI``; or these in order.
        dt: seconds of a step.
        leaky: Leaky and RLeaky neurons, without a synaptic current: for networks that came from them. It drops their tau_syn.
        reset_mechanism, reset_delay: of the spiking neurons; snnTorch's own defaults. At once (False) is closer to eventnet.
        probe: events or a raster (T, B, in) for the check; drawn if not given.
        dtype: of the new parameters; the network's if not given.

    Returns:
        ``nn.Sequential`` of ``nn.Linear`` and neurons with ``init_hidden=True``, to be called once per step after
        ``snntorch.utils.reset(model)``; the last returns its states too. And the ``Report``.

    Raises:
        NotImplementedError: something has no equal in snnTorch; the message names it and says what to do.

    Example:
        >>> from eventnet import LIF
        >>> model, report = to_snntorch(LIF(20, 5), dt=1e-3)
        >>> [type(part).__name__ for part in model], round(model[1].beta.item(), 4)
        (['Linear', 'Synaptic'], 0.9512)
    """
    need("snntorch", "to_snntorch", INSTALL)
    check_step(dt)
    layers = layers_of(network)
    pairs = [from_layer(layer, str(i), dt, "1", leaky) for i, layer in enumerate(layers)]
    check_row([grid for grid, _ in pairs])
    dtype = dtype or layers[0].weight.dtype
    if reset_mechanism not in ("subtract", "zero"):
        raise ValueError(f"reset_mechanism: expected 'subtract' or 'zero', got {reset_mechanism!r}")
    reset = {"reset_mechanism": reset_mechanism, "reset_delay": reset_delay}
    parts: list[nn.Module] = []
    for grid, _ in pairs:
        parts += _written(grid, dtype, reset, last=grid is pairs[-1][0])
    model = nn.Sequential(*parts)
    stages = stages_of(model, _is_neuron, "snnTorch")
    grids = [_read(stage, dt, stage is stages[-1]) for stage in stages]
    raster = probe_of(probe, grids)
    notes = [note for _, own in pairs for note in own]
    report = report_on("eventnet -> snnTorch", grids, layers, raster, _run(stages, raster), notes)
    return model.to(layers[0].weight.device), report


def _is_neuron(module: nn.Module) -> bool:
    import snntorch as snn

    return isinstance(module, snn.SpikingNeuron) or type(module).__module__.startswith("snntorch")


# ---- read -------------------------------------------------------------------------------------------------------------------


def _read(stage: Stage, dt: float, last: bool) -> GridLayer:
    """The layer that a linear layer and its neurons are."""
    neuron: Any = stage.neuron
    kind, name = KINDS.get(type(neuron).__name__), f"{stage.name} {type(neuron).__name__}"
    if kind is None:
        raise refused(name, f"convert {', '.join(KINDS)}")
    if stage.linear is None:
        raise refused(f"{name} without an nn.Linear before it", "add one with the identity as its weight")
    _refuse_options(neuron, name, kind)
    reads, late = neuron.reset_mechanism == "none", neuron.reset_delay
    if reads and (not last or kind.recurrent):
        raise refused(f"{name}: reset_mechanism='none'", "only the last layer may be a readout, without recurrence")
    beta = _decay(neuron.beta, f"{name}: beta")
    alpha = _decay(neuron.alpha, f"{name}: alpha") if kind.synaptic else None
    recurrent, back, mask = _recurrent(neuron, stage.linear.out_features) if kind.recurrent else (None, None, None)
    biases = [_double(x) for x in (stage.linear.bias, back) if x is not None]
    return GridLayer(
        name,
        dt,
        _double(stage.linear.weight).T,
        -dt / torch.log(beta),
        None if alpha is None else -dt / torch.log(alpha),
        "1",
        torch.zeros((), dtype=torch.float64),
        threshold=None if reads else _double(neuron.threshold),
        reset="subtract" if neuron.reset_mechanism == "subtract" else "value",
        reset_late=late,
        bias=sum(biases[1:], biases[0]) if biases else None,
        recurrent_weight=recurrent,
        recurrent_mask=mask,
        learn=tuple(_learnt(stage.linear, neuron, kind, reads)),
        told={
            "weight": f"weight {tuple(stage.linear.weight.shape)}",
            "bias": "bias" if back is None else "bias and recurrent.bias",
            "tau_mem": f"beta={said(beta)}",
            "tau_syn": "no alpha" if alpha is None else f"alpha={said(alpha)}",
            "recurrent_weight": "V" if mask is not None else "recurrent.weight",
            "reset": f"reset {neuron.reset_mechanism}" + ("" if reads else ", a step late" if late else ", at once"),
        },
    )


def _refuse_options(neuron: Any, name: str, kind: Kind) -> None:
    """Raise for options of neurons that have no equal."""
    if neuron.inhibition:
        raise refused(f"{name}: inhibition=True", "take the first spike of the output instead")
    if neuron.state_quant:
        raise refused(f"{name}: state_quant", "convert the network before it is quantised")
    if bool((neuron.graded_spikes_factor != 1).any()):
        raise refused(f"{name}: graded_spikes_factor", "multiply the next layer's weight by it, and set it to 1")
    if kind == Kind(True, True) and not neuron.reset_delay:
        raise refused(f"{name}: reset_delay=False", "snnTorch does not apply it in RSynaptic: leave it True")
    if kind.recurrent and neuron.kernel_size is not None:
        raise refused(f"{name}: a convolution as recurrence", "use linear_features")


def _decay(factor: Tensor, what: str) -> Tensor:
    """A factor per step, one number or one per neuron, strictly between 0 and 1."""
    factor = _double(factor)
    if not bool(((factor > 0) & (factor < 1)).all()):
        remedy = "a factor of 1 never decays: take 0.9999; with alpha=0 use Leaky"
        raise refused(f"{what}={said(factor)}, not between 0 and 1,", remedy)
    return factor


def _recurrent(neuron: Any, num: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Recurrent weights (out, out), their bias, and which of them there are, None: all."""
    if neuron.all_to_all:
        bias = neuron.recurrent.bias
        return _double(neuron.recurrent.weight).T, bias, None
    eye = torch.eye(num, dtype=torch.float64)
    return eye * _double(neuron.V), None, eye.bool()


def _learnt(linear: nn.Linear, neuron: Any, kind: Kind, reads: bool) -> Iterator[str]:
    """What requires grad, by our names."""
    held = {"weight": linear.weight, "tau_mem": neuron.beta}
    held |= {"tau_syn": neuron.alpha} if kind.synaptic else {}
    held |= {} if reads else {"threshold": neuron.threshold}
    if kind.recurrent:
        held["recurrent_weight"] = neuron.recurrent.weight if neuron.all_to_all else neuron.V
    yield from (name for name, value in held.items() if value.requires_grad)
    biases = (linear.bias, getattr(getattr(neuron, "recurrent", None), "bias", None))
    if any(bias is not None and bias.requires_grad for bias in biases):
        yield "bias"


def _double(x: Tensor) -> Tensor:
    """In float64 here; one number as 0-d."""
    x = x.detach().double().cpu()
    return x.reshape(()) if x.numel() == 1 and x.dim() == 1 else x


def _notes(stages: Sequence[Stage], grids: Sequence[GridLayer]) -> Iterator[str]:
    for stage, grid in zip(stages, grids, strict=True):
        neuron: Any = stage.neuron
        if KINDS[type(neuron).__name__].recurrent:
            if neuron.all_to_all and neuron.recurrent.bias is not None:
                yield f"{grid.name}: bias is the sum of the linear layer's and the recurrence's"
            elif not neuron.all_to_all and neuron.V.numel() == 1:
                yield f"{grid.name}: V was one number for all; here each neuron has its own"


# ---- write ------------------------------------------------------------------------------------------------------------------


def _written(grid: GridLayer, dtype: torch.dtype, reset: Mapping[str, Any], last: bool) -> list[nn.Module]:
    """The linear layer and the neurons that a layer is."""
    import snntorch as snn

    kind = Kind(grid.tau_syn is not None, grid.recurrent_weight is not None)
    given: dict[str, Any] = {"beta": _per_step(grid.tau_mem, grid.dt, dtype), "learn_beta": "tau_mem" in grid.learn}
    if grid.tau_syn is not None:
        given |= {"alpha": _per_step(grid.tau_syn, grid.dt, dtype), "learn_alpha": "tau_syn" in grid.learn}
    if grid.threshold is None:
        given["reset_mechanism"] = "none"
    else:
        given |= {**reset, "threshold": grid.threshold.to(dtype), "learn_threshold": "threshold" in grid.learn}
    if grid.recurrent_weight is not None:
        own = {"all_to_all": False, "V": grid.recurrent_weight.diagonal().to(dtype)}
        given |= {"linear_features": grid.weight.shape[1]} if _is_full(grid) else own
        given["learn_recurrent"] = "recurrent_weight" in grid.learn
    neuron = getattr(snn, NAMES[kind])(**given, init_hidden=True, output=last)
    if grid.recurrent_weight is not None and _is_full(grid):
        neuron.recurrent = linear_of(grid.recurrent_weight, None, "recurrent_weight" in grid.learn, False, dtype)
    return [linear_of(grid.weight, grid.bias, "weight" in grid.learn, "bias" in grid.learn, dtype), neuron]


def _per_step(tau: Tensor, dt: float, dtype: torch.dtype) -> Tensor:
    """What a step leaves."""
    return torch.exp(-dt / tau).to(dtype)


def _is_full(grid: GridLayer) -> bool:
    """Whether spikes lead back to other neurons too."""
    mask = grid.recurrent_mask
    return mask is None or not torch.equal(mask.cpu(), torch.eye(len(mask), dtype=torch.bool))


# ---- run --------------------------------------------------------------------------------------------------------------------


def _run(stages: Sequence[Stage], raster: Tensor) -> list[Trace]:
    """What each layer does with an input ``(T, B, N)``, by snnTorch itself, in float64."""
    found = []
    with torch.no_grad():
        for stage in stages:
            drive, neuron = stage.drive(raster), cast(Any, copied(stage.neuron))
            neuron.init_hidden = neuron.output = False
            kind = KINDS[type(neuron).__name__]
            state = [torch.zeros_like(drive[0])] * (1 + kind.synaptic + kind.recurrent)
            spikes, voltages = [], []
            for x in drive:
                now = [part.double() for part in neuron(x, *state)]  # spk, syn, mem; its surrogates make float32 of spk
                state = now[-len(state) :]  # recurrent ones want all back
                spikes.append(now[0])
                voltages.append(now[-1])
            raster = torch.stack(spikes)
            found.append(Trace(torch.stack(voltages), None if neuron.reset_mechanism == "none" else raster))
    return found
