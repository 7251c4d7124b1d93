"""What libraries write to stderr from C++ without being asked."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def without_info() -> Iterator[TextIO | None]:
    """Keep lines that begin with "INFO:" off stderr; LiteRT writes one from C++, with no switch.

    Yields:
        The real stderr, for what must be seen at once; the rest appears at the end. None where
        there is none.
    """
    if sys.stderr is None:  # closed, as under a service manager
        yield None
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        before = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            with os.fdopen(os.dup(before), "w") as real:
                yield real
        finally:
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            for line in caught:
                if not line.startswith(b"INFO:"):
                    os.write(2, line)
