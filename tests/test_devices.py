"""Everything of a probe on one device, as a GPU insists on: by tensors that say they are on one.

What runs here on any machine finds mixed devices, and how often a GPU is waited for. What it cannot
find (kernels, precision, memory, time) is in tests/gpu.
"""

import ast
import re
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from elsewhere import GPU, SEVERAL, elsewhere, gpu, on_gpu
from places import ROOT
from tiny import BanditPolicy, CausalLMPolicy, random_groups, tiny_torch_lm
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from passk_guard import (
    HeldOutPool,
    HFPolicy,
    PassKGuard,
    PassKGuardConfig,
    PassKObjective,
    probe_policy,
)
from passk_guard.gradients import ENGINES, EngineSettings
from passk_guard.gradients.adam_metric import adam_scales
from passk_guard.objectives.estimators import ESTIMATORS
from passk_guard.remedies.anchors import AnchorLoss, norm
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.scores import score
from passk_guard.rollouts.token_log_probs import token_log_probs
from passk_guard.runtime.isolation import isolated, kept_rng
from passk_guard.runtime.schedule import wait_for_gpu

# torch says that there is no such device where autocast or checkpointing ask for it.
pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")


@pytest.fixture
def waits(monkeypatch):
    """There is a GPU within the test; how often it was waited for."""
    with gpu(monkeypatch) as counted:
        yield counted


class Moving(CausalLMPolicy):
    """Takes rollouts to its model, as policies do, in pieces through the head where asked for."""

    def __init__(self, model, device, logits_at_once=2**25):
        super().__init__(model)
        self.device, self.at_once = device, logits_at_once

    def log_probs(self, *tokens):
        moved = (part.to(self.device) for part in tokens)
        return token_log_probs(self.model, *moved, logits_at_once=self.at_once)


def gramian(model, device, engine, limit, *, pieces=False, most=None):
    policy = Moving(model.eval(), device, 64 if pieces else 2**25)
    settings = EngineSettings(None, PassSize(most), limit, 6)
    return ENGINES.make(engine, policy, settings).gramian(random_groups(6, 6), (0,))


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("limit", [1e15, 0])
@pytest.mark.parametrize("engine", ["backward", "hooks", "auto"])
def test_every_engine_takes_the_same_gramian_there(tiny_lm, waits, engine, limit, pieces):
    want = gramian(tiny_lm(), torch.device("cpu"), engine, limit, pieces=pieces)
    got = gramian(on_gpu(tiny_lm()), GPU, engine, limit, pieces=pieces)
    assert got.device.type == "cpu"
    if limit:
        assert torch.equal(got, want)
    else:  # a GPU sketches more at a time
        assert torch.allclose(got, want, rtol=0.05, atol=0.05 * float(want.diagonal().max()))


def test_a_gpu_is_waited_for_as_often_however_many_layers_there_are(waits):
    """But for the inner products, one matrix for each parameter."""

    def waited(layers):
        torch.manual_seed(0)
        model = tiny_torch_lm()
        model.model.layers = nn.ModuleList(
            [type(model.model.layers[0])(32, 48, 4, 0.0) for _ in range(layers)]
        )
        on_gpu(model)
        parameters = len(list(model.parameters()))
        waits.clear()
        gramian(model, GPU, "hooks", 1e15, most=4)
        copies = waits.pop("to the CPU")
        return dict(waits), copies - 3 * parameters

    few, many = waited(1), waited(4)
    assert few == many
    assert few[0]["unique_consecutive"] > 1  # micro-batches


class Leaving(BanditPolicy):
    """Leaves its rollouts on a GPU."""

    def generate(self, rows, row_ids, n):
        names = ("input_ids", "attention_mask", "completion_mask", "success")
        return [
            replace(group, **{name: elsewhere(getattr(group, name)) for name in names})
            for group in super().generate(rows, row_ids, n)
        ]


def make_guard(policy):
    config = PassKGuardConfig(k=4, reference_prompts=16, num_generations=8, every=1)
    pool = HeldOutPool([{"prompt": str(i)} for i in range(64)])
    return PassKGuard(policy, pool, config, isolation=policy.isolated, say=lambda _: None)


def looked(policy):
    guard = make_guard(policy)
    for step in (0, 1):
        guard.run(guard.due(step), step)
    return guard


@contextmanager
def defaults(kind):
    """What a user may have left on: a dtype, or a device, which fails where one is not named."""
    before = torch.get_default_dtype()
    try:
        if isinstance(kind, torch.dtype):
            torch.set_default_dtype(kind)
        with torch.device(kind) if isinstance(kind, str) else nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS = [torch.bfloat16, torch.float16, torch.float64, "meta"]


