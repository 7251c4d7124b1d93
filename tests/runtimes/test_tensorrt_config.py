"""How a build is configured, in the real TensorRT-RTX's own words; it needs no GPU."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from edgecls.core.errors import BackendUnavailableError, BundleError, UsageError
from edgecls.core.progress import Quiet
from edgecls.runtimes import tensorrt_build
from edgecls.runtimes.engine_options import EngineOptions
from edgecls.runtimes.tensorrt_build import build_engine, import_api, tensorrt_rtx_available
from edgecls.runtimes.tensorrt_int8 import under_version
from edgecls.runtimes.timing_cache import TimingCache

from .conftest import SIDE, Weights, make_onnx
from .test_timing_cache import Notes

needs_rtx = pytest.mark.skipif(
    tensorrt_rtx_available() is None, reason="TensorRT-RTX is not installed"
)


class Asked(Quiet):
    """Asks the real objects of a build while it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: dict[str, Any] = {}
        self.objects: tuple[Any, ...] = ()
        add = tensorrt_build._add_profile

        def adding(builder: Any, config: Any, network: Any, options: EngineOptions) -> Any:
            profile = add(builder, config, network, options)
            self.objects = (config, network, profile)
            return profile

        monkeypatch.setattr(tensorrt_build, "_add_profile", adding)

    def fraction(self, description: str, done: float) -> None:
        if not self.objects:
            return
        config, network, profile = self.objects
        trt = import_api("tensorrt-rtx")
        self.told = {
            "workspace": config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE),
            "profiles": config.num_optimization_profiles,
            "batches": profile and [tuple(shape) for shape in profile.get_shape("image")],
            "strongly typed": network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),
            "compute capabilities": config.num_compute_capabilities,
        }
        self.objects = ()


@needs_rtx
@pytest.mark.parametrize(
    ("options", "batches"),
    [
        (EngineOptions(), (1, 1, 8)), (EngineOptions(max_batch=32), (1, 1, 32)),
        (EngineOptions(max_batch=32, opt_batch=16), (1, 16, 32)),
        (EngineOptions(max_batch=1), (1, 1, 1)),
    ],
)  # fmt: skip
def test_a_free_batch_gets_its_profile(
    monkeypatch: pytest.MonkeyPatch, onnx_float: bytes, options: EngineOptions, batches: Any
) -> None:
    asked = Asked(monkeypatch)
    build_engine(onnx_float, api="tensorrt-rtx", options=options, progress=asked)

    assert asked.told["batches"] == [(batch, 3, SIDE, SIDE) for batch in batches]
    assert asked.told["profiles"] == 1
    assert asked.told["strongly typed"]


@needs_rtx
def test_a_fixed_batch_needs_no_profile(monkeypatch: pytest.MonkeyPatch, weights: Weights) -> None:
    asked = Asked(monkeypatch)
    build_engine(make_onnx(weights, batch=4), api="tensorrt-rtx", progress=asked)

    assert (asked.told["profiles"], asked.told["batches"]) == (0, None)


@needs_rtx
def test_the_workspace_is_limited_when_asked(
    monkeypatch: pytest.MonkeyPatch, onnx_float: bytes
) -> None:
    told = []
    for workspace_mb in (None, 64):
        asked = Asked(monkeypatch)
        options = EngineOptions(workspace_mb=workspace_mb)
        build_engine(onnx_float, api="tensorrt-rtx", options=options, progress=asked)
        told.append(asked.told["workspace"])

    assert told[0] > 1 << 30
    assert told[1] == 64 << 20


@needs_rtx
def test_an_engine_for_a_gpu_that_is_not_here(
    monkeypatch: pytest.MonkeyPatch, onnx_float: bytes
) -> None:
    asked = Asked(monkeypatch)
    engine = build_engine(onnx_float, api="tensorrt-rtx", compute_capability=(8, 9), progress=asked)

    assert len(engine) > 1000
    assert asked.told["compute capabilities"] == 1
    with pytest.raises(UsageError, match=r"compute capability 5\.0; it does for 7\.5, 8\.0, 8\.6"):
        build_engine(onnx_float, api="tensorrt-rtx", compute_capability=(5, 0))


