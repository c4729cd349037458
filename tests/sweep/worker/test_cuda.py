"""A share of a GPU, on made-up ones: how much memory, and which errors are for want of it."""

from types import SimpleNamespace

import pytest
import torch

from sweep.worker.cuda import limit_memory, memory_fraction, out_of_memory

GIB = 2**30


@pytest.mark.parametrize("trials", [2, 4, 8, 16])
def test_tensors_and_contexts_of_all_processes_fit_the_card(trials) -> None:
    assert trials * (memory_fraction(1 / trials, 80 * GIB) * 80 + 0.5) == pytest.approx(80)


def test_a_share_that_its_context_would_fill_keeps_half_of_it() -> None:
    assert memory_fraction(1 / 32, 8 * GIB) == 1 / 64


@pytest.mark.parametrize(("share", "fraction"), [(0.125, 0.125 - 0.5 / 80), (1.0, 1.0), (2.0, 1.0), (0.0, None)])
def test_the_limit_is_set_for_every_trial(monkeypatch, share, fraction) -> None:
    found: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", found.append)
    limit_memory(share)
    assert found == ([] if fraction is None else [fraction])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"), "CUDA out of memory. Tried"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "CUDA error: CUBL",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "cuDNN error"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "cuDNN error"),
        (RuntimeError("CUDA driver error: out of memory"), "CUDA driver error"),
        (
            ExceptionGroup("two", [ValueError("no"), torch.OutOfMemoryError("CUDA out of memory.")]),
            "CUDA out of memory",
        ),
        (RuntimeError("CUDA error: device-side assert triggered"), ""),
        (ValueError("out of memory is not said by a GPU here"), ""),
    ],
)
def test_want_of_memory_is_recognised_also_behind_other_errors(error, reason) -> None:
    assert out_of_memory(error).startswith(reason)
    assert bool(out_of_memory(error)) == bool(reason)
    try:
        try:
            raise error
        except type(error):
            raise KeyError("raised while that was handled")  # noqa: B904 - as a library does that does not say from
    except KeyError as later:
        assert out_of_memory(later) == out_of_memory(error)
    try:
        try:
            raise error
        except type(error):
            raise KeyError("of another origin") from ValueError("which is no matter of memory")
    except KeyError as later:
        assert out_of_memory(later) == out_of_memory(error)
