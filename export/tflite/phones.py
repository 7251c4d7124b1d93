"""The form of a TFLite file that phones' classifier libraries take: pixels in, float32 logits out.

MediaPipe's and Android's image classifiers feed uint8 or float32 and read uint8 or float32, never
int8, and MediaPipe refuses a mean or standard deviation that differs between the channels. So the
file takes the pixels and normalises them itself; what lies between is left as it was.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Op
from ai_edge_litert.schema_py_generated import TensorType
from numpy.typing import NDArray

from ...core.errors import GraphError
from ...core.preprocess import Preprocess
from .packing import ends, pack, text, unpack
from .writer import aligned_buffer, operator_code

PIXELS: Final = "pixels"


class _Versions(NamedTuple):
    """The lowest versions of the operators from and to float32."""

    quantize: int
    dequantize: int


_CODES: Final = {TensorType.INT8: _Versions(1, 2), TensorType.INT16: _Versions(2, 3)}


def for_phones(tflite: bytes, preprocess: Preprocess) -> bytes:
    """Return the file with its preprocessing inside, apart from resize and crop.

    Args:
        tflite: A classifier; its input and output are float32, int8 or int16.
        preprocess: Its colour order, scale, mean and std become operators, in float32; a quantized
            input is made from them with its own scale.

    Returns:
        A file whose input "pixels" is (1, H, W, C), uint8, RGB or grey codes 0..255 (a model that
        wants BGR is given RGB too), and whose output keeps its name and is (1, classes), float32.

    Raises:
        GraphError: It is no classifier, an end has another type, or its input not the
            preprocessing's number of channels.
    """
    model = unpack(tflite)
    image, logits = ends(model)
    for tensor in (image, logits):
        if tensor.type != TensorType.FLOAT32 and tensor.type not in _CODES:
            raise GraphError(
                f"expected {text(tensor.name)!r} to be float32, int8 or int16, found the schema's "
                f"type {tensor.type}; give the file as the lowering made it"
            )
    if int(image.shape[-1]) != preprocess.channels:
        raise GraphError(
            f"expected an input of {preprocess.channels} channels, as the preprocessing has, found "
            f"shape {tuple(int(size) for size in image.shape)}; give the model's own preprocessing"
        )
    editor = _Editor(model)
    _prepend(editor, image, preprocess)
    if logits.type in _CODES:
        _append(editor, logits)
    return pack(model)


def _prepend(editor: _Editor, image: Any, preprocess: Preprocess) -> None:
    """Make the input from pixels, by operators before all others."""
    shape = image.shape
    # Pixels are exact in float32 and so are most means in pixels: little is left to round.
    mean = preprocess.scale * np.asarray(preprocess.mean)
    factor = 1 / (preprocess.scale * np.asarray(preprocess.std))
    pixels = value = editor.tensor(PIXELS, shape, TensorType.UINT8, scale=1.0)
    front = []
    if preprocess.color == "bgr":
        axis = editor.constant("channels", np.asarray([3], np.int32), TensorType.INT32)
        value = editor.tensor("pixels_bgr", shape, TensorType.UINT8, scale=1.0)
        options = schema.ReverseV2OptionsT()
        front.append(editor.operator(Op.REVERSE_V2, [pixels, axis], value, options))
    wide = editor.tensor("pixels_float", shape, TensorType.FLOAT32)
    centred = editor.tensor("pixels_centred", shape, TensorType.FLOAT32)
    front += [
        editor.operator(Op.DEQUANTIZE, [value], wide, schema.DequantizeOptionsT()),
        editor.operator(
            Op.SUB, [wide, editor.floats("pixels_mean", mean)], centred, schema.SubOptionsT()
        ),
    ]
    source = editor.source
    scaled = [centred, editor.floats("pixels_factor", factor)]
    if image.type in _CODES:
        normalised = editor.tensor("pixels_normalised", shape, TensorType.FLOAT32)
        front += [
            editor.operator(Op.MUL, scaled, normalised, schema.MulOptionsT()),
            editor.operator(
                Op.QUANTIZE,
                [normalised],
                source,
                schema.QuantizeOptionsT(),
                version=_CODES[image.type].quantize,
            ),
        ]
    else:
        front.append(editor.operator(Op.MUL, scaled, source, schema.MulOptionsT()))
    editor.graph.operators = front + editor.graph.operators
    editor.graph.inputs = np.asarray([pixels], np.int32)
    for signature in editor.model.signatureDefs or []:
        signature.inputs[0].name = PIXELS
        signature.inputs[0].tensorIndex = pixels


def _append(editor: _Editor, logits: Any) -> None:
    """Give the output in float32, under its name."""
    codes, name = int(editor.graph.outputs[0]), editor.rename(logits, "_codes")
    wide = editor.tensor(name, logits.shape, TensorType.FLOAT32)
    options, version = schema.DequantizeOptionsT(), _CODES[logits.type].dequantize
    editor.graph.operators.append(
        editor.operator(Op.DEQUANTIZE, [codes], wide, options, version=version)
    )
    editor.graph.outputs = np.asarray([wide], np.int32)
    for signature in editor.model.signatureDefs or []:
        signature.outputs[0].tensorIndex = wide


class _Editor:
    """Adds tensors and operators to an unpacked file."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        self.source = int(self.graph.inputs[0])
        self._names = {text(tensor.name) for tensor in self.graph.tensors}

    def rename(self, tensor: Any, ending: str) -> str:
        """Lengthen a tensor's name; return the old one, which is free now."""
        name = text(tensor.name)
        self._names.remove(name)
        tensor.name = self._unique(name + ending)
        return name

    def tensor(self, name: str, shape: Any, kind: int, *, scale: float = 0, buffer: int = 0) -> int:
        made = schema.TensorT()
        made.name = self._unique(name)
        made.shape = np.asarray(shape, np.int32)
        made.type = kind
        made.buffer = buffer
        made.hasRank = True
        if scale:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.asarray([scale], np.float32)
            made.quantization.zeroPoint = np.zeros(1, np.int64)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def _unique(self, name: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def constant(self, name: str, array: NDArray[Any], kind: int) -> int:
        self.model.buffers.append(aligned_buffer(array))
        return self.tensor(name, array.shape, kind, buffer=len(self.model.buffers) - 1)

    def floats(self, name: str, values: NDArray[np.float64]) -> int:
        """Write one value per channel."""
        array = values.astype(np.float32).reshape(1, 1, 1, -1)
        return self.constant(name, array, TensorType.FLOAT32)

    def operator(
        self, code: int, inputs: list[int], output: int, options: Any, *, version: int = 1
    ) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex = self._code(code, version)
        made.inputs = np.asarray(inputs, np.int32)
        made.outputs = np.asarray([output], np.int32)
        kind = type(options).__name__.removesuffix("T")
        made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        made.builtinOptions = options
        return made

    def _code(self, code: int, version: int) -> int:
        codes = self.model.operatorCodes
        for index, known in enumerate(codes):
            if (known.builtinCode, known.version) == (code, version):
                return index
        codes.append(operator_code(code, version))
        return len(codes) - 1
