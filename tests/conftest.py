"""What every test shares: no network, one thread, the tiny tokenizer and a small random model."""

import socket

import pytest
import torch

from data import world
from data.files import checkpoints
from data.files import tokenizer as tokenizers
from model import GPT, SIZES, Config

# the sums of a matrix product, and so a seed's samples, depend on the number of threads
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every attempt to reach another machine fails; sockets within this one (AF_UNIX) stay."""
    connect = socket.socket.connect

    def refuse(*args, **kwargs):
        raise AssertionError("a test tried to reach the network")

    def local_only(self, address):
        return (
            connect(self, address) if self.family == getattr(socket, "AF_UNIX", None) else refuse()
        )

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def tokenizer():
    return tokenizers.tiny()


@pytest.fixture(scope="session", autouse=True)
def teacher_file(tmp_path_factory, tokenizer):
    """A file as data/teacher.tiny.pt, with random weights, which stands in for it in every test."""
    path = tmp_path_factory.mktemp("given") / "teacher.tiny.pt"
    model = GPT(SIZES["tiny"]["teacher"]).init_weights(77).half()
    checkpoints.save_checkpoint(
        path, model, tokenizer, "overall_sft", world_version=world.WORLD_VERSION
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "TEACHER", path)
        yield path


@pytest.fixture
def tiny_model(tokenizer):
    """Two layers with random weights everywhere:
    what starts at zero would make attention and FFN do nothing."""
    model = GPT(Config(tokenizer.vocab_size, 128, 2, 32, 4, 2, 64, smear=3)).init_weights(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


class PlainDescent:
    """Stands in for Optimizers: p -= RATE * gradient,
    so that weights tell gradients apart and nothing is normalised away."""

    RATE = 0.01

    def __init__(self, model, adam_lr, muon_lr=None):
        self.model = model

    def step(self, scale):
        with torch.no_grad():
            for p in self.model.parameters():
                p -= self.RATE * p.grad
                p.grad = None
        return 0.0
