"""Training in one or several processes: start them, and exchange values. Nothing is exchanged in a single process."""

import contextlib
import datetime
import inspect
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import cli

Value = TypeVar("Value")

TIMEOUT = datetime.timedelta(hours=2)  # of an exchange: the main process decodes a whole corpus while the others wait


def launch(run: Callable[..., None], device: str, processes: int | None, *args: Any) -> None:
    """Call `run(device, *args)` in this process, in one new process for each GPU, or as one of torchrun's processes.

    Args: `run`, a function at the top level of a module, so that new processes can import it; `device`, "cpu", "cuda"
    or "auto", which is CUDA if there is a GPU; `processes`, their number on this machine, None for one for each GPU or
    one on the CPU. Raises ValueError if `processes` is below 1 or above the number of GPUs, or CUDA is not available.
    """
    gpus, asked = torch.cuda.device_count(), f"{processes} processes were asked for; --processes must be"
    if processes is not None and processes < 1:
        raise ValueError(f"{asked} at least 1")
    if device == "cuda" and not gpus:
        raise ValueError("--device cuda: PyTorch sees no GPU here; --device cpu trains without one")
    kind = "cuda" if gpus and device != "cpu" else "cpu"
    if "WORLD_SIZE" in os.environ:
        return _join(run, kind, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://", *args)
    processes = processes or (gpus if kind == "cuda" else 1)
    if kind == "cuda" and processes > gpus:
        raise ValueError(f"{asked} at most {gpus}, the number of GPUs")
    if processes == 1:
        return run(_device(kind, 0), *args)
    # Python would report the semaphores of a killed process after the message that names the process
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = (Path(folder) / "rendezvous").as_uri()  # a file, because a port may be in use
        children = mp.spawn(_spawned, (run, kind, processes, rendezvous, *args), processes, join=False)
        try:
            _wait(children)
        except mp.ProcessExitedException as ended:  # a process with an exit code of its own has printed the reason
            if ended.exit_code == cli.INTERRUPTED:
                raise KeyboardInterrupt from None
            raise SystemExit(ended.exit_code if ended.exit_code > 0 else str(ended)) from None


def _wait(children: mp.ProcessContext) -> None:
    """Wait until all spawned processes have ended. Ctrl-C reaches them directly; SIGTERM is passed on to them."""

    def pass_on(number: int, frame: FrameType | None) -> None:
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


def _spawned(rank: int, run: Callable[..., None], kind: str, world: int, rendezvous: str, *args: Any) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    try:
        _join(run, kind, rank, world, rendezvous, *args)
    except (ValueError, OSError) as error:  # a user error: one line instead of the tracebacks of all processes
        print(f"{Path(sys.argv[0]).stem}: {reason(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # it would end this process with exit code 0
        raise SystemExit(cli.INTERRUPTED) from None


def reason(error: ValueError | OSError) -> str:
    """Return the message of an error. An error of a loader's worker contains a traceback, of which it is the end."""
    message = str(error).strip()
    return message.splitlines()[-1].removeprefix("ValueError: ") if "DataLoader worker" in message else message


def _join(run: Callable[..., None], kind: str, rank: int, world: int, rendezvous: str, *args: Any) -> None:
    device = _device(kind, int(os.environ.get("LOCAL_RANK", 0)))
    # captured steps exchange gradients; with registration, NCCL would need all processes to capture at the same time
    os.environ.setdefault("NCCL_GRAPH_REGISTER", "0")
    backend = "nccl" if kind == "cuda" else "gloo"
    store, *_ = next(dist.rendezvous(rendezvous, rank, world))
    store.set_timeout(TIMEOUT)
    if os.environ.get("GROUP_WORLD_SIZE") == "1":  # torchrun on one machine
        # its store outlives a restart and still has the addresses of the processes before it, which would be waited for
        store = dist.PrefixStore(f"start_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=store, timeout=TIMEOUT, rank=rank, world_size=world)
    try:
        run(device, *args)
    except RuntimeError as error:
        if not is_disconnection(error):
            raise
        raise SystemExit(f"process {rank} ends, because the connection to another process was lost") from None
    finally:
        dist.destroy_process_group()


def is_disconnection(error: BaseException) -> bool:
    """Return whether an error means that another process has ended during an exchange."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _device(kind: str, index: int) -> torch.device:
    """Return this process's device and make it current, with a stream of its own, which CUDA graphs require."""
    if kind != "cuda":
        return torch.device(kind)
    device = torch.device(kind, index)
    torch.cuda.set_device(device)
    torch.cuda.set_stream(torch.cuda.Stream(device))
    return device


def rank() -> int:
    """Return the number of this process, 0 if it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together, 1 if this one is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this process writes logs and checkpoints."""
    return rank() == 0


def wrap(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network in DistributedDataParallel, or the network itself if this process is alone."""
    if world_size() == 1:
        return network
    # buffers need no exchange: the vectors of spectral norm may differ, and the alignment noise is always equal
    parameters = inspect.signature(DistributedDataParallel).parameters
    exchange = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"  # before 2.13
    options: dict[str, Any] = {"device_ids": [device.index] if device.type == "cuda" else None, exchange: False}
    wrapped = DistributedDataParallel(network, gradient_as_bucket_view=True, **options)
    # DDP times its first ten steps and then some later ones; timing synchronizes with the device and breaks a capture
    wrapped._set_ddp_runtime_logging_sample_rate(2**31 - 1)
    return wrapped


def rebuild_buckets(network: nn.Module) -> None:
    """Let a DistributedDataParallel network rebuild its buckets now. It does so once, in an exchange of all processes.

    By default it does so in its second forward pass. Processes that split their batches into different numbers of parts
    run different numbers of passes of other networks before that, and would wait for each other.
    """
    if isinstance(network, DistributedDataParallel):
        network.reducer._rebuild_buckets()


def unexchanged(network: nn.Module) -> contextlib.AbstractContextManager:
    """Return a context in which gradients accumulate locally. The first backward pass outside exchanges their sum."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather(value: object) -> list[Any]:
    """Return the values of all processes, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def in_main(function: Callable[[], Value]) -> Value | None:
    """Return the value of `function` in the main process while the others wait, and None in these.

    An error in it ends all processes.
    """
    value, error = None, None
    if is_main():
        try:
            value = function()
        except (ValueError, OSError, SystemExit) as raised:
            error = raised
    if gather(error is not None)[0]:
        raise error or SystemExit(2)
    return value
