"""The alignment search in NumPy: the reference form of the algorithm, and the fallback without a compiler."""

import numpy as np


def search(values: np.ndarray, frames: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Find the best monotonic paths, vectorised over utterances and tokens.

    Args: values `[b, t_t, t_s]` in float32; valid lengths `[b]` with 1 <= tokens <= frames, which is not checked.
    Returns the paths `[b, t_t, t_s]`, zeros and ones in float32.
    """
    b, t_t, t_s = values.shape
    # best[:, s + 1] is the score of the best path that ends in token s; column 0 is the state before token 0, from
    # which a path can come at the first frame only
    best = np.full((b, t_s + 1), -np.inf, dtype=np.float32)
    best[:, 0] = 0.0
    # starts[:, t, s] is the frame at which the best path that is in token s at frame t entered s
    starts = np.empty((b, t_t, t_s), dtype=np.int32)
    start = np.zeros((b, t_s), dtype=np.int32)
    with np.errstate(invalid="ignore", over="ignore"):  # padding may hold any values; they do not affect valid cells
        for t in range(t_t):
            stay, enter = best[:, 1:], best[:, :-1]
            entered = enter > stay
            entered[:, t : t + 1] = True  # token t cannot begin before frame t
            start[entered] = t
            starts[:, t] = start
            best[:, 1:] = np.where(entered, enter, stay) + values[:, t]
            best[:, 0] = -np.inf

    begins = np.repeat(frames[:, None], t_s + 1, axis=1)
    for s in range(t_s - 1, -1, -1):
        start = starts[np.arange(b), begins[:, s + 1] - 1, s]
        begins[:, s] = np.where(s < tokens, start, frames)
    frame = np.arange(t_t)[:, None]
    return ((begins[:, None, :-1] <= frame) & (frame < begins[:, None, 1:])).astype(np.float32)
