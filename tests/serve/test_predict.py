"""POST /v1/predict: every way to send images, and every way to send something else."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from edgecls.runtimes import load
from edgecls.runtimes.preprocess import to_pixels

from ..runtimes.conftest import PREPROCESS, Weights, encoded, photo
from .conftest import Serve, png, without_times

BACKENDS = {"litert": "pi_bundle", "onnxruntime": "jetson_bundle"}


@pytest.fixture(params=BACKENDS)
def bundle(request: pytest.FixtureRequest) -> tuple[Path, str]:
    return request.getfixturevalue(BACKENDS[request.param]), request.param


def expected(bundle: tuple[Path, str], image: bytes, name: str, topk: int = 5) -> dict[str, Any]:
    found = load(bundle[0], backend=bundle[1]).predict(image, topk).to_dict()  # type: ignore[arg-type]
    return {**without_times(found), "image": name}


def as_raw(image: bytes) -> dict[str, Any]:
    return {"content": image, "headers": {"content-type": "image/png"}}


def as_multipart(image: bytes) -> dict[str, Any]:
    return {"files": {"image": ("image", image, "image/png")}}


def as_json(image: bytes) -> dict[str, Any]:
    return {"json": {"images": [{"data": base64.b64encode(image).decode()}]}}


@pytest.mark.parametrize("send", [as_raw, as_multipart, as_json])
def test_the_answer_is_what_predict_gives(
    serve: Serve, bundle: tuple[Path, str], send: Any
) -> None:
    image = encoded(photo())
    server = serve(bundle[0], backend=bundle[1])

    answer = server.post("/v1/predict?topk=3", **send(image))

    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["predictions"]
    assert without_times(found) == expected(bundle, image, "image", 3)
    stages = ["decode", "preprocess", "queue", "inference", "postprocess"]
    assert list(found["speed_ms"]) == stages


def test_the_answer_is_the_oracles(serve: Serve, pi_bundle: Path, weights: Weights) -> None:
    image = encoded(photo(3))
    pixels = to_pixels(image, PREPROCESS)
    logits = weights.logits(PREPROCESS.normalize(pixels[None]))[0]
    powers = np.exp(logits - logits.max())

    answer = serve(pi_bundle).post("/v1/predict", **as_raw(image))

    scores = {row["index"]: row["score"] for row in answer.json()["predictions"][0]["topk"]}
    found = [scores[index] for index in range(len(logits))]
    assert found == pytest.approx(powers / powers.sum(), abs=0.02)  # int8


def test_several_images_keep_their_order_and_names(serve: Serve, bundle: tuple[Path, str]) -> None:
    images = {f"{index} ünï 猫.png": encoded(photo(index)) for index in range(9)}
    server = serve(bundle[0], backend=bundle[1])
    encoded_images = [
        {"name": name, "data": base64.b64encode(data).decode()} for name, data in images.items()
    ]

    files = [("image", (name, data)) for name, data in images.items()]
    as_files = server.post("/v1/predict", files=files).json()["predictions"]
    in_json = server.post("/v1/predict", json={"images": encoded_images}).json()["predictions"]

    wanted = [expected(bundle, data, name) for name, data in images.items()]
    for found in (as_files, in_json):
        assert [line["image"] for line in found] == list(images)
        for line, want in zip(found, wanted, strict=True):
            assert [row["index"] for row in line["topk"]] == [r["index"] for r in want["topk"]]
            # A batch of another size may round otherwise in the last bits.
            assert [row["score"] for row in line["topk"]] == pytest.approx(
                [row["score"] for row in want["topk"]], abs=1e-6
            )


def test_an_unusable_image_does_not_stop_the_others(serve: Serve, pi_bundle: Path) -> None:
    files = [("image", ("a.png", encoded(photo()))), ("image", ("b.txt", b"hello"))]

    answer = serve(pi_bundle).post("/v1/predict", files=files)

    assert answer.status_code == 200
    good, bad = answer.json()["predictions"]
    assert good["topk"]
    assert bad == {"image": "b.txt", "error": "not an image: unknown format"}


def test_where_no_image_is_usable_the_status_says_so(serve: Serve, pi_bundle: Path) -> None:
    files = [("image", ("a.jpg", b"\xff\xd8\xff")), ("image", ("b.txt", b"hello"))]

    answer = serve(pi_bundle).post("/v1/predict", files=files)

    assert answer.status_code == 422
    found = answer.json()
    assert found["error"]["code"] == "unusable_image"
    assert [line["image"] for line in found["predictions"]] == ["a.jpg", "b.txt"]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "says"),
    [
        ("text/plain", b"x", 415, "found 'text/plain'"),
        ("", b"x", 415, "expected multipart/form-data"),
        ("application/json", b"{", 400, "not as expected"),
        ("application/json", b"\xff", 400, "not as expected"),
        ("application/json", b"[" * 100_000, 400, "not as expected"),
        ("application/json", b'{"images": []}', 400, "images"),
        ("application/json", b'{"images": [{"data": "*"}]}', 400, "Base64"),
        ("application/json", b'{"images": [{"data": "\\u00e9"}]}', 400, "Base64"),
        ("application/json", b'{"images": [{"data": "", "size": 1}]}', 400, "size"),
        ("multipart/form-data", b"x", 400, "boundary"),
        ("multipart/form-data; boundary=b", b"x", 400, "damaged"),
        ("multipart/form-data; boundary=" + "b" * 300, b"x", 400, "damaged"),
        ("multipart/form-data; boundary=b", b"", 400, "cut off"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx", 400, "cut off"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="topk"\r\n\r\n3\r\n--b--\r\n',
            400,
            "no file name",
        ),
    ],
)
def test_other_bodies_are_refused(
    serve: Serve, pi_bundle: Path, content_type: str, body: bytes, status: int, says: str
) -> None:
    headers = {"content-type": content_type} if content_type else {}

    answer = serve(pi_bundle).post("/v1/predict", content=body, headers=headers)

    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]


def test_an_error_does_not_send_a_body_back(serve: Serve, pi_bundle: Path) -> None:
    answer = serve(pi_bundle).post("/v1/predict", json={"a" * 100_000: 1})

    assert answer.status_code == 400
    assert "unknown field" in answer.json()["error"]["message"]
    assert len(answer.content) < 3000


@pytest.mark.parametrize("topk", ["0", "-1", "x", "1.5", "9" * 5000])
def test_topk_is_a_positive_number(serve: Serve, pi_bundle: Path, topk: str) -> None:
    answer = serve(pi_bundle).post(f"/v1/predict?topk={topk}", **as_raw(encoded(photo())))

    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("query.topk: ")


def test_topk_beyond_the_classes_gives_all(serve: Serve, pi_bundle: Path) -> None:
    answer = serve(pi_bundle).post("/v1/predict?topk=99", **as_raw(encoded(photo())))

    assert len(answer.json()["predictions"][0]["topk"]) == 5


def test_a_body_that_says_it_is_too_large_is_not_read(serve: Serve, pi_bundle: Path) -> None:
    server = serve(pi_bundle, max_upload_bytes=1000)

    answer = server.post(
        "/v1/predict", content=b"", headers={"content-type": "image/png", "content-length": "1001"}
    )

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_a_body_that_does_not_say_how_large_it_is_is_cut_off(serve: Serve, pi_bundle: Path) -> None:
    server = serve(pi_bundle, max_upload_bytes=1000)

    answer = server.post(
        "/v1/predict",
        content=(b"x" * 100 for _ in range(11)),
        headers={"content-type": "image/png"},
    )

    assert answer.status_code == 413


@pytest.mark.parametrize("kind", ["multipart", "json"])
def test_too_many_images_are_refused(serve: Serve, pi_bundle: Path, kind: str) -> None:
    server = serve(pi_bundle, max_images=2)
    if kind == "multipart":
        answer = server.post("/v1/predict", files=[("image", ("a", b"x"))] * 3)
    else:
        answer = server.post("/v1/predict", json={"images": [{"data": ""}] * 3})

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_many_images"


def test_pixels_are_counted_before_they_are_decoded(
    serve: Serve, pi_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(pi_bundle, max_pixels=99)
    large, small = png(Image.new("RGB", (10, 10))), png(Image.new("RGB", (9, 11)))
    decoded = []
    load_pixels = ImageFile.ImageFile.load

    def watched(image: Any) -> Any:
        decoded.append(image.size)
        return load_pixels(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", watched)
    refused = server.post("/v1/predict", **as_raw(large))
    assert decoded == []
    server.post("/v1/predict", **as_raw(small))

    assert refused.status_code == 422
    assert "10x10 px, the most that is decoded is 99 px" in refused.json()["error"]["message"]
    assert set(decoded) == {(9, 11)}


def test_every_nasty_file_gets_an_answer(
    serve: Serve, bundle: tuple[Path, str], edgecls_data: Path
) -> None:
    server = serve(bundle[0], backend=bundle[1])
    files = sorted(file for file in (edgecls_data / "nasty").iterdir() if file.is_file())
    said = json.loads((edgecls_data / "nasty" / "manifest.json").read_text())
    local = load(bundle[0], backend=bundle[1])  # type: ignore[arg-type]

    statuses = {}
    for file in files:
        data = file.read_bytes()
        answer = server.post("/v1/predict", files={"image": (file.name, data)})
        statuses[file.name] = answer.status_code
        (line,) = answer.json()["predictions"]
        if answer.status_code == 200:
            assert line["topk"] == local.predict(data).to_dict()["topk"]

    assert set(statuses.values()) == {200, 422}
    for name, status in statuses.items():
        wish = said.get(name, {}).get("expect", "")
        if wish.startswith("ok:") or wish == "ok":
            assert status == 200, name
        if wish.startswith(("error:", "refuse:")):
            assert status == 422, name
    files_after = server.post("/v1/predict", **as_raw(encoded(photo())))
    assert files_after.status_code == 200


def test_the_orientation_of_a_camera_is_applied(serve: Serve, pi_bundle: Path) -> None:
    upright = Image.fromarray(photo())
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    server = serve(pi_bundle)

    turned = server.post("/v1/predict", **as_raw(file.getvalue())).json()["predictions"][0]
    plain = server.post("/v1/predict", **as_raw(png(upright))).json()["predictions"][0]

    assert turned["topk"] == plain["topk"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (encoded(photo()), {"content-type": "image/png"}),
        (b"no image", {"content-type": "image/png"}),
        (b"{}", {"content-type": "application/json"}),
        (b"x", {"content-type": "text/plain"}),
        (b"x" * 200_000, {"content-type": "image/png"}),
        (b"", {"content-type": "multipart/form-data"}),
        (b"x", {"content-type": "image/png", "x-api-key": "another"}),
        (b"x", {"content-type": "image/png", "expect": "100-continue"}),
    ],
)
def test_with_a_query_and_without_it_is_answered_alike(
    serve: Serve, pi_bundle: Path, body: bytes, headers: dict[str, str]
) -> None:
    """Without one FastAPI is not asked."""
    server = serve(pi_bundle, api_key="0123456789abcdef", max_upload_bytes=100_000)
    sent = {"x-api-key": "0123456789abcdef", **headers}
    found = [
        server.post(path, content=body, headers=sent)
        for path in ("/v1/predict", "/v1/predict?topk=5", "/v1/%70redict")
    ]

    assert len({answer.status_code for answer in found}) == 1
    assert len({frozenset({*answer.headers} - {"content-length"}) for answer in found}) == 1
    if found[0].status_code != 200:
        assert len({answer.content for answer in found}) == 1
    counted = server.service.counts.total("requests")
    assert sorted(counted)[-1] == 3  # under one path with one status