def test_tensorrt_builds_for_its_own_gpu_alone(onnx_float: bytes) -> None:
    with pytest.raises(UsageError, match="--backend tensorrt-rtx"):
        build_engine(onnx_float, api="tensorrt", compute_capability=(8, 7))


@needs_rtx
def test_timings_are_read_and_kept(tmp_path: Path, onnx_float: bytes) -> None:
    """With the real objects; TensorRT-RTX has them, and says that it does nothing with them."""
    notes = Notes()
    timings = TimingCache(tmp_path, gpu="none", compute_capability=(0, 0), tensorrt="rtx")
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*no-ops", DeprecationWarning)
            build_engine(onnx_float, api="tensorrt-rtx", timings=timings, progress=notes)

        assert len(timings.read(notes)) > 50
    assert not notes.said

    timings.path.write_bytes(b"damaged")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*no-ops", DeprecationWarning)
        build_engine(onnx_float, api="tensorrt-rtx", timings=timings, progress=notes)

    assert len(notes.said) == 1
    assert len(timings.read(notes)) > 50


class Refusing:
    """A build's configuration that takes an empty timing cache alone."""

    def __init__(self, *, makes: bool) -> None:
        self.makes, self.taken = makes, b"none"

    def create_timing_cache(self, data: bytes) -> bytes | None:
        return data if self.makes or not data else None

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if not cache:
            self.taken = cache
        return not cache


@pytest.mark.parametrize("makes", [False, True])
def test_timings_that_tensorrt_refuses_are_made_anew(tmp_path: Path, makes: bool) -> None:
    notes, config = Notes(), Refusing(makes=makes)
    timings = TimingCache(tmp_path, gpu="none", compute_capability=(0, 0), tensorrt="rtx")
    timings.write(b"another driver's", notes)
    cache = tensorrt_build._use_timings(config, timings, notes)

    assert (cache, config.taken) == (b"", b"")
    assert [str(timings.path) in note for note in notes.said] == [True]


@needs_rtx
def test_implicit_int8_is_refused_where_it_is_gone(onnx_float: bytes) -> None:
    cache = b"TRT-8503-EntropyCalibration2\nimage: 3c010a14\n"

    with pytest.raises(BackendUnavailableError, match="leave --implicit-int8 out"):
        build_engine(onnx_float, api="tensorrt-rtx", calibration=cache)


@pytest.mark.parametrize(
    ("version", "header"),
    [
        ("10.3.0", b"TRT-100300-"), ("10.13.3.9", b"TRT-101303-"),
        ("10.14.1.48.post1", b"TRT-101401-"), ("10.16.1.11", b"TRT-101601-"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("written", [b"TRT-8503-EntropyCalibration2\n",
                                     b"TRT-8XXX-EntropyCalibration2\r\n"])  # fmt: skip
def test_a_cache_gets_the_header_of_its_reader(version: str, header: bytes, written: bytes) -> None:
    found = under_version(written + b"image: 3c010a14\n", version)

    assert found == header + b"EntropyCalibration2\nimage: 3c010a14\n"


@pytest.mark.parametrize(
    "cache", [b"", b"hello", b"TRT-8503-MinMaxCalibration\n", b"TRT-8503-EntropyCalibration2"]
)
def test_another_cache_is_refused(cache: bytes) -> None:
    with pytest.raises(BundleError, match="not a TensorRT calibration cache"):
        under_version(cache, "10.3.0")


@pytest.mark.parametrize(
    "options", [{"max_batch": 0}, {"opt_batch": 9}, {"max_batch": 1025}, {"opt_batch": 0},
                {"workspace_mb": 0}, {"workspace_mb": 1 << 60}],
)  # fmt: skip
def test_options_that_contradict_each_other(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="found"):
        EngineOptions(**options)
