"""Read a policy file, check all of it, compare it with the built-in bounds.

Every violation is reported at once and any one of them stops the process: an absent or unknown field, a value of the
wrong kind, a value looser than its bound without a ``[[loosened]]`` entry, and a ``[[loosened]]`` entry that loosens
nothing (it would wave a later change through in silence). The bounds are compared on the raw document, so that a
mistake in one field does not hide a loose value in another.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from blaid_pipelines.policy.model import Policy
from blaid_pipelines.reasons import Reason, ReasonCode, StopAndFix

_DIRECTIONS = {"higher", "lower", "true", "false", "change", "none"}


@dataclass(frozen=True)
class FieldRule:
    """One leaf of a policy: its dotted path and which values of it are looser than another."""

    path: str
    looser: str | tuple[str, ...]
    doc: str


def default_policy_text() -> str:
    """The text of the policy that is used when none is named; a starting point for one's own."""
    return (resources.files(__package__) / "default.toml").read_text(encoding="utf-8")


@cache
def field_rules() -> dict[str, FieldRule]:
    """Every leaf field of a policy by its dotted path, in the model's order; ``loosened`` itself is not one."""
    return {rule.path: rule for rule in _rules(Policy, "") if rule.path != "loosened"}


@cache
def bounds() -> Mapping[str, Any]:
    """The built-in bound of every field that limits something, by dotted path."""
    text = (resources.files(__package__) / "bounds.toml").read_text(encoding="utf-8")
    return dict(_leaves(tomllib.loads(text), ""))


def load_policy(path: Path | None = None) -> Policy:
    """The policy in ``path``, or the default one.

    Raises :class:`StopAndFix` with one ``POLICY_INVALID`` reason per violation, naming the field.
    """
    name = "the default policy" if path is None else str(path)
    try:
        text = default_policy_text() if path is None else path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise StopAndFix(_invalid(name, f"cannot be read: {error}", "Correct or unset BLAID_POLICY.")) from None
    except tomllib.TOMLDecodeError as error:
        raise StopAndFix(_invalid(name, f"is not TOML: {error}", "Correct the line that the message names.")) from None
    return check_policy(document)


def check_policy(document: Mapping[str, Any]) -> Policy:
    """The policy a parsed TOML document states; raises as :func:`load_policy` does."""
    reasons: dict[str, Reason] = {}
    policy: Policy | None = None
    try:
        policy = Policy.model_validate(dict(document))
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            path = _path_of(problem["loc"])
            reasons.setdefault(path, _field_reason(path, problem["type"], problem["msg"]))
    leaves = dict(_leaves(document, ""))
    for path, message in _wrong_kinds(leaves):
        reasons.setdefault(path, _field_reason(path, "type", message))
    reasons.update(_bound_violations(leaves, _stated_reasons(document), already=reasons))
    if reasons or policy is None:
        raise StopAndFix(*reasons.values())
    return policy


def _bound_violations(leaves: Mapping[str, Any], stated: list[str], already: Mapping[str, Reason]) -> dict[str, Reason]:
    found: dict[str, Reason] = {}
    rules = field_rules()
    loose = {
        path
        for path, rule in rules.items()
        if path in leaves
        and path not in already
        and path in bounds()
        and _is_looser(rule, leaves[path], bounds()[path])
    }
    for path in sorted(loose - set(stated)):
        found[path] = _invalid(
            path,
            f"{_shown(leaves[path])} is looser than the built-in bound {_shown(bounds()[path])}",
            "Use a value within the bound, or add a [[loosened]] entry with this field and a reason.",
            {"field": path, "value": _shown(leaves[path]), "bound": _shown(bounds()[path])},
        )
    for path in sorted(set(stated)):
        key = f"loosened {path}"
        if path not in bounds():
            found[key] = _invalid(key, "names no field with a bound", "Correct the name, or remove the entry.")
        elif stated.count(path) > 1:
            found[key] = _invalid(key, "is stated more than once", "Keep one entry for the field.")
        elif path not in loose and path not in already:
            found[key] = _invalid(key, "loosens nothing: the value is within its bound", "Remove the entry.")
    return found


def _is_looser(rule: FieldRule, value: Any, bound: Any) -> bool:
    """True when ``value`` is looser than ``bound``, and when the two cannot be compared."""
    if isinstance(rule.looser, tuple):
        if value not in rule.looser or bound not in rule.looser:
            return True
        return rule.looser.index(value) > rule.looser.index(bound)
    if rule.looser == "none":
        return False
    if rule.looser in {"true", "false"}:
        return value is not bound and value is not (rule.looser == "false")
    try:
        number, edge = Decimal(str(value)), Decimal(str(bound))
    except InvalidOperation:
        return True
    if not number.is_finite():
        return True
    if rule.looser == "change":
        return number != edge
    return number > edge if rule.looser == "higher" else number < edge


def _wrong_kinds(leaves: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Values a lenient model would take: a switch for a number, text for a number, nan and infinity."""
    for path, value in leaves.items():
        rule = field_rules().get(path)
        if rule is None or isinstance(rule.looser, tuple) or rule.looser not in {"higher", "lower", "change"}:
            continue
        if isinstance(value, bool):
            yield path, "must be a number, not true or false"
        elif isinstance(value, float) and not math.isfinite(value):
            yield path, "must be a finite number"
        elif isinstance(value, str) and not isinstance(bounds().get(path), str):
            yield path, "must be a number, not text"


def _stated_reasons(document: Mapping[str, Any]) -> list[str]:
    entries = document.get("loosened")
    if not isinstance(entries, list):
        return []
    return [
        entry["field"]
        for entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("field"), str) and str(entry.get("reason", "")).strip()
    ]


def _rules(model: type[BaseModel], prefix: str) -> Iterator[FieldRule]:
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _rules(annotation, f"{path}.")
            continue
        if path == "loosened":
            continue
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, Mapping) else {}
        looser = extra.get("looser")
        if isinstance(looser, list):
            yield FieldRule(path, tuple(str(word) for word in looser), info.description or "")
        elif looser in _DIRECTIONS:
            yield FieldRule(path, str(looser), info.description or "")
        elif name.startswith(("max_", "min_")):
            yield FieldRule(path, "higher" if name.startswith("max_") else "lower", info.description or "")
        else:
            raise TypeError(f"{path} does not say which way is looser")


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Values by dotted path; lists of tables (``loosened``) are left out."""
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif name != "loosened" or prefix:
            yield f"{prefix}{name}", value


def _path_of(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _field_reason(path: str, kind: str, message: str) -> Reason:
    if kind == "missing":
        return _invalid(path, "is absent; every field is required", "Add it; the default policy shows a value.")
    if kind == "extra_forbidden":
        return _invalid(path, "is not a field of the policy", "Correct the name, or remove it.")
    return _invalid(path, message.removeprefix("Value error, "), "Correct this value.")


def _invalid(subject: str, message: str, fix: str, numbers: Mapping[str, Any] | None = None) -> Reason:
    return Reason(ReasonCode.POLICY_INVALID, f"{subject} {message}", fix, numbers or {"field": subject})


def _shown(value: Any) -> str | int | float | bool:
    """A value as JSON can hold it; nan and infinity as words."""
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
