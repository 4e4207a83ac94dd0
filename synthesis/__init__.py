"""Synthesis with trained voices: `from synthesis import Voice`.

`voice` synthesizes with PyTorch, and `speech` holds the parts that all runtimes share. `Voice` is imported on first
use, because `infer_onnx.py` uses `synthesis.speech` where PyTorch is not installed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synthesis.voice import Voice, find_checkpoint

__all__ = ["Voice", "find_checkpoint"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from synthesis import voice

    return getattr(voice, name)
