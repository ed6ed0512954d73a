"""The parameters of template.yaml, their values in samconfig.toml, and the revision that follows from them."""

import hashlib
import re
import shlex
import tomllib

UNSET = "unset"


class Refused(Exception):
    """The reason why nothing is deployed."""


def declared(template):
    """The parameters that a template declares, each with its default, allowed values and pattern."""
    section = template.split("\nParameters:\n", 1)[1]
    section = re.split(r"\n(?=[A-Z])", section, maxsplit=1)[0]
    found = {}
    for name, body in re.findall(r"^  (\w+):\n((?:    .*\n|\s*\n|  #.*\n)+)", section + "\n", re.MULTILINE):
        found[name] = {
            "default": scalar(body, "Default"),
            "allowed": [text(value) for value in re.findall(r'"[^"]*"|[^\s,\[\]]+', line(body, "AllowedValues") or "")],
            "pattern": scalar(body, "AllowedPattern"),
        }
    return found


def line(body, key):
    found = re.search(rf"^    {key}: (.*)$", body, re.MULTILINE)
    return found and found[1]


def scalar(body, key):
    found = line(body, key)
    return None if found is None else text(found)


def text(scalar):
    """A YAML scalar without its quotes."""
    return scalar[1:-1] if scalar[:1] in ("'", '"') else scalar


def configured(config, environment):
    """The parameters that samconfig.toml sets in an environment."""
    section = tomllib.loads(config).get(environment, {}).get("deploy", {}).get("parameters", {})
    if not section:
        raise Refused(f"samconfig.toml has no section {environment}.deploy.parameters")
    overrides = section.get("parameter_overrides", "")
    return pairs(shlex.split(overrides) if isinstance(overrides, str) else overrides)


def pairs(items):
    """NAME=VALUE texts as a map."""
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise Refused(f"a parameter has the form NAME=VALUE, not {item}")
        if name in found:
            raise Refused(f"parameter {name} has two values: {found[name]} and {value}")
        found[name] = value
    return found


def values(declared, given):
    """The value of each parameter but Revision: the given one, or the default of the template."""
    given = {name: value for name, value in given.items() if (name, value) != ("Revision", UNSET)}
    if "Revision" in given:
        raise Refused("Revision is computed: leave it out")
    for name in given:
        if name not in declared:
            raise Refused(f"template.yaml has no parameter {name}")
    found = {}
    for name, parameter in declared.items():
        value = given.get(name, parameter["default"])
        if name == "Revision":
            continue
        if value is None:
            raise Refused(f"parameter {name} has no value and no default")
        if parameter["allowed"] and value not in parameter["allowed"]:
            raise Refused(f"parameter {name} takes {' or '.join(parameter['allowed'])}, not {value}")
        if parameter["pattern"] and not re.fullmatch(parameter["pattern"], value):
            raise Refused(f"parameter {name} does not match {parameter['pattern']}: {value}")
        found[name] = value
    return found


def revision(values, build):
    """A digest of all parameters and of each file of the build, which is a version of the functions."""
    digest = hashlib.sha256()
    for name, value in sorted(values.items()):
        digest.update(f"{name}={value}\n".encode())
    for file in sorted(path for path in build.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(build)}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
