"""reward_model.py: the ranking loss with four tie rules,
where a score is read, the loop, the report and the robust reward."""

import builtins
import gzip
import itertools
import json
import math
import random
import sys
from types import SimpleNamespace

import pytest
import torch

import reward_model as rewards
from data import world
from data.files.checkpoints import save_checkpoint
from data.files.comparisons import parse_ranking
from data.files.formats import read_jsonl, read_records
from data.files.tokenizer import Reply
from data.runtime import annotator
from data.runtime.annotator import (
    annotated_rankings,
    demonstration_rows,
    likings,
    rank_outputs,
    rankings_of,
    sample_outputs,
)
from data.runtime.annotator import report as report_of
from data.runtime.measures import calibration, pair_accuracy
from data.world import chat as world_chat
from model import GPT, Config, Optimizers, learning_rate_scale
from reward_model import (
    TIES,
    RewardModel,
    Settings,
    centre,
    load_reward_model,
    overlong_penalty,
    predicted_reward,
    ranking_loss,
    repetition_penalty,
    robust_reward,
    score_rows,
    train,
)

THETA = math.log(1.5)  # Rao-Kupper's width for theta = 1.5; Davidson's width is nu itself
WIDTHS = {"drop": None, "half": None, "rao_kupper": THETA, "davidson": 1.0}
OUTCOMES = {"win": [0, 1], "lose": [1, 0], "tie": [0, 0]}


def loss_of(scores, levels, ties="drop", width=None):
    """(loss, gradient of the scores as a list, gradient of the width) of one prompt, in float64."""
    scores = torch.tensor([scores], dtype=torch.float64, requires_grad=True)
    width = None if width is None else torch.tensor(width, dtype=torch.float64, requires_grad=True)
    loss = ranking_loss(scores, torch.tensor([levels]), ties, width)
    loss.backward()
    return (
        loss.item(),
        scores.grad[0].tolist(),
        None if width is None or width.grad is None else width.grad.item(),
    )


def probabilities(d, ties, width):
    """(win, lose, tie) of two outputs whose scores lie d apart, as the rule's own losses say."""
    return [math.exp(-loss_of([d, 0.0], levels, ties, width)[0]) for levels in OUTCOMES.values()]


def near(*values):
    return pytest.approx(list(values), abs=1e-5)


def row_of(tokenizer, prompt, response):
    return tokenizer.render(
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    )


def random_rows(tokenizer, count, seed=0):
    rng = random.Random(seed)
    return [
        row_of(
            tokenizer,
            "9" * rng.randint(1, 9),
            "".join(rng.choices("0123456789", k=rng.randint(1, 12))),
        )
        for _ in range(count)
    ]


def separable(tokenizer, count, seed=0):
    """Rankings in which the response with more sevens is the better one;
    all responses are of one length."""
    rng, rankings = random.Random(seed), []
    for _ in range(count):
        sevens = rng.sample(range(6), 3)
        order = sorted(range(3), key=lambda k: -sevens[k])
        prompt = "".join(rng.choices("012", k=4))
        rows = [row_of(tokenizer, prompt, "7" * n + "3" * (5 - n)) for n in sevens]
        rankings.append({"rows": rows, "ranking": " > ".join("ABC"[k] for k in order)})
    return rankings


def report(model, tokenizer, rankings):
    return report_of(model, tokenizer, rankings, rewards.predicted_reward)


def from_file(path, tokenizer, context):
    records, dropped, notes = read_records(path, "ranking")
    return rankings_of(records, tokenizer, context, dropped), dropped, notes


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_weights(before, after):
    return before.keys() == after.keys() and all(
        torch.equal(value, after[name]) for name, value in before.items()
    )


# ---- the loss: strict pairs ----


def test_three_ranked_outputs_loss_and_gradient_vector():
    loss, gradient, _ = loss_of([2.0, 1.0, 0.0], [0, 1, 2])
    # Plackett-Luce's would be that
    assert loss == pytest.approx(0.251150, abs=1e-5) and loss != pytest.approx(0.720868, abs=1e-2)
    assert gradient == near(-0.129381, 0, 0.129381)


def test_the_loss_is_the_mean_over_all_pairs_of_the_prompt():
    """r = (2, 1, 0): gaps 1, 2, 1, so (2 * .313262 + .126928) / 3 = .251150."""
    assert loss_of([2.0, 1.0, 0.0], [0, 1, 2])[0] == pytest.approx(
        (2 * 0.3132617 + 0.1269280) / 3, abs=1e-6
    )


def test_only_the_order_of_the_levels_counts_and_no_label():
    scores, levels = [0.3, -1.2, 0.9, 0.1], [2, 0, 3, 1]
    whole, gradient, _ = loss_of(scores, levels)
    assert loss_of(scores, [10 * level + 3 for level in levels])[0] == whole
    for order in itertools.permutations(range(4)):
        loss, moved, _ = loss_of([scores[k] for k in order], [levels[k] for k in order])
        assert loss == pytest.approx(whole, abs=1e-12)
        assert moved == pytest.approx([gradient[k] for k in order], abs=1e-12)


@pytest.mark.parametrize("ties", TIES)
def test_a_constant_added_to_all_scores_changes_nothing(ties):
    scores, levels = [0.2, 0.5, 1.0, 2.0], [2, 2, 1, 0]
    loss, gradient, _ = loss_of(scores, levels, ties, WIDTHS[ties])
    moved, moved_gradient, _ = loss_of([score + 7 for score in scores], levels, ties, WIDTHS[ties])
    assert moved == pytest.approx(loss, abs=1e-9)
    assert moved_gradient == pytest.approx(gradient, abs=1e-9)
    assert sum(gradient) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_gap_of_800_the_wrong_way_stays_finite(ties, outcome):
    """-log sigmoid(-800) = 800 where log(sigmoid(-800))
    is minus infinity; Rao-Kupper adds its width."""
    loss, gradient, width = loss_of([-800.0, 0.0], OUTCOMES[outcome], ties, WIDTHS[ties])
    assert (
        math.isfinite(loss)
        and all(map(math.isfinite, gradient))
        and (width is None or math.isfinite(width))
    )
    if outcome == "win":
        assert loss == pytest.approx(800 + (THETA if ties == "rao_kupper" else 0), abs=1e-5)
        assert gradient == near(-1, 1)
    # Rao-Kupper: -log(e^2w - 1) + (800 + w), e^2w = 2.25; Davidson: 400 - log 2
    if outcome == "tie":
        expected = {
            "drop": 0,
            "half": 400,
            "rao_kupper": 800 + THETA - math.log(1.25),
            "davidson": 400 - math.log(2),
        }
        assert loss == pytest.approx(expected[ties], abs=1e-5)


