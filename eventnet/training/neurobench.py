"""Networks of LIF, LI, EGRU and GRU layers in NeuroBench's own harness: ``to_neurobench(network, dt)``.

NeuroBench counts what calls of linear, convolutional and recurrent cells of torch receive. Our layers are none of these, and
those in continuous time have no steps. So the network runs as it is, and what each of its connections received in each step is
then given to a linear layer with the same weights, which the harness watches:

- events from outside, in steps of ``dt``; of recurrent LIF layers also their own spikes, in the step in which they were fired,
  whenever they arrive. Several plain spikes of a unit in one step are one for NeuroBench, which takes every number for 0 or
  not 0: ``merged`` says how many spikes that left out, each once however many layers hear it. Graded events keep their values
  (added up), and are multiply-accumulates.
- of EGRU and GRU the input x(t) and the recurrent input, y(t-1) or h(t-1). The products of the gates with each other, three per
  unit and step, are no synaptic operations and are in no count (NeuroBench has them in that of ``torch.nn.LSTMCell``).
- of linear layers, their input.

Steps after the end of a sample, which a batch of several lengths is padded with, are in no count.

Spikes and membrane voltages (c of EGRU) at the end of each step go to a neuron layer of snnTorch's kind, of which the harness has
activation sparsity and membrane updates; an LI layer has a voltage and no spikes, a GRU an activation and no membrane. Parameters
are those of the network; the footprint adds the state that the layers keep between steps, as NeuroBench's own models do, without
buffers of delayed spikes.

Source: Yik et al., "The NeuroBench framework for benchmarking neuromorphic computing algorithms and systems" (2025), and its
package neurobench, version 2.3.0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from eventnet import EGRU, LI, LIF, Events
from eventnet.data.dataset import graded, lagged
from eventnet.layers.egru_steps import EGRUSteps, within
from eventnet.packages import need
from eventnet.training import objective
from eventnet.training.batches import Batches
from eventnet.training.gated import GatedNetwork
from eventnet.training.network import Network, Outcome

__all__ = ["EventBatch", "EventLoader", "to_neurobench"]


def to_neurobench(
    network: nn.Module,
    dt: float | None = None,
    *,
    context: Tensor | None = None,
    output: Callable[[Any], Tensor] | None = None,
) -> Any:
    """A ``NeuroBenchModel`` of a network, to be called by ``neurobench.benchmarks.Benchmark`` with batches of ours.

    Args:
        network: a recipe's network, or any module whose weights are in LIF, LI, EGRU, ``torch.nn.GRU`` and ``torch.nn.Linear``
            layers; put into evaluation mode. Its weights are those of now: wrap it anew after training it further.
        dt: seconds of a step; a gated recipe's network has its own.
        context: ``(K, outputs)`` numbers before the first one of a batch, for a network of a recipe that forecasts. It is called
            as NeuroBench calls its Mackey-Glass models: with a batch ``(T, 1, outputs)`` that is one series, of which only the
            first numbers are used; the result is ``(T, outputs)``. The context itself is not counted.
        output: from what the network returns to predictions; by default classes of a recipe's network, else nothing is changed.

    Called with ``Events``, an ``EventBatch`` (see ``EventLoader``) or a raster of spike counts ``(B, T, N)``.

    Raises:
        ValueError: no dt for layers in continuous time; a context for a network that does not forecast; neither a context nor
            ``output`` for one that does.
        TypeError: a layer with weights that is not counted.

    Example:
        >>> model = to_neurobench(nn.Sequential(LIF(4, 3), LI(3, 2)), dt=1e-3, output=lambda voltage: voltage.max().argmax(1))
        >>> model(Events.from_list([([0.01, 0.02], [2, 0])], num_units=4, duration=0.1)).shape
        torch.Size([1])
    """
    if isinstance(network, GatedNetwork):
        if dt is not None and dt != network.recipe.step:
            raise ValueError(f"to_neurobench: this network has steps of {network.recipe.step:g} s, got dt={dt:g}")
        dt = network.recipe.step
    if dt is not None and not 0 < dt < float("inf"):
        raise ValueError(f"to_neurobench: expected dt > 0 seconds, got {dt!r}")
    if dt is None and any(isinstance(layer, LIF | LI) for layer in network.modules()):
        raise ValueError(
            "to_neurobench: layers in continuous time are counted in steps; pass their length, such as dt=1e-3"
        )
    if context is not None and not isinstance(network, GatedNetwork):
        raise ValueError("to_neurobench: a context is for a gated recipe's network that forecasts")
    if output is None:
        if context is None and forecasts(network):
            raise ValueError(
                "to_neurobench: this network forecasts numbers, and has no classes; pass the context, or output for "
                "something else"
            )
        output = functools.partial(predictions, network)
    return classes().Wrapped(network.eval(), dt, context, output)


def forecasts(network: nn.Module) -> bool:
    """Whether the outputs of a recipe's network are numbers: one of them, or in units of the input."""
    return isinstance(network, GatedNetwork) and (network.num_classes == 1 or network.recipe.standardize)


