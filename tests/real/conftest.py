"""The real pretrained model, read and saved once."""

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def folder(tmp_path_factory, worker_id):
    """A folder with SmolLM2-135M-Instruct, as people have it."""
    import smollm2

    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent  # the workers share it
    out = base / "SmolLM2-135M-Instruct"
    with FileLock(base / "reading"):
        if not out.exists():
            for part in smollm2.load():
                part.save_pretrained(out)
    return out
