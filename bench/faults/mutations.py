"""What happens to files: bytes flipped, cut and spliced, values swapped for others of another type."""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

_SNIPPETS = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    "\u202e\u0301\U0001f9ec".encode(),
    b"\x1b[2J",
    b"\r\n",
    b"\n---\n",
    b'"',
    b"{",
    b"]",
    b"[" * 400,
    b"{" * 3000,
    b"- " * 300,
    b'{"a":' * 2000,
    b"&a [*a]",
    b"*a",
    b"<<: *a",
    b"!!python/name:os.system",
    b"!!int x",
    b"!!binary =",
    b"9" * 5000,
    b"-1e999",
    b".nan",
    b"NaN",
    b"Infinity",
    b"0x" + b"f" * 300,
    b"1:1:1:1:1:1",
    b"2024-13-45",
    b"\\ud800",
    b"/dev/zero",
    b"../" * 40,
    b"e" * 5000,
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    10**30,
    1e308,
    5e-324,
    float("inf"),
    float("nan"),
    "",
    " ",
    "nan",
    "\0",
    "\ud800",
    "\U0001f9ec" * 50,
    "a" * 3000,
    "/dev/zero",
    "\x1b[31m",
    [],
    [[]],
    [None] * 50,
    {},
    {"": None},
    {"a": {"a": {"a": [1, "2", None]}}},
)


def broken_bytes(content: bytes, random: Random, most: int = 4) -> bytes:
    """The content after one to `most` accidents."""
    data = bytearray(content)
    for _ in range(random.randint(1, most)):
        _ACCIDENTS[random.randrange(len(_ACCIDENTS))](data, random)
    return bytes(data)


def _flip(data: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 1, 4, 30))):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _cut_end(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data) + 1) :]


def _cut_out(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data) + 1)
    del data[start : start + random.randint(1, 40)]


def _insert(data: bytearray, random: Random) -> None:
    place = random.randrange(len(data) + 1)
    data[place:place] = random.choice(_SNIPPETS)


def _repeat(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data) + 1)
    piece = data[start : start + random.randint(1, 60)] * random.choice((2, 20))
    place = random.randrange(len(data) + 1)
    data[place:place] = piece


def _overwrite(data: bytearray, random: Random) -> None:
    if data:
        place = random.randrange(len(data))
        data[place : place + 8] = random.randbytes(8)


_ACCIDENTS = (_flip, _cut_end, _cut_out, _insert, _repeat, _overwrite)


def swapped(value: Any, random: Random) -> Any:
    """The value with one to three of its parts, anywhere in it, replaced by something of another type."""
    copied = deepcopy(value)
    for _ in range(random.randint(1, 3)):
        copied = _swap_one(copied, random)
    return copied


def _swap_one(value: Any, random: Random) -> Any:
    places: list[tuple[Any, Any]] = []
    _walk(value, places)
    if not places:
        return deepcopy(random.choice(_VALUES))
    parent, key = random.choice(places)
    kind = random.randrange(5)
    if kind == 0 and isinstance(parent, dict):
        parent[random.choice(("", "x", "\x1b[0m", "é" * 40, "7"))] = parent.pop(key)
    elif kind == 1:
        del parent[key]
    elif kind == 2:
        other, place = random.choice(places)
        parent[key] = deepcopy(other[place])
    else:
        parent[key] = deepcopy(random.choice(_VALUES))
    return value


def _walk(value: Any, places: list[tuple[Any, Any]]) -> None:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        places.append((value, key))
        _walk(child, places)
