"""RDS made real: a DB instance is a PostgreSQL server, a snapshot is a copy of its data.

moto keeps the records; here they are given servers. Nothing of a server hangs on moto's objects, which it deep-copies.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
import string
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.rds import models
from moto.rds.exceptions import InvalidParameterCombination, RDSClientError

from localcloud import rds_rules
from localcloud.postgres import PostgresServer
from localcloud.postgres_installation import Installation, installation
from localcloud.reconciler import Context, Reconciler
from localcloud.servers import Key, Record, Servers
from machine.programs import ProgramNotFoundError

_LOGGER = logging.getLogger(__name__)

# moto's RDSBackend, DBInstance and DBSnapshot, whose attributes are not typed well enough to name.
_Backend = Any
_Database = Any
_Snapshot = Any

_MANAGED_PASSWORD = string.ascii_letters + string.digits + "!#$%&*+-.:<=>?_~"


def _key(database: _Database) -> Key:
    return (database.account_id, database.region, database.db_instance_identifier)


def _random_password() -> str:
    return "".join(secrets.choice(_MANAGED_PASSWORD) for _ in range(32))


@dataclass(eq=False, kw_only=True)
class _Record(Record[PostgresServer]):
    """A DB instance's server and the PostgreSQL it runs."""

    installation: Installation


