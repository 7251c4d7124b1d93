"""The OpenAPI document: complete, and true of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ..runtimes.conftest import encoded, photo
from .conftest import Serve, Server


def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/openapi.json").json()
    return found


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Validate a value; the document is the place that references mean."""
    validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
    validator.validate(value)


def content_of(document: dict[str, Any], path: str, method: str, status: int) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][path][method]["responses"][str(status)]
    schema: dict[str, Any] = found["content"]["application/json"]["schema"]
    return schema


def test_it_names_every_path(serve: Serve, pi_bundle: Path) -> None:
    found = document(serve(pi_bundle))

    assert set(found["paths"]) == {
        "/v1/predict", "/v1/model", "/v1/field", "/healthz", "/readyz", "/metrics", "/v2",
        "/v2/health/live", "/v2/health/ready",
        *(
            f"/v2/models/{{name}}{version}{what}"
            for version in ("", "/versions/{version}")
            for what in ("", "/ready", "/infer")
        ),
    }  # fmt: skip


def test_every_reference_leads_somewhere(serve: Serve, pi_bundle: Path) -> None:
    found = document(serve(pi_bundle))

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert value["$ref"].rpartition("/")[2] in found["components"]["schemas"]
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(found)


@pytest.mark.parametrize("path", ["/v1/model", "/v1/field", "/v2", "/v2/models/{name}"])
def test_answers_fit_their_schemas(serve: Serve, pi_bundle: Path, path: str) -> None:
    server = serve(pi_bundle)
    found = document(server)

    answer = server.get(path.replace("{name}", "test")).json()

    check(found, content_of(found, path, "get", 200), answer)


def test_predictions_and_errors_fit_their_schemas(serve: Serve, pi_bundle: Path) -> None:
    server = serve(pi_bundle)
    found = document(server)
    good, bad = ("image", ("a", encoded(photo()))), ("image", ("b", b"x"))

    for files, status in (([good, bad], 200), ([bad], 422)):
        answer = server.post("/v1/predict", files=files)
        assert answer.status_code == status
        check(found, content_of(found, "/v1/predict", "post", status), answer.json())


def test_examples_fit_their_schemas(serve: Serve, pi_bundle: Path) -> None:
    found = document(serve(pi_bundle))
    examples = 0
    for path in found["paths"].values():
        for operation in path.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for body in bodies:
                for content in body.get("content", {}).values():
                    if "example" in content:
                        check(found, content["schema"], content["example"])
                        examples += 1

    assert examples > 10


def test_the_key_is_in_it(serve: Serve, pi_bundle: Path) -> None:
    key = "0123456789abcdef"
    server = serve(pi_bundle, api_key=key)
    found = server.get("/openapi.json", headers={"x-api-key": key}).json()

    assert found["components"]["securitySchemes"]["key"]["name"] == "X-API-Key"
    assert "securitySchemes" not in document(serve(pi_bundle))["components"]


def test_the_page_names_what_there_is(serve: Serve, pi_bundle: Path) -> None:
    server = serve(pi_bundle)
    page = server.get("/").text

    for name in ("/static/page.js", "/static/page.css", "/static/icon.svg"):
        assert name in page
        assert server.get(name).status_code == 200
    assert "http://" not in page
    assert "https://" not in page
    assert " style=" not in page  # the policy would not let it count


def test_the_example_of_a_request_can_be_sent(serve: Serve, pi_bundle: Path) -> None:
    server = serve(pi_bundle)
    body = server.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]

    answer = server.post("/v1/predict", json=body["content"]["application/json"]["example"])

    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["image"] == "brown.png"
