"""What python-tuf says of repositories: one JSON line in, one out.

In:  {"base": N, "root": FILE, "files": {NAME: FILE}}          a repository to settle with; no answer
     {"on": N | null, "root": FILE, "files": {…}, "now": SECONDS, "names": [NAME, …]}
Out: {"refresh": null | ERROR, "targets": [null | "none" | {"length": …, "hashes": {…}} | {"error": …}]}

FILE is hexadecimal. ERROR is the name of the exception and its text.
"""

import datetime
import json
import os
import shutil
import sys
import tempfile
from urllib.parse import unquote

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface


class Memory(FetcherInterface):
    """Serves files by the last component of their URL."""

    def __init__(self, files):
        self.files = files

    def _fetch(self, url):
        name = unquote(url.removeprefix("memory://m/"))
        if name not in self.files:
            raise DownloadHTTPError("not found", 404)
        return iter([bytes.fromhex(self.files[name])])


def says(error):
    return f"{type(error).__name__}: {error}"[:300]


def updater(directory, case):
    made = Updater(
        directory,
        "memory://m/",
        fetcher=Memory(case["files"]),
        bootstrap=bytes.fromhex(case["root"]),
    )
    now = datetime.datetime.fromtimestamp(case["now"], tz=datetime.timezone.utc)
    made._trusted_set.reference_time = now
    return made


def target(client, name):
    try:
        found = client.get_targetinfo(name)
    except Exception as error:
        return {"error": says(error)}
    if found is None:
        return "none"
    return {"length": found.length, "hashes": found.hashes}


def judge(directory, case):
    try:
        client = updater(directory, case)
        client.refresh()
    except Exception as error:
        return {"refresh": says(error), "targets": []}
    return {"refresh": None, "targets": [target(client, name) for name in case["names"]]}


def main():
    # In memory where there is such a place: thousands of small files.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as top:
        work = os.path.join(top, "work")
        for line in sys.stdin:
            case = json.loads(line)
            if "base" in case:
                settled = os.path.join(top, f"base-{case['base']}")
                os.mkdir(settled)
                client = updater(settled, case)
                client.refresh()
                for name in case["names"]:
                    client.get_targetinfo(name)
                continue
            if case["on"] is None:
                os.mkdir(work)
            else:
                shutil.copytree(os.path.join(top, f"base-{case['on']}"), work, symlinks=True)
            answer = judge(work, case)
            shutil.rmtree(work)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
