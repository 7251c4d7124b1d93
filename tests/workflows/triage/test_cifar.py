"""Published weights on CIFAR-10: a fault's cost is found through the whole command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgecls.bundle import Bundle, Draft, write_bundles
from edgecls.core.progress import Quiet
from edgecls.drift.explanation import Explanation
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions

if TYPE_CHECKING:
    from ...conftest import Command


@pytest.mark.slow
def test_forgotten_normalisation_on_cifar(
    edgecls: Command, edgecls_data: Path, tmp_path: Path
) -> None:
    cifar = edgecls_data / "cifar10"
    for part in ("dev_train5000", "dev_test1000"):
        subprocess.run([sys.executable, cifar / "unpack.py", part, tmp_path / part], check=True)
    weights = edgecls_data / "weights" / "resnet20-12fca82f.th"
    export(
        ExportOptions(
            source="cifar_resnet20", weights=weights, targets=("raspberry-pi",),
            calib=tmp_path / "dev_train5000", labels=cifar / "classes.json", out=tmp_path / "out",
        ),
        Quiet(),
    )  # fmt: skip
    bundle = Bundle(tmp_path / "out" / "raspberry-pi")
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    preprocess = msgspec.structs.replace(
        bundle.manifest.preprocess, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    wrong = msgspec.structs.replace(bundle.manifest, preprocess=preprocess)
    write_bundles([Draft(path=tmp_path / "wrong", manifest=wrong, files=files)])
    done = edgecls("drift", tmp_path / "wrong", "--reference", "cifar_resnet20", "--weights",
                   weights, "--labels", cifar / "classes.json", "--data",
                   tmp_path / "dev_test1000", "--images", 300, "--explain", "--json")  # fmt: skip
    found = msgspec.json.decode(done.out, type=Explanation)
    (only,) = found.blamed

    assert done.code == 0, done.err
    assert found.reference_percent == pytest.approx(88.3, abs=0.7), (
        "265 of the 300 that the seed chooses"
    )
    assert only.stage == "normalisation"
    assert only.expected == "mean 0.485 0.456 0.406, std 0.229 0.224 0.225, scale 255"
    assert only.found == "mean 0 0 0, std 1 1 1, scale 255"
    assert only.cost.lower > 3
    assert not any(layer.departs for layer in found.layers)
    assert "label map" in found.same
