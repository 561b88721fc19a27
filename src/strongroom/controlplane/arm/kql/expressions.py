"""Parses the expressions of a Resource Graph query and checks their types as far as the query tells them."""

from datetime import timedelta

from strongroom.controlplane.arm.kql import syntax
from strongroom.controlplane.arm.kql.errors import KqlError
from strongroom.controlplane.arm.kql.functions import FUNCTIONS, within_long
from strongroom.controlplane.arm.kql.lexer import Kind, Token
from strongroom.controlplane.arm.kql.values import Type, Value

MAX_DEPTH = 100  # the evaluator recurses as deep as an expression is nested: far below Python's own limit of 1,000

# How strongly operators bind, weakest first.
_OR, _AND, _COMPARE, _ADD, _OPERAND = 1, 2, 3, 4, 5
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_TEXT_WORDS = ("contains", "startswith", "endswith", "has")
_LITERALS = {
    Kind.STRING: Type.STRING,
    Kind.NUMBER: Type.NUMBER,
    Kind.TIMESPAN: Type.TIMESPAN,
    Kind.DATETIME: Type.DATETIME,
}
# What `left + right` and `left - right` give; what is not here is an error.
_SUMS = {
    (Type.NUMBER, Type.NUMBER, "+"): Type.NUMBER,
    (Type.NUMBER, Type.NUMBER, "-"): Type.NUMBER,
    (Type.TIMESPAN, Type.TIMESPAN, "+"): Type.TIMESPAN,
    (Type.TIMESPAN, Type.TIMESPAN, "-"): Type.TIMESPAN,
    (Type.DATETIME, Type.TIMESPAN, "+"): Type.DATETIME,
    (Type.DATETIME, Type.TIMESPAN, "-"): Type.DATETIME,
    (Type.TIMESPAN, Type.DATETIME, "+"): Type.DATETIME,
    (Type.DATETIME, Type.DATETIME, "-"): Type.TIMESPAN,
}


