"""Programs on disk: a warm process generates no code and gives the same bits; nothing in the folder can hurt."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from kiln.ir import types as T
from kiln.ir.graph import Constant, Graph, GraphBuilder, SourceLoc
from kiln.ir.ops import OPS
from kiln.ir.program import CheckSite, Module, Program, Slot
from kiln.ir.stored import StoredError, decode, encode, graph_key
from kiln.runtime import cache, programs, targets

MLP = """
import sys, kiln
kiln.manual_seed(3)
model = kiln.nn.Sequential(kiln.nn.Linear(6, 8), kiln.nn.ReLU(), kiln.nn.Linear(8, 2))
f = kiln.compile(model)
x = kiln.arange(24.0).reshape(4, 6) / 7
results = [model(x), f(x), f(x)]
loss = results[-1].sum()
loss.backward()
results += [p.grad for p in model.parameters()]
print(*[r.detach().numpy().tobytes().hex() for r in results])
print(*sorted(m for m in sys.modules if m.split(".")[0] == "llvmlite" or m.startswith("kiln.codegen.")))
"""
CHECKED = """
import kiln
f = kiln.compile(lambda t, i: t[i] * 2)
t, i = kiln.arange(4.0), kiln.tensor([1, 3])
f(t, i), f(t, i)
try:
    f(t, kiln.tensor([1, 9]))
except kiln.KilnIndexError as error:
    print(error)
