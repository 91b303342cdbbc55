"""What a run leaves in W&B, trackio, MLflow and CSV, read back; nothing leaves the machine."""

from extras import needs

needs("trl", "lightning", "wandb", "trackio", "mlflow")

import csv
import functools
import math
import socketserver
import threading

import mlflow
import own_loss
import pytest
import trackio
import wandb
from hosts import model, own_loss_settings
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, WandbLogger
from lightning_runs import Automatic, fit, guard
from tracked import MLflow, Trackio, Wandb, project
from transformers import TrainerCallback
from trl_runs import GUARD, held_out, losses, make_trainer, near_answer, same_weights, weights

from passk_guard import PassKGuardWarning
from passk_guard.integrations import transformers as for_transformers
from passk_guard.integrations import trl as for_trl
from passk_guard.integrations._trackers import mlflow_keys
from passk_guard.reporting.report import Report
from passk_guard.reporting.scalars import scalars

STORES = {"wandb": Wandb, "trackio": Trackio, "mlflow": MLflow}
ALARM = {"floor": 0.99, "action": lambda probe, guard: None}  # at the first probe, and quietly
GROUPED = {"group_by": "kind"}
ODD = {"passk_guard/nan": math.nan, "passk_guard/infinite": -math.inf, "passk_guard/half": 0.5}
GROUPS = ["easy", "C++", "", "x/../y, z"]
SPELT = {"easy": "easy", "C++": "C__", "": "", "x/../y, z": "x_.._y_ z"}  # for MLflow


@pytest.fixture(autouse=True, scope="module")
def calls():
    """Whoever asks for the network: a proxy that W&B's own process would go through, too."""
    found = []

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self):
            found.append(self.request.recv(200))

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = f"http://127.0.0.1:{server.server_address[1]}"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.setenv(name, proxy)
            patch.setenv(name.lower(), proxy)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield found
    server.shutdown()
    server.server_close()


def rows():
    labels = [GROUPS[i % len(GROUPS)] for i in range(128)]
    return held_out().add_column("kind", labels)


def grpo(folder, **config):
    return make_trainer(folder, dropout=0.1, **config)


def plain_trainer(folder, **config):
    settings = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "logging_steps": 1}
    config = {"steps": 4, "disable_tqdm": True, **settings, **config}
    trainer = own_loss.make_trainer(model(), str(folder), **config)
    trainer.verify = near_answer
    return trainer


TRAINERS = {
    "trl": (grpo, for_trl.PassKGuardCallback, {}),
    "transformers": (plain_trainer, for_transformers.PassKGuardCallback, own_loss_settings()),
}
# Both trainers send by the same adapter: one tracker tells of the second.
PAIRS = [("trl", "wandb"), ("trl", "trackio"), ("trl", "mlflow"), ("transformers", "wandb")]


class Odd(TrainerCallback):
    """Sends a look at step 1 whose numbers are none."""

    def __init__(self, callback):
        self._callback = callback

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self._callback._adapter.send(Report(1, ODD, {}, {}, {}, None))


def run(folder, tracker, kind="trl", guarded=True, **more):
    """Train for four steps; gives trainer, guard callback and what the tracker kept."""
    folder.mkdir()
    make, callback_class, settings = TRAINERS[kind]
    callback = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", f"file://{folder / 'mlruns'}")
        trainer = make(folder, report_to=[tracker], project=project(folder))
        if guarded:
            callback = callback_class(
                trainer, prompts=rows(), **GUARD, **settings, **ALARM, **GROUPED, **more
            )
            trainer.add_callback(callback)
            trainer.add_callback(Odd(callback))
        trainer.train()
        finish()
    return trainer, callback, STORES[tracker](folder)


def finish():
    """W&B keeps the first run's settings, MLflow its store, until they are told to let go."""
    wandb.finish()
    wandb.teardown()
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """One run of each kind with an alarm at its first probe; prompts in its text with TRL."""

    @functools.cache
    def record(kind, tracker):
        folder = tmp_path_factory.mktemp("recorded") / "run"
        return run(folder, tracker, kind, log_prompts=kind == "trl")

    return record


def of_history(history, prefix="", spell=lambda key: key):
    """What the guard should have logged, by key."""
    found = {}
    for probe in history:
        for key, value in scalars(probe).items():
            found.setdefault(prefix + spell(key), []).append((probe.step, value))
    return found


def spelt(key):
    """A key as MLflow has it, without what tells odd labels from their like."""
    head, name, *label = key.split("/", 2)
    return f"{head}/{name}.{SPELT[label[0]]}" if label else key


def untold(series):
    """The same of keys that were read back."""
    odd = {f".{SPELT[label]}-": f".{SPELT[label]}" for label in GROUPS}
    return {
        next((key[: key.index(o)] + odd[o] for o in odd if o != ".-" and o in key), key): values
        for key, values in series.items()
    }


@pytest.mark.parametrize(("kind", "tracker"), PAIRS)
def test_every_scalar_arrives_at_the_step_of_its_probe(recorded, calls, kind, tracker):
    """Beside the loss of the same step, which is not lost."""
    _, callback, store = recorded(kind, tracker)
    series, prefix = store.series(), store.prefix
    wanted = of_history(callback.guard.history, prefix, spelt if tracker == "mlflow" else str)
    assert [step for step, _ in wanted[f"{prefix}passk_guard/track"]] == [0, 2, 4]
    assert len([key for key in wanted if key.startswith(f"{prefix}passk_guard/track")]) == 7
    found = untold(series) if tracker == "mlflow" else series
    assert {key: found.get(key) for key in wanted} == wanted
    assert [step for step, _ in series[f"{prefix}passk_guard/overhead"]] == [0, 2, 4]
    assert [step for step, _ in series[f"{prefix}loss"]] == [1, 2, 3, 4]
    assert calls == []


