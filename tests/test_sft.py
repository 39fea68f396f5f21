"""sft.py: the masked cross-entropy, the rows and their order, the loop, and what bad files get."""

import csv
import json
import math
import random
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import PlainDescent
from torch import nn

import sft
from data import world
from data.files import tokenizer as tokenizers
from data.files.checkpoints import load_middle, save_middle
from data.files.writing import write_csv
from data.runtime.rows import (
    batches_of,
    dialogue_rows,
    document_rows,
    in_rows,
    interleave,
    pad_rows,
    ranking_rows,
    repeated,
    split,
    supervised_count,
)
from model import GPT, Config, learning_rate_scale, load_checkpoint, parameter_count
from sft import (
    SCHEDULES,
    Settings,
    batch_loss,
    held_out_loss,
    masked_cross_entropy,
    overall_rows,
    supervised_positions,
    train,
)

ROOT = Path(__file__).parents[1]
IDS = torch.tensor([[0, 1, 2, 3, 1]])
# section 1's m = [0, 1, 1, 1] is of the four predicted tokens
MASK = torch.tensor([[False, False, True, True, True]])
CPU = torch.device("cpu")


def toy(a=0.3, T=5, V=4):
    return torch.cos(a * torch.arange(1, T + 1)[:, None] * torch.arange(1, V + 1))  # (T, V)


def loss_of(logits, ids, mask):
    """The loss of a batch with given logits (N, S, V), through the one shift of the project."""
    select, targets = supervised_positions(ids, mask)
    return masked_cross_entropy(logits[select], targets, len(targets))


def some_rows(tokenizer, count, seed=0):
    """Dialogues of random digits, of unequal length."""
    rng = random.Random(seed)
    return [
        tokenizer.render(
            [
                {"role": "user", "content": "9" * rng.randint(1, 12)},
                {"role": "assistant", "content": "7" * rng.randint(1, 9)},
            ]
        )
        for _ in range(count)
    ]


def weights_of(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


class Descent(PlainDescent):
    RATE = 0.1


class Uniform(nn.Module):
    """A stub with one weight, whose logits are all alike whatever it reads."""

    def __init__(self, vocabulary):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, ids, select=None, attend=None):
        return self.weight.expand(int(select.sum()), -1)


# ---- the loss ----


def test_loss_and_gradient_vector():
    logits = toy()[None].requires_grad_()
    loss = loss_of(logits, IDS, MASK)
    loss.backward()
    assert loss.item() == pytest.approx(1.980758, abs=1e-5)
    assert (logits.grad[0, 0] == 0).all() and (logits.grad[0, 4] == 0).all()
    assert torch.allclose(
        logits.grad[0, 1], torch.tensor([0.152345, 0.095887, -0.280157, 0.031926]), atol=1e-5
    )


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary():
    loss = loss_of(torch.zeros(1, 5, 5), IDS, MASK)
    assert float(loss) == pytest.approx(1.609438, abs=1e-5) == math.log(5)


@pytest.mark.parametrize("micro_tokens, forwards", [(12, 4), (24, 2), (48, 1)])
def test_a_forward_of_training_takes_no_more_tokens_than_its_setting(
    tiny_model, tokenizer, monkeypatch, micro_tokens, forwards
):
    """Four rows of 12 tokens."""
    sizes = []

    def counted(model, tokenizer, rows, count, device):
        sizes.append(len(rows))
        return batch_loss(model, tokenizer, rows, count, device)

    monkeypatch.setattr(sft, "batch_loss", counted)
    rows = [([7 + k] * 12, [False] + [True] * 11) for k in range(4)]
    settings = Settings(1, rows=4, micro_tokens=micro_tokens)
    train(tiny_model, tokenizer, rows, settings, seed=1, stage="x")
    assert sizes == [4 // forwards] * forwards


def test_the_denominator_is_the_tokens_of_the_whole_batch():
    """Token costs [2] and [1, 1, 1]: the mean over tokens is 1.25;
    a mean of the rows' means would be 1.5."""

    def logits_of(costs):  # two classes, the target is class 0: -log p = cost
        return torch.tensor([[math.log(math.exp(-c)), math.log(1 - math.exp(-c))] for c in costs])

    parts = [
        masked_cross_entropy(logits_of(costs), torch.zeros(len(costs), dtype=torch.long), 4)
        for costs in ([2.0], [1.0, 1.0, 1.0])
    ]
    assert float(sum(parts)) == pytest.approx(1.25, abs=1e-6)


def test_a_position_predicts_the_next_token():
    select, targets = supervised_positions(IDS, MASK)
    assert select.tolist() == [[False, True, True, True, False]] and targets.tolist() == [2, 3, 1]


def test_the_first_token_is_never_a_target_even_when_it_is_supervised():
    select, targets = supervised_positions(IDS, torch.ones_like(MASK))
    assert select.tolist() == [[True, True, True, True, False]] and targets.tolist() == [1, 2, 3, 1]


def test_a_fully_masked_batch_costs_nothing_and_leaves_finite_gradients(tiny_model, tokenizer):
    loss = batch_loss(
        tiny_model, tokenizer, [([1, 2, 3], [False] * 3), ([4, 5], [False] * 2)], 0, CPU
    )
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in tiny_model.parameters())


