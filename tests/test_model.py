"""model.py: log-probabilities, attention, the cache,
sampling, tool calls, the optimizer and checkpoints."""

import argparse
import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from data import world
from data.files import tokenizer as tokenizers
from data.files.checkpoints import save_checkpoint
from data.runtime import decoding, devices
from data.runtime.decoding import Cache, ToolQueue, draw, generate, sampling_logits
from data.runtime.devices import seed_of
from data.runtime.rows import pad_rows
from model import (
    GPT,
    SIZES,
    Config,
    Optimizers,
    learning_rate_scale,
    load_checkpoint,
    parameter_count,
    placed,
    rotate,
    smeared,
    token_logprobs,
)
from model import generate as plain_generate


class Toy(nn.Module):
    """A stub whose logits do not depend on the ids:
    cos(a (t + 1) (v + 1)), the toy() of the test vectors."""

    def __init__(self, a=0.3, vocabulary=4):
        super().__init__()
        self.a, self.vocabulary = a, vocabulary

    def forward(self, ids, select=None, attend=None):
        t, v = torch.arange(1, ids.shape[1] + 1)[:, None], torch.arange(1, self.vocabulary + 1)
        logits = torch.cos(self.a * t * v).expand(len(ids), -1, -1)  # (N, S, V)
        return logits if select is None else logits[select]


class Scripted(nn.Module):
    """A stub that wants a given token at each position,
    whatever it reads; greedy generation follows the script."""

    compiled = False

    def __init__(self, prompt_length, script, vocabulary=768, context=128):
        super().__init__()
        self.config = Config(vocabulary, context, 1, 4, 1, 1, 4)
        self.embedding = nn.Embedding(1, 1)
        self.head = nn.Identity()
        self.wanted = torch.zeros(context, dtype=torch.long)
        self.wanted[prompt_length - 1 : prompt_length - 1 + len(script)] = torch.tensor(script)

    def hidden(self, ids, attend=None, cache=None):
        places = cache.length + torch.arange(ids.shape[1])
        cache.length += ids.shape[1]
        return 9.0 * F.one_hot(self.wanted[places], self.config.vocab_size).float().expand(
            len(ids), -1, -1
        )


def random_ids(length, seed=0, vocabulary=500):
    return torch.randint(
        0, vocabulary, (length,), generator=torch.Generator().manual_seed(seed)
    ).tolist()


def loose_end(model, tokenizer, end=4.0):
    """The model with an untied head that likes the end mark,
    never picks the pad mark, and so ends rows at different times."""
    head = nn.Linear(model.config.width, model.config.vocab_size)
    with torch.no_grad():
        head.weight.copy_(model.embedding.weight * 3)
        head.bias.zero_()
        head.bias[tokenizer.end_id], head.bias[tokenizer.pad_id] = end, -1e9
    model.head = head
    return model


def all_but_first(ids):
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 0] = False
    return mask


PROMPTS = [random_ids(length, seed=length) for length in (3, 9, 1, 14, 6, 9)]


# ---- log-probabilities ----


def test_token_logprobs_vector():
    ids = torch.tensor([[0, 1, 2, 3, 1]])
    logprobs = token_logprobs(Toy(), ids, all_but_first(ids))
    expected = torch.tensor([[0, -1.276458, -1.835535, -2.141342, -1.965396]])
    assert torch.allclose(logprobs, expected, atol=1e-5)


def test_token_logprobs_are_zero_outside_the_mask():
    ids = torch.tensor([[0, 1, 2, 3, 1], [3, 1, 2, 3, 1]])
    mask = torch.tensor([[False, False, True, False, True], [False, True, False, False, False]])
    expected = torch.tensor([[0, 0, -1.835535, 0, -1.965396], [0, -1.276458, 0, 0, 0]])
    assert torch.allclose(token_logprobs(Toy(), ids, mask), expected, atol=1e-5)


@pytest.mark.parametrize("temperature, expected", [(1.0, -0.407606), (0.7, -0.260118)])
def test_temperature_vector(temperature, expected):
    """z = (0, 1, 2), index 2."""

    def stub(ids, select, attend):
        return torch.tensor([[0.0, 1.0, 2.0]])

    logprob = token_logprobs(
        stub, torch.tensor([[0, 2]]), torch.tensor([[False, True]]), temperature
    )[0, 1]
    assert float(logprob) == pytest.approx(expected, abs=1e-5)


def test_extra_left_pads_change_no_logprob(tiny_model, tokenizer):
    ids = torch.tensor([random_ids(12)])
    mask = all_but_first(ids)
    plain = token_logprobs(tiny_model, ids, mask)
    for k in (1, 5, 40):
        padded = F.pad(ids, (k, 0), value=tokenizer.pad_id)
        attend = F.pad(torch.ones_like(mask), (k, 0))
        assert torch.allclose(
            token_logprobs(tiny_model, padded, F.pad(mask, (k, 0)), attend=attend)[:, k:],
            plain,
            atol=1e-5,
        )


def test_extra_right_pads_change_no_logprob(tiny_model, tokenizer):
    ids = torch.tensor([random_ids(12)])
    mask = all_but_first(ids)
    padded = token_logprobs(
        tiny_model, F.pad(ids, (0, 7), value=tokenizer.pad_id), F.pad(mask, (0, 7))
    )
    assert torch.allclose(padded[:, :12], token_logprobs(tiny_model, ids, mask), atol=1e-5)
    assert (padded[:, 12:] == 0).all()