@pytest.mark.parametrize(("kind", "tracker"), PAIRS)
def test_numbers_that_are_not_finite_cost_no_others(recorded, kind, tracker):
    _, _, store = recorded(kind, tracker)
    found = store.series()
    for key, value in ODD.items():
        assert repr(found[f"{store.prefix}{key}"]) == repr([(1, value)])


@pytest.mark.parametrize(("kind", "tracker"), [pair for pair in PAIRS if pair[1] != "mlflow"])
def test_an_alarm_becomes_one_alert_and_its_pictures_are_there(recorded, kind, tracker):
    _, callback, store = recorded(kind, tracker)
    alarm = callback.guard.history[0].alarm
    assert store.alerts() == [("pass@1 is at risk", alarm.message, "warn")]
    prompt = callback.guard.pool.rows[alarm.prompts[0]]["prompt"]
    assert (prompt in store.alerts()[0][1]) == (kind == "trl")
    assert store.images("passk_guard/alignment_curve") == [0, 2, 4]
    assert store.images("passk_guard/interference") == [0]
    assert store.images("passk_guard/agreement") == [0]


@pytest.mark.parametrize(("kind", "tracker"), PAIRS)
def test_the_rest_of_what_a_tracker_keeps_is_as_without_the_guard(
    recorded, tmp_path, kind, tracker
):
    """Weights, losses, and what TRL itself writes to trackers from within its methods."""
    guarded, _, after = recorded(kind, tracker)
    alone, _, before = run(tmp_path / "alone", tracker, kind, guarded=False)
    assert same_weights(weights(alone), weights(guarded))
    assert losses(alone) == losses(guarded)
    before, after = before.series(), after.series()
    assert {key for key in after if "passk_guard/" not in key} == set(before)
    assert before[f"{STORES[tracker].prefix}loss"] == after[f"{STORES[tracker].prefix}loss"]
    timed = [key for key in before if "profiling/" in key]
    assert len(timed) == (6 if kind == "trl" else 0)
    for key in timed:
        assert [step for step, _ in before[key]] == [step for step, _ in after[key]], key


class Down:
    """Its server is down."""

    def __init__(self, *args, **kwargs):
        raise ConnectionError("no route to host")


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(
    ("tracker", "api", "alerts"), [("wandb", wandb, wandb.Run), ("trackio", trackio, trackio)]
)
def test_alerts_and_pictures_that_fail_cost_one_warning_and_no_scalar(
    tmp_path, monkeypatch, tracker, api, alerts
):
    monkeypatch.setattr(alerts, "alert", Down)
    monkeypatch.setattr(api, "Image", Down)
    with pytest.warns(PassKGuardWarning) as caught:
        _, callback, store = run(tmp_path / "run", tracker)
    failed = [w for w in caught if "a reporter failed" in str(w.message)]
    assert len(failed) == 1
    assert "ConnectionError: no route to host" in str(failed[0].message)
    steps = [step for step, _ in store.series()["train/passk_guard/track"]]
    assert steps == [probe.step for probe in callback.guard.history] == [0, 2, 4]
    assert store.alerts() == store.images("passk_guard/alignment_curve") == []


def test_lightning_loggers_get_the_same(tmp_path, monkeypatch, calls):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    loggers = [
        WandbLogger(save_dir=tmp_path, offline=True),
        MLFlowLogger(tracking_uri=f"file://{tmp_path / 'mlruns'}"),
        CSVLogger(tmp_path),
    ]
    callback = guard(prompts=rows(), **GROUPED, **ALARM)
    fit(tmp_path, Automatic(), callback, logger=loggers)
    finish()
    history = callback.guard.history
    assert [probe.step for probe in history] == [0, 2, 4]
    kept = Wandb(tmp_path, "trainer/global_step")
    for found, spell in ((kept.series(), str), (untold(MLflow(tmp_path).series()), spelt)):
        wanted = of_history(history, spell=spell)
        assert {key: found.get(key) for key in wanted} == wanted
    assert kept.alerts() == [("pass@1 is at risk", history[0].alarm.message, "warn")]
    assert kept.images("passk_guard/alignment_curve") == [0, 2, 4]
    with open(f"{loggers[2].log_dir}/metrics.csv") as file:
        table = [row for row in csv.DictReader(file) if row["passk_guard/track"]]
    wanted = of_history(history)
    columns = {
        key: [(int(row["step"]), float(row[key])) for row in table if row[key]] for key in wanted
    }
    assert columns == wanted
    assert calls == []


def test_no_two_groups_share_a_key_of_mlflow():
    labels = [
        "a",
        "a/b",
        "a_b",
        "a b",
        "a+b",
        "a*b",
        "",
        ".",
        "..",
        "数学",
        "物理",
        "low",
        "x" * 300,
    ]
    values = {f"passk_guard/track/{label}": float(i) for i, label in enumerate(labels)}
    values |= {"passk_guard/track": -1.0, "passk_guard/track_low": -2.0}
    found = mlflow_keys(values)
    assert list(found.values()) == list(values.values())
    for key in found:
        mlflow.utils.validation._validate_metric_name(key)
