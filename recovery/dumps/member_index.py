"""Where a reader may begin in a dump of many gzip members: few enough places to keep and to write down at any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Members of 40 GB of text one by one: 300 KB of a manifest, 3 MB of memory.
MOST_ENTRIES = 20_000


class MemberIndex:
    """(compressed, uncompressed) lengths in bytes of gzip members in a row.

    An entry is one member until there are more than `most`; then each stands for two neighbours, then for four, and so
    on.  So a member begins wherever an entry does, and there are at most `most` of them for any number of members.
    """

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self._most = most
        self._entries: list[tuple[int, int]] = []
        self._members_each = 1
        self._members_in_last = 0

    def append(self, compressed: int, uncompressed: int) -> None:
        """Note the next member."""
        if self._entries and self._members_in_last < self._members_each:
            last = self._entries[-1]
            self._entries[-1] = (last[0] + compressed, last[1] + uncompressed)
            self._members_in_last += 1
            return
        if len(self._entries) == self._most:
            self._entries = [
                (first[0] + second[0], first[1] + second[1])
                for first, second in zip(self._entries[::2], self._entries[1::2], strict=True)
            ]
            self._members_each *= 2
        self._entries.append((compressed, uncompressed))
        self._members_in_last = 1

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._entries)
