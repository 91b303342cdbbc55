"""Figures in documents are those of the last run of the command beside them.

The commands leave their figures in ``tests/benchmarks/results``. Tables are made from these by
``tests/helpers/tables.py``, which also writes them; sentences are compared here.
"""

import re
from inspect import signature
from pathlib import Path

import pytest
from places import ROOT
from tables import RESULTS, TABLES, figures, share, table, words

from passk_guard import PassKGuardConfig, probe_policy
from passk_guard.statistics.policy_reading import _NIL
from passk_guard.statistics.sign_test import chance_of_look

NAMES = ("README", "docs/settings", "docs/alarms", "docs/production", "docs/checkpoints")
README, SETTINGS, ALARMS, PRODUCTION, CHECKPOINTS, EVIDENCE = (
    words(f"{name}.md") for name in (*NAMES, "docs/evidence")
)


@pytest.mark.parametrize(("document", "make"), TABLES)
def test_a_table_is_that_of_the_results(document, make):
    """Where it is not: ``python tests/helpers/tables.py`` writes them all."""
    assert f"\n\n{make()}\n" in (ROOT / document).read_text()


def test_runs_are_those_that_the_page_tells():
    seeds = {}
    for run in table("closed_loop.csv"):
        seeds.setdefault((run["task"], run["remedy"]), set()).add(int(run["seed"]))
        if run["remedy"].startswith("guard"):  # "the weights are bit for bit those"
            assert (run["same"] == "True") == (run["alarm"] == "")
    for (task, remedy), found in seeds.items():
        own = range(10, 15) if remedy.startswith("guard") else range(3)  # "three seeds, five of"
        assert found == set({"ambiguous": own, "too fast": range(10, 15)}.get(task, [10]))
    covers = [v for name, v in figures("calibration.json").items() if name.startswith("coverage")]
    worst = 100 * (1 - min(cell["symmetric"] for cell in covers))
    source = words("passk_guard/statistics/interval.py")
    assert f"misses the truth in up to {worst:.0f} % of batches" in source
    assert f"tolerance {100 * PassKGuardConfig().pass1_tolerance:.0f} point" in EVIDENCE


def test_the_demo():
    found = figures("demo.json")
    start, lost, kept = found["start"], found["end, watched only"], found["end, guarded"]
    watched = (share(v) for v in (start[0], lost[0], start[1], lost[1]))
    said = "pass@1 goes from {} to {} while pass@8 goes from {} to {}"
    assert said.format(*watched) in README
    said = f"alarm at step {kept[2]} brings the remedy in, and the run ends at {share(kept[0])} and"
    assert f"{said} {share(kept[1])}" in README
    assert round(100 * (start[0] - lost[0])) == 10  # "by ten points", under the picture


def test_what_memory_real_shapes_take():
    runs = figures("real_memory.json").values()

    def least_and_most(name):
        return (share(edge(run[name] for run in runs), 2) for edge in (min, max))

    said = (
        "scores take {} to {} of the peak of a plain forward and backward, watched layers {} to "
        "{}, a backward per prompt 1.0"
    )
    found = (*least_and_most("score"), *least_and_most("hooks"))
    assert said.format(*found) in PRODUCTION
    assert all(run["backward"] == 1 for run in runs)


def test_the_examples_table_is_what_the_plain_loop_printed():
    shown = re.search(r"```\n(step .*?)```", (ROOT / "examples/README.md").read_text(), re.DOTALL)
    printed = (RESULTS / "plain_loop.txt").read_text()
    lines = [line for line in shown[1].splitlines() if line.strip() != "..."]
    assert len(lines) == 8
    assert all(f"{line}\n" in printed for line in lines)