# ---- the loss: ties ----

TABLE = {
    ("rao_kupper", 0.0): (0.4, 0.4, 0.2),
    ("rao_kupper", 0.7): (0.573106, 0.248717, 0.178177),
    ("rao_kupper", 2.0): (0.831253, 0.082757, 0.085990),
    ("davidson", 0.0): (0.25, 0.25, 0.5),
    ("davidson", 0.7): (0.344120, 0.170885, 0.484995),
    ("davidson", 2.0): (0.534447, 0.072329, 0.393224),
}


@pytest.mark.parametrize("ties, d", TABLE)
def test_the_three_outcomes_have_the_tables_probabilities_and_sum_to_one(ties, d):
    found = probabilities(d, ties, WIDTHS[ties])
    assert found == near(*TABLE[ties, d]) and sum(found) == pytest.approx(1, abs=1e-9)


def test_rao_kupper_with_theta_three_calls_half_of_all_equal_pairs_a_tie():
    assert probabilities(0.0, "rao_kupper", math.log(3)) == near(0.25, 0.25, 0.5)


def test_rao_kupper_with_theta_one_is_bradley_terry():
    assert probabilities(0.7, "rao_kupper", 1e-12)[0] == pytest.approx(
        1 / (1 + math.exp(-0.7)), abs=1e-9
    )


@pytest.mark.parametrize(
    "ties, expected",
    [
        ("rao_kupper", (-0.426894, 0.751283, 0.324389)),
        ("davidson", (-0.413382, 0.586617, 0.086618)),
    ],
)
def test_derivatives_by_the_gap_at_seven_tenths(ties, expected):
    assert [
        loss_of([0.7, 0.0], levels, ties, WIDTHS[ties])[1][0] for levels in OUTCOMES.values()
    ] == near(*expected)


def test_the_derivative_of_half_a_win_each_is_sigmoid_minus_a_half():
    assert loss_of([0.7, 0.0], [0, 0], "half")[1][0] == pytest.approx(
        1 / (1 + math.exp(-0.7)) - 0.5, abs=1e-9
    )


def test_rao_kupper_tie_loss_and_its_derivative_by_the_width():
    loss, _, width = loss_of([0.7, 0.0], [0, 0], "rao_kupper", THETA)
    assert loss == pytest.approx(1.724979, abs=1e-5) and width == pytest.approx(-2.421823, abs=1e-5)


RANKED = {
    "drop": (0.302566, (0.090375, 0.111993, -0.083725, -0.118644)),
    "half": (0.369531, (0.062906, 0.105735, -0.069771, -0.098870)),
    "rao_kupper": (0.623801, (0.076376, 0.145034, -0.087236, -0.134174)),
    "davidson": (0.880147, (0.108822, 0.132679, -0.076933, -0.164569)),
}


@pytest.mark.parametrize("ties", TIES)
def test_a_ranking_with_a_tie_loss_and_gradient_of_every_rule(ties):
    loss, gradient, _ = loss_of(
        [0.2, 0.5, 1.0, 2.0], parse_ranking("D > C > A = B", 4), ties, WIDTHS[ties]
    )
    assert loss == pytest.approx(RANKED[ties][0], abs=1e-5) and gradient == near(*RANKED[ties][1])


def test_half_a_win_each_costs_a_tie_its_term():
    assert loss_of([0.2, 0.5], [0, 0], "half")[0] == pytest.approx(0.704355, abs=1e-5)


def test_rao_kupper_labels_fitted_without_ties_overstate_a_gap_and_with_half_wins_understate_it():
    """At d = .7 the fits land at .7 + .134754 and at .7 - .026912;
    there the expected gradient of each rule is 0."""
    win, lose, tie = probabilities(0.7, "rao_kupper", THETA)
    for ties, fitted in (("drop", 0.834754), ("half", 0.673088)):
        slope = sum(
            p * loss_of([fitted, 0.0], levels, ties)[1][0]
            for p, levels in zip((win, lose, tie), OUTCOMES.values())
        )
        assert slope == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("ties", ["half", "rao_kupper", "davidson"])
def test_a_tie_pulls_the_scores_together(ties):
    gradient = loss_of([1.5, 0.5], [3, 3], ties, WIDTHS[ties])[1]
    assert gradient[0] > 0 > gradient[1]  # a step against it lowers the higher score
    assert loss_of([1.0, 1.0], [3, 3], ties, WIDTHS[ties])[1] == near(0, 0)


@pytest.mark.parametrize("ties", ["rao_kupper", "davidson"])
def test_a_tie_widens_the_learned_width_and_a_win_narrows_it(ties):
    assert (
        loss_of([0.1, 0.0], [0, 0], ties, WIDTHS[ties])[2]
        < 0
        < loss_of([0.1, 0.0], [0, 1], ties, WIDTHS[ties])[2]
    )


@pytest.mark.parametrize("ties", TIES)
def test_show_prints_the_numbers_of_the_loss_function(ties, capsys):
    """Scores .2, .5, 1, 2 and D > C > A = B:
    gaps 1, 1.8, 1.5, .8, .5; every rule's line by hand."""
    rewards.show()
    told = capsys.readouterr().out
    assert "levels [2, 2, 1, 0], scores r [0.2, 0.5, 1.0, 2.0]" in told

    def minus_log_sigmoid(d):
        return math.log(1 + math.exp(-d))

    gaps = {"D > C": 1.0, "D > A": 1.8, "D > B": 1.5, "C > A": 0.8, "C > B": 0.5}
    for pair, gap in gaps.items():
        value = minus_log_sigmoid(gap)
        assert f"{pair}: gap r_w - r_l = {gap:.1f}, -log sigmoid(gap) = {value:.4f}\n" in told
    width = 0.5
    strict = sum(minus_log_sigmoid(gap - width * (ties == "rao_kupper")) for gap in gaps.values())
    if ties == "rao_kupper":
        tie = (
            minus_log_sigmoid(0.3 - width) + minus_log_sigmoid(-0.3 - width) - math.log(math.e - 1)
        )
    elif ties == "davidson":
        strict = sum(
            math.log(1 + math.exp(-gap) + 2 * width * math.exp(-gap / 2)) for gap in gaps.values()
        )
        tie = math.log((math.exp(0.15) + math.exp(-0.15) + 2 * width) / (2 * width))
    else:
        tie = (minus_log_sigmoid(0.3) + minus_log_sigmoid(-0.3)) / 2 * (ties == "half")
    loss = loss_of([0.2, 0.5, 1.0, 2.0], [2, 2, 1, 0], ties, width)[0]
    assert loss == pytest.approx((strict + tie) / (5 if ties == "drop" else 6), abs=1e-6)
    assert f"{ties:10} 5 strict pairs {strict:.4f}, tie {tie:.4f}, loss {loss:.4f}\n" in told


