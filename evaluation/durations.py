"""Statistics of durations by class of symbols, to find rhythms that are too regular.

A predictor that is trained on a squared error predicts means, so its log durations vary less than those of speech.
"""

from collections.abc import Sequence

import numpy as np

from text.symbols import LETTERS, PAD, PUNCTUATION

FLOOR = 1e-3  # frames, a lower bound under the logarithm
CLASSES: dict[str, str] = {  # IPA; letters that are not listed belong to no class of sounds
    "vowel": "aeiouyɑɐɒæɘəɚɛɜɝɞɨɪɔøɵœɶʉʊʌɤɯʏᵻ",
    "stop": "pbtdkgqɓɖɗɟɠɡɢʛʈʔʡʘʄǀǁǂǃ",
    "fricative": "fvszhxcçðθʃʒɕʑʂʐβɸɣχʁħʕʜʢɦɧɬɮʝʤʧʙ",  # and affricates, whose longer part is one
    "nasal": "mnŋɲɳɴɱ",
    "approximant": "lrwjɹɻɺɭɫɾɽʀʟʎʋⱱɥɰʍ",
    "pause": PUNCTUATION,
}
LETTER_CLASSES = {"vowel": "aeiouyAEIOUY", "pause": PUNCTUATION}  # of voices that read characters
CONSONANT, MARK = "consonant", "mark"  # any other letter; stress, length and other marks
ALL = "all"


def merge_blanks(symbols: Sequence[str], durations: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Add the duration of each blank to the symbol before it, and leave out the blanks before the first symbol.

    Args: symbols of the tokens `[tokens]`; durations `[..., tokens]` in frames, not their logarithm. Returns symbols
    and durations without blanks. Without blanks both are unchanged.
    """
    owner = np.cumsum([symbol != PAD for symbol in symbols]) - 1
    merged = np.zeros((*np.shape(durations)[:-1], owner.max(initial=-1) + 1))
    for token, position in enumerate(owner):
        if position >= 0:
            merged[..., position] += np.asarray(durations)[..., token]
    return [symbol for symbol in symbols if symbol != PAD], merged


def merged_log(symbols: Sequence[str], durations: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return symbols and log durations after `merge_blanks`. Args: as there."""
    symbols, merged = merge_blanks(symbols, durations)
    return symbols, log(merged)


def classes_of(symbols: Sequence[str], phonemes: bool = True) -> list[str]:
    """Return the class of each symbol: a key of `CLASSES`, or for characters vowel, consonant, pause; or mark."""
    table = CLASSES if phonemes else LETTER_CLASSES
    of_symbol = {symbol: name for name, members in table.items() for symbol in members}
    rest = CONSONANT if not phonemes else MARK
    return [of_symbol.get(symbol, rest if symbol.isalpha() else MARK) for symbol in symbols]


def are_phonemes(symbols: Sequence[str]) -> bool:
    """Return whether symbols are IPA: some letter among them is outside the Latin alphabet."""
    return any(symbol.isalpha() and symbol not in LETTERS for symbol in symbols)


def statistics(
    predicted_log: np.ndarray, aligned_log: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Compare two sets of log durations by class.

    Args:
        predicted_log, aligned_log: natural logarithms of durations `[tokens]`, in the same unit.
        classes: class of each token; `classes_of` gives them.

    Returns for each class, and for "all", `count`, the means and standard deviations `predicted_mean`,
    `predicted_std`, `aligned_mean`, `aligned_std`, and `std_ratio`, which is NaN if the aligned ones do not vary.
    """
    predicted_log, aligned_log = np.asarray(predicted_log, np.float64), np.asarray(aligned_log, np.float64)
    names = np.array([*classes, ""])[:-1]  # an array of strings, even if it is empty
    result = {}
    for name in [*dict.fromkeys(classes), ALL]:
        chosen = np.ones(len(names), bool) if name == ALL else names == name
        if not chosen.any():
            continue
        predicted, aligned = predicted_log[chosen], aligned_log[chosen]
        result[name] = {
            "count": int(chosen.sum()),
            "predicted_mean": float(predicted.mean()),
            "predicted_std": float(predicted.std()),
            "aligned_mean": float(aligned.mean()),
            "aligned_std": float(aligned.std()),
            "std_ratio": float(predicted.std() / aligned.std()) if aligned.std() else float("nan"),
        }
    return result


def log(durations: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of durations in frames, which are at least `FLOOR`."""
    return np.log(np.maximum(durations, FLOOR))
