"""A vendor's published specification as this project states it: `specifications/<vendor>.yaml`; the README there tells the form."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.exceptions import best_match
from pydantic import AliasChoices, AliasPath
from pydantic.fields import FieldInfo

from ingest.vendors.fields import Payload

FOLDER = Path(__file__).with_name("specifications")

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Specification:
    """`document` is the file as it was parsed."""

    vendor: str
    document: Mapping[str, Any]

    @property
    def names(self) -> set[str]:
        """What there is a schema of: `webhook <type>`, `<METHOD> <path>`, `error`."""
        return set(self.document["schemas"])

    @property
    def left_out(self) -> Mapping[str, str]:
        """Names of answers without a published form, and why there is none."""
        return self.document.get("left_out") or {}

    @property
    def not_simulated(self) -> Mapping[str, str]:
        """Names of schemas that the simulator never sends, and why the file has them all the same."""
        return self.document.get("not_simulated") or {}

    @property
    def reads(self) -> Mapping[str, list[str]]:
        """The outermost shapes of the mapping, by class name, and the schemas of what each of them reads."""
        reads: Mapping[str, list[str]] = self.document["reads"]
        return reads

    def schema(self, name: str) -> Schema:
        """A whole schema, definitions included: one of `schemas` by its name, or a definition by `#/$defs/<name>`."""
        schema = {"$ref": name} if name.startswith("#/") else self.document["schemas"][name]
        return {"$defs": self.document.get("definitions") or {}, **schema}

    def faults(self, name: str, body: object) -> list[str]:
        """Where the body is not as specified: `data.status: 'over' is not one of […]`."""
        errors = map(_closest, _validator(self.vendor, name).iter_errors(body))
        return [f"{name}: {error.json_path}: {error.message[:200]}" for error in errors]

    def properties(self, schema: Schema) -> dict[str, list[Schema]]:
        """The fields an object of this schema may have, with the schemas of each, through references and alternatives."""
        found: dict[str, list[Schema]] = {}
        for part in self._parts(schema):
            for name, inner in part.get("properties", {}).items():
                found.setdefault(name, []).append(inner)
        return found

    def items(self, schema: Schema) -> list[Schema]:
        """The schemas of an array's entries."""
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
    """The vendor's file; every schema in it is one. Raises jsonschema.SchemaError."""
    specification = Specification(vendor, yaml.safe_load((FOLDER / f"{vendor}.yaml").read_text()))
    for name in specification.names:
        Draft202012Validator.check_schema(specification.schema(name))
    return specification


@cache
def _validator(vendor: str, name: str) -> Draft202012Validator:
    return Draft202012Validator(load_specification(vendor).schema(name), format_checker=FormatChecker())


def _closest(error: ValidationError) -> ValidationError:
    """Of several alternatives that all fail, the failure of the one that fits best."""
    return best_match(error.context) if error.context else error


def specified_vendors() -> list[str]:
    """The vendors that have a file."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def shapes(vendor: str) -> dict[str, type[Payload]]:
    """Every shape with fields that the vendor's modules declare, by class name."""
    package = importlib.import_module(f"ingest.vendors.{vendor}")
    modules = [
        package,
        *(
            importlib.import_module(f"{package.__name__}.{module.name}")
            for module in pkgutil.iter_modules(package.__path__)
        ),
    ]
    return {
        name: found
        for module in modules
        for name, found in vars(module).items()
        if isinstance(found, type)
        and issubclass(found, Payload)
        and found.__module__ == module.__name__
        and found.model_fields
    }


def unspecified(
    specification: Specification, shape: type[Payload], schemas: list[Schema]
) -> tuple[list[str], set[type[Payload]]]:
    """Fields that the shape reads and no schema has (`_Form.guests`), and all the shapes that it led to.

    What `reads` names for an inner shape counts beside what leads to it there: a mapping may read two messages by one shape.
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
    for name, field in shape.model_fields.items():
        inner = [schema for path in _paths(name, field) for schema in _below(specification, properties, path)]
        if not inner:
            missing.append(f"{shape.__name__}.{name}")
        for part in _payloads([field.annotation, *field.metadata]):
            deeper, more = unspecified(
                specification, part, [*inner, *(entry for one in inner for entry in specification.items(one))]
            )
            missing += deeper if inner else []
            reached |= more
    return missing, reached


def _paths(name: str, field: FieldInfo) -> list[list[str]]:
    """Where the field may be: `["name"]`, or `["profile", "name"]` where it is read out of an object."""
    alias = field.validation_alias or field.alias or name
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [
        [str(step) for step in choice.path] if isinstance(choice, AliasPath) else [choice]
        for choice in choices
    ]


def _below(
    specification: Specification, properties: Mapping[str, list[Schema]], path: list[str]
) -> list[Schema]:
    """The schemas at the end of the path."""
    first, *rest = path
    found = list(properties.get(first, ()))
    for step in rest:
        found = [inner for schema in found for inner in specification.properties(schema).get(step, ())]
    return found


def _payloads(annotations: list[Any]) -> list[type[Payload]]:
    """The shapes in an annotation, however deep in unions, tuples and `Annotated`."""
    found: list[type[Payload]] = []
    for annotation in annotations:
        if (
            isinstance(annotation, type)
            and get_origin(annotation) is None
            and issubclass(annotation, Payload)
        ):
            found.append(annotation)
        elif get_origin(annotation) in {Union, UnionType} or get_args(annotation):
            found += _payloads(list(get_args(annotation)))
    return found
