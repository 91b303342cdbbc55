"""What W&B, trackio and MLflow have written offline, read back: every value and its step."""

from __future__ import annotations

import json
import struct
from collections import defaultdict

import mlflow
import trackio
from trackio.sqlite_storage import SQLiteStorage
from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, 7


def project(folder):
    """trackio keeps all projects in one folder."""
    return f"{folder.parent.name}-{folder.name}"


class Wandb:
    """The ``.wandb`` file of an offline run: what ``wandb sync`` would send."""

    prefix = "train/"

    def __init__(self, folder, clock="train/global_step"):
        (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        self._files, self._clock = path.parent / "files", clock
        self._records = list(_records(path.read_bytes()))

    def series(self):
        """By key, ``(step, value)`` in the order of writing."""
        found = defaultdict(list)
        for record in self._records:
            row = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            for key, value in row.items():
                found[key].append((row.get(self._clock), value))
        return dict(found)

    def images(self, name):
        """Steps at which an image is there."""
        found = self.series()
        single = found.get(f"{self.prefix}{name}/path", [])
        several = [(s, p) for s, ps in found.get(f"{name}/filenames", []) for p in ps]
        return [step for step, path in single + several if (self._files / path).stat().st_size]

    def alerts(self):
        """Title, text and level of each."""
        alerts = [r.alert for r in self._records if r.WhichOneof("record_type") == "alert"]
        return [(alert.title, alert.text, alert.level.lower()) for alert in alerts]


class Trackio:
    """The SQLite file of a local project."""

    prefix = "train/"

    def __init__(self, folder):
        self._project = project(folder)
        (self._run,) = trackio.Api().runs(self._project)

    def series(self):
        found = defaultdict(list)
        for row in SQLiteStorage.get_logs(self._project, self._run.name):
            for key, value in row.items():
                found[key].append((row.get("train/global_step"), value))
        return dict(found)

    def images(self, name):
        shown = self.series().get(f"{self.prefix}{name}", [])
        media = trackio.utils.MEDIA_DIR
        return [step for step, image in shown if (media / image["file_path"]).stat().st_size]

    def alerts(self):
        return [(alert["title"], alert["text"], alert["level"]) for alert in self._run.alerts()]


class MLflow:
    """A store of files."""

    prefix = ""

    def __init__(self, folder):
        client = mlflow.MlflowClient(f"file://{folder / 'mlruns'}")
        (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
        self._histories = {
            key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics
        }

    def series(self):
        return {
            key: [(metric.step, metric.value) for metric in history]
            for key, history in self._histories.items()
        }


def _records(data):
    """LevelDB's log format: blocks, in which a record may be cut into pieces."""
    at, record = _HEADER, b""
    while at + _HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        _, length, piece = struct.unpack("<IHB", data[at : at + _HEADER])
        record += data[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if piece in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""
