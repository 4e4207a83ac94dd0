"""Evaluation of voices (`evaluate.py`): takes, measures and reports.

`takes` speaks the lines of a filelist, `measures` scores the audio with the recognizer of `recognition`, the judges of
`judges` and the signal distances of `acoustics`, `durations` compares rhythms, `bootstrap` gives intervals, and
`report` and `pictures` write the results.
"""
