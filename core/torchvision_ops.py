"""Imports torchvision beside a torch that its compiled operators were not built for.

Its wheels are built for one torch each. Beside another (a CPU build), the compiled library is not
loaded and plain import fails with ``operator torchvision::nms does not exist``. No classifier and
no transform uses these operators: declaring their schemas is enough.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Any, Final

from .errors import MissingPackageError

_SCHEMA: Final = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# The schemas live as long as this object does.
_declared: list[Any] = []
# The threads of a loader ask for it all at once.
_mending: Final = threading.Lock()


def import_torchvision() -> ModuleType:
    """Return torchvision, mended where its operators are missing; from any thread.

    Raises:
        MissingPackageError: torchvision is not installed.
    """
    with _mending:
        return _import_torchvision()


def _import_torchvision() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise MissingPackageError("torchvision", "zoo") from None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _declared:
            raise
    import torch

    # The failed import leaves some of its modules behind, half-made.
    for name in [name for name in list(sys.modules) if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    make: Any = torch.library.Library
    library = make("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)
    _declared.append(library)
    return importlib.import_module("torchvision")


def import_timm() -> ModuleType:
    """Return timm, which imports torchvision.

    Raises:
        MissingPackageError: timm or torchvision is not installed.
    """
    import_torchvision()
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingPackageError("timm", "zoo") from None
