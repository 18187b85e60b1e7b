# python cluster_configs/notices.py > THIRD_PARTY_NOTICES.txt
#
# Writes the licences of all packages installed in this environment, with the full texts that the packages include; the
# image distributes them. soxr contains libsoxr, py7zr and psycopg are Python: all three are LGPL, and in the image they
# are separate files, which every recipient can replace (pip install).
"""Prints the licence of every installed package, with its texts."""

from importlib.metadata import Distribution, distributions

RULE = "=" * 100


def licence(package: Distribution) -> str:
    """Returns the name of a package's licence, from its metadata."""
    expression = package.metadata.get("License-Expression") or ""
    trove = [
        kind.rpartition(" :: ")[2]
        for kind in package.metadata.get_all("Classifier") or []
        if kind.startswith("License ::")
    ]
    free = (package.metadata.get("License") or "").strip().splitlines()
    return expression or ", ".join(trove) or (free[0] if free else "see its home page")


def texts(package: Distribution) -> list[str]:
    """Returns the licence texts in a package: those named in its metadata, and those of bundled libraries."""
    names = {name.rpartition("/")[2] for name in package.metadata.get_all("License-File") or []}
    return [
        file.read_binary().decode("utf-8", "replace")
        for file in package.files or []
        if (file.name in names or file.name.upper().startswith(("LICEN", "COPYING", "NOTICE")))
        and file.suffix not in (".py", ".pyc", ".h")
    ]


def main() -> None:
    """Prints the licences, sorted by package name."""
    for package in sorted(distributions(), key=lambda package: package.name.lower()):
        urls = [url.rpartition(", ")[2] for url in package.metadata.get_all("Project-URL") or []]
        home = package.metadata.get("Home-page") or (urls[0] if urls else "https://pypi.org/project/" + package.name)
        print(RULE, f"{package.name} {package.version}", f"{licence(package)}; {home}", RULE, sep="\n")
        print(*texts(package), sep="\n\n", end="\n\n")


if __name__ == "__main__":
    main()
