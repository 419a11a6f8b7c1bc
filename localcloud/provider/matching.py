"""How a Pulumi property finds its place in botocore's model of an AWS call, and the way back.

pulumi-aws names are Terraform's: words dropped (`identifier` for DBInstanceIdentifier), moved (`iamDatabase...Enabled`
for EnableIAMDatabase...), made plural or singular, single blocks in place of lists, maps in place of lists of tags.
The rules below know these habits; what they cannot place is declared in the table of types.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from localcloud.provider.equality import parsed, same
from localcloud.provider.errors import PlacementError
from localcloud.provider.values import UNKNOWN

# Words that AWS puts before a name and Terraform leaves out, whatever the service.
COMMON_PREFIXES = ("preferred", "master", "masteruser", "the")
# Words that AWS puts after a name and Terraform leaves out.
COMMON_SUFFIXES = ("document", "text", "configuration", "config")
_KEY_VALUE = ({"Key", "Value"}, {"TagKey", "TagValue"}, {"key", "value"})


def squeezed(name: str) -> str:
    """Return the name's letters and digits in lower case: fooBar_id and FooBarID are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def singular(name: str) -> str:
    """Return a squeezed name without its plural ending."""
    if name.endswith("ies"):
        return name[:-3] + "y"
    if name.endswith("sses"):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name


def _without_enable(name: str) -> str:
    return re.sub(r"enabled?", "", name)


def _rank(name: str, member: str, nouns: Iterable[str]) -> int | None:  # noqa: PLR0911  # one return for each rule
    """Return how far a squeezed property name is from a squeezed member name; None means that they do not match."""
    if name == member:
        return 0
    if singular(name) == singular(member):
        return 1
    prefixes = (*nouns, *COMMON_PREFIXES)
    for prefix in prefixes:
        if prefix and singular(member) == prefix + singular(name):
            return 2
    for prefix in nouns:
        if prefix and singular(name) == prefix + singular(member):
            return 3
    if "enable" in name + member and _without_enable(name) == _without_enable(member) != "":
        return 4
    for suffix in COMMON_SUFFIXES:
        if member in {name + suffix, singular(name) + suffix} or name == member + suffix:
            return 5
        if any(member == prefix + name + suffix for prefix in prefixes):
            return 6
    return None


@cache
def _best(name: str, members: tuple[str, ...], nouns: tuple[str, ...]) -> str | None:
    wanted = squeezed(name)
    found = [
        (rank, len(member), member)
        for member in members
        if (rank := _rank(wanted, squeezed(member), nouns)) is not None
    ]
    return min(found)[2] if found else None


def place(name: str, shape: Shape | None, nouns: tuple[str, ...] = ()) -> str | None:
    """Return the member of the structure that the Pulumi property `name` means, or None.

    `nouns` are squeezed words that AWS repeats in this thing's names, such as `dbinstance`.
    """
    if not isinstance(shape, StructureShape):
        return None
    return _best(name, tuple(shape.members), nouns)


def to_aws(value: Any, shape: Shape, path: str) -> Any:
    """Return a Pulumi value in the form that the botocore shape asks for. Unknowns pass through.

    Raises PlacementError naming the path when a key has no member or a value cannot have the shape's type.
    """
    if isinstance(value, str) and value == UNKNOWN:
        return value
    if isinstance(shape, StructureShape):
        return _to_structure(value, shape, path)
    if isinstance(shape, ListShape):
        return _to_list(value, shape, path)
    if isinstance(shape, MapShape):
        if not isinstance(value, Mapping):
            raise PlacementError(path, f"must be a map, not {value!r}")
        return {key: to_aws(part, shape.value, f"{path}.{key}") for key, part in value.items()}
    return _to_scalar(value, shape, path)


def _to_structure(value: Any, shape: StructureShape, path: str) -> Any:
    if isinstance(value, list):
        if len(value) > 1:
            raise PlacementError(path, f"takes one block, not {len(value)}")
        return to_aws(value[0], shape, path) if value else {}
    if not isinstance(value, Mapping):
        if list(shape.members) == ["Value"]:  # EC2 wraps the attributes it modifies
            return {"Value": to_aws(value, shape.members["Value"], path)}
        raise PlacementError(path, f"must be a block of {', '.join(shape.members)}")
    nouns = (singular(squeezed(path.rsplit(".", 1)[-1].split("[", maxsplit=1)[0])),)
    result = {}
    for key, part in value.items():
        member = place(key, shape, nouns)
        if member is None:
            raise PlacementError(
                f"{path}.{key}", f"the service has no such setting (it has {', '.join(shape.members)})"
            )
        result[member] = to_aws(part, shape.members[member], f"{path}.{key}")
    return result


