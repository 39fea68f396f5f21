"""Where a command runs: threads, device, seeds, and ranks, the same script under torchrun.

Every rank holds the whole model and the whole batch, and computes the loss of its share of the
rows, divided by the count of the whole batch. So the gradients of all ranks add up to that of one
process. torch's DistributedDataParallel adds them while the backward pass of a batch's last
micro-batch is still running.
"""

import atexit
import contextlib
import os
import sys
import zlib

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from data.runtime import sandbox
from data.runtime.command import check_numbers


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items):
    """This rank's share of a list or range: every `ranks`-th; all of it in a single process."""
    return items[rank() :: ranks()]


def summing_hook(_, bucket):
    """How DistributedDataParallel reduces a bucket of gradients: to their sum, not the average."""
    reduced = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return reduced.then(lambda done: done.value()[0])


def parallel(network: nn.Module) -> nn.Module:
    """What the loss of a step calls: the network, or under torchrun its DistributedDataParallel."""
    if ranks() == 1:
        return network
    wrapped = DistributedDataParallel(network)
    # the tables of positions never change, and a rank with fewer micro-batches would not answer
    wrapped.broadcast_buffers = False
    wrapped.register_comm_hook(None, summing_hook)
    return wrapped


def micro_batches(batch: list, size: int, network: nn.Module, last: bool = True):
    """This rank's share of a batch, `size` items for each forward and backward of the network.

    Gradients are accumulated, and reduced over the ranks in the last one's backward pass; with
    last=False not yet, since other micro-batches must follow. A rank without a share gets an empty
    one, because all ranks must take part in the reduction. `network`: what `parallel` returns.
    """
    mine = share(batch)
    for i in range(0, max(1, len(mine)), size):
        if ranks() > 1:
            network.require_backward_grad_sync = last and i + size >= len(mine)
        yield mine[i : i + size]


def gathered(mine: dict) -> dict:
    """The dicts of all ranks as one, on every rank."""
    if ranks() == 1:
        return mine
    everyones = [None] * ranks()
    dist.all_gather_object(everyones, mine)
    return {key: value for one in everyones for key, value in one.items()}


@torch.no_grad()
def in_parts(function, *tensors: torch.Tensor, size: int) -> torch.Tensor:
    """function(*tensors), `size` rows at a time, each rank its share of them."""
    device = tensors[0].device
    results = {}
    for i in share(range(0, len(tensors[0]), size)):
        results[i] = function(*(tensor[i : i + size] for tensor in tensors))
    if ranks() > 1:
        results = gathered({i: result.cpu() for i, result in results.items()})
    return torch.cat([results[i].to(device) for i in sorted(results)])


def agreed(function):
    """What rank 0 computes, on every rank.

    For what may come out differently elsewhere, such as a program that runs against the clock.
    """
    return gathered({0: function()} if rank() == 0 else {})[0]


def summed(values: dict) -> dict:
    """Numbers of this rank's share, by name -> their sums over all ranks."""
    if ranks() == 1:
        return values
    total = torch.tensor(
        [float(value) for value in values.values()],
        dtype=torch.float64,
        device="cuda" if dist.get_backend() == "nccl" else "cpu",
    )
    dist.all_reduce(total)
    return dict(zip(values, total.tolist()))


def progress(steps, stage: str, unit: str = "step", delay: float = 0):
    """A progress bar with the time left, on rank 0's terminal, shown after `delay` seconds."""
    return tqdm(
        steps,
        desc=stage,
        unit=unit,
        ascii=True,
        leave=False,
        dynamic_ncols=True,
        disable=True if rank() else None,
        delay=delay,
    )


def pick_device(name: str) -> torch.device:
    """auto: CUDA where there is one, else the CPU; mps, slower for small models, on request."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no CUDA device; use --device cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError):
        raise ValueError(
            f"--device {name}: PyTorch has no such device here; use --device cpu"
        ) from None


def autocast(device: torch.device):
    """bfloat16 matrix products on CUDA; float32 everywhere else."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


def seed_of(*key) -> int:
    """A seed from the words and numbers that say what is drawn: seed_of(1, "overall_sft", 17)."""
    return zlib.crc32(" ".join(map(str, key)).encode())


def start(args) -> torch.device:
    """Threads, the sandbox's switch, the ranks and the device of a command.

    Raises ValueError for a number that makes no sense, or a device that is not there.
    """
    check_numbers(args)
    torch.set_num_threads(args.threads)
    if args.no_exec:
        sandbox.disable()
    together = int(os.environ.get("WORLD_SIZE", 1)) > 1  # torchrun has set it
    if together and torch.cuda.is_available() and args.device in ("auto", "cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    device = pick_device(args.device)
    if together and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
        if rank():
            sys.stdout = open(os.devnull, "w")  # rank 0 speaks for all
    return device
