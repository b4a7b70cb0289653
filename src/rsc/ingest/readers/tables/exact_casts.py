"""Casts of arrays that change no value, or are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsc.errors import DataError


def exact_cast(values: np.ndarray[Any, Any], dtype: np.dtype[Any], *, where: str) -> np.ndarray[Any, Any]:
    """`values` as `dtype`. Raises DataError where one of them would change."""
    if values.dtype == dtype:
        return values
    if not _is_exact(values, dtype):
        raise DataError(
            f"{where} holds {values.dtype} values that {dtype}, the type of the first batch, does not hold",
            hint="give every batch the same type, or all batches at once as a list",
        )
    return values.astype(dtype)


def joined_dtype(arrays: Sequence[np.ndarray[Any, Any]], *, where: str) -> np.dtype[Any]:
    """The type that holds the values of all arrays. Raises DataError where none does."""
    dtypes = {array.dtype for array in arrays}
    wholes = [np.dtype(name) for name in ("int64", "uint64")]
    for candidate in (np.result_type(*dtypes), *wholes):
        if all(_is_exact(array, candidate) for array in arrays):
            return candidate
    names = ", ".join(sorted(str(dtype) for dtype in dtypes))
    raise DataError(
        f"{where} has batches of {names}, and no type holds the values of all",
        hint="cast them to one type before the import",
    )


def _is_exact(values: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    """Whether every value comes back from `dtype` as it was; NaN is as good as NaN."""
    if np.can_cast(values.dtype, dtype, "safe") and not (values.dtype.kind in "iu" and dtype.kind in "fc"):
        return True
    if values.dtype.kind in "iu" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return not values.size or (limits.min <= int(values.min()) and int(values.max()) <= limits.max)
    with np.errstate(all="ignore"):
        there = values.astype(dtype)
        back = there.astype(values.dtype)
    if values.dtype.kind in "iu" and dtype.kind == "f":  # 2^63 as a float comes back as another number
        exact = float(1 << (np.finfo(dtype).nmant + 1))
        return not values.size or max(-int(values.min()), int(values.max())) <= exact
    if dtype.kind in "iub" and not np.isfinite(values).all():
        return False
    if dtype.kind in "iu" and values.dtype.kind == "f":
        limits = np.iinfo(dtype)
        if values.size and not (
            float(values.min()) >= limits.min and float(values.max()) < float(limits.max) + 1
        ):
            return False
    return bool(np.array_equal(values, back, equal_nan=values.dtype.kind in "fc"))
