"""Text from outside reaches json.loads only within the depth, length and types that apmpi itself writes."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apmpi.cards.realtime import THREAD_STACK_BYTES
from apmpi.service import bounded_json
from apmpi.service.bounded_json import DEPTH_MAX, JsonError, parsed

LONG = 1_000_000
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e300, 1e300) | st.text()
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def depth_of(content: object) -> int:
    if isinstance(content, dict):
        return 1 + max(map(depth_of, content.values()), default=0)
    if isinstance(content, list):
        return 1 + max(map(depth_of, content), default=0)
    return 0


@settings(max_examples=300, derandomize=True)
@given(st.dictionaries(st.text(), TREES), st.booleans())
def test_objects_are_read_as_json_does_it_up_to_the_depth(
    content: dict[str, object], ascii_only: bool
) -> None:
    """Strings full of brackets, quotes and backslashes do not count as depth."""
    text = json.dumps(content, ensure_ascii=ascii_only)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    if depth_of(content) <= DEPTH_MAX:
        assert parsed(encoded, LONG) == content
    else:
        with pytest.raises(JsonError, match="nested more than 8 levels deep"):
            parsed(encoded, LONG)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 190, "is nested more than 8 levels deep, expected fewer"),
        (b'{"a":' * 8000, "is nested more than 8 levels deep, expected fewer"),
        (b'{"\\\\":"\\"",' + b'"b":[' * 100_000, "is nested more than 8 levels deep, expected fewer"),
        (b'{"a": "' + b"x" * LONG, "is 1000007 bytes long, expected at most 1000000"),
        (b'{"a": 1e999}', "holds a number too large for a float, expected finite ones"),
        (b'{"a": NaN}', "holds NaN, expected finite numbers"),
        (b'{"a": -Infinity}', "holds -Infinity, expected finite numbers"),
        (b'{"a": ' + b"9" * 5000 + b"}", "holds an integer of 5000 digits, expected at most 20"),
        (b'{"a": "\\ud800"}', "holds half a surrogate pair, expected characters"),
        (b'{"\\uDC00": 1}', "holds half a surrogate pair, expected characters"),
        (b'{"a": 1, "a": 2}', "has a key twice, expected each once"),
        (b'{"a": "\xff"}', "is not UTF-8, expected JSON"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8, expected JSON"),
        ("[".encode("utf-16-le") * 200, "is nested more than 8 levels deep, expected fewer"),
        (b"\xef\xbb\xbf{}", "is not understood, expected JSON"),
        (b"{} {}", "is not understood, expected JSON"),
        (b"[1]", "is no object, expected one"),
        (b"", "is not understood, expected JSON"),
    ],
)
def test_what_is_no_such_object_is_refused_in_a_sentence(text: bytes, reason: str) -> None:
    with pytest.raises(JsonError) as caught:
        parsed(text, LONG)
    assert str(caught.value) == reason


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parsed(b'{"a": "\\ud83c\\udfa4"}', LONG) == {"a": "🎤"}


def test_no_text_reaches_the_parser_deeper_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread with the service's stack: brackets behind every kind of string and escape."""
    deepest = 0
    loads = json.loads

    def measured(text: str, **hooks: object) -> object:
        nonlocal deepest
        depth, in_string, escaped = 0, False, False
        for letter in text:
            if in_string:
                in_string = escaped or letter != '"'
                escaped = not escaped and letter == "\\"
            else:
                in_string = letter == '"'
                depth += (letter in "[{") - (letter in "]}")
                deepest = max(deepest, depth)
        return loads(text, **hooks)  # type: ignore[arg-type]

    monkeypatch.setattr(bounded_json.json, "loads", measured)
    heads = (b"", b'{"a":', b'["\\"",', b'["\\\\",', b'["\\\\\\"",', b'[" [[[ ",', b'{"\\u0022":')
    refused = 0

    def read_all() -> None:
        nonlocal refused
        for head in heads:
            for brackets in (b"[" * 8000, b'{"a":' * 8000, b'[{"":' * 4000):
                with pytest.raises(JsonError):
                    parsed(head + brackets, LONG)
                refused += 1

    before = threading.stack_size(THREAD_STACK_BYTES)
    try:
        thread = threading.Thread(target=read_all)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    print(f"{refused} refused, the deepest that was parsed had {deepest} levels")
    assert refused == 3 * len(heads)
    assert deepest <= DEPTH_MAX