def test_the_prompts_logits_get_no_gradient(tokenizer):
    """Exactly the positions before an answer's tokens have one:
    the header predicts 8, 8 predicts 5, 5 predicts the end mark."""
    ids, mask = tokenizer.render(
        [{"role": "user", "content": "What is 47 + 38?"}, {"role": "assistant", "content": "85"}]
    )
    logits = torch.zeros(1, len(ids), 768, requires_grad=True)
    loss_of(logits, torch.tensor([ids]), torch.tensor([mask])).backward()
    touched = logits.grad[0].abs().sum(1).nonzero()[:, 0].tolist()
    assert touched == [len(ids) - 4, len(ids) - 3, len(ids) - 2]
    assert [ids[t] for t in touched] == [tokenizer.headers["assistant"][0], *tokenizer.encode("85")]


def test_padding_changes_nothing(tiny_model, tokenizer):
    rows = some_rows(tokenizer, 6)
    count = supervised_count(rows)
    whole = batch_loss(tiny_model, tokenizer, rows, count, CPU)
    alone = sum(batch_loss(tiny_model, tokenizer, [row], count, CPU) for row in rows)
    assert whole.item() == pytest.approx(alone.item(), rel=1e-5)


def test_accumulation_is_the_large_batch(tiny_model, tokenizer, monkeypatch):
    """Weights after three plain steps are the same with one row a forward as with all eight."""
    monkeypatch.setattr(sft, "Optimizers", Descent)
    rows, start, ends = some_rows(tokenizer, 8), tiny_model.state_dict(), []
    start = {name: value.clone() for name, value in start.items()}
    for micro_tokens in (1, 60, 65536):
        tiny_model.load_state_dict(start)
        out = train(
            tiny_model,
            tokenizer,
            rows,
            Settings(3, rows=8, micro_tokens=micro_tokens),
            seed=1,
            stage="x",
        )
        ends.append((weights_of(tiny_model), out["loss"]))
    assert all(
        torch.allclose(weights, ends[-1][0], atol=1e-6)
        and loss == pytest.approx(ends[-1][1], rel=1e-6)
        for weights, loss in ends
    )
    assert (
        ends[0][0] - torch.cat([start[name].flatten() for name, _ in tiny_model.named_parameters()])
    ).abs().max() > 1e-3


@pytest.mark.parametrize("micro", [1, 3, 8])
def test_rehearsal_in_parts_is_rehearsal_in_one(tiny_model, tokenizer, monkeypatch, micro):
    rows, seen = some_rows(tokenizer, 8), []
    expected = torch.autograd.grad(
        0.5 * batch_loss(tiny_model, tokenizer, rows, supervised_count(rows), CPU),
        list(tiny_model.parameters()),
    )
    whole = sft.batch_loss
    monkeypatch.setattr(
        sft,
        "batch_loss",
        lambda model, tokenizer, part, *rest: (
            seen.append(len(part)) or whole(model, tokenizer, part, *rest)
        ),
    )
    sft.rehearse(tiny_model, tokenizer, rows, 0.5, CPU, micro)
    assert sum(seen) == 8 and max(seen) == micro
    assert all(
        torch.allclose(p.grad, gradient, atol=1e-6)
        for p, gradient in zip(tiny_model.parameters(), expected)
    )


def test_held_out_loss_is_the_mean_over_tokens_whatever_the_batches(tiny_model, tokenizer):
    rows = some_rows(tokenizer, 7)
    costs = [batch_loss(tiny_model, tokenizer, [row], 1, CPU).item() for row in rows]
    expected = sum(costs) / sum(sum(mask) for _, mask in rows)
    # one row, three and all of them in a forward
    for micro_tokens in (1, 3 * max(len(ids) for ids, _ in rows), 65536):
        assert held_out_loss(tiny_model, tokenizer, rows, CPU, micro_tokens) == pytest.approx(
            expected, rel=1e-5
        )
    assert held_out_loss(Uniform(768), tokenizer, rows, CPU) == pytest.approx(
        math.log(768), rel=1e-6
    )


# ---- rows and their order ----


def test_every_token_of_the_documents_is_predicted_once(tokenizer):
    texts = world.documents(1, 40)
    stream = [token for text in texts for token in tokenizer.document(text)]
    rows = document_rows(tokenizer, texts, 16)
    predicted = [token for ids, mask in rows for token in ids[1:]]
    # but for a last piece
    assert predicted == stream[: len(predicted)] and len(stream) - len(predicted) < 15
    assert all(len(ids) == 16 and all(mask) for ids, mask in rows)
    assert rows[0][0][0] == tokenizer.end_id
    assert all(before[0][-1] == after[0][0] for before, after in zip(rows, rows[1:]))
    assert supervised_count(rows) == len(predicted)


