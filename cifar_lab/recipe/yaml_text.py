"""YAML text to plain values, with the line of every key and all problems at once.

Scalars follow the core schema of YAML 1.2, not PyYAML's 1.1: `1e-3` is a number, `yes` and `on` are text, `010` is no
octal number.
What makes a recipe hard to read is refused: duplicate keys, tags, anchors, aliases and merging.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None, ".nan": float("nan")}
for _word, _value in (("null", None), ("true", True), ("false", False)):
    _WORDS |= dict.fromkeys((_word, _word.title(), _word.upper()), _value)
_WORDS |= {sign + ".inf": float(sign + "inf") for sign in ("", "+", "-")}
_MAX_DEPTH = 20
_UNREADABLE = object()
_MAX_DIGITS = 40  # Python refuses to read integers of thousands of digits

_PLAIN_WORDS = (
    (
        "mapping values are not allowed",
        "a second `: ` here; quote the text, or mend the indentation of the lines above",
    ),
    ("could not find expected ':'", "expected `key: value`, with a space after the colon"),
    ("expected <block end>", "the indentation does not match the lines above"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("found character '\\t'", "a tab; YAML wants spaces"),
    ("that cannot start any token", "text that starts with this character must be quoted"),
)


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
    """A value with the line of each dotted key in it.

    `problems` holds (line, dotted key or "", message). `incomplete` names the mappings of which something could not be
    read, so that nothing is reported missing there.
    """

    value: Any = None
    empty: bool = True
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    incomplete: set[str] = field(default_factory=set)


def parse_yaml(text: str) -> Document:
    """Read one YAML document; what is wrong goes to `problems`, nothing is raised."""
    document = Document()
    tabs = [number for number, line in enumerate(text.split("\n"), 1) if "\t" in line[: len(line) - len(line.lstrip())]]
    if tabs:
        more = f" (and {len(tabs) - 1} more lines)" if len(tabs) > 1 else ""
        document.problems.append((tabs[0], "", f"a tab in the indentation; YAML wants spaces{more}"))
        return document
    builder = _Builder(text, document)
    try:
        builder.build()
    except yaml.MarkedYAMLError as error:
        document.problems.append(_explain(error, builder.open_brackets))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.problems.append((line, "", f"an unprintable character (U+{ord(text[error.position]):04X}); delete it"))
    return document


def _explain(error: yaml.MarkedYAMLError, open_brackets: list[int]) -> tuple[int, str, str]:
    """A syntax error as a problem, in plain words where PyYAML's are not."""
    said = str(error.problem)
    if open_brackets and "expected" in said:
        return (
            open_brackets[-1],
            "",
            "a `[` or `{` that begins here is not closed, or a comma is missing after one of its items",
        )
    mark = error.context_mark if "end of stream" in said else error.problem_mark
    message = next((plain for start, plain in _PLAIN_WORDS if start in said), said)
    return (mark.line + 1 if mark else 1), "", message


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1


class _Builder:
    """Turns PyYAML's events into values."""

    def __init__(self, text: str, document: Document) -> None:
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.document = document
        self.open_brackets: list[int] = []  # lines of the `[` and `{` that wait for their ends

    def build(self) -> None:
        for event in self.events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            if self.document.empty:
                self.document.empty = False
                self.document.value = self.value("", next(self.events), 0)
            else:
                self.problem(event, "", "a second YAML document; a recipe is one document, delete from this `---` on")
                return

    def problem(self, event: yaml.Event, key: str, message: str) -> None:
        self.document.problems.append((_line(event), key, message))

    def value(self, key: str, event: yaml.Event, depth: int) -> Any:
        """The value that starts with `event`; consumes its events."""
        parent = key.rpartition(".")[0]
        if isinstance(event, yaml.AliasEvent):
            self.problem(event, key, f"the alias `*{event.anchor}` is refused; write the value out")
            self.document.incomplete.add(parent)
            return _UNREADABLE
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.anchor is not None:
            self.problem(event, key, f"the anchor `&{event.anchor}` is refused; write each value out where it is used")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.problem(event, key, f"the tag `{tag}` is refused; write the plain value (text in quotes)")
        if isinstance(event, yaml.ScalarEvent):
            return scalar(event.value) if event.style is None else event.value
        if depth == _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=event.start_mark)  # type: ignore[arg-type]
        if event.flow_style:
            self.open_brackets.append(_line(event))
        is_list = isinstance(event, yaml.SequenceStartEvent)
        value = self.sequence(key, depth) if is_list else self.mapping(key, depth)
        if event.flow_style:
            self.open_brackets.pop()
        return value

    def sequence(self, key: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item = f"{key}[{len(items)}]"
            self.document.lines[item] = _line(event)
            items.append(self.value(item, event, depth + 1))
        return [item for item in items if item is not _UNREADABLE]

    def mapping(self, key: str, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name = self.key_name(event, key)
            if name is None:
                self.value(key, next(self.events), depth + 1)
                continue
            child = f"{key}.{name}" if key else name
            duplicate = name in values
            if duplicate:
                self.problem(event, child, f"given twice, first on line {self.document.lines[child]}; delete one")
            else:
                self.document.lines[child] = _line(event)
            first_lines = dict(self.document.lines) if duplicate else None
            value = self.value(child, next(self.events), depth + 1)
            if first_lines is not None:
                self.document.lines = first_lines
            elif value is not _UNREADABLE:
                values[name] = value
        return values

    def key_name(self, event: yaml.Event, parent: str) -> str | None:
        """The text of a key, or None after a problem."""
        if not isinstance(event, yaml.ScalarEvent):
            if not isinstance(event, yaml.AliasEvent):
                self.skip()
            self.problem(event, parent, "a key must be plain text")
        elif event.value == "<<" and event.style is None:
            self.problem(
                event, parent, "merging with `<<` is refused; write the keys out, one file tells the experiment"
            )
        elif event.style is None and not isinstance(scalar(event.value), str):
            self.problem(event, parent, f"the key `{event.value}` is not text; keys are names")
        else:
            return str(event.value)
        self.document.incomplete.add(parent)
        return None

    def skip(self) -> None:
        """Consume the rest of a collection whose start was read."""
        depth = 1
        while depth:
            event = next(self.events)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
