"""The files in `deploy/`: what they name is there, and they fit together."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from circuit.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
MANIFESTS = [
    document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
PAGES = "".join((ROOT / "docs" / "how-to" / page).read_text() for page in ("operate.md", "trace.md"))
SETTINGS = (ROOT / "docs" / "reference" / "settings.md").read_text()
METRICS = (ROOT / "docs" / "reference" / "metrics.md").read_text()
CIRCUIT = typer.main.get_command(app)


def command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` begin with, and what is left of them."""
    found: Any = CIRCUIT
    left = list(words)
    while left and getattr(found, "commands", None):
        assert left[0] in found.commands, f"circuit {' '.join(words)}: there is no such command"
        found = found.commands[left.pop(0)]
    return found, left


def commands() -> Iterator[list[str]]:
    """Every command line of `circuit` in the files and on the pages."""
    text = "".join(path.read_text() for path in FILES) + PAGES
    for line in re.findall(r"(?:^|ExecStart(?:Pre)?=|`|/opt/circuit/bin/)circuit ([a-z][^`\n#]*)", text, re.MULTILINE):
        yield line.split("  ")[0].split()
    for document in MANIFESTS:
        for container in pod(document).get("containers", ()):
            yield [str(word) for word in container["args"]]


def pod(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("spec", {}).get("template", {}).get("spec", {})


def kind(name: str) -> list[dict[str, Any]]:
    return [document for document in MANIFESTS if document["kind"] == name]


def test_every_command_and_option_is_there() -> None:
    lines = [line for line in commands() if line]
    assert ["serve", "--workers", "2"] in lines and ["worker", "--port", "%i"] in lines
    for line in lines:
        found, left = command(line)
        known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in left:
            assert not word.startswith("--") or word in known, f"circuit {' '.join(line)}: no option {word}"


def test_every_setting_is_listed() -> None:
    text = "".join(path.read_text() for path in FILES) + PAGES
    named = set(re.findall(r"\b((?:CIRCUIT|OTEL|MAX|STREAM|AGENT)_[A-Z0-9_]*[A-Z0-9])\b", text))
    assert len(named) > 15
    assert {
        name for name in named if f"`{name}`" not in SETTINGS and f"`{name.rpartition('_')[0]}_*`" not in SETTINGS
    } == set()


def test_every_figure_is_listed() -> None:
    text = "".join(path.read_text() for path in FILES if path.suffix in (".yaml", ".json")) + PAGES
    named = set(re.findall(r"\b(circuit_[a-z_]+)\b", text)) - {"circuit_engine", "circuit_tenant"}
    assert len(named) > 20
    for name in named:
        listed = re.sub(r"_(bucket|count|sum)$", "", name)
        assert f"`{listed}`" in METRICS, name


def test_pods_are_found_probed_and_given_time_to_end() -> None:
    [config], [secret] = kind("ConfigMap"), kind("Secret")
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in kind("Deployment")]
    assert len(labels) == 2
    for one in kind("Deployment"):
        assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]
    for one in kind("PodDisruptionBudget"):
        assert one["spec"]["selector"]["matchLabels"] in labels
    [service] = kind("Service")
    assert service["spec"]["selector"] in labels
    for document in [*kind("Deployment"), *kind("Job")]:
        for container in pod(document)["containers"]:
            given = {source.get("configMapRef", source.get("secretRef"))["name"] for source in container["envFrom"]}
            assert given == {config["metadata"]["name"], secret["metadata"]["name"]}
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe") if ports else ():
                how = container[probe].get("httpGet") or container[probe]["tcpSocket"]
                assert how["port"] in ports
            if ports:
                told = document["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
                assert [int(told)] == list(ports.values())
    stop = float(config["data"]["CIRCUIT_STOP_SECONDS"])
    waits = 0
    for one in kind("Deployment"):
        [container] = pod(one)["containers"]
        before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        waits += int(before[1])
        assert pod(one)["terminationGracePeriodSeconds"] >= 2 * stop + 25 + int(before[1])
    assert waits, "a server takes connections until the cluster sends it none"


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_units_give_what_runs_time_to_end(unit: Path) -> None:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.read_string(unit.read_text())
    variables = dict(
        line.split("=", 1) for line in (DEPLOY / "systemd" / "circuit.env").read_text().splitlines() if line[0] != "#"
    )
    assert float(parsed["Service"]["TimeoutStopSec"]) >= 2 * float(variables["CIRCUIT_STOP_SECONDS"]) + 30
    assert parsed["Service"]["EnvironmentFile"] == "/etc/circuit/circuit.env"


BOARD = json.loads((DEPLOY / "grafana" / "circuit.json").read_text())


def test_the_dashboard_is_whole() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels) and all(panel["targets"] for panel in panels)


def test_every_alert_is_explained() -> None:
    [group] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in group["rules"])
    assert [rule["labels"]["severity"] for rule in group["rules"][:4]] == ["page"] * 4


def promtool(*arguments: str) -> str:
    """What Prometheus' own tool says. It is `promtool` where that is installed (Debian: `prometheus`)."""
    done = subprocess.run(
        ["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt install prometheus")


@needs_promtool
def test_alerts_are_raised_when_they_should_be() -> None:
    [group] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    tried = yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yaml").read_text())["tests"]
    raised = {one["alertname"] for test in tried for one in test["alert_rule_test"] if one["exp_alerts"]}
    silent = {one["alertname"] for test in tried for one in test["alert_rule_test"] if not one["exp_alerts"]}
    assert raised == silent == {rule["alert"] for rule in group["rules"]}
    assert f"SUCCESS: {len(group['rules'])} rules found" in promtool("check", "rules", "alerts.yaml")
    promtool("test", "rules", "alerts.test.yaml")


@needs_promtool
def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(queries)} rules found" in promtool("check", "rules", str(file))
