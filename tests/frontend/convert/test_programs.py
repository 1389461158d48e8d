"""Programs as they are, converted, and converted with everything staged: no difference that can be seen."""

from __future__ import annotations

import functools
import random
import warnings

import pytest

from tests.frontend.convert.harness import differences
from tests.frontend.convert.nasty import PROGRAMS
from tests.frontend.convert.programs import (
    EXPRESSION_FRAMES,
    EXPRESSIONS,
    FRAMES,
    LEAVES,
    PRELUDE,
    STATEMENTS,
    arguments,
    expression_programs,
    fill,
    possible,
    statement_programs,
)

CALLS = [functools.partial(arguments, n) for n in range(4)]
Program = tuple[str, str, str]


@functools.cache
def _statements() -> list[Program]:
    return list(statement_programs(tuple(FRAMES), tuple(LEAVES)))


@functools.cache
def _expressions() -> list[Program]:
    return list(expression_programs(tuple(EXPRESSION_FRAMES)))


def _check(programs: list[Program]) -> None:
    assert programs
    for name, text, get in programs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = differences(text, CALLS, get)
        assert not found, f"{name}\n{text[len(PRELUDE) :]}\n{found[0]}"


def _share(programs: list[Program], part: int, parts: int, step: int) -> list[Program]:
    """Every so manieth program, dealt out over the tests. The step shares no factor with the tables' sizes."""
    return [p for p in programs[::step][part::parts] if possible(p[1])]


def test_every_kind_of_program_is_there() -> None:
    chosen = _share(_statements(), 0, 1, 47) + _share(_expressions(), 0, 1, 19)
    assert len(chosen) > 800
    words = {word for name, _, _ in chosen for word in name.split("-")}
    assert words >= {*FRAMES, *STATEMENTS, *LEAVES, *EXPRESSION_FRAMES, *EXPRESSIONS}


@pytest.mark.parametrize("part", range(8))
def test_statements(part: int) -> None:
    _check(_share(_statements(), part, 8, 47))


@pytest.mark.parametrize("part", range(8))
def test_expressions(part: int) -> None:
    _check(_share(_expressions(), part, 8, 19))


@pytest.mark.parametrize("name", PROGRAMS)
def test_by_hand(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = differences(PROGRAMS[name], [lambda n=n: (n,) for n in range(4)])  # type: ignore[misc]
    assert not found, found[0]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(64))
def test_all_pairs(part: int) -> None:
    _check(_share(_statements(), part, 64, 1) + _share(_expressions(), part, 64, 1))


def _random_block(draw: random.Random, depth: int, level: list[int]) -> str:
    """Some statements, nested at random."""
    lines = []
    for _ in range(draw.randint(1, 2)):
        if depth and draw.random() < 0.8:
            level[0] += 1
            shell = STATEMENTS[draw.choice(list(STATEMENTS))].replace("{k}", str(level[0]))
            lines.append(fill(shell, _random_block(draw, depth - 1, level)))
        else:
            lines.append(LEAVES[draw.choice(list(LEAVES))])
    return "\n".join(lines)


def _random_programs(seed: int, count: int) -> list[Program]:
    draw = random.Random(seed)
    found: list[Program] = []
    while len(found) < count:
        frame = draw.choice([f for f in FRAMES if f != "in_class"])
        shell, get = FRAMES[frame]
        text = PRELUDE + fill(shell, _random_block(draw, 4, [0]))
        # `while True` with a `continue` or without a way out would not end
        if "while True" in text or text.count("\n") > 250:
            continue
        if possible(text):
            found.append((f"random-{seed}", text, get))
    return found


def test_random_nestings() -> None:
    _check(_random_programs(1, 10))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_more_random_nestings(seed: int) -> None:
    _check(_random_programs(seed, 50))
