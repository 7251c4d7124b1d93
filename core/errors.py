"""One error class per cause, each with its exit code; the command line catches them once.

Exit codes: 0 done; 1 a gate or check failed; 2 usage; 3 something is missing on this machine;
4 bad input; 5 gate undecided; 70 a bug of ours.
"""

from __future__ import annotations

from typing import Any, ClassVar


class EdgeclsError(Exception):
    """Base of every error that a user can do something about."""

    exit_code: ClassVar[int] = 70

    def __reduce__(self) -> tuple[Any, ...]:
        """Come back whole from another process, whatever the class is made of."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[EdgeclsError], args: tuple[Any, ...], fields: dict[str, Any]) -> EdgeclsError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class CheckFailedError(EdgeclsError):
    """A check that the user asked for, or that export always makes, did not hold."""

    exit_code = 1


class TrainingError(CheckFailedError):
    """Training that diverged."""


class UsageError(EdgeclsError):
    """Options that contradict each other or ask for what a target cannot do."""

    exit_code = 2


class MissingError(EdgeclsError):
    """Something is missing on this machine."""

    exit_code = 3


class MissingPackageError(MissingError):
    """A Python package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package!r} is not installed; run: pip install 'edgecls[{extra}]'")
        self.package = package
        self.extra = extra


class BackendUnavailableError(MissingError):
    """A backend is installed but cannot run here (no driver, no device)."""


class EngineError(BackendUnavailableError):
    """A built TensorRT engine that the TensorRT or the GPU of this machine does not take."""


class DeviceError(MissingError):
    """A device that cannot be reached, went away, or lacks what it needs."""


class HostKeyError(DeviceError):
    """A device that does not prove to be the one that is known."""


class BadInputError(EdgeclsError):
    """What was given cannot be used."""

    exit_code = 4


class ImageError(BadInputError):
    """An image that cannot be read.

    Attributes:
        name: What the user called it: a path, or "image" for bytes.
        reason: Why, in a few words.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class PreprocessError(BadInputError):
    """A preprocessing that is not known, or not a valid one."""


class CheckpointError(BadInputError):
    """A weights file that is not one, or does not fit the model."""


class ModelError(BadInputError):
    """A model source that cannot be found or built."""


class GraphError(BadInputError):
    """An ONNX graph that is invalid or outside what can be converted."""


class UnsupportedOperatorError(GraphError):
    """An operator, or a form of it, that a converter has no lowering for."""

    def __init__(self, *, operator: str, node: str, found: str, fix: str) -> None:
        super().__init__(f"{operator} (node {node!r}): {found}; {fix}")
        self.operator = operator
        self.node = node


class BundleError(BadInputError):
    """A bundle that is damaged, foreign, or of another schema version."""


class DataError(BadInputError):
    """A folder, labels file or ground truth that cannot be used."""


class CalibrationError(BadInputError):
    """Calibration that cannot give ranges: no images, a NaN, a table of another model."""
