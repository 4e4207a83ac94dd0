"""Serve trained voices: a web page, OpenAI's speech API and Gradio's, in one process.

The server offers the voices of one folder by name. A client never sends a path.

Examples:
  python webui.py                        (all runs in logs/)
  python webui.py --voices my_voices --port 8000
  python webui.py -m NAME --share
  VITS2_API_KEY=secret python webui.py --host 0.0.0.0 --allow-host speech.example.org
"""

import os
import signal
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import cli
from files import RUNS

if TYPE_CHECKING:
    import gradio as gr

    from serving.voices import Voices

MAX_REQUESTS = 64  # in progress at a time; further ones are refused
MAX_SESSIONS = 100  # of gradio's clients, whose last values it remembers
MAX_PORT = (1 << 16) - 1
SHARED = "*"  # gradio's tunnel has a new name every time
CACHE, KEY = "GRADIO_TEMP_DIR", "VITS2_API_KEY"  # environment variables
# oneDNN caches one compiled convolution for each shape, 1,024 by default. Most texts have new shapes, so the cache uses
# much memory and has few hits.
KEPT_CONVOLUTIONS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64"


def serve(
    voices: "Voices",
    port: int | None,
    share: bool = False,
    quiet: bool = False,
    host: str = "127.0.0.1",
    hosts: Collection[str] = (),
    api_key: str | None = None,
) -> "tuple[gr.Blocks, str]":
    """Start the server in separate threads; `port` None is any free port. Returns its Blocks and its address.

    `host`, `hosts` and `api_key` are the options --host and --allow-host and the API key. Raises ValueError for a port
    that is out of range or in use, or if no voice loads.
    """
    from fastapi.middleware import Middleware

    from serving import gradio_calls
    from serving.api import Api
    from serving.gate import MAX_UPLOAD, Gate, Listeners
    from serving.studio import Studio

    if port is not None and not 0 < port <= MAX_PORT:
        raise ValueError(f"port is {port}; it may be from 1 to {MAX_PORT}")
    voices.first()
    studio, listeners = Studio(MAX_REQUESTS), Listeners()
    api = Api(voices, studio)
    blocks = gradio_calls.build(gradio_calls.Calls(voices, studio, listeners))
    gate = Middleware(Gate, hosts=[*hosts, *([SHARED] if share else [])], api_key=api_key, listeners=listeners)
    app: dict[str, Any] = {"routes": api.router.routes, "middleware": [gate], "exception_handlers": api.errors}
    try:
        address = blocks.launch(
            prevent_thread_lock=True,
            server_name=host,
            server_port=port,
            share=share,
            quiet=quiet,
            max_file_size=MAX_UPLOAD,
            state_session_capacity=MAX_SESSIONS,
            app_kwargs=app,
        )[1]
    except OSError:
        raise ValueError(f"port {port} cannot be opened, perhaps because it is in use: change --port") from None
    return blocks, address


@contextmanager
def own_cache() -> Iterator[None]:
    """Let gradio store files in a folder of this process, which is removed at the end."""
    given = os.environ.get(CACHE)
    with tempfile.TemporaryDirectory(prefix="vits2-", dir=given) as folder:
        os.environ[CACHE] = folder
        try:
            yield
        finally:
            os.environ.pop(CACHE)
            if given is not None:
                os.environ[CACHE] = given


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--voices", default=RUNS, metavar="FOLDER", help="folder of runs to offer")
    help_text = "offer only this run: its name in logs/, its folder or a checkpoint (default: all of --voices)"
    cli.add_run(choice, "-m", "--model", help=help_text)
    cli.add_device(parser)
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on; 0.0.0.0 is all networks")
    add("--port", type=int, default=7860, metavar="N", help=f"port, 1 to {MAX_PORT}")
    allowed = "name by which clients may call the server, besides localhost and numbers; * is any; may be repeated"
    add("--allow-host", action="append", default=[], metavar="NAME", help=allowed)
    add(
        "--api-key",
        metavar="KEY",
        help=f"key that requests must have (default: the environment variable {KEY}, or none)",
    )
    add("--share", action="store_true", help="create a public address through gradio's tunnel")
    args = parser.parse_args(arguments)
    os.environ.setdefault(*KEPT_CONVOLUTIONS)  # PyTorch reads it when it is first used
    with cli.errors_in_one_line("webui"), own_cache():
        cli.extra("gradio")
        from serving.voices import Voices

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, which removes the files
        key = args.api_key or os.environ.get(KEY)
        voices = Voices(args.voices, args.model, args.device)
        blocks, _ = serve(voices, args.port, args.share, host=args.host, hosts=args.allow_host, api_key=key)
        blocks.block_thread()


if __name__ == "__main__":
    main()
