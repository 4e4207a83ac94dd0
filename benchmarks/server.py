"""Load the server of webui.py, and print one line of JSON. Runs on Linux, which tells the memory of a process.

Without `--model`, the voice has the network of `--config` with random weights. The output has the milliseconds until a
sentence of 10 seconds begins to sound on an idle server, and the processor time of the server for it, which depends
little on other programs; the answers to many requests at once, and the growth of the server's memory after the first
hundred; and how long a short text takes after long ones that were abandoned, beside the time it takes without them.

Examples:
  python benchmarks/server.py
  python benchmarks/server.py --model logs/ljs --requests 200
"""

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import checkpoint
import cli
from benchmarks.synthesis import SENTENCES, random_network

SHORT = "A short text."
LONG = "This is a long text whose request is abandoned. " * 99
WARM_UP = 100  # requests before the memory is noted
ABANDONED = 20
REPEATS = 9
HEADER = 44  # bytes of a WAV file
PATIENCE = 600  # seconds


class Server:
    """The program webui.py with one voice, on a free port."""

    def __init__(self, model: Path, threads: int):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        program = Path(__file__).resolve().parents[1] / "webui.py"
        command = [sys.executable, str(program), "-m", str(model), "--port", str(self.port), "--device", "cpu"]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        self.voice = ""
        while not self.voice:
            if self.process.poll() is not None:
                raise ValueError("webui.py has ended: its message is above")
            try:
                self.voice = self.ask("GET", "/v1/models")[1]["data"][0]["id"]
            except ConnectionError:
                time.sleep(0.2)
        about = self.ask("GET", f"/v1/voices/{quote(self.voice)}")[1]
        self.speaker = about["default_speaker"] or next(iter(about["speakers"]), None)

    def close(self) -> None:
        """End the program."""
        self.process.terminate()
        self.process.wait()

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Return status and JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def speak(self, text: str, read: int | None = None) -> tuple[int, float, http.client.HTTPConnection]:
        """Speak a text; `read` bytes are read, or all. Returns status, seconds until the last of them, connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        begin = time.perf_counter()
        body = {"model": self.voice, "input": text, "voice": self.speaker, "response_format": "wav", "seed": 1}
        connection.request("POST", "/v1/audio/speech", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read(read)
        return answer.status, time.perf_counter() - begin, connection

    def first_sound(self) -> tuple[float, float]:
        """Return seconds, and seconds of processor time of all threads, until the first samples of a sentence of 10 s.

        Waits until the server is idle, because it may still work on an earlier answer that was not read to its end.
        """
        while self.ask("GET", "/health")[1]["requests"]:
            time.sleep(0.01)
        before = self.processor_seconds()
        _, seconds, connection = self.speak(SENTENCES[-1], HEADER + 100)
        processor = self.processor_seconds() - before
        connection.close()
        return seconds, processor

    def processor_seconds(self) -> float:
        """Return the processor time that the program has used."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text("ascii").split()[0]) for task in tasks) / 1e9

    def megabytes(self) -> float:
        """Return the memory that the program occupies."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(server: Server, requests: int, at_once: int) -> dict[str, Any]:
    """Return what the server does under load."""
    first, processor = zip(*(server.first_sound() for _ in range(REPEATS)))
    texts = [f"Request number {i} of many." for i in range(WARM_UP + requests)]
    with ThreadPoolExecutor(at_once) as clients:
        list(clients.map(server.speak, texts[:WARM_UP]))
        before, begin = server.megabytes(), time.perf_counter()
        answers = Counter(status for status, *_ in clients.map(server.speak, texts[WARM_UP:]))
        elapsed, after = time.perf_counter() - begin, server.megabytes()
    alone = statistics.median(server.speak(SHORT)[1] for _ in range(REPEATS))
    for connection in [server.speak(LONG, 100)[2] for _ in range(ABANDONED)]:
        connection.close()
    abandoned = server.speak(SHORT)[1]
    return {
        "first_sound_ms": round(1000 * statistics.median(first[1:]), 1),
        "first_sound_processor_ms": round(1000 * statistics.median(processor[1:]), 1),
        "answers": {str(status): count for status, count in answers.items()},
        "at_once": at_once,
        "seconds": round(elapsed, 1),
        "megabytes": round(before),
        "megabytes_grown": round(after - before, 1),
        "short_text_ms": round(1000 * alone),
        "after_abandoned_ms": round(1000 * abandoned),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    cli.add_run(parser, "--model", help="name of a run, its folder, or a checkpoint (default: random weights)")
    add = parser.add_argument
    config = Path(__file__).resolve().parents[1] / "configs/vits2_small.json"
    text = "config file of the random weights (default: configs/vits2_small.json)"
    add("--config", type=Path, default=config, metavar="JSON", help=text)
    add("--requests", type=int, default=1000, metavar="N", help=f"requests after the first {WARM_UP}")
    add("--at-once", type=int, default=20, metavar="N", help="clients at a time")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads of the server")
    args = parser.parse_args(argv)
    with cli.errors_in_one_line("benchmarks/server"):
        print(json.dumps(run(args)))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Start the server, measure, and end it."""
    with ExitStack() as stack:
        model = args.model
        if model is None:
            net, config = random_network(args.config)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "voice")
            folder.mkdir()
            model = folder / "G_0.pth"
            checkpoint.save_checkpoint(net, None, 0.0, 0, model, config=asdict(config), step=0)
        server = Server(model, args.threads)
        stack.callback(server.close)
        return {"threads": args.threads, **measure(server, args.requests, args.at_once)}


if __name__ == "__main__":
    main()
