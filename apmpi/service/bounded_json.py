"""JSON that comes from outside, bounded in length, depth and numbers before it is parsed.

json.loads limits its recursion by a count, not by the stack that is there: in Python 3.13 a line that is
nested deeper than some hundred levels overflows the stack of a thread of 512 KiB and ends the process.
"""

import json
import math
import re
from typing import Any, NoReturn

# What apmpi writes is nested three deep.
DEPTH_MAX = 8
# An integer of 64 bits has 19 digits and a sign.
INTEGER_DIGITS_MAX = 20


class JsonError(ValueError):
    """The text can't be used as JSON; `str()` is the reason, without the place."""


def parsed(text: bytes, bytes_max: int) -> dict[str, Any]:
    """Return the object that is all of `text`.

    Raises JsonError for what is no object in UTF-8, longer than `bytes_max`, nested deeper than DEPTH_MAX,
    or has a key twice, half a surrogate pair, or a number that is not finite or too long.
    """
    if len(text) > bytes_max:
        raise JsonError(f"is {len(text)} bytes long, expected at most {bytes_max}")
    try:
        decoded = text.decode()  # not by json.loads: it would take UTF-16 and UTF-32, too
    except UnicodeDecodeError:
        raise JsonError("is not UTF-8, expected JSON") from None
    if _deeper_than(decoded, DEPTH_MAX):
        raise JsonError(f"is nested more than {DEPTH_MAX} levels deep, expected fewer")
    try:
        content = json.loads(
            decoded,
            object_pairs_hook=_object,
            parse_constant=_refused_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
        if re.search(r"\\u[dD][89a-fA-F]", decoded):
            json.dumps(content, ensure_ascii=False).encode()
    except JsonError:
        raise
    except UnicodeEncodeError:
        raise JsonError("holds half a surrogate pair, expected characters") from None
    except ValueError:
        raise JsonError("is not understood, expected JSON") from None
    if not isinstance(content, dict):
        raise JsonError("is no object, expected one")
    return content


def _deeper_than(text: str, levels: int) -> bool:
    """Return whether brackets outside strings are nested deeper.

    Exact up to the text's first mistake, behind which nothing is parsed."""
    without_escapes = text.replace("\\\\", "").replace('\\"', "")
    depth = 0
    for outside_strings in without_escapes.split('"')[::2]:
        for bracket in re.findall(r"[][{}]", outside_strings):
            depth += 1 if bracket in "[{" else -1
            if depth > levels:
                return True
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise JsonError("has a key twice, expected each once")
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError("holds a number too large for a float, expected finite ones")
    return value


def _integer(text: str) -> int:
    if len(text) > INTEGER_DIGITS_MAX:
        raise JsonError(f"holds an integer of {len(text)} digits, expected at most {INTEGER_DIGITS_MAX}")
    return int(text)


def _refused_constant(name: str) -> NoReturn:
    raise JsonError(f"holds {name}, expected finite numbers")
