"""Which workflows may use an agent: rules by patterns of their ids, held beside the agent and not in it, so that no
file can grant itself anything. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

LONGEST_PATTERN = 200
_PATTERN = re.compile(r"[A-Za-z0-9_*:-]+", re.ASCII)


class Effect(StrEnum):
    """What a rule says of the workflows that its pattern fits."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Rule:
    """Workflows whose id fits `pattern`, in which `*` stands for any text, may use an agent, or may not."""

    pattern: str
    effect: Effect

    def fits(self, workflow_id: str) -> bool:
        return _compiled(self.pattern).fullmatch(workflow_id) is not None


def allowed(rules: Iterable[Rule], workflow_id: str) -> bool:
    """Whether a workflow may use an agent of which these are the rules. A rule that denies goes before all; as soon as
    one allows anything, what none allows is denied; without rules all may."""
    some = granted = False
    for rule in rules:
        fits = rule.fits(workflow_id)
        if rule.effect is Effect.DENY:
            if fits:
                return False
        else:
            some, granted = True, granted or fits
    return granted or not some


def is_pattern(text: str) -> bool:
    """Whether `text` is a pattern of ids: those of workflows, or `agent:ID` for who asks the agent directly."""
    return len(text) <= LONGEST_PATTERN and _PATTERN.fullmatch(text) is not None


@lru_cache(maxsize=1_000)
def _compiled(pattern: str) -> re.Pattern[str]:
    # Stars in a row would have the matcher try again and again what one star says.
    return re.compile(".*".join(map(re.escape, re.sub(r"\*+", "*", pattern).split("*"))), re.DOTALL)