def test_constants_of_the_code():
    from passk_guard.gradients.auto import _MOST_UNKNOWN
    from passk_guard.gradients.hooks import _DIFFER
    from passk_guard.gradients.sketch import DEFAULT_SIZE
    from passk_guard.remedies.mpc_controller import _AIM, _RELEASE, _TRIED
    from passk_guard.runtime.schedule import _DEFAULT_OVERHEAD
    from passk_guard.statistics.inference_mismatch import _LEAST, _MOST, _SHARE

    said = f"2^{DEFAULT_SIZE.bit_length() - 1} numbers per prompt, and a standard error of"
    assert f"{said} {share(DEFAULT_SIZE**-0.5)}" in PRODUCTION
    assert f"differ by less than {share(_DIFFER, 2)} in a batch's cosines" in PRODUCTION
    assert ("more than a quarter of the parameters" in PRODUCTION) == (_MOST_UNKNOWN == 0.25)
    millions = figures("probe_cost.json")["64 tokens"]["parameters"] / 1e6
    assert f"for a Llama of {millions:.0f} M parameters" in PRODUCTION
    colours = re.search(r"quantile\(.*, 0\.(\d\d)\)", words("passk_guard/reporting/figures.py"))[1]
    assert f"colours end at the {colours}th percentile" in ALARMS
    assert f"stand at {_AIM} `pass1_tolerance` below its floor" in ALARMS
    assert f"falls by at most {_RELEASE} per ten steps" in ALARMS
    assert f"Where four looks at λ > {_TRIED} have shown" in ALARMS
    said = f"more than {100 * _SHARE:.0f} % of its entropy apart, taken between {share(_LEAST)} and"
    assert f"{said} {share(_MOST, 2)} nats per token" in ALARMS
    overhead = f"{100 * _DEFAULT_OVERHEAD:.0f} %"
    assert f"looks may take {overhead} of the wall time" in README
    assert f"or neither ({overhead}): a look is due" in SETTINGS
    problems = (ROOT / "examples/data/gsm8k/test-200.jsonl").read_text().splitlines()
    assert f"{len(problems)} problems of its test split" in words("examples/README.md")
    assert f"The {len(problems)} problems" in README
    # As source: the adapters need a trainer.
    assert "_PATIENCE = 1800.0" in words("integrations/_trl_vllm_server.py")
    assert "does not answer for half an hour" in PRODUCTION
    assert "_TOKENS_AT_ONCE = 2**20" in words("integrations/_trl_vllm.py")
    assert "up to a million tokens" in PRODUCTION


def test_what_a_look_is():
    config = PassKGuardConfig()
    m, n, again = config.reference_prompts, config.n, config.rollouts(config.reference_prompts)
    assert again == 2
    said = (
        f"*{m} held-out prompts, solved {n} times each at the start and twice each at every look.*"
    )
    assert said in README
    assert f"The first costs {m * n} rollouts, each later one {m * again}" in README
    assert f"takes {m} × {n} rollouts, later ones {m} × {again}" in SETTINGS
    assert f"{m} prompts of the held-out pool are drawn once" in ALARMS


def test_the_table_of_settings_has_every_setting_with_its_default():
    section = (ROOT / "docs/settings.md").read_text().split("## Choosing")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    shown = {}
    for names, default, _ in rows:
        shown |= dict.fromkeys(re.findall(r"`(\w+)`", names), default.strip("`"))
    for name, setting in signature(PassKGuardConfig).parameters.items():
        default = setting.default
        if name == "memory_limit":
            assert shown[name] == f"{default / 2**30:.0f} GiB"
        elif isinstance(default, str):
            assert shown[name] == f'"{default}"'
        elif default is None or isinstance(default, bool):
            assert name in shown
        else:
            assert float(shown[name]) == default


