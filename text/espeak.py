"""Text to phonemes with espeak-ng, called through its C interface.

VITS calls the same function through the phonemizer package. The output is that of phonemizer, as the tests check, but
this module is faster and loads one copy of the library for all languages. One difference is deliberate: phonemizer 3.4
searches a line for the text of each punctuation mark instead of using its position. It therefore splits "It is 1.5 x."
at the decimal point and loses the rest of the line. Here marks keep their positions.

The library is the file named by PHONEMIZER_ESPEAK_LIBRARY (its data: PHONEMIZER_ESPEAK_DATA_PATH), or else that of the
package espeakng-loader, or else the system's. It is loaded on first use. Threads and forked processes may use it.
"""

import ctypes
import ctypes.util
import difflib
import itertools
import os
import re
import threading
from pathlib import Path

from text.abbreviations import IN_WORD

# The punctuation marks of phonemizer with the spaces around them. "," and "." between digits are part of a number.
# the look-behind keeps the time linear in the number of spaces
_MARKS = re.compile(r"""((?<!\s)\s*(?:(?:[;:!?¡¿—…"«»“”(){}\[\]]|(?<![0-9])[,.]|[,.](?![0-9]))\s*)+)""")
_LANGUAGE_SWITCH = re.compile(r"\(.+?\)")  # such as "(en)" before an English word in another language
_STRESS = re.compile(r"[ˈˌ'-]+")

_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _IPA = 2, 0x8000, 1, 2  # of espeak-ng/speak_lib.h


class EspeakError(ValueError):
    """espeak-ng is missing, cannot be loaded, or lacks the language."""


class UnknownLanguage(EspeakError):
    """espeak-ng is there and lacks the language."""


class _Voice(ctypes.Structure):  # the first fields of espeak_VOICE
    _fields_ = [("name", ctypes.c_char_p), ("languages", ctypes.c_void_p), ("identifier", ctypes.c_char_p)]


class Espeak:
    """The C library. Its state is global, so callers of `set_voice` and `phonemes` must hold `lock`.

    Raises EspeakError if the library does not load, or does not start with this data.
    """

    def __init__(self, library_path: str, data_path: str | None):
        try:
            self.library = ctypes.CDLL(library_path)
        except OSError as error:
            raise EspeakError(f"espeak-ng at {library_path} does not load: {error}") from error
        data = os.fsencode(data_path) if data_path else None
        if self.library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT) <= 0:
            failure = f"espeak-ng at {library_path} does not start with the data in {data_path or 'its place'}"
            raise EspeakError(f"{failure}; that folder must exist, and its path be no longer than 150 characters")
        self._to_phonemes = self.library.espeak_TextToPhonemes
        self._to_phonemes.restype = ctypes.c_char_p
        self._to_phonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        self._voice: str | None = None
        self.languages = self._list_languages()
        self.lock = threading.Lock()

    def _list_languages(self) -> dict[str, str]:
        """Return the voice of each language code.

        A code that is the first of some voice ("fr-fr") selects that voice, as in phonemizer. Any other code ("fr")
        selects the voice with the highest priority in espeak.
        """
        list_voices = self.library.espeak_ListVoices
        list_voices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        codes: list[tuple[int, str, str]] = []  # priority (the lowest number comes first), code and voice
        for pointer in itertools.takewhile(bool, list_voices(None)):
            voice = pointer.contents
            identifier = os.fsdecode(voice.identifier).replace("\\", "/")
            if identifier.startswith("mb/"):  # requires the program mbrola
                continue
            # each entry is a priority byte and a string; an empty entry ends the list
            address = voice.languages
            while entry := ctypes.string_at(address):
                priority = -1 if address == voice.languages else entry[0]
                codes.append((priority, os.fsdecode(entry[1:]), identifier))
                address += len(entry) + 1
        codes.sort(key=lambda entry: entry[0])
        return {code: identifier for _, code, identifier in reversed(codes)}  # of equal codes, the last one stays

    def set_voice(self, name: str) -> None:
        """Select a voice by identifier ("gmw/en-US") or language and variant ("en-us+f3"), or raise EspeakError."""
        if name != self._voice:
            self._voice = None
            if self.library.espeak_SetVoiceByName(name.encode()) != 0:
                raise EspeakError(f"espeak-ng has no voice {name!r}")
            self._voice = name

    def voice_of(self, language: str) -> str:
        """Return the voice of a language code. Raises UnknownLanguage with the nearest codes and all codes."""
        if language not in self.languages:
            near = ", ".join(difflib.get_close_matches(language, self.languages, n=3, cutoff=0.3)) or "none"
            every = " ".join(sorted(self.languages))
            raise UnknownLanguage(f"espeak-ng has no language {language!r}; nearest: {near}; all: {every}")
        return self.languages[language]

    def phonemes(self, text: str) -> str:
        """Return the IPA of text without punctuation but `IN_WORD`, in the selected voice."""
        pointer = ctypes.c_char_p(text.replace(IN_WORD, ".").encode("utf-8", "replace"))
        clauses = []
        while pointer.value is not None:  # espeak advances the pointer by one clause
            clauses.append(self._to_phonemes(ctypes.byref(pointer), _UTF8, _IPA) or b"")
        ipa = b" ".join(clauses).decode().strip()
        return _LANGUAGE_SWITCH.sub("", ipa) if "(" in ipa else ipa