def test_dialogues_longer_than_the_context_are_left_out(tokenizer):
    records = [
        {"messages": [{"role": "user", "content": "9" * n}, {"role": "assistant", "content": "7"}]}
        for n in (5, 6, 7)
    ]
    rows, dropped = dialogue_rows(tokenizer, records, 10)
    assert [len(ids) for ids, _ in rows] == [9, 10]
    assert dropped == {"longer than the context of 10 tokens": 1}


def test_every_reason_to_leave_a_dialogue_out_is_counted_by_itself(tokenizer, monkeypatch):
    ask = {"role": "user", "content": "2"}
    call = {"role": "assistant", "content": "", "tool_call": "calc 2"}
    records = [
        {"messages": [ask, {"role": "assistant", "content": "7"}]},
        {
            "messages": [
                ask,
                call,
                {"role": "tool", "content": "2"},
                {"role": "assistant", "content": "2"},
            ]
        },
        {"messages": [ask, {"role": "assistant", "content": "7", "weight": 0}]},
        {"messages": [ask, {"role": "assistant", "content": "7" * 50}]},
    ]
    monkeypatch.setattr(tokenizer, "call_id", None)
    rows, dropped = dialogue_rows(tokenizer, records, 20)
    assert len(rows) == 1
    assert dropped == {
        "tool call, for which the tokenizer has no mark": 1,
        "no supervised token": 1,
        "longer than the context of 20 tokens": 1,
    }
    rankings = [
        {"prompt": record["messages"][:3], "responses": ["1", "2"]} for record in records[:2]
    ]
    kept, dropped = ranking_rows(tokenizer, rankings, 20)
    assert [record for record, _ in kept] == rankings[:1]
    assert dropped == {"tool call, for which the tokenizer has no mark": 1}


def test_a_split_keeps_the_records_of_a_prompt_together_and_holds_out_as_asked():
    prompts = [f"prompt {k}" for k in range(400) for _ in range(5)]
    kept, held = split("x", list(range(2000)), prompts, 10)
    assert not {prompts[k] for k in kept} & {prompts[k] for k in held}
    assert sorted(kept + held) == list(range(2000))
    assert 100 < len(held) < 300 and all(prompts.index(prompts[k]) in held for k in held)
    few = split("x", list(range(2000)), prompts, 20, most=30)[1]
    # what one in twenty holds out, one in ten does too
    assert len(few) == 30 and set(few) <= set(held)
    shuffled = list(enumerate(prompts))
    random.Random(0).shuffle(shuffled)
    assert sorted(
        split("x", [k for k, _ in shuffled], [text for _, text in shuffled], 10)[1]
    ) == sorted(held)
    assert [len(side) for side in split("x", [1, 2, 3], ["a", "b", "a"], 10)] in ([1, 2], [2, 1])
    with pytest.raises(ValueError, match="x: 1 different prompt is left; two are needed"):
        split("x", [1, 2], ["a", "a"], 10)


def test_own_rows_of_one_prompt_are_never_trained_on_and_held_out(
    tiny_model, tokenizer, monkeypatch
):
    rows = [
        tokenizer.render(
            [{"role": "user", "content": f"{k}?"}, {"role": "assistant", "content": str(n)}]
        )
        for n in range(5)
        for k in range(40)
    ]
    seen = {}

    def record(model, tokenizer, trained, settings, held_out, **how):
        seen.update(trained=trained, held=held_out)
        return {}

    monkeypatch.setattr(sft, "train", record)
    own = sft.sft_on_rows(tiny_model, tokenizer, rows, Settings(100, rows=4), seed=1, stage="sft")
    asked = [
        {tokenizer.decode(ids).split("?")[0] for ids, _ in seen[side]}
        for side in ("trained", "held")
    ]
    assert not asked[0] & asked[1] and len(asked[0] | asked[1]) == 40
    assert (
        own["held_out_rows"] == len(seen["held"]) == 5 * len(asked[1])
        and own["rows"] + own["held_out_rows"] == 200
    )


def test_repeated_gives_whole_passes():
    taken = repeated(list("abcd"), 10, random.Random(0))
    assert (
        sorted(taken[:4]) == sorted(taken[4:8]) == list("abcd")
        and len(set(taken[8:])) == 2
        and len(taken) == 10
    )
    assert repeated([], 5, random.Random(0)) == []


def test_interleave_keeps_the_order_within_each_part_and_spreads_it_evenly():
    parts = [[("a", i) for i in range(100)], [("b", i) for i in range(20)], []]
    mixed = interleave(parts, random.Random(0))
    assert [item for item in mixed if item[0] == "a"] == parts[0]
    assert [item for item in mixed if item[0] == "b"] == parts[1]
    assert all(
        4 <= sum(item[0] == "b" for item in mixed[i : i + 30]) <= 6 for i in range(0, 120, 30)
    )


