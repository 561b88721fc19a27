"""Parses the operators of a Resource Graph query, following which columns exist after each of them."""

from collections.abc import Callable, Mapping

from strongroom.controlplane.arm.kql import syntax
from strongroom.controlplane.arm.kql.expressions import ExpressionParser
from strongroom.controlplane.arm.kql.functions import FUNCTIONS
from strongroom.controlplane.arm.kql.lexer import Kind, Token, tokenize
from strongroom.controlplane.arm.kql.values import Type

MAX_OPERATORS = 100  # the longest query of a client has 14
MAX_SORT_KEYS = 16  # each is held for each row, and is a sort of its own
MAX_COLUMNS = 200  # bounds the size of a row of the answer; the tables have 16

TABLES = ("RecoveryServicesResources", "Resources")
DEFAULT_TABLE = "Resources"  # what Resource Graph reads when a query names no table

# The columns of both tables. Source: https://learn.microsoft.com/azure/governance/resource-graph/concepts/query-language.
COLUMNS: Mapping[str, Type] = {
    **dict.fromkeys(("id", "name", "type", "tenantId", "kind", "location"), Type.STRING),
    **dict.fromkeys(("resourceGroup", "subscriptionId", "managedBy"), Type.STRING),
    **dict.fromkeys(("sku", "plan", "properties", "tags", "identity", "zones", "extendedLocation"), Type.DYNAMIC),
}

Scope = dict[str, Type]


def parse_query(query: str) -> tuple[str, tuple[syntax.Operator, ...]]:
    """Return the table that *query* reads, as `TABLES` writes it, and what it does with the rows.

    Raises `KqlError` for everything outside the supported language.
    """
    return _Parser(tokenize(query)).query()


