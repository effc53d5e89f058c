"""The OpenAPI 3.1 document of a served model, from its signature.

Must never: invent a rule of its own; schemas come from the data types, addresses from serve mode.
"""

from __future__ import annotations

from typing import Any

_JSON = "application/json"
_SCALARS = {"string", "number", "integer", "boolean"}
_JSON_VALUE: dict[str, Any] = {"description": "Any JSON value."}
_ERROR: dict[str, Any] = {"$ref": "#/components/schemas/Error"}
_OBJECT = {"type": "object"}

#: Description of every error status an address may answer with.
_ERRORS = {
    400: "The input is wrong; the text says what came and what is accepted.",
    401: "The admin token is missing or wrong.",
    403: "Not from here: see the text.",
    404: "Nothing of this name.",
    409: "The state of things does not allow this now, or a newer update took this one's place.",
    413: "The body is too large.",
    422: "The candidate did not come up; the earlier generation serves on.",
    429: "Too many wrong admin tokens.",
    500: "The model raised. In production the answer holds an error id that is in the log.",
    503: "Nothing serves, or a queue is full; try again after `Retry-After`.",
    504: "The deadline passed.",
}

_ERROR_BODY: dict[str, Any] = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
_ADMIN_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "The token that the server was started with (`--admin-token`).",
}


def document(
    signature: dict[str, Any], *, service: str, version: int, token_needed: bool
) -> dict[str, Any]:
    """Return the document as JSON-ready data.

    Args:
        signature: `sdk.contract.Signature.to_dict()` of what serves now.
        service: name of the service, the document's title.
        version: of the serving artifact.
        token_needed: whether changes need the admin token.
    """
    paths: dict[str, Any] = {}
    for command in signature["commands"]:
        if command["wholeSite"]:
            continue  # what addresses a web application has, only it knows
        paths[f"/{command['name']}"] = _command(command)
    paths.update(_admin(signature, token_needed=token_needed))
    components: dict[str, Any] = {"schemas": {"Error": _ERROR_BODY}}
    if token_needed:
        components["securitySchemes"] = {"adminToken": _ADMIN_TOKEN}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": service,
            "version": str(version),
            "description": "Served by modelcloud; updated live by `POST /setup`.",
        },
        "tags": [
            {"name": "model", "description": "What the model answers."},
            {"name": "update", "description": "Replace the model while it serves."},
            {"name": "about", "description": "What serves, and how it fares."},
        ],
        "paths": paths,
        "components": components,
    }


def _command(command: dict[str, Any]) -> dict[str, Any]:
    """The path item of one command: POST calls it, GET calls it with a query string."""
    name = command["name"]
    free_form = command["wholeBody"] or command["withRequest"]
    schemas = (command["inputSchema"], command["outputSchema"])
    if command["withRequest"]:
        schemas = ({}, {})
    answer = schemas[1] or _JSON_VALUE
    body: dict[str, Any] = {"schema": schemas[0] or _JSON_VALUE}
    if not free_form or command["example"]:
        body["example"] = command["example"]
    content: dict[str, Any] = {_JSON: {"schema": answer}}
    if command["streams"]:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    item = {
        "post": {
            **_call(name, command["description"], content),
            "summary": f"Call {name}",
            "requestBody": {"required": not free_form, "content": {_JSON: body}},
        }
    }
    if not free_form:
        described = {_JSON: {"schema": {"anyOf": [answer, _OBJECT]}}}
        item["get"] = {
            **_call(f"{name}_get", command["description"], described),
            "summary": f"Call {name} by query string; describe it without one",
            "parameters": _query_parameters(command["inputSchema"]),
        }
    return item


def _call(operation: str, description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": operation,
        "tags": ["model"],
        "description": description,
        "responses": {
            "200": {"description": "The answer.", "content": content},
            **_errors(400, 413, 500, 503, 504),
        },
    }


