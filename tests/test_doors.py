"""Each door: one new file, taken from the documents, and a setting that names what it brings."""

import importlib.util
import json
import re
from dataclasses import dataclass

import pytest
import torch
from guarded_bandit import CONTEXTS, make_guard
from places import ROOT
from tiny import BanditPolicy

from passk_guard import (
    HeldOutPool,
    PassKGuard,
    PassKGuardConfig,
    PassKGuardWarning,
    PassKObjective,
    compare,
    detection,
    gradients,
    objectives,
    remedies,
)
from passk_guard.detection.alarm import AlarmKind
from passk_guard.objectives.training_weight import TrainingGroups
from passk_guard.remedies import ControlReading
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.read_run import read_run
from passk_guard.reporting.report import begin_run, publish
from passk_guard.reporting.summary import summary
from passk_guard.rollouts import VerifiedPolicy
from passk_guard.runtime.effort import Effort
from passk_guard.statistics.track import Drift, Track

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = {
    re.search(r"register_(\w+)\(\"", block)[1]: block
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
}
SETTINGS = {"k": 4, "reference_prompts": 16, "every": 5}

pytestmark = pytest.mark.usefixtures("doors")


@pytest.fixture
def door(tmp_path):
    """Puts one of the page's examples into a file of its own, and imports it."""

    def enter(kind):
        path = tmp_path / f"my_{kind}.py"
        path.write_text(BLOCKS[kind])
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return enter


def guarded(objective=None, policy=None, **settings):
    policy = policy or BanditPolicy(CONTEXTS, dim=3, seed=5)
    pool = HeldOutPool([{"prompt": str(i)} for i in range(CONTEXTS)])
    config = PassKGuardConfig(**SETTINGS | settings)
    return PassKGuard(policy, pool, config, isolation=policy.isolated, objective=objective)