@pytest.mark.parametrize("kind", DEFAULTS, ids=str)
def test_no_figure_depends_on_torchs_defaults(kind):
    policies = [BanditPolicy(64), BanditPolicy(64)]
    want = looked(policies[0])
    with defaults(kind):
        guard = looked(policies[1])
        again = make_guard(policies[1])
        again.load_state_dict(guard.state_dict())
        assert again.probe(2) is not None
    for one, other in zip(guard.history, want.history, strict=True):
        assert (one.gramian == other.gramian).all()
        assert (one.track, one.drift) == (other.track, other.drift)


@pytest.mark.parametrize("kind", DEFAULTS, ids=str)
@pytest.mark.parametrize("limit", [1e15, 0])
@pytest.mark.parametrize("engine", ["backward", "hooks"])
def test_no_gradient_depends_on_torchs_defaults(engine, limit, kind):
    model, groups = tiny_torch_lm().eval(), random_groups(6, 6)
    made = lambda: ENGINES.make(  # noqa: E731
        engine, CausalLMPolicy(model), EngineSettings(memory_limit=limit, prompts=6)
    )
    want = made().gramian(groups, (0,))
    with defaults(kind):
        assert torch.equal(made().gramian(groups, (0,)), want)


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("kind", DEFAULTS, ids=str)
def test_a_probe_of_a_checkpoint_under_torchs_defaults(tmp_path, kind):
    import ambiguous_arithmetic as task

    tokenizer = task.make_tokenizer()
    policy = HFPolicy(task.make_model(tokenizer), tokenizer, max_completion_length=2)
    verify = lambda completions, **_: [c[:1] in "02468" for c in completions]  # noqa: E731
    rows = task.make_rows(8).to_list()
    given = {"k": 2, "prompts_at_once": 4, "journal": tmp_path / "probe.jsonl"}
    with defaults(kind):
        for prompts in (4, 8):  # the second time from the journal
            found = probe_policy(policy, rows, verify, num_prompts=prompts, **given).reading
    other = probe_policy(policy, rows, verify, num_prompts=8, **given | {"journal": None}).reading
    assert (found.gramian == other.gramian).all()


@pytest.mark.long
@pytest.mark.needs("lightning", "trl")
@pytest.mark.parametrize("name", ["trl", "transformers", "lightning"])
def test_runs_under_another_default_dtype_are_looked_at(tmp_path, name):
    from hosts import HOSTS, settings

    host = HOSTS[name]
    with defaults(torch.bfloat16):
        alone = host.run(tmp_path / "alone", steps=2)
        found = host.run(tmp_path / "guarded", steps=2, guard=settings(host))
        mixed = settings(host, floor=0.99, action="mix", **host.mix)
        mixed = host.run(tmp_path / "mixed", steps=2, guard=mixed).guard
    assert not found.guard.failures + mixed.failures
    assert len(found.guard.history) == len(mixed.history) == 2
    assert mixed.pass1_weight == 1
    assert all(torch.equal(alone.weights[name], found.weights[name]) for name in alone.weights)


