from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecls.core.errors import BadInputError, BundleError, MissingError, MissingPackageError
from edgecls.core.preprocess import Preprocess
from edgecls.core.values import PRECISIONS
from edgecls.runtimes import litert
from edgecls.runtimes.backend import Backend, Batch, NativeTensor, Options
from edgecls.runtimes.backends import BACKENDS, formats_of, open_backend, why_not
from edgecls.runtimes.layer import Layer
from edgecls.targets import TARGETS

from .conftest import CLASSES, PREPROCESS, SCALES, SIDE, Weights, make_onnx

FLOAT = Options(precision="fp32")


class Mean(Backend):
    """Answers each channel's mean in the native units: real arithmetic, by hand."""

    layout: ClassVar[Literal["NHWC", "NCHW"]]

    @classmethod
    def check(cls, name: Any) -> str:
        return "1"

    def layers(self, model: bytes) -> tuple[Layer, ...]:
        return ()

    def _infer(self, batch: Batch) -> Batch:
        self.seen.append(batch.copy())
        axes = (1, 2) if self.layout == "NHWC" else (2, 3)
        return batch.astype(np.float64).mean(axis=axes)


class Nhwc(Mean):
    layout = "NHWC"


class Nchw(Mean):
    layout = "NCHW"


def made(
    layout: str, preprocess: Preprocess, dtype: Any, *, batch: int | None = None, **more: Any
) -> Any:
    shape = (4, 6, preprocess.channels) if layout == "NHWC" else (preprocess.channels, 4, 6)
    quantized = {"scale": more.pop("scale", 0.0), "zero_point": more.pop("zero_point", 0)}
    source = NativeTensor(shape=(batch, *shape), dtype=np.dtype(dtype), **quantized)
    result = NativeTensor(shape=(batch, preprocess.channels), dtype=np.dtype(dtype), **quantized)
    backend = {"NHWC": Nhwc, "NCHW": Nchw}[layout]("litert", preprocess, source, result, **more)
    backend.seen = []
    return backend