def test_the_page_has_an_example_of_twenty_lines_for_each_door():
    assert set(BLOCKS) == {"engine", "estimator", "action", "controller", "detector", "format"}
    for block in BLOCKS.values():
        code = [line for line in block.splitlines() if line.strip() and "import" not in line]
        assert len(code) <= 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "autograd"},
        {"objective": "tilted"},
        {"action": "write_down"},
        {"controller": "switch"},
        {"detectors": "level,single_look"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_is_not_registered_is_refused_with_what_is(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(ValueError, match=rf"^{name}='\w+' is not known\. Choose '"):
        PassKGuardConfig(**wrong)


def test_an_engine(door):
    door("engine")
    own, built_in = guarded(engine="autograd").probe(0), guarded().probe(0)
    assert own.alignment.inner == pytest.approx(built_in.alignment.inner, rel=1e-5)
    assert own.gramian == pytest.approx(built_in.gramian, rel=1e-4, abs=1e-9)


def test_an_estimator(door):
    module = door("estimator")
    rewards = torch.tensor([[1.0, 0.0, 0.0, torch.nan]])
    objective = PassKObjective(4, estimator="tilted", group_size=16)
    assert torch.equal(objective(rewards), module.tilted_advantages(rewards, 4))
    probe = guarded(objective).probe(0)
    # In groups of 16 as in the probe's 8, hard prompts weigh more.
    weight = [objective.prompt_weight(c, 8, None, TrainingGroups(16)) for c in (1, 4, 7)]
    assert weight == sorted(weight, reverse=True)
    counted = zip(probe.correct, probe.scored, strict=True)
    expected = [objective.prompt_weight(c, n, None, None) if 0 < c < n else 0 for c, n in counted]
    assert probe.weights.tolist() == pytest.approx(expected)
    assert max(expected) > 1.5 * min(weight for weight in expected if weight)  # not all alike
    with pytest.raises(ValueError, match="estimator='tilted' with k=4 needs groups of at least 2"):
        PassKObjective(4, estimator="tilted", group_size=1)


def test_an_estimator_may_know_its_own_prompt_weights(door):
    from passk_guard.objectives import Estimator, register_estimator

    module = door("estimator")
    known = Estimator(module.tilted_advantages, lambda k: 2, prompt_weight=lambda k, g, c, n: 7.0)
    register_estimator("known", known)
    objective = PassKObjective(4, estimator="known", group_size=16)
    assert objective.prompt_weight(3, 8, None, None) == 7.0
    objective.pass1_weight = 0.5
    assert objective.prompt_weight(3, 8, None, None) == pytest.approx(4.0)  # A_1 weighs 1


def test_an_action(door, tmp_path, monkeypatch):
    door("action")
    monkeypatch.chdir(tmp_path)
    guard = guarded(action="write_down", floor=0.99)
    probe = guard.probe(0)
    assert probe.alarm is not None
    assert (tmp_path / "alarms.txt").read_text().startswith(f"0 {probe.track.change:+.3f} step 0:")


def test_a_controller_and_its_state(door):
    door("controller")
    settings = {"action": ["warn", "mix"], "controller": "switch", "floor": 0.99}
    guard = guarded(PassKObjective(4), **settings)
    with pytest.warns(PassKGuardWarning, match="level alarm"):
        guard.probe(0)
    assert guard.pass1_weight == 0.5
    other = guarded(PassKObjective(4), **settings)
    other.load_state_dict(guard.state_dict())
    assert other.pass1_weight == 0.5
    assert other.state_dict()["remedy"] == guard.state_dict()["remedy"]


def test_a_format_of_counts(door, tmp_path):
    for name, right in (("before", 9), ("after", 2)):
        solved = {str(i): [right, 16] for i in range(60)}
        (tmp_path / f"{name}.json").write_text(json.dumps({"solved": solved}))
    files = [tmp_path / "before.json", tmp_path / "after.json"]
    with pytest.raises(ValueError, match=r"is of no format that is known"):
        compare(*files)
    door("format")
    found = compare(*files)
    assert found.decision == 1
    assert len(found.lost) == 60


def test_a_detector_shares_the_false_alarms_and_leads(door):
    module = door("detector")
    names = "alignment,level,single_look"
    guard = guarded(detectors=names, watch="target_k")
    detectors = guard._prober.detector.detectors
    assert list(detectors) == names.split(",")
    two = guarded()._prober.detector.detectors
    assert detectors["level"].z > two["level"].z  # a third of the chance, not a half
    detectors["single_look"].threshold = 1e9  # whatever is seen
    with pytest.warns(PassKGuardWarning, match=r"\(single_look alarm\)"):
        probe = guard.probe(0)
    assert [(kind, kind.leading, kind.group) for kind in probe.conflicts] == [
        ("single_look", True, None)
    ]
    assert isinstance(detectors["single_look"], module.SingleLook)
    other = guarded(detectors=names, watch="target_k")
    other.load_state_dict(guard.state_dict())
    assert other._prober.detector.active == {"single_look"}
    # A run that goes on without it has no such alarm.
    third = guarded(watch="target_k")
    third.load_state_dict(guard.state_dict())
    assert third._prober.detector.active == set()


class Remote:
    """A policy whose parameters nobody here sees."""

    def __init__(self):
        self._bandit = BanditPolicy(CONTEXTS, dim=3, seed=5)
        self.isolated = self._bandit.isolated
        self.generate = self._bandit.generate

    def log_probs(self, *tokens):
        return self._bandit.log_probs(*tokens).detach()

    def gramian(self, groups):
        rows = []
        for group in groups:
            scores = self._bandit.log_probs(*group.tokens).sum(-1)
            loss = scores @ (group.centred_success() / group.n).double()
            rows.append(torch.autograd.grad(loss, self._bandit.weight)[0].flatten())
        return torch.stack(rows) @ torch.stack(rows).T


@pytest.mark.parametrize("verified", [False, True])
def test_a_policy_without_parameters_brings_its_own_gramian(verified):
    policy = Remote()
    if verified:  # as adapters wrap it
        policy = VerifiedPolicy(policy, None)
        policy.isolated = Remote().isolated
    guard = guarded(policy=policy)
    own, built_in = guard.probe(0), guarded().probe(0)
    assert own.alignment.inner == pytest.approx(built_in.alignment.inner, rel=1e-5)
    assert guard.rescore(5).drift.rescored
    with pytest.raises(ValueError, match="metric='adam' reads the optimizer's state"):
        PassKGuard(
            policy,
            guard.pool,
            PassKGuardConfig(metric="adam"),
            isolation=policy.isolated,
            optimizer=lambda: None,
        )


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("wrong", [torch.zeros(3, 3), torch.full((16, 16), torch.nan)])
def test_a_gramian_that_is_none_costs_the_probe(wrong):
    policy = Remote()
    policy.gramian = lambda groups: wrong
    guard = guarded(policy=policy)
    with pytest.warns(PassKGuardWarning, match=r"the policy's gramian\(\)"):
        assert guard.probe(0) is None


def test_a_name_is_not_taken_twice():
    from passk_guard.remedies import register_action

    register_action("mine", print)
    register_action("mine", print)
    with pytest.raises(ValueError, match="action='mine' is registered already"):
        register_action("mine", repr)
    with pytest.raises(ValueError, match="must be a plain word, got 'my action'"):
        register_action("my action", print)
    assert make_guard(action="mine").probe(0).alarm is None


# Properties of every variant, built in or from the page ---------------------------------------


def variants(registry, kind):
    """Names, of which the last one is registered by the page's example."""
    own = re.search(rf"register_{kind}\(\"(\w+)\"", BLOCKS[kind])[1]
    return [*registry, own]


@pytest.mark.parametrize("name", variants(gradients.ENGINES, "engine"))
def test_every_engine(name, door):
    door("engine")
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    engine = gradients.ENGINES.make(name, policy, gradients.EngineSettings())
    torch.manual_seed(0)
    groups = policy.generate([{}] * 16, list(range(16)), 8)
    policy.weight.grad = torch.ones_like(policy.weight)
    state = torch.get_rng_state()
    gramian = engine.gramian(groups, (0, 1))
    assert torch.equal(policy.weight.grad, torch.ones_like(policy.weight))
    assert torch.equal(torch.get_rng_state(), state)
    assert gramian.shape == (16, 16)
    assert gramian.dtype == torch.float64
    assert torch.allclose(gramian, gramian.T, rtol=1e-6)
    assert float(torch.linalg.eigvalsh(gramian).min()) > -1e-6 * float(gramian.abs().max())
    silent = [i for i, group in enumerate(groups) if not group.has_signal]
    assert silent
    assert not gramian[silent].any()
    assert torch.equal(gramian, engine.gramian(groups, (0, 1)))


@pytest.mark.parametrize("name", variants(objectives.ESTIMATORS, "estimator"))
def test_every_estimator(name, door):
    door("estimator")
    estimator = objectives.ESTIMATORS[name]
    rewards = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, torch.nan, 0.0]])
    rewards = rewards.repeat_interleave(4, 1)
    before = rewards.clone()
    advantages = estimator.advantages(rewards, 2)
    assert torch.equal(rewards.nan_to_num(7), before.nan_to_num(7))
    assert advantages.shape == rewards.shape
    assert bool(advantages.isfinite().all())
    assert not advantages[rewards.isnan()].any()
    if name != "pkpo":  # it adds what a rollout brings, with no baseline
        assert float(advantages[1].abs().max()) == 0
    assert estimator.least_group(2) >= 2


