"""The contract of a pass: what it may rely on and what it promises, both checked on every graph.

onnx_ir calls a pass's ``requires`` before it and ``ensures`` after it. What they find broken is our
bug, and nothing that a user can mend: PreconditionError and PostconditionError are no
``EdgeclsError``, so the command line ends with 70 and the name of the pass. What is wrong with the
graph that came in, a pass finds as it works, and raises as GraphError.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

import onnx_ir as ir
from onnx_ir.passes import PassResult, PostconditionError, PreconditionError

from ..nodes import node_name

OLDEST_OPSET: Final = 13
"""Before it, Softmax and others meant something else."""


class GraphPass(ir.passes.InPlacePass):
    """A pass that changes a graph in place, and nothing that it is known by.

    Of every pass: its inputs and outputs keep names and types, its operators mean what they meant
    (no opset changes), and a graph in which each value has a name of its own and is made before it
    is read stays one.

    Attributes:
        oldest_opset: What the pass relies on.
    """

    oldest_opset: ClassVar[int] = OLDEST_OPSET

    def __call__(self, model_or_result: ir.Model | PassResult, /) -> PassResult:
        """Run the pass on a graph that meets its contract.

        Raises:
            PreconditionError: The graph is not what the pass relies on.
            PostconditionError: The pass made something else than it promises.
            GraphError: The graph cannot be used; of some passes.
        """
        model = model_or_result if isinstance(model_or_result, ir.Model) else model_or_result.model
        if opset(model) < self.oldest_opset:
            rule = f"opset {self.oldest_opset} or later"
            raise PreconditionError(_broken(self, rule, f"opset {opset(model)}"))
        before = _Known.of(model)
        result = super().__call__(model)
        after = _Known.of(result.model)
        for what in ("inputs", "outputs", "opsets"):
            expected, found = getattr(before, what), getattr(after, what)
            if expected != found:
                raise PostconditionError(_broken(self, f"{what} {expected} as before", str(found)))
        if before.disorder is None and after.disorder is not None:
            raise PostconditionError(_broken(self, "values in order", after.disorder))
        return result

    def rely_on(self, rule: str, offenders: Iterable[str]) -> None:
        """Raise PreconditionError where a rule has an offender; for ``requires``."""
        for offender in offenders:
            raise PreconditionError(_broken(self, rule, offender))

    def promise(self, rule: str, offenders: Iterable[str]) -> None:
        """Raise PostconditionError where a rule has an offender; for ``ensures``."""
        for offender in offenders:
            raise PostconditionError(_broken(self, rule, offender))


class Pipeline(ir.passes.Sequential):
    """Passes in order, whose errors come out as they are.

    Its base wraps what a pass raises in a PassError, and a user's bad graph would be a bug of ours.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Run the passes."""
        modified = [step(model).modified for step in self.passes]
        return PassResult(model, any(modified))


def opset(model: ir.Model) -> int:
    """Return the version of ONNX's own operators, which have two names; 0 where there is none."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What a graph is known by, and what keeps it from running from its first node to its last."""

    inputs: tuple[tuple[str | None, ir.DataType | None], ...]
    outputs: tuple[tuple[str | None, ir.DataType | None], ...]
    opsets: dict[str, int]
    disorder: str | None

    @classmethod
    def of(cls, model: ir.Model) -> _Known:
        graph = model.graph
        return cls(
            # Before IR version 4 an initializer had to be an input too.
            inputs=tuple((v.name, v.dtype) for v in graph.inputs if not v.is_initializer()),
            outputs=tuple((v.name, v.dtype) for v in graph.outputs),
            opsets=dict(model.opset_imports),
            disorder=_disorder(graph),
        )


def _disorder(graph: ir.Graph) -> str | None:
    known = {*graph.inputs, *graph.initializers.values()}
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in known:
                return f"{value.name!r} read by node {node_name(node)!r} before it is made"
        known.update(node.outputs)
    for value in graph.outputs:
        if value not in known:
            return f"output {value.name!r}, which nothing makes"
    names: set[str] = set()
    for value in known:
        if value.name and value.name in names:
            return f"two values called {value.name!r}"
        names.add(value.name or "")
    return None


def _broken(step: ir.passes.PassBase, rule: str, found: str) -> str:
    return f"{type(step).__name__}: expected {rule}, found {found}"
