"""YAML text to plain values, with the line of every key, and back.

Scalars follow the core schema of YAML 1.2, not PyYAML's 1.1: `1e-3` is a number, `yes` and `on` are text, `010` is no
octal number.
What makes a recipe hard to read is refused: duplicate keys, tags, anchors, aliases and merging.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None, ".nan": float("nan")}
for _word, _value in (("null", None), ("true", True), ("false", False)):
    _WORDS |= dict.fromkeys((_word, _word.title(), _word.upper()), _value)
_WORDS |= {sign + ".inf": float(sign + "inf") for sign in ("", "+", "-")}
_MAX_DIGITS = 40  # Python refuses to read integers of thousands of digits


def scalar(text: str) -> Any:
    """The value of an unquoted scalar: null, true, false, a number, or else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    # A leading zero as in 010 means eight to some readers and ten to others: left as text, so refused for a number.
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
        return float(text)
    return text


@dataclass
class Document:
    """A value with the line of each dotted key in it, and the problems as (line, dotted key or "", message)."""

    value: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int, str, str]] = field(default_factory=list)


def parse_yaml(text: str) -> Document:
    """Read one YAML document; what is wrong goes to `problems`, nothing is raised."""
    document = Document()
    try:
        node = yaml.compose(text, Loader=_Loader)
        document.value = None if node is None else _plain(document, "", node)
    except yaml.MarkedYAMLError as error:
        where = f" ({error.context} that begins on line {error.context_mark.line + 1})" if error.context_mark else ""
        mark = error.problem_mark
        document.problems.append((mark.line + 1 if mark else 1, "", f"{error.problem}{where}"))
    except RecursionError:
        document.problems.append((1, "", "nested too deeply"))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.problems.append((line, "", f"an unprintable character (U+{ord(text[error.position]):04X}); delete it"))
    return document


class _Loader(yaml.SafeLoader):
    """PyYAML's, which refuses references from one place of the text to another, and types by tag."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None:
            self._refuse(event, f"the anchor or alias `{event.anchor}` is refused; write the value out")
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, f"the tag `{tag}` is refused; write the plain value (text in quotes)")
        return super().compose_node(parent, index)

    def _refuse(self, event: Any, message: str) -> None:
        raise yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)


def _plain(document: Document, key: str, node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, key, node)
    if isinstance(node, yaml.SequenceNode):
        items = {f"{key}[{number}]": item for number, item in enumerate(node.value)}
        document.lines |= {name: item.start_mark.line + 1 for name, item in items.items()}
        return [_plain(document, name, item) for name, item in items.items()]
    return scalar(node.value) if node.style is None else node.value


def _mapping(document: Document, key: str, node: yaml.MappingNode) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name, line = name_node.value, name_node.start_mark.line + 1
        plain = isinstance(name_node, yaml.ScalarNode) and name_node.style is None
        if not isinstance(name, str) or (plain and (name == "<<" or not isinstance(scalar(name), str))):
            found = f"`{name}`" if isinstance(name, str) else "this"
            document.problems.append((line, key, f"{found} is not a key; keys are names, and `<<` merges nothing"))
            continue
        child = f"{key}.{name}" if key else name
        if name in values:
            document.problems.append((line, child, f"given twice, first on line {document.lines[child]}; delete one"))
            continue
        document.lines[child] = line
        values[name] = _plain(document, child, value_node)
    return values


class _Dumper(yaml.SafeDumper):
    """Lists in one line, no anchors, and quotes wherever a reader of YAML 1.1 or 1.2 would not see text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar(text), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(dumper: yaml.SafeDumper, values: list[Any] | tuple[Any, ...]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)


def to_yaml(recipe: BaseModel) -> str:
    """Every field with its value, defaults included, in the order of the schema."""
    text: str = yaml.dump(recipe.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text
