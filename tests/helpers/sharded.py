"""A model that is split over processes, as torch does it."""

import torch


def shard(model):
    """FSDP2: every parameter is split over the processes."""
    from torch.distributed.fsdp import fully_shard

    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    return model


def flat(model, keep=False):
    """FSDP1: the parameters of each layer are laid end to end, and split over the processes."""
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    layers = ModuleWrapPolicy({type(layer) for layer in model.model.layers})
    cpu = torch.device("cpu")
    return FullyShardedDataParallel(
        model, auto_wrap_policy=layers, device_id=cpu, use_orig_params=keep
    )
