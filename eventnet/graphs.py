"""Layers of events among graphs of dense operators: ``torch.compile`` goes around them, exporters refuse them with the reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch._compile import _disable_dynamo  # torch.compiler.disable loads the compiler at once: seconds at each import

P = ParamSpec("P")
R = TypeVar("R")

REASON = (
    "layers of events cannot be exported by torch.export, torch.jit or ONNX: a traced graph has fixed sizes and knows "
    "ATen's operators only, but how many events there are depends on the data. torch.compile runs these layers between its "
    "graphs; eventnet.hardware exports networks to NIR and to chips"
)


def outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` runs as it is between the graphs of ``torch.compile``; ``torch.export``, ``torch.jit`` and ONNX refuse it.

    How many events there are depends on the data, so nothing in it is worth a graph.
    """
    alone = _disable_dynamo(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            if torch.compiler.is_exporting():
                raise NotImplementedError(REASON)
            return alone(*args, **kwargs)
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            raise NotImplementedError(REASON)
        return function(*args, **kwargs)

    own: Any = call  # with a code object of its own: the compiler gives up on code that it meets in many forms
    own.__code__ = own.__code__.replace(co_name=function.__name__)
    return call
