"""A certificate in words, the same on the terminal and on the page."""

from __future__ import annotations

from typing import Final

from .certificate import Certificate, CertifiedDevice, CertifiedPair

PAIR_HEADINGS: Final = ("devices", "same answer", "agreement", "logits", "outcome")


def runs_on(device: CertifiedDevice) -> str:
    """Return what ran the bundle there."""
    told = ", ".join(f"{key} {value}" for key, value in device.description.items())
    simulated = ", a simulation" if device.fell_back else ""
    return f"{device.backend}, {device.precision}{simulated}: {told}"


def golden(device: CertifiedDevice) -> str:
    """Return how many golden samples a device computes as the exporting machine did."""
    failed = sum(found.state == "failed" for found in device.golden)
    if failed:
        return f"{failed} of {len(device.golden)} failed"
    warned = sum(found.state == "warning" for found in device.golden)
    return f"{len(device.golden)} passed" + (f", {warned} with a warning" if warned else "")


def device_notes(device: CertifiedDevice) -> list[str]:
    """Return what is to be said of a device beside its row."""
    notes = [
        f"{device.name}: {found.sample}{f' ({found.step})' if found.step else ''}: {found.message}"
        for found in device.golden
        if found.message
    ]
    return [*notes, *([f"{device.name}: {device.problem}"] if device.problem else [])]


def device_rows(found: Certificate) -> list[tuple[str, tuple[str, ...], bool]]:
    """Return what the devices are: a name, each one's value, and whether all are the same."""
    names = dict.fromkeys(name for device in found.devices for name in device.versions)
    rows = [
        ("golden samples", tuple(map(golden, found.devices))),
        ("runs on", tuple(map(runs_on, found.devices))),
        ("file", tuple(device.artefact for device in found.devices)),
        *(
            (name, tuple(device.versions.get(name, "-") for device in found.devices))
            for name in names
        ),
        ("SHA-256 of the logits", tuple(device.logits_sha256[:16] for device in found.devices)),
    ]
    return [(name, values, len(set(values)) == 1) for name, values in rows]


def pair_row(pair: CertifiedPair, images: int) -> tuple[str, ...]:
    """Return a pair's cells under ``PAIR_HEADINGS``."""
    between, outcome = "-", "not judged"
    if pair.check is not None:
        check = pair.check
        between = f"{check.value:.2f} % ({check.lower:.2f} .. {check.upper:.2f})"
        outcome = check.outcome
    return (
        f"{pair.first + 1} and {pair.second + 1}",
        f"{pair.agreed} of {images}",
        between,
        "equal bit for bit" if pair.identical else "differ",
        outcome,
    )


def sentence(found: Certificate) -> str:
    """Return what a certificate says, for people who read nothing else."""
    failing = [device.name for device in found.devices if not device.passed]
    if failing:
        return f"These compute something else than the exporting machine: {', '.join(failing)}."
    every = "The device computes" if len(found.devices) == 1 else "All devices compute"
    base = f"{every} the bundle's golden samples as the exporting machine did"
    if found.min_agreement is None or not found.pairs:
        return f"{base}; on other images they were not compared."
    limit = f"{found.min_agreement:g} %"
    sure = f"with confidence {found.confidence:g} %"
    if found.outcome == "failed":
        apart = [
            f"{found.devices[pair.first].name} and {found.devices[pair.second].name}"
            for pair in found.pairs
            if pair.check is not None and pair.check.outcome == "failed"
        ]
        return (
            f"{base}, but these agree on less than {limit} of images, {sure}: {'; '.join(apart)}."
        )
    if found.outcome == "undecided":
        needed = found.images_needed
        more = f"; about {needed:,} would" if needed is not None else ""
        return f"{base}; {len(found.images)} images do not show whether all agree on {limit}{more}."
    return f"{base}, and every two agree on at least {limit} of images, {sure}."
