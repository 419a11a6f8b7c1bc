"""The rules, loaded as the engine finds them: from a folder that is no package, without starting a policy pack."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_RULES = Path(__file__).parents[2] / "policy" / "rules.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agentverse_policy_rules", _RULES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def rules() -> ModuleType:
    """The module `policy/rules.py`."""
    return _load()