def test_batches_keep_every_row_and_the_order_between_windows():
    rng = random.Random(0)
    # a row's first token is its place
    rows = [([i] * rng.randint(2, 30), [True]) for i in range(96)]
    batches = batches_of(rows, 4, random.Random(1), window=3)
    assert sorted(ids[0] for batch in batches for ids, _ in batch) == list(range(96))
    assert {len(batch) for batch in batches} == {4}
    for k in range(8):  # windows of 3 batches of 4 rows
        window = batches[3 * k : 3 * k + 3]
        assert sorted(ids[0] for batch in window for ids, _ in batch) == list(
            range(12 * k, 12 * k + 12)
        )
        spans = sorted(
            (min(len(ids) for ids, _ in batch), max(len(ids) for ids, _ in batch))
            for batch in window
        )
        # of like length
        assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:]))
    assert batches != sorted(batches, key=lambda batch: len(batch[0][0]))


def level_of(tokenizer, row):
    """The level of a rendered reasoning row, read back from its prompt."""
    text = tokenizer.encoding.decode(row[0])
    return world.parse(text[len("<|user|>") : text.index("<|assistant|>")]).level


SMALL = replace(
    SCHEDULES["tiny"]["student"],
    overall=Settings(10, rows=32),
    cold_start_demonstrations=40,
    demonstrations={"reasoning": 160, "chat": 30, "agent": 30, "judge": 20, "new_prompt": 10},
)


def test_the_curriculum_rises_from_level_two_to_five(tokenizer):
    only = replace(SMALL, shares={"reasoning": 100})
    rows, _ = overall_rows(tokenizer, only, 1, 256)
    levels = [level_of(tokenizer, row) for row in rows]
    assert levels == sorted(levels) and set(levels) == {2, 3, 4, 5} and len(levels) >= 320
    shuffled = [
        level_of(tokenizer, row)
        for row in overall_rows(tokenizer, only, 1, 256, curriculum=False)[0]
    ]
    assert sorted(shuffled) == levels and shuffled != levels


def test_the_curriculum_survives_mixing_and_batching(tokenizer):
    """Reasoning levels still rise from window to window of the batches; half of each is chat."""
    rows, _ = overall_rows(tokenizer, replace(SMALL, shares={"reasoning": 50, "chat": 50}), 1, 256)
    batches = batches_of(rows[:320], 32, random.Random(0), window=2)
    means, chats = [], []
    for start in range(0, 10, 2):  # within a window the batches are of short rows and of long ones
        window = sum(batches[start : start + 2], [])
        texts = [tokenizer.encoding.decode(row[0]) for row in window]
        tasks = [world.parse(text[len("<|user|>") : text.index("<|assistant|>")]) for text in texts]
        means.append(
            statistics.mean(task.level for task in tasks if task and task.domain in world.REASONING)
        )
        # the first turn of a dialogue is no prompt
        chats.append(sum(not task or task.domain == "chat" for task in tasks) / len(tasks))
    assert means == sorted(means) and means[0] < 2.7 < 4.3 < means[-1]
    assert all(0.45 < share < 0.55 for share in chats)


def test_the_rows_of_overall_sft_have_the_shares_of_the_schedule(tokenizer):
    rows, _ = overall_rows(tokenizer, SMALL, 1, 256)
    assert sum(SMALL.shares.values()) == 100 and len(rows) >= 320
    judged = sum("from 0 to 5" in tokenizer.decode(ids) for ids, _ in rows) / len(rows)
    called = sum(tokenizer.call_id in ids for ids, _ in rows) / len(rows)
    assert judged == pytest.approx(0.12, abs=0.015) and called == pytest.approx(0.14, abs=0.015)


def test_a_batch_given_in_tokens_has_as_many_rows_as_hold_them():
    rows = [([1] * length, [True] * length) for length in (10, 20, 30, 20)]  # 20 tokens a row
    assert (
        in_rows(Settings(1, rows=3), rows).rows == 3
        and in_rows(Settings(1, rows=9), rows).rows == 4
    )
    assert [
        in_rows(Settings(1, batch_tokens=tokens), rows).rows for tokens in (5, 40, 61, 1000)
    ] == [1, 2, 3, 4]
    assert in_rows(Settings(1, batch_tokens=60), rows, mean=30) == Settings(1, rows=2)
    with pytest.raises(ValueError, match="sft: train counts a batch in rows"):
        train(None, None, rows, Settings(1, batch_tokens=60), seed=1, stage="sft")


def test_a_stages_batches_hold_about_the_tokens_that_are_asked_for(tiny_model, tokenizer):
    schedule = replace(
        SMALL,
        overall=Settings(4, batch_tokens=1200, micro_tokens=500),
        cold_start=Settings(4, batch_tokens=1200, micro_tokens=500),
    )
    for stage in (sft.cold_start_sft, sft.overall_sft):
        own = stage(tiny_model, tokenizer, schedule, seed=1)
        assert own["tokens"] / 4 == pytest.approx(1200, rel=0.1)


