"""A failed validation in; for each mistake its key, what is wrong and what is allowed out."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from stages.core import plugins


def explain(
    failure: ValidationError, model: type[BaseModel], prefix: str = ""
) -> Iterable[tuple[str, str]]:
    """(key, what is wrong and what is allowed) for each error of a validation."""
    for error in failure.errors():
        place = [part for part in error["loc"] if part != "[key]"]
        key = ".".join([prefix, *map(str, place)] if prefix else map(str, place))
        if error["type"] == "extra_forbidden":
            known = _fields_at(model, place[:-1])
            yield key, f"unknown key. {plugins.nearest(str(place[-1]), known)}"
        elif error["type"] == "missing":
            yield key, "is missing; nothing has a default in code, so write it."
        else:
            given = f" (it is {error['input']!r})" if not isinstance(error["input"], dict) else ""
            yield key, f"{error['msg']}{given}."


def _fields_at(model: type[BaseModel], place: list[Any]) -> list[str]:
    """The field names valid at this place of a model."""
    current: Any = model
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        else:  # dict[str, X]: any key leads to X
            current = current.__args__[-1]
    return sorted(current.model_fields)