class ExpressionParser:
    """Reads *tokens* from the front; *scope* holds the columns that exist, with their types."""

    def __init__(self, tokens: list[Token], scope: dict[str, Type]) -> None:
        self.tokens = tokens
        self.scope = scope
        self.index = 0
        self.depth = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self.tokens[self.index]

    def advance(self) -> Token:
        """Take the next token; the END token stays."""
        token = self.token
        if token.kind is not Kind.END:
            self.index += 1
        return token

    def accept(self, symbol: str) -> bool:
        """Take the next token if it is *symbol*."""
        found = self.token.kind is Kind.SYMBOL and self.token.text == symbol
        if found:
            self.advance()
        return found

    def expect(self, symbol: str) -> None:
        """Take *symbol*; raises `KqlError` if the next token is another."""
        if not self.accept(symbol):
            raise self.unexpected(symbol)

    def at_word(self, word: str) -> bool:
        """Return whether the next token is the name *word*."""
        return self.token.kind is Kind.NAME and self.token.text == word

    def accept_word(self, word: str) -> bool:
        """Take the next token if it is the name *word*."""
        found = self.at_word(word)
        if found:
            self.advance()
        return found

    def expect_word(self, word: str, *others: str) -> None:
        """Take the name *word*; raises `KqlError`, which also names *others*, if the next token is another."""
        if not self.accept_word(word):
            raise self.unexpected(word, *others)

    def unexpected(self, *expected: str) -> KqlError:
        """Return the error that the next token is none of *expected*."""
        return self.token.error(f"{self.token.shown} cannot stand here", *expected)

    def column(self) -> syntax.Column:
        """Take the name of a column, bare or as `['name']`."""
        token = self.token
        if token.kind is Kind.NAME:
            name = self.advance().text
        elif self.accept("["):
            token = self.token
            if token.kind is not Kind.STRING:
                raise self.unexpected("the name of a column in quotes")
            name = str(self.advance().value)
            self.expect("]")
        else:
            raise self.unexpected("the name of a column")
        return self._resolve(name, token)

    def predicate(self) -> syntax.Expression:
        """Take an expression that is true or false."""
        at = self.token
        expression = self.expression()
        # `name = 'x'` fails at the `=`, rather than for `name` being a string.
        if self.token.kind is not Kind.END and self.token.text not in ("|", ";"):
            raise self.unexpected(*_COMPARISONS, "=~", "!~", "in", "in~", *_TEXT_WORDS, "and", "or", "|")
        self._require(expression, Type.BOOL, at)
        return expression

    def expression(self, binding: int = _OR) -> syntax.Expression:
        """Take an expression whose operators bind at least as strongly as *binding*."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._too_deep()
        at = self.token
        left = self._operand()
        while (level := self._level()) >= binding and level != 0:
            if level == _COMPARE:
                left = self._comparison(left, at)
                if self._level() == _COMPARE:
                    raise self.unexpected("and", "or", "brackets around one of the comparisons")
            elif level == _ADD:
                left = self._sum(left, at)
            else:
                left = self._logic(left, at, "and" if level == _AND else "or", level)
        self.depth -= 1
        return left

    def _level(self) -> int:
        token = self.token
        if token.kind is Kind.NAME:
            if token.text in ("and", "or"):
                return _AND if token.text == "and" else _OR
            return _COMPARE if token.text == "in" or token.text.removesuffix("_cs") in _TEXT_WORDS else 0
        if token.kind is Kind.SYMBOL:
            if token.text in ("+", "-"):
                return _ADD
            return _COMPARE if token.text in (*_COMPARISONS, "=~") or token.text[0] == "!" else 0
        return 0

    def _logic(self, left: syntax.Expression, at: Token, word: str, level: int) -> syntax.Expression:
        self._require(left, Type.BOOL, at)
        terms = [left]
        while self.accept_word(word):
            at = self.token
            term = self.expression(level + 1)
            self._require(term, Type.BOOL, at)
            terms.append(term)
        height, cost = self._over(*terms)
        return syntax.Logic(type=Type.BOOL, height=height, cost=cost, terms=tuple(terms), all_of=word == "and")

    def _sum(self, left: syntax.Expression, at: Token) -> syntax.Expression:
        terms, negative, kind = [left], [False], left.type
        while self.token.kind is Kind.SYMBOL and self.token.text in ("+", "-"):
            sign = self.advance()
            term = self.expression(_OPERAND)
            if Type.DYNAMIC in (kind, term.type):
                kind = Type.DYNAMIC
            elif (kind, term.type, sign.text) in _SUMS:
                kind = _SUMS[kind, term.type, sign.text]
            else:
                problem = f"a {kind.value} and a {term.type.value} cannot be joined by {sign.shown}"
                raise sign.error(problem, "two numbers", "times and timespans")
            terms.append(term)
            negative.append(sign.text == "-")
        height, cost = self._over(*terms)
        return syntax.Sum(type=kind, height=height, cost=cost, terms=tuple(terms), negative=tuple(negative))

    def _comparison(self, left: syntax.Expression, at: Token) -> syntax.Expression:
        sign = self.advance()
        word = sign.text.removeprefix("!") if sign.text != "!=" else "!="
        negated = sign.text[0] == "!" and word != "!="
        if word in ("in", "in~"):
            if word == "in" and self.token.text == "~" and self.token.start == sign.end:
                self.advance()
                word = "in~"
            return self._membership(left, at, ignore_case=word == "in~", negated=negated)
        right_at = self.token
        right = self.expression(_ADD)
        height, cost = self._over(left, right)
        if word in _COMPARISONS:
            kind = self._common_type(left, right, sign)
            return syntax.Comparison(
                type=Type.BOOL, height=height, cost=cost, operator=word, left=left, right=right, as_type=kind
            )
        self._require(left, Type.STRING, at)
        self._require(right, Type.STRING, right_at)
        word = "=~" if word == "~" else word
        return syntax.TextMatch(
            type=Type.BOOL, height=height, cost=cost, operator=word, left=left, right=right, negated=negated
        )

    def _membership(self, left: syntax.Expression, at: Token, *, ignore_case: bool, negated: bool) -> syntax.Expression:
        if ignore_case:
            self._require(left, Type.STRING, at)
        self.expect("(")
        members = []
        while True:
            member_at = self.token
            member = self.expression()
            if ignore_case:
                self._require(member, Type.STRING, member_at)
            self._common_type(left, member, member_at)
            members.append(member)
            if not self.accept(","):
                break
        self.expect(")")
        height, cost = self._over(left, *members)
        # A list of literals is looked up in one step.
        if all(isinstance(member, syntax.Literal) and member.type is Type.STRING for member in members):
            cost = left.cost + 1
        return syntax.Membership(
            type=Type.BOOL,
            height=height,
            cost=cost,
            left=left,
            members=tuple(members),
            ignore_case=ignore_case,
            negated=negated,
        )

    def _operand(self) -> syntax.Expression:
        negative = False
        sign = self.token
        while self.accept("-"):
            negative = not negative
        expression = self._primary()
        at = self.token
        steps: list[str | int] = []
        while (step := self._step()) is not None:
            steps.append(step)
        if steps:
            if expression.type is not Type.DYNAMIC:
                raise at.error(f"a {expression.type.value} has no members", "an operator", "a dynamic value before it")
            height, cost = self._over(expression)
            expression = syntax.Path(
                type=Type.DYNAMIC, height=height, cost=cost + len(steps), base=expression, steps=tuple(steps)
            )
        return self._negated(expression, sign) if negative else expression

    def _negated(self, expression: syntax.Expression, sign: Token) -> syntax.Expression:
        if expression.type not in (Type.NUMBER, Type.TIMESPAN, Type.DYNAMIC):
            raise sign.error(f"a {expression.type.value} has no opposite", "a number", "a timespan")
        if isinstance(expression, syntax.Literal):
            return syntax.Literal(type=expression.type, value=_opposite(expression.value))
        height, cost = self._over(expression)
        return syntax.Sum(type=expression.type, height=height, cost=cost, terms=(expression,), negative=(True,))

    def _step(self) -> str | int | None:
        if self.accept("."):
            if self.token.kind is Kind.NAME:
                return self.advance().text
            if not (self.token.kind is Kind.SYMBOL and self.token.text == "["):
                raise self.unexpected("the name of a property")
        if not self.accept("["):
            return None
        negative = self.accept("-")
        token = self.token
        if token.kind is Kind.NUMBER and isinstance(token.value, int):
            step: str | int = -token.value if negative else token.value
        elif token.kind is Kind.STRING and not negative:
            step = str(token.value)
        else:
            raise self.unexpected("an index such as [0]", "a name such as ['x']")
        self.advance()
        self.expect("]")
        return step

    def _primary(self) -> syntax.Expression:
        token = self.token
        if token.kind in _LITERALS:
            self.advance()
            return syntax.Literal(type=_LITERALS[token.kind], value=token.value)
        if self.accept("("):
            expression = self.expression()
            self.expect(")")
            return expression
        if token.kind is Kind.NAME:
            if self.tokens[self.index + 1].text == "(" and self.tokens[self.index + 1].kind is Kind.SYMBOL:
                return self._call()
            if token.text in ("true", "false") and token.text not in self.scope:
                self.advance()
                return syntax.Literal(type=Type.BOOL, value=token.text == "true")
            return self.column()
        if token.kind is Kind.SYMBOL and token.text == "[":
            return self.column()
        raise self.unexpected("a column", "a literal", "a function", "(")

    def _call(self) -> syntax.Expression:
        name = self.advance()
        function = FUNCTIONS.get(name.text)
        if function is None:
            raise name.error(f"{name.shown} is not a supported function", *FUNCTIONS)
        self.expect("(")
        arguments: list[syntax.Expression] = []
        while not self.accept(")"):
            if arguments and not self.accept(","):
                raise self.unexpected(",", ")")
            at = self.token
            if len(arguments) == function.most:
                raise at.error(f"{name.text}() takes no more than {function.most} arguments", ")")
            argument = self.expression()
            is_condition = not arguments if name.text in ("iff", "iif") else len(arguments) % 2 == 0
            if function.accepts is not None:
                self._require(argument, function.accepts, at)
            elif name.text in ("iff", "iif", "case") and is_condition and self._symbol(","):
                self._require(argument, Type.BOOL, at)
            arguments.append(argument)
        if len(arguments) < function.least:
            raise name.error(f"{name.text}() takes at least {function.least} arguments, not {len(arguments)}")
        if name.text == "case" and len(arguments) % 2 == 0:
            problem = "case() takes pairs of a condition and a value, then the value for all else"
            raise name.error(problem, "an odd number of arguments")
        height, cost = self._over(*arguments)
        kind = _result_type(name.text, arguments)
        return syntax.Call(type=kind, height=height, cost=cost, name=name.text, arguments=tuple(arguments))

    def _symbol(self, symbol: str) -> bool:
        return self.token.kind is Kind.SYMBOL and self.token.text == symbol

    def _resolve(self, name: str, at: Token) -> syntax.Column:
        # Kusto's names are case-sensitive. Ours give way where only one column can be meant.
        if name not in self.scope:
            folded = [known for known in self.scope if known.lower() == name.lower()]
            if len(folded) != 1:
                raise at.error(f"there is no column {at.shown}", *list(self.scope)[:20])
            name = folded[0]
        return syntax.Column(type=self.scope[name], name=name)

    def _require(self, expression: syntax.Expression, kind: Type, at: Token) -> None:
        if expression.type not in (kind, Type.DYNAMIC):
            raise at.error(f"a {expression.type.value} cannot stand where a {kind.value} is needed", f"a {kind.value}")

    def _common_type(self, left: syntax.Expression, right: syntax.Expression, at: Token) -> Type:
        if left.type is Type.DYNAMIC or right.type is left.type:
            return right.type
        if right.type is not Type.DYNAMIC:
            problem = f"a {left.type.value} cannot be compared with a {right.type.value}"
            raise at.error(problem, "values of one type: tostring(), todatetime(), toint() and tobool() convert")
        return left.type

    def _over(self, *parts: syntax.Expression) -> tuple[int, int]:
        """Return the height and the cost of a node over *parts*."""
        height = 1 + max((part.height for part in parts), default=0)
        if height > MAX_DEPTH:
            raise self._too_deep()
        return height, 1 + sum(part.cost for part in parts)

    def _too_deep(self) -> KqlError:
        return self.token.error(f"the expression is nested more than {MAX_DEPTH} deep")


def _result_type(name: str, arguments: list[syntax.Expression]) -> Type:
    match name:
        case "iff" | "iif":
            chosen = arguments[1:]
        case "case":
            chosen = [*arguments[1:-1:2], arguments[-1]]
        case "bin":
            # Rounding keeps the type: of a number a number, of a time a time.
            return arguments[0].type
        case _:
            return FUNCTIONS[name].returns
    kinds = {argument.type for argument in chosen}
    return kinds.pop() if len(kinds) == 1 else Type.DYNAMIC


def _opposite(value: Value) -> Value:
    match value:
        case bool():
            return None
        case int() | float():
            return within_long(-value)
        case timedelta():
            return -value
        case _:
            return None
