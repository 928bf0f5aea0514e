"""Settings of a process: a YAML file, environment over it, flags over both; a sentence for each wrong key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)$")
Model = TypeVar("Model", bound=BaseModel)


class SettingsError(ValueError):
    """One or more sentences, a line each, that say which key is wrong and why."""


def seconds(value: object) -> object:
    """`"300s"`, `"5m"`, `"1h30m"`-free DeepFlow durations → seconds; numbers are seconds."""
    if isinstance(value, str):
        match = _DURATION.match(value.strip())
        if not match:
            raise ValueError("write a duration such as 300s, 5m or 1h")
        return float(match.group(1)) * _UNITS[match.group(2)]
    return value


Duration = Annotated[float, BeforeValidator(seconds)]


def load(
    model: type[Model],
    file: Path | None,
    prefix: str,
    flags: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
) -> Model:
    """Settings out of a file, the environment and flags.

    `prefix` starts the names of environment variables; `__` separates levels:
    `DEEPFLOW_AGENT_GLOBAL__LIMITS__MAX_MEMORY=512`. `flags` has dotted keys; None means not given.

    Raises:
        SettingsError: naming every wrong key.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = _read(file)
    for name, value in environ.items():
        if name.startswith(prefix):
            _set(tree, name.removeprefix(prefix).lower().split("__"), yaml.safe_load(value), name)
    for dotted, value in flags.items():
        if value is not None:
            _set(tree, dotted.split("."), value, dotted)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(model, error))) from None


def keys(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted key, default, description) of every leaf, for the generated reference."""
    for name, info in model.model_fields.items():
        key = f"{path}{info.alias or name}"
        nested = _model_of(info.annotation)
        if nested is not None:
            yield from keys(nested, f"{key}.")
        else:
            default = info.get_default(call_default_factory=True, validated_data={})
            yield key, default, info.description or ""


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SettingsError(f"The configuration file {file} cannot be read: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"The configuration file {file} is not YAML: {' '.join(str(error).split())}.") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"The configuration file {file} must hold keys and values.")
    return tree


def _set(tree: dict[str, Any], path: list[str], value: Any, name: str) -> None:
    for part in path[:-1]:
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise SettingsError(f"{name}: {part} is a value, not a section.")
        tree = below
    tree[path[-1]] = value


def _model_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _sentences(model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    known = [key for key, _, _ in keys(model)]
    sections = {key.rsplit(".", 1)[0] for key in known if "." in key}
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(key, [*known, *sections], n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            yield f"{key}: there is no such key{hint}"
        else:
            yield f"{key}: {problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r})."
