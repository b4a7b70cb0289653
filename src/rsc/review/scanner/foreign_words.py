"""Telling words of other scripts, and the ASCII words that stand for them in folded text.

Rules look for words before a number: "tel", "born", "password". Folding keeps of another script only that
there are letters, so these words are folded to their relatives instead. foreign_words.txt has them: Russian,
Ukrainian, Bulgarian, Greek, Chinese, Japanese, Korean, Arabic, Hebrew, Hindi and Thai.
"""

from __future__ import annotations

import re
from importlib import resources

_LINES = (
    resources.files("rsc.review.scanner")
    .joinpath("foreign_words.txt")
    .read_text(encoding="utf-8")
    .splitlines()
)
_WORDS = dict(line.split(": ", 1) for line in _LINES if not line.startswith("#"))
_UNSPACED = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]+")
RELATIVES: dict[str, str] = {
    word.replace("_", " "): f" {relative} " if _UNSPACED.fullmatch(word) else relative
    for relative, words in _WORDS.items()
    for word in words.split()
}
"""Word in lower case -> what it is folded to, set apart by spaces in scripts that write none."""


def _pattern() -> str:
    """Longest first; a word of a script with spaces stands alone."""
    words = sorted(RELATIVES, key=len, reverse=True)
    alone = "|".join(re.escape(word) for word in words if not _UNSPACED.fullmatch(word))
    within = "|".join(word for word in words if _UNSPACED.fullmatch(word))
    return rf"(?:{within})|(?<!\w)(?:{alone})(?!\w)"


ANY = _pattern()
