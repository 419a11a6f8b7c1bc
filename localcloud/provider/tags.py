"""Tags: merged with the provider's default ones, written in each service's own way, read back and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.provider.calls import Cloud
from localcloud.provider.values import UNKNOWN, Values

Tags = dict[str, str]


def merged(defaults: Mapping[str, str], own: Any) -> Any:
    """Return the default tags with the resource's own over them; unknown if the own ones are wholly unknown."""
    if own == UNKNOWN:
        return UNKNOWN
    return {**defaults, **(own or {})}


def as_list(tags: Mapping[str, str], key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """Return tags as most services take them."""
    return [{key: name, value: text} for name, text in tags.items()]


def as_dict(tags: list[dict[str, str]] | None, key: str = "Key", value: str = "Value") -> Tags:
    """Return tags as a map, without those that AWS sets itself."""
    return {tag[key]: tag.get(value, "") for tag in tags or [] if not tag[key].startswith("aws:")}


@dataclass(frozen=True, kw_only=True)
class Tagging:
    """A service's way with tags. `target` gives what the tag calls take, from the id and the outputs."""

    create: Callable[[Tags], dict[str, Any]] | None  # parameters of the create call; None: `add` after it
    read: Callable[[Cloud, str, dict[str, Any], Values], Tags]  # cloud, id, item, outputs so far
    add: Callable[[Cloud, str, Values, Tags], None]
    remove: Callable[[Cloud, str, Values, list[str]], None]

    def update(self, cloud: Cloud, resource_id: str, state: Values, old: Tags, new: Tags) -> None:
        """Make the tags `new` where they were `old`."""
        gone = [name for name in old if name not in new]
        if gone:
            self.remove(cloud, resource_id, state, gone)
        fresh = {name: text for name, text in new.items() if old.get(name) != text}
        if fresh:
            self.add(cloud, resource_id, state, fresh)


def split(actual: Tags, declared: Mapping[str, str], defaults: Mapping[str, str]) -> tuple[Tags, Tags]:
    """Return (tags, tagsAll): `tags` leaves out what only the provider's default tags explain."""
    own = {name: text for name, text in actual.items() if name in declared or defaults.get(name) != text}
    return own, actual


def calls(
    service: str,
    *,
    target: Callable[[str, Values], dict[str, Any]],
    add: str = "TagResource",
    remove: str = "UntagResource",
    listing: tuple[str, str] | None = None,
    member: str = "Tags",
    keys: str = "TagKeys",
    names: tuple[str, str] = ("Key", "Value"),
    mapped: bool = False,
    create: str | None = None,
) -> Tagging:
    """Describe the tagging of a service whose calls take a target and a list (or map) of tags.

    `listing` is (operation, member of its output); without it the item itself has them under `member`.
    """

    def form(tags: Tags) -> Any:
        return dict(tags) if mapped else as_list(tags, *names)

    def plain(found: Any) -> Tags:
        if mapped:
            return {name: text for name, text in (found or {}).items() if not name.startswith("aws:")}
        return as_dict(found, *names)

    def read(cloud: Cloud, resource_id: str, item: dict[str, Any], state: Values) -> Tags:
        if listing is None:
            return plain(item.get(member))
        answer = cloud.look(service, listing[0], **target(resource_id, state)) or {}
        return plain(answer.get(listing[1]))

    return Tagging(
        create=lambda tags: {(create or member): form(tags)},
        read=read,
        add=lambda cloud, rid, state, tags: _done(
            cloud.call(service, add, **target(rid, state), **{member: form(tags)})
        ),
        remove=lambda cloud, rid, state, gone: _done(cloud.call(service, remove, **target(rid, state), **{keys: gone})),
    )


def _done(_answer: object) -> None:
    """Drop the answer of a call that has nothing to say."""
