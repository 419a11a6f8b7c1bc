"""S3 replication rules: what a configuration may say, and which rules an object falls under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moto.s3.exceptions import S3ClientError

_HINT = "for this version of Cross Region Replication configuration schema. Please refer to S3 Developer Guide for more"


class InvalidReplicationError(S3ClientError):
    """Raised for a configuration that S3 refuses."""

    code = "InvalidRequest"


def _nodes(node: Any) -> list[Any]:
    """Return what the XML parser gave for an element that may be missing, there once, or there often."""
    if node is None:
        return []
    return node if isinstance(node, list) else [node]


def _enabled(node: Any) -> bool:
    return isinstance(node, dict) and node.get("Status") == "Enabled"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule as it acts: `version` 1 has a prefix of its own, `version` 2 a filter."""

    identifier: str
    version: int
    enabled: bool
    priority: int
    prefix: str
    tags: frozenset[tuple[str, str]]
    bucket_arn: str
    storage_class: str | None
    replica_key: str | None
    replicates_kms: bool
    replicates_delete_markers: bool

    @property
    def bucket(self) -> str:
        """The destination's name."""
        return self.bucket_arn.rpartition(":")[2]

    def covers(self, key: str, tags: Mapping[str, str], encryption: str | None) -> bool:
        """Say whether an object of this name, tags and encryption is to be copied."""
        if encryption in {"aws:kms", "aws:kms:dsse"} and not self.replicates_kms:
            return False
        return self.enabled and key.startswith(self.prefix) and self.tags <= frozenset(tags.items())

    def covers_marker(self, key: str) -> bool:
        """Say whether a delete marker of this name is to be copied; markers have no tags."""
        return self.enabled and self.replicates_delete_markers and key.startswith(self.prefix)


def parse_rule(raw: Mapping[str, Any]) -> Rule:
    """Return a rule from its parsed XML."""
    version = 2 if "Filter" in raw else 1
    chosen = raw.get("Filter") or {}
    both = chosen.get("And") or {}
    tags = [*_nodes(chosen.get("Tag")), *_nodes(both.get("Tag"))]
    destination = raw["Destination"]
    criteria = raw.get("SourceSelectionCriteria") or {}
    return Rule(
        identifier=raw.get("ID") or "",
        version=version,
        enabled=raw.get("Status") == "Enabled",
        priority=int(raw.get("Priority") or 0),
        prefix=(chosen.get("Prefix") or both.get("Prefix") if version == 2 else raw.get("Prefix")) or "",
        tags=frozenset((tag["Key"], tag.get("Value") or "") for tag in tags),
        bucket_arn=destination["Bucket"],
        storage_class=destination.get("StorageClass"),
        replica_key=(destination.get("EncryptionConfiguration") or {}).get("ReplicaKmsKeyID"),
        replicates_kms=_enabled(criteria.get("SseKmsEncryptedObjects")),
        # The first version of the schema replicates what people delete, the second one when asked to.
        replicates_delete_markers=version == 1 or _enabled(raw.get("DeleteMarkerReplication")),
    )


def check_rules(raw_rules: list[dict[str, Any]]) -> list[Rule]:
    """Return the rules of a configuration; raises InvalidReplicationError where S3 refuses it."""
    for raw in raw_rules:
        if "Filter" in raw and "Prefix" in raw:
            raise InvalidReplicationError("Rule cannot have both Filter and Prefix.")
        if "Filter" in raw and "DeleteMarkerReplication" not in raw:
            raise InvalidReplicationError(f"DeleteMarkerReplication must be specified {_HINT} information.")
        if "Filter" in raw and "Priority" not in raw:
            raise InvalidReplicationError(f"Priority must be specified {_HINT} information.")
    rules = [parse_rule(raw) for raw in raw_rules]
    for rule in rules:
        if rule.version == 2 and rule.tags and rule.replicates_delete_markers:
            raise InvalidReplicationError("Delete marker replication is not supported if any Tag filter is specified.")
        if rule.replicates_kms and not rule.replica_key:
            raise InvalidReplicationError("ReplicaKmsKeyID must be specified if SseKmsEncryptedObjects tag is present.")
        if rule.replica_key and not rule.replicates_kms:
            raise InvalidReplicationError(
                "SseKmsEncryptedObjects must be specified if EncryptionConfiguration is present."
            )
    priorities = [rule.priority for rule in rules if rule.version == 2]
    if len(set(priorities)) < len(priorities):
        raise InvalidReplicationError("Found rules with the same priority: each rule must have a priority of its own.")
    identifiers = [rule.identifier for rule in rules if rule.identifier]
    if len(set(identifiers)) < len(identifiers):
        raise InvalidReplicationError("Rule Id must be unique.")
    return rules


def winners(rules: list[Rule]) -> list[Rule]:
    """Return, of the rules an object falls under, the one of highest priority for each destination."""
    best: dict[str, Rule] = {}
    for rule in sorted(rules, key=lambda rule: rule.priority):
        best[rule.bucket_arn] = rule
    return list(best.values())
