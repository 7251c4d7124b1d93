"""From a model source to an ONNX graph that was compared with it at each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import onnx
import onnxruntime as ort

from ..core.errors import CheckFailedError, GraphError, ModelError, PreprocessError, UsageError
from ..core.preprocess import PRESETS, Preprocess
from ..core.progress import Progress
from ..core.values import Logits, StepCheck, Tensor, relative_difference
from ..data.labels import Labels, read_labels
from ..export.passes import canonical, fuse, without_softmax
from ..export.quantized import is_quantized, refuse_other_forms, standard_qdq
from ..export.simplify import inferred, simplify, to_opset
from ..export.torch_onnx import TorchToOnnx
from ..models import LoadedModel, load_model
from .softmax import is_probabilities, log_softmax
from .timing import Stages

# float32 sums in another order differ by 1e-6 or so; above this a step changed the model.
STEP_LIMIT: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedGraph:
    """The graph that everything else is made from.

    Attributes:
        model: One input (batch, channels, height, width), one output: the logits.
        steps: What each step changed, on the samples.
        num_classes: Length of the logits.
        quantized: Whether the graph came with Q/DQ of its own: nothing is calibrated then.
    """

    model: onnx.ModelProto
    steps: tuple[StepCheck, ...]
    num_classes: int
    quantized: bool = False


class ModelChoice(Protocol):
    """The options that name a model, as ``export`` and ``calibrate`` have them."""

    @property
    def source(self) -> str:
        """The model."""

    @property
    def weights(self) -> Path | None:
        """A checkpoint."""

    @property
    def num_classes(self) -> int | None:
        """Of the model's head."""

    @property
    def allow_random_weights(self) -> bool:
        """Whether a model that nobody trained is taken."""


def load_trained(options: ModelChoice, progress: Progress) -> LoadedModel:
    """Load a model, and say what its loader noted.

    Raises:
        EdgeclsError: It cannot be loaded, or has random weights that were not asked for.
    """
    loaded = load_model(options.source, weights=options.weights, num_classes=options.num_classes)
    for note in loaded.notes:
        progress.note(note)
    if loaded.random_weights and not options.allow_random_weights:
        raise UsageError(
            f"{options.source} has random weights: nothing is downloaded; give --weights FILE "
            "(or --allow-random-weights to try it as it is)"
        )
    return loaded


def labels_of(loaded: LoadedModel, file: Path | None) -> Labels | None:
    """Return the names in a file; without one, those that the model was trained with."""
    if file is not None:
        return read_labels(file)
    return None if loaded.labels is None else Labels(names=loaded.labels)


def resolve_input(
    loaded: LoadedModel, preprocess: Preprocess | None
) -> tuple[Preprocess, tuple[int, int]]:
    """Return the preprocessing and the model's (height, width): never a guess.

    Raises:
        PreprocessError: Neither the user nor the model says, or they contradict each other.
    """
    chosen = preprocess or loaded.preprocess
    if chosen is None:
        raise PreprocessError(
            f"{loaded.source} does not say how its images are prepared; "
            f"give --preprocess with a preset ({', '.join(PRESETS)}) or a TOML file"
        )
    channels, *model_size = loaded.input_size or (chosen.channels, 0, 0)
    if channels != chosen.channels:
        raise PreprocessError(
            f"{loaded.source} takes {channels} channel(s), the preprocessing gives "
            f"{chosen.channels} ({chosen.color}); give another --preprocess"
        )
    size = chosen.output_size
    fixed = loaded.onnx is not None or loaded.fixed_batch is not None
    if size is None:
        if 0 in model_size:
            raise PreprocessError(
                f"neither {loaded.source} nor the preprocessing gives the image's size; "
                "set crop or resize = [h, w] in --preprocess FILE"
            )
        size = (model_size[0], model_size[1])
    elif fixed and 0 not in model_size and size != tuple(model_size):
        raise PreprocessError(
            f"{loaded.source} takes {model_size[0]}x{model_size[1]} px, the preprocessing gives "
            f"{size[0]}x{size[1]}; set crop = [{model_size[0]}, {model_size[1]}]"
        )
    return chosen, size


def checked_graph(
    loaded: LoadedModel, *, preprocess: Preprocess, size: tuple[int, int], tensors: Tensor,
    stages: Stages,
) -> CheckedGraph:  # fmt: skip
    """Export, simplify and fold, and compare the outputs after each step.

    Args:
        loaded: The model.
        preprocess: Gives the number of channels.
        size: (height, width) in px.
        tensors: Samples to compare on, shape (N, C, H, W).
        stages: Takes the times.

    Raises:
        CheckFailedError: A step moved the outputs by more than ``STEP_LIMIT``.
        ModelError, GraphError: The model cannot be exported.
    """
    if loaded.fixed_batch not in {None, 1}:
        raise ModelError(
            f"{loaded.source} takes only batches of {loaded.fixed_batch}, a device sees one image "
            "at a time; export it with a free batch, or a batch of 1"
        )
    steps: list[StepCheck] = []
    with stages.stage("torch -> ONNX" if loaded.onnx is None else "read ONNX"):
        if loaded.onnx is not None:
            model = onnx.ModelProto.FromString(loaded.onnx)
            refuse_other_forms(model)
            expected = run_onnx(model, tensors)
            against = "the ONNX file"
            if is_quantized(model):
                # Opsets differ in types of codes; converting them leaves constants as nodes.
                model = canonical(to_opset(canonical(standard_qdq(model))))
            else:
                model = to_opset(model)
        else:
            assert loaded.module is not None
            expected = run_torch(loaded, tensors)
            against = "torch"
            convert = TorchToOnnx(
                input_size=(preprocess.channels, *size), fixed_batch=loaded.fixed_batch
            )
            model = convert(loaded.module)
        _check_output(loaded, expected)
        name = "torch-to-onnx" if loaded.onnx is None else "opset"
        steps.append(check_step(name, against, expected, run_onnx(model, tensors), STEP_LIMIT))
    quantized = is_quantized(model)
    passes: list[tuple[str, Callable[[onnx.ModelProto], onnx.ModelProto]]] = [
        ("simplify", simplify),
        ("fold", fuse),
    ]
    if quantized:
        # Folding constants would turn the weights' codes back into float.
        passes = []
    with stages.stage("simplify"):
        logits = _without_softmax(model, expected, tensors)
        if logits is not None:
            model, expected = logits
            against = f"{against} without its softmax"
            stages.note(
                f"{loaded.source} ends in a softmax: it was taken off, bundles end at logits"
            )
        for name, apply in passes:
            model = apply(model)
            steps.append(check_step(name, against, expected, run_onnx(model, tensors), STEP_LIMIT))
    if quantized:
        model = inferred(model)
    return CheckedGraph(
        model=model, steps=tuple(steps), num_classes=expected.shape[1], quantized=quantized
    )