_loading = threading.Lock()
_espeak: Espeak | None = None


def load() -> Espeak:
    """Return the library; the first call loads it. Raises EspeakError, with what to install, if that fails."""
    global _espeak
    with _loading:
        if _espeak is None:
            _espeak = Espeak(*find())
            if hasattr(os, "register_at_fork"):  # no fork during a call: the child would inherit its state
                lock = _espeak.lock
                os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
        return _espeak


def find() -> tuple[str, str | None]:
    """Return the paths of the library and of its data; None stands for the library's own data path.

    Raises EspeakError if the file that PHONEMIZER_ESPEAK_LIBRARY names does not exist, or espeak-ng is not installed.
    """
    data = os.environ.get("PHONEMIZER_ESPEAK_DATA_PATH")
    if named := os.environ.get("PHONEMIZER_ESPEAK_LIBRARY"):
        if not Path(named).is_file():
            raise EspeakError(f"PHONEMIZER_ESPEAK_LIBRARY={named} is not a file; name the library or unset it")
        return named, data
    try:
        import espeakng_loader

        return espeakng_loader.get_library_path(), data or espeakng_loader.get_data_path()
    except ImportError:
        system = ctypes.util.find_library("espeak-ng")
    if not system:
        remedy = "use the system's espeak-ng, with its library named in PHONEMIZER_ESPEAK_LIBRARY"
        raise EspeakError(f"phonemes need espeak-ng, which is missing: pip install espeakng-loader, or {remedy}")
    return system, data


def phonemize(text: str, language: str = "en-us", stress: bool = True, punctuation: bool = True) -> str:
    """Return the IPA of `text`. Lines are converted one by one and joined by spaces.

    Args: `language`, a code of espeak-ng; `stress`, whether stress marks are kept; `punctuation`, whether punctuation
    marks are kept and the text between them is converted separately. Without it, each line is converted as a whole.
    Raises EspeakError if espeak-ng or the language is missing.
    """
    engine = load()
    voice = engine.voice_of(language)
    lines = []
    with engine.lock:
        engine.set_voice(voice)
        for line in text.replace("\0", " ").split("\n"):
            if punctuation:
                parts = enumerate(_MARKS.split(line))  # the odd ones are marks
                lines.append("".join(part if i % 2 else engine.phonemes(part) for i, part in parts if part))
            else:
                lines.append(engine.phonemes(_MARKS.sub(" ", line).strip()))
    ipa = " ".join(line for line in lines if line)
    return ipa if stress else _STRESS.sub("", ipa)
