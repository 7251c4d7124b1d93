"""Whether a bundle is judged on the very images that it was made with: they flatter it."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.files import sha256_file
from ..core.progress import Progress
from ..data.images import ImageFile
from .sources import Live, Source


def note_leakage(candidate: Source, images: Sequence[ImageFile], progress: Progress) -> None:
    """Say so where the images are those that calibrated or tuned a bundle.

    A bundle keeps a hash of each set, not of each image: a part of a set is not recognised. Files
    are read only where as many images as one of the sets has are given.
    """
    if not isinstance(candidate, Live) or candidate.predictor is None:
        return
    manifest = candidate.predictor.bundle.manifest
    sets = [
        (made, found)
        for made, found in (("calibrated on", manifest.calibration), ("tuned on", manifest.tuning))
        if found is not None and found.images == len(images)
    ]
    if not sets:
        return
    from ..calibration.collect import data_hash  # brings onnx, which drift does without

    try:
        digest = data_hash([sha256_file(image.path) for image in images])
    except OSError:  # what cannot be read made nothing, and is reported where it is decoded
        return
    for made, found in sets:
        if found.data_sha256 == digest:
            progress.note(
                f"{candidate.name} was {made} these images: they flatter it; judge it on others"
            )
