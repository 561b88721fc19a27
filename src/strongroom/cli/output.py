"""Prints what a command found: one document as JSON or YAML, or a table for people; and errors.

Documents go to stdout and nothing else does; errors, warnings and progress go to stderr. Text that comes from a
cluster or a repository may hold terminal control sequences: tables show them escaped.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from cyclopts import Parameter

from strongroom.errors import ExitCode


class Format(StrEnum):
    """How a command prints its result."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """The options that every command has."""

    output: Annotated[Format, Parameter(alias="-o")] = Format.TABLE
    """How to print the result. Errors are one JSON object on stderr with `json`."""
    quiet: Annotated[bool, Parameter(alias="-q", negative="")] = False
    """No progress and no notes; of a table only the ids or names, one a line."""


DEFAULT_OUTPUT = Output()


@dataclass(frozen=True)
class Table:
    """Rows under headings. *ids* is what `--quiet` prints instead, one a line; *notes* follow the table."""

    columns: Sequence[str]
    rows: Iterable[Sequence[object]]
    ids: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Facts:
    """Names and values of one thing, a line each. *ids* and *notes* as in `Table`."""

    values: Mapping[str, object]
    ids: Sequence[str] = ()
    notes: Sequence[str] = ()
    tables: Sequence[Table] = field(default=())
    """Tables that belong to the thing, printed below it."""


def emit(options: Output, document: object, view: Table | Facts | str) -> None:
    """Print *document* (JSON-able) as the options say; *view* is the same thing for people."""
    match options.output:
        case Format.JSON:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        case Format.YAML:
            sys.stdout.write(yaml_text(document))
        case Format.TABLE:
            _emit_view(options, view)
    sys.stdout.flush()


def note(options: Output, text: str) -> None:
    """Tell the user something beside the result (stderr), unless `--quiet`."""
    if not options.quiet:
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()


def warn(options: Output, warnings: Iterable[str]) -> None:
    """Print warnings of a result for people; with JSON and YAML they stand in the document."""
    if options.output is Format.TABLE:
        for text in warnings:
            note(options, f"warning: {text}")


def print_error(message: str, *, hint: str, kind: str, code: ExitCode, format_: Format) -> None:
    """Print an error to stderr: `error: …` and `hint: …`, or with JSON one object `{"error": {…}}`."""
    if format_ is Format.JSON:
        error = {"type": kind, "message": message, "hint": hint, "exitCode": int(code)}
        sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"error: {visible(message, keep_lines=True)}\n")
        if hint:
            sys.stderr.write(f"hint: {visible(hint, keep_lines=True)}\n")
    sys.stderr.flush()


def wanted_format(tokens: Sequence[str]) -> Format:
    """Return the format that *tokens* ask for, also when the rest of them cannot be parsed."""
    for position, word in enumerate(tokens):
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name in {"--output", "-o"}:
            value = value if equals else next(iter(tokens[position + 1 :]), "")
            if value in tuple(Format):
                return Format(value)
    return Format.TABLE


# C0 and C1 controls and the marks that reorder text: a name or a reason must not move the cursor or hide what it says.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str, *, keep_lines: bool = False) -> str:
    """Return *text* with control characters escaped (`\\x1b`); line ends stay with *keep_lines*."""

    def escape(match: re.Match[str]) -> str:
        character = match.group()
        return character if keep_lines and character in "\n\t" else character.encode("unicode_escape").decode()

    return _CONTROL.sub(escape, text)


def cell(value: object) -> str:
    """Return *value* as one line of a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return visible(str(value))


def size_text(size: int | None) -> str:
    """Return a number of bytes as people read it: `532 B`, `1.4 MiB`."""
    if size is None:
        return ""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{int(amount)} B" if unit == "B" else f"{amount:.1f} {unit}"


def _emit_view(options: Output, view: Table | Facts | str) -> None:
    if isinstance(view, str):
        sys.stdout.write(view if view.endswith("\n") or not view else view + "\n")
        return
    if options.quiet:
        sys.stdout.writelines(f"{visible(name)}\n" for name in view.ids)
        return
    if isinstance(view, Facts):
        width = max((len(name) for name in view.values), default=0) + 2
        for name, value in view.values.items():
            sys.stdout.write(f"{name + ':':<{width}}{cell(value)}".rstrip() + "\n")
        for table in view.tables:
            sys.stdout.write("\n")
            _emit_table(table)
    else:
        _emit_table(view)
    for text in view.notes:
        note(options, text)