def check_step(
    step: str, against: str, expected: Logits, found: Logits, limit: float | None
) -> StepCheck:
    """Return how far a step moved the outputs.

    Raises:
        CheckFailedError: Further than ``limit``, where there is one.
    """
    if expected.shape != found.shape:
        raise CheckFailedError(
            f"step {step!r} changed the output's shape from {expected.shape} to {found.shape}"
        )
    difference = relative_difference(expected, found)
    if not np.isfinite(difference):
        raise CheckFailedError(f"step {step!r}: an output is NaN or infinite")
    if limit is not None and difference > limit:
        raise CheckFailedError(
            f"step {step!r} moved the outputs by {difference:.2g} from {against}'s "
            f"(max|a-b| / max|a|), more than {limit:g}; nothing was written"
        )
    return StepCheck(step=step, against=against, max_difference=difference, limit=limit)


def run_torch(loaded: LoadedModel, tensors: Tensor) -> Logits:
    """Return a torch model's logits (N, classes) for tensors (N, C, H, W).

    Raises:
        ModelError: The model does not take them.
    """
    import torch

    assert loaded.module is not None
    step = loaded.fixed_batch or len(tensors)
    try:
        with torch.inference_mode():
            found = [
                loaded.module(torch.from_numpy(batch)).numpy() for batch in batches(tensors, step)
            ]
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{loaded.source} does not take images {tensors.shape[1:]} (channels, height, width): "
            f"{reason}"
        ) from error
    return np.concatenate(found)[: len(tensors)].astype(np.float32)


class OnnxRunner:
    """Runs an ONNX graph with ONNX Runtime on tensors, not pixels.

    Args:
        model: The graph.
        threads: Of one run; 0 is one per core.

    Raises:
        GraphError: ONNX Runtime does not take the graph, or not such images.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        if is_quantized(model):
            # Fused int8 kernels round differently: the graph is run as it is written.
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no base but Exception
            raise _not_run(error) from error

    def __call__(self, tensors: Tensor) -> Logits:
        """Return the first output (N, classes) for tensors (N, C, H, W)."""
        source = self._session.get_inputs()[0]
        size = source.shape[0] if isinstance(source.shape[0], int) else len(tensors)
        try:
            found = [
                self._session.run(None, {source.name: batch})[0] for batch in batches(tensors, size)
            ]
        except Exception as error:  # as above
            raise _not_run(error) from error
        return np.concatenate(found)[: len(tensors)].astype(np.float32)


def run_onnx(model: onnx.ModelProto, tensors: Tensor) -> Logits:
    """Return a graph's logits (N, classes) for tensors (N, C, H, W)."""
    return OnnxRunner(model)(tensors)


def _not_run(error: Exception) -> GraphError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return GraphError(f"ONNX Runtime does not run the graph: {reason}")


def batches(tensors: Tensor, size: int) -> list[Tensor]:
    """Return ``tensors`` in parts of exactly ``size`` images; the last repeats its last image."""
    parts = [tensors[start : start + size] for start in range(0, len(tensors), size)]
    missing = size - len(parts[-1])
    if missing:
        parts[-1] = np.concatenate([parts[-1], np.repeat(parts[-1][-1:], missing, axis=0)])
    return parts


def _without_softmax(
    model: onnx.ModelProto, expected: Logits, tensors: Tensor
) -> tuple[onnx.ModelProto, Logits] | None:
    """Return the graph up to its logits, with these; None where it already ends there.

    Raises:
        CheckFailedError: The softmax of the new outputs is not what the old ones were.
        GraphError: The outputs are probabilities, and no softmax was found to take off.
    """
    stripped, operator = without_softmax(model)
    if not operator:
        if is_probabilities(expected):
            raise GraphError(
                "the model's outputs are probabilities already, expected logits: artefacts end at "
                "logits; take the model's last activation off"
            )
        return None
    logits = run_onnx(stripped, tensors)
    again = np.exp(log_softmax(logits))
    probabilities = np.exp(expected) if operator == "LogSoftmax" else expected
    # Q/DQ behind a softmax has steps of 1/256.
    limit = 0.02 if is_quantized(model) else STEP_LIMIT
    check_step("strip-softmax", "the softmax", probabilities, again, limit)
    return stripped, logits


def _check_output(loaded: LoadedModel, logits: Logits) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ModelError(
            f"{loaded.source}: expected logits of shape (batch, classes), found {logits.shape}"
        )
    if not np.isfinite(logits).all():
        raise ModelError(f"{loaded.source}: its outputs are NaN or infinite on the samples")
