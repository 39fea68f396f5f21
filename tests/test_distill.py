"""distill.py: the divergences, the joint loss and its gradients,
samples and filter, the loop, and what bad input gets."""

import copy
import csv
import json
import math
import random
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import PlainDescent
from torch import nn

import distill
from data import world
from data.files.checkpoints import digest, save_checkpoint
from data.runtime import alone
from data.runtime import queries as asking
from data.runtime.decoding import Samples
from data.runtime.queries import other_skills, row_means
from data.runtime.rows import response_rows
from distill import (
    Joint,
    Settings,
    Side,
    joint_loss,
    preference_data,
    preference_filter,
    queries,
    token_divergence,
    train,
)
from dpo import dpo_loss, logprobs_of, sequence_logprobs
from model import GPT, Config, load_checkpoint
from sft import supervised_positions

CPU = torch.device("cpu")
LN2 = math.log(2)
# section 6's distributions
T = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
S = torch.tensor([[0.4, 0.4, 0.2]], dtype=torch.float64)
POSITIVE = [0, 1, 2, 3, 1], [False, False, True, True, True]  # prompt of two tokens
NEGATIVE = [0, 1, 3, 0], [False, False, True, True]


def toy(a, length, vocabulary=4):
    # (length, V)
    return torch.cos(
        a
        * torch.arange(1, length + 1, dtype=torch.float64)[:, None]
        * torch.arange(1, vocabulary + 1)
    )


def toy_side(row, student=0.3, teacher=0.5, reference=0.4):
    """(Side, student logits (length, V)) of one toy row;
    student, teacher and reference differ in their constant a."""
    ids, mask = torch.tensor([row[0]]), torch.tensor([row[1]])
    select, tokens = supervised_positions(ids, mask)
    logits = toy(student, len(row[0])).requires_grad_()
    logps = toy(reference, len(row[0]))[select[0]].log_softmax(1).gather(1, tokens[:, None]).sum()
    return Side(
        logits[select[0]],
        toy(teacher, len(row[0]))[select[0]],
        tokens,
        torch.zeros(len(tokens), dtype=torch.long),
        logps[None],
    ), logits


def weighted(**how):
    """Settings with all three weights 1, but for what is given."""
    return Settings(**{"dpo_coef": 1.0, "neg_coef": 1.0, **how})


def toy_loss(student=0.3, teacher=0.5, reference=0.4, **how):
    """(Joint, gradients with respect to the student's
    logits of the positive and of the negative)."""
    (positive, first), (negative, second) = (
        toy_side(row, student, teacher, reference) for row in (POSITIVE, NEGATIVE)
    )
    joint = joint_loss(positive, negative, weighted(**how))
    joint.loss.backward()
    return joint, first.grad, second.grad


class Fixed(nn.Module):
    """A stub whose logits depend on the position alone: the toy's."""

    def __init__(self, a, length=5, vocabulary=4):
        super().__init__()
        self.config, self.logits = (
            SimpleNamespace(vocab_size=vocabulary),
            nn.Parameter(toy(a, length, vocabulary).float()),
        )

    def forward(self, ids, select=None, attend=None):
        return self.logits[: ids.shape[1]].expand(len(ids), -1, -1)[select]


def some_pairs(tokenizer, count, seed=0):
    """A question of random digits; the positive is a few 7s,
    the negative a few 3s, of unequal length."""
    rng = random.Random(seed)
    return [
        tuple(
            response_rows(
                tokenizer,
                [{"role": "user", "content": "9" * rng.randint(1, 12)}],
                ["7" * rng.randint(1, 9), "3" * rng.randint(1, 9)],
            )
        )
        for _ in range(count)
    ]


def small(seed, width=16, vocabulary=768, context=256):
    """A model with random weights everywhere, the head's large enough for opinions."""
    model = GPT(Config(vocabulary, context, 1, width, 2, 1, 24, tied=False)).init_weights(seed)
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("out.weight", "down.weight", "head.weight")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def weights_of(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def read_csv(path):
    with open(path, newline="") as file:
        return [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]


# ---- divergences ----

DIVERGENCES = [
    ("forward", 0.5, 0.183787, (-0.3, 0.2, 0.1)),
    ("reverse", 0.5, 0.192042, (-0.300663, 0.200442, 0.100221)),
    ("jsd", 0.5, 0.046201, (-0.072736, 0.048491, 0.024245)),
    ("jsd", 0.1, 0.016518, None),
    ("jsd", 0.9, 0.017100, None),
]


@pytest.mark.parametrize("direction, b, value, gradient", DIVERGENCES)
def test_divergence_and_gradient_vectors(direction, b, value, gradient):
    logits = S.log().requires_grad_()
    divergence = token_divergence(logits, T.log(), direction, jsd_beta=b)
    divergence.sum().backward()
    assert divergence.shape == (1,) and divergence.item() == pytest.approx(value, abs=1e-6)
    if gradient is not None:
        assert logits.grad[0].tolist() == pytest.approx(gradient, abs=1e-6)


def test_logits_need_no_normalisation():
    for direction in ("forward", "reverse", "jsd"):
        shifted = token_divergence(S.log() + 3, T.log() - 5, direction)
        plain = token_divergence(S.log(), T.log(), direction)
        assert shifted.item() == pytest.approx(plain.item(), abs=1e-5)


def test_a_temperature_flattens_both_and_its_square_multiplies_the_loss():
    """At temperature 2 KL(T||S) is 0.048616, times 4 is 0.194466."""
    flat = token_divergence((S.log() / 2), T.log() / 2)
    assert flat.item() == pytest.approx(0.048616, abs=1e-6)
    assert token_divergence(S.log(), T.log(), temperature=2.0).item() == pytest.approx(
        0.194466, abs=1e-6
    )


def test_a_temperature_keeps_the_gradients_size():
    """d/dz of temperature^2 KL is temperature (p_S - p_T) of the flattened distributions."""
    logits = S.log().requires_grad_()
    token_divergence(logits, T.log(), temperature=2.0).sum().backward()
    expected = 2 * ((S.log() / 2).softmax(1) - (T.log() / 2).softmax(1))
    assert torch.allclose(logits.grad, expected, atol=1e-6)


def test_the_jsd_of_disjoint_distributions_is_ln_2_with_finite_gradients():
    logits = torch.tensor([[0.0, -1e4]], dtype=torch.float64, requires_grad=True)
    divergence = token_divergence(logits, torch.tensor([[-1e4, 0.0]], dtype=torch.float64), "jsd")
    divergence.sum().backward()
    assert divergence.item() == pytest.approx(LN2, abs=1e-6) and logits.grad.isfinite().all()


def test_the_jsd_is_symmetric_at_one_half_and_grows_into_the_forward_kl():
    assert token_divergence(S.log(), T.log(), "jsd").item() == pytest.approx(
        token_divergence(T.log(), S.log(), "jsd").item(), abs=1e-6
    )
    assert token_divergence(S.log(), T.log(), "jsd", jsd_beta=0.01).item() / 0.01 == pytest.approx(
        0.183787, rel=0.02
    )


def test_reverse_is_forward_with_the_two_exchanged():
    assert token_divergence(S.log(), T.log(), "reverse").item() == pytest.approx(
        token_divergence(T.log(), S.log(), "forward").item(), abs=1e-7
    )


def test_every_divergence_of_a_distribution_from_itself_is_0_and_of_two_positive():
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    for direction in ("forward", "reverse", "jsd"):
        assert token_divergence(logits, logits, direction, 2.0).abs().max() < 1e-6
        assert (token_divergence(logits, logits.flip(0), direction) > 0).all()


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="direction is 'up'; there is forward, reverse and jsd"):
        token_divergence(S, T, "up")


