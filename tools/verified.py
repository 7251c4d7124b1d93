"""Runs what can run here, on this machine and on its virtual devices, and writes docs/verified.md.

    python tools/verified.py

The bundles of the demonstration are verified on every backend that is installed and on every device
of `edgecls device list`; what a machine lacks is written down as not run, with the reason.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgecls.bundle import Bundle
from edgecls.core.errors import EdgeclsError, MissingError
from edgecls.core.progress import Quiet
from edgecls.core.version import VERSION
from edgecls.devices.virtual import VirtualPi, created
from edgecls.devices.virtual.machine import check_qemu
from edgecls.runtimes import load
from edgecls.runtimes.cuda import current_device
from edgecls.runtimes.engine_options import EngineOptions
from edgecls.runtimes.engines import build_for
from edgecls.runtimes.tensorrt_build import build_engine, tensorrt_rtx_available
from edgecls.runtimes.verify import verify
from edgecls.targets import TARGETS
from edgecls.workflows.demo import demo

PAGE: Final = Path(__file__).parents[1] / "docs" / "verified.md"

# What no machine of this project has been: the script cannot find it out, people have to.
NEVER: Final = (
    ("a Raspberry Pi board (its kernel, its speed, its camera)", "virtual ones only, above"),
    ("the camera service under systemd",
     "`systemd-analyze verify` passes its unit, its commands run on a virtual Pi"),
    ("a Jetson, TensorRT 10.x: build, cache, execution",
     "the code path is tested against a stand-in for the bindings"),
    ("`--implicit-int8`: a calibration cache in a TensorRT 10",
     "its names and scales are compared with the parsed graph and the Q/DQ graph"),
    ("a timing cache that saves time",
     "read, kept and refused with TensorRT-RTX's own objects, which do nothing with it"),
    ("CUDA graphs",
     "what is recorded and replayed when: by the stand-in; each name: in cuda-bindings"),
    ("a device over SSH that is not this machine", "a real sshd and virtual Pis, on loopback"),
    ("bench: what vcgencmd, jetson-stats, NVML and RAPL tell of a board",
     "their readers are tested on files in those layouts"),
    ("the placement that TensorRT's engine inspector tells",
     "NVIDIA's documented JSON is read, the calls are held against every version's bindings"),
    ("`desktop-cpu` on an x86 CPU without VNNI, or on arm64",
     "QEMU's Haswell, whose products saturate as a real one's; arm64 not at all"),
    ("training on a GPU: mixed precision, nccl", "on CPUs alone, two processes with gloo"),
    ("the CI templates of examples/ci on GitHub and GitLab", "their commands are parsed by a test"),
)  # fmt: skip

HEAD: Final = """# What ran where

