"""Kill training at random moments, resume it, and compare the result with that of a run that was never killed.

Each kill is a separate run: SIGKILL ends one process at a random time or while it writes a checkpoint, and the same
command resumes the run. Every second run has two processes; the one that is not killed must end by itself. Prints one
line of JSON. The exit code is 1 unless every run ends with the same checkpoints to the last bit.

Examples:
  python tests/kills.py --kills 50
"""

import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
import torch
import torch.utils.tensorboard

import cli
import plots  # noqa: F401
import train
from monotonic_align import extension

STEPS = 6
SETTINGS = {"eval_interval": 3, "log_interval": 1, "lr_decay": 0.9, "ema": 0.9, "batch_size": 1}
PATIENCE = 300  # seconds for a run, or for the processes that are left after a kill


def start(name: str, processes: int) -> list[int]:
    """Start to train a run in forked processes, as torchrun starts them. Returns their ids, in the order of ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ids = []
    for rank in range(processes):
        if process := os.fork():
            ids.append(process)
            continue
        code = 1
        try:
            os.setsid()
            if processes > 1:
                os.environ |= group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            log = os.open(f"{name}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            train.main(["-c", "tiny.json", "-m", name, "--device", "cpu", "--max-steps", str(STEPS)])
            code = 0
        except SystemExit as end:
            print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return ids


def wait(process: int, seconds: float) -> int | None:
    """Return the exit code of a process, or None if it still runs after some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def finish(name: str, processes: int) -> None:
    """Train a run to its end. Raises RuntimeError if a process fails or does not end."""
    codes = [wait(process, PATIENCE) for process in start(name, processes)]
    if any(codes):
        raise RuntimeError(f"{name}: the exit codes are {codes}")


def kill(name: str, processes: int, draw: random.Random, longest: float) -> str:
    """Start a run and kill one of its processes. Returns the moment. Raises RuntimeError if another does not end."""
    ids, folder = start(name, processes), Path("logs", name)
    victim = draw.randrange(processes)
    moment, end = "ended before", time.monotonic() + draw.uniform(0, longest)
    writes = draw.randrange(1, 8) if draw.random() < 0.4 else 0  # unfinished files until the kill; 0: by time
    seen: set[str] = set()
    while (wait(ids[victim], 0.002)) is None:
        seen |= {path.name for path in folder.glob(".*.tmp")} if folder.exists() else set()
        if len(seen) >= writes if writes else time.monotonic() > end:
            os.kill(ids[victim], signal.SIGKILL)
            moment = (
                "writing" if writes else "training" if list(folder.glob("*.pth")) else "before the first checkpoint"
            )
            wait(ids[victim], PATIENCE)
            break
    if any(wait(process, PATIENCE) is None for rank, process in enumerate(ids) if rank != victim):
        raise RuntimeError(f"{name}: a process is left after the kill of process {victim}")
    return f"{processes} process(es), {moment}"


def contents(name: str) -> dict[str, dict]:
    """Return the last checkpoints of a run without the training time."""
    files = {path.name: torch.load(path, weights_only=True) for path in Path("logs", name).glob(f"*_{STEPS}.pth")}
    files[f"G_{STEPS}.pth"]["state"]["position"].pop("seconds")
    return files


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="number of kills")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of all draws")
    args = parser.parse_args(argv)
    draw, began, moments, faults = random.Random(args.seed), time.monotonic(), Counter[str](), []
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    extension.load()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        tiny.write_corpus(Path(folder))
        tiny.write_config(Path("tiny.json"), tiny.DURATION_DISCRIMINATOR, train=SETTINGS)
        whole, longest = {}, {}
        for processes in (1, 2):
            started = time.monotonic()
            finish(f"whole{processes}", processes)
            longest[processes] = time.monotonic() - started
            whole[processes] = contents(f"whole{processes}")
        for k in range(args.kills):
            name, processes = f"killed{k}", 1 + k % 2
            while (moment := kill(name, processes, draw, longest[processes])).endswith("ended before"):
                shutil.rmtree(Path("logs", name))
            moments[moment] += 1
            try:
                finish(name, processes)
                if not tiny.equal(whole[processes], contents(name)):
                    raise RuntimeError(f"{name}: other bits than without a kill")
                shutil.rmtree(Path("logs", name))
            except RuntimeError as error:
                log = Path(f"{name}.0.log").read_text("utf-8").splitlines()[-3:]
                faults.append(f"{error}, {moment}: {' / '.join(log)[:600]}")
        os.chdir(tiny.ROOT)
    result = {"kills": args.kills, "equal": args.kills - len(faults), "moments": dict(sorted(moments.items()))}
    print(json.dumps(result | {"faults": faults, "seconds": round(time.monotonic() - began)}))
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
