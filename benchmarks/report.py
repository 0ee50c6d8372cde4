"""A benchmark's figures as a table for people and as JSON for documents."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def report(title: str, rows: Sequence[Mapping[str, Any]], json_file: Path | None) -> None:
    """Print `rows` (one mapping a row; the first names the columns) and write them to `json_file`, if given."""
    table = Table(title=title)
    columns = list(rows[0])
    for column in columns:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in columns))
    Console().print(table)
    if json_file is not None:
        document = {"title": title, "machine": platform.platform(), "rows": [dict(row) for row in rows]}
        json_file.write_text(json.dumps(document, indent=2) + "\n")


def _text(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
