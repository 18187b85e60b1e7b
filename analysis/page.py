"""Renders self-contained HTML pages from the templates in this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2


def render(template: str, content: Mapping[str, Any], filters: Mapping[str, Callable[..., str]] | None = None) -> str:
    """Fills a template; a name that is missing in `content` is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(content)