def test_the_loss_of_a_text_is_counted_a_character_whatever_the_tokenizer(tmp_path):
    """A model without a clue: every token costs ln V,
    so a character costs (tokens / characters) ln V, here by hand."""
    text = "the cat sat on the mat; " * 400
    words = tokenizers.trained([text])
    model = GPT(Config(words.vocab_size, 64, 1, 32, 4, 2, 48, tied=False)).init_weights(0)
    with torch.no_grad():
        model.head.weight.zero_()
    assert words.vocab_size < 768  # few words: nothing is left to merge
    own = sft.pretrain_on_text(
        model,
        words,
        text,
        Settings(1, rows=2, muon_lr=0.0, adam_lr=0.0, warmup=0),
        seed=1,
        length=32,
    )
    validation = text[len(text) * 9 // 10 :]
    stream = [words.end_id, *words.document(validation)]
    rows = (len(stream) - 1) // 31
    told = words.decode(stream[1 : 1 + 31 * rows])
    assert own["losses_a_character"] == [
        pytest.approx(31 * rows / len(told) * math.log(words.vocab_size), rel=1e-4)
    ]


@pytest.mark.parametrize("length", [12, 13, 31])
def test_a_character_of_several_tokens_counts_once_wherever_rows_end(length):
    """A byte a token: the last tenth of 1,000 characters of three bytes, with its end mark,
    is 301 tokens. Rows predict 11 (27 rows of them make 297, 99 whole characters), 12 (25 rows,
    the whole text) and 30 tokens each (10 rows), so rows end within a character."""
    alone = tokenizers.from_ranks({bytes([i]): i for i in range(256)})
    model = GPT(Config(alone.vocab_size, 64, 1, 32, 4, 2, 48, tied=False)).init_weights(0)
    with torch.no_grad():
        model.head.weight.zero_()
    own = sft.pretrain_on_text(
        model,
        alone,
        "\u8a9e" * 1000,
        Settings(1, rows=2, muon_lr=0.0, adam_lr=0.0, warmup=0),
        seed=1,
        length=length,
    )
    tokens, characters = {12: (297, 99), 13: (300, 100), 31: (300, 100)}[length]
    assert own["losses_a_character"] == [
        pytest.approx(tokens / characters * math.log(alone.vocab_size), rel=1e-4)
    ]


def test_the_end_mark_of_a_text_is_none_of_its_characters():
    """900 and 99 letters and the end mark:
    ten rows predict ten tokens each, the last of which is the mark."""
    alone = tokenizers.from_ranks({bytes([i]): i for i in range(256)})
    model = GPT(Config(alone.vocab_size, 64, 1, 32, 4, 2, 48, tied=False)).init_weights(0)
    with torch.no_grad():
        model.head.weight.zero_()
    own = sft.pretrain_on_text(
        model,
        alone,
        "x" * 989,
        Settings(1, rows=2, muon_lr=0.0, adam_lr=0.0, warmup=0),
        seed=1,
        length=11,
    )
    assert own["losses_a_character"] == [
        pytest.approx(100 / 99 * math.log(alone.vocab_size), rel=1e-4)
    ]


def test_a_text_that_is_too_short_is_refused():
    words = tokenizers.trained(["the cat sat on the mat; " * 400])
    model = GPT(Config(words.vocab_size, 64, 1, 32, 4, 2, 48, tied=False)).init_weights(0)
    with pytest.raises(ValueError, match="too short"):
        sft.pretrain_on_text(model, words, "short", Settings(1), seed=1)


@pytest.mark.slow
def test_chat_prompts_are_one_turn_questions_of_the_training_part_and_none_twice():
    prompts = sft.chat_prompts("tiny", 3)
    assert len(set(prompts)) == len(prompts) > 200
    assert prompts == sft.chat_prompts("tiny", 3) != sft.chat_prompts("tiny", 4)
    for task in map(world.parse, prompts):
        assert (
            task.domain == "chat"
            and len(task.messages) == 1
            and task.phrasing < 4
            and world.part_of(task) == "train"
        )


def test_the_order_depends_on_the_seed_alone(tokenizer):
    assert (
        overall_rows(tokenizer, SMALL, 1, 256)
        == overall_rows(tokenizer, SMALL, 1, 256)
        != overall_rows(tokenizer, SMALL, 2, 256)
    )


# ---- the loop ----


def test_training_repeats_bit_for_bit_with_the_same_seed(tiny_model, tokenizer):
    rows = some_rows(tokenizer, 40)
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    ends = []
    for seed in (1, 1, 2):
        tiny_model.load_state_dict(start)
        torch.manual_seed(random.randrange(10**6))  # the global generator is nobody's business
        train(tiny_model, tokenizer, rows, Settings(4, rows=4), seed=seed, stage="x")
        ends.append(weights_of(tiny_model))
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_the_loss_falls(tiny_model, tokenizer, tmp_path):
    rows = some_rows(tokenizer, 16)
    out = train(
        tiny_model,
        tokenizer,
        rows,
        Settings(20, rows=8, warmup=2),
        seed=1,
        stage="x",
        held_out=rows,
        log=tmp_path / "x.csv",
    )
    with open(tmp_path / "x.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    losses = [float(line["loss"]) for line in lines]
    assert (
        len(losses) == 20
        and losses[-1] < 0.5 * losses[0]
        and out["held_out_loss"] < 0.5 * losses[0]
    )
    assert out["loss"] == pytest.approx(statistics.mean(losses))
    assert out["tokens"] == int(lines[-1]["tokens"])
    # 20 steps of 8 rows are 10 passes
    assert out["tokens"] == sum(len(ids) for ids, _ in rows) * 10
    assert not tiny_model.training
    assert [line["held_out_loss"] != "" for line in lines] == [False] * 19 + [True]


def test_held_out_loss_is_looked_at_as_often_as_asked(tiny_model, tokenizer, tmp_path):
    rows = some_rows(tokenizer, 4)
    train(
        tiny_model,
        tokenizer,
        rows,
        Settings(7, rows=4, held_out_every=3),
        seed=1,
        stage="x",
        held_out=rows,
        log=tmp_path / "x.csv",
    )
    with open(tmp_path / "x.csv", newline="") as file:
        assert [int(line["step"]) for line in csv.DictReader(file) if line["held_out_loss"]] == [
            2,
            5,
            6,
        ]


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tiny_model, tokenizer):
    with torch.no_grad():
        tiny_model.norm.weight[0] = float("nan")
    before = weights_of(tiny_model)
    with pytest.raises(FloatingPointError, match="x: the loss is nan at step 0"):
        train(
            tiny_model, tokenizer, some_rows(tokenizer, 4), Settings(3, rows=4), seed=1, stage="x"
        )
    assert torch.equal(weights_of(tiny_model).nan_to_num(), before.nan_to_num())


def test_fewer_rows_than_a_batch_are_refused(tiny_model, tokenizer):
    with pytest.raises(
        ValueError, match="x: 3 rows are left to train on, fewer than one batch of 4"
    ):
        train(
            tiny_model, tokenizer, some_rows(tokenizer, 3), Settings(1, rows=4), seed=1, stage="x"
        )


def test_every_stage_runs_in_its_smoke_schedule(tokenizer):
    schedule = sft.smoke(SCHEDULES["tiny"]["student"])
    model = GPT(Config(768, 256, 1, 16, 2, 1, 24)).init_weights(0)
    for stage in (sft.pretrain, sft.cold_start_sft, sft.overall_sft):
        before = weights_of(model)
        out = stage(model, tokenizer, schedule, seed=1)
        assert (
            math.isfinite(out["loss"])
            and math.isfinite(out["held_out_loss"])
            and not torch.equal(weights_of(model), before)
        )


# ---- tables ----


def test_a_csv_leaves_missing_keys_empty_and_no_half_file(tmp_path):
    write_csv(
        tmp_path / "a.csv",
        [{"step": 0, "loss": 1.5}, {"step": 1, "loss": 1.25, "held_out_loss": 2.0}],
    )
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "step,loss,held_out_loss",
        "0,1.5,",
        "1,1.25,2.0",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_show_prints_the_numbers_of_the_loss_function(capsys):
    """After "say" the logits 0, 2, 1, 0: yes costs log(e^0 + e^2 + e^1 + e^0) - 2, no one more."""
    sft.show()
    told = capsys.readouterr().out
    after_say = math.log(2 + math.e**2 + math.e)
    costs = [after_say - 2, math.log(3 + math.e**3) - 3, after_say - 1] + 2 * [
        math.log(2 + 2 * math.e) - 1
    ]
    assert [float(cost) for cost in re.findall("-log p ([0-9.]+)$", told, re.M)] == pytest.approx(
        costs, abs=1e-4
    )
    logits = torch.tensor([[0.0, 2, 1, 0], [0, 0, 0, 3], [0, 2, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    loss = masked_cross_entropy(logits, torch.tensor([1, 3, 2, 2, 3]), 5)
    assert told.endswith(f"sum {sum(costs):.4f}, count 5, loss = sum / count = {loss:.4f}\n")


def test_show_mask_puts_exactly_what_is_supervised_between_brackets(tokenizer, capsys):
    sft.show_mask(
        tokenizer,
        {"messages": [{"role": "user", "content": "2+3?"}, {"role": "assistant", "content": "5"}]},
    )
    assert capsys.readouterr().out == "<|user|>2+3?<|assistant|>[5][<|end|>]\n"


# ---- the command ----

BAD = {
    "broken.jsonl": ('{"prompt": "a", "response": "b"}\n{"prompt": "a", ', ":2: "),
    "empty.jsonl": ("", ":1: "),
    "layout.jsonl": ('{"prompt": "a", "response": "b"}\n\n{"chosen": "x"}\n', ":3: "),
    "role.jsonl": ('{"messages": [{"role": "robot", "content": "x"}]}\n', ":1: "),
}


def run_command(monkeypatch, capsys, *flags):
    """(exit code, stdout, stderr) of `python sft.py` in this process."""
    monkeypatch.setattr(
        sys, "argv", ["sft.py", "--threads", "1", "--device", "cpu", *map(str, flags)]
    )
    code = 0
    try:
        sft.main()
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_command_ends_with_code_two_and_one_line(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text(BAD["broken.jsonl"][0])
    done = subprocess.run(
        [
            sys.executable,
            *"sft.py --threads 1 --data".split(),
            str(path),
            "--out",
            str(tmp_path / "out"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {path}:2: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_its_line(name, tmp_path, monkeypatch, capsys):
    path = tmp_path / name
    path.write_text(BAD[name][0])
    code, out, err = run_command(monkeypatch, capsys, "--data", path, "--out", tmp_path / "out")
    assert (
        code == 2
        and err.startswith(f"error: {path}{BAD[name][1]}")
        and err.count("\n") == 1
        and out == ""
    )


@pytest.mark.parametrize(
    "flags",
    [
        ("--data", "missing.jsonl"),
        ("--init", "missing.pt"),
        ("--data", "missing.txt", "--pretrain"),
    ],
)
def test_a_missing_file_is_named(flags, tmp_path, monkeypatch, capsys):
    code, _, err = run_command(
        monkeypatch,
        capsys,
        *(tmp_path / flag if "missing" in flag else flag for flag in flags),
        "--out",
        tmp_path / "out",
    )
    assert code == 2 and err.startswith(f"error: {tmp_path}/missing") and err.count("\n") == 1


def test_own_records_are_trained_on_and_leave_a_checkpoint_and_a_log(tmp_path, monkeypatch, capsys):
    fixture = ROOT / "tests" / "fixtures" / "gsm8k_train_20.jsonl"
    code, out, err = run_command(
        monkeypatch, capsys, "--data", fixture, "--steps", 2, "--out", tmp_path
    )
    assert code == 0 and "held-out loss" in out, err
    assert {file.name for file in tmp_path.iterdir()} == {"sft.pt", "sft.csv", "sft.json"}
    model, saved = load_checkpoint(tmp_path / "sft.pt", tokenizers.tiny())
    assert (
        saved["stage"] == "sft"
        and saved["settings"]["steps"] == 2
        and parameter_count(model) > 200_000
    )


@pytest.mark.parametrize("steps, looks", [(5, 3), (7, 4), (8, 4)])
def test_the_held_out_loss_is_looked_at_four_times_at_most(
    tmp_path, monkeypatch, capsys, steps, looks
):
    """Every second step: after 2, 4 and 5 of five,
    and after 2, 4, 6 and the last of seven and eight."""
    fixture = ROOT / "tests" / "fixtures" / "gsm8k_train_20.jsonl"
    code, _, err = run_command(
        monkeypatch, capsys, "--data", fixture, "--steps", steps, "--out", tmp_path
    )
    assert code == 0, err
    assert (
        sum(
            bool(line["held_out_loss"])
            for line in csv.DictReader((tmp_path / "sft.csv").read_text().splitlines())
        )
        == looks
    )


def test_pretraining_and_sft_keep_their_files_apart(tmp_path, monkeypatch, capsys):
    code, out, err = run_command(monkeypatch, capsys, "--pretrain", "--smoke", "--out", tmp_path)
    assert code == 0, err
    assert {file.name for file in tmp_path.iterdir()} == {
        "pretrain.pt",
        "pretrain.csv",
        "pretrain.json",
    }


def test_every_look_at_the_held_out_loss_is_returned(tiny_model, tokenizer):
    rows = some_rows(tokenizer, 8)
    own = train(
        tiny_model,
        tokenizer,
        rows,
        Settings(4, rows=2, held_out_every=2),
        seed=1,
        stage="sft",
        held_out=rows,
    )
    assert len(own["held_out_losses"]) == 2 and own["held_out_losses"][-1] == own["held_out_loss"]


def test_show_mask_command_prints_every_kind_and_trains_nothing(tmp_path, monkeypatch, capsys):
    code, out, _ = run_command(monkeypatch, capsys, "--show-mask", "--out", tmp_path / "out")
    assert (
        code == 0
        and out.count("<|user|>") >= 5
        and "[<|end|>]" in out
        and not (tmp_path / "out").exists()
    )


@pytest.mark.parametrize("count, told", [(1, ""), (3, ""), (21, "3 of 21 records\n")])
def test_show_mask_says_how_many_of_the_records_it_shows(
    count, told, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(f'{{"prompt": "{k}", "response": "b"}}\n' for k in range(count)))
    code, out, _ = run_command(monkeypatch, capsys, "--show-mask", "--data", path)
    shown = "".join(f"<|user|>{k}<|assistant|>[b][<|end|>]\n" for k in range(min(count, 3)))
    assert (code, out) == (0, told + shown)


def test_show_mask_of_a_file_without_a_record_shows_nothing_else(tmp_path, monkeypatch, capsys):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "a", "response": ""}\n')
    assert run_command(monkeypatch, capsys, "--show-mask", "--data", path) == (
        2,
        "",
        f"error: {path}: no record is left to show (dropped 1 record: 1 empty reply)\n",
    )


def test_too_few_prompts_of_a_file_are_told_with_what_was_dropped(tmp_path, monkeypatch, capsys):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "a", "response": ""}\n{"prompt": "a", "response": "b"}\n')
    code, _, err = run_command(monkeypatch, capsys, "--data", path, "--out", tmp_path / "out")
    assert (code, err) == (
        2,
        f"error: {path}: 1 different prompt is left (dropped 1 record: 1 empty "
        "reply); two are needed, one to train on and one to hold out; give "
        "more data\n",
    )


def test_padding_of_a_mask_is_never_supervised(tokenizer):
    rows = some_rows(tokenizer, 5)
    ids = pad_rows([row[0] for row in rows], tokenizer.pad_id)
    mask = pad_rows([row[1] for row in rows], False)
    assert not mask[ids == tokenizer.pad_id].any() and int(mask.sum()) == supervised_count(rows)


# ---- a stage that was killed in the middle ----


def test_sft_goes_on_in_the_middle_and_ends_with_the_same_weights(tokenizer, tmp_path, monkeypatch):
    rows = some_rows(tokenizer, 30)
    settings = Settings(12, rows=4, warmup=2, save_every=5)

    def run(folder, model):
        folder.mkdir(exist_ok=True)
        return sft.train(
            model, tokenizer, rows, settings, seed=1, stage="sft", log=folder / "sft.csv"
        )

    whole = GPT(Config(768, 256, 1, 32, 4, 2, 48, tied=False)).init_weights(0)
    run(tmp_path / "whole", whole)
    with monkeypatch.context() as patch:  # killed at step 7; step 5 was saved
        patch.setattr(
            sft,
            "learning_rate_scale",
            lambda step, *rest: (
                (_ for _ in ()).throw(KeyboardInterrupt)
                if step == 7
                else learning_rate_scale(step, *rest)
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", GPT(whole.config).init_weights(0))
    assert (tmp_path / "killed" / "sft.part").exists()
    model, batches = GPT(whole.config).init_weights(0), []
    monkeypatch.setattr(sft, "batch_loss", lambda *args: batches.append(1) or batch_loss(*args))
    run(tmp_path / "killed", model)
    assert len(batches) == 7 and not (tmp_path / "killed" / "sft.part").exists()
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), whole.state_dict().values())
    )
    assert (tmp_path / "killed" / "sft.csv").read_text() == (
        tmp_path / "whole" / "sft.csv"
    ).read_text()


def test_a_save_of_other_settings_is_not_gone_on_from(tokenizer, tmp_path, tiny_model):
    save_middle(tmp_path / "x.part", "one key", {"step": 3}, model=tiny_model)
    assert load_middle(tmp_path / "none.part", "one key", model=tiny_model) is None
    assert load_middle(tmp_path / "x.part", "one key", model=tiny_model) == {"step": 3}
    assert load_middle(tmp_path / "x.part", "another key", model=tiny_model) is None
    assert not list(tmp_path.iterdir())


def test_what_a_file_says_beside_its_rows_is_printed_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sft,
        "train",
        lambda model, *args, **how: {
            "held_out_losses": [],
            "held_out_loss": 1.0,
            "tokens": 0,
            "seconds": 0.0,
        },
    )
    path = tmp_path / "own.jsonl"
    records = [{"prompt": f"{k}?", "response": "5", "id": k} for k in range(30)] + [
        {"prompt": "Human: a", "response": "5"},
        {"prompt": "9" * 999, "response": "5"},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    code, out, _ = run_command(
        monkeypatch, capsys, "--data", path, "--out", tmp_path / "out", "--smoke"
    )
    assert code == 0 and out.count(f"{path}: ignored keys: 'id' 30 times\n") == 1
    assert (
        f"{path}:31: the text holds a speaker's label, 'Human:', in 1 of 32 records" in out
        and "dropped 1 record: 1 longer than the context" in out
    )
    path.write_text("".join(json.dumps({"text": "word " * 400, "id": 1}) + "\n" for _ in range(4)))
    monkeypatch.setattr(
        sft,
        "pretrain_on_text",
        lambda model, tokenizer, text, *args, **how: {
            "losses_a_character": [float("{" in text)],
            "tokens": 0,
            "seconds": 0.0,
        },
    )
    code, out, _ = run_command(
        monkeypatch, capsys, "--pretrain", "--data", path, "--out", tmp_path / "out", "--smoke"
    )
    assert (
        code == 0
        and out.count(f"{path}: ignored keys: 'id' 4 times\n") == 1
        and "nats a character: 0.000" in out
    )
