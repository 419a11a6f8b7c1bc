"""A row of the table of types: the calls that make, read, change and delete a thing, and its exceptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from localcloud.provider.calls import Cloud
from localcloud.provider.naming import Naming
from localcloud.provider.tags import Tagging
from localcloud.provider.values import Values

Item = dict[str, Any]  # what AWS says of a thing, with AWS's names


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a hook needs to know of the resource it acts on. `old` is empty while it is being created."""

    cloud: Cloud
    id: str
    new: Values
    old: Values

    def changed(self, name: str) -> bool:
        """Whether the property differs from what it was."""
        return bool(self.new.get(name) != self.old.get(name))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Properties that have a call of their own. `apply` makes the cloud agree with `change.new`."""

    properties: tuple[str, ...]
    apply: Callable[[Change], None]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One Pulumi type. Functions get (cloud, …) and speak AWS's names in items and Pulumi's in values.

    `create`, `update` and `delete` are operations of `service`; `key` is the member of update and delete (and of read,
    unless `find` is given) that takes the id. `reads` are the Pulumi names that a read returns beside the declared
    ones; what the program may set among them is `imports`.
    """

    pulumi_type: str  # such as aws:s3/bucket:Bucket
    service: str
    create: str
    read: str  # the operation whose output has the thing
    at: str  # where in that output: "DBInstances[]", "" for the output itself
    key: str
    id: Callable[[Values, Item], str]  # from inputs and what create returned
    update: str | None = None
    delete: str | None = None
    document: str | None = None  # the member that holds all settings, in calls that put one document
    nouns: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)  # Pulumi name -> member of create and update
    read_names: Mapping[str, str] = field(default_factory=dict)  # Pulumi name -> member of the item, where it differs
    reads: str = ""
    imports: str = ""
    naming: Naming | None = None
    state_only: frozenset[str] = frozenset()  # they steer this provider, AWS never sees them
    unsupported: Mapping[str, str] = field(default_factory=dict)  # name -> why or what instead
    replaces: frozenset[str] = frozenset()  # though the update call would take them
    settings: tuple[Setting, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()
    vanishing: frozenset[str] = frozenset()  # absent from the item means that it is gone, not that AWS is silent
    comparators: Mapping[str, Callable[[Any, Any], bool]] = field(default_factory=dict)
    tagging: Tagging | None = None
    regional: bool = True
    fixed_create: Callable[[Cloud, Values], Item] | None = None  # more parameters of the create call
    fixed_update: Item = field(default_factory=dict)
    fixed_delete: Callable[[Values], Item] | None = None
    creator: Callable[[Cloud, Values, Item], Item] | None = None  # in place of the create call (parameters given)
    updater: Callable[[Change, set[str]], None] | None = None  # in place of the update call (changed names given)
    deleter: Callable[[Cloud, str, Values], None] | None = None  # in place of the delete call
    find: Callable[[Cloud, str, Values], Item | None] | None = None  # in place of the read call
    import_key: Callable[[str], Values] | None = None  # what an id alone says of the inputs
    outputs: Callable[[Cloud, str, Item, Values], Values] | None = None  # outputs that no rule gives
    ready: Callable[[Cloud, str, Item], None] | None = None  # wait until it can be used
    alive: Callable[[Item], bool] = lambda _item: True  # a thing being deleted is gone

    key_of: Callable[[str, Values], str] = lambda resource_id, _state: resource_id  # what goes into `key`
    initial: Mapping[str, Any] = field(default_factory=dict)  # what the official provider declares for the program
    deletes_first: bool = False  # the new one cannot stand beside the old one

    def bookkept(self, name: str) -> bool:
        """Whether the property is no parameter of any call, or not by its own name."""
        return (
            name in self.state_only
            or name in {"region", "tags", "tagsAll"}
            or (self.naming is not None and name == self.naming.prefix_property)
        )

    def has_setting(self, name: str) -> bool:
        """Whether the property has a call of its own."""
        return any(name in setting.properties for setting in self.settings)
