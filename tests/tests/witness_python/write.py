"""Writes repositories with python-tuf: `write.py DIR`.

DIR/<repository>/<step>/ holds the metadata files of one state, DIR/<repository>/targets.json what
each name must be found as in the last one: {NAME: [ROLE, TEXT] | null}.

| repository | has |
|---|---|
| delegations | ECDSA, RSA-PSS and ed25519 keys, unknown key members, a chain of roles, a terminating one, a rotated root |
| bins | succinct roles (TAP 15), four bits |
| prefixes | path_hash_prefixes in sixteen bins; listings with length and hashes |
| plain | no consistent snapshots, version "1.0" of the specification |
"""

import datetime
import hashlib
import json
import pathlib
import sys

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

EXPIRES = datetime.datetime(2030, 6, 1, tzinfo=datetime.timezone.utc)


def marked(signer):
    """The signer with a member in its key object as tuf-on-ci writes it, and the id of the whole."""
    value = signer.public_key.to_dict()
    value["x-tuf-on-ci-keyowner"] = "@ada"
    keyid = hashlib.sha256(encode_canonical(value).encode()).hexdigest()
    return CryptoSigner(signer._private_key, SSlibKey.from_dict(keyid, value))


class Repository:
    def __init__(self, consistent=True, spec=None, hashes=False):
        self.hashes = hashes
        self.root = Root(expires=EXPIRES, consistent_snapshot=consistent)
        self.timestamp = Timestamp(expires=EXPIRES)
        self.snapshot = Snapshot(expires=EXPIRES)
        self.targets = {"targets": Targets(expires=EXPIRES)}
        self.signers = {name: [] for name in ["root", "timestamp", "snapshot", "targets"]}
        self.files = {}
        if spec:
            for signed in [self.root, self.timestamp, self.snapshot, self.targets["targets"]]:
                signed.spec_version = spec

    def key(self, role, signer):
        self.root.add_key(signer.public_key, role)
        self.signers[role].append(signer)

    def sign(self, role, signed):
        metadata = Metadata(signed)
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        versioned = role == "root" or (role != "timestamp" and self.root.consistent_snapshot)
        name = f"{signed.version}.{role}.json" if versioned else f"{role}.json"
        self.files[name] = metadata.to_bytes()
        return self.files[name]

    def publish(self):
        for role, signed in self.targets.items():
            data = self.sign(role, signed)
            self.snapshot.meta[f"{role}.json"] = self.listed(signed, data)
        data = self.sign("snapshot", self.snapshot)
        self.timestamp.snapshot_meta = self.listed(self.snapshot, data)
        self.sign("timestamp", self.timestamp)
        self.sign("root", self.root)

    def listed(self, signed, data):
        if not self.hashes:
            return MetaFile(version=signed.version)
        return MetaFile.from_data(signed.version, data, ["sha256", "sha512"])

    def bump(self):
        for signed in [self.timestamp, self.snapshot, *self.targets.values()]:
            signed.version += 1

    def add(self, role, name):
        data = name.encode()
        self.targets[role].targets[name] = TargetFile.from_data(name, data, ["sha256", "sha512"])

    def write(self, directory):
        directory.mkdir(parents=True)
        for name, data in self.files.items():
            (directory / name).write_bytes(data)


def ed25519_everywhere(repository):
    for role in ["root", "timestamp", "snapshot", "targets"]:
        repository.key(role, CryptoSigner.generate_ed25519())


