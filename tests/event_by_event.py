"""A second implementation of ``eventnet.lif``, one event after the other in plain Python: an oracle that shares no code."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Net", "simulate"]


@dataclass
class Net:
    """Weights (in, N) and (N, N), delays of the same shapes, parameters (N,)."""

    weight: np.ndarray
    recurrent: np.ndarray
    delay: np.ndarray
    recurrent_delay: np.ndarray
    tau_mem: np.ndarray
    tau_syn: np.ndarray
    threshold: np.ndarray
    reset: np.ndarray
    bias: np.ndarray
    refractory: np.ndarray
    voltage: np.ndarray
    current: np.ndarray


@dataclass
class _Neuron:
    tm: float
    ts: float
    top: float
    low: float
    rest: float
    refractory: float
    v: float
    i: float
    now: float = 0.0
    free: float = 0.0

    def at(self, t: float) -> tuple[float, float]:
        """Voltage and current at t, without a spike on the way."""
        start = max(self.now, min(self.free, t))
        i = self.i * math.exp(-(start - self.now) / self.ts)
        s = t - start
        x, y = math.exp(-s / self.tm), math.exp(-s / self.ts)
        d = s * abs(1 / self.ts - 1 / self.tm)  # (x - y) would cancel where the time constants are close
        k = s / self.tm * max(x, y) * (-math.expm1(-d) / d if d else 1.0)
        return self.rest + (self.v - self.rest) * x + i * k, i * y

    def slope(self, t: float) -> float:
        v, i = self.at(t)
        return self.rest - v + i

    def crossing(self, until: float) -> float:
        """First time in (now, until] at which the voltage reaches the threshold, or infinity."""
        start = max(self.now, self.free)
        if start >= until:
            return math.inf
        high = until
        if self.slope(start) > 0 >= self.slope(until):  # the peak lies between: the slope changes its sign once
            low, high = start, until
            for _ in range(200):
                middle = 0.5 * (low + high)
                if not low < middle < high:
                    break
                low, high = (middle, high) if self.slope(middle) > 0 else (low, middle)
        elif self.slope(start) <= 0 and self.at(until)[0] < self.top:
            return math.inf
        if self.at(high)[0] < self.top:
            return math.inf
        low = start
        for _ in range(200):
            middle = 0.5 * (low + high)
            if not low < middle < high:
                break
            low, high = (low, middle) if self.at(middle)[0] >= self.top else (middle, high)
        return high


def simulate(
    net: Net, events: Sequence[tuple[float, int, float]], duration: float
) -> tuple[list[tuple[float, int]], list[str]]:
    """Spikes ``(time, neuron)`` of one sample in their order, and for each neuron what happened to it: a for an arrival, s for
    a spike. Events are ``(time, unit, value)``."""
    num = net.weight.shape[1]
    neurons = [
        _Neuron(*map(float, row))
        for row in zip(
            net.tau_mem,
            net.tau_syn,
            net.threshold,
            net.reset,
            net.bias,
            net.refractory,
            net.voltage,
            net.current,
            strict=True,
        )
    ]
    arrivals: list[tuple[float, int, float]] = []  # time, target, size

    def send(t: float, sizes: np.ndarray, delays: np.ndarray) -> None:
        for n in range(num):
            if t + delays[n] < duration:
                heapq.heappush(arrivals, (t + delays[n], n, sizes[n]))

    for t, j, value in events:
        send(t, value * net.weight[j], net.delay[j])
    spikes: list[tuple[float, int]] = []
    history = [""] * num
    next_spike = [neuron.crossing(duration) for neuron in neurons]
    while True:
        n = min(range(num), key=next_spike.__getitem__)
        arrival = arrivals[0][0] if arrivals else math.inf
        if min(next_spike[n], arrival) == math.inf:
            return spikes, history
        if next_spike[n] <= arrival:
            neuron, t = neurons[n], next_spike[n]
            neuron.i = neuron.at(t)[1]
            neuron.v, neuron.now, neuron.free = neuron.low, t, t + neuron.refractory
            spikes.append((t, n))
            history[n] += "s"
            send(t, net.recurrent[n], net.recurrent_delay[n])
        else:
            t, n, size = heapq.heappop(arrivals)
            neuron = neurons[n]
            history[n] += "a"
            v, i = neuron.at(t)
            neuron.v, neuron.i, neuron.now = v, i + size, t
        next_spike[n] = neurons[n].crossing(duration)
