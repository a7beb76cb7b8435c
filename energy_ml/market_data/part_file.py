"""A parquet file that gets its name only once it is whole.

What belongs here: writing beside and renaming. What doesn't: what is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

CONTENT, KEYS = b"energy_ml.content", b"energy_ml.keys"
"""In a footer: a SHA-256 of the rows, and the regions or batteries that the file holds. Whoever knows them from there
needn't read the file to tell it from another."""

_LOCAL = ("", "file", "local")


class PartFile:
    """Tables go in one by one, each a row group; ``metadata`` stands in the footer."""

    def __init__(self, path: UPath, metadata: Mapping[str, str]) -> None:
        self.path, self.metadata = path, dict(metadata)
        self.beside = path.with_name(f".{path.name}.part")
        self._handle: Any = None
        self._writer: pq.ParquetWriter | None = None
        self._content = hashlib.sha256()

    def write(self, block: pa.Table) -> None:
        """Append the rows of ``block``."""
        if self._writer is None:
            self._handle = self.beside.open("wb")
            schema = block.schema.with_metadata(self.metadata)
            self._writer = pq.ParquetWriter(self._handle, schema, compression="zstd", compression_level=9)
        self._writer.write_table(block, row_group_size=len(block))
        for batch in block.to_batches():
            self._content.update(batch.serialize())

    def finish(self, keys: Iterable[str] | None = None) -> UPath:
        """Give the file its name; with ``keys`` its footer says what it holds, see ``CONTENT`` and ``KEYS``."""
        if self._writer is not None:
            if keys is not None:
                known = {CONTENT: self._content.hexdigest(), KEYS: json.dumps(sorted(keys))}
                self._writer.add_key_value_metadata(known)
            self._writer.close()
        self._handle.close()
        if self.path.protocol in _LOCAL:
            self.beside.replace(self.path)
        else:  # object stores have no rename that replaces; moving copies whole objects, which appear at once
            self.path.unlink(missing_ok=True)
            self.path.fs.mv(self.beside.path, self.path.path)
        return self.path

    def discard(self) -> None:
        """Leave nothing of it."""
        if self._writer is not None:
            self._writer.close()
            self._handle.close()
            self.beside.unlink(missing_ok=True)
