"""Lets Cargo use the libraries of this tree for a workspace outside of it.

Cargo compiles a library again for other features, another profile or another version. `share` gives the workspace
those of this tree. `GUARD` is a RUSTC_WRAPPER that ends a build in which Cargo compiles a library of a registry.
"""
import json, os, re, shutil, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUARD = str(ROOT / ".ci" / "no_libraries")
# As in the gate, where these have nothing to do.
BUILDS = [
    ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "--deny", "warnings"],
    ["build", "--workspace", "--all-targets", "--locked", "--quiet"],
]


def cargo(arguments, folder, environment):
    run = subprocess.run(["cargo", *arguments], cwd=folder, env=environment, text=True, capture_output=True)
    if run.returncode:
        sys.exit(f"{run.stderr}cargo {arguments[0]} failed in {folder} with exit status {run.returncode}")
    return run.stdout


def libraries(selection, folder, environment):
    """Returns the feature sets of each library of a build, by its name, version and whether the host uses it.

    Only the unit graph separates the features for the host from those for the target, and only with a target.
    """
    host = re.search("^host: (.*)$", subprocess.check_output(["rustc", "-vV"], text=True), re.MULTILINE)[1]
    arguments = [*selection, "--workspace", "--target", host, "--unit-graph", "-Z", "unstable-options"]
    graph = json.loads(cargo(arguments, folder, {**environment, "RUSTC_BOOTSTRAP": "1"}))
    found = {}
    for unit in graph["units"]:
        # A build script has the features of its library.
        if unit["pkg_id"].startswith("registry+") and unit["target"]["kind"] != ["custom-build"]:
            name, version = unit["pkg_id"].rpartition("#")[2].split("@")
            found.setdefault((name, version, unit["platform"] is None), set()).add(frozenset(unit["features"]))
    return found


def missing(here, there):
    """Returns the features of libraries that `here` has and `there` has not."""
    found = {}
    for library, sets in there.items():
        for features in sets - here.get(library, set()):
            larger = [known for known in here.get(library, []) if known > features]
            if not larger:
                sys.exit(f"{library[0]} {library[1]} is not compiled for this tree with {sorted(features)}")
            found.setdefault(library, set()).update(min(larger, key=len) - features)
    return found


def compile_tree(environment=os.environ):
    """Compiles and checks this tree with its libraries. Its programs must have the features of its tests."""
    if found := missing(libraries(["test"], ROOT, environment), libraries(["build"], ROOT, environment)):
        sys.exit(f"only tests use these features of libraries; add them to infra/local/Cargo.toml: {found}")
    for arguments in BUILDS:
        cargo(arguments, ROOT, environment)


def share(workspace, member, environment=os.environ):
    """Gives a workspace the versions and profiles of this tree, and one of its packages the features."""
    shutil.copy(ROOT / "Cargo.lock", workspace)
    profiles = re.search(r"^\[profile\.dev\]$.*", (ROOT / "Cargo.toml").read_text(), re.MULTILINE | re.DOTALL)[0]
    manifest = workspace / "Cargo.toml"
    manifest.write_text(manifest.read_text().partition("[profile.dev]")[0] + profiles)
    manifest = member / "Cargo.toml"
    own, added = manifest.read_text(), {}
    here = libraries(["test"], ROOT, environment)
    # A feature can enable another library, and tests have other features than programs.
    while new := {**missing(here, libraries(["build"], workspace, environment)),
                  **missing(here, libraries(["test"], workspace, environment))}:
        if all(features <= added.get(library, set()) for library, features in new.items()):
            sys.exit(f"these features have no effect: {new}")
        for library, features in new.items():
            added.setdefault(library, set()).update(features)
        tables = [
            f"\n[{'build-' if is_host else ''}dependencies.{name}-{re.sub(r'[^0-9A-Za-z]', '_', version)}]\n"
            f'package = "{name}"\nversion = "={version}"\ndefault-features = false\n'
            f"features = {json.dumps(sorted(features))}\n"
            for (name, version, is_host), features in sorted(added.items(), key=lambda item: item[0])
        ]
        manifest.write_text(own + "".join(tables))
