"""The functions' deployment packages, and a template that refers to them."""

import platform
import re
import shutil
import zipfile
from pathlib import Path

from processes import Failure, run
from tools import ROOT, SAM, WORK, settings

BUILDING_S = 3600
BUILT = WORK / "build"
TEMPLATE = ROOT / "template.yaml"


def functions(root=ROOT):
    """Returns the functions' folders by the name of their binary."""
    return {path.parent.name: path.parent for path in sorted((root / "functions").glob("*/*/Cargo.toml"))}


def build(debug):
    """Builds all functions for this architecture, and returns the built template."""
    # One build on all cores. `sam build` builds each function separately, and then finds it built.
    packages = [word for name in functions() for word in ("--package", name)]
    arm = ["--arm64"] if architecture() == "arm64" else []
    mode = [] if debug else ["--release"]
    environment = settings(SAM_BUILD_MODE="debug", CARGO_LAMBDA_COMPILER="cargo") if debug else settings()
    cargo = ["cargo", "lambda", "build", *mode, "--locked", *arm, *packages]
    run(cargo, WORK / "cargo-lambda.log", BUILDING_S, cwd=ROOT, env=environment)
    sam = [
        SAM[0] / "bin" / "sam", "build", "--no-cached", "--parallel", "--build-dir", BUILT,
        "--parameter-overrides", f"Architecture={architecture()}",
    ]
    run(sam, WORK / "sam-build.log", BUILDING_S, cwd=ROOT, env=environment)
    return BUILT / "template.yaml"


def as_built():
    """Returns the template of the last build."""
    template = BUILT / "template.yaml"
    if not template.exists():
        raise Failure("nothing is built yet; run once without --skip-build")
    return template


def as_found(binaries, zipped, root=ROOT):
    """Returns the template of a project, with binaries from a folder, for example target/debug."""
    found = WORK / "found"
    shutil.rmtree(found, ignore_errors=True)
    found.mkdir(parents=True)
    for name in functions(root):
        binary = Path(binaries) / name
        if not binary.exists():
            raise Failure(f"{binary} does not exist")
        if zipped:
            # `sam deploy` compresses a folder four times as long, and again for each stack.
            with zipfile.ZipFile(found / f"{name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
                package.write(binary, "bootstrap")
        else:
            (found / name).mkdir()
            shutil.copy2(binary, found / name / "bootstrap")
    text = (root / "template.yaml").read_text()
    text = re.sub(r"CodeUri: functions/\w+/([\w-]+)", rf"CodeUri: {found}/\1{'.zip' if zipped else ''}", text)
    text = re.sub(r"(TemplateURL|DefinitionUri): infra/", rf"\1: {root}/infra/", text)
    template = found / "template.yaml"
    template.write_text(text)
    return template


def add_arguments(parser):
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--debug", action="store_true", help="build the functions without optimization")
    which.add_argument("--skip-build", action="store_true", help="use the functions of the last run")
    which.add_argument("--binaries", type=Path, metavar="DIR", help="use the binaries in DIR, for example target/debug")


def template(arguments, zipped=False):
    """Returns the template that the arguments select. Binaries of a folder can be zipped."""
    if arguments.binaries:
        return as_found(arguments.binaries, zipped)
    return as_built() if arguments.skip_build else build(arguments.debug)


def architecture():
    """Returns this machine's architecture by its Lambda name."""
    return {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