def test_rows_of_a_padded_batch_are_those_of_each_row_alone(tiny_model, tokenizer):
    ids = pad_rows(PROMPTS, tokenizer.pad_id, left=True)
    attend = pad_rows([[True] * len(p) for p in PROMPTS], False, left=True)
    mask = pad_rows([[False] + [True] * (len(p) - 1) for p in PROMPTS], False, left=True)
    together = token_logprobs(tiny_model, ids, mask, attend=attend)
    for i, prompt in enumerate(PROMPTS):
        alone = token_logprobs(
            tiny_model, torch.tensor([prompt]), all_but_first(torch.tensor([prompt]))
        )[0]
        assert torch.allclose(together[i, ids.shape[1] - len(prompt) :], alone, atol=1e-5)


def test_a_batch_without_rows_has_no_logits_and_a_gradient_of_zero(tiny_model):
    """What a rank computes that has no share of the rows: it must take part in the reduction."""
    ids = torch.zeros(0, 5, dtype=torch.long)
    token_logprobs(tiny_model, ids, torch.zeros(0, 5, dtype=torch.bool)).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in tiny_model.parameters())


def test_selected_logits_are_those_of_the_whole(tiny_model):
    ids = torch.tensor([random_ids(8), random_ids(8, seed=1)])
    select = torch.rand(2, 8, generator=torch.Generator().manual_seed(0)) < 0.4
    assert torch.allclose(tiny_model(ids, select=select), tiny_model(ids)[select], atol=1e-6)


# ---- the transformer ----


def test_a_later_token_changes_nothing_before_it(tiny_model):
    ids = torch.tensor([random_ids(10)])
    changed = ids.clone()
    changed[0, 6] += 1
    before, after = tiny_model(ids), tiny_model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_rotary_turns_each_pair_by_its_angle():
    """At position 1 the first pair of a head of size
    4 is turned by 1 radian and the second by 1/100."""
    model = GPT(Config(8, 4, 1, 4, 1, 1, 4))
    cos, sin = model.cos[1:2], model.sin[1:2]
    assert torch.allclose(
        rotate(torch.tensor([[1.0, 0, 0, 0]]), cos, sin),
        torch.tensor([[math.cos(1), 0, math.sin(1), 0]]),
    )
    assert torch.allclose(
        rotate(torch.tensor([[0, 1.0, 0, 0]]), cos, sin),
        torch.tensor([[0, math.cos(0.01), 0, math.sin(0.01)]]),
    )


def test_rotary_scores_depend_on_the_distance_only(tiny_model):
    query, key = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))

    def turned(x, position):
        at = slice(position, position + 1)
        return rotate(x, tiny_model.cos[at], tiny_model.sin[at])

    def score(m, n):
        return float((turned(query, m) * turned(key, n)).sum())

    assert score(9, 5) == pytest.approx(score(104, 100), abs=1e-4)
    assert score(9, 5) != pytest.approx(score(9, 6), abs=1e-3)


