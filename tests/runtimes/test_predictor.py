from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import edgecls
from edgecls.core.errors import (
    BackendUnavailableError,
    BadInputError,
    BundleError,
    ImageError,
    MissingPackageError,
    UsageError,
)
from edgecls.runtimes import load
from edgecls.runtimes.prediction import rank
from edgecls.runtimes.preprocess import to_pixels

from .conftest import CLASSES, PREPROCESS, Made, MakeBundle, Weights, encoded, photo


@pytest.fixture(params=["litert", "onnxruntime"])
def bundle(request: pytest.FixtureRequest) -> tuple[Path, Any]:
    name = {"litert": "pi_bundle", "onnxruntime": "jetson_bundle"}[request.param]
    return request.getfixturevalue(name), request.param


def expected(weights: Weights, image: Any) -> Any:
    return weights.logits(PREPROCESS.normalize(to_pixels(image, PREPROCESS)[None]))[0]


def test_predict_is_the_softmax_of_the_oracle(bundle: tuple[Path, Any], weights: Weights) -> None:
    path, backend = bundle
    predictor = load(path, backend=backend, precision="fp32")
    logits = expected(weights, photo())
    scores = np.exp(logits) / np.exp(logits).sum()

    found = predictor.predict(photo(), logits=True)

    assert [ranked.index for ranked in found.topk] == np.argsort(-logits).tolist()
    assert [r.score for r in found.topk] == pytest.approx(sorted(scores, reverse=True), abs=1e-6)
    assert found.logits == pytest.approx(logits, abs=1e-5)
    assert found.top1 == found.topk[0]
    assert found.top1.label == ("ant", "bee", "cat", "dog", "eel")[found.top1.index]


def test_every_way_to_give_an_image_gives_the_same(pi_bundle: Path, tmp_path: Path) -> None:
    predictor = load(pi_bundle)
    data = encoded(photo())
    file = tmp_path / "photo.png"
    file.write_bytes(data)

    found = {
        predictor.predict(image, logits=True).logits
        for image in (file, str(file), data, photo(), Image.fromarray(photo()))
    }

    assert len(found) == 1


def test_batch_and_stream_give_what_predict_gives(bundle: tuple[Path, Any]) -> None:
    path, backend = bundle
    predictor = load(path, backend=backend, precision="fp32")
    images = [photo(seed) for seed in range(7)]
    single = [predictor.predict(image).topk for image in images]

    batch = [found.topk for found in predictor.predict_batch(images)]
    stream = [found.topk for found in predictor.predict_stream(images)]

    assert stream == single
    assert [[r.index for r in topk] for topk in batch] == [[r.index for r in k] for k in single]
    assert [r.score for k in batch for r in k] == pytest.approx(
        [r.score for k in single for r in k]
    )
    assert predictor.predict_batch([]) == []


def test_stream_goes_on_after_a_bad_image(pi_bundle: Path, tmp_path: Path) -> None:
    predictor = load(pi_bundle)
    missing = tmp_path / "missing.png"

    found = list(predictor.predict_stream([photo(1), missing, b"<html>", photo(2)]))

    assert [type(item).__name__ for item in found] == [
        "Prediction", "ImageError", "ImageError", "Prediction",
    ]  # fmt: skip
    assert str(found[1]) == f"{missing}: no such file or directory"
    assert found[3].topk == predictor.predict(photo(2)).topk


def test_stream_reads_little_ahead_and_ends_its_thread(pi_bundle: Path) -> None:
    predictor = load(pi_bundle)
    taken = 0

    def frames() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield photo(taken)

    stream = predictor.predict_stream(frames())
    for _ in range(5):
        next(stream)
    assert taken <= 7
    stream.close()

    assert not [t for t in threading.enumerate() if t.name.startswith("edgecls-decode")]