class Rds(Servers[_Record]):
    """The reconciler of RDS."""

    name = "rds"
    kind = "postgres"
    bring_up_seconds = 120.0

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._snapshots: dict[str, Path] = {}  # ARN of a DB snapshot -> its data
        self._source: ContextVar[Path | None] = ContextVar("snapshot_being_restored", default=None)

    # -- what the cloud asks of every part

    def install(self) -> None:
        wrap = self._layers.wrap
        backend, instance, secret = models.RDSBackend, models.DBInstance, models.MasterUserSecret
        wrap(backend, "create_db_instance", self._create)
        wrap(backend, "delete_db_instance", self._delete)
        wrap(backend, "modify_db_instance", self._modify)
        wrap(backend, "start_db_instance", self._start)
        wrap(backend, "stop_db_instance", self._stop)
        wrap(backend, "reboot_db_instance", self._reboot)
        wrap(backend, "create_db_snapshot", self._create_snapshot)
        wrap(backend, "copy_db_snapshot", self._copy_snapshot)
        wrap(backend, "delete_db_snapshot", self._delete_snapshot)
        wrap(backend, "restore_db_instance_from_db_snapshot", self._restore_snapshot)
        wrap(backend, "restore_db_instance_to_point_in_time", _refuse("RestoreDBInstanceToPointInTime"))
        wrap(backend, "create_db_instance_read_replica", _refuse("CreateDBInstanceReadReplica"))
        wrap(backend, "modify_db_parameter_group", self._modify_parameter_group)
        wrap(backend, "delete_db_parameter_group", _delete_parameter_group)
        wrap(backend, "delete_subnet_group", _delete_subnet_group)
        wrap(secret, "_generate_secret_string", _generate_secret_string)
        wrap(secret, "rotate_secret", _rotate_secret)
        wrap(models.DBParameterGroup, "update_parameters", _update_parameters)
        wrap(instance, "default_db_parameter_group_details", _default_parameter_group)
        # moto would record automated snapshots that hold no data and that a sweep after a drill would find.
        wrap(instance, "save_automated_backup", lambda _original, _database: None)
        wrap(instance, "address", lambda _original, database: self._address(database))
        wrap(instance, "endpoint", lambda _original, database: self._endpoint(database))

    def reset(self) -> None:
        with self._guard:
            super().reset()
            for folder in set(self._snapshots.values()):
                shutil.rmtree(folder, ignore_errors=True)
            self._snapshots.clear()

    def _state(self, record: _Record) -> str:
        if not record.ready.is_set():
            return "creating"
        if not record.answers:
            return "failed"
        return "running" if record.server.pid is not None else "stopped"

    def _details(self, record: _Record) -> dict[str, str]:
        return {"version": record.installation.version}

    # -- the life of an instance

    def _create(self, original: Callable[..., _Database], backend: _Backend, db_kwargs: Any) -> _Database:
        arguments = dict(db_kwargs)
        arguments["db_instance_identifier"] = arguments["db_instance_identifier"].lower()
        source = self._source.get()
        major = rds_rules.major_version(arguments["engine"], arguments.get("engine_version"))
        if source is None:
            rds_rules.check_master(arguments)
            rds_rules.check_database_name(arguments.get("db_name"))
        try:
            found = installation(self._home.path, major)
        except ProgramNotFoundError as exc:
            raise rds_rules.no_such_version(str(arguments.get("engine_version", major)), str(exc)) from exc
        arguments["engine_version"] = arguments.get("engine_version") or found.version
        with self._guard:
            database = original(backend, arguments)
            database.status = "creating"
            database.dbi_resource_id = "db-" + "".join(
                secrets.choice(string.ascii_uppercase + string.digits) for _ in range(26)
            )
            address, port = self._addresses.take(int(database.port))
            server = PostgresServer(
                home=self._home.path,
                folder=self._data / f"pg{secrets.token_hex(3)}",
                installation=found,
                address=address,
                port=port,
            )
            record = _Record(server=server, installation=found)
            self._records[_key(database)] = record
        threading.Thread(
            target=self._bring_up,
            args=(record, database, source),
            name=f"rds-{database.db_instance_identifier}",
            daemon=True,
        ).start()
        return database

    def _bring_up(self, record: _Record, database: _Database, source: Path | None) -> None:
        server = record.server
        began = time.monotonic()
        try:
            server.create(source)
            server.start(self._parameters(record, database))
            password: str = getattr(database, "_master_user_password", None) or ""
            if source is None:
                server.create_master(database.master_username, password)
                if database.db_name and database.db_name != "postgres":
                    server.create_database(database.db_name, database.master_username)
            elif password:
                server.set_password(database.master_username, password)
        except Exception:
            _LOGGER.exception("DB instance %s could not be brought up", database.db_instance_identifier)
            database.status = "failed"
        else:
            database.port = server.port
            record.answers = True
            database.status = "available"
            seconds = time.monotonic() - began
            _LOGGER.info("DB instance %s available after %.2f s", database.db_instance_identifier, seconds)
            if database.region in self._dark:  # it was being created when its region went dark
                server.suspend()
        finally:
            record.ready.set()

    def _delete(
        self, original: Callable[..., _Database], backend: _Backend, db_instance_identifier: str, **options: Any
    ) -> _Database:
        identifier = db_instance_identifier.lower()
        with self._guard:
            database = backend.databases.get(identifier)
            if database is not None and not database.deletion_protection:
                rds_rules.check_final_snapshot(
                    skip=bool(options.get("skip_final_snapshot")),
                    identifier=options.get("final_db_snapshot_identifier"),
                )
            key = _key(database) if database is not None else None
            if key in self._records:
                self._records[key].ready.wait(self.bring_up_seconds)
            deleted = original(backend, db_instance_identifier=identifier, **options)
            if key is not None:
                self._remove(key)
            return deleted

    def _modify(
        self, original: Callable[..., _Database], backend: _Backend, db_instance_identifier: str, db_kwargs: Any
    ) -> _Database:
        arguments = dict(db_kwargs)
        with self._guard:
            before = backend.describe_db_instances(db_instance_identifier)[0]
            record = self._records.get(_key(before))
            if record is None:
                return original(backend, db_instance_identifier, arguments)
            password = arguments.get("master_user_password")
            if password is not None:
                rds_rules.check_password(password)
            version = arguments.get("engine_version")
            if version and rds_rules.major_version(before.engine, version) != record.installation.major:
                raise rds_rules.no_such_version(version, "the embedded cloud does not upgrade instances in place")
            port = arguments.pop("db_port_number", None)
            new_password = (
                password is not None
                or arguments.get("rotate_master_user_password")
                or (arguments.get("manage_master_user_password") and not before.manage_master_user_password)
            )
            if new_password or port is not None or arguments.get("db_parameter_group_name"):
                self._require_available(before, "modification")
            old_key = _key(before)
            database = original(backend, before.db_instance_identifier, arguments)
            self._records[_key(database)] = self._records.pop(old_key)
            if new_password:
                record.server.set_password(database.master_username, database._master_user_password)  # noqa: SLF001  # write-only in moto
            if arguments.get("db_parameter_group_name"):
                record.server.reload(self._parameters(record, database))
            if port is not None and int(port) != record.server.port:
                record.server.stop(clean=True)
                self._addresses.give_back(record.server.address, record.server.port)
                record.server.address, record.server.port = self._addresses.take(int(port))
                record.server.start(self._parameters(record, database))
                database.port = record.server.port
            return database

    def _start(self, original: Callable[..., _Database], backend: _Backend, *args: Any, **kwargs: Any) -> _Database:
        with self._guard:
            database = original(backend, *args, **kwargs)
            record = self._records.get(_key(database))
            if record is not None:
                record.server.start(self._parameters(record, database))
            return database

    def _stop(self, original: Callable[..., _Database], backend: _Backend, *args: Any, **kwargs: Any) -> _Database:
        with self._guard:
            database = original(backend, *args, **kwargs)
            record = self._records.get(_key(database))
            if record is not None:
                record.server.stop(clean=True)
            return database

    def _reboot(self, original: Callable[..., _Database], backend: _Backend, *args: Any, **kwargs: Any) -> _Database:
        with self._guard:
            database = original(backend, *args, **kwargs)
            record = self._records.get(_key(database))
            if record is not None:
                self._require_available(database, "reboot")
                record.server.stop(clean=True)
                record.server.start(self._parameters(record, database))
            return database

    def _require_available(self, database: _Database, purpose: str) -> None:
        if database.status != "available":
            raise RDSClientError(
                "InvalidDBInstanceState",
                f"Instance {database.db_instance_identifier} is {database.status} and not available for {purpose}.",
            )

    # -- parameters and addresses

    def _parameters(self, record: _Record, database: _Database) -> dict[str, str]:
        values: dict[str, str] = {}
        for group in database.db_parameter_groups():
            values |= rds_rules.known_parameters(group.parameters, record.installation.parameters)
        return values

    def _modify_parameter_group(
        self, original: Callable[..., Any], backend: _Backend, *args: Any, **kwargs: Any
    ) -> Any:
        with self._guard:
            group = original(backend, *args, **kwargs)
            for database in backend.databases.values():
                record = self._records.get(_key(database))
                uses = database.db_parameter_group_name == group.name and database.status == "available"
                if record is not None and record.answers and uses:
                    record.server.reload(self._parameters(record, database))
            return group

    def _address(self, database: _Database) -> str | None:
        record = self._records.get(_key(database))
        return record.server.address if record is not None and record.answers else None

    def _endpoint(self, database: _Database) -> dict[str, Any] | None:
        # As on AWS, an instance being created has no endpoint yet.
        address = self._address(database)
        return {"Address": address, "Port": database.port} if address is not None else None

    # -- snapshots

    def _create_snapshot(
        self,
        original: Callable[..., _Snapshot],
        backend: _Backend,
        db_instance_identifier: str,
        *args: Any,
        **kwargs: Any,
    ) -> _Snapshot:
        with self._guard:
            database = backend.databases.get(db_instance_identifier.lower())
            record = self._records.get(_key(database)) if database is not None else None
            if record is not None:
                self._require_available(database, "a snapshot")
            snapshot = original(backend, db_instance_identifier.lower(), *args, **kwargs)
            if record is not None:
                folder = self._data / f"snapshot{secrets.token_hex(3)}"
                try:
                    record.server.backup(folder)
                except Exception:
                    backend.database_snapshots.pop(snapshot.db_snapshot_identifier, None)
                    raise
                self._snapshots[snapshot.db_snapshot_arn] = folder
            return snapshot

    def _copy_snapshot(
        self,
        original: Callable[..., _Snapshot],
        backend: _Backend,
        source_db_snapshot_identifier: str,
        *args: Any,
        **kwargs: Any,
    ) -> _Snapshot:
        with self._guard:
            source = backend.get_db_snapshot(source_db_snapshot_identifier)
            snapshot = original(backend, source_db_snapshot_identifier, *args, **kwargs)
            folder = self._snapshots.get(source.db_snapshot_arn)
            if folder is not None:
                self._snapshots[snapshot.db_snapshot_arn] = folder
            return snapshot

    def _delete_snapshot(
        self, original: Callable[..., _Snapshot], backend: _Backend, *args: Any, **kwargs: Any
    ) -> _Snapshot:
        with self._guard:
            snapshot = original(backend, *args, **kwargs)
            folder = self._snapshots.pop(snapshot.db_snapshot_arn, None)
            if folder is not None and folder not in self._snapshots.values():
                shutil.rmtree(folder, ignore_errors=True)
            return snapshot

    def _restore_snapshot(
        self, original: Callable[..., _Database], backend: _Backend, from_snapshot_id: str, overrides: Any
    ) -> _Database:
        with self._guard, self._restoring(backend.get_db_snapshot(from_snapshot_id)):
            database = original(backend, from_snapshot_id, overrides)
            # The data has to outlive the request that asked for it: a snapshot deleted next must not pull it away.
            self._records[_key(database)].ready.wait(self.bring_up_seconds)
            return database

    @contextlib.contextmanager
    def _restoring(self, snapshot: _Snapshot) -> Iterator[None]:
        token = self._source.set(self._snapshots[snapshot.db_snapshot_arn])
        try:
            yield
        finally:
            self._source.reset(token)


