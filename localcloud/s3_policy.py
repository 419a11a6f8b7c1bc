"""Bucket policies with their conditions: a statement whose condition does not hold says nothing, as on AWS."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from moto.iam.access_control import PermissionResult

Values = Mapping[str, list[str]]  # condition key, lower case -> what the request has of it


def _listed(node: Any) -> list[Any]:
    return node if isinstance(node, list) else [node]


def _pattern(text: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Return a policy's pattern, in which only * and ? are special."""
    escaped = re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(escaped, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _matches(patterns: Any, value: str, *, ignore_case: bool = False) -> bool:
    return any(_pattern(str(text), ignore_case=ignore_case).fullmatch(value) for text in _listed(patterns))


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()


def _in_network(value: str, network: str) -> bool:
    return ipaddress.ip_address(value) in ipaddress.ip_network(network, strict=False)


def _same(value: str, wanted: str) -> bool:
    return value == wanted


def _same_letters(value: str, wanted: str) -> bool:
    return value.casefold() == wanted.casefold()


def _like(value: str, wanted: str) -> bool:
    return bool(_pattern(wanted).fullmatch(value))


_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "stringequals": _same,
    "stringequalsignorecase": _same_letters,
    "stringlike": _like,
    "arnequals": _like,
    "arnlike": _like,
    "binaryequals": _same,
    "bool": _same_letters,
    "ipaddress": _in_network,
    "numericequals": lambda value, wanted: float(value) == float(wanted),
    "numericlessthan": lambda value, wanted: float(value) < float(wanted),
    "numericlessthanequals": lambda value, wanted: float(value) <= float(wanted),
    "numericgreaterthan": lambda value, wanted: float(value) > float(wanted),
    "numericgreaterthanequals": lambda value, wanted: float(value) >= float(wanted),
    "dateequals": lambda value, wanted: _moment(value) == _moment(wanted),
    "datelessthan": lambda value, wanted: _moment(value) < _moment(wanted),
    "datelessthanequals": lambda value, wanted: _moment(value) <= _moment(wanted),
    "dategreaterthan": lambda value, wanted: _moment(value) > _moment(wanted),
    "dategreaterthanequals": lambda value, wanted: _moment(value) >= _moment(wanted),
}
_NEGATIONS = {
    "stringnotequals": "stringequals",
    "stringnotequalsignorecase": "stringequalsignorecase",
    "stringnotlike": "stringlike",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
    "notipaddress": "ipaddress",
    "numericnotequals": "numericequals",
    "datenotequals": "dateequals",
}


def _compare(comparison: Callable[[str, str], bool], value: str, wanted: list[str]) -> bool:
    for text in wanted:
        try:
            if comparison(value, text):
                return True
        except ValueError:
            continue  # a value of the wrong kind equals nothing
    return False


def _holds(operator: str, actual: list[str] | None, wanted: list[str]) -> bool:
    """Say whether one key's condition holds; `actual` is None where the request does not have the key."""
    name = operator.lower()
    quantifier, colon, rest = name.partition(":")
    if colon:
        name = rest
    if name == "null":
        return (actual is None) == (wanted[0].lower() == "true")
    if name.endswith("ifexists"):
        if actual is None:
            return True
        name = name.removesuffix("ifexists")
    negated = name in _NEGATIONS
    comparison = _COMPARISONS.get(_NEGATIONS.get(name, name))
    if comparison is None:
        return False  # an operator S3 would have refused with the policy
    if actual is None:
        return negated or quantifier == "forallvalues"
    results = [_compare(comparison, value, wanted) != negated for value in actual]
    return any(results) if quantifier == "foranyvalue" else all(results)


def _condition_holds(condition: Mapping[str, Mapping[str, Any]], request: Values) -> bool:
    return all(
        _holds(operator, request.get(key.lower()), [_text(value) for value in _listed(wanted)])
        for operator, keys in condition.items()
        for key, wanted in keys.items()
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _names_caller(principal: Any, account: str) -> bool:
    """Say whether a Principal means the caller, who is known by account only: everybody, or the account itself."""
    named = principal.get("AWS", []) if isinstance(principal, dict) else principal
    everybody = {"*", account, f"arn:aws:iam::{account}:root"}
    return any(name in everybody for name in _listed(named))


def _concerns(statement: Mapping[str, Any], action: str, resource: str, account: str) -> bool:
    if "NotAction" in statement:
        if _matches(statement["NotAction"], action, ignore_case=True):
            return False
    elif not _matches(statement.get("Action", []), action, ignore_case=True):
        return False
    if "NotResource" in statement:
        if _matches(statement["NotResource"], resource):
            return False
    elif not _matches(statement.get("Resource", "*"), resource):
        return False
    # Who a NotPrincipal leaves out cannot be told from an account alone.
    return "Principal" in statement and _names_caller(statement["Principal"], account)


def evaluate(policy: str, action: str, resource: str, account: str, request: Values) -> PermissionResult:
    """Return what a bucket policy says of an action (s3:GetObject) on a resource (its ARN) for a request's values."""
    result = PermissionResult.NEUTRAL
    for statement in _listed(json.loads(policy)["Statement"]):
        if not _concerns(statement, action, resource, account):
            continue
        if not _condition_holds(statement.get("Condition") or {}, request):
            continue
        if statement["Effect"] == "Deny":
            return PermissionResult.DENIED
        result = PermissionResult.PERMITTED
    return result
