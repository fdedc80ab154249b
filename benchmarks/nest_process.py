"""One simulation by NEST's ``iaf_psc_exp_ps``, in a process of its own.

NEST shares neither memory nor threads with the rest this way, and a crash of it is an error message. Times
are in milliseconds here, as in NEST.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

DELAY = 1.0  # ms; NEST's connections have one, so that everything happens that much later


def simulate_apart(**given: Any) -> tuple[np.ndarray, np.ndarray]:
    """What ``simulate`` returns, from another process."""
    with tempfile.TemporaryDirectory() as folder:
        problem, spikes = Path(folder) / "problem.npz", Path(folder) / "spikes.npz"
        np.savez(problem, **given)
        command = [sys.executable, __file__, str(problem), str(spikes)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        with np.load(spikes) as found:
            return found["units"], found["times"]


def simulate(
    times: np.ndarray,
    units: np.ndarray,
    weight: np.ndarray,
    duration: float,
    tau_mem: float,
    tau_syn: float,
    resolution: float,
    refractory: float,
    recurrent: np.ndarray,
    recurrent_delay: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Neuron and time of every spike; ``weight`` is (inputs, neurons), threshold 1, reset 0.

    ``recurrent`` and ``recurrent_delay`` are (neurons, neurons), or empty; delays are multiples of the resolution.
    """
    import nest

    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.set(tics_per_ms=10**6, resolution=resolution)
    constants = dict(C_m=tau_mem, tau_m=tau_mem, tau_syn_ex=tau_syn, tau_syn_in=tau_syn)
    state = dict(E_L=0.0, V_m=0.0, V_th=1.0, V_reset=0.0, I_e=0.0, t_ref=refractory)
    neurons = nest.Create("iaf_psc_exp_ps", weight.shape[1], params=constants | state)
    recorder = nest.Create("spike_recorder")
    nest.Connect(neurons, recorder)
    for unit, row in enumerate(weight):
        if (units == unit).any():
            parameters = dict(spike_times=times[units == unit], precise_times=True)
            source = nest.Create("spike_generator", params=parameters)
            nest.Connect(source, neurons, "all_to_all", {"weight": row.reshape(-1, 1), "delay": DELAY})
    if recurrent.size:
        nest.Connect(neurons, neurons, "all_to_all", {"weight": recurrent.T, "delay": recurrent_delay.T})
    nest.Simulate(duration + DELAY)
    found = recorder.get("events")
    return found["senders"] - neurons[0].global_id, found["times"] - DELAY


if __name__ == "__main__":
    with np.load(sys.argv[1]) as problem:
        given = {name: problem[name] if problem[name].ndim else problem[name].item() for name in problem}
    neurons, spikes = simulate(**given)
    np.savez(sys.argv[2], units=neurons, times=spikes)
