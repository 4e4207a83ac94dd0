"""The alignment search of every backend against all paths, golden values and each other; the build of the extension."""

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import monotonic_align
from monotonic_align import extension, maximum_path

ROOT = Path(__file__).resolve().parents[1]
CPU_BACKENDS = ["cython", "numpy"]
# frames and tokens: a typical utterance, as many tokens as frames, one token, one frame, more than one block of 64
LENGTHS = [(150, 70), (70, 70), (37, 1), (1, 1), (149, 66)]


def ragged(lengths=LENGTHS, seed=0):
    """Return integer scores, so that ties are common, with NaN in the padding, and the boolean mask."""
    frames, tokens = torch.tensor(lengths)[:, :, None, None].unbind(1)
    t_t, t_s = int(frames.max()), int(tokens.max())
    mask = (torch.arange(t_t)[:, None] < frames) & (torch.arange(t_s) < tokens)
    values = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed)).mul(2).round()
    return values.masked_fill(~mask, torch.nan), mask


def best_by_enumeration(values):
    """Return the monotonic path with the highest score for `values` `[t_t, t_s]`; of equal ones, that which stays."""
    t_t, t_s = values.shape
    paths = []
    for entries in itertools.combinations(range(1, t_t), t_s - 1):
        tokens = np.searchsorted(entries, np.arange(t_t), side="right")
        paths.append((values[np.arange(t_t), tokens].sum(), *tokens[::-1]))
    _, *tokens = max(paths)
    return np.eye(t_s)[tokens[::-1]]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_golden_values(backend):
    golden = np.load(ROOT / "tests/golden/alignment.npz")
    value, mask, path = (torch.from_numpy(golden[name]) for name in ("value", "mask", "path"))
    before = value.clone()
    assert torch.equal(maximum_path(value, mask, backend), path)
    assert torch.equal(value, before)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_path_is_the_best_of_all_paths(backend, data):
    t_t = data.draw(st.integers(1, 7))
    t_s = data.draw(st.integers(1, t_t))
    cells = data.draw(st.lists(st.integers(-3, 3), min_size=t_t * t_s, max_size=t_t * t_s))
    values = np.array(cells, dtype=np.float32).reshape(t_t, t_s)
    path = maximum_path(torch.from_numpy(values)[None], torch.ones(1, t_t, t_s), backend)[0]
    np.testing.assert_array_equal(path, best_by_enumeration(values))


@pytest.mark.parametrize("seed", range(5))
def test_backends_agree(seed):
    values, mask = ragged(seed=seed)
    path = maximum_path(values, mask, "numpy")
    assert torch.equal(maximum_path(values, mask, "cython"), path)
    assert torch.equal(maximum_path(values, mask), path)
    for item, (frames, tokens) in enumerate(LENGTHS):
        valid = path[item, :frames, :tokens]
        assert (valid.sum(1) == 1).all() and (valid.sum(0) >= 1).all() and path[item].sum() == frames
        steps = valid.argmax(1).diff()
        assert ((steps == 0) | (steps == 1)).all()


def test_very_low_scores_are_not_mistaken_for_padding():
    values, mask = ragged([(30, 12)])
    assert torch.equal(maximum_path(values * 2.0**100, mask, "cython"), maximum_path(values, mask, "cython"))
    lowest = torch.full((1, 9, 4), torch.finfo(torch.float32).min)
    for backend in CPU_BACKENDS:
        assert (maximum_path(lowest, torch.ones(1, 9, 4), backend).sum(1) >= 1).all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_dtypes_and_strides(backend):
    values, mask = ragged()
    path = maximum_path(values, mask, backend)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        found = maximum_path(values.to(dtype).requires_grad_(), mask.to(dtype), backend)
        assert found.dtype == dtype and not found.requires_grad and torch.equal(found, path.to(dtype))
    turned = values.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(maximum_path(turned, mask[:, :, :1] & mask[:, :1, :], backend), path)
    assert maximum_path(values[:0], mask[:0], backend).shape == (0, 150, 70)


def test_number_of_threads_does_not_change_the_path():
    values, mask = ragged(LENGTHS * 4)
    threads = torch.get_num_threads()
    paths = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        paths.append(maximum_path(values, mask, "cython"))
    torch.set_num_threads(threads)
    assert torch.equal(paths[0], paths[1]) and torch.equal(paths[0], paths[2])


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("frames, tokens", [(12, 15), (0, 3), (4, 0)])
def test_impossible_lengths_are_rejected(backend, frames, tokens):
    mask = torch.ones(3, 20, 15)
    mask[1] = 0
    mask[1, :frames, :tokens] = 1
    # with zero columns, the mask does not show the number of rows, and vice versa
    expected = f"item 1 .* {tokens * (frames > 0)} tokens and {frames * (tokens > 0)} frames"
    with pytest.raises(ValueError, match=expected):
        maximum_path(torch.zeros(3, 20, 15), mask, backend)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_rejected(backend, value):
    values, mask = ragged()
    values[4, 140, 60] = value
    with pytest.raises(ValueError, match=r"item 4 .*66 tokens, 149 frames.*not finite"):
        maximum_path(values, mask, backend)


