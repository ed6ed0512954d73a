"""Checks that the API documentation shows only the types of the kit that an application names.

Usage: front_door.py TARGET_DOC. Exit status 1: a crate shows more types than its limit.
"""
import pathlib, re, sys

LIMITS = {"cairn": 74, "cairn_aws": 39, "cairn_local": 36, "cairn_simulator": 21, "cairn_tool": 4}
TYPE = re.compile(r'href="([^"]*?)((?:struct|enum|trait|type|union)\.\w+)\.html"')


def shown(index):
    """Returns the number of types in the index of a crate. A type that is also in its root counts once."""
    types = TYPE.findall(index.read_text())
    in_modules = {name for path, name in types if path}
    return sum(bool(path) or name not in in_modules for path, name in types)


counts = {crate: shown(pathlib.Path(sys.argv[1], crate, "all.html")) for crate in LIMITS}
wrong = [crate for crate in LIMITS if not 0 < counts[crate] <= LIMITS[crate]]
for crate in wrong:
    print(f"{crate} shows {counts[crate]} types; the limit is {LIMITS[crate]}.")
if wrong:
    sys.exit(
        "An item without a use in another crate is pub(crate). An item that only crates of the kit use is\n"
        "#[doc(hidden)]. If an application names it, raise the limit in .ci/front_door.py."
    )
