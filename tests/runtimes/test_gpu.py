"""Engines on a real GPU: skipped where there is none, or no TensorRT that can use it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from edgecls.bundle import Bundle
from edgecls.core.errors import BackendUnavailableError
from edgecls.runtimes.backend import Backend, Options
from edgecls.runtimes.backends import BUILDS_ENGINES, open_backend, why_not
from edgecls.runtimes.engine_options import EngineOptions
from edgecls.runtimes.engines import build
from edgecls.runtimes.tensorrt_build import import_api
from edgecls.targets.target import BackendName

from .conftest import PREPROCESS, SIDE, Weights, make_onnx

HERE: Final = [name for name in sorted(BUILDS_ENGINES) if why_not(name) is None]

pytestmark = [
    pytest.mark.skipif(not HERE, reason="no GPU with a TensorRT"),
    pytest.mark.parametrize("name", HERE or ["tensorrt"]),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


def opened(name: BackendName, model: bytes, **options: Any) -> Backend:
    return open_backend(name, model, PREPROCESS, Options(precision="fp32", **options))


def compare(backend: Backend, weights: Weights, counts: list[int], tolerance: float) -> None:
    for seed, count in enumerate(counts):
        random = np.random.default_rng(seed)
        pixels = random.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
        expected = weights.logits(PREPROCESS.normalize(pixels))

        np.testing.assert_allclose(backend.logits(pixels), expected, atol=tolerance)


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_logits_are_the_models(
    name: BackendName, weights: Weights, batch: int | str, cuda_graph: bool
) -> None:
    engine = EngineOptions(cuda_graph=cuda_graph)
    backend = opened(name, make_onnx(weights, batch=batch), engine=engine)
    compare(backend, weights, [1, 1, 1, 1, 3, 3, 3, 11, 1], 2e-2)

    graphs = {"yes", "by the library"} if cuda_graph else {"no"}
    assert backend.description["cuda graph"] in graphs
    backend.close()


def test_the_second_load_takes_the_cached_engine(
    name: BackendName, weights: Weights, cache: Path
) -> None:
    outcomes = []
    for options in ({}, {}, {"engine": EngineOptions(max_batch=2, workspace_mb=64)}):
        backend = opened(name, make_onnx(weights), **options)
        compare(backend, weights, [1, 5], 2e-2)
        assert backend.engine is not None
        outcomes.append(backend.engine.outcome)
        backend.close()

    assert outcomes == ["built", "cached", "built"]
    assert len(list(cache.glob("*.timings"))) == (name == "tensorrt")


def test_build_is_what_load_takes(name: BackendName, jetson_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle(jetson_bundle)
    first = build(bundle, backend=name, output=tmp_path / "engine")
    second = build(bundle, backend=name)

    assert (first.outcome, second.outcome) == ("built", "cached")
    assert first.path == second.path
    assert (tmp_path / "engine").stat().st_size == first.size_bytes == second.size_bytes


def test_implicit_int8(name: BackendName, weights: Weights) -> None:
    # Generous ranges: 8 bits of 16 are 1/8 of a unit.
    tensors = ("image", "maps", "positive", "mean", "flat", "logits")
    scale = struct.pack(">f", 16 / 127).hex()
    lines = "".join(f"{tensor}: {scale}\n" for tensor in tensors)
    cache = f"TRT-8503-EntropyCalibration2\n{lines}".encode()
    if not hasattr(import_api("tensorrt" if name == "tensorrt" else "tensorrt-rtx").IBuilderConfig,
                   "int8_calibrator"):  # fmt: skip
        with pytest.raises(BackendUnavailableError, match="implicit quantization"):
            opened(name, make_onnx(weights), calibration=cache)
        return
    backend = opened(name, make_onnx(weights), calibration=cache)
    compare(backend, weights, [1, 4], 1.0)
    backend.close()
