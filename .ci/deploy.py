#!/usr/bin/env python3
"""What no tool of others sees of the files in `deploy`: `deploy.py DEPLOY RULES`.

What a compose file names is there. Every alert has its section in the runbook, in the same order, and
links to it; it fires in a test, and not one evaluation sooner. Every question of the dashboard is written to
RULES, as Prometheus takes them, so that promtool can look at it.
"""

import json
import re
import sys
from pathlib import Path

import yaml


def main(deploy: Path, rules: Path) -> None:
    for file in (deploy / "compose.yaml", deploy / "cluster/compose.yaml"):
        compose(file)
    alerts_and_runbook(deploy)
    alerts_and_tests(deploy / "prometheus")
    rules.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked(deploy)}]}))


def compose(file: Path) -> None:
    """Services that others wait for, volumes, and files that are mounted."""
    project = yaml.safe_load(file.read_text())
    for name, service in project["services"].items():
        for other in service.get("depends_on", {}):
            expect(other in project["services"], f"{file}: {name} waits for {other}, which is not there")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            mounted = (file.parent / source).exists() if source.startswith(".") else False
            expect(mounted or source in project["volumes"], f"{file}: {name} mounts {source}, which is not there")


def alerts_and_runbook(deploy: Path) -> None:
    """A section for each alert, in the same order, and links that lead somewhere."""
    groups = yaml.safe_load((deploy / "prometheus/alerts.yml").read_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"]]
    runbook = (deploy / "RUNBOOK.md").read_text()
    sections = re.findall(r"^### (Esker\w+)$", runbook, re.MULTILINE)
    names = [alert["alert"] for alert in alerts]
    expect(sections == names, f"RUNBOOK.md has sections {sections}, and the alerts are {names}")
    for alert in alerts:
        name, link = alert["alert"], alert["annotations"]["runbook"]
        expect(link == f"RUNBOOK.md#{name.lower()}", f"{name} links to {link}")
        expect(alert["labels"]["severity"] in ("page", "ticket"), f"{name} is for nobody")
    headings = re.findall(r"^#+ (.+)$", runbook, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for link in re.findall(r"\]\(#([^)]+)\)", runbook):
        expect(link in anchors, f"RUNBOOK.md links to #{link}, which it does not have")


def alerts_and_tests(prometheus: Path) -> None:
    """Each alert fires in a test, not one evaluation sooner, and not while all is well."""
    rules = (prometheus / "alerts.yml").read_text()
    alerts = [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    # Whether it was quiet one evaluation before.
    fires: dict[str, bool] = {}
    watched: set[str] = set()
    for file in sorted((prometheus / "tests").glob("*.yml")):
        told = yaml.safe_load(file.read_text())
        step = seconds(told["evaluation_interval"])
        for test in told["tests"]:
            looks = test.get("promql_expr_test", [])
            if any('alertstate="firing"' in look["expr"] and not look.get("exp_samples") for look in looks):
                watched |= {each["series"].split("{")[0] for each in test["input_series"]}
            looks = test.get("alert_rule_test", [])
            at = {(look["alertname"], seconds(look["eval_time"])): look.get("exp_alerts") for look in looks}
            for (name, when), expected in at.items():
                if expected:
                    quiet = (name, when - step) in at and not at[name, when - step]
                    fires[name] = fires.get(name, False) or quiet
    for alert in alerts:
        name = alert["alert"]
        expect(name in fires, f"{name} fires in no test: prometheus/tests")
        expect(fires[name], f"no test says that {name} is quiet one evaluation before it fires")
        asks = set(re.findall(r"\b(?:esker_\w+|up)\b", alert["expr"]))
        expect(asks <= watched, f"{name} asks for {asks - watched}, which prometheus/tests/healthy.yml does not have")
    for name in fires:
        expect(name in {alert["alert"] for alert in alerts}, f"a test is of {name}, which is no alert")


def seconds(text: str) -> int:
    """How long `1h2m3s` is."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)([hms])", str(text)))


def asked(deploy: Path) -> list[dict[str, str]]:
    """The questions of the dashboard, as rules."""
    dashboard = json.loads((deploy / "grafana/dashboards/esker.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    expect(len(set(ids)) == len(ids), "two panels have one id")
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    expect(len(asked) >= len(panels) > 0, "a panel asks nothing")
    return [
        {"record": f"asked:{at}", "expr": expr.replace("$__rate_interval", "5m")}
        for at, expr in enumerate(asked)
    ]


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(f".ci/deploy: {otherwise}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
