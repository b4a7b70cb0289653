"""docs/settings.md says what the models say. `python tests/api/test_settings_reference.py` writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsc.api.settings_reference import PARTS, reference, settings_of

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == reference(), f"write it anew: python {Path(__file__).name}"


@pytest.mark.parametrize("part", PARTS)
def test_every_setting_has_a_meaning(part: str) -> None:
    model, _ = PARTS[part]
    assert [setting.key for setting in settings_of(model) if not setting.meaning] == []


if __name__ == "__main__":
    PAGE.write_text(reference())
