"""One pass over a dump's text, the same for everybody who reads it, by the fastest way that its source allows."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from recovery.dumps.ahead import read_ahead
from recovery.dumps.members import inflate
from recovery.dumps.parallel import fits_parallel, parallel_text
from recovery.dumps.source import RangedSource

if TYPE_CHECKING:
    from collections.abc import Generator

    from recovery.dumps.manifest import Manifest
    from recovery.dumps.source import DumpSource


class DumpText:
    """The text of a dump, read once.

    A dump whose manifest tells its members is fetched and inflated by several threads; of any other that is compressed
    one thread inflates ahead of the reader.  ``stored_done`` and ``text_done`` count bytes that were read so far.
    """

    def __init__(self, source: DumpSource, manifest: Manifest | None = None, *, hashing: bool = True) -> None:
        self._source = source
        self._manifest = manifest
        self._digest = hashlib.sha256() if hashing else None
        self.stored_done = 0
        self.text_done = 0

    def pieces(self) -> Generator[bytes]:
        """Yield the text in order; no thread is left when the generator has ended or is closed.

        Raises BadDumpError in place of the first thing that is damaged, EnvironmentLacksError when the dump cannot be
        read.  Whether size and SHA-256 are the manifest's is for the caller to compare.
        """
        with contextlib.closing(self._text()) as text:
            for piece in text:
                self.text_done += len(piece)
                yield piece

    @property
    def sha256(self) -> str:
        """Of the stored bytes, once :meth:`pieces` is exhausted; "" when it was not asked for."""
        return self._digest.hexdigest() if self._digest is not None else ""

    def _text(self) -> Generator[bytes]:
        source, layout = self._source, self._manifest.layout if self._manifest is not None else None
        if (
            isinstance(source, RangedSource)
            and self._manifest is not None
            and self._manifest.size == source.size
            and layout is not None
            and fits_parallel(layout)
        ):
            yield from parallel_text(source, layout, self._digest, self._pass)
            return
        with contextlib.closing(self._stored()) as chunks:
            yield from inflate(chunks, source.name, through=read_ahead)

    def _stored(self) -> Generator[bytes]:
        for chunk in self._source.stored():
            if self._digest is not None:
                self._digest.update(chunk)
            self._pass(len(chunk))
            yield chunk

    def _pass(self, count: int) -> None:
        self.stored_done += count