"""
SOURCES = tuple(str(Path(programs.__file__).parents[1] / name) for name in ("ir",))


def run(script: str, folder: Path, **more: str) -> list[str]:
    """The lines that a fresh process prints; warnings are errors in it unless `more` says otherwise."""
    env = {"PYTHONWARNINGS": "error", **os.environ, "KILN_CACHE_DIR": str(folder), **more}
    done = subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, text=True)
    assert more or not done.stderr
    return [*done.stdout.splitlines(), *(["stderr: " + done.stderr] if done.stderr else [])]


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file())


def test_a_warm_process_generates_no_code_and_gives_the_same_bits(tmp_path: Path) -> None:
    cold = run(MLP, tmp_path)
    assert "llvmlite" in cold[1] and "kiln.codegen.pipeline" in cold[1]
    before = {path: path.read_bytes() for path in files(tmp_path, "programs")}
    assert before
    assert run(MLP, tmp_path) == [cold[0], ""]
    assert {path: path.read_bytes() for path in files(tmp_path, "programs")} == before
    assert run(MLP, tmp_path, KILN_CACHE="0")[0] == cold[0]


def test_checks_of_a_warm_process_say_the_same(tmp_path: Path) -> None:
    cold = run(CHECKED, tmp_path)
    assert "9" in cold[0] and run(CHECKED, tmp_path) == cold


def test_damaged_files_are_rebuilt_with_one_warning_in_all(tmp_path: Path) -> None:
    cold = run(MLP, tmp_path)
    damaged = files(tmp_path, "programs") + files(tmp_path, "objects")
    for k, path in enumerate(damaged):
        data = path.read_bytes()
        path.write_bytes((data[:-1] + bytes([data[-1] ^ 1]), data[: len(data) // 2], b"")[k % 3])
    again = run(MLP, tmp_path, PYTHONWARNINGS="always")
    assert again[0] == cold[0]
    assert again[2].count("CacheWarning") == 1 and "damaged" in again[2]
    assert run(MLP, tmp_path) == [cold[0], ""]


def test_missing_objects_are_rebuilt_from_the_programs(tmp_path: Path) -> None:
    cold = run(MLP, tmp_path)
    for path in files(tmp_path, "objects"):
        path.unlink()
    again = run(MLP, tmp_path)
    assert again[0] == cold[0]
    assert "llvmlite" in again[1] and "kiln.codegen" not in again[1]


def test_processes_may_fill_one_folder_at_once(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONWARNINGS": "error", "KILN_CACHE_DIR": str(tmp_path)}
    started = [subprocess.Popen([sys.executable, "-c", MLP], env=env, stdout=subprocess.PIPE) for _ in range(3)]
    printed = {p.communicate()[0].splitlines()[0] for p in started}
    assert len(printed) == 1 and not any(p.returncode for p in started)
    assert not list(tmp_path.rglob("tmp*"))
    assert run(MLP, tmp_path) == [printed.pop().decode(), ""]


# ------------------------------------------------------------------------------- in this process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KILN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_warned", set())
    return tmp_path


def graph_of(
    value: float = 1.0, *, name: str = "g", line: int = 1, second: int = 2, data: Constant | None = None
) -> Graph:
    builder = GraphBuilder(name)
    x = builder.input(T.TensorType(T.float32, (3,)), "x")
    (a,) = builder.add(OPS["neg"], [x], {}, SourceLoc("user.py", line))
    (b,) = builder.add(OPS["exp"], [a], {}, SourceLoc("user.py", second))
    (c,) = builder.add(OPS["full"], [], {"shape": (3,), "dtype": T.float32, "value": value})
    (d,) = builder.add(OPS["add"], [b, c], {})
    if data is not None:
        (d,) = builder.add(OPS["add"], [d, builder.add(OPS["constant"], [], {"data": data})[0]], {})
    return builder.build([d])


def program_of(graph: Graph, *constants: Constant) -> Program:
    loc = graph.operations[1].loc
    return Program(
        name=graph.name,
        target=targets.host_target(),
        modules=(Module("a", "text é", ("a",)), Module("b", "more", ("b",), ("a",))),
        entries=("b",),
        slots=(Slot("input", 0), Slot("size", 0, "n0"), Slot("arena")),
        input_types=(T.TensorType(T.float32, (3, T.Sym("n0"))),),
        output_types=(T.TensorType(T.bool_, ()),),
        aliases=((0, 1),),
        arena_bytes=64,
        constants=constants,
        checks=(CheckSite("index", "gather", "bad {value}", loc), CheckSite("value", "other", "worse")),
        work=5,
    )


def test_programs_come_back_as_they_were() -> None:
    given = Constant(np.array([1, np.nan, -0.0], np.float32))
    made = Constant(np.arange(6, dtype=np.int64).reshape(2, 3))
    graph = graph_of(data=given)
    program = program_of(graph, given, made)
    data = encode(program, graph)
    back = decode(data, graph, program.target)
    assert replace(back, constants=()) == replace(program, constants=())
    assert back.constants[0] is given  # of the graph: not stored
    assert back.constants[1].digest() == made.digest()


def test_lines_and_data_are_those_of_the_graph_at_hand() -> None:
    program = program_of(graph_of(line=1, second=2))
    moved = graph_of(line=11, second=12)
    assert graph_key(moved) == graph_key(graph_of(line=1, second=2))
    back = decode(encode(program, graph_of(line=1, second=2)), moved, program.target)
    assert back.checks[0].loc == SourceLoc("user.py", 12) and back.checks[1].loc is None


@pytest.mark.parametrize(
    "other",
    [
        graph_of(2.0),
        graph_of(-1.0),
        graph_of(name="h"),
        graph_of(line=1, second=1),  # a check could not be told which of two lines is its own
        graph_of(data=Constant(np.ones(3, np.float32))),
    ],
)
def test_another_graph_has_another_key(other: Graph) -> None:
    assert graph_key(other) != graph_key(graph_of())


def test_keys_tell_numbers_of_all_kinds() -> None:
    keys = [graph_key(graph_of(value)) for value in (0.0, -0.0, float("nan"), -float("nan"), float("inf"), 1e-45)]
    assert len(set(keys)) == len(keys)
    data = [Constant(np.full(3, value, np.float32)) for value in (0.0, -0.0)]
    assert graph_key(graph_of(data=data[0])) != graph_key(graph_of(data=data[1]))


def test_graphs_of_foreign_ops_are_not_cached(folder: Path) -> None:
    builder = GraphBuilder("g")
    x = builder.input(T.TensorType(T.float32, (3,)))
    graph = builder.build(builder.add(replace(OPS["neg"]), [x], {}))
    assert graph_key(graph) is None
    target = targets.host_target()
    made = [programs.fetch(graph, [None], target, "", SOURCES, lambda: program_of(graph_of())) for _ in range(2)]
    assert made[0] is not made[1] and not files(folder, "programs")


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:-9], lambda d: b"x" + d])
def test_bytes_that_are_no_program_are_refused(damage: Callable[[bytes], bytes]) -> None:
    graph = graph_of()
    with pytest.raises(StoredError):
        decode(damage(encode(program_of(graph), graph)), graph, targets.host_target())


def test_what_decides_a_program_is_in_its_name(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    graph, target = graph_of(), targets.host_target()
    source = tmp_path_factory.mktemp("source")
    (source / "a.py").write_text("x = 1\n")
    (tmp_path_factory.mktemp("none") / "a.txt").write_text("")
    built: list[int] = []

    def build() -> Program:
        built.append(1)
        return program_of(graph)

    def fetch(strides: tuple[int, ...] | None = None, options: str = "", target: targets.Target = target) -> int:
        before = len(built)
        programs.source_digest.cache_clear()
        programs.fetch(graph, [strides], target, options, (str(source),), build)
        return len(built) - before

    assert [fetch(), fetch()] == [1, 0]
    assert [fetch((2,)), fetch(options="more"), fetch(target=targets.LEVELS["baseline"]), fetch()] == [1, 1, 1, 0]
    (source / "a.py").write_text("x = 2\n")  # of the same size
    assert [fetch(), fetch()] == [1, 0]
    (source / "b.py").write_text("")
    assert [fetch(), fetch()] == [1, 0]
    (source / "a.py").write_text("x = 1\n")
    (source / "b.py").unlink()
    assert fetch() == 0
    programs.source_digest.cache_clear()


def test_without_sources_nothing_is_cached(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = str(tmp_path_factory.mktemp("empty"))
    graph = graph_of()
    for _ in range(2):
        programs.fetch(graph, [None], targets.host_target(), "", (empty,), lambda: program_of(graph))
    assert not files(folder, "programs")


@pytest.mark.parametrize("home", ["/chosen", "", None])
def test_the_default_folder_is_where_caches_belong(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    monkeypatch.delenv("KILN_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", home) if home is not None else monkeypatch.delenv("XDG_CACHE_HOME", False)
    assert cache.folder() == platformdirs.user_cache_path("kiln")


def test_a_folder_that_can_only_be_read_serves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write("programs", "ab" * 32, b"kept")
    os.utime(files(folder, "programs")[0], (1, 1))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "no")

    for name in ("utime", "unlink", "open"):
        monkeypatch.setattr(os, name, refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.read("programs", "ab" * 32) == b"kept"
        assert cache.read("programs", "cd" * 32) is None
    with pytest.warns(cache.CacheWarning, match="written") as caught:
        cache.write("programs", "cd" * 32, b"x")
        cache.write("programs", "ef" * 32, b"x")
    assert len(caught) == 1


def test_the_size_is_bounded_and_what_is_used_stays(folder: Path) -> None:
    for k in range(10):
        cache.write(("objects", "programs")[k % 2], f"{k:064x}"[::-1], bytes(1000))
        path = cache._path(folder, ("objects", "programs")[k % 2], f"{k:064x}"[::-1])
        os.utime(path, (1000 + k, 1000 + k))
    assert cache.read("objects", f"{0:064x}"[::-1]) == bytes(1000)  # the oldest is used again
    cache.prune(folder, 100_000)
    assert len(files(folder, "objects") + files(folder, "programs")) == 10
    cache.prune(folder, 6000)
    left = [cache.read(("objects", "programs")[k % 2], f"{k:064x}"[::-1]) is not None for k in range(10)]
    assert left == [k in (0, 7, 8, 9) for k in range(10)]


def test_writes_prune_now_and_then(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned: list[Path] = []
    monkeypatch.setattr(cache, "prune", pruned.append)
    for k in range(512):
        cache.write("objects", f"{k:064x}", b"")
    assert pruned == [folder] * 2