PREPROCESSES = {
    "three rows": Preprocess(resize=0, crop=0),
    "one row": Preprocess(resize=0, crop=0, mean=(0.5,) * 3, std=(0.5,) * 3),
    "gray": Preprocess(color="gray", resize=0, crop=0, mean=(0.1,), std=(0.3,)),
}


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("preprocess", PREPROCESSES.values(), ids=PREPROCESSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("count", [1, 5])
def test_float_inputs_are_the_normalised_tensor(
    layout: str, preprocess: Preprocess, dtype: Any, count: int
) -> None:
    shape = (count, 4, 6, preprocess.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    backend = made(layout, preprocess, dtype)

    found = backend.logits(pixels)

    tensor = preprocess.normalize(pixels).astype(dtype)
    expected = tensor.transpose(0, 2, 3, 1) if layout == "NHWC" else tensor
    np.testing.assert_array_equal(backend.seen[0], expected)
    assert backend.seen[0].dtype == dtype
    assert found.dtype == np.float32
    means = tensor.astype(np.float64).mean(axis=(2, 3))
    np.testing.assert_allclose(found, means, rtol=1e-6, atol=1e-7)


@settings(deadline=None)
@given(
    layout=st.sampled_from(["NHWC", "NCHW"]),
    dtype=st.sampled_from([np.int8, np.uint8]),
    scale=st.floats(1e-3, 1),
    zero=st.integers(-128, 127),
    row=st.sampled_from(list(PREPROCESSES)),
)
def test_integer_inputs_are_the_quantized_tensor(
    layout: str, dtype: Any, scale: float, zero: int, row: str
) -> None:
    preprocess = PREPROCESSES[row]
    zero += 128 if dtype == np.uint8 else 0
    pixels = np.arange(24 * preprocess.channels, dtype=np.uint8).reshape(1, 4, 6, -1) * 3
    backend = made(layout, preprocess, dtype, scale=scale, zero_point=zero)

    backend.logits(pixels)

    limits = np.iinfo(dtype)
    tensor = np.rint(preprocess.normalize(pixels) / np.float32(scale)) + zero
    expected = np.clip(tensor, limits.min, limits.max).astype(dtype)
    expected = expected.transpose(0, 2, 3, 1) if layout == "NHWC" else expected
    np.testing.assert_array_equal(backend.seen[0], expected)


def test_integer_outputs_are_dequantized() -> None:
    backend = made("NHWC", PREPROCESSES["gray"], np.int8, scale=0.25, zero_point=-3)
    backend._infer = lambda batch: np.array([[-128], [-3], [127]], np.int8)[: len(batch)]

    found = backend.logits(np.zeros((3, 4, 6, 1), np.uint8))

    assert found.ravel().tolist() == [-31.25, 0.0, 32.5]


@pytest.mark.parametrize(
    ("batch", "limit", "count", "sizes"),
    [
        (None, None, 5, [5]), (None, 2, 5, [2, 2, 1]), (1, None, 3, [1, 1, 1]),
        (4, None, 6, [4, 4]), (4, None, 1, [4]), (None, 8, 0, []), (1, None, 0, []),
    ],
)  # fmt: skip
def test_batches_are_cut_and_filled_as_the_model_wants(
    batch: int | None, limit: int | None, count: int, sizes: list[int]
) -> None:
    preprocess = PREPROCESSES["three rows"]
    pixels = np.random.default_rng(1).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)
    backend = made("NCHW", preprocess, np.float32, batch=batch, max_batch=limit)

    found = backend.logits(pixels)

    assert [len(seen) for seen in backend.seen] == sizes
    assert found.shape == (count, 3)
    expected = preprocess.normalize(pixels).astype(np.float64).mean(axis=(2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_answers_do_not_change_when_the_next_comes() -> None:
    backend = made("NHWC", PREPROCESSES["gray"], np.float32)
    kept = np.zeros((1, 1), np.float32)
    backend._infer = lambda batch: np.add(kept, 1, out=kept)

    first = backend.logits(np.zeros((1, 4, 6, 1), np.uint8))
    backend.logits(np.zeros((1, 4, 6, 1), np.uint8))

    assert first.item() == 1


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 6, 3), np.uint8), np.zeros((1, 6, 4, 3), np.uint8),
        np.zeros((1, 4, 6, 1), np.uint8), np.zeros((1, 4, 6, 3), np.float32),
    ],
)  # fmt: skip
def test_other_pixels_are_refused(pixels: Any) -> None:
    backend = made("NHWC", PREPROCESSES["three rows"], np.float32)

    with pytest.raises(BadInputError, match=r"expected pixels \(N, 4, 6, 3\) uint8"):
        backend.logits(pixels)


def native(*shape: int | None, dtype: Any = np.float32, scale: float = 0.0) -> NativeTensor:
    return NativeTensor(shape=shape, dtype=np.dtype(dtype), scale=scale)


@pytest.mark.parametrize(
    ("source", "result", "message"),
    [
        (native(1, 4, 6), native(1, 3), "shape"),
        (native(1, None, 6, 3), native(1, 3), "shape"),
        (native(1, 3, 4, 6), native(1, 3), "6 channel"),
        (native(1, 9, 9, 3), native(1, 3), "9x9 px"),
        (native(1, 4, 6, 3, dtype=np.int64), native(1, 3), "int64"),
        (native(1, 4, 6, 3, dtype=np.int8), native(1, 3), "int8 without a scale"),
        (native(1, 4, 6, 3), native(1, 3, dtype=np.int8), "output is int8 without"),
        (native(1, 4, 6, 3), native(1, 3, 2), "output has shape"),
        (native(1, 4, 6, 3), native(3), "output has shape"),
        (native(1, 4, 6, 3), native(1, None), "output has shape"),
    ],
)
def test_models_that_are_no_classifier_of_such_images_are_refused(
    source: NativeTensor, result: NativeTensor, message: str
) -> None:
    preprocess = Preprocess(resize=0, crop=(4, 6))

    with pytest.raises(BundleError, match=message):
        Nhwc("litert", preprocess, source, result)


