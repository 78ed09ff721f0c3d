"""Conditions on the item table, as SQL: checked word by word, rewritten for lists and dates, computed once per text.

Only columns, literals, comparisons, arithmetic, Boolean operators and a few functions of text, numbers and lists may
occur. Nothing else reaches polars, and polars' own SQL expressions read no files.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.tables.table import Table
from segue.errors import ConfigError, nearest

Mask = npt.NDArray[np.bool_]

_TOKEN = re.compile(
    r"""(?P<blank>\s+)
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")+")
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>[^\W\d]\w*)
    |(?P<sign><=|>=|<>|!=|\|\||[=<>+*/%(),-])
    """,
    re.VERBOSE,
)
_DAY = re.compile(r"'\d{4}-\d{2}-\d{2}'")
_MOMENT = re.compile(r"'\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?'")
_LONGEST = 4_000
_DEEPEST = 50

_OPERATORS = frozenset(
    [
        "AND",
        "OR",
        "NOT",
        "IN",
        "LIKE",
        "ILIKE",
        "IS",
        "NULL",
        "TRUE",
        "FALSE",
        "BETWEEN",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "ANY",
        "DATE",
        "TIMESTAMP",
    ]
)
_FUNCTIONS = frozenset(
    [
        "ABS",
        "CEIL",
        "CEILING",
        "FLOOR",
        "ROUND",
        "MOD",
        "SIGN",
        "SQRT",
        "LN",
        "LOG10",
        "EXP",
        "POW",
        "POWER",
        "GREATEST",
        "LEAST",
        "COALESCE",
        "IFNULL",
        "NULLIF",
        "LOWER",
        "UPPER",
        "LENGTH",
        "CHAR_LENGTH",
        "LEFT",
        "RIGHT",
        "SUBSTR",
        "SUBSTRING",
        "TRIM",
        "LTRIM",
        "RTRIM",
        "REPLACE",
        "CONCAT",
        "STARTS_WITH",
        "ENDS_WITH",
        "ARRAY_CONTAINS",
        "ARRAY_LENGTH",
    ]
)
_FOREIGN = frozenset({"Agg", "Over", "Window", "SubPlan", "Selector", "Explode", "Len", "AnonymousFunction", "Rolling"})
"""Nodes of an expression that are no calculation on the values of one row."""


class _Token(NamedTuple):
    kind: str
    text: str

    @property
    def upper(self) -> str:
        """The word in capitals."""
        return self.text.upper() if self.kind == "word" else self.text


def condition_mask(where: str, table: Table | None, ids: pl.Series) -> Mask:
    """Mask (n_items + 1,) of the item codes that fulfil a condition; code 0 does not.

    Parameters
    ----------
    where
        A condition in SQL on the columns of the table and on `item`, the raw id, such as
        "price < 20 AND category = 'tea'". A column of several categories is compared as a set: `genres = 'Drama'` and
        `genres IN ('Drama', 'War')` are true if the item has one of them. An item without a value fulfils no
        comparison, and no negation of one. Dates may be written as texts.
    table
        The item table.
    ids
        Raw ids in the order of the codes.

    Raises
    ------
    ConfigError
        There is no table; the text is no condition, names an unknown column, calls something that is not allowed, or
        compares values of different types.
    """
    if table is None:
        raise ConfigError("where= needs a table of items: prepare the Dataset with items= (segue prepare --items).")
    tokens = _tokens(where)
    kinds = {"item": "category", **table.kinds}
    _check_words(tokens, where, kinds)
    text = "".join(token.text for token in _rewritten(tokens, kinds, where))
    columns = [name for name in table.frame.columns if name in {_name(token) for token in tokens}]
    frame = pl.DataFrame([ids.alias("item"), *(table.frame[name] for name in columns)])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expression = pl.sql_expr(text)
            _check_tree(expression, where)
            result = frame.select(expression.alias("fulfilled")).to_series()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"where={where!r} is no condition on the item table: {reason}.") from None
    if result.dtype != pl.Boolean or len(result) not in (1, len(ids)):
        raise ConfigError(
            f"where={where!r} is no condition: it gives {result.dtype}, expected true or false for each item, as in "
            "\"price < 20 AND category = 'tea'\"."
        )
    mask = np.zeros(len(ids) + 1, dtype=np.bool_)
    mask[1:] = result.fill_null(False).to_numpy()
    return mask


def _tokens(where: str) -> list[_Token]:
    if not where.strip() or len(where) > _LONGEST:
        raise ConfigError(f"where= is a condition of 1 to {_LONGEST:,} characters: found {len(where):,}.")
    tokens, position = [], 0
    while position < len(where):
        match = _TOKEN.match(where, position)
        if match is None or where.startswith(("--", "/*"), position):
            raise ConfigError(
                f"where={where!r} is no condition: {where[position : position + 10]!r} is not understood. Texts "
                "stand in single quotes, columns with blanks in double quotes."
            )
        tokens.append(_Token(str(match.lastgroup), match.group()))
        position = match.end()
    depth = deepest = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise ConfigError(f"where= has {deepest} brackets within each other: expected {_DEEPEST} at most.")
    return tokens


def _name(token: _Token) -> str:
    """Name of the column that a token may mean."""
    return token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text


def _check_words(tokens: list[_Token], where: str, kinds: Mapping[str, str]) -> None:
    """Raise a ConfigError for a word that is neither a column nor an operator nor an allowed function."""
    solid = [token for token in tokens if token.kind != "blank"]
    for token, following in zip(solid, [*solid[1:], _Token("sign", "")], strict=True):
        if token.kind not in ("word", "quoted"):
            continue
        name, is_call = _name(token), following.text == "(" and token.kind == "word"
        if is_call and token.upper not in _FUNCTIONS | _OPERATORS:
            raise ConfigError(
                f"where={where!r} calls {token.text}(…), which is not allowed. Allowed: "
                f"{', '.join(sorted(_FUNCTIONS)).lower()}."
            )
        if is_call or (token.kind == "word" and token.upper in _OPERATORS and name not in kinds):
            continue
        if name not in kinds:
            raise ConfigError(
                f'where={where!r} names "{name}", which is no column of the item table: '
                f"{nearest(name, [one for one, kind in kinds.items() if kind != 'vector'])} "
                "Texts stand in single quotes."
            )
        if kinds[name] == "vector":
            raise ConfigError(f'where={where!r} names "{name}", a column of vectors: they cannot be compared.')


def _rewritten(tokens: list[_Token], kinds: Mapping[str, str], where: str) -> Iterator[_Token]:
    """The tokens, with comparisons of lists as calls, and with texts that are dates as dates."""
    solid = [token for token in tokens if token.kind != "blank"]
    has_moments = any(kinds.get(_name(token)) == "moment" for token in solid if token.kind in ("word", "quoted"))
    space, index = _Token("blank", " "), 0
    while index < len(solid):
        token = solid[index]
        is_column = token.kind == "quoted" or (token.kind == "word" and _name(token) in kinds)
        if is_column and kinds[_name(token)] == "categories":
            replaced, used = _of_list(token, solid[index + 1 :], where)
            yield from (_Token("word", replaced), space)
            index += 1 + used
            continue
        if is_column:
            yield _Token("quoted", '"' + _name(token).replace('"', '""') + '"')
        elif (
            has_moments and token.kind == "text" and (index == 0 or solid[index - 1].upper not in ("DATE", "TIMESTAMP"))
        ):
            yield _Token("text", _dated(token.text))
        else:
            yield token
        yield space
        index += 1


def _dated(text: str) -> str:
    if _DAY.fullmatch(text):
        return f"DATE {text}"
    if _MOMENT.fullmatch(text):
        seconds = text[1:-1].replace("T", " ")
        return f"TIMESTAMP '{seconds}:00'" if seconds.count(":") == 1 else f"TIMESTAMP '{seconds}'"
    return text


def _of_list(column: _Token, rest: list[_Token], where: str) -> tuple[str, int]:
    """Call for a comparison of a column of several categories, and the number of tokens that it takes."""
    name = '"' + _name(column).replace('"', '""') + '"'
    words = [token.upper for token in rest[:3]]
    if words[:1] and words[0] in ("=", "<>", "!=") and len(rest) > 1 and rest[1].kind == "text":
        call = f"array_contains({name}, {rest[1].text})"
        return (call if words[0] == "=" else f"(NOT {call})"), 2
    negated = words[:1] == ["NOT"]
    if words[negated : negated + 2] == ["IN", "("]:
        start = negated + 2
        length = next((n for n, token in enumerate(rest[start:]) if token.text == ")"), len(rest))
        values = rest[start : start + length : 2]
        commas = rest[start + 1 : start + length : 2]
        if values and all(one.kind == "text" for one in values) and all(one.text == "," for one in commas):
            calls = " OR ".join(f"array_contains({name}, {one.text})" for one in values)
            return f"(NOT ({calls}))" if negated else f"({calls})", start + length + 1
    if words[:1] == ["IS"] or not words or words[0] in (",", ")"):
        return name, 0
    raise ConfigError(
        f"where={where!r}: {column.text} holds several categories; compare it as in {column.text} = 'a', "
        f"{column.text} IN ('a', 'b'), or array_length({column.text}) > 1."
    )


def _check_tree(expression: pl.Expr, where: str) -> None:
    """Raise a ConfigError if an expression holds more than calculations on one row."""
    pending: list[Any] = [json.loads(expression.meta.serialize(format="json"))]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if _FOREIGN & node.keys():
                raise ConfigError(f"where={where!r} is no condition on single items: sums and queries are not allowed.")
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
        elif node in ("Len", "Wildcard"):
            raise ConfigError(f"where={where!r} is no condition on single items: counts are not allowed.")