# ---- the joint loss ----


def test_joint_loss_vector():
    """log pi_S(y+) = -5.942274, ref -5.853107,
    log pi_S(y-) = -2.968701, ref -3.205556: h = -0.326022."""
    positive, negative = toy_side(POSITIVE)[0], toy_side(NEGATIVE)[0]
    for side, expected in ((positive, [-5.942274, -5.853107]), (negative, [-2.968701, -3.205556])):
        assert [side.student_logps().item(), side.reference_logps.item()] == pytest.approx(
            expected, abs=1e-5
        )
    joint, *_ = toy_loss()
    assert joint.positive_score.item() == pytest.approx(-0.0089167, abs=1e-6)
    assert joint.negative_score.item() == pytest.approx(0.0236855, abs=1e-6)
    assert [joint.dpo.item(), joint.positive_kl.item(), joint.negative_kl.item()] == pytest.approx(
        [0.709581, 0.408530, 0.319171], abs=1e-5
    )
    assert joint.loss.item() == pytest.approx(1.437282, abs=1e-5)


@pytest.mark.parametrize(
    "direction, positive, negative", [("reverse", 0.343930, 0.276522), ("jsd", 0.087873, 0.069929)]
)
def test_joint_loss_in_the_other_directions(direction, positive, negative):
    joint, *_ = toy_loss(direction=direction)
    assert [joint.dpo.item(), joint.positive_kl.item(), joint.negative_kl.item()] == pytest.approx(
        [0.709581, positive, negative], abs=1e-5
    )
    assert joint.loss.item() == pytest.approx(0.709581 + positive + negative, abs=1e-5)


def test_the_token_term_of_the_negative_pulls_towards_the_teacher():
    """(p_S - p_T) / 2 at the first of the negative's two tokens,
    which the position before it predicts; nothing at the prompt."""
    _, first, second = toy_loss(dpo_coef=0.0, pos_coef=0.0)
    assert second[1].tolist() == pytest.approx((-0.034123, 0.042910, 0.022910, -0.031697), abs=1e-6)
    assert (second[0] == 0).all() and (second[3] == 0).all() and (first == 0).all()


def test_the_terms_are_weighted_apart_and_their_gradients_add_up():
    weights = {"dpo_coef": 0.5, "pos_coef": 2.0, "neg_coef": 3.0}
    joint, *whole = toy_loss(**weights)
    assert joint.loss.item() == pytest.approx(
        0.5 * 0.709581 + 2 * 0.408530 + 3 * 0.319171, abs=2e-5
    )
    alone = [
        toy_loss(**{name: weight if name == kept else 0.0 for name, weight in weights.items()})[1:]
        for kept in weights
    ]
    for side in (0, 1):
        assert torch.allclose(whole[side], sum(gradients[side] for gradients in alone), atol=1e-6)


def test_dpos_part_of_the_gradient_is_beta_sigmoid_times_the_log_likelihoods():
    """dL/dz = -beta sg(-beta h) (onehot - p) at the positive's
    tokens and with the other sign at the negative's."""
    _, first, second = toy_loss(pos_coef=0.0, neg_coef=0.0)
    size = 0.1 / (1 + math.exp(-0.0326022))
    for gradient, row, sign in ((first, POSITIVE, -1), (second, NEGATIVE, 1)):
        p = toy(0.3, len(row[0])).softmax(1)
        assert torch.allclose(
            gradient[1], sign * size * (torch.eye(4)[row[0][2]] - p[1]), atol=1e-6
        )


def test_without_token_terms_the_joint_loss_is_plain_dpo():
    joint, *_ = toy_loss(pos_coef=0.0, neg_coef=0.0, beta=0.7)
    logps = [
        torch.tensor([x], dtype=torch.float64) for x in (-5.942274, -2.968701, -5.853107, -3.205556)
    ]
    assert (
        joint.loss.item()
        == joint.dpo.item()
        == pytest.approx(dpo_loss(*logps, beta=0.7)[0].item(), abs=1e-5)
    )


def test_a_student_that_equals_its_teacher_has_no_token_terms():
    for direction in ("forward", "reverse", "jsd"):
        joint, *_ = toy_loss(teacher=0.3, direction=direction)
        assert [joint.positive_kl.item(), joint.negative_kl.item()] == pytest.approx(
            [0, 0], abs=1e-6
        )
        assert joint.loss.item() == pytest.approx(0.709581, abs=1e-5)


def test_a_student_that_equals_its_reference_pays_ln_2():
    joint, *_ = toy_loss(reference=0.3)
    assert joint.dpo.item() == pytest.approx(LN2, abs=1e-6)
    assert joint.positive_score.item() == pytest.approx(0, abs=1e-6)


