"""The JSON schema of configs, from which editors complete and check them."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, get_args, get_origin

SCHEMA_VERSION = 1  # increase it when a key is removed or changes its meaning


def build(sections: Mapping[str, type], choices: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the JSON schema (draft 7) of these sections; `choices` has the allowed values by `section.key`."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": f"urn:vits2:config:{SCHEMA_VERSION}",
        "x-version": SCHEMA_VERSION,
        "title": "Config of a VITS2 run",
        "type": "object",
        "required": list(sections),
        "additionalProperties": False,
        "properties": {
            "$schema": {"type": "string", "description": "path of this schema, for editors"},
            **{name: _of_section(name, part, choices) for name, part in sections.items()},
        },
    }


def _of_section(section: str, part: Any, choices: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    properties = {}
    for declared, default in zip(dataclasses.fields(part), dataclasses.asdict(part()).values()):
        enum = choices.get(f"{section}.{declared.name}")
        allowed = {"enum": list(enum)} if enum else _of_type(declared.type, declared.metadata["bounds"])
        properties[declared.name] = {"description": declared.metadata["meaning"], **allowed, "default": default}
    return {"type": "object", "description": part.__doc__, "additionalProperties": False, "properties": properties}


def _of_type(kind: Any, bounds: dict[str, float]) -> dict[str, Any]:
    """Return the schema of an annotated type; `bounds` apply to its numbers, also to those in lists."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return {"anyOf": [_of_type(arg, bounds) for arg in args]}
    if origin is list:
        return {"type": "array", "items": _of_type(args[0], bounds)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of_type(args[1], {})}
    name = {bool: "boolean", int: "integer", float: "number", str: "string", types.NoneType: "null"}[kind]
    return {"type": name, **(bounds if kind in (int, float) else {})}
