"""Imports point one way, and importing ppl changes nothing in torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ppl"
FILES = sorted(ROOT.rglob("*.py"))
ORDER = [
    "tensors",
    "distributions",
    "site",
    "params",
    "stack",
    "statements",
    "trace",
    "recording",
    "handlers",
    "optim",
    "engine",
    "infer",
    "nn",
    "report",
    "compat",
]
LANGUAGE = ORDER.index("handlers")
HEAVY = {"networkx", "matplotlib", "arviz_base", "arviz_stats", "arviz_plots", "graphviz"}


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_modules(node):
    """The absolute names of the modules that an import statement asks for; `from ppl import x` asks for ppl.x."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"line {node.lineno}: write absolute imports"
    if node.module == "ppl":
        return [f"ppl.{alias.name}" for alias in node.names]
    if node.module == "ppl.handlers":
        return [f"ppl.handlers.{alias.name}" for alias in node.names]
    return [node.module]


def imports_in(tree):
    return [
        (node, name)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in imported_modules(node)
    ]


def parse(path):
    return ast.parse(path.read_text())


def violations(path, tree):
    room, found = room_of(path), []
    for node, name in imports_in(tree):
        parts = name.split(".")
        if parts[0] != "ppl" or room == "__init__":
            continue
        target = parts[1] if len(parts) > 1 else ""
        if target not in ORDER:
            found.append(f"{path.name}:{node.lineno} imports {name}, which is in no room")
        elif ORDER.index(target) > ORDER.index(room):
            found.append(f"{path.name}:{node.lineno} imports {name}, which lies above {room}")
        elif room == "nn" and target != "nn" and ORDER.index(target) > LANGUAGE:
            found.append(f"{path.name}:{node.lineno} imports {name}; nn may use the language only")
        elif room == "handlers" and target == "handlers" and path.name != "__init__.py":
            found.append(f"{path.name}:{node.lineno} imports the handler {name}")
    return found


def test_there_are_files_to_check():
    assert len(FILES) > 40
    assert {room_of(path) for path in FILES} - {"__init__"} <= set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    assert violations(path, parse(path)) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("site.py", "from ppl.stack import perform"),
        ("stack.py", "from ppl import handlers"),
        ("nn/flows.py", "from ppl.infer.svi import SVI"),
        ("handlers/do.py", "from ppl.handlers.condition import lookup_in"),
        ("handlers/do.py", "from ppl.handlers import condition"),
        ("tensors/factor.py", "import ppl.distributions"),
    ],
)
def test_the_check_sees_an_import_upwards(file, source):
    assert len(violations(ROOT / file, ast.parse(source))) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_stands_inside_a_function_except_of_heavy_optional_libraries(path):
    for function in ast.walk(parse(path)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inside = {name.split(".")[0] for _, name in imports_in(function)}
            assert inside <= HEAVY, f"{path.name}: {function.name} imports {inside - HEAVY}"


def test_no_file_is_named_for_what_it_is_not_about():
    vague = {"util", "utils", "misc", "helper", "helpers", "common", "ops"}
    assert [path for path in ROOT.rglob("*") if path.stem in vague] == []


PROBE = """
import sys, types, torch, torch.distributions

def text(thing):
    # identity for what has one, and the names and sizes of what is inside
    if isinstance(thing, (dict,)):
        return {repr(k): id(v) for k, v in thing.items()}
    if isinstance(thing, (list, set, frozenset, tuple)):
        return [id(v) for v in thing]
    return id(thing)

def state():
    found = {}
    names = [n for n in sys.modules if n == "torch.distributions" or n.startswith("torch.distributions.")]
    for name in names:
        module = sys.modules[name]
        for key, thing in vars(module).items():
            found[name, key] = text(thing)
            if isinstance(thing, type) and thing.__module__.startswith("torch.distributions"):
                for attribute, value in vars(thing).items():
                    if attribute in ("__abstractmethods__", "_abc_impl"):
                        continue
                    found[thing.__module__, thing.__qualname__, attribute] = text(value)
    for name in ("biject_to", "transform_to"):
        registry = getattr(torch.distributions, name)._registry
        found["registry", name] = text(registry)
    from torch.distributions import kl
    found["registry", "kl"] = text(kl._KL_REGISTRY)
    found["registry", "kl cache"] = text(kl._KL_MEMOIZE)
    found["validate"] = torch.distributions.Distribution._validate_args
    found["dtype"] = str(torch.get_default_dtype())
    found["threads"] = torch.get_num_threads()
    found["seed"] = torch.initial_seed()
    return found

before = state()
import ppl
after = state()
changed = sorted(str(k) for k in before.keys() | after.keys() if before.get(k) != after.get(k))
print(len(before)); print(changed)
CHANGE
"""


def run_probe(change=""):
    code = PROBE.replace("import ppl\n", f"import ppl\n{change}\n").replace("CHANGE", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, changed = done.stdout.splitlines()
    return int(count), ast.literal_eval(changed)


def test_importing_ppl_changes_nothing_in_torch_distributions():
    count, changed = run_probe()
    assert count > 1000
    assert changed == []


def test_the_comparison_of_torch_distributions_sees_a_change():
    change = "torch.distributions.Normal.hello = 1; torch.distributions.kl._KL_REGISTRY[int, int] = 1"
    _, changed = run_probe(change)
    assert any("hello" in name for name in changed)
    assert any("kl" in name for name in changed)
