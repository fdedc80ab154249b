"""A trained network on a neuromorphic chip: 8-bit weights, delays in whole steps, and proof of what was lost.

Trains a recurrent network with learnt delays on spike latencies of digits, compiles it for steps of 1 ms, fine-tunes it through
the chip's integers, and writes it for Lava and NIR, each with a report (parity.html). Takes about half a minute.
"""

import sys
import tempfile
from pathlib import Path

import torch

from eventnet import LI, LIF, constrain_, data, initial
from eventnet.hardware import compile, export, finetune

torch.manual_seed(0)
digits = data.load("digits")
hidden = LIF(64, 60, recurrent=True, delay=(0.0, 10e-3), recurrent_delay=(1e-3, 10e-3))
readout = LI(60, 10)
with torch.no_grad():
    hidden.recurrent_weight.mul_(0.1)
initial.fire_fraction_(hidden, digits.train.events[:100], 0.5)
delays = [hidden.delay, hidden.recurrent_delay]
weights = [hidden.weight, hidden.recurrent_weight, readout.weight]
optimizer = torch.optim.Adam([{"params": weights, "lr": 5e-3}, {"params": delays, "lr": 2e-4}])
for epoch in range(4):
    for index in torch.randperm(len(digits.train)).split(32):
        events, labels = digits.train.events[index], digits.train.labels[index]
        loss = torch.nn.functional.cross_entropy(readout(hidden(events)).max(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        constrain_(hidden)

model = [hidden, readout]
deployment = compile(model, calibration=digits.train.events[:64], dt=1e-3)
batches = [(digits.train.events[k : k + 32], digits.train.labels[k : k + 32]) for k in range(0, 640, 32)]
validation = digits.validation.events, digits.validation.labels
deployment = finetune(deployment, batches, epochs=1, validation=validation, say=print)

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
for target in ("lava", "nir"):
    test = digits.test.events[:100], digits.test.labels[:100]
    report = export(deployment, model, target, folder / target, *test, tolerance=0.03, samples=1, steps=40)
    print(f"\n{folder / target}:", *report.gates, sep="\n  ")
