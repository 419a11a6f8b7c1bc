"""Both programs keep every rule of the policy pack, as whole graphs and with values unknown as in a preview."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CASES: list[tuple[str, dict[str, Any]]] = [("primary", {}), ("dr", {}), ("dr", {"mode": "failover"})]


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    """The module `policy/rules.py`, loaded as the engine finds it: from a folder that is no package."""
    path = Path(__file__).parents[2] / "policy" / "rules.py"
    spec = importlib.util.spec_from_file_location("agentverse_policy_rules_for_infra", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _violations(rules: ModuleType, resources: list[Any]) -> list[Any]:
    found = [message for resource in resources for rule in rules.RESOURCE_RULES.values() for message in rule(resource)]
    return found + [violation for rule in rules.STACK_RULES.values() for violation in rule(resources)]


def _graph(rules: ModuleType, engine: Any) -> list[Any]:
    return [
        rules.Resource(type=resource.typ, urn=resource.name, props=resource.inputs) for resource in engine.resources
    ]


@pytest.mark.parametrize(("stack", "overrides"), CASES)
def test_a_program_violates_no_rule(
    run: Callable[..., Any], rules: ModuleType, stack: str, overrides: dict[str, Any]
) -> None:
    assert _violations(rules, _graph(rules, run(stack, **overrides))) == []


def test_taking_the_protection_off_production_is_found(run: Callable[..., Any], rules: ModuleType) -> None:
    assert len(_violations(rules, _graph(rules, run("primary", protect=False)))) == 2


@pytest.mark.parametrize("stack", ["primary", "dr"])
def test_whatever_a_preview_cannot_know_fails_no_rule(run: Callable[..., Any], rules: ModuleType, stack: str) -> None:
    graph = _graph(rules, run(stack))

    @settings(deadline=None, max_examples=30)
    @given(st.sets(st.sampled_from(sorted({key for resource in graph for key in resource.props} - {"tags"}))))
    def check(hidden: set[str]) -> None:
        resources = [
            rules.Resource(
                type=resource.type,
                urn=resource.urn,
                props={key: rules.UNKNOWN if key in hidden else value for key, value in resource.props.items()},
            )
            for resource in graph
        ]
        assert _violations(rules, resources) == []

    check()


@pytest.mark.parametrize("stack", ["primary", "dr"])
def test_a_resource_that_loses_its_tags_is_always_found(run: Callable[..., Any], rules: ModuleType, stack: str) -> None:
    graph = _graph(rules, run(stack))
    tagged = [resource for resource in graph if "tags" in resource.props]
    assert tagged
    for victim in tagged:
        props = {key: value for key, value in victim.props.items() if key != "tags"}
        bare = rules.Resource(type=victim.type, urn=victim.urn, props=props)
        resources = [bare if resource is victim else resource for resource in graph]
        assert victim.urn in {urn for urn, _ in rules.everything_is_tagged(resources)}
