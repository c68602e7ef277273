"""Constants of the C code, so that a reference model states no value a second time."""

from __future__ import annotations

import ast
import operator
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

NATIVE = Path(__file__).parents[2] / "native"
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
ENUM = re.compile(r"\benum(?:\s+\w+)?\s*\{([^}]*)\}")
CONSTANTS = re.compile(r"^(?:static )?const (?:float|double|int|uint32_t) ([^;\[\]]*);", re.MULTILINE)
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def _value(text: str, known: dict[str, float]) -> float:
    """Value of an expression of numbers, names that are known and + - * /."""

    def evaluate(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name(id=name):
                return known[name]
            case ast.UnaryOp(op=op, operand=operand):
                return OPERATORS[type(op)](evaluate(operand))
            case ast.BinOp(left=left, op=op, right=right):
                a, b = evaluate(left), evaluate(right)
                if isinstance(op, ast.Div) and isinstance(a, int) and isinstance(b, int):
                    return a // b
                return OPERATORS[type(op)](a, b)
        raise ValueError(f"{text}: is no constant expression of numbers and known names")

    return evaluate(ast.parse(re.sub(r"(?<=[\d.])[fu]\b", "", text.strip()), mode="eval").body)


@cache
def c_constants(*files: str) -> SimpleNamespace:
    """Enumerators and `static const` numbers of files of native/, by name; later files may use those before.

    A name whose value needs more than numbers, names and + - * / is left out.
    """
    known: dict[str, float] = {}
    for file in files:
        text = COMMENT.sub(" ", (NATIVE / file).read_text())
        for body in ENUM.findall(text):
            value: float = -1
            for entry in filter(str.strip, body.split(",")):
                name, _, expression = entry.partition("=")
                try:
                    value = _value(expression, known) if expression else value + 1
                except (KeyError, ValueError, SyntaxError):
                    continue
                known[name.strip()] = value
        for declared in CONSTANTS.findall(text):
            for entry in declared.split(","):
                name, _, expression = entry.partition("=")
                try:
                    known[name.strip()] = _value(expression, known)
                except (KeyError, ValueError, SyntaxError):
                    continue
    return SimpleNamespace(**known)
