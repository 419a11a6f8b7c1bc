"""Words that the platform's data is made of, and the pools of sentences cut from them ahead of time.

Making a row must cost microseconds, so its text comes from pools that are built once per seed.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

GIVEN_NAMES = (
    "Amara", "Björn", "Chiara", "Dmitri", "Elif", "Fatou", "Grace", "Hiroshi", "Inês", "Jamal", "Kateřina", "Linh",
    "Mateo", "Nadia", "Oisín", "Priya", "Quentin", "Rosa", "Søren", "Tariq", "Uma", "Viktor", "Wanjiru", "Ximena",
    "Yuki", "Zoë",
)  # fmt: skip
FAMILY_NAMES = (
    "Abebe", "Bianchi", "Castro", "Dubois", "Eriksen", "Fischer", "García", "Haddad", "Ivanova", "Jensen", "Kowalski",
    "Lindqvist", "Müller", "Nakamura", "O'Brien", "Petrović", "Quispe", "Rossi", "Singh", "Tanaka", "Ueda", "Vargas",
    "Wójcik", "Xu", "Yeğin", "Zhang",
)  # fmt: skip
ROLES = ("negotiator", "historian", "engineer", "medic", "critic", "trader", "planner", "scout", "mediator", "auditor")
SKILLS = (
    "summarising", "arithmetic", "diplomacy", "map reading", "bargaining", "translation", "first aid", "forecasting",
    "irony", "bookkeeping", "navigation", "fact checking",
)  # fmt: skip
PLACES = (
    "harbour", "market", "library", "observatory", "council", "greenhouse", "workshop", "archive", "station", "orchard",
    "clinic", "theatre", "mill", "citadel", "lagoon", "foundry",
)  # fmt: skip
QUALITIES = (
    "quiet", "northern", "amber", "restless", "patient", "hollow", "bright", "distant", "woven", "salted", "brisk",
    "gilded", "muted", "crooked", "drifting", "second",
)  # fmt: skip
TAGS = ("research", "pricing", "onboarding", "red-team", "education", "logistics", "policy", "support", "games")
PLANS = ("free", "team", "team", "team", "enterprise")
MODELS = ("verse-large-2", "verse-small-3", "verse-small-3", "agora-70b", "agora-8b")
TOOLS = ("search_archive", "price_lookup", "send_letter", "measure", "calendar", "ledger_entry", "draw_map")
MOODS = ("calm", "tense", "curious", "elated", "wary", "tired")
KINDS = ("message", "message", "message", "tool_call", "tool_call", "observation", "observation", "decision", "metric")
ERRORS = (
    "model endpoint timed out after 30 s",
    "budget of the project exhausted",
    'tool "price_lookup" answered with status 502',
    "persona left the conversation twice in one turn",
)
_SUBJECTS = ("the delegation", "our buyer", "a stranger", "the council", "every witness", "the second crew", "nobody")
_VERBS = ("proposed", "refused", "measured", "postponed", "traded", "remembered", "questioned", "promised", "mapped")
_OBJECTS = (
    "a fair price for the salt", "the route past the mill", "three letters without a seal", "the count of the harvest",
    "a truce until the tide turns", "what the archive says of 1884", "the repair of the eastern pump",
    "forty crates of amber glass", "an older version of the map", "the vote on the lantern tax",
)  # fmt: skip
_ENDINGS = (
    "before noon", "without being asked", "and wrote it down", "as the bells rang", "for the second time",
    "which surprised the mediator", "at a loss of 12 %", 'saying "not today"', "über die Brücke", "\nand then left",
)  # fmt: skip

_POOL_SIZE = 4096
_ONSETS = ("b", "br", "d", "f", "gl", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w")
_NUCLEI = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_CODAS = ("", "n", "r", "l", "st", "m", "th", "ck")


def _lexicon() -> tuple[str, ...]:
    rng = random.Random("lexicon")  # noqa: S311  # reproducible on purpose
    return tuple(
        "".join(rng.choice(part) for _ in range(1 + rng.getrandbits(1)) for part in (_ONSETS, _NUCLEI, _CODAS))
        for _ in range(4096)
    )


# Names and words of the worlds that are simulated. Without them gzip would fold the text to a tenth of its size; that
# of real platforms goes to a third.
_LEXICON = _lexicon()


def sentence(rng: random.Random) -> str:
    """Return one sentence of about twenty-five words."""
    subject, verb, what, end = (rng.choice(words) for words in (_SUBJECTS, _VERBS, _OBJECTS, _ENDINGS))
    strange = " ".join(rng.choices(_LEXICON, k=18))
    return f"{subject[0].upper()}{subject[1:]} {verb} {what}, {strange}, {end}."


def paragraph(rng: random.Random, sentences: int) -> str:
    """Return this many sentences, one after the other."""
    return " ".join(sentence(rng) for _ in range(sentences))


def copy_text(value: str) -> str:
    r"""Escape a value for PostgreSQL's COPY text format: backslash, tab, newline and carriage return."""
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def copy_json(value: object) -> str:
    """Return a value as JSON, escaped for PostgreSQL's COPY text format."""
    return copy_text(json.dumps(value, ensure_ascii=False))


def copy_array(values: list[str]) -> str:
    """Return an array of texts as a PostgreSQL array literal, escaped for COPY."""
    quoted = ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return copy_text("{" + quoted + "}")


@dataclass(frozen=True, slots=True)
class EventPool:
    """Event kinds with the rest of their payload: COPY-escaped JSON that follows `{"turn": N, "trace": "...", `."""

    fragments: tuple[tuple[str, str], ...]

    @classmethod
    def build(cls, seed: int) -> EventPool:
        """Build the pool of this seed: a few thousand payloads, too far apart for gzip to fold them into one."""
        rng = random.Random(f"{seed}/event pool")  # noqa: S311  # reproducible on purpose
        return cls(tuple(_fragment(rng) for _ in range(_POOL_SIZE)))


def _fragment(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(KINDS)
    body: dict[str, object]
    match kind:
        case "message":
            body = {"text": paragraph(rng, 1 + rng.getrandbits(1)), "mood": rng.choice(MOODS)}
        case "tool_call":
            arguments = {"query": sentence(rng), "limit": rng.randrange(1, 50), "exact": rng.random() < 0.3}
            body = {"tool": rng.choice(TOOLS), "arguments": arguments, "status": 200}
        case "observation":
            place = {"name": f"{rng.choice(QUALITIES)} {rng.choice(PLACES)}", "x": rng.randrange(900), "y": 17}
            body = {"place": place, "seen": [sentence(rng) for _ in range(1 + rng.getrandbits(1))]}
        case "decision":
            options = [sentence(rng) for _ in range(2)]
            body = {"options": options, "chosen": rng.getrandbits(1), "confidence": round(rng.random(), 3)}
        case _:
            names = ("trust", "wealth", "novelty", "coherence")
            body = {"metrics": {name: round(rng.random() * 10, 4) for name in names}, "window": 64}
    return kind, copy_json(body)[1:]
