"""Parameters of neurons: from whatever the user passes to checked tensors, and back within their bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import torch
from torch import Tensor, nn

from eventnet.kernels.reference import Neuron

MIN_TAU = 1e-6  # seconds; constrain_ keeps time constants at least here
MIN_GAP = 1e-3  # volts; constrain_ keeps the threshold this far above the reset


def as_neuron(
    num: int,
    like: Tensor,
    *,
    branches: int | None = None,
    tau_mem: float | Tensor,
    tau_syn: float | Tensor,
    threshold: float | Tensor,
    reset: float | Tensor,
    bias: float | Tensor,
) -> Neuron:
    """Each parameter as a tensor of one or ``num`` numbers in the dtype of ``like``; checked against its bounds.

    With ``branches``, tau_syn is ``(branches, 1)`` or ``(branches, num)``.
    """
    given = dict(tau_mem=tau_mem, threshold=threshold, reset=reset, bias=bias)
    checked = {name: _as_tensor(name, value, num, like) for name, value in given.items()}
    neuron = Neuron(tau_syn=_per_branch("tau_syn", tau_syn, branches, num, like), **checked)
    if like.is_meta:  # no numbers to check
        return neuron
    if neuron.is_scalar():  # plain numbers are several times faster to compare than tensors
        tm, ts, top, low, rest = [p.item() for p in neuron]
        sound = 0 < tm < inf and 0 < ts < inf and -inf < low < top and abs(rest) < inf
    else:
        finite = [torch.isfinite(p) for p in (neuron.tau_mem, neuron.tau_syn, neuron.reset, neuron.bias)]
        bounds = (neuron.tau_mem > 0) & (neuron.tau_syn > 0) & (neuron.threshold > neuron.reset)
        sound = bool((bounds & finite[0] & finite[1] & finite[2] & finite[3]).all())
    if not sound:
        _explain(neuron.expand(num))
    return neuron


def as_extras(
    like: Tensor,
    neuron: Neuron,
    refractory: float | Tensor,
    initial_voltage: float | Tensor | None,
    initial_current: float | Tensor | None,
    branches: int | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Refractory period and initial state as ``as_neuron`` has its parameters; None for what is not in use."""
    if not isinstance(refractory, Tensor) and refractory == 0 and initial_voltage is None and initial_current is None:
        return None, None, None
    num = like.shape[-1]
    idle = not isinstance(refractory, Tensor) and refractory == 0
    held = None if idle else _as_tensor("refractory", refractory, num, like)
    voltage = None if initial_voltage is None else _as_tensor("initial_voltage", initial_voltage, num, like)
    current = None if initial_current is None else _per_branch("initial_current", initial_current, branches, num, like)
    if like.is_meta:
        return held, voltage, current
    _refuse("refractory", held, lambda x: x >= 0, "expected finite seconds >= 0")
    below = "expected a finite voltage below the threshold"
    _refuse("initial_voltage", voltage, lambda x: x.expand(num) < neuron.threshold, below)
    _refuse("initial_current", current, lambda x: x == x, "expected a finite number")
    return held, voltage, current


def check_slope_floor(slope_floor: float) -> float:
    """The floor of the slope at a spike, checked."""
    if not 0 <= slope_floor < inf:
        raise ValueError(f"slope_floor is {slope_floor}; expected finite volts per second >= 0 (0: off)")
    return float(slope_floor)


def _refuse(name: str, value: Tensor | None, allowed: Callable[[Tensor], Tensor], expected: str) -> None:
    if value is None:
        return
    bad = ~(allowed(value) & torch.isfinite(value))
    if bool(bad.any()):
        place = bad.nonzero()[0].tolist()
        raise ValueError(f"{name} of {_place(place)} is {value.expand(bad.shape)[tuple(place)].item()}; {expected}")