# ---- the loss: what takes no part ----


@pytest.mark.parametrize("ties", TIES)
def test_missing_outputs_take_no_part(ties):
    scores, levels = [0.2, 0.5, 1.0, 2.0], [2, 2, 1, 0]
    loss, gradient, width = loss_of(scores, levels, ties, WIDTHS[ties])
    more, more_gradient, more_width = loss_of(
        [99.0, *scores, -99.0], [-1, *levels, -1], ties, WIDTHS[ties]
    )
    assert more == pytest.approx(loss, abs=1e-12)
    assert more_gradient == pytest.approx([0.0, *gradient, 0.0], abs=1e-12)
    assert more_width == width


@pytest.mark.parametrize("ties", TIES)
def test_a_prompt_without_a_valid_pair_counts_nothing_and_leaves_finite_gradients(ties):
    width = None if WIDTHS[ties] is None else torch.tensor(WIDTHS[ties], dtype=torch.float64)
    scores = torch.tensor(
        [[0.4, 0.1, 0.0], [3.0, 5.0, 0.0], [1.0, 2.0, 0.0]], dtype=torch.float64, requires_grad=True
    )
    alone = ranking_loss(scores[:1], torch.tensor([[0, 1, -1]]), ties, width)
    both = ranking_loss(scores, torch.tensor([[0, 1, -1], [0, -1, -1], [-1, -1, -1]]), ties, width)
    assert both.item() == pytest.approx(alone.item(), abs=1e-12)
    nothing = ranking_loss(scores, torch.full((3, 3), -1), ties, width)
    (both + nothing).backward()
    assert nothing.item() == 0 and scores.grad.isfinite().all() and (scores.grad[1:] == 0).all()


@pytest.mark.parametrize("ties", TIES)
def test_the_parts_of_a_batch_add_up_to_its_loss(ties):
    """A part divides by the whole batch's three prompts with a pair, not by its own two and one."""
    width = None if WIDTHS[ties] is None else torch.tensor(WIDTHS[ties], dtype=torch.float64)
    scores = torch.tensor([[0.4, 0.1, 0.9], [3.0, 5.0, 0.0], [1.0, 2.0, 0.0]], dtype=torch.float64)
    levels = torch.tensor([[0, 1, 1], [1, 0, -1], [0, 1, 2]])
    whole = ranking_loss(scores, levels, ties, width).item()
    parts = [
        ranking_loss(scores[part], levels[part], ties, width, count=3).item()
        for part in (slice(0, 2), slice(2, 3))
    ]
    assert sum(parts) == pytest.approx(whole, abs=1e-12)
    assert 3 * parts[1] == pytest.approx(
        ranking_loss(scores[2:], levels[2:], ties, width).item(), abs=1e-12
    )


def test_a_prompt_of_ties_alone_counts_nothing_where_ties_are_dropped():
    scores = torch.tensor([[0.4, 0.1], [3.0, 5.0]], dtype=torch.float64)
    assert ranking_loss(scores, torch.tensor([[0, 1], [0, 0]])) == ranking_loss(
        scores[:1], torch.tensor([[0, 1]])
    )


def test_every_prompt_weighs_the_same_however_many_outputs_it_has():
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.7, 0.0, 0.0]], dtype=torch.float64)
    both = ranking_loss(scores, torch.tensor([[0, 1, 2], [0, 1, -1]]))
    assert both.item() == pytest.approx((0.251150 + math.log(1 + math.exp(-0.7))) / 2, abs=1e-5)


@pytest.mark.parametrize("ties", ["rao_kupper", "davidson"])
def test_the_width_that_made_the_rankings_is_found_in_as_many_updates_as_a_stage_makes(ties):
    """20,000 pairs with known scores, drawn with width 0.4;
    100 updates at the width's own step size."""
    width, generator = 0.4, torch.Generator().manual_seed(0)
    scores = torch.randn(20000, 2, generator=generator) * 1.5
    gap = scores[:, 0] - scores[:, 1]
    if ties == "rao_kupper":
        win, loss = torch.sigmoid(gap - width), torch.sigmoid(-gap - width)
    else:
        total = (gap / 2).exp() + (-gap / 2).exp() + 2 * width
        win, loss = (gap / 2).exp() / total, (-gap / 2).exp() / total
    drawn = torch.rand(20000, generator=generator)
    levels = torch.stack([(drawn > win) & (drawn < win + loss), drawn < win], 1).long()
    tied = drawn > win + loss
    assert 0.05 < float(tied.float().mean()) < 0.5
    levels[tied] = 0
    model = torch.nn.Module()
    model.tie_raw = torch.nn.Parameter(torch.tensor(0.0))
    optimizers = Optimizers(model, Settings.lr, own_lr={"tie_raw": Settings.tie_lr})
    for step in range(100):
        ranking_loss(scores, levels, ties, torch.nn.functional.softplus(model.tie_raw)).backward()
        optimizers.step(learning_rate_scale(step, 100, Settings.warmup))
    assert float(torch.nn.functional.softplus(model.tie_raw.detach())) == pytest.approx(
        width, abs=0.03
    )


def test_an_unknown_rule_and_a_missing_width_are_refused():
    scores, levels = torch.zeros(1, 2), torch.tensor([[0, 1]])
    with pytest.raises(
        ValueError, match="ties is 'coin'; there is drop, half, rao_kupper, davidson"
    ):
        ranking_loss(scores, levels, "coin")
    for ties in ("rao_kupper", "davidson"):
        with pytest.raises(ValueError, match=f"{ties} needs a tie width"):
            ranking_loss(scores, levels, ties)


# ---- the model ----


def test_the_score_is_read_at_the_end_mark(tiny_model, tokenizer):
    model = RewardModel(tiny_model)
    ids, mask = row_of(tokenizer, "12?", "345")
    assert ids[-1] == tokenizer.end_id and mask[-1]
    with torch.no_grad():
        everywhere = model(torch.tensor([ids]))[0]
        assert predicted_reward(model, tokenizer, [(ids, mask)])[0] == everywhere[-1]
        assert (everywhere[:-1] != everywhere[-1]).all()  # no other position would give the same
    # the mark itself is read
    assert predicted_reward(model, tokenizer, [(ids[:-1] + [5], mask)])[0] != everywhere[-1]


