from __future__ import annotations

import contextlib
import io
import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization import CalibrationMethod as OnnxRuntimeMethod
from onnxruntime.quantization.calibrate import HistogramCollector, create_calibrator
from scipy import stats

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.observers import Histogram, Observer, choose_range
from edgecls.calibration.observers.entropy import LEVELS, entropy_bins
from edgecls.calibration.observers.histogram import BINS
from edgecls.calibration.observers.mse import mse_bins
from edgecls.calibration.observers.observer import VALUES_PER_IMAGE, stride
from edgecls.core.ranges import METHODS, CalibrationMethod, Range

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
values = npst.arrays(np.float32, st.integers(1, 300), elements=finite)


def seen(*parts: NDArray[np.floating]) -> Observer:
    observer = Observer()
    for part in parts:
        observer.update(part.astype(np.float32).reshape(1, -1))
    return observer


def state(observer: Observer) -> tuple[float, float, int | None, bytes]:
    histogram = observer.histogram
    return observer.lo, observer.hi, histogram.exponent, histogram.counts.tobytes()


def samples(kind: str, seed: int, size: int = 3000) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    return {
        "normal": generator.normal(size=size),
        "laplace": generator.laplace(size=size),
        "relu": np.maximum(generator.normal(size=size), 0),
        "outlier": np.append(generator.normal(size=size), 40.0),
        "one-sided": generator.gamma(2.0, size=size) - 0.3,
    }[kind]


KINDS = ("normal", "laplace", "relu", "outlier", "one-sided")


def divergence(counts: NDArray[np.int64], kept: int) -> float:
    """NVIDIA's published measure, bin by bin, with scipy's divergence."""
    bins = counts.astype(np.float64)
    bins[0] = bins[1]
    level = np.digitize(range(kept), np.linspace(0, kept, LEVELS + 1)) - 1
    level[bins[:kept] == 0] = -1
    spread = np.zeros(kept)
    for index in range(LEVELS):
        members = level == index
        if members.any():
            spread[members] = bins[:kept][members].mean()
    reference = bins[:kept].copy()
    reference[-1] += bins[kept:].sum()
    if not (reference.sum() and spread.sum()):
        return math.inf
    return float(stats.entropy(reference / reference.sum(), spread / spread.sum()))


def reference_entropy_bins(counts: NDArray[np.int64]) -> int:
    """NVIDIA's published loop."""
    tried = range(counts.size, LEVELS - 1, -1)
    return min(tried, key=lambda kept: divergence(counts, kept))


def test_minmax_is_the_smallest_and_the_largest() -> None:
    observer = seen(np.array([1.5, -2.0]), np.array([0.5, 3.0]))

    assert choose_range(observer, "minmax", 99.99) == Range(-2.0, 3.0)