def test_every_tensor_that_the_package_makes_names_its_device():
    made = (
        "arange|as_tensor|asarray|empty|eye|full|linspace|ones|rand|randint|randn|randperm|tensor"
    )
    made = re.compile(rf"torch\.({made}|scalar_tensor|zeros)")
    for folder in ("passk_guard", "integrations"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.walk(ast.parse(path.read_text()))
            for call in (node for node in tree if isinstance(node, ast.Call)):
                named = {keyword.arg for keyword in call.keywords}
                makes = made.fullmatch(ast.unparse(call.func)) is not None
                assert not makes or "device" in named, f"{path}, line {call.lineno}"


def test_rollouts_that_a_policy_leaves_on_a_gpu_are_kept_on_the_cpu(waits):
    guard = looked(Leaving(64))
    assert guard.history[1].drift == looked(BanditPolicy(64)).history[1].drift
    assert guard.history[1].drift is not None
    kept = [leaf for leaf in tree_leaves(guard.state_dict()) if isinstance(leaf, Tensor)]
    assert len(kept) > 64
    assert {tensor.device.type for tensor in kept} == {"cpu"}
    group = Leaving(64).generate(None, [0], 8)[0]
    assert group.input_ids.device == GPU
    here = group.on_cpu()
    assert here.on_cpu() is here


@pytest.mark.parametrize("piece", [64, 2**25])
@pytest.mark.parametrize("engine", ["backward", "hooks"])
def test_a_model_spread_over_two_devices(waits, engine, piece):
    """As accelerate spreads one: a layer moves its input, the model gives its output back."""
    want = gramian(tiny_torch_lm(), torch.device("cpu"), engine, 1e15, pieces=piece == 64)
    model = on_gpu(tiny_torch_lm())
    for part in (model.model.layers[1], model.model.norm, model.lm_head):
        on_gpu(part, SEVERAL)
    for part in (model.model.layers[1], model.model.norm, model.lm_head):
        moved_first(part, SEVERAL)
    got = gramian(model, GPU, engine, 1e15, pieces=piece == 64)
    assert torch.equal(got, want)


def moved_first(part, device):
    """Its submodules' inputs are moved once they are called, after hooks."""
    for module in [m for m in part.modules() if not any(True for _ in m.children())] + [part]:
        own = module.forward
        module.forward = lambda *args, own=own: own(*(value.to(device) for value in args))


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_advantages_of_rewards_on_a_gpu(waits, estimator):
    rewards = torch.tensor([[1.0, 0, 0, 1, 0], [0, torch.nan, 1, 1, 1]])
    objective = PassKObjective(k=2, estimator=estimator)
    there = objective(elsewhere(rewards))
    assert there.device == GPU
    assert torch.equal(there.cpu(), objective(rewards))


def test_the_term_on_anchor_prompts(waits):
    class Drawn(Moving):
        def generate(self, rows, row_ids, n):
            return random_groups(len(rows), n, seed=3)

    def gradient(model, device):
        pool = HeldOutPool([{"prompt": str(i)} for i in range(8)])
        policy = Drawn(model.eval(), device)
        loss = AnchorLoss(policy, pool, 6, 4, lambda seed: isolated(model, seed=seed), PassSize())
        return norm(loss.gradient(0).values())

    assert gradient(on_gpu(tiny_torch_lm()), GPU) == gradient(tiny_torch_lm(), torch.device("cpu"))


def test_adam_s_metric_where_it_counts_its_steps_on_a_gpu(waits):
    """As its fused form does."""
    parameter = nn.Parameter(torch.randn(3, 2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.randn(3, 2)
    optimizer.step()
    want = adam_scales(optimizer, [("w", parameter)])["w"]
    there = nn.Parameter(elsewhere(parameter.detach()))
    other = torch.optim.AdamW([there])
    other.state[there] = {k: elsewhere(v) for k, v in optimizer.state[parameter].items()}
    assert torch.equal(adam_scales(other, [("w", there)])["w"].cpu(), want)


def test_scores_come_back(waits):
    groups = random_groups(4, 6)
    want = score(Moving(tiny_torch_lm().eval(), torch.device("cpu")), groups)
    got = score(Moving(on_gpu(tiny_torch_lm()).eval(), GPU), groups)
    for here, there in zip(want, got, strict=True):
        assert (here is None) == (there is None)
        assert here is None or torch.equal(here, there)


def test_these_tensors_refuse_what_a_gpu_refuses_and_count_what_it_waits_for(waits):
    there, here = elsewhere(torch.ones(2, 2)), torch.ones(2, 2)
    for mixed in (
        lambda: there + here,
        lambda: there @ here,
        lambda: there.index_add_(0, torch.tensor([0]), there[:1]),
        lambda: here[there[0].long()],
        lambda: torch.cat([there, here]),
        lambda: torch.ones(2, device="cuda") * torch.ones(2),
    ):
        with pytest.raises(RuntimeError, match=r"device|indices on"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert not waits
    assert (there + torch.tensor(1.0)).device == GPU
    assert not waits
    assert float(there.sum()) == 4.0
    assert there.tolist() == here.tolist()
    assert there[there > 0].device == GPU
    assert there.cpu().device.type == "cpu"
    assert set(waits) == {"_local_scalar_dense", "tolist", "index", "to the CPU"}


@pytest.mark.needs("lightning", "trl")
def test_what_training_has_queued_is_not_a_look_s_cost(tmp_path, monkeypatch):
    from hosts import HOSTS, settings

    waited = []

    def wait():
        time.sleep(0.3)
        waited.append(0.3)
        return 0.3

    began = time.perf_counter()
    monkeypatch.setattr("passk_guard.session.session.wait_for_gpu", wait)
    host = HOSTS["lightning"]
    schedule = host.run(tmp_path, steps=4, guard=settings(host)).guard.schedule
    assert len(waited) == 3
    assert schedule._training > sum(waited)
    assert schedule._training + schedule.spent < time.perf_counter() - began  # nothing twice


def test_a_process_forked_from_one_that_used_a_gpu_asks_for_no_generator(monkeypatch):
    """torch raises there; its own seeding passes such processes over, too."""

    def raises():
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", raises)
    with pytest.raises(RuntimeError, match="forked"), kept_rng():
        pass
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    with kept_rng():
        pass


def test_a_gpu_that_nobody_uses_is_not_waited_for(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: bool(used))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append(1))
    used = []
    assert wait_for_gpu() >= 0
    assert not calls
    used.append(1)
    assert wait_for_gpu() >= 0
    assert calls == [1]