def predictions(network: nn.Module, result: Any) -> Tensor:
    """Classes of a recipe's network; what another one returns."""
    if isinstance(result, Outcome):
        assert isinstance(network, Network)
        return objective.predict(network.recipe, result.scores)
    found: Tensor = result
    return found


# ---- batches of events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EventBatch:
    """Events with the little of a tensor's interface that the harness asks of a batch."""

    events: Events

    def size(self, dim: int = 0) -> int:
        """The number of samples."""
        if dim != 0:
            raise IndexError(f"EventBatch: expected dimension 0, the samples, got {dim}")
        return self.events.batch_size

    def to(self, device: Any) -> EventBatch:
        """The events on another device."""
        return EventBatch(self.events.to(device))


class EventLoader:
    """Batches ``(EventBatch, labels)`` of a data set in its order, in the place of a ``DataLoader``."""

    def __init__(self, dataset: Any, batch_size: int = 32) -> None:
        self.dataset, self.batches = dataset, Batches(dataset, batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[EventBatch, Tensor]]:
        for events, labels in self.batches:
            yield EventBatch(events), labels


# ---- what layers receive and do ----------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """A group of units: their outputs and what they keep at the end of each step, ``(T, B, N)``; None for what they lack."""

    outputs: Tensor | None
    kept: Tensor | None


class Seen(NamedTuple):
    """One call of a layer: what each connection received, ``(T, B, in)``, the groups of units, and the steps that there are,
    ``(T, B)``; ``merged`` has the events of each raster, and how many of them NeuroBench's 0 and 1 leave out."""

    received: dict[str, Tensor]
    groups: dict[str, Group]
    valid: Tensor
    merged: tuple[tuple[Events, int], ...] = ()


Watched = LIF | LI | EGRU | nn.GRU | nn.Linear


def connections(layer: nn.Module, tied: Tensor | None = None) -> dict[str, Tensor]:
    """The weights ``(out, in)`` of a layer's connections, zero where a mask has none; ``tied`` of what follows a linear layer."""
    if isinstance(layer, LIF | LI):
        weights = {name: getattr(layer, name, None) for name in ("weight", "recurrent_weight")}
        masks = {"weight": getattr(layer, "mask", None), "recurrent_weight": getattr(layer, "recurrent_mask", None)}
        there = {name: w if masks[name] is None else w * masks[name] for name, w in weights.items() if w is not None}
        return {name: weight.detach().t() for name, weight in there.items()}
    if isinstance(layer, nn.RNNBase):
        names = [f"weight_{kind}_l{k}" for k in range(layer.num_layers) for kind in ("ih", "hh")]
        return {name: getattr(layer, name).detach() for name in names}
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    return {"weight": weight} if tied is None else {"weight": weight, "tied": tied}


def seen(
    layer: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
    dt: float | None,
    lengths: Tensor | None = None,
    batch_first: bool | None = None,
) -> Seen:
    """What a call of a layer was; ``lengths (B,)`` are those of the batch, ``batch_first`` says how a linear layer gets it."""
    if isinstance(layer, LIF | LI):
        assert dt is not None
        return _of_voltage(layer, args[0], kwargs, result, dt)
    if isinstance(layer, EGRU):
        return _of_egru(layer, args, kwargs, result)
    if isinstance(layer, nn.GRU):
        return _of_gru(layer, *args, **kwargs)
    flat, out = (part.reshape(-1, 1, part.shape[-1]) for part in (args[0], result))
    return Seen({"weight": flat, "tied": out}, {}, steps_there(args[0], lengths, batch_first).reshape(-1, 1))


