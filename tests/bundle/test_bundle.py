from __future__ import annotations

import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecls.bundle import Bundle, Manifest, write_bundle
from edgecls.bundle.manifest import (
    MANIFEST,
    MANIFEST_HASH,
    Artefact,
    FileEntry,
    GoldenSample,
    ModelInfo,
)
from edgecls.core.errors import BundleError
from edgecls.core.files import sha256_bytes
from edgecls.core.preprocess import PRESETS
from edgecls.core.values import TensorSpec

FILES = {
    "model.int8.tflite": b"int8" * 100,
    "model.fp32.tflite": b"fp32" * 100,
    "golden/0.png": b"image",
    "golden/0.pixels.png": b"pixels",
    "golden/0.f32": b"logits",
}


def artefact(path: str, precision: Any) -> Artefact:
    spec = TensorSpec(name="image", shape=(None, 224, 224, 3))
    return Artefact(
        path=path,
        format="tflite",
        precision=precision,
        input=spec,
        output=TensorSpec(name="logits", shape=(None, 3)),
    )


def manifest(**changes: Any) -> Manifest:
    made = Manifest(
        target="raspberry-pi",
        precision="int8",
        model=ModelInfo(source="lenet5", weights_sha256=None, parameters=3, graph_sha256="00"),
        preprocess=PRESETS["imagenet"],
        labels=("cat", "dog", "Ünï 猫"),
        num_classes=3,
        artefacts=(artefact("model.int8.tflite", "int8"), artefact("model.fp32.tflite", "fp32")),
        steps=(),
        golden=(
            GoldenSample(
                image="golden/0.png",
                pixels="golden/0.pixels.png",
                logits={"model.int8.tflite": "golden/0.f32"},
            ),
        ),
        golden_source="synthetic",
        tools={"edgecls": "0.1.0"},
        files={},
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", manifest(), FILES)
    return tmp_path / "bundle"


def zipped(folder: Path, *, inside: str = "", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", compression) as file:
        for source in sorted(folder.rglob("*")):
            file.write(source, inside + source.relative_to(folder).as_posix())
    return path


def reseal(folder: Path, data: bytes) -> None:
    """Put another manifest in its place, with a hash that fits."""
    (folder / MANIFEST).write_bytes(data)
    (folder / MANIFEST_HASH).write_text(sha256_bytes(data))


def forge(folder: Path, **changes: Any) -> None:
    found = msgspec.json.decode((folder / MANIFEST).read_bytes())
    reseal(folder, msgspec.json.encode(found | changes))


def test_what_was_written_is_read(folder: Path) -> None:
    bundle = Bundle(folder)

    bundle.verify()
    assert {name: bundle.read(name) for name in bundle.manifest.files} == FILES
    assert msgspec.structs.replace(bundle.manifest, files={}) == manifest()
    assert bundle.sha256 == sha256_bytes((folder / MANIFEST).read_bytes())


@pytest.mark.parametrize("inside", ["", "bundle/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_the_same_bundle(folder: Path, inside: str, compression: int) -> None:
    bundle = Bundle(zipped(folder, inside=inside, compression=compression))

    bundle.verify()
    assert bundle.sha256 == Bundle(folder).sha256
    assert {name: bundle.read(name) for name in bundle.manifest.files} == FILES


def test_two_writes_are_equal_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    backwards = dict(reversed(FILES.items()))

    write_bundle(tmp_path / "again", manifest(), backwards)

    assert (tmp_path / "again" / MANIFEST).read_bytes() == (folder / MANIFEST).read_bytes()


def test_find_gives_the_first_that_fits(folder: Path) -> None:
    bundle = Bundle(folder)

    assert bundle.find("tflite").path == "model.int8.tflite"  # type: ignore[union-attr]
    assert bundle.find("tflite", "fp32").path == "model.fp32.tflite"  # type: ignore[union-attr]
    assert bundle.find("tflite", "fp16") is None
    assert bundle.find("onnx") is None


@pytest.mark.parametrize("name", [*FILES, MANIFEST, MANIFEST_HASH])
@pytest.mark.parametrize("damage", ["cut", "longer", "changed", "gone"])
def test_every_damaged_file_is_found(folder: Path, name: str, damage: str) -> None:
    file = folder / name
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "longer" and name == MANIFEST_HASH:
        pytest.skip("what follows the hash is its file's name")
    else:
        damaged = {"cut": data[:3], "longer": data + b"x", "changed": b"?" + data[1:]}
        file.write_bytes(damaged[damage])

    with pytest.raises(BundleError) as caught:
        Bundle(folder).verify()

    assert caught.value.exit_code == 4
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["extra.txt", "golden/extra.png", ".hidden"])
def test_a_stranger_is_found(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")

    with pytest.raises(BundleError, match="1 file"):
        Bundle(folder).verify()


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "golden/../../secret", "..", "", ".", "a\\..\\b", "nul\0"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_path_that_leaves_the_bundle_is_refused(folder: Path, name: str, packed: bool) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    files = msgspec.to_builtins(Bundle(folder).manifest.files)
    entry = {"size_bytes": 6, "sha256": sha256_bytes(b"secret")}
    forge(folder, files=files | {name: entry})

    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle(zipped(folder) if packed else folder)


def test_a_link_that_leaves_the_bundle_is_refused(folder: Path) -> None:
    (folder.parent / "elsewhere").write_bytes(FILES["golden/0.png"])
    (folder / "golden/0.png").unlink()
    (folder / "golden/0.png").symlink_to(folder.parent / "elsewhere")

    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle(folder).verify()


@pytest.mark.parametrize("kind", ["pipe", "circle", "folder"])
def test_what_is_no_file_does_not_hang(folder: Path, kind: str) -> None:
    file = folder / "golden/0.png"
    file.unlink()
    makers = {"pipe": os.mkfifo, "circle": lambda p: p.symlink_to(p), "folder": Path.mkdir}
    makers[kind](file)

    with pytest.raises(BundleError, match=r"0\.png"):
        Bundle(folder).verify()


def test_a_file_that_grew_is_not_read_whole(folder: Path) -> None:
    with (folder / "model.int8.tflite").open("ab") as file:
        file.truncate(1 << 40)

    with pytest.raises(BundleError, match="is not the file"):
        Bundle(folder).read("model.int8.tflite")


def test_a_zip_bomb_is_not_unpacked(folder: Path) -> None:
    with (folder / "model.int8.tflite").open("wb") as file:
        file.truncate(100 << 20)
    bundle = Bundle(zipped(folder))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(BundleError, match="unpacks to"):
        bundle.read("model.int8.tflite")

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 99}, "schema version 99, this edgecls reads 1; upgrade"),
        ({"schema_version": 0}, "export the bundle again"),
        ({"schema_version": "1"}, "is not valid"),
        ({"precision": "int4"}, "is not valid"),
        ({"surprise": 1}, "is not valid"),
        ({"artefacts": []}, "no artefact"),
        ({"labels": ["cat"]}, "1 labels for 3 classes"),
        ({"target": "toaster"}, "for target 'toaster'"),
        ({"files": {}}, "is used but not listed"),
        ({"preprocess": {"crop": -1}}, "is not valid"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_manifest_that_is_not_valid_is_refused(
    folder: Path, changes: dict[str, Any], message: str, packed: bool
) -> None:
    forge(folder, **changes)

    with pytest.raises(BundleError, match=message):
        Bundle(zipped(folder) if packed else folder)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 200_000, b'{"a":' * 100_000]
)
def test_a_manifest_that_is_no_json_is_refused(folder: Path, data: bytes) -> None:
    reseal(folder, data)

    with pytest.raises(BundleError, match="is not valid"):
        Bundle(folder)


def test_what_is_no_bundle_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("readme.txt", "hello")
    messages = {
        "absent": "found nothing there", "empty": f"it has no {MANIFEST}",
        "text": "neither a folder nor a zip", "loop": "not a bundle|nothing there",
        "pipe": "nothing there", "other.zip": f"0 {MANIFEST}", "": "did you mean",
        "x" * 5000: "not a bundle|cannot be read", "nul\0": "not a bundle|nothing there",
    }  # fmt: skip

    for name, message in messages.items():
        with pytest.raises(BundleError, match=message):
            Bundle(tmp_path / name)


def test_two_bundles_in_a_zip_are_none(folder: Path) -> None:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for inside in ("a/", "b/"):
            for name in (MANIFEST, MANIFEST_HASH):
                file.write(folder / name, inside + name)

    with pytest.raises(BundleError, match=f"2 {MANIFEST}, expected one"):
        Bundle(path)


def test_a_file_whose_name_ends_like_the_manifest_is_no_manifest(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", manifest(), FILES | {"golden/my-manifest.json": b"{}"})

    Bundle(zipped(tmp_path / "bundle")).verify()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_zip_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(zipped_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([None, None, len(whole) // 2, len(whole) - 5]))
    path = tmp_path_factory.mktemp("zip") / "bundle.zip"
    path.write_bytes(bytes(whole[:end]))
    try:
        bundle = Bundle(path)
        bundle.verify()
    except BundleError:
        return

    assert {name: bundle.read(name) for name in bundle.manifest.files} == FILES


@functools.cache
def zipped_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        write_bundle(Path(name) / "bundle", manifest(), FILES)
        return zipped(Path(name) / "bundle").read_bytes()


def test_a_full_disk_leaves_the_old_bundle(folder: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write really fails."""
    before = Bundle(folder).sha256
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_bundle import FILES, manifest\n"
        "from edgecls.bundle import write_bundle\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "large = dict(FILES); large['model.int8.tflite'] = bytes(2 << 20)\n"
        "try: write_bundle(Path(sys.argv[1]), manifest(), large)\n"
        "except OSError as error: print(error.strerror)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, folder, Path(__file__).parent],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "File too large\n"
    assert Bundle(folder).sha256 == before
    Bundle(folder).verify()
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_kill_leaves_the_old_bundle_or_the_new(folder: Path) -> None:
    code = (
        "import itertools, sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_bundle import FILES, manifest\n"
        "from edgecls.bundle import write_bundle\n"
        "print('ready', flush=True)\n"
        "for count in itertools.count():\n"
        "    write_bundle(Path(sys.argv[1]), manifest(tools={'count': str(count)}), FILES)\n"
    )
    for delay in (0.0, 0.003, 0.011, 0.05, 0.1):
        with subprocess.Popen(
            [sys.executable, "-c", code, folder, Path(__file__).parent], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        if folder.exists():
            Bundle(folder).verify()
        else:  # between two renames: the next write brings the old one back, or replaces it
            assert any(path.name.endswith(".old.tmp") for path in folder.parent.iterdir())

    write_bundle(folder, manifest(), FILES)
    Bundle(folder).verify()
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_sizes_and_hashes_are_filled_in(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)

    found = write_bundle(tmp_path / "a" / "b", manifest(), FILES)

    assert found.files["golden/0.f32"] == FileEntry(size_bytes=6, sha256=sha256_bytes(b"logits"))
    assert set(found.files) == set(FILES)
