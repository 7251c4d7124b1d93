"""Reads CIFAR's python batches, which are pickles, without running what stands in them.

A pickle is a program. This reader lets it make numbers, text, bytes, lists, tuples and dicts; the
names by which NumPy's arrays are stored stand for inert records, not for NumPy's functions, and
every other name is refused. The arrays are made afterwards, from records that were checked.
"""

from __future__ import annotations

import math
import pickle  # noqa: TID251 - only its parser; see above
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..core.errors import DataError

MAX_BYTES: Final = 1 << 30

_MODULES: Final = ("numpy.core", "numpy._core")


def read_pickle(file: Path) -> Any:
    """Return what a pickle holds: plain values, and arrays of numbers.

    Text that Python 2 wrote comes as bytes.

    Raises:
        DataError: Not readable, damaged, or it names anything but an array.
    """
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{file}: {size >> 20} MiB, at most {MAX_BYTES >> 20} MiB are read")
        with file.open("rb") as stream:
            return _arrays(_reader(stream).load())
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        raise DataError(f"{file}: not a python batch that is safe to read: {error}") from error
    except Exception as error:  # what a damaged program raises is up to the damage
        raise DataError(f"{file}: not a readable python batch: {error!r}") from error


def _reader(stream: Any) -> pickle.Unpickler:
    # Made anew for each file: a pickle may write into what it is given.
    class Array:
        def __init__(self, *_: object) -> None:
            self.state: Any = None

        def __setstate__(self, state: Any) -> None:
            self.state = state

        def to_array(self) -> Any:
            _, shape, dtype, fortran, data = self.state
            kind = dtype.to_dtype()
            if len(data) != math.prod(shape) * kind.itemsize:
                raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
            order: Any = "F" if fortran else "C"
            return np.frombuffer(data, kind).reshape(shape, order=order)

    class Dtype:
        def __init__(self, name: Any = "", *_: object) -> None:
            self.name = name.decode("ascii") if isinstance(name, bytes) else str(name)
            self.state: Any = (3, "|")

        def __setstate__(self, state: Any) -> None:
            self.state = state

        def to_dtype(self) -> np.dtype[Any]:
            order = self.state[1]
            order = order.decode("ascii") if isinstance(order, bytes) else str(order)
            kind = np.dtype(self.name).newbyteorder(">" if order == ">" else "<")
            if kind.kind not in "uif":
                raise ValueError(f"an array of {kind}, expected numbers")
            return kind

    class Ndarray:
        """Stands for the type, which ``_reconstruct`` is told to make."""

    def encode(text: str, encoding: str = "latin1") -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
        return text.encode("latin1")

    def frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
        array = Array()
        array.state = (1, shape, dtype, order == "F", data)
        return array

    def no_bytes() -> bytes:
        return b""

    known = {
        ("numpy", "dtype"): Dtype,
        ("numpy", "ndarray"): Ndarray,
        # How Python 3 stores bytes for Python 2.
        ("_codecs", "encode"): encode,
        ("__builtin__", "bytes"): no_bytes,
        ("builtins", "bytes"): no_bytes,
        **{(f"{module}.multiarray", "_reconstruct"): Array for module in _MODULES},
        **{(f"{module}.numeric", "_frombuffer"): frombuffer for module in _MODULES},
    }

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str, /) -> Any:
            if (module, name) not in known:
                raise pickle.UnpicklingError(f"it would call {module}.{name}")
            return known[module, name]

    return Reader(stream, encoding="bytes")


def _arrays(value: Any) -> Any:
    """Return the value with its records made arrays."""
    if hasattr(value, "to_array"):
        return value.to_array()
    if isinstance(value, dict):
        return {key: _arrays(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_arrays(entry) for entry in value]
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
