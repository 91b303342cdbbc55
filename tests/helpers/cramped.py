"""A policy on a device with little memory: its passes raise what CUDA raises."""

import torch
from tiny import CausalLMPolicy


class Cramped:
    """Scores as ``of`` does (a language model, or a policy), up to ``most`` tokens at once.

    In the backward the error comes at the first layer, when all others have given their part.
    """

    def __init__(self, of, most, where="forward"):
        self._policy = of if hasattr(of, "log_probs") else CausalLMPolicy(of)
        self._most, self._where, self.refused = most, where, 0
        self._tokens, self._hook = 0, None

    def __enter__(self):
        if self._where == "backward":
            embedding = next(m for m in self.model.modules() if isinstance(m, torch.nn.Embedding))
            self._hook = embedding.register_forward_hook(self._watch)
        return self

    def __exit__(self, *error):
        if self._hook is not None:
            self._hook.remove()

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def _watch(self, layer, args, output):
        tokens = args[0].numel()
        if output.requires_grad:
            output.register_hook(lambda gradient: self._refuse(tokens))

    def _refuse(self, tokens):
        if tokens > self._most:
            self.refused += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def log_probs(self, *tokens):
        if self._where == "forward":
            self._refuse(tokens[0].numel())
        return self._policy.log_probs(*tokens)