def steps_there(x: Tensor, lengths: Tensor | None, batch_first: bool | None = None) -> Tensor:
    """Which rows of a linear layer's input are steps of a sample, in the shape of ``x`` without its last dimension.

    Raises:
        NotImplementedError: samples are of several lengths, as many as the longest one's steps, and ``batch_first`` is None.
    """
    everything = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    if x.dim() != 3 or lengths is None or not len(lengths) or bool((lengths == lengths[0]).all()):
        return everything
    valid = within(lengths.to(x.device), int(lengths.max()))
    fits = [first for first in (False, True) if x.shape[:2] == (valid.t() if first else valid).shape]
    if batch_first is None and len(fits) > 1:
        raise NotImplementedError(
            f"to_neurobench: {len(lengths)} samples of up to as many steps are told apart in a linear layer's input by "
            "nothing; expected batches of another size"
        )
    if not fits:
        return everything
    first = fits[0] if batch_first is None or len(fits) == 1 else batch_first
    return valid.t() if first else valid


def _of_voltage(layer: LIF | LI, events: Events, kwargs: dict[str, Any], result: Any, dt: float) -> Seen:
    if kwargs.get("state") is not None:
        raise NotImplementedError("to_neurobench: LIF layers that go on from a state are not counted")
    lengths = events.num_steps(dt)
    steps = int(lengths.max()) if events.batch_size else 0
    received = {}
    received["weight"], lost = raster(events, dt)
    merged, outputs = [(events, lost)], None
    if isinstance(layer, LIF):
        spikes, voltage = layer.forward(events, return_voltage=True)
        outputs, lost = raster(spikes, dt)
        merged.append((result[0] if isinstance(result, tuple) else result, lost))  # the ones that other layers hear
        if hasattr(layer, "recurrent_weight"):
            received["recurrent_weight"] = outputs
    else:
        voltage = layer.forward(events)
    ends = torch.arange(1, steps + 1, dtype=events.dtype, device=events.device) * dt
    kept = voltage.at(ends).transpose(0, 1) if steps else None
    return Seen(received, {"units": Group(outputs, kept)}, within(lengths, steps), tuple(merged))


def raster(events: Events, dt: float) -> tuple[Tensor, int]:
    """``(T, B, N)``: 1 where a unit had plain events in a step, or the sum of graded ones; and how many 1 leaves out."""
    counts = events.to_dense(dt)
    if events.values is not None:
        return counts, 0
    there = (counts != 0).to(counts.dtype)
    return there, int((counts - there).sum())


