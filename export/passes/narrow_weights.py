"""Takes the code -128 out of int8 weights.

Int8 kernels of some Arm cores multiply it wrongly (a Cortex-A72 gave -105 instead of 105). But
torch.ao quantizes weights to -128..127, and torch's TorchScript exporter takes no narrower range.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassResult

from .canonical_form import WEIGHTED, outside_canonical_form
from .contract import GraphPass


class NarrowWeights(GraphPass):
    """Makes every weight code of -128 a -127: one step of that channel's scale.

    Attributes:
        changed: How many codes the last run changed.
    """

    changed: int = 0

    def requires(self, model: ir.Model) -> None:
        """Q/DQ as ``CanonicalQdq`` leaves it."""
        self.rely_on("canonical Q/DQ", outside_canonical_form(model.graph))

    def call(self, model: ir.Model) -> PassResult:
        """Narrow the codes."""
        self.changed = 0
        for value, codes in _wide(model.graph):
            self.changed += int((codes == -128).sum())
            value.const_value = ir.tensor(np.maximum(codes, -127), name=value.name)
        return PassResult(model, modified=self.changed > 0)

    def ensures(self, model: ir.Model) -> None:
        """No weight has the code -128."""
        offenders = (f"-128 in {value.name!r}" for value, _ in _wide(model.graph))
        self.promise("weight codes -127..127", offenders)


def _wide(graph: ir.Graph) -> Iterator[tuple[ir.Value, NDArray[Any]]]:
    """Yield weights with a code of -128, as they are reached, and their codes."""
    for node in graph:
        value = node.inputs[1] if node.op_type in WEIGHTED else None
        producer = value.producer() if value is not None else None
        if producer is None or producer.op_type != "DequantizeLinear":
            continue
        codes = producer.inputs[0]
        if codes is None or codes.const_value is None:
            continue
        array = codes.const_value.numpy()
        if array.dtype == np.int8 and array.min(initial=0) == -128:
            yield codes, array
