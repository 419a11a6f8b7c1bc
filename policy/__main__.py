# ruff: noqa: INP001  # the engine runs this folder as a program, not as a package
"""The policy pack: hands the engine's resources to the rules and their messages to the engine.

`PolicyPack` serves the engine until it is killed, so nothing else may stand in this file, and nobody may import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import rules
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Secret,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

_PRIMARY_REGION = PolicyConfigSchema(properties={"primaryRegion": {"type": "string", "default": "us-east-1"}})


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return rules.UNKNOWN
    if isinstance(value, Mapping):
        return {key: _member(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_member(value, index) for index in range(len(value))]
    return value


def _member(container: Any, key: Any) -> Any:
    try:
        return _plain(container[key])
    except UnknownValueError:
        return rules.UNKNOWN


def _check_resource(rule: rules.ResourceRule, args: ResourceValidationArgs, report: ReportViolation) -> None:
    resource = rules.Resource(type=args.resource_type, urn=args.urn, props=_plain(args.props))
    for message in rule(resource):
        report(message, args.urn)


def _check_stack(rule: rules.StackRule, args: StackValidationArgs, report: ReportViolation) -> None:
    resources = [
        rules.Resource(type=resource.resource_type, urn=resource.urn, props=_plain(resource.props))
        for resource in args.resources
    ]
    for urn, message in rule(resources):
        report(message, urn)


def _check_regions(args: StackValidationArgs, report: ReportViolation) -> None:
    primary_region = (args.get_config() or {}).get("primaryRegion", "us-east-1")
    rule = partial(rules.dr_needs_nothing_of_the_primary_region, primary_region=primary_region)
    _check_stack(rule, args, report)


def _policies() -> list[Policy]:
    policies: list[Policy] = [
        ResourceValidationPolicy(
            name=name, description=str(rule.__doc__).partition("\n")[0], validate=partial(_check_resource, rule)
        )
        for name, rule in rules.RESOURCE_RULES.items()
    ]
    for name, rule in rules.STACK_RULES.items():
        regional = rule is rules.dr_needs_nothing_of_the_primary_region
        policies.append(
            StackValidationPolicy(
                name=name,
                description=str(rule.__doc__).partition("\n")[0],
                validate=_check_regions if regional else partial(_check_stack, rule),
                config_schema=_PRIMARY_REGION if regional else None,
            )
        )
    return policies


PolicyPack(name="agentverse-dr", enforcement_level=EnforcementLevel.MANDATORY, policies=_policies())