def test_wrong_arguments_are_rejected():
    with pytest.raises(ValueError, match=r"\[2, 5, 3\] and \[2, 3, 5\]"):
        maximum_path(torch.zeros(2, 5, 3), torch.ones(2, 3, 5))
    with pytest.raises(ValueError, match="triton, cython, numpy or None, got 'cuda'"):
        maximum_path(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), "cuda")
    with pytest.raises(ValueError, match="0 tokens and 0 frames"):
        maximum_path(torch.zeros(1, 0, 0), torch.zeros(1, 0, 0))


# The build, on a copy of the package.

USE = """
import torch, monotonic_align
path = monotonic_align.maximum_path(torch.zeros(1, 5, 3), torch.ones(1, 5, 3))
print(int(path.sum()), monotonic_align.fastest("cpu"))
"""


@pytest.fixture
def copy(tmp_path):
    package = tmp_path / "monotonic_align"
    shutil.copytree(ROOT / "monotonic_align", package, ignore=shutil.ignore_patterns("build", "*.so", "__pycache__"))
    return package


def start(package, **environment):
    """Start a process that runs `USE` with this copy of the package."""
    return subprocess.Popen(
        [sys.executable, "-c", USE],
        cwd=package.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_build_the_extension_once(copy):
    processes = [start(copy), start(copy)]
    for process in processes:
        assert process.communicate(timeout=120) == ("5 cython\n", "")
    assert (copy / extension.BUILT.name).exists()
    assert sorted(path.name for path in (copy / "build").iterdir()) == ["core.c", "lock"]


@pytest.mark.slow
def test_without_a_compiler_numpy_is_used_after_one_warning(copy):
    out, err = start(copy, CC="false").communicate(timeout=120)
    assert out == "5 numpy\n"
    assert len(err.splitlines()) == 1 and extension.ADVICE in err and "'false'" in err
    assert not list(copy.glob("*.so"))


def test_a_folder_without_write_access_gives_one_warning(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setattr(extension, "HERE", tmp_path / "file")
    monkeypatch.setattr(extension, "BUILT", tmp_path / "file" / extension.BUILT.name)
    assert extension.load.__wrapped__() is None
    assert len(caplog.records) == 1 and extension.ADVICE in caplog.text


def test_an_extension_older_than_its_source_is_rebuilt(monkeypatch, tmp_path):
    for name in ("SOURCE", "BUILT"):
        (tmp_path / name).touch()
        monkeypatch.setattr(extension, name, tmp_path / name)
    os.utime(tmp_path / "BUILT", (1000, 1000))
    os.utime(tmp_path / "SOURCE", (1000, 1000))
    assert extension._is_current()
    os.utime(tmp_path / "SOURCE", (2000, 2000))
    assert not extension._is_current()


# The Triton backend: on a GPU if there is one, otherwise in Triton's interpreter.


def check_triton(device):
    for lengths, seed in ((LENGTHS, 0), ([(13, 5)], 1), ([(16, 16), (9, 3)], 2)):
        values, mask = ragged(lengths, seed)
        path = maximum_path(values, mask, "cython").to(device)
        values, mask = values.to(device), mask.to(device)
        assert torch.equal(maximum_path(values, mask, "triton"), path)
        assert torch.equal(maximum_path(values.bfloat16(), mask.float(), "triton"), path.bfloat16())
        expanded = (mask[:, :, :1] & mask[:, :1, :]).transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(maximum_path(values, expanded, "triton"), path)
    # utterances that cannot be aligned have a defined result and do not affect the others
    values, mask = torch.zeros(3, 8, 9, device=device), torch.ones(3, 8, 9, device=device)
    mask[1, :, 4:] = 0
    values[1] = torch.nan
    mask[2] = 0
    path = maximum_path(values, mask, "triton")
    assert path[0].sum() == 0 and path[2].sum() == 0
    assert (path[1, :, :4].sum(0) >= 1).all() and (path[1].sum(1) == 1).all()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the test below runs on the GPU itself")
def test_triton_in_the_interpreter():
    tiny.in_triton_interpreter("import test_monotonic_align as tests; tests.check_triton('cpu')", timeout=120)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_triton_on_the_gpu():
    check_triton("cuda")
    assert monotonic_align.fastest("cuda") == "triton"
    values, mask = (tensor.cuda() for tensor in ragged())
    path = maximum_path(values, mask)
    torch.cuda.set_sync_debug_mode("error")
    try:
        maximum_path(values, mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = maximum_path(values, mask)
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, path)