def test_the_temperature_reaches_the_token_terms_and_not_dpo():
    plain, warm = toy_loss()[0], toy_loss(temperature=2.0)[0]
    flat = [
        4
        * (lambda t, s: t.softmax(1) * (t.log_softmax(1) - s.log_softmax(1)))(
            side.teacher_logits / 2, side.student_logits / 2
        )
        .sum(1)
        .mean()
        for side in (toy_side(POSITIVE)[0], toy_side(NEGATIVE)[0])
    ]
    assert [warm.positive_kl.item(), warm.negative_kl.item()] == pytest.approx(
        [x.item() for x in flat], abs=1e-6
    )
    assert warm.dpo == plain.dpo and abs(warm.positive_kl - plain.positive_kl) > 0.001


def test_scores_and_logged_terms_carry_no_gradient():
    joint = joint_loss(toy_side(POSITIVE)[0], toy_side(NEGATIVE)[0], Settings())
    assert [name for name in Joint._fields if getattr(joint, name).requires_grad] == ["loss"]


def random_batch(count=5, vocabulary=7, seed=2):
    """The positive and the negative side of `count`
    pairs with random logits, as lists of single rows."""
    generator = torch.Generator().manual_seed(seed)
    sides = []
    for _ in range(2):
        rows = []
        for _ in range(count):
            length = int(torch.randint(1, 6, (1,), generator=generator))
            logits = [
                torch.randn(length, vocabulary, generator=generator, dtype=torch.float64)
                for _ in range(2)
            ]
            rows.append(
                (
                    logits[0].requires_grad_(),
                    logits[1],
                    torch.randint(vocabulary, (length,), generator=generator),
                    -3 * torch.rand((), generator=generator, dtype=torch.float64),
                )
            )
        sides.append(rows)
    return sides


def joined(rows):
    pair = torch.tensor([k for k, row in enumerate(rows) for _ in range(len(row[2]))])
    return Side(
        torch.cat([row[0] for row in rows]),
        torch.cat([row[1] for row in rows]),
        torch.cat([row[2] for row in rows]),
        pair,
        torch.stack([row[3] for row in rows]),
    )


@pytest.mark.parametrize("cuts", [(0, 5), (0, 2, 5), (0, 1, 2, 3, 4, 5)])
def test_micro_batches_with_the_whole_batchs_counts_add_up(cuts):
    positives, negatives = random_batch()
    assert sum(len(row[2]) for row in positives) != sum(len(row[2]) for row in negatives)
    whole = joint_loss(joined(positives), joined(negatives), weighted())
    leaves = [row[0] for row in (*positives, *negatives)]
    expected = torch.autograd.grad(whole.loss, leaves)
    counts = 5, sum(len(row[2]) for row in positives), sum(len(row[2]) for row in negatives)
    parts = [
        joint_loss(joined(positives[a:b]), joined(negatives[a:b]), weighted(), counts)
        for a, b in zip(cuts, cuts[1:])
    ]
    found = torch.autograd.grad(sum(part.loss for part in parts), leaves)
    for name in ("loss", "dpo", "positive_kl", "negative_kl"):
        assert sum(getattr(part, name).item() for part in parts) == pytest.approx(
            getattr(whole, name).item(), abs=1e-5
        )
    assert torch.equal(torch.cat([part.positive_score for part in parts]), whole.positive_score)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected))


def test_show_prints_the_numbers_of_the_loss_functions(capsys):
    """The student's logits 1, 1, 0, 0 against the teacher's 3, 0, 0, 0, and two more a response."""
    distill.show()
    told = capsys.readouterr().out
    student = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 2]])
    teachers = (
        torch.tensor([[3.0, 0, 0, 0], [0, 0, 0, 3]]),
        torch.tensor([[3.0, 0, 0, 0], [1, 0, 1, 1]]),
    )
    sides = [
        Side(
            student,
            teacher,
            torch.tensor([first, 3]),
            torch.tensor([0, 0]),
            torch.tensor([reference]),
        )
        for teacher, first, reference in zip(teachers, (0, 1), (-1.6, -1.2))
    ]
    kls = [
        kl
        for side in sides
        for kl in token_divergence(side.student_logits, side.teacher_logits).tolist()
    ]
    assert re.findall(r"KL ([\d.]+)$", told, re.M) == [f"{kl:.4f}" for kl in kls]
    # each KL is the sum of its four terms, each log-probability that of the logits
    lines = {
        label: [
            list(map(float, line.split()))
            for line in re.findall(rf"^    {label} +((?:-?[\d.]+ *)+)", told, re.M)
        ]
        for label in ("log pi_T", "log pi_S", re.escape("pi_T log(pi_T / pi_S)"))
    }
    for row, expected in zip(lines["log pi_T"], torch.cat(teachers).log_softmax(1).tolist()):
        assert row == pytest.approx(expected, abs=1e-4)
    for row, expected in zip(
        lines["log pi_S"], torch.cat([student, student]).log_softmax(1).tolist()
    ):
        assert row == pytest.approx(expected, abs=1e-4)
    assert [sum(row) for row in lines[re.escape("pi_T log(pi_T / pi_S)")]] == pytest.approx(
        kls, abs=3e-4
    )
    joint = joint_loss(*sides, Settings())
    for name, value in (
        ("L_pos", joint.positive_kl),
        ("L_neg", joint.negative_kl),
        ("L_DPO", joint.dpo),
        ("L", joint.loss),
    ):
        assert re.search(rf"^{name} = .* = {value:.4f}$", told, re.M), name
    assert (
        f"pi_ref): {joint.positive_score.item():.4f} and {joint.negative_score.item():.4f}\n"
        in told
    )
    assert joint.loss.item() == pytest.approx(
        0.1 * joint.dpo.item() + joint.positive_kl.item() + 0.3 * joint.negative_kl.item()
    )


# ---- filter ----


