"""One process or many: starting them, and helpers that do nothing when a process is alone."""

import contextlib
import datetime
import inspect
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = datetime.timedelta(hours=2)  # the others wait while the main process looks at every recording of a corpus
INTERRUPTED = 130  # the status of a process that Ctrl-C ended


def launch(run: Callable, device: str, processes: int | None, *args) -> None:
    """Call `run(device, *args)` once in this process, once for each GPU, or as one of torchrun's processes.

    Args:
        run: a function of a module's top level, so that spawned processes find it.
        device: "cpu", "cuda" or "auto" (every GPU there is, else the CPU).
        processes: how many to start on this host; None: one for each GPU, one on the CPU.

    Raises:
        ValueError: no process was asked for, or CUDA and there is none, or more processes than GPUs.
    """
    gpus = torch.cuda.device_count()
    if processes is not None and processes < 1:
        raise ValueError(f"{processes} processes were asked for; there must be one at least")
    if device == "cuda" and not gpus:
        raise ValueError("--device cuda: PyTorch sees no GPU here; --device cpu trains without")
    kind = "cuda" if gpus and device != "cpu" else "cpu"
    if "WORLD_SIZE" in os.environ:
        _join(run, kind, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://", *args)
        return
    processes = processes or (gpus if kind == "cuda" else 1)
    if kind == "cuda" and processes > gpus:
        raise ValueError(f"{processes} processes were asked for, and there are {gpus} GPUs")
    if processes == 1:
        run(_device(kind, 0), *args)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()  # a file, not a port that may be taken
        children = mp.spawn(_spawned, (run, kind, processes, meeting, *args), processes, join=False)
        try:
            _wait(children)
        except mp.ProcessExitedException as ended:  # with a status of its own it has said why
            if ended.exit_code == INTERRUPTED:
                raise KeyboardInterrupt from None
            raise SystemExit(ended.exit_code if ended.exit_code > 0 else str(ended)) from None


def _wait(children: mp.ProcessContext) -> None:
    """Wait until spawned processes have ended. They decide when: Ctrl-C reaches them too, and SIGTERM is passed on."""

    def pass_on(number, frame) -> None:
        for child in children.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                if children.join():
                    return
    finally:
        signal.signal(signal.SIGTERM, before)


def _spawned(rank: int, run: Callable, kind: str, world: int, meeting: str, *args) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    try:
        _join(run, kind, rank, world, meeting, *args)
    except (ValueError, OSError) as error:  # of the user's making: a message, and no tracebacks of several processes
        print(reason(error), file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # which would end this process with status 0
        raise SystemExit(INTERRUPTED) from None


def reason(error: ValueError | OSError) -> str:
    """What an error says; of one from a loader's worker, which comes with its traceback, the last line."""
    said = str(error).strip()
    return said.splitlines()[-1].removeprefix("ValueError: ") if "DataLoader worker" in said else said


def _join(run: Callable, kind: str, rank: int, world: int, meeting: str, *args) -> None:
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = _device(kind, local)
    backend = "nccl" if kind == "cuda" else "gloo"
    # captured steps exchange gradients: NCCL would have all processes capture at the same time, which they do not
    os.environ.setdefault("NCCL_GRAPH_REGISTER", "0")
    dist.init_process_group(backend, meeting, timeout=PATIENCE, rank=rank, world_size=world)
    try:
        run(device, *args)
    finally:
        dist.destroy_process_group()


def _device(kind: str, index: int) -> torch.device:
    """This process's device, made current. On a GPU all work goes to a stream of its own: CUDA graphs ask for that."""
    if kind != "cuda":
        return torch.device(kind)
    device = torch.device(kind, index)
    torch.cuda.set_device(device)
    torch.cuda.set_stream(torch.cuda.Stream(device))
    return device


def rank() -> int:
    """This process's number, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together, 1 when alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes logs and checkpoints."""
    return rank() == 0


def wrap(network: nn.Module, device: torch.device) -> nn.Module:
    """The network in DistributedDataParallel, or as it is when this process is alone."""
    if world_size() == 1:
        return network
    ids = [device.index] if device.type == "cuda" else None
    # spectral norm's vectors are each process's own, and the alignment noise is the same in all
    named = inspect.signature(DistributedDataParallel).parameters
    exchange = "forward_sync_buffers" if "forward_sync_buffers" in named else "broadcast_buffers"  # before PyTorch 2.13
    wrapped = DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True, **{exchange: False})
    # it times its first ten steps and then every so many, which waits for the device and breaks a capture
    wrapped._set_ddp_runtime_logging_sample_rate(2**31 - 1)
    return wrapped


def settle(network: nn.Module) -> None:
    """Let a wrapped network order its exchange, which it does once, where all processes come in the same order.

    Left to itself, it does so at its second forward pass; with other networks' passes between, processes that take
    other numbers of parts of a batch would wait for each other.
    """
    if isinstance(network, DistributedDataParallel):
        network.reducer._rebuild_buckets()


def unexchanged(network: nn.Module) -> contextlib.AbstractContextManager:
    """Where a wrapped network's gradients stay in this process; the next backward pass outside exchanges them too."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on each of them."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather(value: object) -> list:
    """Every process's value, in the order of ranks, on each of them."""
    values = [None] * world_size()
    if not dist.is_initialized():
        return [value]
    dist.all_gather_object(values, value)
    return values


def in_main(function: Callable[[], None]) -> None:
    """Call `function` in the main process, while the others wait. An error there stops all of them."""
    error = None
    if is_main():
        try:
            function()
        except (ValueError, OSError, SystemExit) as raised:
            error = raised
    failed = gather(error is not None)[0]
    if error is not None:
        raise error
    if failed:
        raise SystemExit(1)