def test_an_error_of_the_iterator_reaches_the_caller(pi_bundle: Path) -> None:
    def broken() -> Iterator[Any]:
        yield photo()
        raise OSError("camera gone")

    with pytest.raises(OSError, match="camera gone"):
        list(load(pi_bundle).predict_stream(broken()))


def test_threads_take_turns(pi_bundle: Path) -> None:
    predictor = load(pi_bundle)
    images = [photo(seed) for seed in range(8)]
    single = [predictor.predict(image).topk for image in images]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(predictor.predict, images * 5))

    assert [prediction.topk for prediction in found] == single * 5


@pytest.mark.parametrize(("topk", "count"), [(1, 1), (3, 3), (1000, CLASSES)])
def test_topk_is_at_most_the_classes(pi_bundle: Path, topk: int, count: int) -> None:
    assert len(load(pi_bundle).predict(photo(), topk=topk).topk) == count


@pytest.mark.parametrize("topk", [0, -1])
def test_topk_below_one_is_refused(pi_bundle: Path, topk: int) -> None:
    with pytest.raises(BadInputError, match="1 or more"):
        load(pi_bundle).predict(photo(), topk=topk)


def test_to_dict_is_the_documented_form(make_bundle: MakeBundle, tflite_float: bytes) -> None:
    path = make_bundle(Made("m.tflite", "tflite", "fp32", tflite_float), labels=None)

    found = load(path).predict(photo(), topk=2).to_dict()

    assert list(found) == ["image", "topk", "speed_ms"]
    assert found["image"] == "image"
    assert list(found["topk"][0]) == ["index", "label", "score"]
    assert found["topk"][0]["label"] == str(found["topk"][0]["index"])
    assert list(found["speed_ms"]) == ["decode", "preprocess", "inference", "postprocess"]
    assert min(found["speed_ms"].values()) >= 0


@settings(deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30), st.integers(1, 40))
def test_rank_is_sorted_and_adds_up(values: list[float], topk: int) -> None:
    logits = np.array(values, np.float32)

    ranked = rank(logits, None, topk)

    scores = [r.score for r in ranked]
    assert scores == sorted(scores, reverse=True)
    assert len(ranked) == min(topk, len(values))
    assert sum(r.score for r in rank(logits, None, 40)) == pytest.approx(1)
    expected = np.argsort(-logits.astype(np.float64), kind="stable")[:topk]
    assert [r.index for r in ranked] == expected.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(BundleError, match="NaN or an infinity"):
        rank(np.array([0, bad, 1], np.float32), None, 2)


def test_int8_is_what_a_pi_runs_by_default(pi_bundle: Path, weights: Weights) -> None:
    predictor = load(pi_bundle)
    found = predictor.predict(photo(), logits=True).logits

    assert (predictor.backend, predictor.precision) == ("litert", "int8")
    assert predictor.artefact.path == "model.int8.tflite"
    assert predictor.fell_back is None
    assert found == pytest.approx(expected(weights, photo()), abs=2 * 0.08)


def test_a_simulator_runs_only_when_asked_for(jetson_bundle: Path) -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        load(jetson_bundle)
    assert "tensorrt:" in str(caught.value)
    assert "--backend onnxruntime" in str(caught.value)
    assert caught.value.exit_code == 3

    asked, fallen = (
        load(jetson_bundle, backend="onnxruntime"),
        load(jetson_bundle, allow_fallback=True),
    )

    assert (asked.backend, asked.fell_back) == ("onnxruntime", None)
    assert fallen.backend == "onnxruntime"
    assert "tensorrt:" in str(fallen.fell_back)


def test_the_backend_that_was_asked_for_runs_or_fails(pi_bundle: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"edgecls\[tensorflow\]"):
        load(pi_bundle, backend="tensorflow", allow_fallback=True)
    with pytest.raises(BundleError, match="no onnx in int8"):
        load(pi_bundle, backend="onnxruntime")
    with pytest.raises(BundleError, match="no tflite in fp16"):
        load(pi_bundle, backend="litert", precision="fp16")
    with pytest.raises(UsageError, match="no backend 'nothing'"):
        load(pi_bundle, backend="nothing")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="threads"):
        load(pi_bundle, threads=0)