@pytest.mark.parametrize(
    "domain, positive, negatives, expected",
    [
        ("math", 1.0, [0.0, 1.0, 0.0], [0, 2]),
        ("agent", 1.0, [0.0], [0]),
        ("math", 0.0, [0.0, 0.0], "positive wrong"),
        ("stem", 0.0, [], "positive wrong"),  # the student was not asked
        ("stem", 1.0, [1.0, 1.0], "negative right"),
        ("code", None, [0.0], "not checked"),
        ("code", 1.0, [0.0, None], "not checked"),
        ("code", None, [], "not checked"),
        ("chat", 4.0, [3.0, 3.1, 2.0], [0, 2]),  # the margin itself is enough
        ("chat", 4.0, [3.1, 4.0, 5.0], "margin too small"),
        ("chat", 0.5, [-0.6], [0]),  # a liking is noisy and may lie below 0
    ],
)
def test_a_positive_stands_only_against_what_is_clearly_worse(
    domain, positive, negatives, expected
):
    assert preference_filter(domain, positive, negatives, 1.0) == expected


def test_a_kept_chat_pair_has_the_margin():
    rng = random.Random(0)
    for _ in range(200):
        positive = rng.uniform(0, 5)
        negatives = [rng.uniform(0, 5) for _ in range(3)]
        margin = rng.choice((0.5, 1.0, 2.0))
        kept = preference_filter("chat", positive, negatives, margin)
        worse = [k for k in range(3) if positive - negatives[k] >= margin]
        assert kept == (worse or "margin too small")


# ---- training data ----


def test_queries_are_the_same_for_the_same_seed_and_of_all_domains_in_equal_parts():
    tasks = queries(1, 50)
    assert tasks == queries(1, 50) != queries(2, 50) and len({task.prompt for task in tasks}) == 50
    assert {
        domain: sum(task.domain == domain for task in tasks)
        for domain in ("math", "code", "stem", "agent", "chat")
    } == dict.fromkeys(("math", "code", "stem", "agent", "chat"), 10)


def test_no_query_is_an_evaluation_prompt():
    held_out = [
        task
        for part in ("test", "dev")
        for domain in (*world.DOMAINS[:5], "phrasing")
        for task in world.evaluation_tasks(domain, 200, part)
    ]
    prompts = {task.prompt for task in held_out}
    # of a fact the phrasing is held out
    contents = {(task.family, task.content) for task in held_out if not world.is_fact(task)}
    for seed in (1, 2):
        for task in queries(seed, 300):
            assert task.prompt not in prompts and (task.family, task.content) not in contents
            assert world.part_of(task) == "train" and task.phrasing < 4


TASKS = queries(1, 60)
WRONG_FOR_TEACHER = {i for i in range(60) if i % 4 == 3}
RIGHT_FOR_STUDENT = {i for i in range(60) if i % 7 == 0}


def scripted(teacher, tokenizer, asked=None):
    """`generate` that answers as told: the teacher rightly, but to some queries with what is wrong
    and cut off; the student wrongly, rightly and wrongly again, and to some queries only rightly.
    Of the replies to other prompts every second is cut off."""
    known = {tuple(tokenizer.prompt(task.messages)): i for i, task in enumerate(TASKS)}

    def generate(model, tokenizer, prompts, *, n=1, **how):
        rows = []
        for prompt in prompts:
            i = known.get(tuple(prompt))
            if asked is not None:
                asked.append((model is teacher, i, n, prompt, how))
            for k in range(n):
                right = i is not None and (
                    i not in WRONG_FOR_TEACHER
                    if model is teacher
                    else i in RIGHT_FOR_STUDENT or k == 1
                )
                turns = (
                    world.reference(TASKS[i])
                    if right
                    else [
                        {
                            "role": "assistant",
                            "content": "no" * (k + 1) if i is not None else "fine",
                        }
                    ]
                )
                messages = TASKS[i].messages if i is not None else [{"role": "user", "content": ""}]
                ids, mask = tokenizer.render([*messages, *turns])
                start = len(tokenizer.prompt(messages))
                cut = len(ids) - (len(rows) % 2 if i is None else model is teacher and not right)
                rows.append((ids[start:cut], mask[start:cut]))
        width = max(len(ids) for ids, _ in rows)
        tokens = torch.tensor([ids + [tokenizer.pad_id] * (width - len(ids)) for ids, _ in rows])
        own = torch.tensor([mask + [False] * (width - len(mask)) for _, mask in rows])
        lengths = torch.tensor([len(ids) for ids, _ in rows])
        return Samples(
            tokens,
            torch.zeros(tokens.shape),
            own,
            lengths,
            torch.zeros(len(rows), dtype=torch.bool),
        )

    return generate


SMALL = Settings(queries=60, negatives=3, steps=2, rows=4, rehearsal_rows=2)


@pytest.fixture
def made(tokenizer, monkeypatch):
    """What `preference_data` makes of the scripted answers, with an annotator without noise
    and real verifiers but for programs, of which only the reference's text is right."""
    references = {world.reference(task)[-1]["content"] for task in TASKS}
    monkeypatch.setattr(
        world.sandbox,
        "passes_tests",
        lambda programs: [source in references for source, _ in programs],
    )
    monkeypatch.setattr(
        asking.world_chat, "annotate", lambda true_reward, rng, complete: true_reward
    )
    teacher, student, asked = small(0), small(1), []
    monkeypatch.setattr(asking, "generate", scripted(teacher, tokenizer, asked))
    pairs, rehearsal, records, counts = preference_data(
        teacher, student, tokenizer, SMALL, seed=1, device=CPU
    )
    return SimpleNamespace(
        pairs=pairs,
        rehearsal=rehearsal,
        records=records,
        counts=counts,
        asked=asked,
        student=student,
        teacher=teacher,
    )


def test_the_counts_say_what_became_of_every_query(made):
    expected = {}
    for i, task in enumerate(TASKS):
        reason = (
            "positive wrong"
            if i in WRONG_FOR_TEACHER
            else "negative right"
            if i in RIGHT_FOR_STUDENT
            else "kept"
        )
        # rightly answered 5, against 5 where the student is right; wrongly no more than the student
        if task.domain == "chat":
            reason = "kept" if reason == "kept" else "margin too small"
        expected[f"{task.domain}: {reason}"] = expected.get(f"{task.domain}: {reason}", 0) + 1
    assert (
        made.counts == expected
        and sum(made.counts.values()) == 60
        and len(made.pairs) == len(made.records)
    )
    assert (
        len(made.pairs)
        == sum(count for name, count in made.counts.items() if name.endswith(": kept"))
        > 30
    )