@pytest.mark.parametrize("name", variants(remedies.CONTROLLERS, "controller"))
def test_every_controller(name, door):
    door("controller")
    one, other = (remedies.CONTROLLERS.make(name, 0.01) for _ in range(2))
    level = AlarmKind("level")
    assert one.value == 0

    def reading(step, change, *conflicts):
        """The objective alone would gain as much as pass@1 alone."""
        paired = Drift(0.01, 4e-6) if step else None
        share, effort = one.value, Effort(10.0 * (step > 0))
        return ControlReading(step, track(change), conflicts, paired, share=share, effort=effort)

    for step in range(0, 50, 10):  # no alarm, no action, whatever pass@1 does
        assert one.update(reading(step, -0.2)) == 0
    looks = [(step, -0.1 + 0.0002 * step, level) for step in range(50, 120, 10)]
    seen = [one.update(reading(*look)) for look in looks]
    assert all(0 < value <= 1 for value in seen)
    assert seen[-1] == one.value
    other.load_state_dict(one.state_dict())
    values = []
    for step in range(120, 400, 10):
        told = reading(step, 0.02)
        values.append(one.update(told))
        assert values[-1] == other.update(told)
    assert values[-1] == 0  # it lets go


@pytest.mark.parametrize("name", variants(detection.DETECTORS, "detector"))
def test_every_detector(name, door):
    door("detector")
    settings = detection.DetectorSettings(1e-3, 0.01, groups=1)
    one, other = (detection.DETECTORS.make(name, settings) for _ in range(2))
    calm = detection.LookEvidence(None, track(0.0), {"odd": track(0.0)})
    for _ in range(20):
        assert True not in one.update(calm).values()
    probe = guarded(watch="target_k").probe(0)
    seen = detection.LookEvidence(probe.update_alignment, track(-0.2), {"odd": track(-0.2)})
    one.update(seen)
    other.load_state_dict(one.state_dict())
    for evidence in (seen, calm, seen):
        assert one.update(evidence) == other.update(evidence)
    assert one.leading in (True, False)


