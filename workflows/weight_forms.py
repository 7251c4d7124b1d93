"""The precisions that need no images: what each makes of the float graph's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import onnx

from ..calibration.placement import place_weights
from ..core.values import Precision
from ..export.passes import with_half_weights
from ..export.tflite import FloatWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightForm:
    """A smaller form of the weights of a float graph.

    Attributes:
        step: What the making of it is called.
        graph: What it is called.
        make: Returns the graph whose weights have the form; ONNX Runtime computes with it what the
            lowered file must answer.
        stored: How the lowering stores them.
        simulated: As what precision ONNX Runtime runs the graph: int8 as it is written.
        exact: Whether the file computes what the graph says, to the rounding of float32; else
            activations are rounded as the network runs.
    """

    step: str
    graph: str
    make: Callable[[onnx.ModelProto], onnx.ModelProto]
    stored: FloatWeights
    simulated: Precision = "fp32"
    exact: bool = True


WEIGHT_FORMS: Final[dict[Precision, WeightForm]] = {
    "fp16": WeightForm(
        step="round-weights",
        graph="the float graph with FP16 weights",
        make=with_half_weights,
        stored="float16",
    ),
    "int8-weights": WeightForm(
        step="quantize-weights",
        graph="the float graph with int8 weights",
        make=place_weights,
        stored="int8",
    ),
    "int8-dynamic": WeightForm(
        step="quantize-weights",
        graph="the graph that is quantized as it runs",
        make=partial(place_weights, dynamic="layers"),
        stored="int8",
        simulated="int8",
        exact=False,
    ),
}
"""By the precision of a TFLite file."""