def test_what_follows_the_end_mark_changes_no_score(tiny_model, tokenizer):
    model = RewardModel(tiny_model)
    ids, mask = row_of(tokenizer, "12?", "345")
    score = predicted_reward(model, tokenizer, [(ids, mask)])
    for tail in ([tokenizer.pad_id] * 9, [7, 8, 9], [tokenizer.end_id]):
        assert torch.allclose(
            predicted_reward(model, tokenizer, [(ids + tail, mask + [False] * len(tail))]),
            score,
            atol=1e-6,
        )
        with torch.no_grad():
            assert torch.allclose(
                model(torch.tensor([ids + tail]), torch.tensor([len(ids) - 1])), score, atol=1e-6
            )


def test_a_rows_score_does_not_depend_on_its_batch(tiny_model, tokenizer):
    model, rows = RewardModel(tiny_model), random_rows(tokenizer, 7)
    alone = torch.cat([predicted_reward(model, tokenizer, [row]) for row in rows])
    for batch in (rows, rows[:3], rows * 40):  # the last is read in two parts
        assert torch.allclose(
            predicted_reward(model, tokenizer, batch),
            (alone.repeat(40) if batch == rows * 40 else alone)[: len(batch)],
            atol=1e-6,
        )
    assert alone.unique().numel() == 7


def test_a_row_without_a_response_cannot_be_scored(tiny_model, tokenizer):
    with pytest.raises(ValueError, match="a row without a response cannot be scored"):
        predicted_reward(
            RewardModel(tiny_model), tokenizer, [([1, 2], [False, True]), ([1, 2], [False, False])]
        )


def test_the_head_starts_small_with_bias_zero_and_depends_on_its_seed_alone(tiny_model):
    wide = GPT(Config(16, 16, 1, 1024, 2, 1, 8))
    torch.manual_seed(random.randrange(10**6))
    model = RewardModel(wide, seed=3)
    assert (
        model.score.weight.std().item() == pytest.approx(1 / math.sqrt(1025), rel=0.1)
        and model.score.bias.item() == 0
    )
    assert torch.equal(RewardModel(wide, seed=3).score.weight, model.score.weight)
    assert not torch.equal(RewardModel(wide, seed=4).score.weight, model.score.weight)


@pytest.mark.parametrize("tied", [True, False])
def test_the_language_head_is_not_trained_unless_it_is_the_embedding(tokenizer, tied):
    model = RewardModel(
        GPT(Config(tokenizer.vocab_size, 64, 1, 16, 2, 1, 24, tied=tied)).init_weights(0)
    )
    score_rows(model, tokenizer, random_rows(tokenizer, 3)).sum().backward()
    assert (
        model.trunk.head.weight.requires_grad is tied
        and model.trunk.embedding.weight.grad is not None
    )
    assert (model.trunk.head.weight.grad is not None) is tied


def test_a_reward_model_comes_back_exactly(tiny_model, tokenizer, tmp_path):
    model = RewardModel(tiny_model, seed=5)
    with torch.no_grad():
        model.tie_raw.fill_(0.3)
        model.score.bias.fill_(-1.5)
    save_checkpoint(tmp_path / "rm.pt", model, tokenizer, "reward_model")
    back, rows = load_reward_model(tmp_path / "rm.pt", tokenizer), random_rows(tokenizer, 3)
    assert (
        same_weights(model.state_dict(), back.state_dict())
        and back.config == model.config
        and not back.training
    )
    assert torch.equal(
        predicted_reward(back, tokenizer, rows), predicted_reward(model, tokenizer, rows)
    )


