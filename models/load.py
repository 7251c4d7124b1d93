"""``load_model``: from what the user names to a model that is ready to export."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, Final

import torch

from ..core.errors import CheckpointError, ModelError, UsageError
from ..core.preprocess import PRESETS
from .checkpoint import read_checkpoint
from .cifar_resnet import DEPTHS, CifarResNet
from .exported import load_exported
from .fit import fit_checkpoint
from .graph import load_graph
from .lenet import LeNet5
from .loaded import LoadedModel
from .trained import (
    GRAPH,
    SIMULATION,
    TABLE,
    WEIGHTS,
    PruningRecord,
    TrainingRecord,
    is_trained,
    read_record,
)
from .widths import resize
from .zoo import Architecture, build_timm, build_torchvision

_CIFAR: Final = {f"cifar_resnet{depth}": depth for depth in DEPTHS}
OWN: Final = ("lenet5", *_CIFAR)
"""The architectures that need no zoo."""
_FORMS: Final = (
    f"timm:NAME, torchvision:NAME, {', '.join(OWN)}, package.module:callable, FILE.pt2, FILE.onnx "
    "or a folder of edgecls train; `edgecls models` lists them"
)


def load_model(
    source: str, *, weights: Path | None = None, num_classes: int | None = None,
    new_head: bool = False, seed: int = 0,
) -> LoadedModel:  # fmt: skip
    """Build or read a classifier.

    Args:
        source: ``timm:NAME``, ``torchvision:NAME``, ``lenet5``, ``cifar_resnet20`` (32, 44, 56),
            ``package.module:callable`` (found from the current folder too), a ``.pt2`` or
            ``.onnx`` file, or a folder that ``edgecls train`` wrote.
        weights: A checkpoint. Nothing is ever downloaded: a zoo's model without one is random.
        num_classes: Size of the head, where it is not the architecture's own.
        new_head: Whether weights for another number of classes are taken, without their head.
        seed: Of random weights: they are the same every time, so that what is made of them can be
            repeated.

    Raises:
        ModelError: There is no such model, or it cannot be built.
        CheckpointError: The weights cannot be read, do not fit, or hold NaN or infinity.
        GraphError: The ONNX file cannot be used.
        UsageError: Weights for a file that has its own, or a number of classes that it has not.
        MissingPackageError: timm or torchvision is not installed.
    """
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"the number of classes must be positive, found {num_classes}")
    path = Path(source)
    if path.suffix.lower() in {".pt2", ".onnx"}:
        return _load_file(source, path, weights, num_classes)
    if is_trained(path):
        return _load_trained(source, path, weights, num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = build(source, num_classes)
    module = built.module.cpu().eval()
    notes = built.notes
    pruned = None if weights is None else _pruned(source, weights)
    if pruned is not None:
        resize(module, pruned.widths)
    sha256 = None
    if weights is not None:
        checkpoint = read_checkpoint(weights)
        fitted = fit_checkpoint(
            module, checkpoint, built.look_alike,
            new_head=(built.num_classes or num_classes) if new_head else None,
        )  # fmt: skip
        notes = (*fitted, *notes)
        sha256 = checkpoint.sha256
    else:
        _check_finite(source, module)
    return LoadedModel(
        source=source,
        module=module,
        preprocess=built.preprocess,
        input_size=built.input_size,
        num_classes=built.num_classes,
        parameters=sum(value.numel() for value in module.parameters()),
        weights_sha256=sha256,
        random_weights=built.random and weights is None,
        pruned=pruned,
        notes=notes,
    )


def _load_file(
    source: str, path: Path, weights: Path | None, num_classes: int | None
) -> LoadedModel:
    if weights is not None:
        raise UsageError(f"{source} holds its own weights; leave --weights out")
    if not path.is_file():
        raise ModelError(f"{source}: no such file")
    loaded = (load_exported if path.suffix.lower() == ".pt2" else load_graph)(source, path)
    if num_classes is not None and loaded.num_classes not in {None, num_classes}:
        raise UsageError(
            f"{source} has {loaded.num_classes} classes, not {num_classes}; leave --num-classes out"
        )
    return loaded


def _load_trained(
    source: str, folder: Path, weights: Path | None, num_classes: int | None
) -> LoadedModel:
    """Return the model of a training, whose record may come from elsewhere: it runs no code."""
    record = read_record(folder)
    if weights is not None:
        raise UsageError(f"{source} holds its own weights; leave --weights out")
    if num_classes not in {None, len(record.labels)}:
        raise UsageError(
            f"{source} has {len(record.labels)} classes, not {num_classes}; leave --num-classes out"
        )
    if record.quantized is not None:
        return _load_quantized(source, folder, record)
    kind, separator, _ = record.architecture.partition(":")
    if separator and kind not in {"timm", "torchvision"}:
        raise UsageError(
            f"{source} was trained from {record.architecture}, whose code is not run on a file's "
            f"word; name it: {record.architecture} --weights {folder / WEIGHTS}"
        )
    loaded = load_model(
        record.architecture, weights=folder / WEIGHTS, num_classes=len(record.labels)
    )
    return dataclasses.replace(
        loaded, source=source, preprocess=record.preprocess, labels=record.labels
    )


def _load_quantized(source: str, folder: Path, record: TrainingRecord) -> LoadedModel:
    files = [folder / name for name in (GRAPH, SIMULATION, TABLE)]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise ModelError(
            f"{missing}: missing: the training that writes it is not finished; run its command "
            "(edgecls qat) again with --resume"
        )
    return dataclasses.replace(
        load_graph(source, files[0]),
        preprocess=record.preprocess,
        parameters=record.parameters,
        labels=record.labels,
        quantized=record.quantized,
        simulation=load_graph(source, files[1]).onnx,
        table=files[2],
    )


def _pruned(source: str, weights: Path) -> PruningRecord | None:
    """Return what a folder of ``edgecls prune`` or ``train`` says of the weights in it."""
    folder = weights.parent
    if not is_trained(folder):
        return None
    try:
        record = read_record(folder)
    except ModelError:
        return None  # another tool's file of that name; shapes that do not fit are refused
    return record.pruned if record.architecture == source else None


def build(source: str, num_classes: int | None) -> Architecture:
    """Return an architecture with its initial weights, as ``load_model`` calls it.

    Raises:
        ModelError: There is no such model, or it cannot be built.
        UsageError: A callable takes no number of classes.
        MissingPackageError: timm or torchvision is not installed.
    """
    kind, separator, name = source.partition(":")
    if kind == "timm" and separator:
        return build_timm(name, num_classes)
    if kind == "torchvision" and separator:
        return build_torchvision(name, num_classes)
    if separator:
        return _build_callable(source, kind, name, num_classes)
    classes = 10 if num_classes is None else num_classes
    if source == "lenet5":
        return _own(LeNet5(classes), classes, "mnist", (1, 28, 28))
    if source in _CIFAR:
        return _own(CifarResNet(_CIFAR[source], classes), classes, "cifar10", (3, 32, 32))
    close = difflib.get_close_matches(source, OWN, n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(close)}?" if close else f"expected {_FORMS}"
    raise ModelError(f"no model {source!r}; {hint}")


def _own(
    module: torch.nn.Module, classes: int, preset: str, size: tuple[int, int, int]
) -> Architecture:
    return Architecture(
        module=module, num_classes=classes, preprocess=PRESETS[preset], input_size=size
    )


def _build_callable(
    source: str, module_name: str, name: str, num_classes: int | None
) -> Architecture:
    make = _find(source, module_name, name)
    arguments: dict[str, int] = {}
    if num_classes is not None:
        if "num_classes" not in inspect.signature(make).parameters:
            raise UsageError(
                f"{source} takes no num_classes; leave --num-classes out, or give it that parameter"
            )
        arguments["num_classes"] = num_classes
    try:
        module = make(**arguments)
    except (Exception, SystemExit) as error:  # the user's code can raise anything
        raise ModelError(f"{source} raised {type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"{source}: expected it to return a torch.nn.Module, found {type(module).__name__}"
        )
    return Architecture(module=module, num_classes=num_classes, random=False)


def _find(source: str, module_name: str, name: str) -> Any:
    """Import the user's module, with the current folder on the path as ``python -m`` has it."""
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(
                f"{source}: importing it needs {error.name!r}, not installed"
            ) from error
        raise ModelError(
            f"no module {module_name!r} for {source!r} here or on sys.path; expected {_FORMS}"
        ) from error
    except AttributeError as error:
        raise ModelError(f"{source}: {error}") from error
    except (Exception, SystemExit) as error:  # the user's code can raise anything
        raise ModelError(f"importing {source} raised {type(error).__name__}: {error}") from error
    finally:
        if added:
            sys.path.remove(folder)
    if not callable(found):
        raise ModelError(f"{source}: expected something to call, found {type(found).__name__}")
    return found


def _check_finite(source: str, module: torch.nn.Module) -> None:
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{source}: NaN or infinity in its weights {name!r}")
