"""The OpenAPI document, made from the classes of the bodies, and a page for it that needs no script and no network."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from typing import Any

import jinja2
import msgspec

from segue.serving.operations import OPERATIONS, Operation
from segue.serving.schemas import Health, Problem

_REFERENCE = "#/components/schemas/{name}"

_PROBLEMS = {
    "400": "The body is not JSON.",
    "401": "No known token.",
    "403": "The token lacks the right, or the request comes from a page of another origin.",
    "404": "An id is unknown.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "421": "Another host is meant.",
    "422": "A value is not possible.",
    "429": "Too many requests of this token.",
    "500": "An internal error.",
    "501": "The server runs an exported model, which does not answer this (--engine onnx).",
    "503": "The service is at its limit; Retry-After says how long to wait.",
}
_WITH_BODY = ("400", "413", "415")


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document (3.1)."""
    types: list[Any] = [Problem, Health]
    for operation in OPERATIONS:
        types += [kind for kind in (operation.body, operation.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, by_type)
    health = by_type[id(Health)]
    for name, summary in (("live", "The process runs."), ("ready", "Requests can be answered.")):
        answers = {"200": _answer(summary, health)}
        if name == "ready":
            answers["503"] = _answer("Requests cannot be answered now.", health)
        paths[f"/health/{name}"] = {
            "get": {"operationId": f"health-{name}", "summary": summary, "responses": answers, "security": []}
        }
    text = {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    paths["/metrics"] = {
        "get": {
            "operationId": "metrics",
            "summary": "Show metrics, in the form of Prometheus.",
            "responses": text | {code: _problem(code, by_type) for code in ("401", "403", "421", "429")},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "segue",
            "version": version("segue"),
            "description": "What comes next: recommendations from histories that know what happened a second ago. "
            "No id and no text may hold the null character.",
        },
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation, by_type: dict[int, Any]) -> dict[str, Any]:
    """Entry of an operation."""
    codes = [code for code in _PROBLEMS if operation.body is not None or code not in _WITH_BODY]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs a token with the right: {operation.right}.",
        "responses": {
            "200": _answer("The answer.", by_type[id(operation.answer)]),
            **{code: _problem(code, by_type) for code in codes},
        },
    }
    parameters = []
    if "{id}" in operation.path:
        schema = {"type": "string", "minLength": 1, "maxLength": 500}
        parameters.append({"name": "id", "in": "path", "required": True, "schema": schema})
    if operation.variant:
        schema = {"type": "string", "minLength": 1, "maxLength": 200}
        parameters.append({"name": "variant", "in": "query", "required": False, "schema": schema})
    if operation.query is not None:
        (_,), components = msgspec.json.schema_components([operation.query])
        for name, schema in components[operation.query.__name__]["properties"].items():
            parameters.append({"name": name, "in": "query", "required": False, "schema": schema})
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        content = {"application/json": {"schema": by_type[id(operation.body)]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _answer(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem(code: str, by_type: dict[int, Any]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": by_type[id(Problem)]}}
    return {"description": _PROBLEMS[code], "content": content}


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>segue: API</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
h2 { font-size: 1.1rem; margin-top: 2rem; }
summary { cursor: pointer; }
</style>
</head>
<body>
<h1>segue: API</h1>
<p>{{ info.description }} Version {{ info.version }}. For programs: <a href="openapi.json">openapi.json</a>.</p>
<main>
{% for path, methods in paths.items() %}{% for method, entry in methods.items() %}
<section>
<h2><code>{{ method.upper() }} {{ path }}</code></h2>
<p>{{ entry.summary }} {{ entry.description }}</p>
{% if entry.requestBody %}<details><summary>Body</summary>
<pre tabindex="0">{{ show(entry.requestBody.content["application/json"].schema) }}</pre></details>{% endif %}
<details><summary>Answer</summary>
<pre tabindex="0">{{ show(entry.responses["200"].content.values() | first) }}</pre></details>
</section>
{% endfor %}{% endfor %}
<h2 id="schemas">Schemas</h2>
{% for name, schema in components.schemas.items() %}
<details id="{{ name }}"><summary><code>{{ name }}</code></summary><pre tabindex="0">{{ show(schema) }}</pre></details>
{% endfor %}
</main>
</body>
</html>
"""


def page() -> str:
    """The document as a page."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(_TEMPLATE).render(document(), show=lambda content: json.dumps(content, indent=2))