def test_a_file_that_is_no_reward_model_is_refused_in_one_line(tiny_model, tokenizer, tmp_path):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save([1, 2], tmp_path / "list.pt")
    # a language model has no score head
    save_checkpoint(tmp_path / "policy.pt", tiny_model, tokenizer, "overall_sft")
    save_checkpoint(
        tmp_path / "other.pt",
        RewardModel(tiny_model),
        SimpleNamespace(
            fingerprint="feedfacefeedface", source=None, default_system="", json_calls=False
        ),
        "reward_model",
    )
    (tmp_path / "short.pt").write_bytes((tmp_path / "policy.pt").read_bytes()[:-1000])
    (tmp_path / "empty.pt").write_bytes(b"")
    damaged = "pt: cut off or damaged, or not a reward model of this project$"
    for name, reason in (
        ("text", damaged),
        ("short", damaged),
        ("empty", damaged),
        ("list", "pt: not a reward model"),
        ("policy", "pt: not a reward model"),
        ("missing", "no such checkpoint"),
        ("other", "another tokenizer"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            load_reward_model(tmp_path / f"{name}.pt", tokenizer)
        assert str(caught.value).startswith(f"{tmp_path / name}.pt: ")
        assert "\n" not in str(caught.value)


# ---- rankings ----


def test_outputs_closer_than_the_threshold_are_tied():
    assert rank_outputs([1.0, 3.0, 2.9, 0.2], 0.5) == "B = C > A > D"
    assert rank_outputs([0.0, 0.5], 0.5) == "B > A" and rank_outputs([0.0, 0.499], 0.5) == "B = A"
    assert rank_outputs([0.0, 0.4, 0.8], 0.5) == "C = B = A"  # neighbours are compared
    assert rank_outputs([1.0, 1.0 + world_chat.TIE_THRESHOLD - 0.01]) == "B = A"


def test_a_written_ranking_reads_back_as_the_order_of_the_likings():
    rng = random.Random(0)
    for _ in range(50):
        likings = [rng.uniform(0, 5) for _ in range(rng.randint(2, 9))]
        levels = parse_ranking(rank_outputs(likings, 0.5), len(likings))
        order = sorted(range(len(likings)), key=lambda k: -likings[k])
        assert levels[order[0]] == 0
        for before, after in zip(order, order[1:]):
            assert levels[after] - levels[before] == (likings[before] - likings[after] >= 0.5)


@pytest.mark.parametrize("outputs", [1, 0])
def test_fewer_than_two_outputs_cannot_be_ranked(tiny_model, tokenizer, outputs):
    with pytest.raises(
        ValueError, match=f"{outputs} outputs a prompt cannot be ranked; at least 2 are needed"
    ):
        sample_outputs(tiny_model, tokenizer, [[1, 2, 3]], outputs, seed=0)


def test_the_annotator_calls_the_same_response_twice_a_tie():
    """With noise of its own for each, 805 of 1,000 such pairs had a winner."""
    same, other = Reply("Sure! Oslo.", complete=True), Reply("No.", complete=True)
    for seed in range(200):
        liked = likings([same, other, same], [5.0, 1.0, 5.0], random.Random(seed))
        assert liked[0] == liked[2]
        levels = parse_ranking(rank_outputs(liked), 3)
        assert levels[0] == levels[2]


def test_the_annotator_ranks_every_prompts_own_outputs(tiny_model, tokenizer, monkeypatch):
    """With an annotator without noise the ranking
    is the order of the true scores, ties included."""
    rng, scores = random.Random(0), {}

    # at random, but one for equal replies to a prompt, as the world's own
    def score_replies(tasks, replies):
        return [
            scores.setdefault((task.prompt, reply.content, reply.complete), rng.randint(0, 5) / 5)
            for task, reply in zip(tasks, replies)
        ]

    monkeypatch.setattr(world, "score_replies", score_replies)
    monkeypatch.setattr(world_chat, "annotate", lambda score, rng, complete: score)
    rankings = annotated_rankings(tiny_model, tokenizer, prompts=6, outputs=3, seed=1)
    assert len(rankings) == 6 and len({ranking["prompt"] for ranking in rankings}) == 6
    for ranking in rankings:
        assert (
            ranking["ranking"] == ranking["again"]
            and len(ranking["responses"]) == len(ranking["true"]) == 3
        )
        best_first = sorted(set(ranking["true"]), reverse=True)
        assert parse_ranking(ranking["ranking"], 3) == [
            best_first.index(score) for score in ranking["true"]
        ]
        prompt = tokenizer.prompt(world.parse(ranking["prompt"]).messages)
        assert all(
            ids[: len(prompt)] == prompt and not any(mask[: len(prompt)]) and mask[-1]
            for ids, mask in ranking["rows"]
        )


# ---- your own file ----


def write(path, records):
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_a_file_of_rankings_scores_the_last_response_only(tokenizer, tmp_path):
    prompt = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ]
    path = write(
        tmp_path / "own.jsonl",
        [
            {"prompt": prompt, "responses": ["44", "5"], "ranking": "B > A"},
            {"prompt": "6", "responses": ["7" * 60, "8"], "ranking": "A > B"},
        ],
    )
    rankings, dropped, notes = from_file(path, tokenizer, context=40)
    assert dropped == {"longer than the context of 40 tokens": 1}
    assert [ranking["ranking"] for ranking in rankings] == ["B > A"]
    assert notes == [] and rankings[0]["opening"] == "1"
    written = [[token for token, on in zip(*row) if on] for row in rankings[0]["rows"]]
    assert written == [
        [*tokenizer.encode("44"), tokenizer.end_id],
        [*tokenizer.encode("5"), tokenizer.end_id],
    ]


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_a_file_of_pairs_is_read_as_rankings_of_two(tokenizer, tmp_path, name):
    path = write(
        tmp_path / name,
        [
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Hello!",
                "rejected": "\n\nHuman: Hi\n\nAssistant: What?",
            },
            {"prompt": "a", "chosen": "b", "rejected": "b"},
        ],
    )
    rankings, dropped, notes = from_file(path, tokenizer, context=64)
    assert dropped == {"identical pair": 1}
    assert [ranking["ranking"] for ranking in rankings] == ["A > B"]
    assert [
        tokenizer.decode([token for token, on in zip(*row) if on][:-1])
        for row in rankings[0]["rows"]
    ] == ["Hello!", "What?"]


def test_a_file_of_ties_alone_is_refused_where_ties_teach_nothing(tiny_model, tokenizer, tmp_path):
    path = write(
        tmp_path / "own.jsonl",
        [{"prompt": str(k), "responses": ["4", "5"], "ranking": "A = B"} for k in range(8)],
    )
    rankings, _, _ = from_file(path, tokenizer, context=40)
    with pytest.raises(
        ValueError, match="all of the . rankings to train on are ties, .* --ties davidson"
    ):
        rewards.reward_model(
            tiny_model, tokenizer, Settings(epochs=1, rows=2), seed=1, rankings=rankings
        )
    _, own = rewards.reward_model(
        tiny_model,
        tokenizer,
        Settings(epochs=1, rows=2, ties="davidson"),
        seed=1,
        rankings=rankings,
    )
    assert math.isfinite(own["loss"])


def test_own_rankings_of_one_prompt_are_never_trained_on_and_held_out(
    tiny_model, tokenizer, tmp_path, monkeypatch
):
    path = write(
        tmp_path / "own.jsonl",
        [
            {"prompt": str(k), "responses": [str(n), "no"], "ranking": "A > B"}
            for n in range(5)
            for k in range(40)
        ],
    )
    rankings, _, notes = from_file(path, tokenizer, context=40)
    assert len(notes) == 1 and "160 records repeat only the prompt of an earlier one" in notes[0]
    seen = {}
    monkeypatch.setattr(
        rewards,
        "train",
        lambda model, tokenizer, rankings, *_, **how: (
            seen.update(trained=rankings) or {"loss": 0.0, "tokens": 0}
        ),
    )
    monkeypatch.setattr(
        annotator,
        "report",
        lambda model, tokenizer, rankings, score, ties: seen.update(held=rankings) or {},
    )
    how = {"seed": 1, "rankings": rankings}
    model, _ = rewards.reward_model(tiny_model, tokenizer, Settings(), **how)
    rewards.held_out_report(model, tiny_model, tokenizer, Settings(), **how)
    trained, held = ({ranking["opening"] for ranking in seen[side]} for side in ("trained", "held"))
    assert not trained & held and len(trained | held) == 40 and len(seen["held"]) == 5 * len(held)


# ---- the loop ----


def test_easily_separable_rankings_are_learned(tiny_model, tokenizer, tmp_path):
    model, held_out = RewardModel(tiny_model), separable(tokenizer, 40, seed=1)
    before = report(model, tokenizer, held_out)["accuracy"]
    out = train(
        model,
        tokenizer,
        separable(tokenizer, 64),
        Settings(epochs=5, rows=8, lr=3e-3),
        seed=1,
        log=tmp_path / "rm.csv",
    )
    after = report(model, tokenizer, held_out)["accuracy"]
    assert before < 0.75, (before, after, out)
    assert after > 0.95, (before, after, out)
    assert out["accuracy"] > 0.9, (before, after, out)
    assert out["loss"] < math.log(2), (before, after, out)
    lines = (tmp_path / "rm.csv").read_text().splitlines()
    # 5 passes of 8 batches
    assert len(lines) == 1 + 40 and lines[0] == "step,grad_norm,lr_scale,tokens,loss,accuracy"


