"""The files of real devices that the doctor reads, as their owners recorded them in public.

Contents are short facts of the systems (release lines, device tree strings, power modes); what a
file holds beside them is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

Tree = dict[str, str]

_ORIN_NANO_MODES: Final = (
    "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=3 NAME=7W >\n"
    "< PM_CONFIG DEFAULT=1 >\n"
)

BOARDS: Final[dict[str, Tree]] = {
    "orin-nano-jetpack-6.2": {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, "
        "EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
        "TARGET_USERSPACE_LIB_DIR=nvidia\n"
        "TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit "
        "Super\0",
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0"
        "nvidia,tegra234\0",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  "
        "540.4.0  Release Build  (buildbrain@mobile-u64-6336-d8000)  Tue Jan  7 17:35:12 PST 2025\n"
        "GCC version:  collect2: error: ld returned 1 exit status\n",
        "proc/meminfo": "MemTotal:        7802880 kB\nMemFree:         3011024 kB\n"
        "MemAvailable:    5412876 kB\n",
        "var/lib/nvpmodel/status": "pmode:0000",
        "etc/nvpmodel.conf": _ORIN_NANO_MODES,
        "usr/lib/python3.10/dist-packages/tensorrt-10.3.0.dist-info/METADATA": "Name: tensorrt\n",
    },
    "orin-nx-jetpack-6.2-without-tensorrt": {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, "
        "EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit "
        "Super\0",
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0000-super\0nvidia,p3767-0000\0"
        "nvidia,tegra234\0",
    },
    "agx-orin-l4t-36.5.2": {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 5.2, GCID: 1, BOARD: generic\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0"
        "nvidia,tegra234\0",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  "
        "540.5.0  Release Build\n",
        "usr/lib/python3.10/dist-packages/tensorrt-10.3.0.dist-info/METADATA": "Name: tensorrt\n",
    },
    "agx-orin-jetpack-7.2": {
        "etc/nv_tegra_release": "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, "
        "EABI: aarch64, DATE: Mon Jun  1 09:28:48 PM UTC 2026\n# KERNEL_VARIANT: oot\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0"
        "nvidia,tegra234\0",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  "
        "595.78  Release Build  (dvs-builder)\n",
        "usr/lib/python3.12/dist-packages/tensorrt-10.16.2.10.dist-info/METADATA": "Name: tensorrt",
        "var/lib/nvpmodel/status": "pmode:0000 fmode:quiet\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=15W >\n",
    },
    "agx-thor-jetpack-7.0": {
        "etc/nv_tegra_release": "# R38 (release), REVISION: 2.2, GCID: 42205042, BOARD: generic, "
        "EABI: aarch64, DATE: Thu Sep 25 22:47:11 UTC 2025\n# KERNEL_VARIANT: oot\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0"
        "nvidia,tegra264\0",
        "usr/lib/python3.12/dist-packages/tensorrt-10.13.3.9.dist-info/METADATA": "Name: tensorrt",
    },
    "xavier-nx-jetpack-5.1.1": {
        "etc/nv_tegra_release": "# R35 (release), REVISION: 3.1, GCID: 32827747, BOARD: t186ref, "
        "EABI: aarch64, DATE: Sun Mar 19 15:19:21 UTC 2023\n",
        "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3509-0000+p3668-0000\0nvidia,p3668-0000\0"
        "nvidia,tegra194\0",
        "usr/lib/python3.8/dist-packages/tensorrt-8.5.2.2.dist-info/METADATA": "Name: tensorrt\n",
    },
    "orin-nano-jetpack-5.1.1": {
        "etc/nv_tegra_release": "# R35 (release), REVISION: 3.1, GCID: 32827747, BOARD: t186ref\n",
        "proc/device-tree/model": "NVIDIA Orin Nano Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0"
        "nvidia,tegra234\0",
    },
    "pi-5-bookworm": {
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n'
        'VERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n',
        "lib/ld-linux-aarch64.so.1": "",
    },
    "pi-4-bookworm-32": {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "etc/os-release": 'PRETTY_NAME="Raspbian GNU/Linux 12 (bookworm)"\n'
        "VERSION_CODENAME=bookworm\nID=raspbian\n",
        "lib/ld-linux-armhf.so.3": "",
    },
    "pi-4-bullseye": {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n'
        "VERSION_CODENAME=bullseye\nID=debian\n",
        "lib/ld-linux-aarch64.so.1": "",
    },
}


def write(name: str, root: Path) -> Path:
    """Write a device's files under a folder that stands for its "/"."""
    for path, content in BOARDS[name].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root