def track(change):
    return Track(0.5 + change, 0.01, 0.48, 0.52, 0.5, change, 0.002)


class Half:
    """Half of each door's protocol."""

    value = 0.0
    leading = True

    def __init__(self, *arguments):
        pass

    def update(self, *arguments):
        return {}


@pytest.mark.parametrize(
    ("registry", "setting", "lacks"),
    [
        (gradients.ENGINES, "engine", "gramian"),
        (remedies.CONTROLLERS, "controller", "state_dict, load_state_dict"),
        (detection.DETECTORS, "detectors", "state_dict, load_state_dict"),
    ],
)
def test_what_is_not_whole_is_refused_before_the_first_look(registry, setting, lacks):
    registry.register("half", Half)
    with pytest.raises(TypeError, match=f"{setting}='half' gave a Half without {lacks}"):
        guarded(PassKObjective(4), action="mix", **{setting: "half"})


def test_an_action_that_cannot_be_hashed_and_one_that_is_called_as_a_remedy():
    seen = []

    @dataclass
    class Pager:
        number: int = 7

        def __call__(self, look, guard):
            seen.append((self.number, look.step))

    guard = guarded(action=[Pager()], floor=0.99)
    assert guard.probe(0).alarm is not None
    assert seen == [(7, 0)]
    with pytest.raises(ValueError, match="action='mix' is a remedy, as built in"):
        remedies.register_action("mix", print)


def test_without_a_test_of_the_level_no_smallest_loss_is_promised():
    for names, promised in (("alignment,level", True), ("alignment", False)):
        said = []
        policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
        pool = HeldOutPool([{"prompt": str(i)} for i in range(CONTEXTS)])
        config = PassKGuardConfig(**SETTINGS, detectors=names)
        guard = PassKGuard(policy, pool, config, isolation=policy.isolated, say=said.append)
        for step in (0, 5, 10):
            guard.probe(step)
            guard.schedule.trained(1.0, 5)
        (plan,) = [text for text in said if "a probe costs" in text]
        assert ("smallest loss" in plan) == promised


def test_a_report_elsewhere_knows_what_leads(door, tmp_path):
    """Where the detector is not registered, too: the journal says so."""
    door("detector")
    guard = guarded(detectors="alignment,level,single_look", watch="target_k")
    guard._prober.detector.detectors["single_look"].threshold = 1e9
    journal = Journal(tmp_path)
    begin_run(guard, journal, 0, "a loop")
    with pytest.warns(PassKGuardWarning, match="single_look alarm"):
        publish(guard.probe(0), guard, journal, lambda report: None)
    del detection.DETECTORS._entries["single_look"]
    assert summary(read_run(tmp_path))["sentence"].startswith("Pass@1 is at risk")
    lines = (tmp_path / "passk_guard.jsonl").read_text()
    (tmp_path / "passk_guard.jsonl").write_text(
        lines.replace('"leading": ["single_look"]', '"leading": []')
    )
    assert summary(read_run(tmp_path))["sentence"].startswith("The alarm 'single_look' is open")