# Characters that a frame of Rich's puts between two columns.
GAP = 3


def _emit_table(table: Table, *, keep_case: bool = False) -> None:
    rows = [[cell(value) for value in row] for row in table.rows]
    widths = [max([len(name), *(len(row[i]) for row in rows)]) for i, name in enumerate(table.columns)]
    if sys.stdout.isatty() and sum(widths) + GAP * len(widths) <= shutil.get_terminal_size().columns:
        _emit_rich(table.columns, rows)
        return
    # Not a terminal, or too narrow: no frame, nothing cut off or folded, columns apart as kubectl prints them.
    heading = table.columns if keep_case else [name.upper() for name in table.columns]
    for line in [heading, *rows]:
        text = "  ".join(f"{value:<{width}}" for value, width in zip(line, widths, strict=True))
        sys.stdout.write(text.rstrip() + "\n")


def _emit_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Rich costs 60 ms at start: only where its wrapping and colours are seen.
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(value) for value in row))
    Console().print(table)


# Plain scalars that some YAML reader (1.1, 1.2, or one between them) takes for something else than a string: numbers in
# any notation, dates and sexagesimals start with a digit, a sign or a point; the rest are words.
_AMBIGUOUS = re.compile(
    r"[-+]?\.?[0-9].*|[-+]?\.(inf|nan)|y|n|yes|no|on|off|true|false|null|nil|none|~|=|<<|", re.IGNORECASE | re.DOTALL
)
# A block keeps neither blanks at the ends of its lines nor, without a mark that readers differ on, those at its start.
_NO_BLOCK = re.compile(r"\A[ \n]|[ \t](\n|\Z)")


def yaml_text(document: object) -> str:
    """Return *document* as YAML. Strings that a reader could take for a number, date or boolean are quoted."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = None
        if "\n" in text and not _NO_BLOCK.search(text) and not _CONTROL.search(text.replace("\n", "")):
            style = "|"
        elif _AMBIGUOUS.fullmatch(text):
            style = '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    rendered: str = yaml.dump(
        document, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10_000
    )
    return rendered


class ListWriter:
    """Prints a long list while it is found: JSON and YAML element by element, so that memory does not grow with it.

    A context manager. A table needs the width of its columns, so its cells are kept until the end. After an error
    nothing more is printed, and JSON is left open: a reader must not take the part for the whole.
    """

    def __init__(self, options: Output, columns: Sequence[str], *, empty: str = "", keep_case: bool = False) -> None:
        self._options = options
        self._keep_case = keep_case
        self._columns = columns
        self._empty = empty
        self._rows: list[Sequence[object]] = []
        self.count = 0

    def __enter__(self) -> "ListWriter":
        if self._options.output is Format.JSON:
            sys.stdout.write("[")
        return self

    def add(self, document: object, row: Sequence[object], name: str) -> None:
        """Print one element; *row* are its cells in a table, *name* what `--quiet` prints of it."""
        match self._options.output:
            case Format.JSON:
                sys.stdout.write((",\n " if self.count else "\n ") + json.dumps(document, ensure_ascii=False))
            case Format.YAML:
                sys.stdout.write(yaml_text([document]))
            case Format.TABLE if self._options.quiet:
                sys.stdout.write(visible(name) + "\n")
            case Format.TABLE:
                self._rows.append(row)
        self.count += 1

    def add_row(self, row: Sequence[object]) -> None:
        """Add a further row of the same element to a table; documents have it in the element."""
        if self._options.output is Format.TABLE and not self._options.quiet:
            self._rows.append(row)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        match self._options.output:
            case Format.JSON:
                sys.stdout.write("\n]\n" if self.count else "]\n")
            case Format.YAML if not self.count:
                sys.stdout.write("[]\n")
            case Format.TABLE if not self._options.quiet:
                if self._rows or not self._empty:
                    _emit_table(Table(self._columns, self._rows), keep_case=self._keep_case)
                else:
                    note(self._options, self._empty)
            case _:
                pass
        sys.stdout.flush()