def test_the_policy_is_not_trained_with_the_reward_model(tiny_model, tokenizer):
    tiny_model.requires_grad_(False)
    before = weights_of(tiny_model)
    model = RewardModel(tiny_model)
    train(model, tokenizer, separable(tokenizer, 8), Settings(epochs=1, rows=4), seed=1)
    assert same_weights(before, tiny_model.state_dict())
    assert not any(p.requires_grad for p in tiny_model.parameters())
    assert (
        not torch.equal(model.trunk.embedding.weight, tiny_model.embedding.weight)
        and not model.training
    )


@pytest.mark.parametrize("ties", TIES)
def test_a_learned_tie_width_moves_with_the_rules_that_have_one(tiny_model, tokenizer, ties):
    rankings = separable(tokenizer, 8)
    for ranking in rankings:
        ranking["ranking"] = "A = B = C"
    rankings[0]["ranking"] = "A > B > C"  # dropping ties leaves something to learn
    model = RewardModel(tiny_model)
    before = model.tie_width.item()
    train(model, tokenizer, rankings, Settings(epochs=3, rows=8, ties=ties), seed=1)
    moved = model.tie_width.item() - before
    assert moved > 1e-4 if ties in ("rao_kupper", "davidson") else moved == 0


def test_rankings_of_unequal_length_keep_their_own_scores(tiny_model, tokenizer, monkeypatch):
    seen = {}

    def spy(scores, levels, ties, width, count):
        seen["scores"], seen["levels"] = scores.detach().clone(), levels.clone()
        return ranking_loss(scores, levels, ties, width, count)

    monkeypatch.setattr(rewards, "ranking_loss", spy)
    model = RewardModel(tiny_model)
    rows = random_rows(tokenizer, 9)
    rankings = [
        {"rows": rows[:2], "ranking": "B > A"},
        {"rows": rows[2:6], "ranking": "D > C > A = B"},
        {"rows": rows[6:], "ranking": "A > C > B"},
    ]
    expected = {
        tuple(parse_ranking(r["ranking"], len(r["rows"]))): predicted_reward(
            model, tokenizer, r["rows"]
        )
        for r in rankings
    }
    train(model, tokenizer, rankings, Settings(epochs=1, rows=3), seed=1)
    assert seen["levels"].shape == (3, 4)
    for scores, levels in zip(seen["scores"], seen["levels"].tolist()):
        own = tuple(level for level in levels if level >= 0)
        assert levels == [*own, *[-1] * (4 - len(own))]
        assert torch.allclose(scores[: len(own)], expected[own], atol=1e-5)


def test_training_repeats_with_the_same_seed(tiny_model, tokenizer):
    ends = []
    for seed in (1, 1, 2):
        model = RewardModel(tiny_model)
        train(model, tokenizer, separable(tokenizer, 12), Settings(epochs=1, rows=4), seed=seed)
        ends.append(model.state_dict())
    assert same_weights(ends[0], ends[1]) and not same_weights(ends[0], ends[2])


def test_nothing_to_train_on_and_a_loss_that_is_not_finite_are_refused(tiny_model, tokenizer):
    model = RewardModel(tiny_model)
    with pytest.raises(ValueError, match="reward_model: there is no ranking to train on"):
        train(model, tokenizer, [], Settings(), seed=1)
    with torch.no_grad():
        model.score.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="reward_model: the loss is nan at step 0"):
        train(model, tokenizer, separable(tokenizer, 4), Settings(rows=4), seed=1)


def test_centring_gives_the_demonstrations_a_mean_of_zero_and_changes_no_order(
    tiny_model, tokenizer
):
    model = RewardModel(tiny_model)
    demonstrations = random_rows(tokenizer, 20)
    others = random_rows(tokenizer, 9, seed=1)
    with torch.no_grad():
        model.score.bias.fill_(4.0)
    before = predicted_reward(model, tokenizer, others)
    centre(model, tokenizer, demonstrations)
    after = predicted_reward(model, tokenizer, others)
    assert predicted_reward(model, tokenizer, demonstrations).mean().item() == pytest.approx(
        0, abs=1e-5
    )
    assert (
        torch.allclose(before - after, (before - after)[0].expand(9), atol=1e-5)
        and (before - after)[0].abs() > 1
    )
    assert before.argsort().tolist() == after.argsort().tolist()


# ---- how good it is ----


def test_pair_accuracy_counts_strict_pairs_and_gives_equal_scores_a_half():
    assert pair_accuracy([[2.0, 1.0, 1.0]], [[0, 1, 2]]) == pytest.approx(2.5 / 3)
    assert (
        pair_accuracy([[2.0, 1.0, 0.0]], [[2, 1, 0]]) == 0
        and pair_accuracy([[2.0, 1.0, 0.0]], [[0, 1, 2]]) == 1
    )
    # a tie is no pair
    assert pair_accuracy(
        [[2.0, 1.0, 9.0], [0.0, 1.0, 0.0]], [[0, 1, -1], [0, 1, 1]]
    ) == pytest.approx((1 + 0 + 0.5) / 3)
    assert math.isnan(pair_accuracy([[2.0, 1.0]], [[1, 1]]))


def test_calibration_compares_the_favourites_predicted_and_observed_wins():
    """Gaps of log(p / (1 - p)) are predictions of p; a negative gap is a favourite that lost."""

    def gap(p):
        return math.log(p / (1 - p))

    table = calibration(
        [gap(0.55), -gap(0.55), gap(0.75), gap(0.75), -gap(0.75), gap(0.75), gap(0.95), 1000.0]
    )
    assert [row["pairs"] for row in table] == [2, 4, 2]
    assert [row["observed"] for row in table] == [0.5, 0.75, 1.0]
    assert [row["predicted"] for row in table] == pytest.approx([0.55, 0.75, 0.975], abs=1e-9)
    assert calibration([]) == []


def test_a_length_lover_is_right_where_the_longer_output_won_and_wrong_where_it_lost(
    tokenizer, monkeypatch
):
    monkeypatch.setattr(
        rewards,
        "predicted_reward",
        lambda model, tokenizer, rows: torch.tensor([float(sum(mask)) for _, mask in rows]),
    )
    long, short = row_of(tokenizer, "1", "7" * 12), row_of(tokenizer, "1", "7" * 2)
    longish = row_of(tokenizer, "1", "7" * 11)
    rankings = [{"rows": [long, short], "ranking": "A > B"}] * 3 + [
        {"rows": [long, short], "ranking": "B > A"}
    ]
    rankings += [{"rows": [long, longish], "ranking": "A > B"}]
    out = report(SimpleNamespace(tie_width=torch.tensor(0.5)), tokenizer, rankings)
    assert (
        out["accuracy_longer_won"],
        out["accuracy_shorter_won"],
        out["accuracy_same_length"],
    ) == (1.0, 0.0, 1.0)
    assert out["accuracy"] == pytest.approx(4 / 5) and "annotator_agreement" not in out