def test_every_positive_is_verified_and_every_negative_worse(made, tokenizer):
    by_prompt = {tuple(tokenizer.prompt(task.messages)): task for task in TASKS}
    for (positive, negative), record in zip(made.pairs, made.records):
        start = positive[1].index(True)
        assert positive[0][:start] == negative[0][:start]
        task = by_prompt[tuple(positive[0][:start])]
        scores = world.score_replies(
            [task] * 2, [tokenizer.read_reply(row[0][start:]) for row in (positive, negative)]
        )
        assert (
            positive[0][-1] == tokenizer.end_id
            and record["domain"] == task.domain
            and record["prompt"] == task.prompt
        )
        if task.domain == "chat":
            assert 5 * scores[0] - 5 * scores[1] >= SMALL.margin
            assert [record["positive_score"], record["negative_score"]] == pytest.approx(
                [5 * score for score in scores]
            )
        else:
            assert scores == [1, 0] == [record["positive_score"], record["negative_score"]]


def test_a_pair_supervises_what_the_models_wrote_and_no_tool_result(made, tokenizer):
    called = 0
    for pair in made.pairs:
        for ids, mask in pair:
            written = [token for token, on in zip(ids, mask) if on]
            assert (
                tokenizer.result_id not in written
                and tokenizer.headers["assistant"][0] not in written
                and mask[-1]
            )
            called += tokenizer.result_id in ids
    assert called > 0


def means_of(model, tokenizer, rows):
    return row_means(lambda rows: logprobs_of(model, tokenizer, rows, CPU, 128), rows)


def test_the_likeliest_wrong_sample_is_the_negative(made, tokenizer):
    """The student writes `no` and `nonono` beside the right reply;
    the one with the higher mean log-probability is taken."""
    taken = {}
    for positive, negative in made.pairs:
        start = positive[1].index(True)
        prompt = positive[0][:start]
        replies = [[*tokenizer.encode("no" * k), tokenizer.end_id] for k in (1, 3)]
        rows = [(prompt + reply, [False] * start + [True] * len(reply)) for reply in replies]
        means = means_of(made.student, tokenizer, rows)
        assert negative == rows[int(means.argmax())]
        taken[int(means.argmax())] = True
    assert len(taken) == 2  # both occur, so the choice is one


def test_the_mean_log_probability_is_a_tokens(tokenizer):
    model, rows = small(0), [row for pair in some_pairs(tokenizer, 3) for row in pair]
    with torch.no_grad():
        sums = sequence_logprobs(model, tokenizer, rows, CPU)
    assert means_of(model, tokenizer, rows).tolist() == pytest.approx(
        [float(s) / sum(mask) for s, (_, mask) in zip(sums, rows)], abs=1e-4
    )


def test_the_student_is_asked_only_where_something_can_stand_against_the_positive(made):
    assert [i for of_teacher, i, *_ in made.asked if of_teacher and i is not None] == list(
        range(60)
    )
    expected = [
        i for i, task in enumerate(TASKS) if task.domain == "chat" or i not in WRONG_FOR_TEACHER
    ]
    asked = [
        (i, n, how["temperature"]) for of_teacher, i, n, _, how in made.asked if not of_teacher
    ]
    assert asked == [(i, SMALL.negatives, SMALL.student_temperature) for i in expected]
    assert {(n, how["temperature"]) for of_teacher, _, n, _, how in made.asked if of_teacher} == {
        (1, SMALL.teacher_temperature)
    }
    # positives, negatives and rehearsal are drawn independently
    assert len({how["seed"] for *_, how in made.asked}) == 3


def test_rehearsal_is_the_teachers_finished_replies_and_its_other_skills(made, tokenizer):
    # the wrong ones were cut off, and those to a verified query were left out before
    replies = 60 - len(WRONG_FOR_TEACHER)
    others = [prompt for of_teacher, i, _, prompt, _ in made.asked if of_teacher and i is None]
    # every second one was cut off
    assert (
        len(others) == 60 // 5 + 60 // 20
        and len(made.rehearsal) == replies + (len(others) + 1) // 2
    )
    assert all(ids[-1] == tokenizer.end_id and any(mask) for _, (ids, mask) in made.rehearsal)
    domains = {tuple(tokenizer.prompt(task.messages)): task.domain for task in TASKS}
    for domain, (ids, mask) in made.rehearsal:
        assert domain == domains.get(tuple(ids[: mask.index(True)]), "other")


def test_what_distillation_keeps_for_rehearsal_is_read_back_with_chat_and_without(
    tokenizer, monkeypatch, tmp_path
):
    """Two rows of a math query, one of a chat query, one of judging."""
    rows = [
        ("math", ([1, 2, 3], [False, True, True])),
        ("chat", ([4, 5], [False, True])),
        ("math", ([6, 7], [True, True])),
        ("other", ([8, 9], [False, True])),
    ]
    monkeypatch.setattr(distill, "preference_data", lambda *rest, **how: ([], rows, [], {}))
    monkeypatch.setattr(
        distill, "train", lambda *given, **how: {"tokens": 0, "seconds": 0.0, "given": given[4]}
    )
    path = tmp_path / "kept.jsonl"
    measured = distill.distill(small(0), small(1), tokenizer, SMALL, seed=1, kept=path)
    assert measured["given"] == [row for _, row in rows] == asking.kept_rehearsal(path, chat=True)
    assert asking.kept_rehearsal(path, chat=False, student=digest(small(0))) == [
        rows[k][1] for k in (0, 2, 3)
    ]
    with pytest.raises(ValueError, match="kept.jsonl: was kept by another run of distill"):
        asking.kept_rehearsal(path, chat=False, student=digest(small(1)))
    path.unlink()
    with pytest.raises(ValueError, match="kept.jsonl: is missing, and this stage rehearses it"):
        asking.kept_rehearsal(path, chat=True)