def delegations(out):
    repository = Repository()
    old = [marked(CryptoSigner.generate_ecdsa()), CryptoSigner.generate_rsa()]
    for signer in [*old, CryptoSigner.generate_ed25519()]:
        repository.key("root", signer)
    repository.root.roles["root"].threshold = 2
    repository.key("timestamp", marked(CryptoSigner.generate_ecdsa()))
    repository.key("snapshot", CryptoSigner.generate_ed25519())
    for signer in [CryptoSigner.generate_rsa(), CryptoSigner.generate_ecdsa()]:
        repository.key("targets", signer)
    repository.root.roles["targets"].threshold = 2

    def delegate(parent, name, paths, signer, terminating=False):
        targets = repository.targets[parent]
        if targets.delegations is None:
            targets.delegations = Delegations({}, {})
        role = DelegatedRole(name, [], 1, terminating, paths)
        targets.delegations.roles[name] = role
        targets.add_key(signer.public_key, name)
        repository.signers[name] = [signer]
        repository.targets[name] = Targets(expires=EXPIRES)

    delegate("targets", "z-first", ["ops/*", "shared/*"], CryptoSigner.generate_rsa())
    delegate("z-first", "deep", ["ops/*"], marked(CryptoSigner.generate_ecdsa()))
    delegate("targets", "a-last", ["shared/*", "end/*"], CryptoSigner.generate_ed25519(), True)
    delegate("targets", "never", ["end/*", "never/*"], CryptoSigner.generate_ed25519())
    for role, name in [
        ("targets", "top"),
        ("z-first", "shared/both"),
        ("a-last", "shared/both"),
        ("a-last", "shared/last"),
        ("deep", "ops/tool"),
        ("deep", "shared/not-given"),
        ("never", "end/x"),
        ("never", "never/x"),
    ]:
        repository.add(role, name)
    repository.publish()
    repository.write(out / "1")
    # A new root: one key gone, one new, signed by old and new.
    repository.root.version = 2
    repository.root.revoke_key(old[0].public_key.keyid, "root")
    repository.key("root", CryptoSigner.generate_ecdsa())
    repository.bump()
    repository.add("deep", "ops/new")
    repository.publish()
    repository.write(out / "2")
    return {
        "top": "targets",
        "shared/both": "z-first",
        "shared/last": "a-last",
        "ops/tool": "deep",
        "ops/new": "deep",
        "never/x": "never",
        "shared/not-given": None,
        "end/x": None,
        "nobody": None,
    }


def bins(out):
    repository = Repository()
    ed25519_everywhere(repository)
    signer = CryptoSigner.generate_ed25519()
    roles = SuccinctRoles([], 1, 4, "bin")
    top = repository.targets["targets"]
    top.delegations = Delegations({}, succinct_roles=roles)
    top.add_key(signer.public_key)
    for name in roles.get_roles():
        repository.signers[name] = [signer]
        repository.targets[name] = Targets(expires=EXPIRES)
    expected = {}
    for nth in range(64):
        name = f"file/{nth}"
        role = roles.get_role_for_target(name)
        repository.add(role, name)
        expected[name] = role
    repository.publish()
    repository.write(out / "1")
    return expected | {"file/none": None}


def prefixes(out):
    repository = Repository(hashes=True)
    ed25519_everywhere(repository)
    top = repository.targets["targets"]
    top.delegations = Delegations({}, {})
    for nth in range(16):
        name = f"{nth:x}-bin"
        halves = [f"{nth:x}{half:x}" for half in range(16)]
        top.delegations.roles[name] = DelegatedRole(name, [], 1, False, path_hash_prefixes=halves)
        signer = CryptoSigner.generate_ecdsa()
        top.add_key(signer.public_key, name)
        repository.signers[name] = [signer]
        repository.targets[name] = Targets(expires=EXPIRES)
    expected = {}
    for nth in range(64):
        name = f"file/{nth}"
        role = f"{hashlib.sha256(name.encode()).hexdigest()[0]}-bin"
        repository.add(role, name)
        expected[name] = role
    repository.publish()
    repository.write(out / "1")
    return expected | {"file/none": None}


def plain(out):
    repository = Repository(consistent=False, spec="1.0")
    ed25519_everywhere(repository)
    repository.add("targets", "top")
    repository.publish()
    repository.write(out / "1")
    return {"top": "targets", "nobody": None}


def main():
    out = pathlib.Path(sys.argv[1])
    for write in [delegations, bins, prefixes, plain]:
        directory = out / write.__name__
        expected = write(directory)
        (directory / "targets.json").write_text(json.dumps(expected))


main()
