"""Validation dumps of verl, written by its trainers' own function.

    python make_verl.py FOLDER OUT

with verl, TransferQueue and what they import installed; FOLDER is what make_model.py wrote. The
rollouts are sampled here: verl would start Ray and a server for it. What is written, and how, is
verl's: ``_write_generations`` of both its trainers, the one that is called by default (step 40) and
the older one (step 20), with the columns that their ``_validate`` hands over.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

ROLLOUTS = 6


def main(out: Path) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained("model")
    model = AutoModelForCausalLM.from_pretrained("model")
    rows = [json.loads(line) for line in Path("questions.jsonl").read_text().splitlines()]
    asked = [row for row in rows for _ in range(ROLLOUTS)]
    ids = tokenizer([row["prompt"] for row in asked], return_tensors="pt")["input_ids"]
    whole = model.generate(ids, do_sample=True, max_new_tokens=2, pad_token_id=0)
    said = tokenizer.batch_decode(whole[:, ids.shape[1] :], skip_special_tokens=True)
    inputs = tokenizer.batch_decode(ids, skip_special_tokens=True)
    gts = [row["answer"] for row in asked]
    right = [one.split() == gt.split() for one, gt in zip(said, gts, strict=True)]
    scores = [1.0 if r else -1.0 for r in right]  # as the DAPO recipe has it

    extras = {"reward": scores, "acc": right, "pred": said}
    RayPPOTrainer._write_generations(inputs, said, gts, scores, extras, str(out), 20)

    # The newer trainer names each line: uid of the prompt, number of the rollout, number of the
    # output within it. An agent's rollout has several outputs, and all of them its last score: here
    # the last rollout of each prompt has two.
    lines = []
    for i, row in enumerate(asked):
        if i % ROLLOUTS == 0:
            uid = str(uuid.UUID(int=i + 1))
        line = inputs[i], said[i], row["answer"], scores[i], right[i]
        if i % ROLLOUTS == ROLLOUTS - 1:
            lines.append((*line, f"{uid}_{i % ROLLOUTS}_0"))
            line = (f"{inputs[i]} {said[i]}", *line[1:])
            lines.append((*line, f"{uid}_{i % ROLLOUTS}_1"))
        else:
            lines.append((*line, f"{uid}_{i % ROLLOUTS}_0"))
    inputs, said, gts, scores, right, keys = (list(column) for column in zip(*lines, strict=True))
    extras = {"reward": scores, "acc": right, "uid": keys}
    PPOTrainer._write_generations(inputs, said, gts, scores, extras, str(out), 40)


if __name__ == "__main__":
    target = Path(sys.argv[2]).resolve()
    os.chdir(sys.argv[1])
    main(target)