def _as_tensor(name: str, value: float | Tensor, num: int, like: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.tensor(float(value), dtype=like.dtype, device=like.device)
    if value.numel() != 1 and value.shape != (num,):
        raise ValueError(f"{name} must be one number or a tensor of shape ({num},), got shape {tuple(value.shape)}")
    if value.device != like.device:
        raise ValueError(f"{name} is on {value.device} but weight is on {like.device}; move both to one device")
    if value.dim() > 1:
        value = value.reshape(())
    return value if value.dtype == like.dtype else value.to(like.dtype)


def _per_branch(name: str, value: float | Tensor, branches: int | None, num: int, like: Tensor) -> Tensor:
    """As ``_as_tensor``; with branches ``(branches, 1)`` or ``(branches, num)``."""
    if branches is None:
        return _as_tensor(name, value, num, like)
    given = torch.as_tensor(value, dtype=like.dtype, device=None if isinstance(value, Tensor) else like.device)
    if given.device != like.device:
        raise ValueError(f"{name} is on {given.device} but weight is on {like.device}; move both to one device")
    if given.numel() == 1:
        return given.reshape(1, 1).expand(branches, 1)
    if given.shape == (branches,):
        return given[:, None]
    if given.shape not in ((branches, 1), (1, num), (branches, num)):
        raise ValueError(
            f"{name} of {branches} branches must be one number, or of shape {(branches,)} or {(branches, 1)} (per branch), "
            f"{(1, num)} (per neuron) or (branches, out) = {(branches, num)}, got shape {tuple(given.shape)}"
        )
    return given.expand(branches, -1)


def _place(index: Sequence[int]) -> str:
    """``neuron n``, or ``branch k of neuron n``."""
    if not index:
        return "neuron 0"
    return f"neuron {index[-1]}" if len(index) == 1 else f"branch {index[0]} of neuron {index[-1]}"


def _explain(neuron: Neuron) -> None:
    """Raise the error that names the neuron and the number."""
    for name in ("tau_mem", "tau_syn"):
        bad = ~((getattr(neuron, name) > 0) & torch.isfinite(getattr(neuron, name)))
        if bool(bad.any()):
            place = bad.nonzero()[0].tolist()
            value = getattr(neuron, name)[tuple(place)].item()
            raise ValueError(
                f"{name} of {_place(place)} is {value}; time constants are positive, finite seconds "
                "(eventnet.constrain_(module) after each optimiser step keeps them so)"
            )
    bad = ~(neuron.threshold > neuron.reset)
    if bool(bad.any()):
        n = int(bad.nonzero()[0])
        raise ValueError(
            f"threshold of neuron {n} is {neuron.threshold[n].item()}, its reset is {neuron.reset[n].item()}; the threshold "
            "must be above the reset (eventnet.constrain_(module) after each optimiser step keeps it so)"
        )
    for name in ("reset", "bias"):
        bad = ~torch.isfinite(getattr(neuron, name))
        if bool(bad.any()):
            n = int(bad.nonzero()[0])
            raise ValueError(f"{name} of neuron {n} is {getattr(neuron, name)[n].item()}; expected a finite voltage")


def register(module: nn.Module, learn: Sequence[str], **parameters: Tensor) -> None:
    """Register the parameters on ``module``; those named in ``learn`` require grad, an unknown name is an error."""
    if isinstance(learn, str):
        raise TypeError(f"learn must be a tuple of names, such as ({learn!r},), got the string {learn!r}")
    for name in learn:
        if name not in parameters:
            raise ValueError(f"learn={learn!r}: no parameter {name!r}; choose from {', '.join(parameters)}")
    for name, value in parameters.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=name in learn))


def as_parameter(value: float | Tensor, dtype: torch.dtype | None) -> Tensor:
    """A scalar or per-neuron value as a new tensor of ``dtype``."""
    dtype = dtype or torch.get_default_dtype()
    return value.detach().clone().to(dtype) if isinstance(value, Tensor) else torch.tensor(float(value), dtype=dtype)


def describe(parameters: dict[str, Tensor]) -> str:
    """``name=value, ...`` for ``repr``; what differs from neuron to neuron by its range."""
    return ", ".join(f"{name}={_shown(value.detach())}" for name, value in parameters.items())


def _shown(value: Tensor) -> str:
    if value.is_meta or not value.numel():
        return "?"
    low, high = value.min().item(), value.max().item()
    return f"{low:.3g}" if low == high else f"{low:.3g}..{high:.3g}"


def constrain_(module: nn.Module) -> nn.Module:
    """Bring the parameters of every eventnet layer in ``module`` back within their bounds, in place.

    Call it after each optimiser step when more than the weights is learnt: time constants stay positive, thresholds
    above resets and initial voltages (those of gated units between 0 and 1), delays and refractory periods at least 0.

    Example:
        >>> layer = LIF(3, 2, tau_mem=0.02, learn=("weight", "tau_mem"))
        >>> with torch.no_grad():
        ...     _ = layer.tau_mem.fill_(-1.0)
        >>> constrain_(layer).tau_mem.item() > 0
        True
    """
    with torch.no_grad():
        for part in module.modules():
            for name in ("tau_mem", "tau_syn", "tau_branch", "tau_plateau"):
                tau = getattr(part, name, None)
                if isinstance(tau, nn.Parameter):
                    tau.clamp_(min=MIN_TAU)
            threshold, reset = getattr(part, "threshold", None), getattr(part, "reset", None)
            if isinstance(threshold, nn.Parameter) and isinstance(reset, nn.Parameter):
                lowest = reset.max() if threshold.dim() == 0 else reset
                threshold.copy_(torch.maximum(threshold, lowest + MIN_GAP))
            rising = getattr(part, "branch_threshold", None)  # from a reset of 0
            if isinstance(rising, nn.Parameter):
                rising.clamp_(min=MIN_GAP)
            for name in ("delay", "recurrent_delay", "refractory"):
                seconds = getattr(part, name, None)
                if isinstance(seconds, nn.Parameter):
                    seconds.clamp_(min=0.0)
            voltage = getattr(part, "initial_voltage", None)
            if isinstance(voltage, nn.Parameter) and isinstance(threshold, nn.Parameter):
                highest = threshold.min() if voltage.dim() == 0 else threshold
                voltage.copy_(torch.minimum(voltage, highest - MIN_GAP))
            for name, parameter in part.named_parameters(recurse=False):
                if name.startswith("threshold") and hasattr(part, "threshold_mean"):
                    parameter.clamp_(0.0, 1.0)  # of gated units
    return module