def _refuse(action: str) -> Callable[..., Any]:
    def refuse(_original: Callable[..., Any], _backend: _Backend, *_args: Any, **_kwargs: Any) -> Any:
        raise InvalidParameterCombination(f"The embedded cloud does not support {action}.")

    return refuse


def _generate_secret_string(_original: Callable[..., str], secret: Any) -> str:
    secret.resource.master_user_password = password = _random_password()
    return json.dumps({"username": secret.resource.master_username, "password": password})


def _rotate_secret(_original: Callable[..., None], secret: Any) -> None:
    # moto's rotation leaves no current version behind.
    secret.secretsmanager.put_secret_value(
        secret_id=secret.secret.arn,
        secret_string=secret._generate_secret_string(),  # noqa: SLF001  # hooked above
        secret_binary="",
        client_request_token=secrets.token_hex(16),
        version_stages=["AWSCURRENT"],
    )


def _update_parameters(original: Callable[..., None], group: Any, new_parameters: Any) -> None:
    original(group, [{**parameter, "Source": "user"} for parameter in new_parameters])


def _delete_parameter_group(original: Callable[..., Any], backend: _Backend, db_parameter_group_name: str) -> Any:
    users = (database.db_parameter_group_name for database in backend.databases.values())
    rds_rules.check_unused("DB parameter group", db_parameter_group_name, users)
    return original(backend, db_parameter_group_name)


def _delete_subnet_group(original: Callable[..., Any], backend: _Backend, subnet_name: str) -> Any:
    users = (database._db_subnet_group_name for database in backend.databases.values())  # noqa: SLF001  # moto only lets it be written
    rds_rules.check_unused("DB subnet group", subnet_name, users)
    return original(backend, subnet_name)


def _default_parameter_group(original: Callable[..., Any], database: _Database) -> Any:
    if database.engine != "postgres":
        return original(database)
    family = f"postgres{str(database.engine_version).partition('.')[0]}"
    return family, f"default.{family}"


def reconciler(context: Context) -> Reconciler:
    """Return this part of the cloud."""
    return Rds(context)
