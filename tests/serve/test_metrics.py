"""What is counted, over processes, and the sketch of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from edgecls.core.fingerprint import Fingerprint
from edgecls.runtimes import load
from edgecls.runtimes.preprocess import to_pixels
from edgecls.serve.counts import Counts
from edgecls.serve.field import pixel_counts
from edgecls.serve.metrics import metrics_text
from edgecls.serve.model import open_model
from edgecls.serve.service import Service
from edgecls.serve.settings import Settings
from edgecls.workflows.sketch import Sketch

from ..runtimes.conftest import PREPROCESS, encoded, photo
from .conftest import Serve

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def post(server: Any, image: bytes) -> None:
    server.post("/v1/predict", content=image, headers={"content-type": "image/png"})


def test_metrics_count_what_happened(serve: Serve, jetson_bundle: Path) -> None:
    server = serve(jetson_bundle, backend="onnxruntime")
    for index in range(3):
        post(server, encoded(photo(index)))
    post(server, b"no image")
    server.get("/somewhere/else")
    answer = server.get("/metrics")
    found = parsed(answer.text)

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert found["edgecls_requests_total", (("path", "/v1/predict"), ("status", "200"))] == 3
    assert found["edgecls_requests_total", (("path", "/v1/predict"), ("status", "422"))] == 1
    assert found["edgecls_requests_total", (("path", "other"), ("status", "404"))] == 1
    assert found["edgecls_images_total", (("result", "predicted"),)] == 3
    assert found["edgecls_images_total", (("result", "unusable"),)] == 1
    assert found["edgecls_predict_seconds_count", ()] == 3
    assert found["edgecls_predict_seconds_sum", ()] > 0
    assert found["edgecls_batch_images_count", ()] == 3
    assert found["edgecls_batch_images_sum", ()] == 3
    assert found["edgecls_batch_images_bucket", (("le", "1"),)] == 3
    for stage in ("decode", "preprocess", "queue", "inference", "postprocess"):
        assert found["edgecls_stage_seconds_count", (("stage", stage),)] == 3
    assert found["edgecls_confidence_bucket", (("le", "+Inf"),)] == 3
    answers = {key: value for key, value in found.items() if key[0] == "edgecls_answers_total"}
    assert sum(answers.values()) == 3
    assert found["edgecls_images_in_flight", ()] == 0
    sha256 = server.service.model.sha256
    assert found["edgecls_bundle_workers", (("bundle_sha256", sha256),)] == 1


def test_buckets_are_cumulative(serve: Serve, pi_bundle: Path) -> None:
    server = serve(pi_bundle)
    counts = server.service.counts
    for seconds in (0.0005, 0.001, 0.003, 99.0):
        counts.observe_seconds("predict_seconds", seconds)
    found = parsed(server.get("/metrics").text)

    buckets = {
        key[1][0][1]: value
        for key, value in found.items()
        if key[0] == "edgecls_predict_seconds_bucket"
    }
    assert buckets["0.001"] == 2  # an edge is its own bucket's
    assert buckets["0.0025"] == 2
    assert buckets["0.005"] == buckets["10.0"] == 3
    assert buckets["+Inf"] == 4
    assert found["edgecls_predict_seconds_sum", ()] == 99.0045


def test_the_sketch_is_the_calibrations(serve: Serve, jetson_bundle: Path) -> None:
    """The same counts as the workstation's sketch makes of the same pixels and logits."""
    server = serve(jetson_bundle, backend="onnxruntime")
    predictor = load(jetson_bundle, backend="onnxruntime")
    sketch = Sketch(3)
    for index in range(6):
        post(server, encoded(photo(index)))
        pixels = to_pixels(encoded(photo(index)), PREPROCESS)
        sketch.add_pixels(pixels)
        sketch.add_logits(predictor.logits(pixels[None]))

    found = server.get("/v1/field").json()

    wanted = sketch.fingerprint()
    assert found["bundle_sha256"] == predictor.bundle.sha256
    assert found["fingerprint"] == {
        "images": 6,
        "pixel_histogram": [list(row) for row in wanted.pixel_histogram],
        "confidence_histogram": list(wanted.confidence_histogram),
        "class_counts": list(wanted.class_counts),
    }


def test_pixel_counts_are_numpys() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)

    found = pixel_counts(pixels)

    wanted = [np.histogram(pixels[..., c], bins=32, range=(0, 256))[0] for c in range(3)]
    assert found == np.concatenate(wanted).tolist()
    assert len(pixel_counts(pixels[..., :1])) == 32


def test_processes_add_up(pi_bundle: Path) -> None:
    counts = Counts(3)
    model = open_model(lambda: load(pi_bundle))
    counts.start(0)
    service = Service(model, Settings(queue=5), counts)
    for worker, times in ((0, 1), (2, 4)):
        counts.start(worker)
        counts.run_bundle(model.sha256, model.classes)
        for _ in range(times):
            counts.add_request("/v1/predict", 200)
            counts.add("field_images")
            counts.add("field_classes", at=3)
        counts.put("in_flight", times)
    counts.start(1)
    counts.run_bundle("ab" * 32, 5)
    counts.add("field_classes", at=3)

    found = parsed(metrics_text(service).decode())

    assert found["edgecls_requests_total", (("path", "/v1/predict"), ("status", "200"))] == 5
    assert found["edgecls_images_in_flight", ()] == 5
    assert found["edgecls_images_in_flight_max", ()] == 15
    # A process with another bundle has answers of its own.
    assert found["edgecls_answers_total", (("index", "3"), ("label", "dog"))] == 5
    assert found["edgecls_bundle_workers", (("bundle_sha256", model.sha256),)] == 2
    assert found["edgecls_bundle_workers", (("bundle_sha256", "ab" * 32),)] == 1


def test_a_process_that_takes_anothers_place_goes_on_counting() -> None:
    counts = Counts(2)
    counts.start(1)
    counts.run_bundle("cd" * 32, 7)
    counts.add_request("/v1/model", 200)
    counts.put("in_flight", 9)
    counts.add("field_classes", at=6)
    counts.start(0)
    counts.run_bundle("cd" * 32, 7)

    counts.start(1)

    assert sum(counts.total("requests")) == 1
    assert counts.total("in_flight") == [0]
    assert counts.bundles() == ["cd" * 32, None]
    assert counts.total("field_classes", length=7, bundle="cd" * 32)[6] == 1
    counts.run_bundle("cd" * 32, 7)
    assert counts.bundles() == ["cd" * 32] * 2
    assert counts.total("field_classes", length=7) == [0, 0, 0, 0, 0, 0, 1]
    counts.run_bundle("ef" * 32, 7)
    assert counts.total("field_classes", length=7) == [0] * 7


def test_an_unknown_status_is_counted(serve: Serve, pi_bundle: Path) -> None:
    counts = serve(pi_bundle).service.counts

    counts.add_request("other", 418)

    assert sum(counts.total("requests")) == 1


def test_the_fingerprint_has_the_manifests_form(serve: Serve, pi_bundle: Path) -> None:
    import msgspec

    server = serve(pi_bundle)
    found = msgspec.convert(server.get("/v1/field").json()["fingerprint"], Fingerprint)

    assert found.images == 0
    assert found.merge(found) == found
