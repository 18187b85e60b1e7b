# python cluster_configs/notices.py > THIRD_PARTY_NOTICES.txt
#
# The licences of every package that is installed beside this Python, with their full texts, as they came with the
# packages: the image hands them on. soxr holds libsoxr, py7zr and psycopg are Python: all three are LGPL, and in the
# image they are files of their own, which whoever has it may replace (pip install).
"""Prints the licence of every installed package, and its texts."""

from importlib.metadata import Distribution, distributions

RULE = "=" * 100


def licence(package: Distribution) -> str:
    """The name of a package's licence, as its metadata say it."""
    said = package.metadata.get("License-Expression") or ""
    trove = [
        kind.rpartition(" :: ")[2]
        for kind in package.metadata.get_all("Classifier") or []
        if kind.startswith("License ::")
    ]
    free = (package.metadata.get("License") or "").strip().splitlines()
    return said or ", ".join(trove) or (free[0] if free else "see its home page")


def texts(package: Distribution) -> list[str]:
    """The texts that came with a package: those its metadata name, and those of the libraries in it."""
    names = {name.rpartition("/")[2] for name in package.metadata.get_all("License-File") or []}
    return [
        file.read_binary().decode("utf-8", "replace")
        for file in package.files or []
        if (file.name in names or file.name.upper().startswith(("LICEN", "COPYING", "NOTICE")))
        and file.suffix not in (".py", ".pyc", ".h")
    ]


def main() -> None:
    """Prints them, by name."""
    for package in sorted(distributions(), key=lambda package: package.name.lower()):
        where = [url.rpartition(", ")[2] for url in package.metadata.get_all("Project-URL") or []]
        home = package.metadata.get("Home-page") or (where[0] if where else "https://pypi.org/project/" + package.name)
        print(RULE, f"{package.name} {package.version}", f"{licence(package)}; {home}", RULE, sep="\n")
        print(*texts(package), sep="\n\n", end="\n\n")


if __name__ == "__main__":
    main()
