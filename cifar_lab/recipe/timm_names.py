"""timm's architecture names, read from its files: importing timm would take seconds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from cifar_lab.recipe.errors import did_you_mean

_ENTRY_POINT = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
_DEPRECATED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)\}\)", re.MULTILINE | re.DOTALL)


def architecture_problem(arch: str) -> str | None:
    """What is wrong with a timm name such as `vit_tiny_patch16_224.augreg_in21k`, or None."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return "timm is not installed; pip install timm"
    texts = [path.read_text(encoding="utf-8") for path in (Path(spec.origin).parent / "models").glob("*.py")]
    name, _, tag = arch.partition(".")
    names = {found for text in texts for found in _ENTRY_POINT.findall(text)}
    if name not in names:
        renamed = "".join(block for text in texts for block in _DEPRECATED.findall(text))
        return None if f"'{arch}'" in renamed else f"timm has no architecture `{name}`{did_you_mean(name, names)}"
    if tag:
        tags = {found for text in texts for found in re.findall(rf"""['"]{name}\.(\w+)['"]""", text)}
        if tags and tag not in tags:  # a few tags are put together by code: timm itself has the last word on those
            known = ", ".join(sorted(tags))
            return f"`{name}` has no weights tagged `{tag}`{did_you_mean(tag, tags) or f'; published: {known}'}"
    return None