def test_equal_scores_are_half_right_by_length_too(tokenizer, monkeypatch):
    monkeypatch.setattr(
        rewards, "predicted_reward", lambda model, tokenizer, rows: torch.zeros(len(rows))
    )
    rows = [row_of(tokenizer, "1", "7" * 12), row_of(tokenizer, "1", "7" * 2)]
    out = report(
        SimpleNamespace(tie_width=torch.tensor(0.5)),
        tokenizer,
        [{"rows": rows, "ranking": "A > B"}],
    )
    assert (out["accuracy"], out["accuracy_longer_won"], out["accuracy_shorter_won"]) == (
        0.5,
        0.5,
        None,
    )


def test_the_ceiling_is_the_annotators_agreement_with_itself(tokenizer, monkeypatch):
    """First day A > B > C, second day A > B = C:
    of three pairs two are kept and one is a tie, worth half."""
    monkeypatch.setattr(
        rewards, "predicted_reward", lambda model, tokenizer, rows: torch.tensor([3.0, 2.0, 1.0])
    )
    ranking = {
        "rows": random_rows(tokenizer, 3),
        "ranking": "A > B > C",
        "again": "A > B = C",
        "true": [1.0, 5.0, 0.0],
    }
    out = report(SimpleNamespace(tie_width=torch.tensor(0.5)), tokenizer, [ranking])
    assert out["annotator_agreement"] == pytest.approx(2.5 / 3) and out["accuracy"] == 1.0
    assert out["true_accuracy"] == pytest.approx(2 / 3)  # the truth is B > A > C


# ---- the robust reward ----


def reward_of(domain="math", **how):
    usual = {
        "verified": 1.0,
        "learned": None,
        "complete": True,
        "truncated": False,
        "tokens": [1, 2, 3],
        "longest": 64,
    }
    return robust_reward(domain, **usual | how)


DOMAINS = ("math", "stem", "code", "agent", "chat")


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_truncated_response_is_masked_whatever_else_holds(domain):
    for verified, learned, complete in itertools.product(
        (0.0, 1.0, None), (-3.0, 3.0, None), (True, False)
    ):
        assert (
            reward_of(domain, verified=verified, learned=learned, complete=complete, truncated=True)
            is None
        )


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_missing_end_replaces_the_score_by_minus_one(domain):
    """Scores (.8, .3) of which the second lacks its end become (.8, -1);
    subtracting would give (.8, -.7)."""
    for verified, learned in itertools.product((0.0, 1.0, None), (-3.0, 3.0, None)):
        assert reward_of(domain, verified=verified, learned=learned, complete=False) == -1


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_nobody_could_check_is_masked_and_not_punished(domain):
    assert reward_of(domain, verified=None, learned=None if domain == "chat" else 2.0) is None


def test_a_clean_verified_response_gets_exactly_the_verdict():
    for domain in DOMAINS[:4]:
        assert reward_of(domain, verified=1.0) == 1 and reward_of(domain, verified=0.0) == 0


def test_chat_gets_the_learned_score_squashed_and_ignores_the_truth():
    assert reward_of("chat", verified=None, learned=1.0) == pytest.approx(math.tanh(0.5))
    assert reward_of("chat", verified=0.0, learned=1.0) == reward_of(
        "chat", verified=1.0, learned=1.0
    )
    assert reward_of("chat", learned=1e9) == 1 and reward_of("chat", learned=-1e9) == -1


SHAPES = (
    [1, 2, 3],
    [5] * 12,
    [1, 2] * 20,
    list(range(48)),
    list(range(56)),
    list(range(64)),
    [7] * 64,
    [],
)


def test_wrong_never_beats_right_whatever_the_shaping():
    """With lambda = .2 the best wrong response gets .2 and the worst right one .8."""
    grid = list(itertools.product(DOMAINS[:4], (None, -1e9, -2.0, 0.0, 2.0, 1e9), SHAPES))
    wrong, right = (
        [
            reward_of(domain, verified=verdict, learned=learned, tokens=tokens)
            for domain, learned, tokens in grid
        ]
        for verdict in (0.0, 1.0)
    )
    assert (
        max(wrong) == pytest.approx(0.2)
        and min(right) == pytest.approx(0.8)
        and max(wrong) < min(right)
    )
    assert min(wrong) > rewards.MISSING_END


def test_shaping_prefers_the_short_the_varied_and_the_liked():
    clean = reward_of("math")
    for worse in ({"tokens": [5] * 12}, {"tokens": list(range(60))}, {"learned": -1.0}):
        assert reward_of("math", **worse) < clean
    assert reward_of("math", learned=1.0) == pytest.approx(clean + 0.2 * math.tanh(0.5))
    assert reward_of("chat", learned=1.0, tokens=[5] * 12) < reward_of("chat", learned=1.0)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_learned_score_that_is_not_a_number_stays_visible(domain):
    assert math.isnan(reward_of(domain, learned=float("nan")))


@pytest.mark.parametrize(
    "tokens, expected",
    [([5] * 5, -0.75), ([1, 2, 1, 2, 1], -0.5), ([1, 2, 3, 4], 0), ([1], 0), ([], 0)],
)
def test_repetition_vectors(tokens, expected):
    assert repetition_penalty(tokens, n=2) == pytest.approx(expected)


@pytest.mark.parametrize(
    "length, expected", [(16384, 0), (18432, -0.5), (20480, -1), (20481, -1), (1, 0), (10**9, -1)]
)
def test_overlong_vectors(length, expected):
    assert overlong_penalty(length, 20480, 4096) == pytest.approx(expected)


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_a_limit_below_four_tokens_leaves_no_margin_and_only_what_is_longer_is_punished(longest):
    assert (
        overlong_penalty(longest, longest, 0) == 0
        and overlong_penalty(longest + 1, longest, 0) == -1
    )
    assert reward_of("math", tokens=list(range(longest)), longest=longest) == 1
    assert reward_of("chat", learned=0.0, tokens=list(range(longest)), longest=longest) == 0


# ---- the command ----


