"""What mkdocs is told beside mkdocs.yml: the first page is the README, and the notebook's cells are a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The text of a page, before it becomes HTML."""
    root = Path(config.config_file_path).parent
    if page.file.src_uri == "index.md":
        return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", _link, (root / "README.md").read_text()).replace(
            "](docs/", "]("
        )
    if page.file.src_uri == "python.md":
        cells = json.loads((root / "docs/from_python.ipynb").read_text())["cells"]
        texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
        return markdown + "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for text, kind in texts)
    return markdown


def _link(found: re.Match[str]) -> str:
    """A link of the README as the site has it; what the site doesn't hold is only named."""
    text, target = found.groups()
    return f"[{text}]({target.removeprefix('docs/')})" if target.startswith(("docs/", "http")) else text
