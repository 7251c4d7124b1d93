"""Which JetPack has which TensorRT, Python and CUDA, and which Jetson module has which GPU.

A row is here where its source says all of it; what could not be found is left out.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ..core.errors import UsageError

Soc = Literal["xavier", "orin", "thor"]

# The first with what we use; 8.x has no strongly typed networks.
OLDEST_TENSORRT: Final = (10, 3)
PYTHONS: Final = ((3, 10), (3, 13))


class JetPack(msgspec.Struct, frozen=True, kw_only=True):
    """A release of NVIDIA's system for Jetson.

    Attributes:
        version: As NVIDIA numbers it.
        l4t: The releases of Jetson Linux (L4T) that it comes with.
        ubuntu: The version of its root file system.
        python: (major, minor) of the system's Python, for which TensorRT's bindings are.
        tensorrt: Its version, as far as the sources say.
        cuda: Its version, likewise.
        socs: What it runs on.
        sources: Where this stands.
    """

    version: str
    l4t: tuple[str, ...]
    ubuntu: str
    python: tuple[int, int]
    tensorrt: str
    cuda: str
    socs: tuple[Soc, ...]
    sources: tuple[str, ...]

    @property
    def tensorrt_release(self) -> tuple[int, int]:
        """Return (major, minor) of its TensorRT."""
        major, minor = self.tensorrt.split(".")[:2]
        return int(major), int(minor)

    def why_not(self) -> str | None:
        """Return why our bundles do not run on it; None where they do."""
        if self.tensorrt_release < OLDEST_TENSORRT:
            oldest = ".".join(map(str, OLDEST_TENSORRT))
            return f"it has TensorRT {self.tensorrt}, expected {oldest} or later"
        if not PYTHONS[0] <= self.python <= PYTHONS[1]:
            return f"it has Python {self.python[0]}.{self.python[1]}, expected 3.10 to 3.13"
        return None


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """A Jetson module.

    Attributes:
        name: As given to ``--module``.
        title: As NVIDIA calls it.
        soc: Its processor.
        dla_cores: How many deep learning accelerators it has.
        parts: Its part numbers, which the device tree's ``compatible`` holds.
        sources: Where this stands.
    """

    name: str
    title: str
    soc: Soc
    dla_cores: int
    parts: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Return its GPU's (major, minor)."""
        return COMPUTE_CAPABILITIES[self.soc]


# https://developer.nvidia.com/cuda-gpus (Jetson), and for Thor
# https://github.com/vllm-project/vllm/pull/39233
COMPUTE_CAPABILITIES: Final[dict[Soc, tuple[int, int]]] = {
    "xavier": (7, 2),
    "orin": (8, 7),
    "thor": (11, 0),
}

_ARCHIVE: Final = "https://developer.nvidia.com/embedded/jetpack-archive"
_UBUNTU: Final = "https://packages.ubuntu.com/search?keywords=python3"

# Which L4T is which JetPack is known of more than have a row: the archive lists them all.
L4T_JETPACKS: Final[dict[str, str]] = {
    "35.1.0": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1", "35.4.1": "5.1.2", "35.5.0": "5.1.3",
    "35.6.0": "5.1.4", "36.3.0": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1",
    "36.4.7": "6.2.1", "36.5.0": "6.2.2", "36.5.2": "6.2.3", "38.2.0": "7.0", "38.2.1": "7.0",
    "38.4.0": "7.1", "39.2.0": "7.2", "39.2.1": "7.2.1",
}  # fmt: skip

_BUILT_ON_6: Final = "https://github.com/Shattered217/Jetson-Orin-Wheels/releases/tag/6.2.1rc1"

JETPACKS: Final = (
    JetPack(
        version="5.1.1", l4t=("35.3.1",), ubuntu="20.04", python=(3, 8), tensorrt="8.5.2",
        cuda="11.4", socs=("xavier", "orin"),
        sources=("https://developer.nvidia.com/embedded/jetpack-sdk-511", _UBUNTU),
    ),
    JetPack(
        version="6.1", l4t=("36.4.0",), ubuntu="22.04", python=(3, 10), tensorrt="10.3",
        cuda="12.6", socs=("orin",),
        sources=(
            "https://docs.pytorch.org/TensorRT/getting_started/jetpack.html", _ARCHIVE, _UBUNTU,
        ),
    ),
    JetPack(
        version="6.2", l4t=("36.4.3",), ubuntu="22.04", python=(3, 10), tensorrt="10.3",
        cuda="12.6", socs=("orin",), sources=(_BUILT_ON_6, _ARCHIVE, _UBUNTU),
    ),
    JetPack(
        version="6.2.1", l4t=("36.4.4", "36.4.7"), ubuntu="22.04", python=(3, 10), tensorrt="10.3",
        cuda="12.6", socs=("orin",), sources=(_BUILT_ON_6, _ARCHIVE, _UBUNTU),
    ),
    JetPack(
        version="7.0", l4t=("38.2.0", "38.2.1"), ubuntu="24.04", python=(3, 12),
        tensorrt="10.13", cuda="13.0", socs=("thor",),
        sources=(
            "https://developer.nvidia.com/embedded/jetpack/downloads/archive-7.0",
            "https://github.com/autowarefoundation/autoware/pull/7108", _UBUNTU,
        ),
    ),
    JetPack(
        version="7.1", l4t=("38.4.0",), ubuntu="24.04", python=(3, 12), tensorrt="10.13.3",
        cuda="13.0", socs=("thor",),
        sources=(
            "https://developer.nvidia.com/embedded/jetpack/downloads/archive-7.1",
            "https://github.com/NVIDIA/IsaacTeleop/pull/1050", _UBUNTU,
        ),
    ),
    JetPack(
        version="7.2", l4t=("39.2.0",), ubuntu="24.04", python=(3, 12), tensorrt="10.16.2",
        cuda="13.2", socs=("orin", "thor"),
        sources=(
            "https://github.com/roboflow/inference/pull/2531",
            "https://github.com/OE4T/meta-tegra/pull/2224", _UBUNTU,
        ),
    ),
    JetPack(
        version="7.2.1", l4t=("39.2.1",), ubuntu="24.04", python=(3, 12), tensorrt="10.16.2",
        cuda="13.2", socs=("orin", "thor"),
        sources=("https://developer.nvidia.com/embedded/jetpack/downloads", _ARCHIVE, _UBUNTU),
    ),
)  # fmt: skip

