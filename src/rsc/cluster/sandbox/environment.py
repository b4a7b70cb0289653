"""The environment variables that reach workers: a list of what they need, since credentials have any name.

    DATABASE_URL=postgres://user:password@host    no pattern of secret names fits it

A value of a listed variable passes as it is; one whose name looks like a credential never does.

Not covered: a secret that somebody puts into the value of a listed variable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES = frozenset(
    (
        *("PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "HOME", "TMPDIR", "COLUMNS", "NO_COLOR"),
        *(
            "LD_LIBRARY_PATH",
            "LD_PRELOAD",
            "DYLD_LIBRARY_PATH",
            "GLIBC_TUNABLES",
            "VIRTUAL_ENV",
            "SSL_CERT_FILE",
        ),
        *("CONDA_PREFIX", "SOURCE_DATE_EPOCH"),
    )
)
_BEGINNINGS = (
    *("LC_", "PYTHON", "RSC_"),
    # threads and kernels of the CPU
    *(
        "OMP_",
        "GOMP_",
        "KMP_",
        "MKL_",
        "OPENBLAS_",
        "BLIS_",
        "NUMEXPR_",
        "VECLIB_",
        "DNNL_",
        "ONEDNN_",
        "ATEN_",
    ),
    *("MALLOC_", "MIMALLOC_", "JEMALLOC_", "TCMALLOC_"),
    # PyTorch and its compilers
    *("TORCH", "PYTORCH_", "TRITON_", "GLOO_", "TOKENIZERS_"),
    # GPUs and what connects them
    *(
        "CUDA_",
        "CUBLAS_",
        "CUDNN_",
        "NVIDIA_",
        "NCCL_",
        "NVTE_",
        "UCX_",
        "FI_",
        "HIP_",
        "HSA_",
        "ROCR_",
        "ROCM_",
    ),
    *("MIOPEN_", "RCCL_", "GPU_", "AMD_"),
)
_SECRETS = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASS(W|PHRASE)|CREDENTIAL|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY|_PIN$|_KEY$|_PROXY$|_URL$",
    re.IGNORECASE,
)


def for_workers(environment: Mapping[str, str]) -> dict[str, str]:
    """What of a user's environment the processes that train may see."""
    return {name: value for name, value in environment.items() if _is_needed(name)}


def _is_needed(name: str) -> bool:
    is_listed = name in _NAMES or name.startswith(_BEGINNINGS)
    return is_listed and not _SECRETS.search(name)
