"""The table of types against pulumi-aws itself: every property of every type has a place, or a reason why not."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest

from localcloud.provider.kind import Kind
from localcloud.provider.placing import find_place, problems
from localcloud.provider.types import KINDS


def _resource(kind: Kind) -> Any:
    module, name = kind.pulumi_type.split(":")[1].split("/")[0], kind.pulumi_type.rsplit(":", 1)[1]
    return getattr(importlib.import_module(f"pulumi_aws.{module}"), name)


def _camel(resource: Any) -> dict[str, str]:
    """Return Pulumi's name of each Python name of the class."""
    source = inspect.getsource(resource)
    python = re.findall(r"^    def ([a-z]\w+)\(self\)", source, re.MULTILINE)
    renamed = dict(re.findall(r'getter\(name="(\w+)"\)[^()]*?(?:\(""".*?"""\))?\s+def (\w+)', source, re.DOTALL))
    back = {name: pulumi for pulumi, name in renamed.items()}
    return {name: back.get(name, re.sub(r"_(\w)", lambda part: part[1].upper(), name)) for name in python}


def _inputs_of(kind: Kind) -> set[str]:
    """Return the camelCase input names of the type's class in pulumi_aws."""
    resource = _resource(kind)
    taken = set(inspect.signature(resource._internal_init).parameters) - {
        "__self__",
        "resource_name",
        "opts",
        "__props__",
    }
    camel = _camel(resource)
    return {camel[name] for name in taken}


@pytest.mark.parametrize("token", sorted(KINDS))
def test_every_property_of_pulumi_aws_has_a_place_or_a_reason(token: str) -> None:
    kind = KINDS[token]
    strays = [
        name
        for name in sorted(_inputs_of(kind))
        if name not in kind.unsupported
        and not kind.bookkept(name)
        and not kind.has_setting(name)
        and not find_place(kind, name, kind.create)
        and not find_place(kind, name, kind.update)
    ]
    assert strays == []


@pytest.mark.parametrize("token", sorted(KINDS))
def test_the_table_names_only_properties_that_pulumi_aws_has(token: str) -> None:
    kind = KINDS[token]
    known = set(_camel(_resource(kind)).values())
    named = {*kind.unsupported, *kind.state_only, *kind.secrets, *kind.initial, *kind.defaults, *kind.comparators}
    named |= {*kind.reads.split(), *kind.imports.split(), *kind.vanishing, *kind.replaces}
    named |= {name for setting in kind.settings for name in setting.properties}
    assert named - known == set()


@pytest.mark.parametrize("token", sorted(KINDS))
def test_an_invented_property_is_refused_by_name(token: str) -> None:
    (problem,) = problems(KINDS[token], {"colourOfTheDoor": "green"})
    assert "colourOfTheDoor" in str(problem)
