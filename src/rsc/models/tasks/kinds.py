"""The tasks there are. A new one is a file beside this, a line here, and a word in `HeadConfig.kind`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsc.models.tasks.classes import Classes, MultiLabel
from rsc.models.tasks.contrastive import Contrastive
from rsc.models.tasks.ctc import Ctc
from rsc.models.tasks.masked_token import MaskedToken
from rsc.models.tasks.next_token import NextToken

if TYPE_CHECKING:
    from rsc.models.config import ModelConfig
    from rsc.models.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    task.kind: task for task in (NextToken, MaskedToken, Classes, MultiLabel, Ctc, Contrastive)
}


def task_of(config: ModelConfig) -> Task:
    return TASKS[config.head.kind](config)
