"""What a decoding worker may answer: results and errors, and no other pickle.

A worker decodes files of strangers and may be taken over by one. Its pickled answer would then run anything
in the importing process, which holds the data key; so classes and functions come from a short list,
and whatever else an answer names is refused.
"""

from __future__ import annotations

import io
import pickle

from rsc import errors
from rsc.errors import RscError
from rsc.ingest.map_part import PartResult

_PLAIN = {
    ("collections", "Counter"),
    ("rsc.ingest.map_part", "PartResult"),
    ("rsc.ingest.map_part", "PlacedFinding"),
    ("rsc.ingest.screen", "FoundIn"),
    ("rsc.ingest.readers.source", "BadRecord"),
    ("rsc.review.findings", "Finding"),
    ("rsc.review.redact", "Replacement"),
    ("rsc.review.report", "ReviewReport"),
    ("rsc.store.format.columns", "Ragged"),
    ("pathlib", "PosixPath"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("_core", "core")  # numpy 2 and 1
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}
_ERRORS = {
    ("rsc.errors", "_rebuild"),
    ("rsc.ingest.readers.source", "NarrowTypes"),
    ("rsc.ingest.parse_limits", "LimitPassed"),
    *(
        ("rsc.errors", name)
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, RscError)
    ),
}
_ALLOWED = _PLAIN | _ERRORS


def load_answer(data: bytes) -> PartResult | RscError:
    """Raises RscError for an answer that names anything but results and errors."""
    try:
        answer = _Loader(io.BytesIO(data)).load()
    except Exception as error:  # a stranger's bytes: whatever they do to the loader is a refusal
        raise RscError(
            f"a decoding worker gave an answer that is none ({type(error).__name__}); nothing was committed",
            hint="a file of the source may have taken it over: look at where the source came from",
        ) from None
    if not isinstance(answer, PartResult | RscError):
        raise RscError("a decoding worker gave an answer that is none; nothing was committed")
    return answer


class _Loader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError("not of the list")
        return super().find_class(module, name)
