"""Forms of a recipe: the same stages with some settings changed, chosen with `--form`.

A recipe as it is written is its everyday form. Each further one lists, under `forms:`, the settings that differ, by the
names that `--set` has for them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from groundup.config import overrides
from groundup.config.problems import Source
from groundup.errors import UserError


def choose(raw: dict[str, Any], form: str | None, kinds: Mapping[str, str], source: Source) -> None:
    """Take `forms` out of `raw` and put the settings of the chosen one in; the run is then called NAME-FORM.

    The settings of every form must exist, so that a mistake shows whichever is chosen. Raises UserError.
    """
    forms = raw.get("forms", {})
    if not isinstance(forms, dict) or not all(isinstance(settings, dict) for settings in forms.values()):
        return  # validation says what is wrong
    raw.pop("forms", None)
    if form is not None and form not in forms:
        have = (
            f"It has: {', '.join(map(str, forms))}." if forms else "It has one form only: leave --form out."
        )
        raise UserError(f"The recipe has no form `{form}`.", where=str(source.file or ""), fix=have)
    for name, settings in forms.items():
        into = raw if name == form else copy.deepcopy(raw)
        for key, value in settings.items():
            where = source.where(("forms", name, key))
            try:
                place = overrides.put(into, str(key), value, kinds, f"Form {name}, {key}")
            except UserError as error:
                error.where = where
                raise
            if name == form:
                source.overrides[place] = where
    if form is not None and isinstance(raw.get("name"), str):
        raw["name"] = f"{raw['name']}-{form}"