def test_judging_and_asking_are_rehearsed_on_training_content(tokenizer, monkeypatch):
    asked = []
    monkeypatch.setattr(asking, "generate", scripted(None, tokenizer, asked))
    other_skills(None, tokenizer, replace(SMALL, queries=60), 1)
    texts = [
        tokenizer.encoding.decode(prompt)[len("<|user|>") : -len("<|assistant|>")]
        for *_, prompt, _ in asked
    ]
    for text in texts[:12]:
        question = world.parse(world.parse(text).fields["question"])
        assert world.part_of(question) == "train"
    for text in texts[12:]:
        for line in text.splitlines()[1:]:
            example = world.parse(line.removeprefix("- "))
            assert world.part_of(example) == "train"
    assert len(texts) == 15


def test_a_sample_that_repeats_the_positive_is_no_negative(tokenizer, monkeypatch):
    """A noisy annotator may like the same words 5 and 1; such a pair says nothing."""

    def same(model, tokenizer, tasks, *rest):
        prompts = [tokenizer.prompt(task.messages) for task in tasks]
        return [
            (prompt + [50, tokenizer.end_id], [False] * len(prompt) + [True] * 2)
            for prompt in prompts
        ], [1.0] * len(tasks)

    likings = iter([5.0, 1.0] * 100)
    monkeypatch.setattr(distill, "sample_positive", same)
    monkeypatch.setattr(distill, "sample_negative", same)
    monkeypatch.setattr(
        asking.world_chat, "annotate", lambda true_reward, rng, complete: next(likings)
    )
    monkeypatch.setattr(asking, "other_skills", lambda *rest: [])
    pairs, _, records, counts = preference_data(
        small(0), small(1), tokenizer, replace(SMALL, queries=10, negatives=1), seed=1, device=CPU
    )
    assert pairs == [] == records
    assert counts == {
        "math: negative right": 2,
        "code: negative right": 2,
        "stem: negative right": 2,
        "agent: negative right": 2,
        "chat: identical": 2,
    }


def test_what_two_random_models_say_makes_the_same_pairs_for_the_same_seed(tokenizer, monkeypatch):
    """Nothing here is scripted: untrained models verify nothing,
    and what chat pairs there are come from the annotator's noise."""
    monkeypatch.setattr(world.sandbox, "passes_tests", lambda programs: [False] * len(programs))
    settings = replace(SMALL, queries=10, margin=0.1)
    drawn = [
        preference_data(small(0), small(1), tokenizer, settings, seed=seed, device=CPU)
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] and drawn[0][0] != drawn[2][0] and drawn[0][0]
    assert drawn[0][3]["math: positive wrong"] == 2
    assert {record["domain"] for record in drawn[0][2]} == {"chat"}
    assert all(record["positive_score"] - record["negative_score"] >= 0.1 for record in drawn[0][2])


# ---- the loop ----


def toy_step(tmp_path, monkeypatch, pairs=((POSITIVE, NEGATIVE),), rehearsal=(), **how):
    """One plain step of the toy student (a = 0.3) with the toy teacher (0.5):
    (log line, student's gradient (5, 4), teacher)."""
    monkeypatch.setattr(distill, "Optimizers", PlainDescent)
    student, teacher = Fixed(0.3), Fixed(0.5)
    settings = Settings(
        **{
            "steps": 1,
            "rows": len(pairs),
            "rehearsal_rows": len(rehearsal),
            "teacher_temperature": 1.0,
            "dpo_coef": 1.0,
            "neg_coef": 1.0,
            **how,
        }
    )
    train(
        student,
        teacher,
        SimpleNamespace(pad_id=0),
        list(pairs),
        list(rehearsal),
        settings,
        seed=1,
        log=tmp_path / "toy.csv",
    )
    return (
        read_csv(tmp_path / "toy.csv")[0],
        (Fixed(0.3).logits - student.logits).detach() / 0.01,
        teacher,
    )


def test_a_step_of_two_models_has_the_toy_losses_and_gradients(tmp_path, monkeypatch):
    """The whole path from ids and masks: at step 0 the student
    is its own reference, so h = 0 and sg(-beta h) = 1/2."""
    line, gradient, teacher = toy_step(tmp_path, monkeypatch)
    assert [
        line[name] for name in ("dpo", "kl_positive", "kl_negative", "margin")
    ] == pytest.approx([LN2, 0.408530, 0.319171, 0], abs=1e-5)
    assert [line["positive_logprob"], line["negative_logprob"]] == pytest.approx(
        [-5.942274, -2.968701], abs=1e-5
    )
    _, first, second = toy_loss(reference=0.3)  # the stub has the same logits for both rows
    first[:4] += second
    assert (
        torch.allclose(gradient, first.float(), atol=1e-4)
        and (gradient[[0, 4]] == 0).all()
        and teacher.logits.grad is None
    )


def test_padding_and_order_change_no_pair(tmp_path, monkeypatch):
    """The toy pair and the same pair exchanged, in one batch: either side then holds both rows."""
    line, *_ = toy_step(tmp_path, monkeypatch, ((POSITIVE, NEGATIVE), (NEGATIVE, POSITIVE)))
    both = (3 * 0.408530 + 2 * 0.319171) / 5  # of all five tokens
    assert [line["kl_positive"], line["kl_negative"]] == pytest.approx([both, both], abs=1e-5)
    assert [line["positive_logprob"], line["negative_logprob"]] == pytest.approx(
        [(-5.942274 - 2.968701) / 2] * 2, abs=1e-5
    )


def test_rehearsal_is_the_same_divergence_on_other_rows(tmp_path, monkeypatch):
    off = {"dpo_coef": 0.0, "pos_coef": 0.0, "neg_coef": 0.0}
    line, gradient, _ = toy_step(
        tmp_path, monkeypatch, rehearsal=(NEGATIVE, NEGATIVE), rehearsal_rows=1, **off
    )
    assert line["kl_rehearsal"] == pytest.approx(0.319171, abs=1e-5) and line["loss"] == 0
    assert gradient[1].tolist() == pytest.approx(
        (-0.034123, 0.042910, 0.022910, -0.031697), abs=1e-4
    )
    assert (gradient[[0, 3, 4]] == 0).all()


