"""Writes docs/compatibility.md from the tables in targets/: python tools/compatibility.py."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgecls.core.files import write_atomic
from edgecls.targets.compatibility import Cells, jetpack_cells, module_cells, pi_os_cells
from edgecls.targets.jetpack import JETPACKS, MODULES
from edgecls.targets.pi_os import PI_OS

PAGE: Final = Path(__file__).parents[1] / "docs" / "compatibility.md"

HEAD: Final = """# What fits together

Written by `python tools/compatibility.py` from `targets/jetpack.py` and `targets/pi_os.py`; a test
holds it equal. `edgecls targets --devices` shows it, `edgecls targets --jetpack 6.2` a row of it.
A row is here only where its sources say all of it: a JetPack that is not here (6.0, 6.2.2, 6.2.3)
is not known to fail, `edgecls doctor` on the device reads what it has.

    edgecls export MODEL --target jetson --jetpack 6.2 --module orin-nano --calib DIR -o OUT

checks each graph before it ships against the tables of that TensorRT's ONNX parser: operators,
their excepted forms, types, Q/DQ, opset. What the parser would refuse ends with exit code 4 and the
node's name. Layers that a DLA would leave to the GPU are a report, not an error.
"""

TAIL: Final = """
The DLA is driven by TensorRT up to 10.7, so by JetPack 6's own but not by JetPack 7's; TensorRT
11.4.1 does again on an AGX Orin with JetPack 7.2.2 or later
([source](https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html)).
What the report judges are the layers whose limits NVIDIA's page sums up: convolutions, activations,
elementwise layers, concatenation, LRN, PReLU. Of others (pooling, reductions, shuffles) it says
that no rule is recorded. edgecls itself builds engines for the GPU; the report is for those who
build one with `trtexec --useDLACore`.

TensorRT's bindings are for the system's Python: the environment needs
`python3 -m venv --system-site-packages`.
"""


def page() -> str:
    """Return the page."""
    sections = (
        ("JetPack", [(jetpack_cells(row), row.sources) for row in JETPACKS]),
        ("Jetson modules", [(module_cells(row), row.sources) for row in MODULES]),
        ("Raspberry Pi OS", [(pi_os_cells(row), row.sources) for row in PI_OS]),
    )
    return HEAD + "".join(_section(title, rows) for title, rows in sections) + TAIL


def _section(title: str, rows: list[tuple[Cells, tuple[str, ...]]]) -> str:
    headings = [*rows[0][0], "sources"]
    lines = [
        f"\n## {title}\n",
        f"| {' | '.join(headings)} |",
        f"|{' --- |' * len(headings)}",
    ]
    for cells, sources in rows:
        links = ", ".join(f"[{index}]({url})" for index, url in enumerate(sources, 1))
        lines.append(f"| {' | '.join([*cells.values(), links])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    write_atomic(PAGE, page().encode())


if __name__ == "__main__":
    main()
