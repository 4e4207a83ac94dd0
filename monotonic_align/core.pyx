# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The alignment search on the CPU, parallel over utterances and vectorised over tokens."""

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY

import numpy as np


cdef void search_one(
    const float[:, :, ::1] values, int i, int frames, int tokens,
    float[:, :, ::1] scores, int[:, :, ::1] starts, int thread, float[:, :, ::1] path,
) noexcept nogil:
    """Write ones along the best path of utterance i. `scores` and `starts` hold a scratch buffer for each thread."""
    cdef const float* value
    cdef const float* before
    cdef float* best
    cdef const int* start_before
    cdef int* start
    cdef float stay, enter
    cdef int entered, t, s, begin, end

    # scores[.., s + 1] belongs to token s; column 0 is the state before token 0, from which a path can come at the
    # first frame only
    for s in range(tokens + 1):
        scores[thread, 0, s] = -INFINITY
        scores[thread, 1, s] = -INFINITY
    scores[thread, 1, 0] = 0

    for t in range(frames):
        value = &values[i, t, 0]
        best = &scores[thread, t & 1, 0]
        before = &scores[thread, 1 - (t & 1), 0]
        start = &starts[thread, t, 0]
        start_before = &starts[thread, max(t - 1, 0), 0]
        # from tokens before the first one below, a path can no longer reach the last token at the last frame
        for s in range(max(0, tokens - frames + t), min(t, tokens)):
            # a form without a second branch, which compilers vectorise
            stay, enter = before[s + 1], before[s]
            entered = -(enter > stay)  # all bits set or none
            best[s + 1] = value[s] + (enter if enter > stay else stay)
            start[s] = (t & entered) | (start_before[s] & ~entered)
        if t < tokens:  # token t cannot begin before frame t
            best[t + 1] = value[t] + before[t]
            start[t] = t
        if t == 0:
            scores[thread, 1, 0] = -INFINITY

    end = frames
    for s in range(tokens - 1, -1, -1):
        begin = starts[thread, end - 1, s]
        for t in range(begin, end):
            path[i, t, s] = 1
        end = begin


def search(const float[:, :, ::1] values, const int[::1] frames, const int[::1] tokens, int threads):
    """Find the best monotonic paths.

    Args:
        values: `[b, t_t, t_s]`, float32.
        frames, tokens: valid lengths `[b]` in int32 with 1 <= tokens <= frames <= t_t and tokens <= t_s, which is not
            checked.
        threads: the maximum number of threads.

    Returns:
        The paths `[b, t_t, t_s]`, zeros and ones in float32.
    """
    cdef int b = values.shape[0]
    threads = max(1, min(threads, b))
    cdef int i
    # one scratch buffer per thread, not per utterance, so that it stays in the cache of the core
    cdef float[:, :, ::1] scores = np.empty((threads, 2, values.shape[2] + 1), dtype=np.float32)
    cdef int[:, :, ::1] starts = np.empty((threads, values.shape[1], values.shape[2]), dtype=np.int32)
    paths = np.zeros((b, values.shape[1], values.shape[2]), dtype=np.float32)
    cdef float[:, :, ::1] path = paths
    for i in prange(b, nogil=True, schedule="dynamic", num_threads=threads):
        search_one(values, i, frames[i], tokens[i], scores, starts, threadid(), path)
    return paths
