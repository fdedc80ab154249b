"""The Lava process of EGRU units, which scripts of networks that have some get a copy of (from the line of ``from lava`` on).

It is outside stock Lava 0.10.0, and outside NIR 1.0: a process of our own, with a model in Python for processors alone.
"""

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class EGRU(AbstractProcess):
    """Event-based gated recurrent units in integers, by eventnet: NOT part of stock Lava 0.10.0, and no node of NIR 1.0.

    There is one model of it, in Python, for a processor (tag "fixed_pt"); none for a chip. ``a_in`` takes what comes from below,
    ``r_in`` what comes from the units themselves, both (3 size,): gates r, z, n. s_out is a graded spike of ``payload_bits``.
    """

    def __init__(self, *, shape: tuple[int], **parameters: np.ndarray | int) -> None:
        super().__init__(shape=shape, **parameters)
        self.a_in, self.r_in = InPort(shape=(3 * shape[0],)), InPort(shape=(3 * shape[0],))
        self.s_out = OutPort(shape=shape)
        self.u, self.v = Var(shape=shape, init=0), Var(shape=shape, init=0)
        for name, value in parameters.items():
            array = np.atleast_1d(value)
            setattr(self, name, Var(shape=array.shape, init=array))


@implements(proc=EGRU, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyEGRU(PyLoihiProcessModel):
    """Integers alone, 64 bits wide inside; ``>>`` shifts towards minus infinity.

    X = (x m_x + 2^(s_x - 1) >> s_x) + b_x          r = table_r(X_r + H_r)         v = z c + (2^15 - z) n + 2^14 >> 15
    H = (h m_h + 2^(s_h - 1) >> s_h) + b_h          z = table_z(X_z + H_z)         fired where v > threshold
                                                    u = X_n + (r H_n + 2^14 >> 15)
                                                    n = table_n(u)
    sent: min(v + 2^(14 - bits) >> 15 - bits, 2^bits - 1) where fired, else 0;     c = v - threshold where fired, else v
    """

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    r_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    u: np.ndarray = LavaPyType(np.ndarray, np.int32)
    v: np.ndarray = LavaPyType(np.ndarray, np.int32)
    input_multiplier: np.ndarray = LavaPyType(np.ndarray, np.int64)
    input_shift: np.ndarray = LavaPyType(np.ndarray, np.int64)
    input_bias: np.ndarray = LavaPyType(np.ndarray, np.int64)
    recurrent_multiplier: np.ndarray = LavaPyType(np.ndarray, np.int64)
    recurrent_shift: np.ndarray = LavaPyType(np.ndarray, np.int64)
    recurrent_bias: np.ndarray = LavaPyType(np.ndarray, np.int64)
    threshold: np.ndarray = LavaPyType(np.ndarray, np.int64)
    payload_bits: np.ndarray = LavaPyType(np.ndarray, np.int64)
    first_step: np.ndarray = LavaPyType(np.ndarray, np.int64)
    table: np.ndarray = LavaPyType(np.ndarray, np.int64)

    def run_spk(self) -> None:
        """One step."""
        below, own = self.a_in.recv().astype(np.int64), self.r_in.recv().astype(np.int64)
        if self.time_step < self.first_step[0]:
            self.s_out.send(np.zeros(self.v.shape, np.int32))
            return
        x = self.scaled(below, self.input_multiplier, self.input_shift, self.input_bias)
        h = self.scaled(own, self.recurrent_multiplier, self.recurrent_shift, self.recurrent_bias)
        (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(x, 3), np.split(h, 3)
        r, z = self.look(0, x_r + h_r), self.look(1, x_z + h_z)
        u = x_n + ((r * h_n + 2**14) >> 15)
        n = self.look(2, u)
        v = (z * self.v.astype(np.int64) + (2**15 - z) * n + 2**14) >> 15
        fired = v > self.threshold
        bits = int(self.payload_bits[0])
        sent = np.minimum((v + ((1 << (15 - bits)) >> 1)) >> (15 - bits), 2**bits - 1)
        self.u[:], self.v[:] = u.astype(np.int32), v - fired * self.threshold
        self.s_out.send((sent * fired).astype(np.int32))

    def scaled(self, arrived: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """What arrived at a port as a part of the pre-activations."""
        return ((arrived * multiplier + (1 << (shift - 1))) >> shift) + bias

    def look(self, gate: int, u: np.ndarray) -> np.ndarray:
        """A gate's table, 257 places from -8 to 8, and the line between two of them."""
        p = np.clip(u, -(2**15), 2**15) + 2**15
        k = np.minimum(p >> 8, 255)
        low, high = self.table[gate, k], self.table[gate, k + 1]
        return low + (((high - low) * (p - (k << 8)) + 2**7) >> 8)
