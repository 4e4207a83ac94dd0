"""The alignment search in numpy: the plain statement of the method, and the way without a compiler."""

import numpy as np


def search(values: np.ndarray, frames: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Best monotonic paths; vectorised over utterances and tokens.

    values: [b, t_t, t_s] float32. frames, tokens: [b] valid lengths; the caller has made sure of
    1 <= tokens <= frames.
    Returns the paths [b, t_t, t_s], float32 zeros and ones.
    """
    b, t_t, t_s = values.shape
    # best[:, s + 1] is the score of the best path that is in token s now; column 0 is the place before token 0,
    # where only the first frame may come from.
    best = np.full((b, t_s + 1), -np.inf, dtype=np.float32)
    best[:, 0] = 0.0
    # starts[:, t, s]: the frame at which that path, seen from frame t, entered token s
    starts = np.empty((b, t_t, t_s), dtype=np.int32)
    start = np.zeros((b, t_s), dtype=np.int32)
    with np.errstate(invalid="ignore", over="ignore"):  # padding may hold anything; it never reaches a valid cell
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
    t = np.arange(t_t)[:, None]
    return ((begins[:, None, :-1] <= t) & (t < begins[:, None, 1:])).astype(np.float32)
