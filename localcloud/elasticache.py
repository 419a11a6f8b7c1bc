"""ElastiCache made real: a replication group is one Redis server, whose members all answer at its address.

It speaks plain TCP whatever the group says of encryption in transit: the Redis that comes with the package is built
without TLS. `localcloud status` says so.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.elasticache.exceptions import (
    CacheSubnetGroupNotFound,
    ElastiCacheException,
    InvalidParameterCombinationException,
    InvalidParameterValueException,
)
from moto.elasticache.models import CacheCluster, ElastiCacheBackend
from moto.elasticache.responses import ElastiCacheResponse

from localcloud.reconciler import Context, Reconciler
from localcloud.redis_server import RedisServer
from localcloud.servers import Record, Servers

_LOGGER = logging.getLogger(__name__)

# moto's ElastiCacheBackend, ReplicationGroup and ElastiCacheResponse: their attributes are plain dicts and unions.
_Backend = Any
_Group = Any
_Response = Any

_MOST_CLUSTERS = 6  # AWS's limit with cluster mode disabled


@dataclass(eq=False, kw_only=True)
class _Record(Record[RedisServer]):
    """A group's server and the token it takes."""

    token: str | None
    encrypted: bool


def _check_token(token: str | None, *, encrypted: bool) -> None:
    if not token:
        return
    if not encrypted:
        raise InvalidParameterCombinationException(
            "The AUTH token is only supported when encryption-in-transit is enabled (TransitEncryptionEnabled)."
        )
    if not re.fullmatch(r'[^/"@\s]{16,128}', token) or not token.isascii() or not token.isprintable():
        raise InvalidParameterValueException(
            "Invalid AuthToken provided. It has 16 to 128 printable ASCII characters, without '@', '\"', '/' and space."
        )


class ElastiCache(Servers[_Record]):
    """The reconciler of ElastiCache."""

    name = "elasticache"
    kind = "redis"
    bring_up_seconds = 60.0

    # -- what the cloud asks of every part

    def install(self) -> None:
        wrap = self._layers.wrap
        wrap(ElastiCacheBackend, "create_replication_group", self._create)
        wrap(ElastiCacheBackend, "delete_replication_group", self._delete)
        wrap(ElastiCacheResponse, "modify_replication_group", self._modify)
        # moto has no such action: it makes and describes subnet groups, and keeps them for ever.
        self._layers.add(ElastiCacheResponse, "delete_cache_subnet_group", self._delete_subnet_group)

    def _state(self, record: _Record) -> str:
        if not record.ready.is_set():
            return "creating"
        return "running" if record.server.pid is not None else "failed"

    def _details(self, record: _Record) -> dict[str, str]:  # noqa: ARG002  # no server of this kind differs in it
        return {"tls": "no"}

    # -- the life of a group

    def _create(self, original: Callable[..., _Group], backend: _Backend, **arguments: Any) -> _Group:
        arguments["replication_group_id"] = arguments["replication_group_id"].lower()
        token = arguments.get("auth_token")
        encrypted = bool(arguments.get("transit_encryption_enabled"))
        _check_token(token, encrypted=encrypted)
        if arguments.get("cluster_mode") == "enabled" or (arguments.get("num_node_groups") or 1) > 1:
            raise InvalidParameterCombinationException(
                "The embedded cloud runs replication groups of one node group, with cluster mode disabled."
            )
        count = arguments.get("num_cache_clusters") or (arguments.get("replicas_per_node_group") or 0) + 1
        if not 1 <= count <= _MOST_CLUSTERS:
            raise InvalidParameterValueException(f"NumCacheClusters is from 1 to {_MOST_CLUSTERS}, not {count}.")
        if arguments.get("automatic_failover_enabled") and count < 2:
            raise InvalidParameterCombinationException(
                "When using automatic failover, there must be at least 2 cache clusters in the replication group."
            )
        # moto counts members by this argument alone.
        arguments["replicas_per_node_group"] = count - 1
        if not arguments.get("preferred_cache_cluster_azs"):
            # moto's own default is in us-east-1, wherever the group is.
            arguments["preferred_cache_cluster_azs"] = [f"{backend.region_name}{'ab'[i % 2]}" for i in range(count)]
        with self._guard:
            group = original(backend, **arguments)
            group.status = "creating"
            address, port = self._addresses.take(int(group.port))
            server = RedisServer(
                home=self._home.path,
                cache=self._home.cache,
                folder=self._data / f"redis{secrets.token_hex(3)}",
                address=address,
                port=port,
            )
            record = _Record(server=server, token=token, encrypted=encrypted)
            self._records[backend.account_id, backend.region_name, group.replication_group_id] = record
            _point_to(group, None, None)
            _add_members(backend, group, arguments)
        threading.Thread(
            target=self._bring_up,
            args=(record, backend, group),
            name=f"redis-{group.replication_group_id}",
            daemon=True,
        ).start()
        return group

    def _bring_up(self, record: _Record, backend: _Backend, group: _Group) -> None:
        try:
            record.server.start(record.token)
        except Exception:
            _LOGGER.exception("replication group %s could not be brought up", group.replication_group_id)
            group.status = "create-failed"
        else:
            record.answers = True
            group.port = record.server.port
            _point_to(group, record.server.address, record.server.port)
            for name in group.member_clusters:
                member = backend.cache_clusters.get(name)
                if member is not None:
                    member.cache_cluster_status = "available"
            group.status = "available"
            if backend.region_name in self._dark:  # it was being created when its region went dark
                record.server.suspend()
        finally:
            record.ready.set()

    def _delete(
        self, original: Callable[..., _Group], backend: _Backend, replication_group_id: str, *args: Any, **kwargs: Any
    ) -> _Group:
        identifier = replication_group_id.lower()
        with self._guard:
            members = list(getattr(backend.replication_groups.get(identifier), "member_clusters", ()))
            group = original(backend, identifier, *args, **kwargs)
            self._remove((backend.account_id, backend.region_name, identifier))
            for name in members:
                backend.cache_clusters.pop(name, None)
            # moto leaves it "deleting" for ever.
            backend.replication_groups.pop(identifier, None)
            return group

    def _modify(self, original: Callable[..., Any], response: _Response) -> Any:
        backend = response.elasticache_backend
        identifier = str(response._get_param("ReplicationGroupId") or "").lower()  # noqa: SLF001  # moto drops these parameters before the backend
        with self._guard:
            answer = original(response)
            group = backend.replication_groups.get(identifier)
            record = self._records.get((backend.account_id, backend.region_name, identifier))
            if group is None or record is None:
                return answer
            token = response._get_param("AuthToken")  # noqa: SLF001  # as above
            strategy = response._get_param("AuthTokenUpdateStrategy") or "ROTATE"  # noqa: SLF001  # as above
            if token or strategy == "DELETE":
                _check_token(token, encrypted=record.encrypted)
                record.ready.wait(self.bring_up_seconds)
                new = None if strategy == "DELETE" else token
                # ROTATE keeps the old token beside the new one until SET names one of them for good.
                record.server.set_tokens(record.token, new, keep=strategy == "ROTATE")
                record.token = new
                group.auth_token_enabled = bool(new)
            for parameter, attribute in _PLAIN_CHANGES.items():
                value = response._get_param(parameter)  # noqa: SLF001  # as above
                if value is not None:
                    setattr(group, attribute, value)
            return answer

    def _delete_subnet_group(self, response: _Response) -> ActionResult:
        backend = response.elasticache_backend
        name = str(response._get_param("CacheSubnetGroupName") or "").lower()  # noqa: SLF001  # moto's way to a parameter
        with self._guard:
            known = {key.lower(): key for key in backend.cache_subnet_groups}
            if name not in known:
                raise CacheSubnetGroupNotFound(name)
            users = (*backend.replication_groups.values(), *backend.cache_clusters.values())
            if any((user.cache_subnet_group_name or "").lower() == name for user in users):
                raise _SubnetGroupInUseError(name)
            del backend.cache_subnet_groups[known[name]]
        return EmptyResult()


