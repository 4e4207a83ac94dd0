"""The numbers of a report. Each is a function of sums over sentences, so all have bootstrap intervals."""

from typing import NamedTuple

from evaluation.bootstrap import OfSums, ratio, ratio_of_ratios, ratio_of_stds, root_of_ratio
from evaluation.judges import JUDGES


class Quantity(NamedTuple):
    """One number of a report."""

    title: str
    meaning: str
    of_sums: OfSums
    percent: bool = False


QUANTITIES = {
    "cer": Quantity("character error rate", "of a recognizer; lower is more intelligible", ratio, True),
    "wer": Quantity("word error rate", "of a recognizer; lower is more intelligible", ratio, True),
    **{name: Quantity(judge.title, judge.meaning, ratio) for name, judge in JUDGES.items()},
    "similarity": Quantity("speaker similarity", "cosine to the mean embedding of the recordings, up to 1", ratio),
    "source_similarity": Quantity(
        "similarity to the source", "of converted audio: cosine to the mean embedding of its first speaker", ratio
    ),
    "mcd": Quantity("mel-cepstral distortion, dB", "distance to the recordings; lower is nearer", ratio),
    "log_f0_rmse": Quantity("log F0 error", "root mean square, where both are voiced; 0.1 is 10 %", root_of_ratio),
    "voicing_error": Quantity("voicing error", "share of frames of which only one is voiced", ratio, True),
    "duration_std_ratio": Quantity(
        "duration variation", "std of predicted over std of aligned log durations; 1 is natural", ratio_of_stds
    ),
    "duration_spread": Quantity("duration spread", "std of log durations between seeds, mean over symbols", ratio),
    "speaking_rate": Quantity("letters per second", "without silence at the ends", ratio),
    "speaking_rate_ratio": Quantity("speaking rate", "as a multiple of the recordings'", ratio_of_ratios),
    "real_time_factor": Quantity("real-time factor", "computing time over duration of the audio", ratio),
    "first_sound": Quantity("first sound, s", "until a stream yields its first samples", ratio),
}
