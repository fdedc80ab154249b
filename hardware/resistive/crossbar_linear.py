"""CrossbarLinear: ``nn.Linear`` computed by crossbars, trainable with their noise in the loop.

y = Crossbar(chip(W)).product(x) + bias,    dy/dx = W,  dy/dW = x  (straight through noise, levels and converters)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from eventnet.hardware.resistive.compensation import drift_compensation
from eventnet.hardware.resistive.converters import ADC, DAC
from eventnet.hardware.resistive.crossbar import IDEAL, Crossbar, Pair, check_arrays, to_pair
from eventnet.hardware.resistive.devices import Cell, Chip
from eventnet.hardware.resistive.draws import seeded
from eventnet.hardware.resistive.effects import check_age

__all__ = ["CrossbarLinear"]

# Streams of a layer's seed; the seed itself is the chip's, and 4 is placing's.
WRITING, READING, TRAINING, COMPENSATING = 1, 2, 3, 5


class CrossbarLinear(nn.Linear):
    """``nn.Linear`` computed by crossbars: its parameters, its shapes, its ``state_dict``; the forward pass is the arrays'.

    In training every call writes the weights to a new random chip, so that they come to work on any; the gradient is that of
    the ideal layer (straight through all noise and converters). In ``eval`` the weights are written once to the chip that is
    ``seed``, and again when they have changed; reads have new noise at every call. The bias is added digitally, without noise.

    Give each layer a seed of its own: two of the same shape and seed are the same chip.

    Args:
        in_features, out_features, bias, device, dtype: as for ``nn.Linear``.
        cell: memory cell; the default one is ideal.
        tile, dac, adc, wire_resistance: as for ``Crossbar``.
        age: seconds since programming; ``layer.age`` can be set at any time.
        compensate_drift: whether outputs are multiplied with the ``drift_compensation`` of the cells at that age.
        seed: the chip, and where its noise starts.

    Raises:
        TypeError: a cell or a converter that is none. ValueError: a tile without cells, an age below 0.

    Example:
        >>> from eventnet.hardware.resistive import HFOX
        >>> trained = nn.Linear(300, 10)
        >>> layer = CrossbarLinear.from_linear(trained, cell=HFOX, dac=DAC(8), adc=ADC(8)).eval()
        >>> x = torch.rand(4, 300)
        >>> after_1_s = layer(x)
        >>> layer.age = 86_400.0
        >>> after_1_day = layer(x)
        >>> bool((after_1_s - trained(x)).norm() < (after_1_day - trained(x)).norm())
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        cell: Cell = IDEAL,
        tile: tuple[int, int] | None = (128, 128),
        dac: DAC | None = None,
        adc: ADC | None = None,
        wire_resistance: float = 0.0,
        age: float = 0.0,
        compensate_drift: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        check_arrays(cell, tile, dac, adc)
        self.cell, self.tile, self.dac, self.adc = cell, tile, dac, adc
        self.compensate_drift = compensate_drift
        self.wire_resistance, self.seed, self.cycle = wire_resistance, seed, 0
        self._age = 0.0
        self.age = age
        self._written: tuple[Any, Tensor, Chip, float] | None = None  # of what, of which weights, the chip, its scale
        self._arrays: tuple[Any, Crossbar] | None = None
        self.restart()

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Any) -> CrossbarLinear:
        """A crossbar layer with a copy of the weights of an ``nn.Linear``; ``options`` are keywords of the class."""
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        made = skip_init(cls, linear.in_features, linear.out_features, linear.bias is not None, **like, **options)
        made.load_state_dict(linear.state_dict())
        for mine, theirs in zip(made.parameters(), linear.parameters(), strict=True):
            mine.requires_grad_(theirs.requires_grad)
        return made.train(linear.training)

    @property
    def age(self) -> float:
        """Seconds since programming at which the arrays are read."""
        return self._age

    @age.setter
    def age(self, seconds: float) -> None:
        check_age(seconds)
        self._age = float(seconds)

    def restart(self) -> None:
        """Start the noise of reading and of training again from the seed."""
        self._reading, self._training = seeded(self.seed, READING), seeded(self.seed, TRAINING)

    def program(self, cycle: int = 0) -> Chip:
        """Write the present weights to the chip of the seed: ``(2, out, in)``, G+ and G-.

        ``eval`` does this by itself. Another ``cycle`` writes the same cells once more: what belongs to the chip stays, what is
        new at each writing (programming noise, cycle-to-cycle spread) is drawn again.
        """
        self.cycle = cycle
        chip, scale = self._write(seeded(self.seed), seeded(self.seed, WRITING, cycle))
        self._written = (self._writing_options(), self.weight.detach().clone(), chip, scale)
        self._arrays = None
        return chip

    @property
    def chip(self) -> Chip:
        """The cells that hold the present weights: ``(2, out, in)``, G+ and G-."""
        return self._on_chip()[0]

    def programmed_weight(self) -> Tensor:
        """``(out, in)``: the weights that the chip has at ``age``, before wires, converters and the compensation of drift."""
        chip, scale = self._on_chip()
        return _pair(chip.at(self.age), scale).weight()

    def crossbar(self) -> Crossbar:
        """The arrays of the chip at ``age``, without the bias, for many products in a row.

        ``forward`` compares the weights with those of the chip at each call; this one is made once.
        """
        chip, scale = self._on_chip()
        options = (self.age, self.tile, self.dac, self.adc, self.wire_resistance, self.compensate_drift)
        if self._arrays is None or self._arrays[0] != options:
            self._arrays = (options, self._read_at_age(chip, scale, seeded(self.seed, COMPENSATING)))
        return self._arrays[1]

    def forward(self, input: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``(..., out_features)`` for ``(..., in_features)``; ``generator`` draws the noise in place of the layer's own ones."""
        with torch.no_grad():
            if self.training:
                drawn = generator or self._training
                found = self._read_at_age(*self._write(drawn, drawn), drawn).product(input, drawn)
            else:
                found = self.crossbar().product(input, generator or self._reading)
        found = _StraightThrough.apply(input, self.weight, found)
        return found if self.bias is None else found + self.bias

    def _write(self, cells: torch.Generator, writing: torch.Generator) -> tuple[Chip, float]:
        pair = to_pair(self.weight, self.cell)
        return self.cell.program(torch.stack([pair.positive, pair.negative]), cells, writing), pair.scale

    def _writing_options(self) -> Any:
        return self.cell, self.seed, self.cycle

    def _on_chip(self) -> tuple[Chip, float]:
        if self._written is not None:
            options, weight, chip, scale = self._written
            same = weight.device == self.weight.device and weight.dtype == self.weight.dtype
            if same and options == self._writing_options() and torch.equal(weight, self.weight):
                return chip, scale
        self.program(self.cycle)
        assert self._written is not None
        return self._written[2:]

    def _read_at_age(self, chip: Chip, scale: float, calibrating: torch.Generator) -> Crossbar:
        conductance, sigma = chip.reading(self.age)
        if self.compensate_drift:
            scale *= drift_compensation(chip, self.age, calibrating)
        return Crossbar(
            _pair(conductance, scale),
            self.cell,
            read_sigma=None if sigma is None else (sigma[0], sigma[1]),
            tile=self.tile,
            dac=self.dac,
            adc=self.adc,
            wire_resistance=self.wire_resistance,
        )

    def extra_repr(self) -> str:
        shown = {"tile": self.tile, "dac": self.dac, "adc": self.adc, "age": self.age, "seed": self.seed}
        shown |= {name: value for name in ("wire_resistance", "compensate_drift") if (value := getattr(self, name))}
        return ", ".join([super().extra_repr(), *(f"{name}={value}" for name, value in shown.items())])


class _StraightThrough(torch.autograd.Function):
    """Forward what the arrays gave, backward ``x @ weight.T``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, product: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = grad @ weight if ctx.needs_input_grad[0] else None
        of_weight = (
            grad.reshape(-1, grad.shape[-1]).t() @ x.reshape(-1, x.shape[-1]) if ctx.needs_input_grad[1] else None
        )
        return of_x, of_weight, None


def _pair(both: Tensor, scale: float) -> Pair:
    """From ``(2, out, in)``."""
    return Pair(both[0], both[1], scale)
