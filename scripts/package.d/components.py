"""Writes the list of the components of the program (CycloneDX 1.5), and the texts of their licences.

usage: components.py TARGET SBOM.json LICENCES.txt   (in the root of the repository)

The components are the crates that are linked into the program: the normal dependencies of the package `dupfs` for the TARGET,
such as x86_64-unknown-linux-gnu. Sources and checksums are those of Cargo.lock.
"""

import collections
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid

LICENCE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)([-_.].*)?$", re.IGNORECASE)
CODE = (".rs", ".c", ".h", ".py", ".go", ".sh", ".pl", ".html")
# Vendored C libraries are a few directories down.
MAX_DEPTH = 3


def metadata(target):
    """Returns what cargo knows of the workspace and its dependencies for a target."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(meta):
    """Returns the packages that are linked into the program, by name and version."""
    packages = {package["id"]: package for package in meta["packages"]}
    nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}
    (root,) = (p["id"] for p in meta["packages"] if p["name"] == "dupfs" and p["source"] is None)
    found, pending = {root}, [root]
    while pending:
        for dep in nodes[pending.pop()]["deps"]:
            is_normal = any(kind["kind"] is None for kind in dep["dep_kinds"])
            is_macro = all("proc-macro" in t["kind"] for t in packages[dep["pkg"]]["targets"] if "lib" in t["kind"] or "proc-macro" in t["kind"])
            if is_normal and not is_macro and dep["pkg"] not in found:
                found.add(dep["pkg"])
                pending.append(dep["pkg"])
    return sorted((packages[package] for package in found), key=lambda p: (p["name"], p["version"]))


def checksums():
    """Returns the SHA-256 of each crate of the registry."""
    with open("Cargo.lock", "rb") as lock:
        packages = tomllib.load(lock)["package"]
    return {(p["name"], p["version"]): p.get("checksum") for p in packages}


def component(package, sums):
    """Returns the entry of a crate in the list of components."""
    name, version = package["name"], package["version"]
    entry = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
        "licenses": [{"expression": expression(package)}],
    }
    if sums.get((name, version)):
        entry["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
    if package.get("repository"):
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def expression(package):
    """Returns the SPDX expression of the licence; old crates write a slash for OR."""
    return (package["license"] or "NOASSERTION").replace("/", " OR ")


def licence_files(package):
    """Returns the files with licence texts of a crate."""
    top = os.path.dirname(package["manifest_path"])
    found = []
    for directory, below, files in os.walk(top):
        depth = os.path.relpath(directory, top).count(os.sep) + (directory != top)
        below[:] = sorted(d for d in below if depth < MAX_DEPTH and d not in ("target", ".git", "tests", "benches"))
        found += [os.path.join(directory, f) for f in sorted(files) if LICENCE.match(f) and not f.endswith(CODE)]
    return [f for f in found if os.path.isfile(f)]


def texts(packages):
    """Returns each different licence text with its crates, and the crates without a text."""
    crates, without = collections.OrderedDict(), []
    for package in packages:
        label = f"{package['name']} {package['version']} ({expression(package)})"
        files = licence_files(package)
        if not files and package["source"] is not None:
            without.append(label)
        for file in files:
            with open(file, encoding="utf-8", errors="replace") as content:
                crates.setdefault(content.read().strip(), []).append(label)
    return crates, without


def write_licences(packages, path):
    """Writes all licence texts to a file."""
    crates, without = texts(packages)
    with open(path, "w", encoding="utf-8") as out:
        out.write("The licences of the libraries that are linked into dupfs. The program itself is under GPL-3.0-or-later.\n")
        out.write("The standard library of Rust is under MIT OR Apache-2.0, whose texts are below.\n")
        for text, labels in crates.items():
            out.write("\n" + "=" * 100 + "\n" + "\n".join(sorted(set(labels))) + "\n" + "-" * 100 + "\n\n" + text + "\n")
        if without:
            out.write("\n" + "=" * 100 + "\n")
            out.write("These crates state the licence in their metadata, and have no file with its text:\n\n")
            out.write("\n".join(without) + "\n")


def write_components(packages, path):
    """Writes the list of components to a file."""
    sums = checksums()
    own = next(p for p in packages if p["name"] == "dupfs")
    components = [component(p, sums) for p in packages if p is not own]
    content = hashlib.sha256(json.dumps(components, sort_keys=True).encode()).hexdigest()
    time = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {**component(own, sums), "type": "application"},
        },
        "components": components,
    }
    with open(path, "w", encoding="utf-8") as out:
        json.dump(bom, out, indent=1, sort_keys=True)
        out.write("\n")


def main():
    """Writes both files."""
    target, sbom, licences = sys.argv[1:]
    packages = linked(metadata(target))
    write_components(packages, sbom)
    write_licences(packages, licences)


main()