def key_value_names(shape: Shape) -> tuple[str, str] | None:
    """Return the names of the two members if this is a list of key-value pairs, as AWS writes tags; else None."""
    if isinstance(shape, ListShape) and isinstance(shape.member, StructureShape):
        names = list(shape.member.members)
        if set(names) in _KEY_VALUE:
            ordered = sorted(names)
            return ordered[0], ordered[1]
    return None


def _to_list(value: Any, shape: ListShape, path: str) -> Any:
    pair = key_value_names(shape)
    if (
        pair
        and isinstance(value, Mapping)
        and not ({squeezed(key) for key in value} <= {"key", "value"} and len(value) == 2)
    ):
        return [{pair[0]: key, pair[1]: text} for key, text in value.items()]
    document = parsed(value) if isinstance(value, str) and isinstance(shape.member, StructureShape) else None
    if isinstance(document, list):  # JSON text where AWS takes the structure, such as container definitions
        value = document
    items = value if isinstance(value, list) else [value]
    return [to_aws(part, shape.member, f"{path}[{index}]") for index, part in enumerate(items)]


def _to_scalar(value: Any, shape: Shape, path: str) -> Any:
    try:
        match shape.type_name:
            case "string" | "timestamp":
                return value if isinstance(value, str) else json.dumps(value)
            case "integer" | "long":
                return int(value)
            case "float" | "double":
                return float(value)
            case "boolean":
                return {"true": True, "false": False}[str(value).lower()]
            case "blob":
                return base64.b64decode(value)
            case _:
                return value
    except (KeyError, TypeError, ValueError) as exc:
        raise PlacementError(path, f"must be a {shape.type_name}, not {value!r}") from exc


def decapitalised(member: str) -> str:
    """Return the Pulumi-like name of a member: KMSKeyId becomes kmsKeyId. For what no program has named yet."""
    match = re.match(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]+$|[A-Z]", member)
    return member[: match.end()].lower() + member[match.end() :] if match else member


def from_aws(value: Any, shape: Shape, like: Any = None, noun: str = "") -> Any:
    """Return an AWS value in Pulumi's form.

    `like` is what the program declared: the result then has its keys, its order and its types, so that only what really
    differs looks different. Without it the names are made from the members'. `noun` names what holds the value.
    """
    if isinstance(shape, StructureShape):
        return _from_structure(value, shape, like, noun)
    if isinstance(shape, ListShape):
        return _from_list(value, shape, like, noun)
    if isinstance(shape, MapShape):
        return {key: from_aws(part, shape.value) for key, part in value.items()}
    if like is not None and same(value, like):
        return like
    return str(value) if isinstance(like, str) and not isinstance(value, bytes) else value


def _from_structure(value: Mapping[str, Any], shape: StructureShape, like: Any, noun: str) -> Any:
    if isinstance(like, list):
        return [_from_structure(value, shape, like[0] if like else None, noun)]
    if list(shape.members) == ["Value"]:
        return value.get("Value")
    if not isinstance(like, Mapping):
        return {
            decapitalised(member): from_aws(part, shape.members[member])
            for member, part in value.items()
            if member in shape.members and part is not None
        }
    result = {}
    for key, wanted in like.items():
        member = place(key, shape, (singular(squeezed(noun)),))
        if member is not None and value.get(member) is not None:
            result[key] = from_aws(value[member], shape.members[member], wanted, key)
        elif not wanted:  # off, zero and empty are what AWS leaves out
            result[key] = wanted
    return result


def _from_list(value: Sequence[Any], shape: ListShape, like: Any, noun: str) -> Any:
    pair = key_value_names(shape)
    if pair and not isinstance(like, list):
        return {item[pair[0]]: item.get(pair[1], "") for item in value}
    if like is not None and not isinstance(like, list):
        return from_aws(value[0], shape.member, like, noun) if value else None
    rest = list(value)
    result: list[Any] = []
    unmatched: list[tuple[int, Any]] = []
    for wanted in like or []:
        twin = next((item for item in rest if same(from_aws(item, shape.member, wanted, noun), wanted)), None)
        if twin is None:
            unmatched.append((len(result), wanted))
            result.append(None)
        else:
            rest.remove(twin)
            result.append(wanted)
    for index, wanted in unmatched:
        if rest:
            result[index] = from_aws(rest.pop(0), shape.member, wanted, noun)
    return [item for item in result if item is not None] + [from_aws(item, shape.member) for item in rest]
