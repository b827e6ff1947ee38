"""Reads the table `[policies]`: a policy of its own for some models."""

from __future__ import annotations

from mvllm_router.config.document import Document
from mvllm_router.config.problems import Problem
from mvllm_router.config.rules import Mismatch, kind
from mvllm_router.config.settings import SETTINGS

_RULE = next(setting for setting in SETTINGS if setting.name == "policy")


def read_policies(document: Document, problems: list[Problem]) -> dict[str, str]:
    """Return the names of policies by model, and add what is wrong to `problems`."""
    table = document.data.get("policies", {})
    if not isinstance(table, dict):
        message = f"`policies` must be a table, but it is {kind(table)}"
        hint = 'write [policies], and under it "MODEL" = "POLICY"'
        problems.append(document.problem(("policies",), message, hint=hint))
        return {}
    found = {}
    for model, name in table.items():
        try:
            found[model] = str(_RULE.check(name))
        except Mismatch as mismatch:
            context = "in [policies]"
            place = ("policies", model)
            problem = document.problem(place, mismatch.message, hint=mismatch.hint, context=context)
            problems.append(problem)
    return found
