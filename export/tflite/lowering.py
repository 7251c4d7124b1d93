"""The state of a lowering: which tensor holds which value, and in what form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import ActivationFunctionType as Activation
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op
from numpy.typing import NDArray

from ..nodes import constant, dequantized, node_name, shape_of, unsupported
from .layout import Layout, Shape, plain, preferred, reshapable, reshaped, same_memory
from .moves import LARGEST_RANK, Move
from .quantization import Quant, finer, parameters
from .versions import has_kernel
from .writer import ModelWriter

FloatWeights = Literal["float32", "float16", "int8"]
"""How weights are stored that are computed with in float32.

- float16: those that are FP16 numbers.
- int8: those that are codes behind a DequantizeLinear.
"""

Pads = tuple[tuple[int, int], ...]
"""Zeros before and after, for each axis of the value."""


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor that holds a value.

    Attributes:
        tensor: Its index in the file.
        shape: The value's shape, without ``pads``.
        layout: How the tensor's axes are those of the value.
        quant: Its parameters where it is int8 or int16; None for float32.
        pads: Zeros that surround it in the value and not yet in the tensor: a convolution takes
            them over, anything else makes them a PAD.
    """

    tensor: int
    shape: Shape
    layout: Layout
    quant: Quant | None
    pads: Pads | None = None

    def read(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the value, or its codes, from what its tensor holds, in any shape."""
        value = self.layout.restore(array.reshape(self.layout.tensor_shape(self.shape)))
        if self.pads is None:
            return value
        zero = 0 if self.quant is None else self.quant.zero_point
        return np.pad(value, self.pads, constant_values=zero)


class Lowering:
    """What an operator's lowering reads from and writes to."""

    def __init__(self, weights: FloatWeights = "float32") -> None:
        self.weights = weights
        self.writer = ModelWriter()
        self.done: set[ir.Node] = set()
        self.quantized = 0
        self.left_float: list[str] = []
        self.forms: dict[ir.Value, Form] = {}
        self._constants: dict[ir.Value, NDArray[Any]] = {}
        self._conversions: dict[tuple[Form, Any], Form] = {}
        self._unpacked: dict[int, int] = {}
        self._reshaped: dict[tuple[int, Shape], int] = {}
        self._unreshaped: dict[int, int] = {}
        self._moves: dict[int, tuple[int, Move]] = {}

    # Values of the graph.

    def constant(self, value: ir.Value | None) -> NDArray[Any] | None:
        """Return a constant's values, dequantized where it is behind a DequantizeLinear."""
        if value is None:
            return None
        if value not in self._constants:
            found = constant(value)
            producer = value.producer()
            if found is None and producer is not None and producer.op_type == "DequantizeLinear":
                exact = dequantized(producer)
                found = None if exact is None else exact.astype(np.float32)
            if found is None:
                return None
            self._constants[value] = found
        return self._constants[value]

    def release(self) -> None:
        """Let go of the constants that were read: of what the file holds the writer has it."""
        self._constants.clear()

    def integers(self, node: ir.Node, name: str, index: int) -> list[int] | None:
        """Return integers that older opsets keep as attribute ``name``, newer ones as an input.

        Raises:
            UnsupportedOperatorError: They are computed at run time.
        """
        if name in node.attributes:
            return [int(i) for i in node.attributes[name].value]
        if index >= len(node.inputs) or node.inputs[index] is None:
            return None
        found = self.constant(node.inputs[index])
        if found is None:
            raise unsupported(node, f"its {name} are computed at run time", "make it constant")
        return [int(i) for i in found.ravel()]

    def form(self, value: ir.Value | None) -> Form:
        """Return the form in which a value was made; a constant is written as it is."""
        assert value is not None
        if value not in self.forms:
            array = self.constant(value)
            if array is None:
                raise _unmade(value)
            self.forms[value] = self.constant_form(value.name or "constant", array)
        return self.forms[value]

    def constant_form(self, name: str, array: NDArray[Any]) -> Form:
        """Write a float constant in the layout that its rank prefers."""
        layout = preferred(array.ndim)
        tensor = self.writer.constant(name, layout.arrange(array.astype(np.float32)))
        return Form(tensor, array.shape, layout, None)

    def set(self, value: ir.Value, form: Form) -> None:
        """Say which form holds a value."""
        self.forms[value] = form

    def new(self, value: ir.Value, layout: Layout, quant: Quant | None) -> int:
        """Make the tensor that an operator writes ``value`` to; return its index."""
        form = self.temporary(value.name or "value", shape_of(value), layout, quant)
        self.forms[value] = form
        return form.tensor

    def temporary(self, name: str, shape: Shape, layout: Layout, quant: Quant | None) -> Form:
        """Make a tensor that holds no value of the graph."""
        dtype = np.dtype(np.float32) if quant is None else quant.dtype
        tensor = self.writer.activation(name, layout.tensor_shape(shape), dtype, quant)
        return Form(tensor, shape, layout, quant)

    # Quantization.

    def wanted(self, value: ir.Value) -> Quant | None:
        """Return the parameters with which all users quantize a value, if they agree."""
        users = [use.node for use in value.uses()]
        if value.is_graph_output() or any(node.op_type != "QuantizeLinear" for node in users):
            return None
        found = {parameters(node) for node in users}
        return found.pop() if len(found) == 1 else None

    def int8(
        self,
        node: ir.Node,
        code: int,
        inputs: Sequence[ir.Value | None],
        output: ir.Value,
        grids: Mapping[int, Quant] | None = None,
    ) -> Quant | None:
        """Return the output's parameters where a computation can run on codes; count it.

        Args:
            node: It.
            code: The TFLite operator.
            inputs: What it computes with.
            output: What it makes.
            grids: By width, the only parameters that the kernel gives, if there are such. Where
                finer ones are wanted, codes on its grid would be wrong by steps: it stays float.
        """
        wanted = self.wanted(output)
        if wanted is not None and grids is not None and finer(wanted, grids[wanted.bits]):
            wanted = None
        if not has_kernel(code, wanted, *(self.form(value).quant for value in inputs)):
            wanted = None
        self.count(node, int8=wanted is not None)
        return wanted

    def moved(self, node: ir.Node, code: int, form: Form) -> Form:
        """Return what an operator that only moves values takes: codes if it can, else floats."""
        if form.quant is None or has_kernel(code, form.quant):
            return form
        self.count(node, int8=False)
        return self.convert(form, form.layout, None)

    def count(self, node: ir.Node, *, int8: bool) -> None:
        """Take a computation into the report."""
        if int8:
            self.quantized += 1
        else:
            self.left_float.append(node_name(node))

    # Conversions of forms; each is made once.

    def tensor(
        self, value: ir.Value | None, layout: Layout | None = None, quant: Quant | None = None
    ) -> int:
        """Return the tensor of a value in a layout (as it is, by default) and as float or int8."""
        form = self.padded(self.form(value))
        return self.convert(form, layout or form.layout, quant).tensor

    def convert(self, form: Form, layout: Layout, quant: Quant | None) -> Form:
        """Return a value's tensor in another layout or type; nothing is done where it fits."""
        form = self.padded(form)
        if form.layout != layout:
            form = self._relaid(form, layout)
        if form.quant != quant:
            form = self._requantized(form, quant)
        return form

    def padded(self, form: Form) -> Form:
        """Return a form whose tensor holds its pads too."""
        if form.pads is None:
            return form
        if (form, "pads") not in self._conversions:
            shape = tuple(s + sum(p) for s, p in zip(form.shape, form.pads, strict=True))
            name = self.writer.tensors[form.tensor].name + "_pad"
            made = self.temporary(name, shape, form.layout, form.quant)
            pads = np.asarray([form.pads[axis] for axis in form.layout.perm], np.int32)
            amounts = self.writer.constant("pads", pads)
            self.writer.operator(
                Op.PAD, [form.tensor, amounts], [made.tensor], schema.PadOptionsT()
            )
            self._conversions[form, "pads"] = made
        return self._conversions[form, "pads"]

    def _relaid(self, form: Form, layout: Layout) -> Form:
        key = (form, ("layout", layout))
        if key not in self._conversions:
            self._conversions[key] = self._make_relaid(form, layout)
        return self._conversions[key]

    def _make_relaid(self, form: Form, layout: Layout) -> Form:
        name = self.writer.tensors[form.tensor].name
        if form.layout.flattened is not None:
            # Back to the axes, in the tensor's order, and flattened again in the value's.
            dims, perm = form.layout.flattened.dims, form.layout.flattened.perm
            axes = Form(form.tensor, dims, Layout(perm), form.quant)
            unflat = self._same_bytes(
                axes.tensor, Layout(perm).tensor_shape(dims), f"{name}_unflat"
            )
            inner = self.convert(
                Form(unflat, dims, Layout(perm), form.quant), plain(len(dims)), form.quant
            )
            flat = plain(len(form.shape))
            tensor = self._same_bytes(inner.tensor, form.shape, f"{name}_flat")
            return self.convert(Form(tensor, form.shape, flat, form.quant), layout, form.quant)
        if layout.flattened is not None:
            raise AssertionError("a value is flattened in another order only by a Reshape")
        shape = layout.tensor_shape(form.shape)
        if same_memory(form.shape, form.layout, layout):
            tensor = self._same_bytes(form.tensor, shape, f"{name}_axes")
        else:
            order = tuple(form.layout.axis(axis) for axis in layout.perm)
            held = self.writer.tensors[form.tensor].shape
            tensor = self._moved(form.tensor, Move(held, order), shape, f"{name}_transposed")
        return replace(form, tensor=tensor, layout=layout)

    def _moved(self, tensor: int, move: Move, shape: Shape, name: str) -> int:
        """Return a tensor with its axes in another order, in one TRANSPOSE after any others."""
        source = self.unreshaped(tensor)
        if source in self._moves:
            first, before = self._moves[source]
            joined = before.then(move)
            if joined is not None and len(joined.dims) <= LARGEST_RANK:
                source, move = first, joined
                tensor = self._same_bytes(source, move.dims or shape, f"{name}_axes")
        if not move.dims:
            return tensor
        old = self.writer.tensors[tensor]
        made = self.writer.activation(name, move.result, old.dtype, old.quant)
        order = self.writer.constant("permutation", np.asarray(move.order, np.int32))
        self.writer.operator(Op.TRANSPOSE, [tensor, order], [made], schema.TransposeOptionsT())
        self._moves[made] = source, move
        return self._same_bytes(made, shape, f"{name}_reshaped")

    def reshape(self, form: Form, shape: Shape) -> Form:
        """Return the form of a value that ONNX reshapes to ``shape``."""
        form = self.padded(form)
        layout = reshaped(form.shape, shape, form.layout)
        if layout is None:
            form = self.convert(form, reshapable(form.shape, shape, form.layout), form.quant)
            layout = reshaped(form.shape, shape, form.layout)
            assert layout is not None, "the form was brought to a layout that can be reshaped"
        name = f"{self.writer.tensors[form.tensor].name}_reshaped"
        tensor = self._same_bytes(form.tensor, layout.tensor_shape(shape), name)
        return Form(tensor, shape, layout, form.quant)

    def _same_bytes(self, tensor: int, shape: Shape, name: str) -> int:
        """Return a tensor of another shape with the same bytes."""
        source = self.unreshaped(tensor)
        old = self.writer.tensors[source]
        if old.shape == shape:
            return source
        if (source, shape) not in self._reshaped:
            made = self.writer.activation(name, shape, old.dtype, old.quant)
            options = schema.ReshapeOptionsT()
            options.newShape = np.asarray(shape, np.int32)
            target = self.writer.constant("shape", options.newShape)
            self.writer.operator(Op.RESHAPE, [source, target], [made], options)
            self._reshaped[source, shape] = made
            self._unreshaped[made] = source
        return self._reshaped[source, shape]

    def unreshaped(self, tensor: int) -> int:
        """Return the tensor that was computed, of which ``tensor`` may be a RESHAPE."""
        return self._unreshaped.get(tensor, tensor)

    def _requantized(self, form: Form, quant: Quant | None) -> Form:
        key = (form, ("type", quant))
        if key not in self._conversions:
            suffix = "float" if quant is None else quant.dtype.name
            name = f"{self.writer.tensors[form.tensor].name}_{suffix}"
            made = self.temporary(name, form.shape, form.layout, quant)
            if quant is None:
                code, options = Op.DEQUANTIZE, schema.DequantizeOptionsT()
            else:
                code, options = Op.QUANTIZE, schema.QuantizeOptionsT()
            self.writer.operator(code, [form.tensor], [made.tensor], options)
            self._conversions[key] = made
        return self._conversions[key]

    def unpacked(self, tensor: int) -> int:
        """Return a stored constant as float32: a DEQUANTIZE, which runtimes compute once."""
        if tensor not in self._unpacked:
            stored = self.writer.tensors[tensor]
            made = self.writer.activation(f"{stored.name}_float", stored.shape, np.float32)
            self.writer.operator(Op.DEQUANTIZE, [tensor], [made], schema.DequantizeOptionsT())
            self._unpacked[tensor] = made
        return self._unpacked[tensor]

    # Helpers for operators.

    def fuse_activation(self, node: ir.Node) -> tuple[int, ir.Value]:
        """Return the activation that follows a node alone, and the value after it."""
        output = node.outputs[0]
        users = [use.node for use in output.uses()]
        if len(users) == 1 and not output.is_graph_output():
            activation = self.activation_of(users[0])
            if activation is not None:
                self.done.add(users[0])
                return activation, users[0].outputs[0]
        return Activation.NONE, output

    def activation_of(self, node: ir.Node) -> int | None:
        """Return the TFLite activation that a node is, if it is one."""
        if node.op_type == "Relu":
            return int(Activation.RELU)
        if node.op_type == "Clip":
            bounds = self.clip_bounds(node)
            known: dict[tuple[float | None, float | None], Any] = {
                (0.0, 6.0): Activation.RELU6,
                (-1.0, 1.0): Activation.RELU_N1_TO_1,
                (0.0, None): Activation.RELU,
            }
            return known.get(bounds) if bounds is not None else None
        return None

    def clip_bounds(self, node: ir.Node) -> tuple[float | None, float | None] | None:
        """Return a Clip's bounds, None for a side that is open; None if they are computed."""
        bounds: list[float | None] = []
        largest = float(np.finfo(np.float32).max)
        for value in (*node.inputs[1:3], None, None)[:2]:
            found = self.constant(value)
            if value is not None and found is None:
                return None
            limit = None if found is None else float(found.ravel()[0])
            bounds.append(None if limit is None or abs(limit) >= largest else limit)
        return bounds[0], bounds[1]


def _unmade(value: ir.Value) -> Exception:
    """Return the error for an output that an operator's lowering does not make."""
    node = value.producer()
    assert node is not None, f"the input {value.name} has its form from the start"
    return unsupported(node, f"its output {value.name!r} is used", "use only its first output")
