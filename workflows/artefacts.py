"""From the float graph to the files that a target's runtimes take, each compared as it is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import onnx

from ..bundle.manifest import Artefact
from ..calibration.placement import (
    IntegerGraph,
    QuantizedGraph,
    adopt_qdq,
    integer_products,
    place_weights,
)
from ..calibration.trt_cache import format_cache
from ..core.preprocess import Preprocess
from ..core.progress import Progress
from ..core.ranges import RangeTable
from ..core.values import CALIBRATED, Logits, Precision, QuantScheme, StepCheck, TensorSpec
from ..export.passes import codes_for_arm, for_one_image, in_float16
from ..export.quantized import without_rounding
from ..export.tflite import TfliteModel, lower, try_in_subprocess
from ..runtimes.backend import Backend, Options
from ..runtimes.backends import open_backend
from ..runtimes.steps import array_sha256
from ..runtimes.tensorrt_build import build_engine, tensorrt_rtx_available
from ..targets import Target
from .graph import STEP_LIMIT, CheckedGraph, check_step
from .precision.source import Source
from .samples import Samples
from .timing import Stages
from .weight_forms import WEIGHT_FORMS


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A file of a bundle with what it answers to the samples.

    Attributes:
        artefact: Its entry in the manifest.
        data: Its bytes.
        logits: Shape (samples, classes), float32: of the file itself or, for TensorRT's, of its
            simulation.
        tensors: The hash of what the file is fed, of each sample; empty where edgecls never runs
            it.
        beside: Other files that it needs, by their path in the bundle.
    """

    artefact: Artefact
    data: bytes
    logits: Logits
    tensors: tuple[str, ...] = ()
    beside: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class ArtefactBuilder:
    """Makes each target's files from one float graph and one table of ranges.

    What two targets share (a Q/DQ graph, an engine) is made once.

    Attributes:
        graph: The float graph, or one that is quantized already.
        table: Its ranges; None where nothing is to be quantized.
        preprocess: What samples go through.
        samples: What the files are compared on.
        reference: The float graph's logits on the samples.
        stages: Takes the times.
        progress: Takes the notices.
        implicit_int8: Whether int8 for TensorRT is also made as a float graph with a calibration
            cache.
        source: What a float graph's Q/DQ graphs are made from; None is the graph with its table.
        left_float: By scheme, the layers that stay float.
        graphs: The ONNX graphs that were made on the way, by name.
    """

    graph: CheckedGraph
    table: RangeTable | None
    preprocess: Preprocess
    samples: Samples
    reference: Logits
    stages: Stages
    progress: Progress
    implicit_int8: bool = False
    source: Source | None = None
    left_float: Mapping[QuantScheme, tuple[str, ...]] = field(default_factory=dict)
    graphs: dict[str, onnx.ModelProto] = field(default_factory=dict)
    _built: dict[str, tuple[Built, tuple[StepCheck, ...]]] = field(default_factory=dict)
    _engines: dict[str, bytes] = field(default_factory=dict)
    _unrounded: Logits | None = None
    _warned: bool = False

    def build(
        self, target: Target, precision: Precision
    ) -> tuple[tuple[Built, ...], tuple[StepCheck, ...]]:
        """Return a target's files, the primary one first, and the checks that they passed.

        Raises:
            CheckFailedError: A file answers differently from what it was made from.
            UnsupportedOperatorError: The target's format lacks an operator.
        """
        if target.ships == "tflite":
            scheme = target.scheme_for(precision)
            built, steps = self._once(f"tflite-{precision}-{scheme}", target, precision)
            return (built,), steps
        primary, steps = self._once(f"onnx-{precision}-{target.scheme}", target, precision)
        all_built = [primary]
        if precision == "int8" and target.base_precision == "fp16" and not self.graph.quantized:
            plain, more = self._once(f"onnx-fp16-{target.scheme}", target, "fp16")
            all_built.append(plain)
            steps += more
        if target.tensorrt:
            engines = [self._engine(built) for built in all_built]
            if engines[0] is not None and target.engine:
                all_built.append(_engine_artefact(primary, engines[0]))
            if self.implicit_int8:
                all_built.append(self._calibrated(target, primary))
        return tuple(all_built), steps

    def _calibrated(self, target: Target, primary: Built) -> Built:
        """Return the float graph with the calibration cache by which TensorRT 10 quantizes it.

        What it answers to the samples is what the explicit graph does: the scales are the same.
        """
        assert self.table is not None
        plain, _ = self._once(f"onnx-fp32-{target.scheme}", target, "fp32")
        cache = "model.implicit-int8.cache"
        return Built(
            artefact=msgspec.structs.replace(
                plain.artefact, path="model.implicit-int8.onnx", format="onnx-calibrated",
                precision="int8", calibration_cache=cache,
            ),
            data=plain.data,
            logits=primary.logits,
            tensors=plain.tensors,
            beside={cache: format_cache(self.table).encode()},
        )  # fmt: skip

    def primary(self, target: Target, precision: Precision) -> Built:
        """Return the file that ships to a target, without what stands beside it; see ``build``."""
        if target.ships == "tflite":
            return self.build(target, precision)[0][0]
        return self._once(f"onnx-{precision}-{target.scheme}", target, precision)[0]

    def _once(
        self, key: str, target: Target, precision: Precision
    ) -> tuple[Built, tuple[StepCheck, ...]]:
        if key not in self._built:
            make = self._tflite if target.ships == "tflite" else self._onnx
            self._built[key] = make(target, precision)
        return self._built[key]

    def _quantized(self, scheme: QuantScheme) -> QuantizedGraph:
        with self.stages.stage("quantize"):
            if self.graph.quantized:
                quantized = self._adopted(scheme)
            else:
                assert self.table is not None
                source = self.source or Source(model=self.graph.model, table=self.table)
                quantized = source.quantize(scheme, self.left_float.get(scheme, ()))
        name = f"qdq.{scheme.placement}.{scheme.activations}"
        name += ".int16" * (scheme.activation_bits == 16) + ".uint8" * (scheme.codes == "uint8")
        self.graphs[name] = quantized.model
        return quantized

    def _adopted(self, scheme: QuantScheme) -> QuantizedGraph:
        model = self.graph.model
        if scheme.placement == "full":
            model, changed = codes_for_arm(for_one_image(model))
            if changed:
                self.progress.note(
                    f"{changed} weight code(s) -128 became -127, one step of their scale: int8 "
                    "kernels of some Arm cores multiply -128 wrongly"
                )
        return adopt_qdq(model, scheme, self.table)

    def _onnx(self, target: Target, precision: Precision) -> tuple[Built, tuple[StepCheck, ...]]:
        steps: list[StepCheck] = []
        quantized: QuantizedGraph | IntegerGraph | None = None
        if precision == "int8":
            quantized = self._quantized(target.scheme)
        model = self.graph.model if quantized is None else quantized.model
        against, expected = "the float graph", self.reference
        limit = target.tolerances[precision].logits
        if precision == "int8":
            expected_q = self._simulate(model, "int8")
            steps += self._quantize_step(expected_q, target, precision)
            against, expected = "the Q/DQ graph over float32", expected_q
            limit = noise_limit(target, precision, steps)
        if precision == "int8-dynamic":
            simulated, made = self._dynamic_products()
            expected = self._simulate(simulated, "int8")
            steps.append(check_step("quantize-weights", against, self.reference, expected, None))
            against, model = "the graph that is quantized as it runs", made.model
            limit = noise_limit(target, precision, steps)
            quantized = made
        # Scales of a graph that came quantized need not be FP16 numbers: its rest stays float32.
        if target.base_precision == "fp16" and precision != "fp32" and not self.graph.quantized:
            with self.stages.stage("cast to FP16"):
                model = in_float16(model)
                onnx.checker.check_model(model, full_check=True)
        data = model.SerializeToString(deterministic=True)
        runs = target.runs_anywhere or "onnxruntime"
        backend = open_backend(runs, data, self.preprocess, Options(precision=precision))
        logits = backend.logits(self.samples.pixels)
        if target.runs_anywhere is not None and quantized is not None:
            steps.append(check_step("fuse", against, expected, logits, limit))
        elif precision != "fp32" and not self.graph.quantized:
            steps.append(check_step(f"cast-{precision}", against, expected, logits, limit))
        artefact = Artefact(
            path=f"model.{precision}.onnx",
            format="onnx",
            precision=precision,
            input=_spec(model.graph.input[0]),
            output=_spec(model.graph.output[0]),
            quantized=0 if quantized is None else quantized.quantized,
            left_float=() if quantized is None else quantized.left_float,
        )
        return self._made(artefact, data, logits, backend), tuple(steps)

    def _dynamic_products(self) -> tuple[onnx.ModelProto, IntegerGraph]:
        """Return the graph that says what int8-dynamic computes, and the one that ships.

        Of one image: a range of a batch would make an answer depend on the images beside it.
        """
        with self.stages.stage("quantize"):
            simulated = place_weights(for_one_image(self.graph.model), dynamic="products")
            return simulated, integer_products(simulated)

    def _tflite(self, target: Target, precision: Precision) -> tuple[Built, tuple[StepCheck, ...]]:
        steps: list[StepCheck] = []
        model, against, expected, limit = (
            self.graph.model, "the float graph", self.reference, STEP_LIMIT,
        )  # fmt: skip
        if precision in CALIBRATED:
            model = self._quantized(target.scheme_for(precision)).model
            simulated = self._simulate(model, precision)
            steps += self._quantize_step(simulated, target, precision)
            against, expected = "the simulation of the Q/DQ graph", simulated
            limit = noise_limit(target, precision, steps)
        form = WEIGHT_FORMS.get(precision)
        if form is not None:
            if not self.graph.quantized:
                with self.stages.stage("quantize"):
                    # Of one image, as the file is: a range of a batch would be another.
                    model = form.make(for_one_image(model))
            expected = self._simulate(model, form.simulated)
            steps.append(check_step(form.step, against, self.reference, expected, None))
            against = form.graph
            if not form.exact:
                limit = noise_limit(target, precision, steps)
        with self.stages.stage("lower to TFLite"):
            lowered: TfliteModel = lower(model, weights=form.stored if form else "float32")
            try_in_subprocess(lowered.data)
        assert target.runs_anywhere is not None
        backend = open_backend(
            target.runs_anywhere, lowered.data, self.preprocess, Options(precision=precision)
        )
        logits = backend.logits(self.samples.pixels)
        steps.append(check_step("lower", against, expected, logits, limit))
        artefact = Artefact(
            path=f"model.{precision}.tflite",
            format="tflite",
            precision=precision,
            input=lowered.input,
            output=lowered.output,
            quantized=lowered.quantized,
            left_float=lowered.left_float,
        )
        return self._made(artefact, lowered.data, logits, backend), tuple(steps)

    def _made(self, artefact: Artefact, data: bytes, logits: Logits, backend: Backend) -> Built:
        tensors = tuple(array_sha256(tensor) for tensor in backend.tensors(self.samples.pixels))
        return Built(artefact=artefact, data=data, logits=logits, tensors=tensors)

    def _quantize_step(
        self, simulated: Logits, target: Target, precision: Precision
    ) -> list[StepCheck]:
        """Return what quantization moved and, of another tool's, what taking it over did."""
        if not self.graph.quantized:
            return [check_step("quantize", "the float graph", self.reference, simulated, None)]
        if self._unrounded is None:
            self._unrounded = self._simulate(without_rounding(self.graph.model), precision)
        against = "the quantized graph without rounding"
        theirs = check_step("quantize", against, self._unrounded, self.reference, None)
        # Points that are added cost accuracy, as all quantization does.
        name, limit = "fill-qdq", None
        if self.table is None:
            name, limit = "adopt-qdq", noise_limit(target, precision, [theirs])
        ours = check_step(name, "the quantized graph", self.reference, simulated, limit)
        return [theirs, ours]

    def _simulate(self, model: onnx.ModelProto, precision: Precision) -> Logits:
        data, options = model.SerializeToString(), Options(precision=precision)
        return open_backend("onnxruntime", data, self.preprocess, options).logits(
            self.samples.pixels
        )

    def _engine(self, built: Built) -> bytes | None:
        """Return TensorRT-RTX's engine: its parser and builder must take what ships."""
        if tensorrt_rtx_available() is None:
            if not self._warned:
                self.progress.note(
                    "TensorRT-RTX is not installed, so its parser and builder did not check what "
                    "ships; run: pip install 'edgecls[tensorrt-rtx]'"
                )
                self._warned = True
            return None
        path = built.artefact.path
        if path not in self._engines:
            with self.stages.stage("build TensorRT-RTX engine"):
                self._engines[path] = build_engine(built.data, api="tensorrt-rtx")
        return self._engines[path]


