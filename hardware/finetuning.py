"""Fine-tuning through the chip's own integers: the forward pass is the simulation, bit for bit; the backward pass goes straight
through what is rounded.

Weights are kept as real numbers and rounded in the forward pass; the gradient of the rounded one is theirs, and those that
oscillate are frozen (``eventnet.hardware.integer_weights``). The equations of the backward pass stand in
``eventnet.hardware.lif_finetune`` and ``egru_finetune``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any

import torch
from torch import Tensor, nn

from eventnet import Events, metrics
from eventnet.hardware.checks import check_events
from eventnet.hardware.deployment import Deployment
from eventnet.hardware.egru import EGRUUnits
from eventnet.hardware.egru_finetune import EGRUStage
from eventnet.hardware.integer_weights import IntegerWeights
from eventnet.hardware.lif import LIFNeurons
from eventnet.hardware.lif_finetune import LIFStage
from eventnet.hardware.network import HardwareNetwork, Population
from eventnet.hardware.reading import Reader

__all__ = ["QuantizedTwin", "finetune"]


class QuantizedTwin(IntegerWeights):
    """A deployed network whose weights can be trained: the same integers forward, a gradient backward.

    Args:
        deployment: of LIF layers and an LI readout, or of a readout that counts spikes, or of EGRU units.

    Parameters: ``weights[k]`` of projection k of the network, in units of the integer grid.

    Example:
        >>> from eventnet import LI, LIF
        >>> from eventnet.hardware.deployment import compile
        >>> model, events = nn.Sequential(LIF(4, 3), LI(3, 2)), Events.from_list([([0.01], [2])], num_units=4, duration=0.1)
        >>> deployment = compile(model, calibration=events)
        >>> twin = QuantizedTwin(deployment)
        >>> torch.equal(twin(events), deployment.run(events).scores)
        True
    """

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        if deployment.reading.kind == "first_spike":
            raise ValueError(
                "a first spike on a grid has no gradient here: expected a readout of the voltage, or a count of spikes"
            )
        network = deployment.network
        self.stages = [_stage(network, each) for each in network.neurons]

    def forward(self, events: Events) -> Tensor:
        """Scores as ``Deployment.run``, with a gradient to the weights."""
        x = self.deployment.raster(events).to(torch.float32)
        network, reading = self.deployment.network, self.deployment.reading
        v = x
        for stage in self.stages:
            v, x = stage.apply(x, *(self.weights[k] for k in stage.projections))
        reader = Reader(reading, events.num_steps(network.dt), network.dt)
        reader.add(v, x)
        return reader.scores()


def _stage(network: HardwareNetwork, neurons: Population) -> LIFStage | EGRUStage:
    """A population at work, with a gradient."""
    if isinstance(neurons, EGRUUnits):
        return EGRUStage(network, neurons)
    if isinstance(neurons, LIFNeurons):
        return LIFStage(network, neurons)
    raise TypeError(f"{neurons.name}: neurons of kind {neurons.kind!r} have no gradient; expected lif or egru")


def finetune(
    deployment: Deployment,
    batches: Iterable[tuple[Events, Tensor]],
    *,
    epochs: int = 3,
    learning_rate: float = 0.25,
    validation: tuple[Events, Tensor] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Deployment:
    """Train the weights through the chip's integers; returns the best of the start and each epoch by validation, else the last.

    Args:
        deployment: of ``compile``.
        batches: events and labels, gone through once per epoch; of training data.
        epochs, learning_rate: of Adam, in units of the integer grid; it falls to zero along a cosine.
        validation: chosen by; without it the last epoch is kept.
        say: told how each epoch went.

    Example:
        >>> from eventnet import LI, LIF
        >>> from eventnet.hardware.deployment import compile
        >>> events = Events.from_list([([0.01, 0.03], [2, 1]), ([0.02], [0])], num_units=4, duration=0.1)
        >>> deployment = compile([LIF(4, 3), LI(3, 2)], calibration=events)
        >>> finetune(deployment, [(events, torch.tensor([0, 1]))], epochs=1).network.num_synapses > 0
        True
    """
    _check_batches(batches)
    twin = QuantizedTwin(deployment)
    batches = batches if isinstance(batches, Sized) else list(batches)
    optimizer = torch.optim.Adam(twin.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * len(batches)))
    best, chosen = deployment, -1.0 if validation is None else share_right(deployment, *validation)
    if validation is not None:
        say(f"before fine-tuning: validation accuracy {chosen:.2%}")
    for epoch in range(epochs):
        if hasattr(batches, "set_epoch"):
            batches.set_epoch(epoch)
        total, samples = 0.0, 0
        if not len(batches):
            raise ValueError("batches: expected some to train with, got none")
        for batch in batches:
            events, labels = _pair(batch)
            scores = twin(events)
            loss = nn.functional.cross_entropy(scores.flatten(0, -2), labels.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            twin.after_step_()
            total, samples = total + loss.item() * len(labels), samples + len(labels)
        line = f"fine-tuning, epoch {epoch + 1}/{epochs}: loss {total / max(1, samples):.3f}"
        line += f", {twin.frozen_share():.1%} of the weights frozen"
        if validation is None:
            best = twin.deploy()
        elif (right := share_right(twin.deploy(), *validation)) > chosen:
            best, chosen = twin.deploy(), right
        say(line if validation is None else f"{line}, validation accuracy {right:.2%}")
    return best


def _check_batches(batches: Any) -> None:
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise TypeError(f"batches: expected pairs of Events and labels, got {type(batches).__name__}")


def _pair(batch: Any) -> tuple[Events, Tensor]:
    """A batch, or an error that says what one is."""
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor) and batch[1].dim():
        check_events("batches", batch[0])
        return batch[0], batch[1]
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    found = ", ".join(type(each).__name__ for each in parts)
    raise TypeError(
        f"batches: expected pairs of Events and a tensor of labels, got ({found}); of a data set, Batches(data, batch_size) of "
        "eventnet.training.batches makes them"
    )


def share_right(deployment: Deployment, events: Events, labels: Tensor) -> float:
    """Accuracy on labelled samples."""
    return metrics.accuracy(deployment.predict(events), labels)