def _of_egru(layer: EGRU, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Seen:
    if layer.bidirectional:
        raise NotImplementedError("to_neurobench: a layer of both directions does not go step by step")
    x, lengths = layer._padded(args[0])
    if not kwargs.get("return_steps"):
        result = layer.forward(*args, **{**kwargs, "return_steps": True})
    steps: list[EGRUSteps] = result[2]
    state = args[1] if len(args) > 1 else kwargs.get("state")
    valid = torch.ones(x.shape[:2], dtype=torch.bool) if lengths is None else within(lengths, len(x))
    received, groups, inputs = {}, {}, x
    for k, done in enumerate(steps):
        y, c = (part if lengths is None else unpacked(part, valid) for part in (done.y, done.c))
        start = torch.zeros_like(y[0]) if state is None else state.y[k].reshape(y[0].shape)
        received[f"weight_ih_l{k}"] = inputs
        received[f"weight_hh_l{k}"] = torch.cat([start[None], y[:-1]])
        groups[f"units_l{k}"] = Group(y, c)
        inputs = y
    return Seen(received, groups, valid)


def unpacked(rows: Tensor, valid: Tensor) -> Tensor:
    """Rows step by step, of the samples that are still there, as ``(T, B, N)`` with zeros after the ends."""
    return rows.new_zeros(*valid.shape, rows.shape[-1]).masked_scatter(valid[:, :, None], rows)


def _of_gru(layer: nn.GRU, input: Tensor | PackedSequence, state: Tensor | None = None) -> Seen:
    if layer.bidirectional:
        raise NotImplementedError("to_neurobench: a layer of both directions does not go step by step")
    if isinstance(input, PackedSequence):
        x, lengths = pad_packed_sequence(input)
        valid = within(lengths, len(x))
    else:
        x = input[:, None] if input.dim() == 2 else input.transpose(0, 1) if layer.batch_first else input
        valid = torch.ones(x.shape[:2], dtype=torch.bool)
    received, groups = {}, {}
    for k in range(layer.num_layers):
        start = x.new_zeros(x.shape[1], layer.hidden_size) if state is None else state[k].reshape(x.shape[1], -1)
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced
            one = nn.GRU(x.shape[-1], layer.hidden_size, bias=layer.bias, dtype=x.dtype, device=x.device)
        one.load_state_dict({name: getattr(layer, name[:-1] + str(k)) for name in one.state_dict()})
        h = one(x, start[None])[0]
        received[f"weight_ih_l{k}"] = x
        received[f"weight_hh_l{k}"] = torch.cat([start[None], h[:-1]])
        groups[f"units_l{k}"] = Group(h, None)
        x = h
    return Seen(received, groups, valid)


def state_of(layer: nn.Module) -> list[Tensor]:
    """Numbers that a layer keeps from step to step, as zeros."""
    if isinstance(layer, LIF | LI):
        return [layer.weight.new_zeros(2, layer.out_features)]  # voltage and current
    if isinstance(layer, nn.RNNBase):
        weight: Tensor = layer.weight_hh_l0  # type: ignore[assignment]
        kept = [weight.new_zeros(1 + isinstance(layer, EGRU), layer.num_layers, layer.hidden_size)]
        traced = isinstance(layer, EGRU) and layer.trace_decay is not None
        return [*kept, weight.new_zeros(layer.hidden_size)] if traced else kept
    return []


# ---- recording ---------------------------------------------------------------------------------------------------------------


def watched(network: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers that are counted, with their names.

    Raises:
        TypeError: another module has weights of its own.
    """
    if isinstance(network, Watched):
        yield name or "network", network
        return
    own = [each for each, p in network.named_parameters(recurse=False) if p.dim() > 1]
    if own:
        raise TypeError(
            f"to_neurobench: {name or 'the network'}, a {type(network).__name__}, has {', '.join(own)} of its own; expected LIF, "
            "LI, EGRU, torch.nn.GRU and torch.nn.Linear layers, or the counts would be too low"
        )
    for child, module in network.named_children():
        yield from watched(module, f"{name}.{child}".lstrip("."))


@contextmanager
def recording(
    layers: Sequence[tuple[str, nn.Module]],
    dt: float | None,
    lengths: Tensor | None = None,
    batch_first: Sequence[nn.Module] = (),
) -> Iterator[dict[str, list[Seen]]]:
    """While this lasts, calls of the layers are written down, in order.

    ``lengths (B,)`` of the batch; ``batch_first`` are linear layers of a recipe's network that get it as ``(B, T, N)``.
    """
    known = bool(batch_first)
    found: dict[str, list[Seen]] = {name: [] for name, _ in layers}

    def hook_of(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            first = any(layer is each for each in batch_first) if known else None
            found[name].append(seen(layer, args, kwargs, result, dt, lengths, first))

        return hook

    handles = [layer.register_forward_hook(hook_of(name), with_kwargs=True) for name, layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def joined(calls: Sequence[Seen], last: int | None = None) -> Seen:
    """Calls one after the other as one, or only the last steps of them."""
    start = 0 if last is None else -last

    def cat(parts: Sequence[Tensor | None]) -> Tensor | None:
        return torch.cat([part for part in parts if part is not None])[start:] if parts[0] is not None else None

    received = {name: cat([call.received[name] for call in calls]) for name in calls[0].received}
    groups = {
        name: Group(*(cat([getattr(call.groups[name], each) for call in calls]) for each in Group._fields))
        for name in calls[0].groups
    }
    valid = cat([call.valid for call in calls])
    assert valid is not None
    there = {name: part for name, part in received.items() if part is not None}
    return Seen(there, groups, valid, tuple(each for call in calls for each in call.merged))


# ---- what the harness sees ---------------------------------------------------------------------------------------------------


class Harness(NamedTuple):
    """The classes that need neurobench and snnTorch."""

    Wrapped: Any
    Units: Any


@functools.cache
def classes() -> Harness:
    """Made when first used."""
    need("snntorch", "NeuroBench's harness", "pip install snntorch")
    need("neurobench", "to_neurobench", "pip install --no-deps neurobench")
    from neurobench.models import NeuroBenchModel
    from snntorch import SpikingNeuron

    class Units(SpikingNeuron):
        """Passes outputs on, and shows the harness the membrane before and after."""

        def __init__(self) -> None:
            nn.Module.__init__(self)  # SpikingNeuron's own keeps a list of all its instances
            self.init_hidden, self.output = True, False

        def forward(self, outputs: Tensor, kept: Tensor) -> Tensor:
            self.mem = kept
            return outputs

    class Wrapped(NeuroBenchModel):
        """See ``to_neurobench``."""

        def __init__(
            self, network: nn.Module, dt: float | None, context: Tensor | None, output: Callable[[Any], Tensor]
        ) -> None:
            super().__init__()
            self.network: Any = network
            self.dt, self.context, self.output = dt, context, output
            self.layers = list(watched(network))
            self.shadow = Shadow(network, dict(self.layers), Units, context is not None)
            self.merged = 0
            for kind in (Units, Activation):
                self.add_activation_module(kind)

        @torch.no_grad()
        def __call__(self, batch: Any) -> Tensor:
            if self.context is not None:
                return self._forecast(batch, self.context)
            events = batch.events if isinstance(batch, EventBatch) else batch
            if isinstance(events, Tensor) and self.dt is not None:
                events = Events.from_dense(events.transpose(0, 1), self.dt)
            lengths = events.num_steps(self.dt) if isinstance(events, Events) and self.dt is not None else None
            gated = isinstance(self.network, GatedNetwork)
            batch_first = [self.network.readout, self.network.direct] if gated else []
            with recording(self.layers, self.dt, lengths, batch_first) as found:
                result = self.network(events)
            self._show({name: joined(calls) for name, calls in found.items() if calls})
            return self.output(result)

        def __net__(self) -> nn.Module:
            return self.shadow

        def _forecast(self, batch: Tensor, context: Tensor) -> Tensor:
            series = torch.cat([context, batch[:, 0].to(context.dtype)])
            known, steps = len(series) - len(batch) + 1, len(batch)
            series[known:] = 0.0  # what the network must not know
            window = self.network.num_units // series.shape[1]
            events = graded(lagged(series, window)[:, None], self.network.recipe.step)
            with recording(self.layers, self.dt) as found:
                own = self.network.forecast(events, torch.tensor([known]))[0, -steps:]
            self._show({name: joined(calls, last=steps) for name, calls in found.items() if calls})
            return own.to(batch.dtype)

        def _show(self, calls: dict[str, Seen]) -> None:
            lost = {id(events): count for call in calls.values() for events, count in call.merged}
            self.merged += sum(lost.values())
            self.shadow(calls)

    return Harness(Wrapped, Units)


class Activation(nn.Module):
    """Passes the outputs of units without a membrane on."""

    def forward(self, outputs: Tensor) -> Tensor:
        """The outputs."""
        return outputs


class Shadow(nn.Module):
    """Linear layers and units that the harness watches; its parameters and buffers are the network's, with the layers' states."""

    def __init__(self, network: nn.Module, layers: dict[str, nn.Module], units: Any, forecasts: bool) -> None:
        super().__init__()
        states = [state for layer in layers.values() for state in state_of(layer)]
        if forecasts:
            assert isinstance(network, GatedNetwork)
            states.append(network.readout.weight.new_zeros(network.num_units))  # the window of points
        self._real = (network, states)  # in a tuple: no child of this module
        tied = network.embedding if isinstance(network, GatedNetwork) and network.recipe.tied else None
        self.linear, self.units = nn.ModuleDict(), nn.ModuleDict()
        for name, layer in layers.items():
            for k in range(getattr(layer, "num_layers", 1)):
                if isinstance(layer, nn.RNNBase):
                    self.units[key(name, f"units_l{k}")] = units() if isinstance(layer, EGRU) else Activation()
                elif not isinstance(layer, nn.Linear):
                    self.units[key(name, "units")] = units()
            after = tied.weight.detach().t() if tied is not None and layer is network.readout else None
            for connection, weight in connections(layer, after).items():
                # in float64, in which NeuroBench's sums are exact
                linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
                linear.weight = nn.Parameter(weight.to(torch.float64).clone(), requires_grad=False)
                self.linear[key(name, connection)] = linear

    def forward(self, calls: dict[str, Seen]) -> None:
        """Give each connection what it received, and each group of units what it did."""
        for name, call in calls.items():
            for connection, received in call.received.items():
                if key(name, connection) in self.linear and bool(call.valid.any()):
                    self.linear[key(name, connection)](received[call.valid].to(torch.float64))
            for each, group in call.groups.items():
                self._show(key(name, each), group, call.valid)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Those of the network."""
        return self._real[0].parameters(recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Those of the network, and the layers' states."""
        yield from self._real[0].buffers(recurse)
        yield from self._real[1]

    def _show(self, name: str, group: Group, valid: Tensor) -> None:
        units, there = self.units[name], valid.any(0)
        if not bool(there.any()):
            return
        if group.kept is None:
            assert group.outputs is not None
            units(group.outputs[valid])
            return
        units.mem = torch.zeros_like(group.kept[0, there])
        for step, kept in enumerate(group.kept[:, there]):
            kept = torch.where(valid[step, there, None], kept, units.mem)  # a sample that is over keeps what it had
            units(kept.new_zeros(0) if group.outputs is None else group.outputs[step][valid[step]], kept)


def key(*names: str) -> str:
    """A name without dots, as ``nn.ModuleDict`` wants."""
    return "__".join(names).replace(".", "_")