def _query_parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The inputs that fit into a query string; none is required, since without any it describes."""
    return [
        {"name": name, "in": "query", "required": False, "schema": field}
        for name, field in schema["properties"].items()
        if field.get("type") in _SCALARS or "enum" in field
    ]


def _admin(signature: dict[str, Any], *, token_needed: bool) -> dict[str, Any]:
    secured: dict[str, Any] = {"security": [{"adminToken": []}]} if token_needed else {}
    options = signature["optionsSchema"]
    loose_options = {**options, "required": []}  # an update changes some and keeps the others
    rollout_id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    wait = {
        "name": "wait",
        "in": "query",
        "description": "`false`: answer 202 at once and follow `/rollouts/{id}`.",
        "schema": {"type": "boolean", "default": True},
    }
    example = {
        field["name"]: field["default"] for field in signature["options"] if "default" in field
    }
    envelope = {
        "type": "object",
        "properties": {
            "options": loose_options,
            "strategy": {
                "oneOf": [
                    {"enum": ["blue_green", "rolling", "recreate"]},
                    {
                        "type": "object",
                        "properties": {
                            "name": {"enum": ["blue_green", "rolling", "recreate"]},
                            "max_surge": {"type": "integer", "minimum": 0},
                            "max_unavailable": {"type": "integer", "minimum": 0},
                        },
                        "additionalProperties": False,
                    },
                ]
            },
            "artifact": {"type": "string", "description": "A path below the artifact root."},
            "model_path": {"type": "string", "description": "A path below the artifact root."},
        },
        "additionalProperties": False,
    }
    changed = {
        "200": _json("Switched; the new generation answers.", _UPDATED),
        "202": _json("Accepted; follow the rollout.", _OBJECT),
    }
    refused = (400, 401, 403, 409, 413, 422, 429, 503, 504)
    return {
        "/": {"get": _read("meta_root", "What serves", 503)},
        "/meta": {"get": _read("meta", "What serves: options, commands, version, generation", 503)},
        "/setup": {
            "get": _read("setup_get", "The options and their current values", 503),
            "post": {
                "operationId": "setup",
                "tags": ["update"],
                "summary": "Update the model live",
                "description": (
                    "Takes options to change, or an envelope with `options`, `strategy`, "
                    "`artifact` and `model_path`. An empty object loads the code as it is now."
                ),
                "parameters": [wait],
                "requestBody": {
                    "content": {
                        _JSON: {
                            "schema": {"anyOf": [loose_options, envelope]},
                            "example": example,
                        }
                    }
                },
                "responses": {**changed, **_errors(*refused)},
                **secured,
            },
        },
        "/rollback": {
            "post": {
                "operationId": "rollback",
                "tags": ["update"],
                "summary": "Return to the previous generation",
                "parameters": [wait],
                "responses": {**changed, **_errors(*refused)},
                **secured,
            }
        },
        "/rollouts": {
            "get": {
                **_read("rollouts", "The updates so far, newest first", 401, 403, 429),
                "tags": ["update"],
                **secured,
            }
        },
        "/rollouts/{id}": {
            "get": {
                **_read("rollout", "One update: state, step, log", 401, 403, 404, 429),
                "tags": ["update"],
                "parameters": [rollout_id],
                **secured,
            }
        },
        "/healthcheck": {"get": _read("healthcheck", "RUNNING, UPDATING, DEGRADED …", 503)},
        "/healthz": {"get": _read("healthz", "Whether the gateway answers")},
        "/readyz": {"get": _read("readyz", "Whether predictions are answered, or why not", 503)},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "tags": ["about"],
                "summary": "Prometheus metrics",
                "responses": {
                    "200": {
                        "description": "Text exposition format.",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    }
                },
            }
        },
    }  # fmt: skip


_UPDATED = {
    "type": "object",
    "properties": {
        "success": {"const": True},
        "generation": {"type": "integer"},
        "version": {"type": "integer"},
        "rollout": {"type": "string"},
        "seconds": {"type": "number"},
    },
    "required": ["success", "generation", "version", "rollout", "seconds"],
}


def _read(operation: str, summary: str, *errors: int) -> dict[str, Any]:
    return {
        "operationId": f"modelcloud_{operation}",
        "tags": ["about"],
        "summary": summary,
        "responses": {"200": _json(summary + ".", _OBJECT), **_errors(*errors)},
    }


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): _json(_ERRORS[status], _ERROR) for status in statuses}