def test_releases_that_are_tested():
    def pinned(lane):
        return dict(line.split("==") for line in lane.read_text().splitlines() if "==" in line)

    newest, lowest, oldest = (
        pinned(ROOT / f"constraints{lane}.txt") for lane in ("", "-lowest", "-oldest-torch")
    )
    said = "torch {} with trl {} and {}, transformers {} and {}, lightning {} and {}"
    pairs = [f(n) for n in ("trl", "transformers", "lightning") for f in (newest.get, lowest.get)]
    assert newest["torch"] == lowest["torch"]
    assert said.format(newest["torch"], *pairs) in PRODUCTION
    assert f"torch {oldest['torch']} with NumPy {oldest['numpy']}" in PRODUCTION
    claims = (ROOT / "pyproject.toml").read_text()
    python = re.search(r'requires-python = ">=(.*)"', claims)[1]
    assert f"CI runs Python {python} and torch" in PRODUCTION
    said = f"Python {python} and later, torch {{}} and NumPy {{}} and later, "
    oldest_claimed = [oldest[name].removesuffix(".0") for name in ("torch", "numpy")]
    assert said.format(*oldest_claimed) in README
    for name in ("trl", "transformers"):
        least, above = re.search(rf'"{name}>=([\d.]+),<(\d)"', claims).groups()
        assert f"{name} {least} to {int(above) - 1}, " in README
    least = re.search(r'"lightning>=([\d.]+)"', claims)[1]
    assert f"lightning {least} and later" in README
    for name, release in (("torch", oldest["torch"]), ("numpy", oldest["numpy"])):
        assert f'"{name}>={release.removesuffix(".0")}"' in claims
    for name in ("trl", "transformers", "lightning"):
        assert f'"{name}>={lowest[name].removesuffix(".0")}' in claims
    least = re.search(r'"deepspeed>=([\d.]+)"', claims)[1]
    assert f'Version("{least}")' in (ROOT / "integrations" / "_parallel.py").read_text()
    assert f"DeepSpeed from {least}, ZeRO-0 to 3" in PRODUCTION
    sharded = (ROOT / "tests/integrations/test_sharded.py").read_text()
    least = ".".join(re.search(r">= \((\d+), (\d+)\)", sharded).groups())  # as it is tested
    assert f"FSDP2 (`transformers` from {least}," in PRODUCTION


def test_a_probe_s_verdicts():
    found = figures("preflight.json")
    words = ("would lower pass@1", "gradient nil", "would not lower pass@1")
    for task, said in zip(("conflict", "healthy", "hard only"), words, strict=True):
        runs = [run for run in found["runs"] if run["task"] == task]
        late = [run["verdict"] for run in runs if not run["early_stop"]]
        assert late == [said] * 20  # "twenty models for each verdict"
        assert {run["verdict"] for run in runs} <= {said, "not sure"}  # "never wrong"
    assert f"fewer than {100 * _NIL:.0f} % of the prompts" in CHECKPOINTS
    assert found["untrained"]["verdict"] == "no signal"
    found = figures("sign_calibration.json")
    nulls = [one for name, one in found.items() if "opposed" not in name]
    low, high, plain = (
        100 * max(one[key] for one in nulls)
        for key in ("lowers, one look", "raises, one look", "control, three looks")
    )
    allowed = 100 * chance_of_look(0.05, 1, 1, 1)
    assert (
        f'sure of "would lower" in {low:.1f} % of the probes at worst, and of "would not" in '
        f"{high:.1f} %, where {allowed:.0f} % are allowed; a plain z, looked at three times, in up "
        f"to {plain:.0f} %"
    ) in CHECKPOINTS
    assert "are wrong in 5 % of the cases at most" in CHECKPOINTS
    assert signature(probe_policy).parameters["chance"].default == 0.05


def test_intervals_of_a_comparison():
    found = figures("compare_coverage.json")
    at = found.pop("columns").index("change")
    rare = "2 % lost, else small noise, 50 prompts"
    least = min(values[at] for name, values in found.items() if not name.startswith(rare))
    assert f"Over {len(found)} combinations of population" in CHECKPOINTS
    assert f"holds the truth in {100 * least:.1f} % of the draws at least" in CHECKPOINTS
    least = min(cell["inside"] for cell in figures("common_coverage.json").values())
    assert f"interval held the truth in {100 * least:.1f} % of the draws at least" in CHECKPOINTS
    wrong = [cell.get("candidates: wrong", 0) for cell in figures("compare_power.json").values()]
    said = f"5 % at most are wrong on average: in simulation {100 * max(wrong):.1f} % at worst"
    assert said in CHECKPOINTS


PLACES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs",
    "examples",
    "integrations",
    "passk_guard",
    "tests",
]


@pytest.mark.parametrize("place", PLACES)
def test_files_that_are_named_exist(place):
    folder = ROOT / place
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.*"))
    known = {path.name for place in PLACES for path in (ROOT / place).rglob("*.py")}
    for path in paths:
        if path.suffix in (".md", ".py", ".rst") and path != Path(__file__):
            named = set(re.findall(r"``?(?:[\w.]+/)*(\w+\.py)``?", path.read_text()))
            assert named <= known, path
