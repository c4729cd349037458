"""A trial's share of a GPU: how much memory it may take, and how an error says that there was too little."""

import gc

import torch

CONTEXT_BYTES = 2**29  # that CUDA takes for every process, about
# As cuBLAS, cuDNN and the driver say that there is no memory.
SHORT_OF_MEMORY = (
    "CUDA out of memory",
    "STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",  # cuDNN 9
    "cudaErrorMemoryAllocation",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
)


def memory_fraction(share: float, total_bytes: int) -> float:
    """Return the part of a GPU's memory that a process with this share of the GPU may hold in tensors.

    >>> round(memory_fraction(0.25, 8 * 2**30), 4)  # of 8 GiB, 2 are for the contexts of four processes
    0.1875
    """
    return max(share - CONTEXT_BYTES / total_bytes, 0.5 * share)


def limit_memory(share: float) -> None:
    """Keep this process within its share, so that its hunger is its own error and not its neighbours'.

    To be called at every trial's start: processes are reused, and begin anew with what torch has kept.
    """
    if torch.cuda.is_available() and share:
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(memory_fraction(share, total) if share < 1 else 1.0)


def out_of_memory(error: BaseException | None) -> str:
    """Return the first line of the error, or of one that it came from, that says there was too little memory of a GPU;
    empty if none does."""
    seen, behind = set[int](), [error]
    while behind:
        one = behind.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, torch.OutOfMemoryError) or any(words in str(one) for words in SHORT_OF_MEMORY):
            return str(one).splitlines()[0]
        behind += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
    return ""
