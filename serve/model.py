"""The bundle that a server answers with: opened, proved, and given back when it is replaced."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from ..core.errors import CheckFailedError, UsageError
from ..runtimes import Predictor
from ..runtimes.verify import Verification, verify
from .counts import MAX_CLASSES

_LOG: Final = logging.getLogger("edgecls.serve")

Open: TypeAlias = "Callable[[], Predictor]"
"""Loads the bundle afresh, from the same place in the same way."""


class Model:
    """A predictor that was verified; closed when nothing uses it any more.

    Attributes:
        predictor: What answers.
        verification: What its golden samples gave on this machine.
    """

    def __init__(self, predictor: Predictor, verification: Verification) -> None:
        self.predictor = predictor
        self.verification = verification
        self._users = 1  # the server itself
        self._lock = threading.Lock()

    @property
    def sha256(self) -> str:
        """Hash of the bundle's manifest."""
        return self.predictor.bundle.sha256

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return self.predictor.bundle.manifest.num_classes

    def use(self) -> None:
        """Keep it open until the ``release`` that belongs to this call."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Give back a use; the last one closes the predictor.

        What goes wrong then is logged: it is no fault of the image that happens to be the last.
        """
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            try:
                self.predictor.close()
            except Exception:
                _LOG.exception("a model could not be closed")


def open_model(opened: Open) -> Model:
    """Load a bundle, check every hash, and recompute its golden samples on this machine.

    Raises:
        BundleError: The bundle is damaged.
        CheckFailedError: This machine computes something else than was exported.
        MissingError: No backend can run here.
    """
    predictor = opened()
    bundle = predictor.bundle
    try:
        if bundle.manifest.num_classes > MAX_CLASSES:
            raise UsageError(f"{bundle.path}: a server counts up to {MAX_CLASSES} classes")
        found = verify(predictor)
        failed = next((sample for sample in found.samples if sample.state == "failed"), None)
        if failed is not None:
            raise CheckFailedError(
                f"{bundle.path}: golden sample {failed.sample} differs on this machine "
                f"({failed.step}): {failed.message}; run: edgecls verify"
            )
    except BaseException:
        predictor.close()
        raise
    return Model(predictor, found)
