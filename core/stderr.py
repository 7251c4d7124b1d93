"""What libraries write to stderr from C++ without being asked."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def without_info() -> Iterator[None]:
    """Keep lines that begin with "INFO:" off stderr; LiteRT writes one from C++, with no switch."""
    if sys.stderr is None:  # closed, as under a service manager
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        before = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            for line in caught:
                if not line.startswith(b"INFO:"):
                    os.write(2, line)
