"""Bodies in the OpenAPI document that the routes read themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_IMAGE = {"type": "string", "contentMediaType": "application/octet-stream"}


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model without references, which would lead out of their place."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            name = value.get("$ref", "").rpartition("/")[2]
            if name:
                return resolve(definitions[name])
            return {key: resolve(each) for key, each in value.items()}
        return [resolve(each) for each in value] if isinstance(value, list) else value

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def body(
    *,
    json: type[BaseModel] | None = None,
    form_json: bool = False,
    several: bool = False,
) -> dict[str, Any]:
    """`openapi_extra` of a route that takes a picture.

    Args:
        json: the model of a JSON body, where it takes one.
        form_json: whether a form may have a part `query` of that model.
        several: whether a form may have several pictures.
    """
    parts: dict[str, Any] = {"image": _IMAGE}
    if several:
        parts["image"] = {"type": "array", "items": _IMAGE, "minItems": 1, "maxItems": 32}
    encoding: dict[str, Any] = {"image": {"contentType": "image/*, application/octet-stream"}}
    if json is not None and form_json:
        parts["query"] = inlined(json)
        encoding["query"] = {"contentType": "application/json"}
    form = {
        "type": "object",
        "properties": parts,
        "required": ["image"],
        "additionalProperties": False,
    }
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": form, "encoding": encoding},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    }
    if json is not None:
        content["application/json"] = {"schema": inlined(json)}
    return {"requestBody": {"required": True, "content": content}}