def test_attention_is_the_written_out_formula(tiny_model):
    """softmax(q k / sqrt(d)) v with a causal mask,
    two query heads to one key head, QK-norm before the rotation."""
    attention, (N, S, d) = tiny_model.blocks[0].attention, (2, 5, 8)
    x = torch.randn(N, S, 32, generator=torch.Generator().manual_seed(0))
    cos, sin = tiny_model.cos[:S], tiny_model.sin[:S]
    parts = (x @ attention.qkv.weight.T).view(N, S, 8, d)  # four query, two key, two value heads

    def normed(h):
        return h / (h.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    mixed = torch.zeros(N, S, 4, d)
    for head in range(4):
        q, k = (rotate(normed(parts[:, :, i]), cos, sin) for i in (head, 4 + head // 2))
        scores = (q @ k.transpose(1, 2) / math.sqrt(d)).masked_fill(
            torch.ones(S, S).triu(1).bool(), -torch.inf
        )
        mixed[:, :, head] = scores.softmax(-1) @ parts[:, :, 6 + head // 2]
    expected = mixed.reshape(N, S, 32) @ attention.out.weight.T
    assert torch.allclose(attention(x, cos, sin, None, None, 0), expected, atol=1e-5)


def test_the_context_is_a_limit(tiny_model):
    tiny_model(torch.zeros(1, 128, dtype=torch.long))
    with pytest.raises(ValueError, match="129 tokens is longer than the context of 128"):
        tiny_model(torch.zeros(1, 129, dtype=torch.long))


def test_init_weights_depend_on_the_seed_alone_and_start_as_the_identity():
    config = Config(50, 16, 2, 16, 2, 1, 24)
    first, same, other = (GPT(config).init_weights(seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters()))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
    ids = torch.tensor([[3, 4, 5]])
    # nothing is written into the residual stream yet
    assert torch.allclose(first.hidden(ids), first.norm(first.embedding(ids)))


def test_the_sizes_fit_their_heads_and_a_teacher_is_larger():
    for pair in (SIZES["tiny"], SIZES["small"]):
        student, teacher = (parameter_count(GPT(pair[who])) for who in ("student", "teacher"))
        assert student < teacher
        for config in pair.values():
            assert config.heads % config.kv_heads == 0 and config.head_size % 2 == 0


# ---- generation ----

# ---- smear ----


def test_smear_adds_the_three_tokens_before_each_times_its_weight():
    weights = torch.tensor([[0.5], [0.25], [0.12]])
    row = torch.tensor([0.0, 0, 0, 1, 2, 3, 4])[None, :, None]
    assert smeared(row, weights).flatten().tolist() == pytest.approx([1, 2.5, 4.25, 6.12])


def first_embeddings(model, monkeypatch, *inputs, cache=None):
    """What enters the first block, in the first channel, (S,)."""
    seen = []
    monkeypatch.setattr(model.blocks[0], "forward", lambda x, *rest: seen.append(x) or x)
    model.hidden(*inputs, cache)
    return seen[-1][0, :, 0].tolist()


def test_a_padded_position_is_smeared_as_zero_and_a_cache_remembers_the_last_three(monkeypatch):
    """By hand: x = 1, 2, 3, 4 and weights 0.5, 0.25, 0.12;
    with position 0 padded it is 0, 2, 4, 6."""
    model = GPT(Config(5, 8, 1, 4, 1, 1, 4, smear=3))
    with torch.no_grad():
        model.embedding.weight.copy_(torch.arange(5.0)[:, None].expand(5, 4))
        model.smear.copy_(torch.tensor([0.5, 0.25, 0.12])[:, None].expand(3, 4))
    ids, attend = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[False, True, True, True]])
    assert first_embeddings(model, monkeypatch, ids, None) == pytest.approx([1, 2.5, 4.25, 6.12])
    assert first_embeddings(model, monkeypatch, ids, attend) == pytest.approx([0, 2, 4, 6])
    cache, found = Cache(model.config, 1, 8, "cpu", torch.float32), []
    for start, end in ((0, 2), (2, 3), (3, 4)):
        found += first_embeddings(
            model, monkeypatch, ids[:, start:end], attend[:, :end], cache=cache
        )
    assert found == pytest.approx([0, 2, 4, 6])


def test_smear_is_a_parameter_of_its_own_and_models_without_it_have_none():
    with_smear, without = (
        GPT(Config(5, 8, 1, 4, 1, 1, 4, smear=n)).init_weights(0) for n in (3, 0)
    )
    assert with_smear.smear.tolist() == [[0.5] * 4, [0.25] * 4, [0.125] * 4]
    assert "smear" not in without.state_dict()
    assert parameter_count(with_smear) == parameter_count(without) + 12


def test_greedy_ids_with_the_cache_are_those_without(tiny_model, tokenizer):
    """Ragged prompts, left-padded in one batch,
    against each prompt alone and read anew at each step."""
    samples = generate(tiny_model, tokenizer, PROMPTS, max_new=12, temperature=0)
    for prompt, tokens in zip(PROMPTS, samples.lists()):
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(tiny_model(torch.tensor([ids]))[0, -1].argmax()))
            if ids[-1] == tokenizer.end_id:
                break
        assert tokens == ids[len(prompt) :]


def test_greedy_is_the_same_whatever_the_batch(tiny_model, tokenizer):
    whole = generate(tiny_model, tokenizer, PROMPTS, max_new=10, temperature=0).lists()
    assert (
        generate(tiny_model, tokenizer, PROMPTS, max_new=10, temperature=0, rows=2).lists() == whole
    )
    assert (
        generate(tiny_model, tokenizer, PROMPTS[3:4], max_new=10, temperature=0).lists()
        == whole[3:4]
    )
    repeated = generate(tiny_model, tokenizer, PROMPTS, n=3, max_new=10, temperature=0).lists()
    assert repeated == [tokens for tokens in whole for _ in range(3)]  # prompt-major


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.7])
def test_the_plain_generate_and_the_fast_one_write_the_same(tiny_model, tokenizer, temperature):
    """Token for token, and the log-probabilities too:
    the cache, the padding and the rows that leave change nothing."""
    model = loose_end(tiny_model, tokenizer, end=4.0 if temperature else 2.5)
    # the fast one reads them in order of length
    prompts = sorted([*PROMPTS, *PROMPTS[:3]], key=len)
    how = {"max_new": 12, "temperature": temperature, "seed": 5}
    plain = plain_generate(model, tokenizer, prompts, **how)
    fast = generate(model, tokenizer, prompts, **how)
    assert [tokens for tokens, _ in plain] == fast.lists()
    for (_, logprobs), row, length in zip(plain, fast.logprobs, fast.lengths.tolist()):
        assert torch.allclose(torch.tensor(logprobs), row[:length], atol=1e-5)
    assert len({len(tokens) for tokens, _ in plain}) > 2
    other = plain_generate(model, tokenizer, prompts, **how | {"seed": 6})
    assert (other == plain) == (temperature == 0)


def test_samples_of_one_prompt_share_no_first_token(tiny_model, tokenizer):
    """With uniform logits over 768 tokens 16 samples have nearly 16 distinct first tokens."""
    tiny_model.embedding.weight.data.zero_()
    samples = generate(tiny_model, tokenizer, [[1, 2]], n=16, max_new=1)
    assert len(set(samples.tokens[:, 0].tolist())) > 12
    assert torch.allclose(samples.logprobs, torch.full((16, 1), -math.log(768)), atol=1e-5)


