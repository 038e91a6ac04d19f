"""Lists the tags of a repository and pulls its `latest` with oras-py.

usage: oras_pull.py HOST:PORT/REPOSITORY FOLDER
Prints one JSON object: the tags, and the files that were pulled, relative to FOLDER.
"""

import json
import os
import sys

import oras.client

repository, folder = sys.argv[1:]
client = oras.client.OrasClient()
tags = client.get_tags(repository)
os.makedirs(folder, exist_ok=True)
pulled = client.pull(target=f"{repository}:latest", outdir=folder)
files = sorted(os.path.relpath(path, folder) for path in pulled)
print(json.dumps({"tags": tags, "files": files}))
