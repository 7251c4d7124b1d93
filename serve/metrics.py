"""The counts in Prometheus' form, over all processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..core.fingerprint import CONFIDENCE_BINS
from .counts import BATCHES, IMAGES, PATHS, RELOADS, SECONDS, STAGES, STATUSES, Counts
from .service import Service


def metrics_text(service: Service) -> bytes:
    """Return what ``GET /metrics`` answers: text format 0.0.4, times in seconds."""
    registry = CollectorRegistry()
    registry.register(_Served(service))
    return generate_latest(registry)


class _Served(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Yield every metric."""
        counts = self._service.counts
        yield _requests(counts)
        seconds = HistogramMetricFamily(
            "edgecls_predict_seconds", "From a predict request to its answer of 200."
        )
        seconds.add_metric([], *_histogram(counts, "predict_seconds"))
        yield seconds
        stages = HistogramMetricFamily(
            "edgecls_stage_seconds", "Of an image's stages; of a batch, its share.",
            labels=["stage"],
        )  # fmt: skip
        for stage in STAGES:
            stages.add_metric([stage], *_histogram(counts, f"{stage}_seconds"))
        yield stages
        batches = HistogramMetricFamily("edgecls_batch_images", "Images that ran at once.")
        buckets = _cumulative(BATCHES, counts.total("batches"))
        batches.add_metric([], buckets, counts.total("batched_images")[0])
        yield batches
        images = CounterMetricFamily(
            "edgecls_images", "Images by what became of them.", labels=["result"]
        )
        for result, value in zip(IMAGES, counts.total("images"), strict=True):
            images.add_metric([result], value)
        yield images
        reloads = CounterMetricFamily(
            "edgecls_reloads", "New bundles, per process.", labels=["result"]
        )
        for result, value in zip(RELOADS, counts.total("reloads"), strict=True):
            reloads.add_metric([result], value)
        yield reloads
        yield from self._state(counts)
        yield from self._sketch(counts)

    def _state(self, counts: Counts) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "edgecls_images_in_flight", "Images that were accepted and not answered yet.",
            counts.total("in_flight")[0],
        )  # fmt: skip
        yield GaugeMetricFamily(
            "edgecls_images_in_flight_max", "Above it a process answers 503; of all together.",
            self._service.settings.queue * counts.workers,
        )  # fmt: skip
        bundles = GaugeMetricFamily(
            "edgecls_bundle_workers", "Processes that answer with a bundle.",
            labels=["bundle_sha256"],
        )  # fmt: skip
        for sha256, workers in Counter(filter(None, counts.bundles())).items():
            bundles.add_metric([sha256], workers)
        yield bundles

    def _sketch(self, counts: Counts) -> Iterable[Metric]:
        """Yield the answers of the bundle that runs; they start again with a new one."""
        model = self._service.model
        edges = [(i + 1) / CONFIDENCE_BINS for i in range(CONFIDENCE_BINS - 1)]
        found = counts.total("field_confidence", bundle=model.sha256)
        confidence = HistogramMetricFamily(
            "edgecls_confidence", "The top-1 probability; no sum is kept."
        )
        confidence.add_metric([], _cumulative(edges, found), None)
        yield confidence
        classes = CounterMetricFamily(
            "edgecls_answers", "How often a class was the best.", labels=["index", "label"]
        )
        labels = model.predictor.bundle.manifest.labels
        total = counts.total("field_classes", length=model.classes, bundle=model.sha256)
        for index, value in enumerate(total):
            if value:
                classes.add_metric([str(index), labels[index] if labels else str(index)], value)
        yield classes


def _requests(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "edgecls_requests", "Requests by path and HTTP status; 0: another.",
        labels=["path", "status"],
    )  # fmt: skip
    total = counts.total("requests")
    for at, path in enumerate(PATHS):
        for status, value in zip(STATUSES, total[at * len(STATUSES) :], strict=False):
            if value:
                family.add_metric([path, str(status)], value)
    return family


def _histogram(counts: Counts, name: str) -> tuple[list[tuple[str, float]], float]:
    return _cumulative(SECONDS, counts.total(name)), counts.total(f"{name}_us")[0] / 1e6


def _cumulative(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return Prometheus' buckets: how many are at most as large as each edge."""
    total, buckets = 0, []
    for edge, count in zip([*map(str, edges), "+Inf"], counts, strict=True):
        total += count
        buckets.append((edge, float(total)))
    return buckets
