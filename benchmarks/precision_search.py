"""What repairs and a mixed plan win back where int8 breaks: one table per target.

    EDGECLS_DATA=... python benchmarks/precision_search.py [--epochs 8] [--seeds 0] [--spread 32]

Two nets of inverted residuals learn the 5,000 CIFAR images: with SiLU and squeeze-and-excite as
they are, and with ReLU after its channels were scaled apart, as folded batch norms often leave
them; that one computes what it did, and plain int8 breaks it. 100 training images calibrate, half
of the test images tune, and the other half judge.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import small_nets
import torch
from common import cifar_folder, data_folder, edgecls, machine, one_of, split, table, work_folder
from safetensors.torch import load_file, save_file

TARGETS = ("raspberry-pi", "jetson", "desktop-cpu")
NETS = ("mobile_silu", "mobile_relu")
PREPROCESS = """[preprocess]
color = "rgb"
resize = [32, 32]
crop = 0
interpolation = "bicubic"
scale = 255.0
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


def main() -> None:
    """Print one table per net and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--spread", type=float, default=32.0, help="Largest factor of a channel.")
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--nets", type=one_of(*NETS), nargs="+", default=NETS)
    parser.add_argument("--targets", type=one_of(*TARGETS), nargs="+", default=TARGETS)
    asked = parser.parse_args()
    data = data_folder()
    print(f"{machine()}, {asked.epochs} epochs\n")
    with work_folder() as folder:
        work = Path(folder)
        train = cifar_folder(data, "dev_train5000", work)
        judged, tune = split(cifar_folder(data, "dev_test1000", work), work / "halves", 500)
        (work / "pre.toml").write_text(PREPROCESS)
        for seed in asked.seeds:
            for net in asked.nets:
                weights = learn(net, train, work, asked.epochs, seed)
                title = f"{net}, seed {seed}"
                if net == "mobile_relu":
                    title += f", channels scaled by up to {asked.spread:g} either way"
                    spread(weights, asked.spread, seed)
                print(f"{title}\n")
                measure(asked, net, weights, train, tune, judged, work)


def learn(net: str, train: Path, work: Path, epochs: int, seed: int) -> Path:
    """Train a net, and return its weights."""
    out = work / f"{net}-{seed}"
    edgecls(
        "train", f"small_nets:{net}", "--data", train, "--val-share", 0, "--epochs", epochs,
        "--seed", seed, "--threads", 1, "--device", "cpu", "--preprocess", work / "pre.toml",
        "-o", out,
    )  # fmt: skip
    return out / "model.safetensors"


def spread(file: Path, largest: float, seed: int) -> None:
    """Scale channels before a ReLU by random factors, and back behind it: the same function."""
    module = small_nets.mobile_relu()
    module.load_state_dict(load_file(file))
    module.eval()
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        before = module(image)
        for block in module.modules():
            if not isinstance(block, small_nets.Inverted):
                continue
            _, first, _, depthwise, second, _, _, project, _ = block.body
            for norm, after, axis in ((first, depthwise, 0), (second, project, 1)):
                exponent = 2 * torch.rand(norm.num_features, generator=generator) - 1
                factors = largest**exponent
                norm.weight.mul_(factors)
                norm.bias.mul_(factors)
                shape = [1, 1, 1, 1]
                shape[axis] = -1
                after.weight.div_(factors.reshape(shape))
        assert torch.allclose(module(image), before, atol=1e-4)
    save_file(module.state_dict(), file)


def measure(
    asked: argparse.Namespace, net: str, weights: Path, train: Path, tune: Path, judged: Path,
    work: Path,
) -> None:  # fmt: skip
    """Export a net in four ways and judge each on images that decided nothing."""
    targets, max_drop = asked.targets, asked.max_drop
    ways: dict[str, list[object]] = {
        "plain int8": [],
        "repairs": ["--tune", tune, "--recipe", "best"],
        f"--max-drop {max_drop:g}": ["--tune", tune, "--max-drop", max_drop],
        f"repairs, --max-drop {max_drop:g}": [
            "--tune", tune, "--recipe", "best", "--max-drop", max_drop,
        ],
    }  # fmt: skip
    rows = []
    for way, options in ways.items():
        out = work / "bundles" / weights.parent.name / str(len(rows))
        start = time.perf_counter()
        found = edgecls(
            "export", f"small_nets:{net}", "--weights", weights, "--preprocess", work / "pre.toml",
            "--calib", train, *(part for name in targets for part in ("--target", name)),
            "-o", out, *options, codes=(0, 1),
        ).found  # fmt: skip
        seconds = time.perf_counter() - start
        tuning = found["tuning"]
        for bundle in found["bundles"]:  # type: ignore[attr-defined]
            target, artefact = bundle["target"], bundle["artefacts"][0]
            drift = edgecls(
                "drift", bundle["path"], "--allow-fallback", "--reference", f"small_nets:{net}",
                "--weights", weights, "--data", judged, "--max-drop", 5, codes=(0, 1, 5),
            ).found  # fmt: skip
            check = drift["verdict"]["checks"][0]  # type: ignore[index]
            left = ""
            if isinstance(tuning, dict):
                chosen = next(one["chosen"] for one in tuning["schemes"]
                              if target in one["targets"])  # fmt: skip
                left = f"{len(chosen['left'])} ({chosen['float_macs']:.0f} %)"
            rows.append([
                way if target == targets[0] else "", target, f"{check['value']:.2f}",
                f"{check['lower']:.2f} .. {check['upper']:.2f}", left,
                f"{artefact['size_bytes'] / 1e3:.0f} kB",
                f"{seconds:.0f} s" if target == targets[0] else "",
            ])  # fmt: skip
    heading = ("", "target", "points lost", "bounds", "left float (MACs)", "size", "export")
    print(table(heading, rows), "\n")


if __name__ == "__main__":
    main()
