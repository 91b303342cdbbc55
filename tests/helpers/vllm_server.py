"""The part of ``vllm serve`` that TRL speaks to, in a thread: a small model behind HTTP.

It samples by its own generator, which nobody can rewind, from weights that TRL sends it. Only their
way differs: TRL's goes through NCCL, which needs a GPU.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
import trl.generation.vllm_client as client_module

# What plain sampling looks like in a request; anything else a request says is not understood here.
PLAIN = {"repetition_penalty": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}


class Server:
    """A server that answers until it is told to hang or to fail.

    Args:
        model: whose configuration it has; its weights come from the trainer.
        logprobs_mode: of its log-probs; ``None``: it does not tell about itself.

    Attributes:
        requests: bodies of ``/v1/completions``.
        hang: where set, completions are not answered until it is cleared.
        broken: path that is answered by an error.
        updates: how often weights have arrived.
    """

    def __init__(self, model, logprobs_mode="processed_logprobs"):
        self.model, self.mode = model.eval(), logprobs_mode
        self.requests, self.updates = [], 0
        self.hang, self.broken = False, ""
        self._free, self._generator = threading.Event(), torch.Generator().manual_seed(0)
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.partition("?")[0]
                hidden = path == "/server_info" and server.mode is None
                self._answer({} if hidden else server.told(path), 404 if hidden else 200)

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if server.broken == self.path:
                    return self._answer({"error": "out of memory"}, 400)
                if self.path != "/v1/completions":
                    return self._answer({"success": True})
                if server.hang:
                    server._free.wait(600)
                    return None
                return self._answer({"choices": server.complete(json.loads(body))})

            def _answer(self, found, status=200):
                text = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def told(self, path):
        return {
            "/health": {},
            "/v1/models": {"data": [{"id": "tiny"}]},
            "/get_world_size": {"world_size": 1},
            "/server_info": {
                "vllm_config": {
                    "model_config": {"logprobs_mode": self.mode, "logits_processors": None},
                    "weight_transfer_config": {"backend": "nccl"},
                }
            },
        }[path]

    def load(self, named):
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weights in named:
                own[name].copy_(weights)
        self.updates += 1

    @torch.no_grad()
    def complete(self, body):
        self.requests.append(body)
        with self._lock:
            return [
                self._choice(prompt, body) for prompt in body["prompt"] for _ in range(body["n"])
            ]

    def _choice(self, prompt, body):
        tokens, log_probs = [], []
        while len(tokens) < body["max_tokens"]:
            logits = self.model(torch.tensor([prompt + tokens])).logits[0, -1].float()
            raw = logits.log_softmax(-1)
            scores = (logits / (body["temperature"] or 1e-5)).log_softmax(-1)
            if body["top_k"]:
                scores[scores < scores.topk(body["top_k"]).values[-1]] = -torch.inf
                scores = scores.log_softmax(-1)
            token = int(torch.multinomial(scores.exp(), 1, generator=self._generator))
            tokens.append(token)
            log_probs.append(float((raw if self.mode == "raw_logprobs" else scores)[token]))
            if token == self.model.config.eos_token_id:
                break
        names = [f"token_id:{token}" for token in tokens]
        told = {"tokens": names, "token_logprobs": log_probs, "top_logprobs": [None] * len(names)}
        return {"prompt_token_ids": prompt, "token_ids": tokens, "logprobs": told}

    def close(self):
        self._free.set()
        self._http.shutdown()
        self._http.server_close()


def without_nccl(patch, server):
    """Send weights to a server in this process by another way.

    Args:
        patch: pytest's ``monkeypatch``.
        server: takes them.
    """

    def send(iterator, **group):
        server.load(iterator)

    patch.setattr(client_module.VLLMClient, "init_communicator", lambda self, device=0: None)
    patch.setattr(client_module, "packed_nccl_broadcast_producer", send)