def test_the_teachers_temperature_sharpens_its_distribution_alone(tmp_path, monkeypatch):
    line, *_ = toy_step(tmp_path, monkeypatch, teacher_temperature=0.5)
    sharp = token_divergence(toy(0.3, 5)[1:4], toy(0.5, 5)[1:4] / 0.5).mean().item()
    assert line["kl_positive"] == pytest.approx(sharp, abs=1e-5) and sharp > 0.5
    assert [line["positive_logprob"], line["negative_logprob"]] == pytest.approx(
        [-5.942274, -2.968701], abs=1e-5
    )


def test_training_starts_at_ln_2_and_both_divergences_fall(tokenizer, tmp_path):
    student, teacher, pairs = small(1), small(0, width=32), some_pairs(tokenizer, 6)
    with torch.no_grad():
        expected = [
            sequence_logprobs(student, tokenizer, [pair[side] for pair in pairs], CPU).mean().item()
            for side in (0, 1)
        ]
    out = train(
        student,
        teacher,
        tokenizer,
        pairs,
        [],
        Settings(steps=20, rows=6, warmup=2, dpo_coef=1.0, neg_coef=1.0),
        seed=1,
        log=tmp_path / "x.csv",
    )
    lines = read_csv(tmp_path / "x.csv")
    first, last = lines[0], lines[-1]
    assert first["dpo"] == pytest.approx(LN2, abs=1e-5)
    assert first["margin"] == pytest.approx(0, abs=1e-5)
    assert first["loss"] == pytest.approx(
        first["dpo"] + first["kl_positive"] + first["kl_negative"], abs=1e-5
    )
    assert [first["positive_logprob"], first["negative_logprob"]] == pytest.approx(
        expected, abs=1e-3
    )
    assert (
        last["kl_positive"] < 0.9 * first["kl_positive"]
        and last["kl_negative"] < 0.9 * first["kl_negative"]
    )
    assert len(lines) == 20
    assert out["kl_positive"] == pytest.approx(sum(line["kl_positive"] for line in lines) / 20)
    assert (
        out["tokens"] == last["tokens"] == 20 * sum(len(row[0]) for pair in pairs for row in pair)
        and not student.training
    )
    assert first.get("kl_rehearsal", 0) == 0


def test_with_dpo_alone_the_margin_grows(tokenizer, tmp_path):
    settings = Settings(steps=15, rows=6, warmup=2, dpo_coef=1.0, pos_coef=0.0, neg_coef=0.0)
    train(
        small(1),
        small(0),
        tokenizer,
        some_pairs(tokenizer, 6),
        [],
        settings,
        seed=1,
        log=tmp_path / "x.csv",
    )
    lines = read_csv(tmp_path / "x.csv")
    assert (
        lines[-1]["margin"] > 0.1
        and lines[-1]["accuracy"] == 1
        and lines[-1]["dpo"] == lines[-1]["loss"] < LN2 - 0.05
    )


def test_teacher_and_reference_are_unchanged_and_get_no_gradient(tokenizer, monkeypatch):
    student, teacher, seen, compute = small(1), small(0), [], distill.reference_logprobs
    monkeypatch.setattr(
        distill,
        "reference_logprobs",
        lambda model, *rest: seen.append(model) or compute(model, *rest),
    )
    before, teachers, pairs = state_of(student), state_of(teacher), some_pairs(tokenizer, 4)
    train(
        student,
        teacher,
        tokenizer,
        pairs,
        [pair[0] for pair in pairs],
        Settings(steps=3, rows=4, rehearsal_rows=2),
        seed=1,
    )
    (reference,) = seen
    assert reference is not student
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())
    assert all(torch.equal(value, teachers[name]) for name, value in teacher.state_dict().items())
    assert all(
        p.grad is None and not p.requires_grad
        for model in (teacher, reference)
        for p in model.parameters()
    )
    assert not teacher.training and not reference.training
    assert any(not torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_every_setting_reaches_the_losses(tokenizer, monkeypatch):
    seen, compute = [], distill.token_divergence
    monkeypatch.setattr(
        distill, "joint_loss", lambda *given: seen.append(given[2:]) or joint_loss(*given)
    )
    monkeypatch.setattr(
        distill,
        "token_divergence",
        lambda *logits_and_how: seen.append(logits_and_how[2:]) or compute(*logits_and_how),
    )
    asked = {
        "beta": 0.3,
        "dpo_coef": 0.4,
        "pos_coef": 0.5,
        "neg_coef": 0.6,
        "direction": "reverse",
        "temperature": 1.5,
    }
    pairs = some_pairs(tokenizer, 2)
    train(
        small(1),
        small(0),
        tokenizer,
        pairs,
        [pairs[0][0]],
        Settings(steps=1, rows=2, rehearsal_rows=1, **asked),
        seed=1,
    )
    (settings, counts), *divergences = seen
    assert {name: getattr(settings, name) for name in asked} == asked
    assert divergences == [("reverse", 1.5)] * 3
    assert counts == (2, *(sum(sum(pair[side][1]) for pair in pairs) for side in (0, 1)))


def test_a_student_that_is_its_own_teacher_learns_nothing_from_tokens(tokenizer, tmp_path):
    student, pairs = small(1), some_pairs(tokenizer, 4)
    settings = Settings(steps=1, rows=4, rehearsal_rows=4, dpo_coef=0.0, teacher_temperature=1.0)
    train(
        student,
        copy.deepcopy(student),
        tokenizer,
        pairs,
        [pair[0] for pair in pairs],
        settings,
        seed=1,
        log=tmp_path / "x.csv",
    )
    (line,) = read_csv(tmp_path / "x.csv")
    assert [
        line[name] for name in ("kl_positive", "kl_negative", "kl_rehearsal", "grad_norm")
    ] == pytest.approx([0] * 4, abs=1e-5)


def test_accumulation_is_the_large_batch(tokenizer, monkeypatch):
    monkeypatch.setattr(distill, "Optimizers", PlainDescent)
    student, teacher, pairs, ends = small(1), small(0), some_pairs(tokenizer, 8), []
    rehearsal = [pair[0] for pair in some_pairs(tokenizer, 5, seed=3)]
    start, entered = state_of(student), weights_of(student)
    for micro_pairs in (1, 3, 64):
        student.load_state_dict(start)
        out = train(
            student,
            teacher,
            tokenizer,
            pairs,
            rehearsal,
            Settings(steps=2, rows=8, rehearsal_rows=5, micro_pairs=micro_pairs),
            seed=1,
        )
        names = (
            "loss",
            "dpo",
            "kl_positive",
            "kl_negative",
            "kl_rehearsal",
            "margin",
            "positive_logprob",
            "tokens",
        )
        ends.append((weights_of(student), [out[name] for name in names]))
    for weights, logged in ends:
        assert torch.allclose(weights, ends[-1][0], atol=1e-5)
        assert logged == pytest.approx(ends[-1][1], rel=1e-4, abs=1e-4)
    assert (ends[0][0] - entered).abs().max() > 1e-3


def test_rehearsal_alone_pulls_the_student_to_the_teacher(tokenizer, tmp_path):
    pairs = some_pairs(tokenizer, 4)
    settings = Settings(
        steps=20,
        rows=2,
        rehearsal_rows=4,
        warmup=2,
        dpo_coef=0.0,
        pos_coef=0.0,
        neg_coef=0.0,
        muon_lr=0.005,
        adam_lr=0.0025,
    )
    rehearsal = [pair[0] for pair in some_pairs(tokenizer, 4, seed=3)]
    train(small(1), small(0), tokenizer, pairs, rehearsal, settings, seed=1, log=tmp_path / "x.csv")
    lines = read_csv(tmp_path / "x.csv")
    assert lines[-1]["kl_rehearsal"] < 0.8 * lines[0]["kl_rehearsal"]
    assert all(line["loss"] == 0 for line in lines)


def test_training_repeats_bit_for_bit_with_the_same_seed(tokenizer):
    pairs, ends = some_pairs(tokenizer, 6), []
    for seed in (1, 1, 2):
        student = small(1)
        train(
            student,
            small(0),
            tokenizer,
            pairs,
            [pair[0] for pair in pairs],
            Settings(steps=3, rows=2, rehearsal_rows=2),
            seed=seed,
        )
        ends.append(weights_of(student))
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_another_vocabulary_is_refused_before_anything_is_sampled(tokenizer, monkeypatch):
    monkeypatch.setattr(distill, "preference_data", lambda *rest, **how: pytest.fail("sampled"))
    student, teacher = small(1), small(0, vocabulary=300)
    for call in (
        lambda: train(student, teacher, tokenizer, some_pairs(tokenizer, 1), [], SMALL, seed=1),
        lambda: distill.distill(student, teacher, tokenizer, SMALL, seed=1),
    ):
        with pytest.raises(
            ValueError,
            match="a vocabulary of 300 tokens and the student of 768; .* needs the same tokenizer",
        ):
            call()


def test_training_without_pairs_names_the_remedy(tokenizer):
    with pytest.raises(
        ValueError,
        match="left no pair; give more queries, or a teacher that is better than the student",
    ):
        train(small(1), small(0), tokenizer, [], some_pairs(tokenizer, 1)[0], SMALL, seed=1)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tokenizer):
    student = small(1)
    with torch.no_grad():
        student.norm.weight[0] = float("nan")
    before = weights_of(student)
    with pytest.raises(FloatingPointError, match="distill: the loss is nan at step 0"):
        train(
            student,
            small(0),
            tokenizer,
            some_pairs(tokenizer, 2),
            [],
            Settings(steps=2, rows=2),
            seed=1,
        )
    assert torch.equal(weights_of(student).nan_to_num(), before.nan_to_num())


