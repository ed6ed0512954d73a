"""The output of `sam build`: it has to be there, current, and of the architecture that is deployed."""

from parameters import Refused

# https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html: e_machine.
MACHINES = {0x3E: "x86_64", 0xB7: "arm64"}
SOURCES = ["template.yaml", "Cargo.toml", "Cargo.lock", "functions", "shared"]


def check(root, build, architecture):
    template = build / "template.yaml"
    if not template.exists():
        raise Refused(f"{build} has no build: run `sam build`")
    built = template.stat().st_mtime
    for source in SOURCES:
        for file in [root / source, *(root / source).rglob("*")]:
            if file.is_file() and file.stat().st_mtime > built:
                raise Refused(f"{file.relative_to(root)} is newer than the build: run `sam build`")
    programs = list(build.glob("*/bootstrap"))
    if not programs:
        raise Refused(f"{build} has no functions: run `sam build`")
    for program in programs:
        with program.open("rb") as file:
            header = file.read(20)
        found = MACHINES.get(int.from_bytes(header[18:20], "little"))
        if header[:4] != b"\x7fELF" or found != architecture:
            raise Refused(
                f"{program.parent.name} is built for {found or 'another system'}, and Architecture is {architecture}: "
                f"run `sam build --parameter-overrides Architecture={architecture}`"
            )
