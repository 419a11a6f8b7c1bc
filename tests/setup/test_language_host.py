"""The language host under the real engine: programs in folders, policy packs, a quiet end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

POLICY = """
from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy

def no_widgets(args, report):
    if args.resource_type == "shop:index:Widget":
        report(f"{args.name} is a widget")

PolicyPack("shop", policies=[
    ResourceValidationPolicy("no-widgets", "no widgets here", no_widgets, enforcement_level=EnforcementLevel.MANDATORY),
])
"""


@pytest.fixture
def engine(tmp_path: Path, root: Path, pulumi: Path):
    """Return a function that runs the engine in a project of this test's own, with this repository's language host."""
    project = tmp_path / "project"
    (project / "program").mkdir(parents=True)
    (project / "Pulumi.yaml").write_text("name: shop\nruntime: python\nmain: program\n", encoding="utf-8")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    host = binaries / "pulumi-language-python"
    host.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{root / "tools" / "language_host.py"}" "$@"\n')
    host.chmod(0o755)
    (binaries / "pulumi").symlink_to(pulumi)
    state = tmp_path / "state"
    state.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
    }
    # The plugin of every installed Pulumi package must be there before a program runs; this one is never called.
    plugin = tmp_path / "home" / "plugins" / "resource-aws-v7.51.1"
    plugin.mkdir(parents=True)
    (plugin / "pulumi-resource-aws").write_text("#!/bin/sh\nexit 1\n")
    (plugin / "pulumi-resource-aws").chmod(0o755)

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (project / "program" / "__main__.py").write_text(program, encoding="utf-8")
        subprocess.run(
            [binaries / "pulumi", "stack", "select", "--create", "test"],
            cwd=project, env=environment, check=True, capture_output=True,
        )  # fmt: skip
        return subprocess.run(
            [binaries / "pulumi", *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
        )

    run.project = project  # type: ignore[attr-defined]
    return run


@pytest.mark.slow
def test_a_program_in_a_folder_runs_there_and_its_exports_come_back(engine) -> None:
    (engine.project / "program" / "neighbour.py").write_text("ANSWER = 42\n", encoding="utf-8")
    up = engine(
        "import os, pulumi, neighbour\n"
        "pulumi.export('here', os.path.basename(os.getcwd()))\npulumi.export('answer', neighbour.ANSWER)\n",
        "up", "--yes", "--skip-preview",
    )  # fmt: skip
    assert up.returncode == 0, up.stdout + up.stderr
    assert '"program"' in up.stdout
    assert "42" in up.stdout


@pytest.mark.slow
def test_an_error_in_the_program_fails_the_update_and_names_its_line(engine) -> None:
    up = engine("import pulumi\n\nraise ValueError('the shop is closed')\n", "up", "--yes", "--skip-preview")
    assert up.returncode != 0
    assert "the shop is closed" in up.stdout + up.stderr
    assert "line 3" in up.stdout + up.stderr


@pytest.mark.slow
def test_a_policy_pack_runs_and_stops_what_it_forbids(engine, tmp_path: Path) -> None:
    pack = tmp_path / "policy"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text("runtime: python\n", encoding="utf-8")
    (pack / "__main__.py").write_text(POLICY, encoding="utf-8")
    program = "import pulumi\npulumi.ComponentResource('shop:index:{}', 'thing')\n"
    forbidden = engine(program.format("Widget"), "preview", "--policy-pack", str(pack))
    allowed = engine(program.format("Gadget"), "preview", "--policy-pack", str(pack))
    assert forbidden.returncode != 0
    assert "thing is a widget" in forbidden.stdout + forbidden.stderr
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr


@pytest.mark.slow
def test_the_host_stops_without_a_traceback_when_interrupted(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, root / "tools" / "language_host.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout is not None
        assert int(host.stdout.readline()) > 0
        host.send_signal(2)
        _, errors = host.communicate(timeout=20)
    assert host.returncode == 0
    assert errors == ""
