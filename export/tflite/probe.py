"""Tries a TFLite file where a crash does no harm."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

from ...core.errors import GraphError

_TIMEOUT_S: Final = 300

_RUN: Final = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_content=sys.stdin.buffer.read(), num_threads=1)
interpreter.allocate_tensors()
for detail in interpreter.get_input_details():
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
interpreter.invoke()
for detail in interpreter.get_output_details():
    interpreter.get_tensor(detail["index"])
"""


def try_in_subprocess(data: bytes) -> None:
    """Load a TFLite file, allocate its tensors and run it once on zeros, in another process.

    A malformed file can crash the interpreter, and the process with it.

    Raises:
        GraphError: It crashed, refused the file, or took longer than five minutes.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RUN], input=data, capture_output=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise GraphError(
            f"expected the TFLite file to run, found no end after {_TIMEOUT_S} s; use a smaller "
            "image or model"
        ) from None
    if done.returncode == 0:
        return
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"exit status {done.returncode}"
    if done.returncode < 0:
        reason = f"the interpreter crashed ({signal.Signals(-done.returncode).name})"
    raise GraphError(
        f"expected the TFLite file to run, found: {reason}; please report the model, or leave out "
        "the operators that the interpreter names"
    )