Written by `python tools/verified.py`: LeNet-5 is trained and exported (`edgecls demo`), and its
bundles are verified (hashes, pixels and logits of the golden samples) by every backend and on every
virtual device that the machine has. Whole networks on the virtual Pis: `make test-pi`; the lines of
[raspberry-pi.md](raspberry-pi.md) on a fresh one, and a whole machine that boots: `make nightly`.
"""

TAIL: Final = """
The device half's own tests run on Python 3.10 to 3.13 in CI (`.github/workflows/ci.yml`), and on
the virtual Pis' Python in `make test-pi`. int8 answers of LiteRT on x86-64 are what the golden
samples of a raspberry-pi bundle hold; `edgecls verify` on the device says whether it answers alike.
"""


@dataclass(frozen=True)
class Row:
    """One thing that ran, or did not."""

    what: str
    where: str
    found: str


def main() -> int:
    """Write the page; 1 where something ran and was wrong."""
    with tempfile.TemporaryDirectory() as name:
        bundles = demo(Path(name), Quiet()) and Path(name) / "bundles"
        rows = [*here(bundles), *engines(bundles), gpu(), *virtual(bundles)]
    never = [Row(what, "nowhere", why) for what, why in NEVER]
    lines = ["| what | where | found |", "| --- | --- | --- |"]
    lines += [f"| {row.what} | {row.where} | {row.found} |" for row in [*rows, *never]]
    PAGE.write_text(f"{HEAD}\n" + "\n".join(lines) + f"\n{TAIL}")
    print("\n".join(lines))
    return int(any("FAILED" in row.found for row in rows))


def this_machine() -> str:
    """Return what this machine is."""
    return f"{platform.machine()}, Python {platform.python_version()}, edgecls {VERSION}"


def here(bundles: Path) -> list[Row]:
    """Verify every bundle with every backend of its target."""
    rows = []
    for target in TARGETS.values():
        for backend in (*target.backends, *target.simulators):
            what = f"`{target.name}` on {backend}"
            try:
                found = verify(load(bundles / target.name, backend=backend))
            except MissingError as error:
                rows.append(Row(what, "not run", f"{error}".split(";")[0]))
            except EdgeclsError as error:
                rows.append(Row(what, this_machine(), f"FAILED: {error}"))
            else:
                outcome = "passed" if found.passed else "FAILED"
                by = ", ".join(f"{key} {value}" for key, value in found.description.items())
                rows.append(Row(what, this_machine(), f"{outcome}: {found.precision}, {by}"))
    return rows


def engines(bundles: Path) -> list[Row]:
    """Let TensorRT-RTX parse and build what ships; that needs no GPU."""
    what = "TensorRT-RTX: parser, builder, engine of every ONNX file for it"
    version = tensorrt_rtx_available()
    if version is None:
        return [Row(what, "not run", "TensorRT-RTX is not installed")]
    targets = [target.name for target in TARGETS.values() if target.tensorrt]
    files = sorted(file for name in targets for file in (bundles / name).glob("*.onnx"))
    sizes = [len(build_engine(file.read_bytes(), api="tensorrt-rtx")) for file in files]
    options = EngineOptions(max_batch=32, opt_batch=32, workspace_mb=256)
    with tempfile.TemporaryDirectory() as folder:
        made = build_for(Bundle(bundles / "jetson"), (8, 9), Path(folder) / "e", engine=options)
    return [
        Row(what, this_machine(), f"built {len(sizes)}, TensorRT-RTX {version}"),
        Row(
            "`edgecls build --compute-capability 8.9 --max-batch 32 --workspace-mb 256`",
            this_machine(), f"built from {made.artefact}, {made.description['library']}",
        ),
    ]  # fmt: skip


def gpu() -> Row:
    """Say which GPU executed engines."""
    try:
        device = current_device()
    except MissingError as error:
        return Row("executing engines on a GPU", "not run", str(error).split(";")[0])
    return Row("executing engines on a GPU", this_machine(), device.name)


def virtual(bundles: Path) -> list[Row]:
    """Verify the Raspberry Pi's bundle on every virtual device."""
    rows = [virtual_row(pi, bundles / "raspberry-pi") for pi in created().values()]
    return rows or [Row("`raspberry-pi` on arm64", "not run", "no virtual device was created")]


def virtual_row(pi: VirtualPi, bundle: Path) -> Row:
    """Verify a bundle on a virtual device."""
    done = pi.run(["edgecls", "verify", str(bundle), "--json"])
    python, litert = pi.record.packages.get("python3", ""), pi.record.wheels["ai-edge-litert"]
    where = (
        f"virtual {pi.board.title} ({pi.board.cpu}, QEMU {check_qemu().split()[0]}), Debian "
        f"{pi.release.name}, Python {python}, LiteRT {litert}"
    )
    if done.returncode not in (0, 1):
        return Row("`raspberry-pi` on arm64", where, f"FAILED: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    largest = max(sample["logits"] for sample in found["samples"])
    outcome = "passed" if done.returncode == 0 else "FAILED"
    return Row(
        "`raspberry-pi` on arm64", where,
        f"{outcome}: {found['precision']}, XNNPACK {found['description']['xnnpack']}, largest "
        f"difference of a logit {largest:g}",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
