"""Refreshes with python-tuf from URL/metadata, downloads TARGETs through URL/targets.

usage: python_tuf.py URL ROOT.json FOLDER TARGET…
Prints one JSON object: the versions of trusted metadata, and the SHA-256 of each target.
"""

import hashlib
import json
import pathlib
import sys

from tuf.ngclient import Updater

url, root, folder, *names = sys.argv[1:]
folder = pathlib.Path(folder)
for part in ["metadata", "targets"]:
    (folder / part).mkdir(parents=True, exist_ok=True)

updater = Updater(
    metadata_dir=str(folder / "metadata"),
    metadata_base_url=f"{url}/metadata/",
    target_dir=str(folder / "targets"),
    target_base_url=f"{url}/targets/",
    bootstrap=pathlib.Path(root).read_bytes(),
)
updater.refresh()

targets = {}
for name in names:
    info = updater.get_targetinfo(name)
    if info is None:
        sys.exit(f"no target {name}")
    path = updater.download_target(info)
    targets[name] = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()

versions = {}
for role in ["root", "timestamp", "snapshot", "targets"]:
    metadata = json.loads((folder / "metadata" / f"{role}.json").read_bytes())
    versions[role] = metadata["signed"]["version"]
print(json.dumps({"versions": versions, "targets": targets}))
