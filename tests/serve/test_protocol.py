"""The Open Inference Protocol against the numpy oracle, in JSON and with binary tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecls.runtimes import load
from edgecls.runtimes.preprocess import to_pixels

from ..runtimes.conftest import PREPROCESS, Weights, encoded, photo
from .conftest import Serve, Server

BACKENDS = {"litert": "pi_bundle", "onnxruntime": "jetson_bundle"}
INFER = "/v2/models/test/infer"


@pytest.fixture(params=BACKENDS)
def server(request: pytest.FixtureRequest, serve: Serve) -> Server:
    return serve(request.getfixturevalue(BACKENDS[request.param]), backend=request.param)


def tensor_of(*indices: int) -> Any:
    pixels = np.stack([to_pixels(encoded(photo(index)), PREPROCESS) for index in indices])
    return PREPROCESS.normalize(pixels)


def asked(tensor: Any, **changes: Any) -> dict[str, Any]:
    given = {"name": "input", "datatype": "FP32", "shape": list(tensor.shape)}
    return {"inputs": [{**given, "data": tensor.ravel().tolist(), **changes}]}


def test_logits_are_those_of_the_pixels(server: Server) -> None:
    """To the last bit: a tensor's values are rounded to the codes that the table has."""
    tensor = tensor_of(0, 1, 2)
    predictor = load(
        server.service.model.predictor.bundle, backend=server.service.model.predictor.backend
    )
    pixels = np.stack([to_pixels(encoded(photo(index)), PREPROCESS) for index in range(3)])

    found = server.post(INFER, json={**asked(tensor), "id": "seven"})

    assert found.status_code == 200, found.text
    answer = found.json()
    (output,) = answer["outputs"]
    assert answer["id"] == "seven"
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [3, 5])
    logits = np.asarray(output["data"], np.float32).reshape(3, 5)
    assert np.array_equal(logits, predictor.logits(pixels))


def test_logits_are_the_oracles(serve: Serve, jetson_bundle: Path, weights: Weights) -> None:
    server = serve(jetson_bundle, backend="onnxruntime")
    tensor = tensor_of(4)

    answer = server.post(INFER, json=asked(tensor, data=tensor.tolist())).json()  # nested

    assert answer["outputs"][0]["data"] == pytest.approx(weights.logits(tensor)[0], abs=1e-5)


def test_binary_tensors(server: Server) -> None:
    tensor = tensor_of(1, 2)
    in_json = server.post(INFER, json=asked(tensor)).json()["outputs"][0]["data"]
    request = asked(tensor, parameters={"binary_data_size": tensor.nbytes})
    del request["inputs"][0]["data"]
    request["outputs"] = [{"name": "logits", "parameters": {"binary_data": True}}]
    head = json.dumps(request).encode()

    found = server.post(
        INFER,
        content=head + tensor.astype("<f4").tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )

    length = int(found.headers["inference-header-content-length"])
    (output,) = json.loads(found.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 2 * 5 * 4}
    assert "data" not in output
    logits = np.frombuffer(found.content[length:], "<f4")
    assert np.array_equal(logits, np.asarray(in_json, np.float32))


def test_metadata_says_what_infer_takes(server: Server) -> None:
    metadata = server.get("/v2/models/test").json()
    (version,) = metadata["versions"]
    (source,) = metadata["inputs"]
    shape = [2 if size == -1 else size for size in source["shape"]]

    found = server.post(
        f"/v2/models/test/versions/{version}/infer",
        json={"inputs": [{**source, "shape": shape, "data": [0.0] * int(np.prod(shape))}]},
    )

    assert found.status_code == 200
    assert found.json()["outputs"][0]["shape"] == [2, 5]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 5]}]
    assert server.get(f"/v2/models/test/versions/{version}/ready").status_code == 200
    assert server.get("/v2").json()["extensions"] == ["binary_tensor_data"]


ONE = tensor_of(0)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "one input"),
        ({"inputs": [{**asked(ONE)["inputs"][0], "name": "x"}]}, "one input, 'input'"),
        ({**asked(ONE), "outputs": [{"name": "x"}]}, "'logits'"),
        (asked(ONE, datatype="UINT8"), "FP32, found 'UINT8'"),
        (asked(ONE, shape=[1, 3, 12]), "shape"),
        (asked(ONE, shape=[0, 3, 12, 12], data=[]), "shape"),
        (asked(ONE, shape=[-1, 3, 12, 12]), "shape"),
        (asked(ONE, shape=[1 << 20] * 4), "values, found"),
        (asked(ONE, shape=[1, 12, 12, 3]), "(N, 3, 12, 12)"),
        (asked(ONE, data=[0.0] * 431), "432 values, found 431"),
        (asked(ONE, data=["1"] * 432), "than numbers"),
        (asked(ONE, data=[[1.0], [1.0, 2.0]]), "no tensor"),
        (asked(ONE, data=[1e300] * 432), "finite"),
        (asked(ONE, data=None), "binary_data_size"),
        (asked(ONE, data=None, parameters={"binary_data_size": 8}), "0 bytes"),
        (asked(ONE, parameters={"binary_data_size": 0}), "0 bytes"),
        (asked(ONE, data=None, parameters={"binary_data_size": "x"}), "0 bytes"),
    ],
)
def test_what_is_no_request_is_said(
    serve: Serve, pi_bundle: Path, request_: dict[str, Any], says: str
) -> None:
    answer = serve(pi_bundle).post(INFER, json=request_)

    assert answer.status_code == 400, answer.text
    assert says in answer.json()["error"]  # a string: the protocol's own form


@pytest.mark.parametrize("length", ["x", "-1", "²", "9" * 30])
def test_a_wrong_header_length_is_said(serve: Serve, pi_bundle: Path, length: str) -> None:
    headers = {b"inference-header-content-length": length.encode("latin-1", "replace")}

    answer = serve(pi_bundle).post(INFER, content=b"{}", headers=headers)

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "path", ["/v2/models/other", "/v2/models/other/ready", "/v2/models/test/versions/1"]
)
def test_another_model_is_not_found(serve: Serve, pi_bundle: Path, path: str) -> None:
    answer = serve(pi_bundle).get(path)

    assert answer.status_code == 404
    assert "'test'" in answer.json()["error"]


def test_too_many_images_are_refused(serve: Serve, pi_bundle: Path) -> None:
    answer = serve(pi_bundle, max_images=2).post(INFER, json=asked(tensor_of(0, 1, 2)))

    assert answer.status_code == 413


def test_infinite_values_behind_the_json_are_refused(serve: Serve, pi_bundle: Path) -> None:
    tensor = np.full((1, 3, 12, 12), np.nan, "<f4")
    request = asked(tensor, parameters={"binary_data_size": tensor.nbytes})
    del request["inputs"][0]["data"]
    head = json.dumps(request).encode()

    answer = serve(pi_bundle).post(
        INFER,
        content=head + tensor.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )

    assert answer.status_code == 400
    assert "NaN" in answer.json()["error"]