def test_other_classes_than_the_manifest_says_are_refused(
    make_bundle: MakeBundle, tflite_float: bytes
) -> None:
    made = Made("m.tflite", "tflite", "fp32", tflite_float)
    path = make_bundle(made, labels=None, num_classes=7)

    with pytest.raises(BundleError, match="has 5 outputs, the manifest says 7"):
        load(path)


def test_a_file_that_is_no_model_is_refused(make_bundle: MakeBundle) -> None:
    pytest.importorskip("onnxruntime")
    path = make_bundle(Made("m.onnx", "onnx", "fp32", b"not an onnx file"), target="jetson")

    with pytest.raises(BundleError, match="refuses the graph"):
        load(path, backend="onnxruntime")


def test_images_that_cannot_be_used_name_themselves(pi_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.jpg"
    file.write_text("<html>404</html>")

    with pytest.raises(ImageError) as caught:
        load(pi_bundle).predict(file)

    assert str(caught.value) == f"{file}: not an image: an HTML page"


def test_import_is_light() -> None:
    code = (
        "import sys, edgecls, edgecls.runtimes\n"
        "bad = {'numpy', 'PIL', 'onnxruntime', 'ai_edge_litert', 'msgspec'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_package_gives_load() -> None:
    assert edgecls.load is load


@pytest.mark.parametrize("orientation", range(1, 9))
def test_predict_turns_an_image_once(
    pi_bundle: Path, weights: Weights, tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.png"
    Image.fromarray(photo()).save(file, exif=exif)

    found = load(pi_bundle, precision="fp32").predict(file, logits=True)

    assert found.logits == pytest.approx(expected(weights, file), abs=1e-5)


def test_predict_and_to_pixels_are_one_preprocessing(
    pi_bundle: Path, weights: Weights, edgecls_data: Path
) -> None:
    predictor = load(pi_bundle, precision="fp32")
    for file in sorted((edgecls_data / "nasty").iterdir()):
        try:
            wanted = expected(weights, file)
        except ImageError:
            with pytest.raises(ImageError):
                predictor.predict(file)
            continue
        found = predictor.predict(file, logits=True)

        assert found.logits == pytest.approx(wanted, abs=1e-5), file.name


@pytest.mark.parametrize("source", [None, 123, ["x"], object()])
def test_what_is_no_image_is_refused(
    pi_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    """Not taken for a file that happens to be called as errors call it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_bytes(encoded(photo()))

    with pytest.raises(ImageError, match="expected a path, bytes"):
        load(pi_bundle).predict(source)


def test_a_waiting_source_does_not_hold_back_an_answer(pi_bundle: Path) -> None:
    """The answer to a frame comes before the next frame is there."""
    answered = threading.Event()

    def frames() -> Iterator[Any]:
        yield photo(1)
        assert answered.wait(timeout=30), "the first answer waits for the second frame"
        yield photo(2)

    count = 0
    for _ in load(pi_bundle).predict_stream(frames()):
        answered.set()
        count += 1

    assert count == 2


def test_a_failing_source_is_answered_as_far_as_it_came(pi_bundle: Path) -> None:
    def broken() -> Iterator[Any]:
        yield photo(1)
        yield photo(2)
        raise OSError("camera gone")

    found = []
    with pytest.raises(OSError, match="camera gone"):  # noqa: PT012
        for result in load(pi_bundle).predict_stream(broken()):
            found.append(result)  # noqa: PERF402

    assert len(found) == 2


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_threads_have_bounds(pi_bundle: Path, threads: int) -> None:
    with pytest.raises(UsageError, match=r"1\.\.256"):
        load(pi_bundle, threads=threads)
