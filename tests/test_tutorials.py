"""Every tutorial runs, in a process of its own, in its short mode; what it prints is right, what it draws is there."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parent.parent / "tutorials"
SCRIPTS = sorted(TUTORIALS.glob("[0-9][0-9]_*.py"))
PUBLIC = {"ppl", "ppl.distributions", "ppl.handlers", "ppl.infer", "ppl.infer.autoguide", "ppl.optim", "ppl.report"}


def run(name, output):
    """What a tutorial prints; its own asserts and any warning of ours fail it."""
    environment = {**os.environ, "PPL_TUTORIAL_SHORT": "1", "PPL_TUTORIAL_OUTPUT": str(output), "OMP_NUM_THREADS": "1"}
    environment["PYTHONIOENCODING"] = "utf-8"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TUTORIALS / name)],
        cwd=output,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout, done.stderr


def numbers(pattern, text):
    """The groups of all matches, as numbers."""
    found = [[float(x) for x in match.groups()] for match in re.finditer(pattern, text)]
    assert found, f"nothing like {pattern!r} in the output"
    return found


def test_first_steps(tmp_path):
    text, progress = run("00_first_steps.py", tmp_path)
    assert "SVI: 100%" in progress  # the progress bar

    first, second, third = text.split("error of the mean")[1:]
    row = r"{}(?: \(worst\))?\s+([+-]\d+\.\d+) exact sd\s+(\d\.\d+)(?: to (\d\.\d+))?"
    # the automatic guide: means within 0.8 of an exact standard deviation, spreads honest within a factor of two
    for name in ("typical", "variety", "carry"):
        error, ratio = re.search(row.format(name), first).groups()[:2]
        assert abs(float(error)) < 0.8 and 0.4 < float(ratio) < 1.5
    # the guide that knows what depends on what, and the change point: near the exact answer
    for part, names in ((second, ("typical", "variety", "carry")), (third, ("before", "later", "noise"))):
        for name in names:
            error, low, high = re.search(row.format(name), part).groups()
            assert abs(float(error)) < 0.3, name
            assert float(low) > 0.8 and float(high or low) < 1.25, name

    years = numbers(r"\n\s+(18\d\d|1900)\s+(\d+\.\d) %\s+(\d+\.\d) %", text)
    assert [year for year, _, _ in years] == [1896, 1897, 1898, 1899, 1900]
    assert all(abs(fitted - exact) < 5 for _, fitted, exact in years)  # 4 standard errors of 1000 draws, at most
    assert years[2][2] == pytest.approx(75.9, abs=0.1)  # known from a finer grid

    (later,) = numbers(
        r"\nlater\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([+-][\d.]+)", text
    )
    assert later[5] == pytest.approx(85.1)
    assert "carry[Jan]" in text and "carry[Dec]" in text

    forecast = dict(re.findall(r"\n  (\S.*\S)\s{2,}(0\.\d{3}) °C", text))
    assert forecast["hierarchical"] < min(error for name, error in forecast.items() if name != "hierarchical")

    paths = [Path(line) for line in text.splitlines() if line.endswith(".png")]
    assert [path.name for path in paths] == ["el_nino.png", "nile.png"]
    for path in paths:
        assert path.is_absolute() and path.parent == tmp_path.resolve()
        assert_not_blank(path)


def assert_not_blank(path):
    """A picture of a decent size, with ink of several colours all over it."""
    image = pytest.importorskip("matplotlib.image").imread(path)[:, :, :3]
    height, width = image.shape[:2]
    assert height > 300 and width > 600
    assert len({tuple(pixel) for pixel in image[::3, ::3].reshape(-1, 3).round(1).tolist()}) > 8
    for half in (image[: height // 2], image[height // 2 :], image[:, : width // 2], image[:, width // 2 :]):
        assert (half < 0.9).any(-1).mean() > 0.01


def test_handlers(tmp_path):
    text, _ = run("01_handlers.py", tmp_path)
    assert "All laws hold." in text
    tempered = numbers(r"power (\S+):  inside = (\S+) ± (\S+)   exact: (\S+) ± (\S+)", text)
    assert [row[0] for row in tempered] == [0.0, 0.1, 0.5, 1.0]
    assert all(row[1:3] == pytest.approx(row[3:5], abs=2e-3) for row in tempered)
    assert "from StudentT" in text and "[('outside', 'inside'), ('inside', 'reading')]" in text


def test_shapes_and_plates(tmp_path):
    text, _ = run("02_shapes_and_plates.py", tmp_path)
    assert text.split("5. Errors")[1].count("\n* ") == 9
    slopes = numbers(r"\n(?:sex|bmi|bp|s5)\s+(-?\d\.\d+)\s+(-?\d\.\d+)\s+(\d\.\d+)", text)
    assert len(slopes) == 4
    assert all(abs(fitted - exact) < sd for fitted, exact, sd in slopes)


def test_enumeration(tmp_path):
    text, _ = run("03_enumeration.py", tmp_path)
    pairs = numbers(r"enumerated (-\d+\.\d{6}), brute force(?: over 256 runs)? (-\d+\.\d{6})", text)
    pairs += numbers(r"in a loop: (-\d+\.\d{6}), brute force (-\d+\.\d{6})", text)
    assert len(pairs) == 3
    assert all(summed == by_hand for summed, by_hand in pairs)
    assert "burglar (2,), quake (2, 1), silent (2, 2)" in text
    assert "cannot be summed out together" in text
    ((agree,),) = numbers(r"The kinds are the growers for (\d+) % of the wines", text)
    assert agree > 85


def test_custom_distribution(tmp_path):
    text, _ = run("04_custom_distribution.py", tmp_path)
    assert "the density integrates to 1.000000" in text
    assert "LogLogistic: argument 'scale' must satisfy positive" in text
    fitted = numbers(r"fitted ([+-]\d\.\d+) exact sd from it", text)
    assert len(fitted) == 2 and all(abs(error) < 0.6 for (error,) in fitted)
    ((a, b, low, high),) = numbers(
        r"strikes: (\d+\.\d) and (\d+\.\d) days on average \(exact: (\d+\.\d) and (\d+\.\d)\)", text
    )
    assert a == pytest.approx(low, abs=3) and b == pytest.approx(high, abs=6)
    assert "LogDensity cannot be sampled" in text and "all within 3: True" in text


def test_normalizing_flows(tmp_path):
    text, _ = run("05_normalizing_flows.py", tmp_path)
    ((normal, flow),) = [
        [numbers(rf"{name}\s+-?\d+\.\d+\s+(-?\d+\.\d+)", text)[0][0] for name in ("multivariate normal", "flow")]
    ]
    assert flow > normal + 0.1  # of years that neither has seen
    ((exact,),) = numbers(r"Exact log evidence:\s+(-\d+\.\d+)", text)
    assert exact == pytest.approx(-30.854, abs=2e-3)  # known from a finer grid
    bounds = numbers(r"ELBO, .*:\s+(-\d+\.\d+)\s+short of it by (-?\d+\.\d+)", text)
    assert len(bounds) == 2
    assert all(gap > 0 and exact - elbo == pytest.approx(gap, abs=2e-3) for elbo, gap in bounds)
    assert bounds[1][1] < bounds[0][1]
    assert_not_blank(Path(next(line for line in text.splitlines() if line.endswith(".png"))))


def test_hidden_markov_models(tmp_path):
    text, _ = run("06_hidden_markov_models.py", tmp_path)
    pairs = numbers(r"by the loop (-\d+\.\d{6}), by the forward algorithm (-\d+\.\d{6})", text)
    pairs += numbers(r"loop (\d+\.\d{4}), scan (\d+\.\d{4})", text)
    pairs += numbers(r"(-\d+\.\d{5}) in .* step by step: (-\d+\.\d{5}) in", text)
    pairs += numbers(r"(-\d+\.\d{6}); one by one: (-\d+\.\d{6})", text)
    pairs += numbers(r"ours (-?\d+\.\d{6}), statsmodels (-?\d+\.\d{6})", text)
    pairs += numbers(r"by the scan (-?\d+\.\d{6}), by hand (-?\d+\.\d{6})", text)
    assert len(pairs) == 6
    assert all(ours == pytest.approx(theirs, abs=2e-5) for ours, theirs in pairs)
    vowels, consonants = (re.search(rf"\n  {name}\s+(.*)", text).group(1) for name in ("vowels", "consonants"))
    assert set(re.findall(r"([a-z_]) \d", vowels)[:5]) == set("_eoai")
    assert set(re.findall(r"([a-z_]) \d", consonants)[:4]) == set("strn")
    ((right,),) = numbers(r"Of 5 vowels and 21 consonants (\d+) are with their kind", text)
    assert right >= 20
    path = re.search(r"\n  path      ([V.]+)\n", text).group(1)
    assert len(path) == 60 and 20 < path.count("V") < 45
    ((during, otherwise),) = numbers(r"Bad times: (\d+) % in recessions .*, (\d+) % otherwise", text)
    assert during > 70 and otherwise < 35
    assert "enumerated sites ['z'] of more than 1 steps before" in text and "word × time" in text
    assert_not_blank(Path(next(line for line in text.splitlines() if line.endswith("regimes.png"))))


def test_discrete_latents_at_scale(tmp_path):
    text, _ = run("07_discrete_latents_at_scale.py", tmp_path)
    sizes = numbers(r"\n\s+(10|100|1)(?:,000)+\s+(\d+\.\d)", text)
    assert len(sizes) == 3
    pairs = numbers(r"Loss (\d+\.\d+|-\d+\.\d+); by (?:formula|brute force over 512 combinations) (-?\d+\.\d+)", text)
    assert len(pairs) == 2
    assert all(ours == pytest.approx(theirs, abs=2e-5) for ours, theirs in pairs)
    (constant,) = numbers(r"constant\s+−2 log likelihood (\d+\.\d\d); survival (0\.\d+); seen if alive (0\.\d+)", text)
    (floods,) = numbers(
        r"floods\s+−2 log likelihood (\d+\.\d\d); survival (0\.\d+), (0\.\d+); seen if alive (0\.\d+)", text
    )
    assert constant == pytest.approx([666.84, 0.560, 0.903], abs=2e-3 + 1e-9)  # as published
    assert floods == pytest.approx([660.10, 0.607, 0.469, 0.900], abs=2e-3 + 1e-9)
    stories = dict(re.findall(r"\n  (likelier, year by year|most probable story)\s+(.*)", text))
    assert stories["likelier, year by year"].split() == ["alive"] * 2 + ["dead"] * 4
    assert stories["most probable story"].split() == ["alive"] * 6
    assert "cannot be summed out together: within plates 'judge', 'tumour'" in text
    judges = numbers(r"\n  [a-z ]+  +([01]\.\d{3})\s+(\d+) %", text)
    assert len(judges) == 9
    assert all((knows > 0.99) == (agrees > 60) for knows, agrees in judges)
    ((agree, vote),) = numbers(r"finds (\d+\.\d) % of them; the majority of judges (\d+\.\d) %", text)
    assert agree > max(vote, 85)
    assert_not_blank(Path(next(line for line in text.splitlines() if line.endswith("colours.png"))))


def test_these_are_all_the_tutorials():
    assert [path.name[:2] for path in SCRIPTS] == ["00", "01", "02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_they_are_percent_scripts_that_use_the_public_interface(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    for cell in text.split("# %% [markdown]\n")[1:]:
        assert cell.startswith("# ") and "# %%\n" in cell
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "ppl":
            assert node.module in PUBLIC
        if isinstance(node, ast.Import):
            assert all(a.name in PUBLIC for a in node.names if a.name.split(".")[0] == "ppl")
        if isinstance(node, ast.Attribute):
            assert node.attr.startswith("__") or not node.attr.startswith("_")