_MODULES: Final = "https://developer.nvidia.com/embedded/jetson-modules"
_PARTS: Final = "https://github.com/rbonghi/jetson_stats/blob/master/jtop/core/jetson_variables.py"
_KERNEL: Final = "https://www.kernel.org/doc/Documentation/devicetree/bindings/arm/tegra.yaml"
_NO_DLA: Final = (
    "https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html"
)

MODULES: Final = (
    Module(
        name="orin-nano", title="Jetson Orin Nano", soc="orin", dla_cores=0,
        parts=("p3767-0003", "p3767-0004", "p3767-0005"), sources=(_MODULES, _PARTS),
    ),
    Module(
        name="orin-nx-8gb", title="Jetson Orin NX 8GB", soc="orin", dla_cores=1,
        parts=("p3767-0001",), sources=(_MODULES, _PARTS),
    ),
    Module(
        name="orin-nx-16gb", title="Jetson Orin NX 16GB", soc="orin", dla_cores=2,
        parts=("p3767-0000",), sources=(_MODULES, _PARTS),
    ),
    Module(
        name="agx-orin", title="Jetson AGX Orin", soc="orin", dla_cores=2,
        parts=("p3701-0000", "p3701-0004", "p3701-0005"),
        sources=("https://github.com/NVIDIA/Deep-Learning-Accelerator-SW", _PARTS),
    ),
    Module(
        name="agx-thor", title="Jetson AGX Thor (T5000)", soc="thor", dla_cores=0,
        parts=("p3834-0008",), sources=(_NO_DLA, _KERNEL),
    ),
    Module(
        name="xavier-nx", title="Jetson Xavier NX", soc="xavier", dla_cores=2,
        parts=("p3668-0000", "p3668-0001", "p3668-0003"), sources=(_MODULES, _PARTS),
    ),
    Module(
        name="agx-xavier", title="Jetson AGX Xavier", soc="xavier", dla_cores=2,
        parts=("p2888-0001", "p2888-0003", "p2888-0004", "p2888-0005", "p2888-0006",
               "p2888-0008"),
        sources=(_MODULES, _PARTS),
    ),
)  # fmt: skip

# TensorRT 10.7 was the last of 10.x that drives the DLA; 11.4.1 does again, where it is installed
# on an AGX Orin with JetPack 7.2.2. Source: _NO_DLA.
LAST_TENSORRT_WITH_DLA: Final = (10, 7)


def get_jetpack(version: str) -> JetPack:
    """Return the JetPack of that version.

    Raises:
        UsageError: There is none in the table; the message lists them.
    """
    for row in JETPACKS:
        if row.version == version:
            return row
    known = ", ".join(row.version for row in JETPACKS)
    raise UsageError(f"JetPack {version!r} is not in the table; it has: {known}")


def get_module(name: str) -> Module:
    """Return the module of that name.

    Raises:
        UsageError: There is none in the table; the message lists them.
    """
    for row in MODULES:
        if row.name == name:
            return row
    raise UsageError(
        f"Jetson module {name!r} is not in the table; it has: "
        + ", ".join(row.name for row in MODULES)
    )


def choose(jetpack: str, module: str | None) -> tuple[JetPack, Module | None]:
    """Return a JetPack on which our bundles run, and the module, on which it runs.

    Raises:
        UsageError: One is not in the table, or they do not go together; the message says what does.
    """
    system = get_jetpack(jetpack)
    board = get_module(module) if module is not None else None
    fitting = [
        row.version
        for row in JETPACKS
        if row.why_not() is None and (board is None or board.soc in row.socs)
    ]
    choices = f"choose JetPack {', '.join(fitting)}" if fitting else "no JetPack in the table does"
    reason = system.why_not()
    if reason is not None:
        raise UsageError(f"JetPack {jetpack} does not run our bundles: {reason}; {choices}")
    if board is not None and board.soc not in system.socs:
        raise UsageError(
            f"JetPack {jetpack} is not for the {board.title}, it is for "
            f"{' and '.join(system.socs)}; {choices}"
        )
    return system, board


def dla_cores(jetpack: JetPack, module: Module) -> int:
    """Return how many DLA cores the JetPack's own TensorRT can use on the module."""
    return module.dla_cores if jetpack.tensorrt_release <= LAST_TENSORRT_WITH_DLA else 0


def module_of(compatible: tuple[str, ...]) -> Module | None:
    """Return the module that a device tree's ``compatible`` names, if it is in the table.

    Args:
        compatible: e.g. ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", ...).
    """
    text = " ".join(compatible)
    return next((row for row in MODULES if any(part in text for part in row.parts)), None)
