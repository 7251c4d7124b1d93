"""edgecls: a trained PyTorch classifier on every edge device, small, fast and proved.

On a device::

    import edgecls

    predictor = edgecls.load("out/raspberry-pi")
    print(predictor.predict("photo.jpg").top1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.version import VERSION as __version__  # noqa: N811

if TYPE_CHECKING:
    from .bundle import Bundle
    from .runtimes import Prediction, Predictor, load

__all__ = ["Bundle", "Prediction", "Predictor", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Import what is asked for, when it is asked for: ``import edgecls`` alone costs nothing."""
    if name == "Bundle":
        from .bundle import Bundle

        return Bundle
    if name in {"Prediction", "Predictor", "load"}:
        from . import runtimes

        return getattr(runtimes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
