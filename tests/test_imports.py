"""Imports run downwards only: those inside functions count, and those for type checkers alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).parents[1]
PACKAGES = ("catuvac", "analysis", "studies")
# The floors of `analysis`, the lowest first: a module imports from its own and from those below.
FLOORS = (
    ("analysis.stats",),
    ("analysis.columns", "analysis.trials"),
    ("analysis.questions",),
    ("analysis.section", "analysis.table", "analysis.glossary", "analysis.page", "analysis.paper"),
    ("analysis.figures",),
    ("analysis.sections",),
    ("analysis.report", "analysis.table1", "analysis.simulations"),
)

Imports = Mapping[str, set[str]]  # of each module, by its dotted name


def imports(root: Path, *packages: str) -> Imports:
    """What every module of the packages imports, from wherever in its file, as far down as the name is a module."""
    paths = {path: path.relative_to(root) for package in packages for path in (root / package).rglob("*.py")}
    names = {path: ".".join(short.with_suffix("").parts).removesuffix(".__init__") for path, short in paths.items()}
    modules = set(names.values())
    return {name: set(_imported(path, modules)) for path, name in names.items()}


def _imported(path: Path, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            longer = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else str(node.module) for name in longer)


def circles(found: Imports) -> set[frozenset[str]]:
    """Groups of modules that import one another, directly or through others of the group."""
    names = sorted(found)
    matrix = csr_array(np.array([[each in found[name] for each in names] for name in names]))
    group = connected_components(matrix, directed=True, connection="strong")[1]
    members = [frozenset(name for name, own in zip(names, group, strict=True) if own == g) for g in set(group)]
    return {each for each in members if len(each) > 1}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def floor(module: str) -> int:
    """The number of the module's floor, for a module of `analysis`."""
    (found,) = (number for number, packages in enumerate(FLOORS) if any(within(module, each) for each in packages))
    return found


def test_a_planted_circle_is_found_though_half_of_it_is_for_type_checkers(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    for name, text in {
        "__init__": "",
        "a": "from house import b",
        "b": "if TYPE_CHECKING:\n    from house.c import Name",
        "c": "def late():\n    import house.a",
        "d": "from house.a import b",
    }.items():
        (tmp_path / "house" / f"{name}.py").write_text(text)
    found = imports(tmp_path, "house")
    assert found["house.d"] == {"house.a"}
    assert circles(found) == {frozenset({"house.a", "house.b", "house.c"})}


def test_no_module_imports_what_imports_it() -> None:
    assert circles(imports(ROOT, *PACKAGES)) == set()


def test_the_floors_of_the_analysis() -> None:
    found = imports(ROOT, "analysis")
    upwards = {
        (module, each)
        for module in found.keys() - {"analysis"}
        for each in found[module] & found.keys()
        if floor(each) > floor(module)
    }
    assert upwards == set()


def test_studies_stand_on_the_analysis_and_that_on_catuvac() -> None:
    found = imports(ROOT, *PACKAGES)
    above = {
        (module, each)
        for place, package in enumerate(PACKAGES)
        for module in found
        if within(module, package)
        for each in found[module]
        if any(within(each, higher) for higher in PACKAGES[place + 1 :])
    }
    assert above == set()


def test_one_folder_knows_ray() -> None:
    found = imports(ROOT, *PACKAGES)
    knowing = {module for module in found if any(within(each, "ray") for each in found[module])}
    assert {module for module in knowing if not within(module, "catuvac.tune")} == set()
    assert knowing