def test_the_same_seed_gives_the_same_samples_and_another_seed_others(tiny_model, tokenizer):
    first, same, other = (
        generate(tiny_model, tokenizer, PROMPTS, n=2, max_new=8, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(first.tokens, same.tokens) and torch.equal(first.logprobs, same.logprobs)
    assert not torch.equal(first.tokens, other.tokens)


def test_a_rows_samples_do_not_depend_on_when_others_finish(tiny_model, tokenizer):
    """Against a plain loop without cache in which no row
    is ever dropped, fed with the same uniform numbers."""
    model = loose_end(tiny_model, tokenizer)
    prompts = [prompt for prompt in PROMPTS if len(prompt) == 9] * 4
    samples = generate(model, tokenizer, prompts, n=2, max_new=12, seed=5)
    generator = torch.Generator().manual_seed(seed_of(5, 0))
    rows = torch.tensor([prompt for prompt in prompts for _ in range(2)])
    for _ in range(12):
        uniform = torch.rand(len(rows), generator=generator)
        rows = torch.cat(
            [
                rows,
                draw(
                    model(rows)[:, -1].softmax(1), uniform, torch.zeros(len(rows), dtype=torch.bool)
                )[:, None],
            ],
            dim=1,
        )
    lengths = set()
    for tokens, expected in zip(samples.lists(), rows[:, 9:].tolist()):
        over = [
            i
            for i, token in enumerate(expected)
            if token == tokenizer.end_id or token in tokenizer.runtime_ids
        ]
        assert tokens == expected[: over[0] + 1 if over else None]
        lengths.add(len(tokens))
    assert len(lengths) > 3  # they did finish at different times


def test_a_batchs_samples_do_not_depend_on_how_long_another_batch_took(tiny_model, tokenizer):
    model = loose_end(tiny_model, tokenizer)
    short, long = [prompt for prompt in PROMPTS if len(prompt) == 9], [[7] * 20, [8] * 20]
    late = [
        generate(
            model, tokenizer, first * 4 + long, n=2, max_new=12, seed=5, rows=2 * len(first * 4)
        ).lists()[-4:]
        for first in (short[:1], short[1:2] or short[:1])
    ]
    assert late[0] == late[1]


@pytest.mark.parametrize("how", [{}, {"temperature": 0.7}, {"temperature": 1.3, "rows": 5}])
def test_logprobs_are_those_of_the_same_rows_read_again(tiny_model, tokenizer, how):
    model = loose_end(tiny_model, tokenizer)
    samples = generate(model, tokenizer, PROMPTS, n=3, max_new=10, seed=1, **how)
    for i, (tokens, logprobs, own) in enumerate(zip(samples.tokens, samples.logprobs, samples.own)):
        length = int(own.sum())
        assert (
            own[:length].all()
            and (logprobs[length:] == 0).all()
            and (tokens[length:] == tokenizer.pad_id).all()
        )
        ids = torch.tensor([PROMPTS[i // 3] + tokens[:length].tolist()])
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[:, -length:] = True
        again = token_logprobs(model, ids, mask, how.get("temperature", 1.0))[0, -length:]
        assert torch.allclose(again, logprobs[:length], atol=1e-4)


def test_rows_stop_at_an_end_mark_or_a_header_and_only_there(tiny_model, tokenizer):
    samples = generate(loose_end(tiny_model, tokenizer), tokenizer, PROMPTS, n=6, max_new=9, seed=2)
    ended = 0
    for tokens, truncated in zip(samples.lists(), samples.truncated.tolist()):
        ends = {tokenizer.end_id, *tokenizer.runtime_ids}
        assert not ends & set(tokens[:-1])
        assert truncated == (tokens[-1] not in ends) and (not truncated or len(tokens) == 9)
        ended += not truncated
    assert 0 < ended < 36


def test_generation_ends_with_the_longest_row(tiny_model, tokenizer):
    samples = generate(loose_end(tiny_model, tokenizer, end=50.0), tokenizer, PROMPTS, max_new=9)
    assert (
        samples.tokens.tolist() == [[tokenizer.end_id]] * len(PROMPTS)
        and not samples.truncated.any()
    )


def test_generation_stops_where_the_context_does(tiny_model, tokenizer):
    samples = generate(
        loose_end(tiny_model, tokenizer, end=-50.0),
        tokenizer,
        [random_ids(120), random_ids(3)],
        max_new=64,
    )
    assert samples.tokens.shape == (2, 8) and samples.truncated.all()


def test_a_prompt_that_leaves_no_room_is_refused_in_one_line(tiny_model, tokenizer):
    for prompts in ([random_ids(3), random_ids(128)], []):
        with pytest.raises(ValueError) as caught:
            generate(tiny_model, tokenizer, prompts)
        assert "\n" not in str(caught.value)
    generate(tiny_model, tokenizer, [random_ids(127)], max_new=5)


def test_one_reading_of_a_prompt_serves_several_temperatures(tiny_model, tokenizer):
    model = loose_end(tiny_model, tokenizer)
    samples = generate(model, tokenizer, PROMPTS, n=2, temperature=[0.0, 1.0], max_new=6)
    greedy = generate(model, tokenizer, PROMPTS, temperature=0, max_new=6)
    assert samples.lists()[::2] == greedy.lists()
    assert samples.lists()[1::2] != greedy.lists()


def test_generation_leaves_the_models_mode_and_gradients_alone(tiny_model, tokenizer):
    tiny_model.train()
    generate(tiny_model, tokenizer, [[1, 2]], max_new=2)
    assert tiny_model.training
    assert all(p.grad is None and p.requires_grad for p in tiny_model.parameters())


# ---- drawing ----


def test_frequencies_match_the_softmax():
    """Each token's count is within four standard deviations of its binomial mean."""
    logits, count = torch.tensor([[0.0, 1.0, -1.0, 2.0, 0.5]]), 40000
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0))
    tokens = draw(
        logits.softmax(1).expand(count, -1), uniform, torch.zeros(count, dtype=torch.bool)
    )
    for token, p in enumerate(logits.softmax(1)[0].tolist()):
        assert abs(int((tokens == token).sum()) - count * p) < 4 * math.sqrt(count * p * (1 - p))


def test_drawing_is_the_inverse_of_the_distribution_function():
    """p = (.25, .5, .25): the steps are at .25 and .75."""
    probabilities = torch.tensor([0.25, 0.5, 0.25]).expand(5, -1)
    uniform = torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76])
    assert draw(probabilities, uniform, torch.zeros(5, dtype=torch.bool)).tolist() == [
        0,
        0,
        1,
        1,
        2,
    ]


def test_a_masked_token_is_never_drawn():
    """Not at either end of the uniform numbers that torch.rand can give, for many distributions."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 50, generator=generator) * 3
    allowed = torch.rand(2000, 50, generator=generator) < 0.3
    allowed[:, 20] = True
    logits = logits.masked_fill(~allowed, -torch.inf)
    for u in (0.0, 2**-24, 0.5, 1 - 2**-23, 1 - 2**-24):
        tokens = draw(
            logits.softmax(1), torch.full((2000,), u), torch.zeros(2000, dtype=torch.bool)
        )
        assert allowed.gather(1, tokens[:, None]).all()


def test_greedy_is_the_argmax_whatever_the_number():
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        draw(logits.softmax(1), torch.rand(20), torch.ones(20, dtype=torch.bool)), logits.argmax(1)
    )


LOGITS = torch.tensor([[0.1, 0.4, 0.05, 0.3, 0.15]]).log()


@pytest.mark.parametrize(
    "top_k, kept",
    [(0, [0, 1, 2, 3, 4]), (1, [1]), (2, [1, 3]), (3, [1, 3, 4]), (9, [0, 1, 2, 3, 4])],
)
def test_top_k_keeps_the_best(top_k, kept):
    logits = sampling_logits(LOGITS, torch.ones(1), top_k=top_k)
    assert logits[0].isfinite().nonzero()[:, 0].tolist() == kept


@pytest.mark.parametrize(
    "top_p, kept",
    [
        (0.35, [1]),
        (0.45, [1, 3]),
        (0.69, [1, 3]),
        (0.75, [1, 3, 4]),
        (0.9, [0, 1, 3, 4]),
        (1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_top_p_keeps_the_fewest_best_that_hold_the_mass(top_p, kept):
    """p = (.1, .4, .05, .3, .15): .4 + .3 = .7, + .15 = .85, + .1 = .95."""
    logits = sampling_logits(LOGITS, torch.ones(1), top_p=top_p)
    assert logits[0].isfinite().nonzero()[:, 0].tolist() == kept


def test_temperature_divides_the_logits_row_by_row_and_zero_keeps_them():
    logits = sampling_logits(LOGITS.expand(3, -1), torch.tensor([0.5, 1.0, 0.0]))
    assert torch.allclose(logits, torch.cat([LOGITS * 2, LOGITS, LOGITS]))


def test_logprobs_are_those_of_the_truncated_distribution(tiny_model, tokenizer):
    """With top_k = 1 the one token that is left has probability 1."""
    samples = generate(tiny_model, tokenizer, PROMPTS, max_new=4, top_k=1)
    assert torch.allclose(samples.logprobs, torch.zeros_like(samples.logprobs), atol=1e-6)


def test_cache_rows_can_be_dropped_repeated_and_reordered():
    cache = Cache(Config(8, 4, 2, 4, 1, 1, 4), 3, 4, "cpu", torch.float32)
    for layer in range(2):
        cache.append(
            layer, torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 4), torch.zeros(3, 1, 2, 4)
        )
    cache.advance(2)
    cache.select(torch.tensor([2, 0, 2, 2]))
    assert [float(keys[i, 0, 1, 3]) for keys in cache.keys for i in range(4)] == [2, 0, 2, 2] * 2


def test_prompts_of_unlike_length_are_read_apart_and_sampled_alike(tokenizer, monkeypatch):
    """Lengths 1, 1, 2 and 3, 6 and 9 are three groups."""
    config = Config(tokenizer.vocab_size, 64, 2, 32, 4, 2, 48, smear=3)
    model = GPT(config).init_weights(0).eval()
    for block in model.blocks:  # they start at zero, and attention would not count
        torch.nn.init.normal_(block.attention.out.weight)
    prompts = [random_ids(length, seed=length) for length in (9, 2, 6, 1, 3, 1)]
    assert [len(group) for group in decoding.alike(sorted(prompts, key=len))] == [6]
    whole = generate(model, tokenizer, prompts, n=2, max_new=12, seed=3)
    monkeypatch.setattr(decoding, "WORTH", 1)
    assert [len(group) for group in decoding.alike(sorted(prompts, key=len))] == [3, 2, 1]
    apart = generate(model, tokenizer, prompts, n=2, max_new=12, seed=3)
    assert apart.lists() == whole.lists()
    assert torch.allclose(apart.logprobs, whole.logprobs, atol=1e-5)


# ---- tool calls ----


def test_a_tool_call_is_run_in_the_middle_of_generation(tokenizer):
    """The call's end mark is followed by the result and a new header,
    which the model did not write, then it goes on."""
    call = [tokenizer.call_id, *tokenizer.encode("calc 2+3"), tokenizer.end_id]
    inserted = [tokenizer.result_id, *tokenizer.encode("5"), *tokenizer.headers["assistant"]]
    answer = [*tokenizer.encode("It is 5"), tokenizer.end_id]
    junk = [tokenizer.end_id] * len(inserted)  # what the model would have said there goes unheard
    prompt = tokenizer.prompt([{"role": "user", "content": "2+3?"}])
    called = []
    samples = generate(
        Scripted(len(prompt), call + junk + answer),
        tokenizer,
        [prompt],
        temperature=0,
        max_new=40,
        run_tool=lambda text: called.append(text) or "5",
    )
    assert called == ["calc 2+3"]
    assert samples.tokens[0].tolist() == call + inserted + answer
    assert samples.own[0].tolist() == [True] * len(call) + [False] * len(inserted) + [True] * len(
        answer
    )
    assert (samples.logprobs[0][~samples.own[0]] == 0).all()
    assert (samples.logprobs[0][samples.own[0]] < 0).all()
    assert not samples.truncated[0]
    assert tokenizer.read_reply(samples.lists()[0]) == tokenizers.Reply(
        "It is 5", "", [("calc 2+3", "5")]
    )


def test_a_generated_dialogue_is_the_rendered_one(tokenizer):
    """What generation writes around a call is, id for id, what SFT trains on."""
    messages = [
        {"role": "user", "content": "2+3?"},
        {"role": "assistant", "content": "", "tool_call": "calc 2+3"},
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "5"},
    ]
    prompt, (ids, mask) = tokenizer.prompt(messages[:1]), tokenizer.render(messages)
    samples = generate(
        Scripted(len(prompt), ids[len(prompt) :]),
        tokenizer,
        [prompt],
        temperature=0,
        max_new=40,
        run_tool=world.run_tool,
    )
    assert (
        samples.tokens[0].tolist() == ids[len(prompt) :]
        and samples.own[0].tolist() == mask[len(prompt) :]
    )


def test_without_tools_a_call_ends_the_reply(tokenizer):
    call = [tokenizer.call_id, *tokenizer.encode("calc 2+3"), tokenizer.end_id]
    samples = generate(
        Scripted(3, call + [5] * 20), tokenizer, [[1, 2, 3]], temperature=0, max_new=40
    )
    assert samples.tokens[0].tolist() == call


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refused(*args, **how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", refused)
    with pytest.raises(ValueError, match=r"x\.pt: cannot be read \(Permission denied\)"):
        load_checkpoint(tmp_path / "x.pt")


def test_a_row_that_is_cut_off_in_a_tool_result_is_truncated(tokenizer):
    call = [tokenizer.call_id, *tokenizer.encode("calc 2+3"), tokenizer.end_id]
    samples = generate(
        Scripted(3, call + [tokenizer.end_id] * 20),
        tokenizer,
        [[1, 2, 3]],
        temperature=0,
        max_new=len(call) + 1,
        run_tool=lambda text: "5",
    )
    assert samples.truncated[0] and samples.tokens[0].tolist() == [*call, tokenizer.result_id]


def test_a_model_that_calls_forever_is_cut_off_after_four_calls(tokenizer):
    queue, finished, calls = ToolQueue(tokenizer, lambda text: "5", 2), False, 0
    while not finished:
        for token in (tokenizer.call_id, 65, tokenizer.end_id):
            token, own, finished = queue.next(1, token)
            assert own
        while queue.forced[1]:
            token, own, _ = queue.next(1, 99)
            calls += token == tokenizer.result_id
            assert not own
    assert calls == ToolQueue.LIMIT == 4
    # rows do not share their calls
    assert queue.calls == [0, 4] and queue.next(0, 65) == (65, True, False)


def test_a_tool_result_that_the_model_wrote_itself_does_not_count(tokenizer):
    """`<|tool_call|>calc 11+12<|tool_result|>23<|assistant|>23<|end|>`
    in one breath never ran the calculator."""
    task = world.parse("Use the calculator: what is 11 + 12?")
    forged = [
        tokenizer.call_id,
        *tokenizer.encode("calc 11+12"),
        tokenizer.result_id,
        *tokenizer.encode("23"),
        *tokenizer.headers["assistant"],
        *tokenizer.encode("23"),
        tokenizer.end_id,
    ]
    heard = len([tokenizer.result_id, *tokenizer.encode("error"), *tokenizer.headers["assistant"]])
    prompt = tokenizer.prompt(task.messages)
    samples = generate(
        Scripted(len(prompt), forged + [0] * heard + [*tokenizer.encode("23"), tokenizer.end_id]),
        tokenizer,
        [prompt],
        temperature=0,
        max_new=60,
        run_tool=world.run_tool,
    )
    assert world.score_replies([task], [tokenizer.read_reply(samples.lists()[0])]) == [0.0]


# ---- the optimizer ----


def test_the_learning_rate_rises_stays_and_falls():
    scales = [learning_rate_scale(step, 100, warmup=9, constant=0.5) for step in range(100)]
    assert scales[:9] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert scales[9:51] == [1.0] * 42
    assert scales[51:] == pytest.approx([k / 50 for k in range(49, 0, -1)])


def test_the_first_learning_rate_is_above_the_last():
    for steps in (4, 10, 100):
        assert learning_rate_scale(0, steps) == 1.0 > learning_rate_scale(steps - 1, steps) > 0


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("muon_lr", [None, 0.02])
def test_every_parameter_is_in_exactly_one_optimizer(tied, muon_lr):
    model = GPT(Config(50, 16, 2, 16, 2, 1, 24, tied=tied)).init_weights(0)
    optimizers = Optimizers(model, 0.01, muon_lr)
    held = [
        id(p)
        for part in optimizers.optimizers
        for group in part.param_groups
        for p in group["params"]
    ]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert sorted(map(id, optimizers.parameters)) == sorted(held)
    blocks = {id(p) for block in model.blocks for p in block.parameters() if p.dim() == 2}
    if muon_lr is None:
        assert len(optimizers.optimizers) == 1
        assert isinstance(optimizers.optimizers[0], torch.optim.AdamW)
    else:
        assert {
            id(p) for group in optimizers.optimizers[1].param_groups for p in group["params"]
        } == blocks
        assert len(blocks) == 8


def test_a_parameter_with_a_learning_rate_of_its_own_moves_by_it(tiny_model):
    """The first step of Adam moves a weight by its learning rate:
    0.3 times the scale here, 0.01 times it elsewhere."""
    before = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    optimizers = Optimizers(tiny_model, 0.01, own_lr={"norm.weight": 0.3})
    (tiny_model.norm.weight.sum() + tiny_model.embedding.weight.sum()).backward()
    optimizers.step(0.5)
    moved = {
        name: float((p.detach() - before[name]).mean()) for name, p in tiny_model.named_parameters()
    }
    assert moved["norm.weight"] == pytest.approx(-0.15, abs=1e-6)
    assert moved["embedding.weight"] == pytest.approx(-0.005, abs=1e-6)
    held = [
        id(p)
        for part in optimizers.optimizers
        for group in part.param_groups
        for p in group["params"]
    ]
    assert sorted(held) == sorted(id(p) for p in tiny_model.parameters())


def test_a_step_of_adamw_is_the_learning_rate_in_the_gradients_direction(tiny_model):
    """The first step of Adam moves each weight by lr,
    against the sign of its gradient; scale multiplies it."""
    optimizers = Optimizers(tiny_model, 0.01)
    before = tiny_model.embedding.weight.detach().clone()
    (tiny_model.embedding.weight * torch.tensor([1.0, -1.0]).repeat(16)).sum().backward()
    norm = optimizers.step(0.5)
    moved = tiny_model.embedding.weight.detach() - before
    assert torch.allclose(
        moved, torch.tensor([-0.005, 0.005]).repeat(16).expand_as(moved), atol=1e-6
    )
    assert norm == pytest.approx(math.sqrt(768 * 32)) and tiny_model.embedding.weight.grad is None


def test_optimizer_state_comes_back(tiny_model):
    def steps(model, optimizers, count):
        for _ in range(count):
            token_logprobs(
                model, torch.tensor([[1, 2, 3, 4]]), torch.tensor([[False, True, True, True]])
            ).sum().backward()
            optimizers.step(1.0)

    first = Optimizers(tiny_model, 0.01, 0.02)
    steps(tiny_model, first, 2)
    other = GPT(tiny_model.config)
    other.load_state_dict(tiny_model.state_dict())
    second = Optimizers(other, 0.01, 0.02)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # as if from a file
    steps(tiny_model, first, 2), steps(other, second, 2)
    assert all(torch.equal(a, b) for a, b in zip(tiny_model.parameters(), other.parameters()))


# ---- checkpoints ----


def test_a_checkpoint_comes_back_exactly(tiny_model, tokenizer, tmp_path):
    save_checkpoint(tmp_path / "a.pt", tiny_model, tokenizer, "overall_sft", settings={"steps": 3})
    loaded, saved = load_checkpoint(tmp_path / "a.pt", tokenizer)
    assert (
        loaded.config == tiny_model.config
        and saved["stage"] == "overall_sft"
        and saved["settings"] == {"steps": 3}
    )
    assert all(
        torch.equal(loaded.state_dict()[name], value)
        for name, value in tiny_model.state_dict().items()
    )
    ids = torch.tensor([random_ids(9)])
    assert torch.equal(loaded(ids), tiny_model(ids))
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_is_saved_once_and_stays_tied(tokenizer, tmp_path, tied):
    model = GPT(Config(768, 16, 1, 16, 2, 1, 24, tied=tied)).init_weights(0)
    save_checkpoint(tmp_path / "a.pt", model, tokenizer, "x")
    assert ("head.weight" in torch.load(tmp_path / "a.pt", weights_only=True)["model"]) == (
        not tied
    )
    loaded, _ = load_checkpoint(tmp_path / "a.pt", tokenizer)
    assert (loaded.head.weight is loaded.embedding.weight) == tied
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_a_save_that_is_killed_leaves_the_old_checkpoint_whole(
    tiny_model, tokenizer, tmp_path, monkeypatch
):
    path = tmp_path / "a.pt"
    save_checkpoint(path, tiny_model, tokenizer, "first")

    def killed(content, file):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, tiny_model, tokenizer, "second")
    assert load_checkpoint(path, tokenizer)[1]["stage"] == "first"


def test_another_tokenizers_checkpoint_is_refused(tiny_model, tokenizer, tmp_path):
    save_checkpoint(
        tmp_path / "a.pt",
        tiny_model,
        SimpleNamespace(
            fingerprint="feedfacefeedface", source=None, default_system="", json_calls=False
        ),
        "x",
    )
    with pytest.raises(
        ValueError,
        match="a.pt: was trained with another tokenizer .feedfacefeedface, here "
        + tokenizer.fingerprint,
    ):
        load_checkpoint(tmp_path / "a.pt", tokenizer)
    load_checkpoint(tmp_path / "a.pt")  # without a tokenizer nobody asks


class Payload:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_file_that_is_no_checkpoint_is_refused_in_one_line_and_runs_no_code(
    tiny_model, tokenizer, tmp_path
):
    (tmp_path / "garbage.pt").write_bytes(b"not a checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"config": Payload(tmp_path / "ran"), "model": {}}, tmp_path / "payload.pt")
    save_checkpoint(tmp_path / "whole.pt", tiny_model, tokenizer, "x")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-3000])
    saved = torch.load(tmp_path / "whole.pt", weights_only=True)
    torch.save(saved | {"config": saved["config"] | {"width": 48}}, tmp_path / "shapes.pt")
    torch.save(saved | {"config": saved["config"] | {"layers": 3}}, tmp_path / "lacks.pt")
    torch.save(saved | {"config": saved["config"] | {"layers": 1}}, tmp_path / "more.pt")
    for name in (
        "garbage",
        "empty",
        "list",
        "payload",
        "cut",
        "shapes",
        "lacks",
        "more",
        "missing",
    ):
        with pytest.raises(ValueError) as caught:
            load_checkpoint(tmp_path / f"{name}.pt", tokenizer)
        assert str(caught.value).startswith(f"{tmp_path / name}.pt: ")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


# ---- seeds ----


def test_seeds_are_fixed_numbers_and_differ_by_every_word():
    assert seed_of("a", 1) == 1913543837  # the crc32 of "a 1"
    assert (
        len({seed_of(1, "x", 2), seed_of(1, "x", 3), seed_of(2, "x", 2), seed_of(1, "y", 2)}) == 4
    )


def test_an_unknown_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda"):
        devices.pick_device("cuda")
    assert devices.pick_device("auto") == torch.device("cpu")


def test_untied_and_unnormed_models_generate_too(tokenizer):
    config = replace(Config(768, 64, 2, 32, 4, 1, 48), qk_norm=False, tied=False, head_dim=16)
    model = GPT(config).init_weights(0)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out.weight.normal_(generator=torch.Generator().manual_seed(1))
    tokens = generate(model, tokenizer, PROMPTS, max_new=5, temperature=0).lists()
    for prompt, row in zip(PROMPTS, tokens):
        assert row[0] == int(model(torch.tensor([prompt]))[0, -1].argmax())


def test_activations_that_are_computed_again_give_the_same_gradients(tiny_model):
    ids = torch.randint(512, (3, 20), generator=torch.Generator().manual_seed(0))
    gradients = []
    for recompute in (False, True):
        tiny_model.recompute = recompute
        tiny_model.zero_grad()
        token_logprobs(tiny_model, ids, torch.arange(20).expand(3, 20) > 5).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in tiny_model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def sampled_by(model, tokenizer):
    prompts = [tokenizer.encode(text) for text in ("one", "a longer prompt than that", "two words")]
    samples = generate(model, tokenizer, prompts, n=2, max_new=12, temperature=[0.0, 1.0], seed=5)
    return samples.lists(), samples.logprobs


def test_the_step_of_fixed_shapes_samples_what_the_growing_cache_does(
    tiny_model, tokenizer, monkeypatch
):
    plain, logprobs = sampled_by(tiny_model, tokenizer)
    # as it is, without a compiler
    monkeypatch.setattr(decoding, "compiled_step", lambda: decoding.step)
    tiny_model.compiled = True
    fixed, again = sampled_by(tiny_model, tokenizer)
    assert fixed == plain and torch.allclose(logprobs, again, atol=1e-5)


def test_the_cache_of_fixed_shapes_is_used_again_and_what_an_earlier_batch_left_changes_nothing(
    tiny_model, tokenizer, monkeypatch
):
    """A CUDA graph is bound to addresses; PyTorch refuses to make
    one of a step that writes into inputs not marked as fixed."""
    prompts = [
        [tokenizer.encode("a first, longer batch"), tokenizer.encode("of two")],
        [tokenizer.encode("then"), tokenizer.encode("one")],
    ]
    plain = [generate(tiny_model, tokenizer, batch, max_new=9, seed=2).lists() for batch in prompts]
    places, broken = [], copy.deepcopy(tiny_model)
    monkeypatch.setattr(
        decoding,
        "compiled_step",
        lambda: (
            lambda model, token, attend, cache: (
                places.append(cache) or decoding.step(model, token, attend, cache)
            )
        ),
    )
    tiny_model.compiled = True
    with torch.no_grad():
        broken.norm.weight.fill_(math.nan), broken.blocks[0].attention.qkv.weight.fill_(math.nan)
    broken.compiled = True
    for batch, expected in zip(prompts, plain):
        assert generate(tiny_model, tokenizer, batch, max_new=9, seed=2).lists() == expected
        generate(broken, tokenizer, batch, max_new=9)  # leaves nan behind
    assert len(set(map(id, places))) == 1 and places[0].keys[0].shape[2] == 128
    inputs = []
    step = torch.compile(
        decoding.step,
        backend=lambda graph, _: (
            inputs.extend(node.meta for node in graph.graph.nodes if node.op == "placeholder")
            or graph.forward
        ),
    )
    with torch.no_grad():
        step(
            tiny_model,
            torch.ones(2, dtype=torch.long),
            torch.ones(2, 128, dtype=torch.bool),
            places[0],
        )
    marked = [
        meta for meta in inputs if (meta.get("tensor_dict") or {}).get("_dynamo_static_input_type")
    ]
    assert len(inputs) - len(marked) == 2  # all but the token and the mask


def test_the_step_of_fixed_shapes_reads_no_memory_that_nothing_wrote_and_casts_to_the_cache(
    tiny_model, tokenizer, monkeypatch
):
    """Columns still to come are weighed with 0, and 0 * nan is nan;
    under autocast keys are float32 and the cache is not."""
    monkeypatch.setattr(decoding, "compiled_step", lambda: decoding.step)
    monkeypatch.setattr(
        torch,
        "empty",
        lambda *shape, **how: torch.full(
            shape[0] if isinstance(shape[0], tuple) else shape, math.nan, **how
        ),
    )
    tiny_model.compiled = True
    assert sampled_by(tiny_model, tokenizer)[1].isfinite().all()
    cache = Cache(tiny_model.config, 2, 4, "cpu", torch.bfloat16)
    cache.place = torch.tensor([0])
    keys, values = cache.append(0, torch.ones(2, 2, 1, 8), torch.ones(2, 2, 1, 8))
    assert (
        keys.dtype == torch.bfloat16 and keys[:, :, 0].eq(1).all() and values[:, :, 1:].eq(0).all()
    )


def test_no_token_is_sampled_that_the_tokenizer_does_not_know(tokenizer):
    """Some checkpoints have more rows in the embedding than their tokenizer has tokens."""
    model = GPT(Config(tokenizer.vocab_size + 64, 64, 1, 32, 4, 2, 48, tied=False)).init_weights(0)
    with torch.no_grad():
        model.head.weight[tokenizer.vocab_size :] += 10
    for temperature in (0.0, 1.0):
        samples = generate(model, tokenizer, [[1, 2, 3]] * 4, max_new=8, temperature=temperature)
        assert int(samples.tokens.max()) < tokenizer.vocab_size


@pytest.mark.slow
def test_a_compiled_model_has_the_same_losses_and_samples(tiny_model, tokenizer):
    """Where a C++ compiler stands ready."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU, and there is none")
    ids = torch.randint(512, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(20).expand(3, 20) > 5
    plain, (said, _) = token_logprobs(tiny_model, ids, mask), sampled_by(tiny_model, tokenizer)
    placed(tiny_model, argparse.Namespace(recompute=False, compile=True), torch.device("cpu"))
    assert torch.allclose(token_logprobs(tiny_model, ids, mask), plain, atol=1e-5)
    assert sampled_by(tiny_model, tokenizer)[0] == said