def test_litert_gives_the_oracles_logits(
    tflite_float: bytes, weights: Weights, pixels: Any
) -> None:
    backend = open_backend("litert", tflite_float, PREPROCESS, FLOAT)

    expected = weights.logits(PREPROCESS.normalize(pixels))
    np.testing.assert_allclose(backend.logits(pixels), expected, atol=1e-5)
    assert backend.input_size == (SIDE, SIDE)
    assert backend.classes == CLASSES
    assert backend.description["xnnpack"] == "yes"


def test_litert_int8_is_within_two_steps(tflite_int8: bytes, weights: Weights, pixels: Any) -> None:
    backend = open_backend("litert", tflite_int8, PREPROCESS, Options(precision="int8"))

    found = backend.logits(pixels)

    scale, zero_point = SCALES["logits"]
    expected = weights.logits(PREPROCESS.normalize(pixels))
    assert np.abs(found - expected).max() <= 2 * scale
    codes = found / scale + zero_point
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(tflite_int8: bytes, pixels: Any, threads: int) -> None:
    one = open_backend("litert", tflite_int8, PREPROCESS, Options(precision="int8"))
    more = Options(precision="int8", threads=threads)

    found = open_backend("litert", tflite_int8, PREPROCESS, more).logits(pixels)

    np.testing.assert_array_equal(found, one.logits(pixels))


@pytest.mark.parametrize("batch", ["batch", 1, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 2e-2)])
def test_onnxruntime_gives_the_oracles_logits(
    weights: Weights, pixels: Any, batch: Any, dtype: Any, tolerance: float
) -> None:
    model = make_onnx(weights, batch=batch, dtype=dtype)
    backend = open_backend("onnxruntime", model, PREPROCESS, FLOAT)

    expected = weights.logits(PREPROCESS.normalize(pixels))
    np.testing.assert_allclose(backend.logits(pixels), expected, atol=tolerance)


def test_a_quantized_graph_is_simulated_as_written(onnx_float: bytes) -> None:
    plain = open_backend("onnxruntime", onnx_float, PREPROCESS, FLOAT)
    simulated = open_backend("onnxruntime", onnx_float, PREPROCESS, Options(precision="int8"))

    assert plain.description["optimised"] == "yes"
    assert simulated.description["optimised"] == "no: Q/DQ as written"


def test_files_that_are_no_models_are_refused() -> None:
    with pytest.raises(BundleError, match=r"litert .* refuses the model"):
        open_backend("litert", b"no model at all", PREPROCESS, FLOAT)
    pytest.importorskip("onnxruntime")
    with pytest.raises(BundleError, match="refuses the graph"):
        open_backend("onnxruntime", b"no model at all", PREPROCESS, FLOAT)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_that_is_not_installed_says_what_to_do(
    name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)

    reason = why_not(name)

    assert reason is not None
    assert "install" in reason
    with pytest.raises(MissingError):
        open_backend(name, b"", PREPROCESS, FLOAT)


def test_tflite_runtime_is_refused_beside_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: module)
    monkeypatch.setattr(litert.np, "__version__", "2.4.6")

    with pytest.raises(MissingError, match="needs numpy below 2"):
        litert.LiteRTBackend.check("tflite-runtime")


def test_tflite_runtime_is_refused_for_what_it_computes_wrongly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(litert.LiteRTBackend, "check", classmethod(lambda cls, name: "2.14.0"))

    for precision in PRECISIONS:
        reason = why_not("tflite-runtime", precision)
        assert (reason is not None) == (precision == "int8-dynamic")
        assert why_not("litert", precision) is None
    with pytest.raises(MissingError, match="computes int8-dynamic files wrongly") as caught:
        open_backend("tflite-runtime", b"", PREPROCESS, Options(precision="int8-dynamic"))
    assert caught.value.exit_code == 3


def test_cuda_is_never_replaced_by_the_cpu(onnx_float: bytes) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")

    with pytest.raises(MissingError, match="no CUDA provider"):
        open_backend("onnxruntime-cuda", onnx_float, PREPROCESS, FLOAT)


def test_every_backend_of_a_target_takes_what_it_ships() -> None:
    for target in TARGETS.values():
        for name in (*target.backends, *target.simulators):
            assert target.ships in formats_of(name)


def test_missing_packages_name_their_extra() -> None:
    error = MissingPackageError("ai-edge-litert", "litert")

    assert "pip install 'edgecls[litert]'" in str(error)