class _Parser(ExpressionParser):
    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens, dict(COLUMNS))
        self.parsers: Mapping[str, Callable[[Token], syntax.Operator]] = {
            "count": self._count,
            "distinct": self._distinct,
            "extend": self._extend,
            "limit": self._take,
            "order": self._sort,
            "project": self._project,
            "project-away": self._project_away,
            "sort": self._sort,
            "summarize": self._summarize,
            "take": self._take,
            "top": self._top,
            "where": self._where,
        }

    def query(self) -> tuple[str, tuple[syntax.Operator, ...]]:
        operators: list[syntax.Operator] = []
        table = self._table()
        if table is None:
            table = DEFAULT_TABLE
            operators.append(self._operator())
        while self.accept("|"):
            if len(operators) == MAX_OPERATORS:
                raise self.token.error(f"the query has more than {MAX_OPERATORS} operators")
            operators.append(self._operator())
            if len(self.scope) > MAX_COLUMNS:
                raise operators[-1].at.error(f"the query makes more than {MAX_COLUMNS} columns")
        self.accept(";")
        if self.token.kind is not Kind.END:
            raise self.unexpected("|", "the end of the query")
        return table, tuple(operators)

    def _table(self) -> str | None:
        token = self.token
        following = self.tokens[self.index + 1] if token.kind is not Kind.END else token
        known = {table.lower(): table for table in TABLES}
        if token.kind is Kind.NAME and token.text.lower() in known:
            self.advance()
            return known[token.text.lower()]
        # A query may open with an operator; but `X |`, `X` and `X;` name a table.
        names_table = following.kind is Kind.END or following.text in ("|", ";")
        if token.kind is Kind.NAME and token.text in self.parsers and not (names_table and token.text != "count"):
            return None
        if token.kind is Kind.NAME and names_table:
            raise token.error(f"there is no table {token.shown}", *TABLES)
        raise self.unexpected(*TABLES, *self.parsers)

    def _operator(self) -> syntax.Operator:
        at = self.token
        word = at.text
        if at.kind is not Kind.NAME:
            raise self.unexpected(*self.parsers)
        self.advance()
        # `project-away` and its like are one word, which the lexer cuts at the hyphen.
        while self.token.text == "-" and self.token.start == self.tokens[self.index - 1].end:
            part = self.tokens[self.index + 1]
            if part.kind is not Kind.NAME or part.start != self.token.end:
                break
            word = f"{word}-{part.text}"
            self.advance()
            self.advance()
        if word not in self.parsers:
            whole = Token(at.kind, word, at.start, at.start + len(word), at.line, at.column)
            raise whole.error(f"{whole.shown} is not a supported operator", *self.parsers)
        return self.parsers[word](at)

    def _where(self, at: Token) -> syntax.Operator:
        return syntax.Where(at, self.predicate())

    def _extend(self, at: Token) -> syntax.Operator:
        columns = self._named_list()
        for column in columns:
            self.scope[column.name] = column.expression.type
        return syntax.Extend(at, columns)

    def _project(self, at: Token) -> syntax.Operator:
        columns = self._named_list()
        self.scope = {column.name: column.expression.type for column in columns}
        return syntax.Project(at, columns, distinct=False)

    def _project_away(self, at: Token) -> syntax.Operator:
        names = set()
        while True:
            names.add(self.column().name)
            if not self.accept(","):
                break
        self.scope = {name: kind for name, kind in self.scope.items() if name not in names}
        return syntax.ProjectAway(at, frozenset(names))

    def _distinct(self, at: Token) -> syntax.Operator:
        if self.accept("*"):
            columns = tuple(
                syntax.Named(name, syntax.Column(type=kind, name=name)) for name, kind in self.scope.items()
            )
        else:
            columns = self._named_list()
        self.scope = {column.name: column.expression.type for column in columns}
        return syntax.Project(at, columns, distinct=True)

    def _summarize(self, at: Token) -> syntax.Operator:
        counts: list[str] = []
        if not self.at_word("by"):
            while True:
                name = self._assigned_name()
                if not self.at_word("count") or self.tokens[self.index + 1].text != "(":
                    raise self.unexpected("count()", *(() if counts or name else ("by",)))
                self.advance()
                self.expect("(")
                self.expect(")")
                counts.append(
                    self._unique(name or "count_", counts, explicit=self.tokens[self.index - 1] if name else None)
                )
                if not self.accept(","):
                    break
        by: tuple[syntax.Named, ...] = ()
        if not counts or self.at_word("by"):
            self.expect_word("by")
            by = self._named_list(taken=tuple(counts))
        self.scope = {column.name: column.expression.type for column in by} | dict.fromkeys(counts, Type.NUMBER)
        return syntax.Summarize(at, tuple(counts), by)

    def _sort(self, at: Token) -> syntax.Operator:
        self.expect_word("by")
        keys = [self._sort_key()]
        while self.accept(","):
            if len(keys) == MAX_SORT_KEYS:
                raise self.token.error(f"the query sorts by more than {MAX_SORT_KEYS} keys")
            keys.append(self._sort_key())
        return syntax.Sort(at, tuple(keys), None)

    def _top(self, at: Token) -> syntax.Operator:
        limit = self._row_count()
        self.expect_word("by")
        return syntax.Sort(at, (self._sort_key(),), limit)

    def _take(self, at: Token) -> syntax.Operator:
        return syntax.Take(at, self._row_count())

    def _count(self, at: Token) -> syntax.Operator:
        self.scope = {"Count": Type.NUMBER}
        return syntax.Count(at)

    def _row_count(self) -> int:
        token = self.token
        if token.kind is not Kind.NUMBER or not isinstance(token.value, int):
            raise self.unexpected("a whole number of rows")
        self.advance()
        return token.value

    def _sort_key(self) -> syntax.SortKey:
        expression = self.expression()
        descending = not self.accept_word("asc")
        if descending:
            self.accept_word("desc")
        nulls_first = not descending
        if self.accept_word("nulls"):
            nulls_first = self.accept_word("first")
            if not nulls_first:
                self.expect_word("last", "first")
        return syntax.SortKey(expression, descending, nulls_first)

    def _named_list(self, taken: tuple[str, ...] = ()) -> tuple[syntax.Named, ...]:
        columns: list[syntax.Named] = []
        unnamed = 0
        while True:
            at = self.token
            name = self._assigned_name()
            expression = self.expression()
            names = [*taken, *(column.name for column in columns)]
            derived = name or _derived_name(expression)
            if derived is None:
                unnamed += 1
                derived = f"Column{unnamed}"
            columns.append(syntax.Named(self._unique(derived, names, explicit=at if name else None), expression))
            if len(columns) > MAX_COLUMNS:
                raise at.error(f"the query makes more than {MAX_COLUMNS} columns")
            if not self.accept(","):
                return tuple(columns)

    def _assigned_name(self) -> str | None:
        token = self.token
        if token.kind is Kind.NAME and self.tokens[self.index + 1].text == "=":
            self.advance()
            self.advance()
            return token.text
        return None

    def _unique(self, name: str, taken: list[str], *, explicit: Token | None) -> str:
        if name not in taken:
            return name
        if explicit is not None:
            raise explicit.error(f"the column {name!r} is named twice here", "another name")
        return next(candidate for number in range(1, len(taken) + 2) if (candidate := f"{name}{number}") not in taken)


def _derived_name(expression: syntax.Expression) -> str | None:
    """Return the name of an unnamed column as Kusto derives it: `properties.a.b` gives `properties_a_b`."""
    match expression:
        case syntax.Column(name=name):
            return name
        case syntax.Path(base=base, steps=steps):
            root = _derived_name(base)
            return None if root is None else "_".join([root, *map(str, steps)])
        case syntax.Call(name=name, arguments=(first, *_)) if FUNCTIONS[name].keeps_name:
            return _derived_name(first)
        case _:
            return None
