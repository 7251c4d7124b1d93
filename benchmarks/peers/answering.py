"""What a measured pipeline says: one line when it is ready, then one for each photo.

Run by an environment of any tool: the standard library only. Imported before the tool, whose own
words on stdout go to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

_OUT = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def answer(predict: Callable[[str], int], **about: str) -> None:
    """Predict each path that stdin names; ``predict`` returns the best class's index."""
    print(json.dumps(about), file=_OUT)
    for line in sys.stdin:
        path = line.rstrip("\n")
        start, start_cpu = time.perf_counter(), time.process_time()
        top1 = predict(path)
        taken, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        print(json.dumps({"ms": taken * 1e3, "cpu_ms": cpu * 1e3, "top1": top1}), file=_OUT)
