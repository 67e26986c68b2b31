"""A vendor's published specification as this project states it.

It is in `specifications/<vendor>.yaml`; the README there describes the form.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import yaml
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.exceptions import best_match

FOLDER = Path(__file__).with_name("specifications")

Schema = Mapping[str, Any]
Shape = type[msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Specification:
    """A vendor's specification: `document` is the file as it was parsed."""

    vendor: str
    document: Mapping[str, Any]

    @property
    def names(self) -> set[str]:
        """Return the names of all schemas: `webhook <type>`, `<METHOD> <path>`, `error`."""
        return set(self.document["schemas"])

    @property
    def left_out(self) -> Mapping[str, str]:
        """Return the names of answers without a published form, and why there is none."""
        return self.document.get("left_out") or {}

    @property
    def not_simulated(self) -> Mapping[str, str]:
        """Return the names of schemas that the simulator never sends, and why the file has them."""
        return self.document.get("not_simulated") or {}

    @property
    def reads(self) -> Mapping[str, list[str]]:
        """Return the schemas that each outermost shape of the mapping reads, by the shape's class name."""
        reads: Mapping[str, list[str]] = self.document["reads"]
        return reads

    def schema(self, name: str) -> Schema:
        """Return a complete schema, definitions included.

        `name` is one of `schemas`, or a definition as `#/$defs/<name>`.
        """
        schema = {"$ref": name} if name.startswith("#/") else self.document["schemas"][name]
        return {"$defs": self.document.get("definitions") or {}, **schema}

    def faults(self, name: str, body: object) -> list[str]:
        """Return where the body is not as specified: `data.status: 'over' is not one of […]`."""
        errors = map(_closest, _validator(self.vendor, name).iter_errors(body))
        return [f"{name}: {error.json_path}: {error.message[:200]}" for error in errors]

    def properties(self, schema: Schema) -> dict[str, list[Schema]]:
        """Return the fields an object of this schema may have, with the schemas of each.

        Fields are collected through references and alternatives.
        """
        properties: dict[str, list[Schema]] = {}
        for part in self._parts(schema):
            for name, inner in part.get("properties", {}).items():
                properties.setdefault(name, []).append(inner)
        return properties

    def items(self, schema: Schema) -> list[Schema]:
        """Return the schemas of an array's entries."""
        return [part["items"] for part in self._parts(schema) if isinstance(part.get("items"), Mapping)]

    def _parts(self, schema: Schema) -> Iterator[Schema]:
        if "$ref" in schema:
            yield from self._parts(self.document["definitions"][schema["$ref"].removeprefix("#/$defs/")])
        for word in ("allOf", "anyOf", "oneOf"):
            for inner in schema.get(word, ()):
                yield from self._parts(inner)
        yield schema


@cache
def load_specification(vendor: str) -> Specification:
    """Load the vendor's file, and check that every schema in it is valid.

    Raises jsonschema.SchemaError.
    """
    specification = Specification(vendor, yaml.safe_load((FOLDER / f"{vendor}.yaml").read_text()))
    for name in specification.names:
        Draft202012Validator.check_schema(specification.schema(name))
    return specification


@cache
def _validator(vendor: str, name: str) -> Draft202012Validator:
    return Draft202012Validator(load_specification(vendor).schema(name), format_checker=FormatChecker())


def _closest(error: ValidationError) -> ValidationError:
    """Return the failure of the alternative that fits best, where several alternatives all fail."""
    return best_match(error.context) if error.context else error


def specified_vendors() -> list[str]:
    """Return the vendors that have a file."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def shapes(vendor: str) -> dict[str, Shape]:
    """Return every shape with fields that the vendor's modules declare, by class name."""
    package = importlib.import_module(f"ingest.vendors.{vendor}")
    modules = [
        package,
        *(
            importlib.import_module(f"{package.__name__}.{module.name}")
            for module in pkgutil.iter_modules(package.__path__)
        ),
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == module.__name__
        and msgspec.structs.fields(value)
    }


def unspecified(
    specification: Specification, shape: Shape, schemas: list[Schema]
) -> tuple[list[str], set[Shape]]:
    """Return the fields that the shape reads and no schema has, and all the shapes it led to.

    A field is named as `_Form.guests`. The schemas that `reads` names for an inner shape count beside those
    that lead to it there: a mapping may read two messages by one shape.
    """
    schemas = [
        *schemas,
        *(specification.schema(name) for name in specification.reads.get(shape.__name__, ())),
    ]
    missing: list[str] = []
    reached = {shape}
    properties: dict[str, list[Schema]] = {}
    for schema in schemas:
        for name, inner in specification.properties(schema).items():
            properties.setdefault(name, []).extend(inner)
    for field in msgspec.structs.fields(shape):
        inner = properties.get(field.encode_name, [])
        if not inner:
            missing.append(f"{shape.__name__}.{field.name}")
        for part in _shapes_in([field.type]):
            deeper_missing, deeper_shapes = unspecified(
                specification,
                part,
                [
                    *inner,
                    *(entry for schema_of_list in inner for entry in specification.items(schema_of_list)),
                ],
            )
            missing += deeper_missing if inner else []
            reached |= deeper_shapes
    return missing, reached


def _shapes_in(annotations: list[Any]) -> list[Shape]:
    """Return the shapes in an annotation, however deep in unions, tuples and `Annotated`."""
    nested: list[Shape] = []
    for annotation in annotations:
        if (
            isinstance(annotation, type)
            and get_origin(annotation) is None
            and issubclass(annotation, msgspec.Struct)
        ):
            nested.append(annotation)
        elif get_origin(annotation) in {Union, UnionType} or get_args(annotation):
            nested += _shapes_in(list(get_args(annotation)))
    return nested
