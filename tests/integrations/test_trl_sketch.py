"""A real GRPO run under exact gradients and under sketches."""

from extras import needs

needs("trl")

import ambiguous_arithmetic as task
import pytest

from passk_guard.integrations.trl import PassKGuardCallback


def test_a_real_run_gets_the_same_alarms_from_sketches(tmp_path):
    """Watching leaves training bit-identical, so both guards see the same rollouts."""
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, layers=1)
    task.warm_up(model, tokenizer, steps=600)
    warm = {name: value.clone() for name, value in model.state_dict().items()}
    histories = []
    for memory_limit in (2**30, 2**10):
        model.load_state_dict(warm)
        trainer = task.make_trainer(
            model,
            tokenizer,
            steps=8,
            learning_rate=5e-5,
            out=str(tmp_path),
            scale_rewards="none",
            report_to="none",
            disable_tqdm=True,
        )
        callback = PassKGuardCallback(
            trainer,
            prompts=task.make_rows(512, seed=7),
            k=8,
            objective="pkpo",
            every=2,
            false_alarms=0.05,
            action=lambda probe, guard: None,
            memory_limit=memory_limit,
        )
        trainer.add_callback(callback)
        trainer.train()
        assert not callback.guard.failures
        histories.append(callback.guard.history)
    exact, sketch = histories
    assert [p.correct for p in exact] == [p.correct for p in sketch]
    assert [p.conflicts for p in exact] == [p.conflicts for p in sketch]
    assert any("alignment" in p.conflicts for p in exact)
    for a, b in zip(exact, sketch, strict=True):
        assert a.update_alignment.z == pytest.approx(b.update_alignment.z, abs=0.2)
        assert a.update_alignment.z != b.update_alignment.z