def test_the_stage_keeps_its_pairs_and_reports_its_counts(made, tokenizer, tmp_path):
    before = weights_of(made.student)
    out = distill.distill(
        made.student,
        made.teacher,
        tokenizer,
        SMALL,
        seed=1,
        data=tmp_path / "pairs.jsonl",
        log=tmp_path / "x.csv",
    )
    with open(tmp_path / "pairs.jsonl") as file:
        assert [json.loads(line) for line in file] == made.records
    assert (
        out["pairs"] == len(made.pairs)
        and out["queries"] == 60
        and out["filter"] == dict(made.counts)
        and out["rehearsal"] == len(made.rehearsal)
    )
    assert len(read_csv(tmp_path / "x.csv")) == 2
    assert not torch.equal(weights_of(made.student), before)


# ---- the command ----


@pytest.fixture
def command(tmp_path, tokenizer, monkeypatch, capsys):
    """`python distill.py` in this process with two random tiny checkpoints:
    flags -> (exit code, stdout, stderr)."""
    for name, seed in (("student", 1), ("teacher", 0)):
        save_checkpoint(tmp_path / f"{name}.pt", small(seed), tokenizer, "overall_sft")
    monkeypatch.setattr(alone, "evaluate", lambda *args, **how: {})
    monkeypatch.setattr(world.sandbox, "passes_tests", lambda programs: [False] * len(programs))

    def run(*flags):
        flags = (
            *"--smoke --threads 1 --device cpu --init".split(),
            tmp_path / "student.pt",
            "--teacher",
            tmp_path / "teacher.pt",
            "--out",
            tmp_path / "out",
            *flags,
        )
        monkeypatch.setattr(sys, "argv", ["distill.py", *map(str, flags)])
        code = 0
        try:
            distill.main()
        except SystemExit as stop:
            code = stop.code
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_the_command_leaves_a_checkpoint_a_log_and_its_pairs(command, tmp_path, tokenizer):
    code, out, err = command("--direction", "jsd")
    assert code == 0 and "pairs of 60 queries: " in out, err
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "distill.pt",
        "distill.csv",
        "distill_pairs.jsonl",
    }
    _, saved = load_checkpoint(tmp_path / "out" / "distill.pt", tokenizer)
    assert (
        saved["stage"] == "distill"
        and saved["settings"]["direction"] == "jsd"
        and saved["settings"]["steps"] == 2
    )
    assert read_csv(tmp_path / "out" / "distill.csv")[0]["dpo"] == pytest.approx(LN2, abs=1e-5)


@pytest.mark.parametrize(
    "flags, told",
    [
        (("--data", "x.jsonl"), "--data: distillation needs a verifier"),
        (("--teacher", "none.pt"), "none.pt: no such checkpoint"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_two(command, tmp_path, flags, told):
    code, _, err = command(*flags)
    assert code == 2 and err.startswith(f"error: {told}") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
