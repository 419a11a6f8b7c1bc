"""The functions (invokes) that the stacks call."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from typing import Any

from localcloud.provider.calls import Cloud
from localcloud.provider.errors import ProviderError
from localcloud.provider.values import Values

Function = Callable[[Cloud, Values], tuple[Values, frozenset[str]]]
_OPEN: frozenset[str] = frozenset()


def _refuse_others(arguments: Values, known: set[str], function: str) -> None:
    strange = sorted(set(arguments) - known)
    if strange:
        served = ", ".join(sorted(known)) or "none"
        message = (
            f"{function}: the embedded provider does not serve the argument {', '.join(strange)} (served: {served})"
        )
        raise ProviderError(message)


def caller_identity(cloud: Cloud, arguments: Values) -> tuple[Values, frozenset[str]]:
    """Return who calls: accountId, arn, userId."""
    _refuse_others(arguments, set(), "getCallerIdentity")
    found = cloud.call("sts", "GetCallerIdentity")
    account = found["Account"]
    return {"id": account, "accountId": account, "arn": found["Arn"], "userId": found["UserId"]}, _OPEN


def availability_zones(cloud: Cloud, arguments: Values) -> tuple[Values, frozenset[str]]:
    """Return the region's zones: names, zoneIds, groupNames."""
    known = {"state", "allAvailabilityZones", "filters", "excludeNames", "excludeZoneIds"}
    _refuse_others(arguments, known, "getAvailabilityZones")
    filters = [{"Name": item["name"], "Values": item["values"]} for item in arguments.get("filters", [])]
    if arguments.get("state"):
        filters.append({"Name": "state", "Values": [arguments["state"]]})
    found = cloud.call("ec2", "DescribeAvailabilityZones", Filters=filters or None)
    zones = [
        zone
        for zone in sorted(found["AvailabilityZones"], key=lambda zone: str(zone["ZoneName"]))
        if zone["ZoneName"] not in arguments.get("excludeNames", ())
        and zone.get("ZoneId") not in arguments.get("excludeZoneIds", ())
    ]
    result = {
        **arguments,
        "id": cloud.region,
        "region": cloud.region,
        "names": [zone["ZoneName"] for zone in zones],
        "zoneIds": [zone.get("ZoneId", "") for zone in zones],
        "groupNames": sorted({zone.get("GroupName") or cloud.region for zone in zones}),
    }
    return result, _OPEN


def kms_alias(cloud: Cloud, arguments: Values) -> tuple[Values, frozenset[str]]:
    """Return the key behind an alias. Raises ProviderError when there is no such alias."""
    _refuse_others(arguments, {"name"}, "getAlias")
    name = arguments["name"]
    alias = next((item for item in cloud.pages("kms", "ListAliases", "Aliases") if item["AliasName"] == name), None)
    if alias is None or not alias.get("TargetKeyId"):
        message = f"getAlias: no KMS key has the alias {name!r} in {cloud.region}"
        raise ProviderError(message)
    key = cloud.call("kms", "DescribeKey", KeyId=alias["TargetKeyId"])["KeyMetadata"]
    arn = alias["AliasArn"]
    found = {
        "id": arn,
        "arn": arn,
        "name": name,
        "region": cloud.region,
        "targetKeyArn": key["Arn"],
        "targetKeyId": key["KeyId"],
    }
    return found, _OPEN


_RANDOM_OPTIONS = {
    "passwordLength": "PasswordLength",
    "excludeCharacters": "ExcludeCharacters",
    "excludeLowercase": "ExcludeLowercase",
    "excludeNumbers": "ExcludeNumbers",
    "excludePunctuation": "ExcludePunctuation",
    "excludeUppercase": "ExcludeUppercase",
    "includeSpace": "IncludeSpace",
    "requireEachIncludedType": "RequireEachIncludedType",
}


def random_password(cloud: Cloud, arguments: Values) -> tuple[Values, frozenset[str]]:
    """Return a random password (secret), which differs with every call, previews included."""
    _refuse_others(arguments, set(_RANDOM_OPTIONS), "getRandomPassword")
    options = {_RANDOM_OPTIONS[name]: value for name, value in arguments.items()}
    password = cloud.call("secretsmanager", "GetRandomPassword", **options)["RandomPassword"]
    digits = "".join(secrets.choice(string.digits) for _ in range(10))
    return {**arguments, "id": digits, "region": cloud.region, "randomPassword": password}, frozenset(
        {"randomPassword"}
    )


def region(cloud: Cloud, arguments: Values) -> tuple[Values, frozenset[str]]:
    """Return the region in force."""
    _refuse_others(arguments, {"name", "id"}, "getRegion")
    name = arguments.get("name") or arguments.get("id") or cloud.region
    endpoint = f"ec2.{name}.amazonaws.com"
    return {"id": name, "name": name, "region": name, "description": name, "endpoint": endpoint}, _OPEN


def partition(_cloud: Cloud, arguments: Values) -> tuple[Values, frozenset[str]]:
    """Return the standard partition, the only one the embedded cloud has."""
    _refuse_others(arguments, {"id"}, "getPartition")
    found: dict[str, Any] = {
        "id": "aws",
        "partition": "aws",
        "dnsSuffix": "amazonaws.com",
        "reverseDnsPrefix": "com.amazonaws",
    }
    return found, _OPEN


FUNCTIONS: dict[str, Function] = {
    "aws:index/getCallerIdentity:getCallerIdentity": caller_identity,
    "aws:index/getAvailabilityZones:getAvailabilityZones": availability_zones,
    "aws:index/getRegion:getRegion": region,
    "aws:index/getPartition:getPartition": partition,
    "aws:kms/getAlias:getAlias": kms_alias,
    "aws:secretsmanager/getRandomPassword:getRandomPassword": random_password,
}
