"""The words of a parity report's page: gates, their answers, errors of parameters, and what was compared."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["IDENTITY", "OF_FILE", "PARAMETERS", "PASSED", "QUESTIONS"]

QUESTIONS = {
    "L0": "The files load",
    "L1": "The files say what was simulated, bit for bit",
    "L2": "The accuracy is within a tolerance of the trained network's",
    "L3": "Lava does the same as the simulation, spike for spike",
}
OF_FILE = {
    "L0": "The file loads",
    "L1": "The file's equations and the layers' own agree to 1e-9",
    "L2": QUESTIONS["L2"],
}
PASSED = {True: ("passed", "good"), False: ("FAILED", "bad"), None: ("not run", "open")}

# What the errors of a parameter are called, and the factor to the unit in the words.
PARAMETERS: Mapping[str, tuple[str, float]] = {
    "scale": ("scale (1/V)", 1),
    "weight_exp": ("exponent of the weights", 1),
    "tau_syn_relative_error": ("tau_syn, largest error (%)", 100),
    "tau_mem_relative_error": ("tau_mem, largest error (%)", 100),
    "threshold_factor": ("threshold, factor that calibration chose", 1),
    "threshold_relative_error": ("threshold, rounding error (%)", 100),
    "weight_sqnr_db": ("weights, SQNR (dB)", 1),
    "weight_clipped": ("weights clipped (%)", 100),
    "input_weight_sqnr_db": ("input weights, SQNR (dB)", 1),
    "sent_sqnr_db": ("values that are sent, SQNR (dB)", 1),
    "events_that_differ": ("events that differ (%)", 100),
    "beyond_table": ("pre-activations beyond the tables (%)", 100),
    "trace_decay_error": ("decay of the trace, error", 1),
    "delay_worst_s": ("delays, largest error (s)", 1),
    "delay_mean_s": ("delays, mean error (s)", 1),
}
IDENTITY = {
    "step_s": "step (s)",
    "samples_of_the_dynamics": "samples whose spikes were compared",
    "readout": "classes are read from",
    "network_sha256": "SHA-256 of the integer network",
    "file_sha256": "SHA-256 of the file",
    "model_sha256": "SHA-256 of the trained model",
}
