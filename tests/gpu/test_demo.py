"""`kiln demo --device cuda`, and what the command line says where there is no GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kiln import __main__ as command
from kiln import demo, nn, there
from tests.gpu.conftest import Gpu


def small(name: str) -> Any:
    """A part of the digits."""
    data = load(name)
    return data._replace(images=data.images[:8], labels=data.labels[:8])


def tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 10))


load = demo.load_digits


def test_the_demo_on_a_gpu(
    fake: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[list[str]] = []
    run = subprocess.run

    def here(line: Any, **how: Any) -> Any:
        if line[1:3] != ["-m", "kiln"]:
            return run(line, **how)
        called.append(line[3:])
        return SimpleNamespace(returncode=command.main(line[3:]))

    monkeypatch.setattr(demo, "load_digits", small)
    monkeypatch.setattr(demo, "BATCH", 8)
    monkeypatch.setattr(demo, "make_model", tiny)
    monkeypatch.setattr(demo, "KINDS", (demo.Kind("mlp", tiny, 30),))
    monkeypatch.setattr(subprocess, "run", here)  # a new process has no fake GPU
    out = tmp_path / "out"
    assert command.main(["demo", "--epochs", "2", "--seeds", "1", "--out", str(out), "--device", "cuda"]) == 0
    said = capsys.readouterr().out
    assert "2 losses bit-identical" in said and "held-out digits read rightly" in said
    assert called == [["classify", str(out / "mlp.safetensors"), "--device", "cuda"]]
    assert fake.counts["launch"] > 20


@pytest.mark.parametrize("words", [["demo"], ["classify", "digits.safetensors"]])
def test_without_a_gpu(
    words: list[str], fake: Gpu, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*words, "--device", "cuda:7"]) == 1
    said = capsys.readouterr().err
    assert "there is no GPU 7: this machine has 2 GPUs" in said and said.count("kiln: ") == 1
    runtime = sys.modules["cupy"].cuda.runtime

    def refuse() -> int:
        error = runtime.CUDARuntimeError(100)
        error.status = 35
        raise error

    there._checked.clear()
    monkeypatch.setattr("kiln.runtime.cuda_driver._opened", [])
    monkeypatch.setattr(runtime, "getDeviceCount", refuse)
    assert command.main([*words, "--device", "cuda"]) == 1
    assert "there is no NVIDIA driver that CuPy can use" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert command.main([*words, "--device", "cuda"]) == 1
    assert "fix: pip install 'cupy-cuda13x[ctk]'" in capsys.readouterr().err
    assert command.main([*words, "--device", "gpu"]) == 1
    assert "unknown device 'gpu'" in capsys.readouterr().err


def test_the_environment_names_gpus(
    fake: Gpu, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["env"]) == 0
    assert "devices      cpu, cuda:0 Fake GPU sm_90, cuda:1 Fake GPU sm_90\n" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert command.main(["env"]) == 0
    assert "devices      cpu (GPUs need CuPy" in capsys.readouterr().out