class _SubnetGroupInUseError(ElastiCacheException):
    code = "CacheSubnetGroupInUse"

    def __init__(self, name: str) -> None:
        super().__init__(f"Cache subnet group {name} is currently in use by a replication group.")


# What ModifyReplicationGroup may set, that moto's own does not, and that changes nothing but the record.
_PLAIN_CHANGES = {
    "EngineVersion": "engine_version",
    "CacheParameterGroupName": "cache_parameter_group_name",
    "PreferredMaintenanceWindow": "preferred_maintenance_window",
    "SnapshotWindow": "snapshot_window",
    "SecurityGroupIds": "security_group_ids",
    "AutoMinorVersionUpgrade": "auto_minor_version_upgrade",
    "NotificationTopicArn": "notification_topic_arn",
}


def _point_to(group: _Group, address: str | None, port: int | None) -> None:
    """Give the group's endpoints this address; None takes them away, as while a group is being created."""
    endpoint = {"address": address, "port": port} if address is not None else None
    node_group = group.node_groups[0]
    for name in ("primary_endpoint", "reader_endpoint"):
        node_group[name] = endpoint
        node_group[f"{name}_address"] = address
    for member in node_group["node_group_members"]:
        member["read_endpoint"] = endpoint


def _add_members(backend: _Backend, group: _Group, arguments: dict[str, Any]) -> None:
    """Make the member clusters the group names describable: moto names them and does not have them."""
    zones: Sequence[str] = arguments["preferred_cache_cluster_azs"]
    for number, name in enumerate(group.member_clusters):
        member: Any = CacheCluster(
            account_id=backend.account_id,
            region_name=backend.region_name,
            cache_cluster_id=name,
            cache_node_type=group.cache_node_type,
            replication_group_id=group.replication_group_id,
            az_mode=None,
            preferred_availability_zone=zones[number % len(zones)],
            num_cache_nodes=1,
            engine="redis",  # moto keeps the group's id for this engine alone
            engine_version=group.engine_version,
            cache_parameter_group_name=group.cache_parameter_group_name,
            cache_subnet_group_name=group.cache_subnet_group_name,
            transit_encryption_enabled=group.transit_encryption_enabled,
            network_type=group.network_type,
            ip_discovery=group.ip_discovery,
            snapshot_name=None,
            preferred_maintenance_window=group.preferred_maintenance_window,
            port=group.port,
            notification_topic_arn=group.notification_topic_arn,
            auto_minor_version_upgrade=group.auto_minor_version_upgrade,
            snapshot_retention_limit=group.snapshot_retention_limit,
            snapshot_window=group.snapshot_window,
            auth_token=None,
            outpost_mode=None,
            preferred_outpost_arn=None,
            preferred_availability_zones=None,
            cache_security_group_names=None,
            security_group_ids=group.security_group_ids,
            tags=group.tags,
            snapshot_arns=None,
            preferred_outpost_arns=None,
            log_delivery_configurations=[],
            cache_node_ids_to_remove=None,
            cache_node_ids_to_reboot=None,
        )
        member.engine = group.engine
        member.auth_token_enabled = group.auth_token_enabled
        member.at_rest_encryption_enabled = group.at_rest_encryption_enabled
        member.cache_cluster_status = "creating"
        backend.cache_clusters[name] = member


def reconciler(context: Context) -> Reconciler:
    """Return this part of the cloud."""
    return ElastiCache(context)
