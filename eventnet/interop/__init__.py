"""Into other people's models: networks of snnTorch and Norse, from and to, and eventnet's layers inside theirs.

    network, report = from_snntorch(model, dt=1e-3)     model, report = to_snntorch(network, dt=1e-3)
    network, report = from_norse(model)                 model, report = to_norse(network, dt=1e-3)
    StateSteps(layer, dt)       in a Norse SequentialState: (T, B, N) in, ((T, B, N), state) out
    SpkMem(layer, dt)           as a layer of snnTorch: (T, B, N) in, (spk, mem) out

Every conversion runs both networks on a probe; the report says how they differ, and what became of every parameter.
"""

from eventnet.interop.grid import Mapped
from eventnet.interop.norse import from_norse, to_norse
from eventnet.interop.probe import LayerReport, Report
from eventnet.interop.snntorch import from_snntorch, to_snntorch
from eventnet.interop.steps import SpkMem, StateSteps, to_steps

__all__ = [
    "LayerReport",
    "Mapped",
    "Report",
    "SpkMem",
    "StateSteps",
    "from_norse",
    "from_snntorch",
    "to_norse",
    "to_snntorch",
    "to_steps",
]
