"""Compares JSON documents with definitions of a published schema.

validate.py SCHEMA FILE, which holds [[NAME, DEFINITION, DOCUMENT], …]. Readers of the schema must ignore
members that they do not know; here each one that it does not describe is an error, so that none is forgotten.
"""

import json
import sys
from pathlib import Path

import jsonschema


def close(node):
    """Refuses members that are not described."""
    if isinstance(node, dict):
        if "properties" in node:
            node.setdefault("additionalProperties", False)
        for child in node.values():
            close(child)
    elif isinstance(node, list):
        for child in node:
            close(child)


def main():
    schema, documents = (json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:])
    jsonschema.Draft202012Validator.check_schema(schema)
    close(schema)
    schema.pop("anyOf", None)
    checker = jsonschema.FormatChecker()
    found = []
    for name, definition, document in documents:
        if definition not in schema["$defs"]:
            found.append(f"{name}: there is no definition {definition}")
            continue
        whole = {**schema, "$ref": f"#/$defs/{definition}"}
        validator = jsonschema.Draft202012Validator(whole, format_checker=checker)
        for error in validator.iter_errors(document):
            found.append(f"{name}: {error.json_path}: {error.message[:400]} {[e.message[:200] for e in error.context]}")
    print("\n".join(found))
    sys.exit(1 if found else 0)


main()
