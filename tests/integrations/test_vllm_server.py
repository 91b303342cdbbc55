"""Probes through a vLLM server: one that hangs or fails costs probes, not the run."""

from extras import needs

needs("trl", "vllm")

import threading
import time
from contextlib import suppress

import pytest
import vllm_runs  # before whatever else imports vLLM
from trl_runs import GUARD, held_out, make_trainer, train
from vllm_server import PLAIN, Server, without_nccl

from passk_guard.integrations import _trl_vllm_server
from passk_guard.integrations.trl import PassKGuardCallback

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions"),
]
FILTERS = {"top_k": 2, "temperature": 0.7, "generation_kwargs": {"bad_words": ["7"]}}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """``serve(logprobs_mode, **config)`` gives a server, and a trainer that samples from it."""
    servers = []

    def started(logprobs_mode="processed_logprobs", **config):
        folder = tmp_path / "model"
        server = Server(vllm_runs.saved_model(folder, 20.0), logprobs_mode)
        servers.append(server)
        without_nccl(monkeypatch, server)
        trainer = make_trainer(
            tmp_path,
            model=vllm_runs.saved_model(folder, 20.0),
            use_vllm=True,
            vllm_mode="server",
            vllm_server_base_url=server.url,
            **config,
        )
        return server, trainer

    yield started
    for server in servers:
        server.close()


def guarded(trainer, **settings):
    return PassKGuardCallback(trainer, prompts=held_out(), **{**GUARD, **settings})


def test_probes_ask_for_plain_sampling_and_training_for_its_own(serve):
    server, trainer = serve(**FILTERS)
    callback = guarded(trainer, report_temperature=0)
    train(trainer, callback)
    assert [p.step for p in callback.guard.history] == [0, 2, 4]
    bodies = server.requests
    training = [body for body in bodies if body["top_k"] == 2]
    assert len(training) == 4
    assert all(body["bad_words"] == ["7"] and body["temperature"] == 0.7 for body in training)
    probes = [body for body in bodies if body not in training]
    assert all({name: body[name] for name in PLAIN} == PLAIN for body in probes)
    assert not any("bad_words" in body for body in probes)
    assert [body["temperature"] for body in probes] == [0.7, 0] * 3  # report_temperature
    assert [len(body["prompt"]) for body in probes[:2]] == [16, 16]
    for probe in callback.guard.history:
        assert abs(probe.inference.kl) < 0.1 * probe.inference.bound
    assert server.updates == 5  # one for each step and one for the last look


@pytest.mark.parametrize(
    ("mode", "temperature", "told"),
    [("raw_logprobs", 1.0, True), ("raw_logprobs", 0.7, False), (None, 1.0, False)],
)
def test_raw_log_probs_say_something_at_temperature_one_only(serve, mode, temperature, told):
    _, trainer = serve(mode, vllm_importance_sampling_correction=False)
    callback = guarded(trainer, temperature=temperature)
    train(trainer, callback)
    assert {probe.inference is not None for probe in callback.guard.history} == {told}


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(
    ("fault", "where"),
    [("hang", True), ("broken", "/v1/completions"), ("broken", "/start_weight_update")],
)
def test_a_server_that_fails_a_probe_costs_that_probe(serve, monkeypatch, fault, where):
    server, trainer = serve()
    session = trainer.vllm_generation.vllm_client.session
    before = dict(vars(session)), session.adapters["http://"].max_retries
    callback = guarded(trainer)
    policy, probes = callback.guard.policy, []
    generate = policy.generate

    def generates(*args, **kwargs):
        probes.append(time.monotonic())
        if len(probes) != 2:
            return generate(*args, **kwargs)
        setattr(server, fault, where)
        with monkeypatch.context() as patch:  # a healthy server may be slow
            patch.setattr(_trl_vllm_server, "_PATIENCE", 0.5)
            try:
                return generate(*args, **kwargs)
            finally:
                server.hang, server.broken = False, ""

    policy.generate = generates
    began = time.monotonic()
    with pytest.warns(UserWarning, match="this probe is lost"):
        train(trainer, callback)
    assert time.monotonic() - began < 300  # a server that hangs does so for ten minutes
    assert [p.step for p in callback.guard.history] == [0, 4]
    assert [failure.step for failure in callback.guard.failures] == [2]
    assert trainer.state.global_step == 4
    assert (vars(session), session.adapters["http://"].max_retries) == before
    assert len(threading.enumerate()) < 40


def test_without_patience_a_hanging_server_is_waited_for(serve):
    """Negative control: TRL's own session has no time-out."""
    server, trainer = serve()
    server.hang = True
    client = trainer.vllm_generation.vllm_client

    def ask():
        with suppress(Exception):  # as the test ends
            client.session.post(f"{client.base_url}/v1/completions", json={})

    waiting = threading.Thread(target=ask, daemon=True)
    waiting.start()
    waiting.join(2)
    assert waiting.is_alive()


def test_that_a_server_cannot_be_rewound_is_said_once(serve, caplog):
    caplog.set_level("INFO", logger="passk_guard")
    _, trainer = serve()
    train(trainer, guarded(trainer))
    assert caplog.text.count("A server's random numbers cannot be rewound") == 1
