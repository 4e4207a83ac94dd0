"""How a notebook's cell ends in one line where a traceback would tell its reader nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from IPython import get_ipython


class Stopped(Exception):
    """Ends a cell, and "Run all" with it; the notebook shows the message alone."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of the traceback."""
        return [f"Stopped: {self}"]


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """What a user can put right ends the cell with its message."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise Stopped(error) from None


def stop_if_failed() -> None:
    """End the cell if the program that it last ran with `!` did not succeed; the program itself has said why."""
    status = get_ipython().user_ns["_exit_code"]
    if status:
        raise Stopped(f"the program above ended with exit status {status}; its last lines say why")