def test_minmax_is_onnxruntimes(tmp_path: Path) -> None:
    """The very same floats, of every tensor of a graph whose operators round nothing."""
    graph = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        rules (float[1, 3, 8, 8] x) => (float[1, 3, 4, 4] pooled) {
            rectified = Relu(x)
            mirrored = Neg(x)
            larger = Max(rectified, mirrored)
            pooled = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(larger)
        }
    """)
    graph = onnx.shape_inference.infer_shapes(graph)
    onnx.save(graph, tmp_path / "graph.onnx")
    images = np.random.default_rng(0).standard_cauchy((20, 1, 3, 8, 8)).astype(np.float32)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        left = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.left, None)
            return None if image is None else {"x": image}

    calibrator = create_calibrator(
        tmp_path / "graph.onnx", calibrate_method=OnnxRuntimeMethod.MinMax,
        augmented_model_path=str(tmp_path / "augmented.onnx"),
    )  # fmt: skip
    calibrator.collect_data(Reader())
    theirs = {
        name: Range(*(float(end[0]) for end in data.range_value))
        for name, data in calibrator.compute_data().items()
    }

    named = [(f"{index:064x}", image) for index, image in enumerate(images)]
    assert collect_ranges(graph, named, method="minmax", seed=0).ranges == theirs
    assert len(theirs) == 5


@given(values=values)
def test_histogram_counts_as_numpy_does(values: NDArray[np.float32]) -> None:
    histogram = seen(values).histogram

    if histogram.exponent is None:
        assert not values.any()
        return
    # Zero belongs to the positive side, an edge below zero to the bin above it.
    edges = np.arange(BINS + 1) * histogram.width
    wide = values.astype(np.float64)
    above, _ = np.histogram(wide[wide >= 0], edges)
    below, _ = np.histogram(-wide[wide < 0], edges)
    assert np.array_equal(histogram.counts, np.concatenate([below[::-1], above]))
    assert np.array_equal(histogram.magnitudes, above + below)
    largest = float(np.abs(wide).max())
    assert largest < BINS * histogram.width
    assert largest >= BINS // 2 * histogram.width or histogram.exponent == -126


def test_histogram_widens_by_merging_pairs() -> None:
    histogram = Histogram()
    histogram.update(np.arange(-15, 16, dtype=np.float32), 15.0)
    before, width = histogram.counts.copy(), histogram.width
    histogram.update(np.array([31.0], np.float32), 31.0)

    assert histogram.width == 2 * width
    pairs = before.reshape(-1, 2).sum(1)
    inner = slice(BINS // 2, 3 * BINS // 2)
    assert np.array_equal(histogram.counts[inner], pairs)
    assert histogram.counts.sum() == before.sum() + 1


@given(values=values, data=st.data())
def test_neither_order_nor_batches_change_an_observer(
    values: NDArray[np.float32], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, values.size))
    shuffled = np.array(data.draw(st.permutations(values.tolist())), np.float32)
    parts = [part for part in (shuffled[:cut], shuffled[cut:]) if part.size]

    assert state(seen(*parts)) == state(seen(values))


@settings(max_examples=50)
@given(parts=st.lists(values, min_size=3, max_size=3))
def test_merge_is_associative_commutative_and_what_one_observer_sees(
    parts: list[NDArray[np.float32]],
) -> None:
    expected = state(seen(np.concatenate(parts)))

    for one, two, three in permutations(map(seen, parts)):
        assert state(one.merge(two).merge(three)) == expected
        assert state(one.merge(two.merge(three))) == expected
    whole = seen(*parts)
    assert state(whole.merge(Observer())) == state(Observer().merge(whole)) == expected


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30)
@given(values=values)
def test_a_range_lies_within_the_extremes(
    method: CalibrationMethod, values: NDArray[np.float32]
) -> None:
    found = choose_range(seen(values), method, 99.0)

    assert values.min() <= found.lo <= found.hi <= values.max()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_entropy_is_the_published_algorithm(kind: str, seed: int) -> None:
    magnitudes = np.abs(samples(kind, seed))
    counts, _ = np.histogram(magnitudes, bins=400, range=(0, magnitudes.max()))

    assert entropy_bins(counts) == reference_entropy_bins(counts)


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_beside_onnxruntime(kind: str) -> None:
    """The same bins: 512 of each sign and its one at zero, and as many levels.

    Its algorithm is another (the last level has the bins that are left over, counts are rounded
    down, empty bins smoothed, zeros counted): the thresholds differ by up to a factor of 4, most
    after a ReLU. By the published measure ours is never the worse one.
    """
    found_values = samples(kind, 0, 100_000).astype(np.float32)
    magnitudes = np.abs(found_values)
    counts, _ = np.histogram(magnitudes, bins=512, range=(0, magnitudes.max()))
    collector = collect("entropy", found_values, num_bins=1025, num_quantized_bins=255)
    lo, hi = collector.compute_entropy()["x"][:2]
    theirs = round(max(-float(lo), float(hi)) / float(magnitudes.max()) * 512)

    ours = entropy_bins(counts)

    assert 1 / 4 <= ours / theirs <= 4
    assert divergence(counts, ours) <= divergence(counts, max(theirs, LEVELS))


def collect(method: str, values: NDArray[np.float32], **options: Any) -> HistogramCollector:
    given = {"symmetric": True, "percentile": 99.99, "scenario": "same", **options}
    collector = HistogramCollector(method=method, **given)
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect({"x": values})
    return collector


def seen_all(values: NDArray[np.float32]) -> Observer:
    """Return an observer that counted every value."""
    return seen(*np.array_split(values, -(-values.size // VALUES_PER_IMAGE)))


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_the_order_statistic_in_whole_bins(kind: str, percentile: float) -> None:
    found_values = samples(kind, 1, 100_000)
    observer = seen_all(found_values.astype(np.float32))
    spare = int(found_values.size * (100 - percentile) / 200)

    found = choose_range(observer, "percentile", percentile)

    in_order = np.sort(found_values)
    assert in_order[-1 - spare] <= found.hi <= in_order[-1 - spare] + observer.histogram.width
    assert in_order[spare] - observer.histogram.width <= found.lo <= in_order[spare]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_percentile_beside_onnxruntime(kind: str, symmetric: bool) -> None:
    """Within two of its bins and one of ours; its symmetric form is ours on mirrored values.

    It takes a bin's lower edge, ours the upper one, so that no more is clipped than was said.
    """
    found_values = samples(kind, 1, 100_000).astype(np.float32)
    if symmetric:
        found_values = np.concatenate([found_values, -found_values])
    observer = seen_all(found_values)
    collector = collect(
        "percentile", found_values, symmetric=symmetric, num_bins=8192, num_quantized_bins=128,
        percentile=99.9,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = float(collector.compute_percentile()["x"][1])

    found = choose_range(observer, "percentile", 99.9)

    bins = 2 * 2 * float(np.abs(found_values).max()) / 8192
    assert theirs <= found.hi <= theirs + bins + observer.histogram.width


def test_percentile_never_clips_on_too_few_values() -> None:
    generator = np.random.default_rng(0)
    few = np.append(generator.normal(size=9999), 50.0)

    assert choose_range(seen(few), "percentile", 99.99).hi == 50.0
    assert (
        choose_range(seen(few, *generator.normal(size=(2, 10000))), "percentile", 99.99).hi < 10.0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_mse_is_the_brute_force_optimum(kind: str) -> None:
    """Not the same threshold, the curve is flat there: the same error on the values, within 2 %."""
    found_values = samples(kind, 2, 16_000)
    observer = seen(found_values)
    found = choose_range(observer, "mse", 99.99)

    def error(threshold: float) -> float:
        step = threshold / 127
        codes = np.clip(np.rint(found_values / step), -127, 127)
        return float(np.mean((found_values - codes * step) ** 2))

    largest = float(np.abs(found_values).max())
    best = min(error(largest * share) for share in np.linspace(0.01, 1.0, 1000))

    assert error(max(-found.lo, found.hi)) <= best * 1.02


@given(counts=npst.arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 50)))
def test_mse_tries_every_number_of_a_few_bins(counts: NDArray[np.int64]) -> None:
    counts[-1] += 1
    centres = np.arange(counts.size) + 0.5
    errors = []
    for kept in range(1, counts.size + 1):
        codes = np.minimum(np.rint(centres / (kept / 127)), 127)
        errors.append(float(counts @ (centres - codes * kept / 127) ** 2))

    assert errors[mse_bins(counts) - 1] == pytest.approx(min(errors), rel=1e-9)


@pytest.mark.parametrize(("method", "most"), [("entropy", 20), ("percentile", 20), ("mse", 60)])
def test_an_outlier_that_minmax_keeps_is_cut(method: CalibrationMethod, most: float) -> None:
    normal = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    observer = seen_all(np.append(normal, np.float32(100.0)))

    found = choose_range(observer, method, 99.99)

    assert found.lo == pytest.approx(normal.min(), rel=0.3)
    assert found.hi < most
    assert choose_range(observer, "minmax", 99.99).hi == 100.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 5.0, -1e-40, 3e38])
def test_a_constant_keeps_its_value(method: CalibrationMethod, value: float) -> None:
    constant = np.full(10, value, np.float32)

    assert choose_range(seen(constant), method, 99.99) == Range(*[float(constant[0])] * 2)


@given(size=st.integers(1, 5_000_000))
def test_the_lattice_meets_every_row_and_channel(size: int) -> None:
    step = stride(size)
    counted = -(-size // step)

    assert counted <= 2 * VALUES_PER_IMAGE
    assert math.gcd(step, size) == 1
    assert counted * 10 >= min(size, VALUES_PER_IMAGE), "no tensor is left with a handful"


def test_a_large_tensors_extremes_are_exact_and_its_counts_a_fair_sample() -> None:
    """Ten images of 1.2 million values in 96 channels of very different width."""
    generator = np.random.default_rng(5)
    widths = np.linspace(0.1, 3.0, 96, dtype=np.float32)[:, None, None]
    sampled, complete = Observer(), Observer()
    for _ in range(10):
        image = generator.standard_normal((96, 112, 112), np.float32) ** 3 * widths
        sampled = sampled.merge(seen(image))
        for row in image.reshape(-1, 12544):
            complete.update(row[None])

    assert (sampled.lo, sampled.hi) == (complete.lo, complete.hi)
    assert sampled.histogram.counts.sum() <= 20 * VALUES_PER_IMAGE
    for method, tolerance in (("percentile", 0.05), ("entropy", 0.1), ("mse", 0.1)):
        one = choose_range(sampled, method, 99.9)  # type: ignore[arg-type]
        all_of_it = choose_range(complete, method, 99.9)  # type: ignore[arg-type]
        assert one.hi == pytest.approx(all_of_it.hi, rel=tolerance), method


def test_what_is_not_finite_is_told_and_not_taken_in() -> None:
    observer = seen(np.array([1.0]))
    before = state(observer)
    lo, hi = observer.update(np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, 0.0]], np.float32))

    assert np.isfinite(lo).tolist() == [True, False, True]
    assert np.isfinite(hi).tolist() == [True, False, False]
    assert state(observer) == before


@pytest.mark.parametrize(("lo", "hi"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.inf)])
def test_range_refuses_what_is_no_interval(lo: float, hi: float) -> None:
    with pytest.raises(ValueError, match="lo <= hi"):
        Range(lo, hi)
