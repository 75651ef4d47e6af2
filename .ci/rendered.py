#!/usr/bin/env python3
"""Whether a binary takes what a chart rendered, every command line and every configuration of it:
`rendered.py FILE BINARY`.
"""

import os
import subprocess
import sys
import tempfile

import yaml

# What a command ends with where the configuration was taken, and nobody answers; one that is refused is 2.
NOBODY_ANSWERS = 1


def main(rendered: str, binary: str) -> None:
    with open(rendered) as file:
        kinds = [kind for kind in yaml.safe_load_all(file) if kind]
    configurations = {
        kind["metadata"]["name"]: kind["data"]["esker.toml"] for kind in kinds if kind["kind"] == "ConfigMap"
    }
    pods = [kind["spec"]["template"]["spec"] for kind in kinds if "template" in kind.get("spec", {})]
    if len(pods) != 3:
        sys.exit(f"{rendered} has {len(pods)} kinds of pods, not nodes, agents and a job")
    for pod in pods:
        [container] = pod["containers"]
        taken(subprocess.run([binary, *container["args"], "--help"], capture_output=True, text=True), 0)
        [mounted] = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
        said = {of["name"]: of["value"] for of in container.get("env", []) if "value" in of}
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(configurations[mounted])
            file.flush()
            asked = [binary, "cluster", "status", "--config", file.name]
            nobody = {"ESKER_CLUSTER_NODES": "127.0.0.1:1"}
            ended = subprocess.run(asked, capture_output=True, text=True, env=os.environ | said | nobody)
            taken(ended, NOBODY_ANSWERS)


def taken(ended: subprocess.CompletedProcess, code: int) -> None:
    if ended.returncode != code:
        sys.exit(f"{ended.args} ended with {ended.returncode}, not {code}: {ended.stderr}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