def run_command(monkeypatch, capsys, *flags):
    """(exit code, stdout, stderr) of `python reward_model.py` in this process."""
    monkeypatch.setattr(
        sys, "argv", ["reward_model.py", "--threads", "1", "--device", "cpu", *map(str, flags)]
    )
    code = 0
    try:
        rewards.main()
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.fixture
def checkpoint(tiny_model, tokenizer, tmp_path):
    save_checkpoint(tmp_path / "sft.pt", tiny_model, tokenizer, "overall_sft")
    return tmp_path / "sft.pt"


GOOD = {
    "prompt": "Name a planet.",
    "responses": ["Pluto", "The Sun", "Mars"],
    "ranking": "C > A = B",
}
BAD = {
    "json": ('{"prompt": "a", ', ":2: broken JSON"),
    "label": (json.dumps(GOOD | {"ranking": "C > A = D"}), ":2: ranking"),
    "twice": (json.dumps(GOOD | {"ranking": "C > A = A"}), ":2: ranking"),
    "left out": (json.dumps(GOOD | {"ranking": "C > A"}), ":2: ranking"),
    "keys": ('{"question": "a", "answer": "b"}', ":2: no ranking layout fits"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_ranking_is_named_with_its_line(name, checkpoint, tmp_path, monkeypatch, capsys):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + BAD[name][0] + "\n")
    code, _, err = run_command(
        monkeypatch, capsys, "--data", path, "--init", checkpoint, "--out", tmp_path / "out"
    )
    assert code == 2, err
    assert err.startswith(f"error: {path}{BAD[name][1]}"), err
    assert err.count("\n") == 1, err


def test_a_missing_file_is_named(checkpoint, tmp_path, monkeypatch, capsys):
    code, _, err = run_command(
        monkeypatch,
        capsys,
        "--data",
        tmp_path / "none.jsonl",
        "--init",
        checkpoint,
        "--out",
        tmp_path / "out",
    )
    assert code == 2 and err.startswith("error: ") and "none.jsonl" in err and err.count("\n") == 1


@pytest.mark.parametrize("outputs", [1, 0, 27])
def test_a_number_of_outputs_that_cannot_be_ranked_is_refused(
    outputs, tmp_path, monkeypatch, capsys
):
    code, out, err = run_command(
        monkeypatch, capsys, "--outputs", outputs, "--out", tmp_path / "out"
    )
    assert (
        code == 2
        and err.startswith(f"error: --outputs {outputs}: ")
        and err.count("\n") == 1
        and out == ""
    )


@pytest.mark.parametrize("ties", TIES)
def test_own_rankings_are_trained_on_and_leave_a_reward_model_and_a_log(
    ties, checkpoint, tokenizer, tmp_path, monkeypatch, capsys
):
    path = write(
        tmp_path / "own.jsonl", [GOOD | {"prompt": f"Name {n} planets."} for n in range(5)]
    )
    code, out, err = run_command(
        monkeypatch,
        capsys,
        "--data",
        path,
        "--init",
        checkpoint,
        "--ties",
        ties,
        "--out",
        tmp_path / "out",
    )
    assert code == 0 and "accuracy " in out and "calibration " in out, err
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "reward_model.pt",
        "reward_model.csv",
        "reward_model.json",
    }
    load_reward_model(tmp_path / "out" / "reward_model.pt", tokenizer)


def test_held_out_ties_alone_are_said_to_have_no_accuracy(
    checkpoint, tmp_path, monkeypatch, capsys
):
    path = write(
        tmp_path / "own.jsonl",
        [GOOD | {"prompt": f"Name {n} planets.", "ranking": "A = B = C"} for n in range(5)],
    )
    code, out, err = run_command(
        monkeypatch,
        capsys,
        "--data",
        path,
        "--init",
        checkpoint,
        "--ties",
        "davidson",
        "--out",
        tmp_path / "out",
    )
    assert code == 0 and out.count("no strict pair is held out, so no accuracy\n") == 1, err
    assert "nan" not in out and "\ncalibration" not in out


def test_too_few_prompts_are_told_with_what_was_dropped(checkpoint, tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "own.jsonl", [GOOD | {"responses": ["a", "a", "a"]}] * 3)
    code, _, err = run_command(
        monkeypatch, capsys, "--data", path, "--init", checkpoint, "--out", tmp_path / "out"
    )
    assert (
        code == 2
        and err.count("\n") == 1
        and err.startswith(
            f"error: {path}: 0 different prompts are left "
            "(dropped 3 records: 3 equal responses); two are"
        )
    )


def test_a_typed_ranking_is_kept_and_can_be_trained_on(checkpoint, tmp_path, monkeypatch, capsys):
    # the first leaves out B and is asked again; the last prompt is skipped
    lines = iter(["D > C > A", "D > C > A = B", ""])

    def typed(_):
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr(builtins, "input", typed)
    code, out, _ = run_command(monkeypatch, capsys, "--rank", checkpoint, "--out", tmp_path / "out")
    assert code == 0 and "leaves out B" in out
    kept = read_jsonl(tmp_path / "out" / "rankings_by_hand.jsonl")
    assert [record["ranking"] for record in kept] == ["D > C > A = B"]
    assert len(kept[0]["responses"]) == 4
    read_records(tmp_path / "out" / "rankings_by_hand.jsonl", "ranking")


def test_the_whole_stage_runs_and_hands_over_its_rankings(tiny_model, tokenizer, tmp_path):
    settings = Settings(prompts=6, outputs=3, epochs=1, rows=3, held_out=4)
    model, own = rewards.reward_model(
        tiny_model,
        tokenizer,
        settings,
        seed=1,
        data=tmp_path / "rankings.jsonl",
        log=tmp_path / "rm.csv",
    )
    assert own["rankings"] == len(read_jsonl(tmp_path / "rankings.jsonl")) == 6
    assert math.isfinite(own["loss"])
    held_out = rewards.held_out_report(model, tiny_model, tokenizer, settings, seed=1)
    assert 0 <= held_out["annotator_agreement"] <= 1 and 0 <= held_out["accuracy"] <= 1
    demonstrations = demonstration_rows(tokenizer, 1)
    assert predicted_reward(model, tokenizer, demonstrations).mean().item() == pytest.approx(
        0, abs=1e-4
    )


def test_keys_of_own_rankings_that_are_not_used_are_printed_once(
    checkpoint, tmp_path, monkeypatch, capsys
):
    path = write(
        tmp_path / "own.jsonl",
        [
            {"prompt": str(k), "responses": ["4", "5"], "ranking": "A > B", "id": k}
            for k in range(20)
        ],
    )
    code, out, err = run_command(
        monkeypatch, capsys, "--data", path, "--init", checkpoint, "--out", tmp_path / "out"
    )
    assert code == 0 and out.count(f"{path}: ignored keys: 'id' 20 times\n") == 1, err