# The steps that may cost accuracy.
_QUANTIZING: Final = ("quantize", "quantize-weights", "fill-qdq")
_FURTHEST: Final = 0.5


def noise_limit(target: Target, precision: Precision, steps: list[StepCheck]) -> float:
    """Return how far two honest runs of one quantized graph may differ.

    They round one code in a thousand differently in each layer (measured), and a deep network
    carries that on just as it does quantization's own noise. Where that is large, twice as much is
    allowed: two runs that are each as far from the float graph lie no further apart. Half of the
    largest logit is always too far: such a conversion cannot be told from a wrong one.
    """
    noise = max((step.max_difference for step in steps if step.step in _QUANTIZING), default=0.0)
    return min(max(target.tolerances[precision].logits, 2 * noise), _FURTHEST)


def _engine_artefact(primary: Built, engine: bytes) -> Built:
    artefact = primary.artefact
    return Built(
        artefact=Artefact(
            path=re.sub(r"\.onnx$", ".rtx.engine", artefact.path),
            format="tensorrt-rtx",
            precision=artefact.precision,
            input=artefact.input,
            output=artefact.output,
            quantized=artefact.quantized,
            left_float=artefact.left_float,
        ),
        data=engine,
        logits=primary.logits,
        tensors=primary.tensors,
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value or None for dim in tensor.shape.dim)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return TensorSpec(name=value.name, shape=shape, dtype=dtype)
