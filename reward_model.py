"""The reward model, learned from rankings with ties, and the robust reward system that multi-stage RL is trained on.

Step 2 of RLHF: the SFT LLM is sampled (`sample_outputs`, K outputs a prompt), the outputs are ranked (`rank_outputs`,
D > C > A = B), and the reward model, the SFT LLM's trunk with a scalar head read at the end mark, learns the rankings:

    L = - mean over the strict pairs (w, l) of one prompt of log sigmoid(r_w - r_l)     (InstructGPT, 2203.02155, eq. 1)

All pairs of a prompt are one batch element: K forwards give K (K-1) / 2 pairs, and no output is seen more often than
another. What a tie is worth is a choice: `drop` (InstructGPT), `half` (half a win each), `rao_kupper` and `davidson` (models in
which a tie has a probability of its own, with a learned width). The ranker here is a SIMULATED annotator, the tiny world's
rubric plus noise; `--rank CHECKPOINT` puts a person in its place.

Left out: Plackett-Luce (needs a full order), ensembles, margins, a process reward for single steps.

    python reward_model.py                        trains on the tiny SFT model's outputs and reports on held-out rankings
    python reward_model.py --ties davidson        with another tie rule
    python reward_model.py --rank CHECKPOINT      you are the annotator: outputs in the terminal, one line typed each
    python reward_model.py --data FILE            on your rankings, or on chosen/rejected pairs (formats: data/files/formats.py)

Watch: `accuracy` on held-out rankings against the annotator's agreement with itself (two noisy rankings) and against
`ceiling`, what the true rubric would reach against one noisy ranking; the calibration
(a predicted win rate of 0.8 should win 80%); the accuracy where the longer output lost, which a length lover fails.
"""

import copy
import math
import random
import string
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import world
from data.files import formats, writing
from data.files.checkpoints import key_of_run, once, tokenizer_of
from data.files.formats import parse_ranking
from data.files.writing import write_csv
from data.runtime.command import ask, command, common_flags, out_folder
from data.runtime.decoding import generate
from data.runtime.devices import autocast, micro_batches, parallel, progress, seed_of, start, summed
from data.runtime.evaluation import sampled_rows
from data.runtime.measures import calibration, pair_accuracy, pairs_of, right_pairs
from data.runtime.rows import Row, check_prompts, pad_rows, ranking_rows, split
from data.runtime.sizes import sized
from data.world import chat as world_chat
from model import GPT, Optimizers, learning_rate_scale, load_checkpoint
from sft import starting_model

TIES = ("drop", "half", "rao_kupper", "davidson")


@dataclass(frozen=True)
class Settings:
    # held-out accuracy with 800, 2400 and 4800 prompts: 64, 72 and 75% (one seed; the annotator with itself 84)
    prompts: int = 3200
    outputs: int = 4  # K a prompt
    epochs: int = 2  # each output is seen twice; of 2400 prompts three passes gave 71% and one 70
    rows: int = 16  # prompts a batch
    micro_prompts: int = 16  # prompts of one forward; a larger batch is accumulated
    lr: float = 1e-3  # AdamW on embeddings, norms and the scalar head
    muon_lr: float | None = 0.005  # the trunk's matrices; AdamW on them all alike is as good
    tie_lr: float = 0.05  # of the tie width, which has 100 updates to get from 0.7 to anywhere between 0 and 3
    ties: str = "drop"  # measured beside the others in tests/experiments/ties.py
    warmup: int = 5
    held_out: int = 200  # prompts


# ---- the loss ----

def ranking_loss(scores: Tensor, levels: Tensor, ties: str = "drop", width: Tensor | None = None, count: int | None = None) -> Tensor:
    """Mean over the prompts of the mean over a prompt's valid pairs; scores and levels (B, K), level 0 is the best.

    Equal levels are a tie; a level below 0 marks an output that is not there. With d = r_i - r_j and width w > 0:
    "drop" ties count nothing; "half" -log sigmoid(d)/2 - log sigmoid(-d)/2 (Christiano et al., 1706.03741);
    "rao_kupper" P(i>j) = sigmoid(d - w), P(tie) = (e^2w - 1) sigmoid(d - w) sigmoid(-d - w), w = log theta;
    "davidson" P(i>j) = e^(d/2) / Z, P(tie) = 2w / Z, Z = e^(d/2) + e^(-d/2) + 2w.
    A prompt without a valid pair counts nothing (ours: InstructGPT does not print its denominator under ties). `count` is
    `prompts_with_pairs` of the whole optimizer batch, where this is only a part of it. Raises ValueError for an unknown rule, or a
    missing width.
    """
    if ties not in TIES:
        raise ValueError(f"ties is {ties!r}; there is {', '.join(TIES)}")
    if ties in ("rao_kupper", "davidson") and width is None:
        raise ValueError(f"{ties} needs a tie width")
    i, j = torch.triu_indices(scores.shape[1], scores.shape[1], 1, device=scores.device)
    there = (levels[:, i] >= 0) & (levels[:, j] >= 0)  # (B, pairs)
    tie = there & (levels[:, i] == levels[:, j])
    sign = torch.where(levels[:, i] < levels[:, j], 1.0, -1.0)
    gap = (scores[:, i] - scores[:, j]) * sign  # winner minus loser
    if ties == "rao_kupper":
        win = -F.logsigmoid(gap - width)
        even = -torch.log(torch.expm1(2 * width)) - F.logsigmoid(gap - width) - F.logsigmoid(-gap - width)
    elif ties == "davidson":
        log_z = torch.logsumexp(torch.stack([gap / 2, -gap / 2, torch.log(2 * width).expand_as(gap)]), 0)
        win, even = log_z - gap / 2, log_z - torch.log(2 * width)
    else:
        win, even = -F.logsigmoid(gap), -(F.logsigmoid(gap) + F.logsigmoid(-gap)) / 2
    valid = there & ~tie if ties == "drop" else there
    losses = torch.where(valid, torch.where(tie, even, win), 0.0)
    return (losses.sum(1) / valid.sum(1).clamp(min=1)).sum() / max(1, prompts_with_pairs(levels, ties) if count is None else count)


def prompts_with_pairs(levels: Tensor, ties: str = "drop") -> int:
    """How many of the prompts of levels (B, K) have a pair that counts under the tie rule."""
    if ties == "drop":
        worst, best = levels.amax(1), torch.where(levels < 0, levels.shape[1], levels).amin(1)
        return int((worst > best).sum())
    return int(((levels >= 0).sum(1) >= 2).sum())


# ---- the model ----

class RewardModel(nn.Module):
    """A trunk with one number per position. As reward model it is read at the response's last token, as critic everywhere."""

    def __init__(self, trunk: GPT, seed: int = 0):
        super().__init__()
        self.config = trunk.config
        self.trunk = copy.deepcopy(trunk).requires_grad_(True)
        self.score = nn.Linear(trunk.config.width, 1)
        with torch.no_grad():  # N(0, 1/sqrt(d+1)), bias 0 (Stiennon et al., 2009.01325)
            generator = torch.Generator().manual_seed(seed)
            self.score.weight.copy_(torch.randn(self.score.weight.shape, generator=generator) / math.sqrt(trunk.config.width + 1))
            self.score.bias.zero_()
        self.tie_raw = nn.Parameter(torch.tensor(0.0), requires_grad=False)  # learned where the rule for ties has a width
        self.to(next(trunk.parameters()).device)
        for parameter in self.trunk.head.parameters():  # the language head is not used here
            parameter.requires_grad_(self.config.tied)

    @property
    def tie_width(self) -> Tensor:
        return F.softplus(self.tie_raw)

    def forward(self, ids: Tensor, last: Tensor | None = None) -> Tensor:
        """What the head reads from the hidden states of ids (N, S): a critic's values at all positions (N, S), or with last (N,) a
        reward model's scores (N,), each at that position of its row, the end mark. What stands after it changes nothing."""
        with autocast(ids.device):
            hidden = self.trunk.hidden(ids)
        if last is not None:
            hidden = hidden[torch.arange(len(ids), device=ids.device), last]
        with torch.autocast(ids.device.type, enabled=False):  # also within a caller's: bfloat16 would round close scores to ties
            return self.score(hidden.float())[..., 0]


def score_rows(model: nn.Module, tokenizer, rows: list[Row]) -> Tensor:
    """Predicted rewards (N,) of rows; a row without a response token raises ValueError."""
    if not all(any(mask) for _, mask in rows):
        raise ValueError("a row without a response cannot be scored")
    device = next(model.parameters()).device
    last = torch.tensor([len(mask) - 1 - mask[::-1].index(True) for _, mask in rows], dtype=torch.long, device=device)
    return model(pad_rows([row[0] for row in rows], tokenizer.pad_id, device=device), last)


def predicted_reward(reward_model: RewardModel, tokenizer, rows: list[Row]) -> Tensor:
    """The reward model's scores (N,) without gradient."""
    reward_model.eval()
    with torch.no_grad():
        return torch.cat([score_rows(reward_model, tokenizer, rows[i:i + 256]) for i in range(0, len(rows), 256)])


def load_reward_model(path, tokenizer, device="cpu") -> RewardModel:
    """Raises ValueError in one line for a file that is no reward model of this project."""
    return load_checkpoint(path, tokenizer, device, lambda config: RewardModel(GPT(config)), "reward model")[0].eval()


# ---- rankings ----

def sample_outputs(model: GPT, tokenizer, prompts: list[list[int]], outputs: int, seed: int) -> list[list[Row]]:
    """K responses of the SFT LLM to each prompt."""
    if outputs < 2:
        raise ValueError(f"{outputs} outputs a prompt cannot be ranked; at least 2 are needed")
    rows = sampled_rows(prompts, generate(model, tokenizer, prompts, n=outputs, seed=seed))
    return [rows[i:i + outputs] for i in range(0, len(rows), outputs)]


def rank_outputs(likings: list[float], threshold: float = world_chat.TIE_THRESHOLD) -> str:
    """The ranking of outputs A, B, C, ... by how much they are liked: `D > C > A = B`.

    Neighbours that lie less than `threshold` apart are written `=`.
    """
    order = sorted(range(len(likings)), key=lambda k: -likings[k])
    text = string.ascii_uppercase[order[0]]
    for before, k in zip(order, order[1:]):
        text += (" = " if likings[before] - likings[k] < threshold else " > ") + string.ascii_uppercase[k]
    return text


def likings(replies: list, true: list[float], rng: random.Random) -> list[float]:
    """How much the simulated annotator likes each reply; the same reply twice is liked alike, and so is a tie."""
    liked = {}
    for reply, score in zip(replies, true):
        key = (reply.content, reply.complete)
        if key not in liked:
            liked[key] = world_chat.annotate(score, rng, reply.complete)
    return [liked[reply.content, reply.complete] for reply in replies]


def annotated_rankings(model: GPT, tokenizer, *, prompts: int, outputs: int, seed: int, part: str = "train") -> list[dict]:
    """Chat prompts with K outputs of the model, ranked by the simulated annotator: {"rows", "ranking", "again", "true", ...}.

    "again" is the same annotator's ranking on another day, for its agreement with itself; "true" the rubric's scores.
    """
    rng = world.generator(seed, "reward_model", part)
    tasks = world.draw_tasks(rng, ("chat",), prompts, part)
    groups = sample_outputs(model, tokenizer, [tokenizer.prompt(task.messages) for task in tasks], outputs, seed_of(seed, "sample_outputs", part))
    rankings = []
    for task, rows in zip(tasks, groups):
        replies = [tokenizer.read_reply([token for token, on in zip(*row) if on]) for row in rows]
        true = [5 * score for score in world.score_replies([task] * outputs, replies)]
        first, again = (rank_outputs(likings(replies, true, rng)) for _ in range(2))
        rankings.append({"prompt": task.prompt, "responses": [reply.content for reply in replies], "ranking": first, "again": again,
                         "true": true, "rows": rows})
    return rankings


def from_file(path, tokenizer, context: int) -> tuple[list[dict], dict, list[str]]:
    """(a file of rankings, or of chosen/rejected pairs, as rankings with rows; how many were
    dropped for which reason; the reader's notes)."""
    records, dropped, notes = formats.read_records(path, "ranking")
    return rankings_of(records, tokenizer, context, dropped), dropped, notes


def rankings_of(records: list[dict], tokenizer, context: int, dropped: dict) -> list[dict]:
    """Records of kind "ranking" with their rows and what their dialogue opens with; those that are
    left out are counted in `dropped`."""
    kept, left_out = ranking_rows(tokenizer, records, context)
    dropped.update(left_out)
    return [{"ranking": record["ranking"], "rows": rows,
             "opening": formats.opening(record["prompt"])} for record, rows in kept]


# ---- the loop ----

def train(model: RewardModel, tokenizer, rankings: list[dict], settings: Settings, *, seed: int, stage: str = "reward_model",
          log: Path | None = None) -> dict:
    """`settings.epochs` passes over the rankings; returns {"loss", "accuracy", "tokens", "seconds"} (the last 10 steps' means).

    Raises ValueError without a ranking, and FloatingPointError when the loss is not finite.
    """
    if not rankings:
        raise ValueError(f"{stage}: there is no ranking to train on")
    if settings.ties == "drop" and not any(">" in ranking["ranking"] for ranking in rankings):
        raise ValueError(f"{stage}: all of the {len(rankings)} rankings to train on are ties, and the "
                         "rule `drop` learns nothing from a tie; give rankings with > in them, or "
                         "another rule, e.g. --ties davidson")
    rng, device = random.Random(seed_of(seed, stage, "batches")), model.score.weight.device
    size = min(settings.rows, len(rankings))
    steps = settings.epochs * (len(rankings) // size)
    model.tie_raw.requires_grad_(settings.ties in ("rao_kupper", "davidson"))
    network, optimizers = parallel(model), Optimizers(model, settings.lr, settings.muon_lr, own_lr={"tie_raw": settings.tie_lr})
    order, lines, tokens, began = [], [], 0, time.perf_counter()
    model.train()
    bar = progress(range(steps), stage)
    for step in bar:
        if len(order) < size:
            order += rng.sample(range(len(rankings)), len(rankings))
        batch, order = [rankings[k] for k in order[:size]], order[size:]
        most = max(len(ranking["rows"]) for ranking in batch)
        all_levels = [parse_ranking(ranking["ranking"], len(ranking["rows"])) for ranking in batch]
        all_levels = pad_rows([levels + [-1] * (most - len(levels)) for levels in all_levels], -1, device=device)  # (B, K)
        count, sums = prompts_with_pairs(all_levels, settings.ties), {"loss": 0.0, "right": 0.0, "pairs": 0}
        for part in micro_batches(list(range(size)), settings.micro_prompts, network):
            levels = all_levels[part]
            flat = score_rows(network, tokenizer, [row for k in part for row in batch[k]["rows"]])
            scores = torch.zeros(levels.shape, device=device).masked_scatter(levels >= 0, flat)  # (B, K)
            loss = ranking_loss(scores, levels, settings.ties, model.tie_width, count)
            loss.backward()
            right, pairs = right_pairs(scores.detach().tolist(), levels.tolist())
            sums = {"loss": sums["loss"] + float(loss.detach()), "right": sums["right"] + right, "pairs": sums["pairs"] + pairs}
        sums = summed(sums)
        sums = {"loss": sums["loss"], "accuracy": sums["right"] / sums["pairs"] if sums["pairs"] else math.nan}
        if not math.isfinite(sums["loss"]):
            raise FloatingPointError(f"{stage}: the loss is {sums['loss']} at step {step}")
        scale = learning_rate_scale(step, steps, settings.warmup)
        norm = optimizers.step(scale)
        tokens += sum(len(row[0]) for ranking in batch for row in ranking["rows"])
        lines.append({"step": step, "grad_norm": norm, "lr_scale": scale, "tokens": tokens, **sums})
        bar.set_postfix_str(f"loss {sums['loss']:.3f}, accuracy {sums['accuracy']:.2f}")
    model.eval()
    if log is not None:
        write_csv(log, lines)
    recent = lines[-10:]
    return {name: sum(line[name] for line in recent) / len(recent) for name in ("loss", "accuracy")} | {
        "tokens": tokens, "seconds": time.perf_counter() - began}


@torch.no_grad()
def centre(model: RewardModel, tokenizer, rows: list[Row]) -> None:
    """Shift the rewards so that these demonstrations average 0 (InstructGPT, App. C; a constant changes no ranking)."""
    model.score.bias -= predicted_reward(model, tokenizer, rows).mean()


def demonstration_rows(tokenizer, seed: int, count: int = 200) -> list[Row]:
    rng = world.generator(seed, "reward_model", "demonstrations")
    return [tokenizer.render(world.demonstration(task, rng)["messages"]) for task in world.draw_tasks(rng, ("chat",), count)]


def reward_model(policy: GPT, tokenizer, settings: Settings, *, seed: int, rankings: list[dict] | None = None, data: Path | None = None,
                 log: Path | None = None) -> tuple[RewardModel, dict]:
    """Step 2 of RLHF as one stage: outputs, rankings, training, shift; (the model, what it measured while training). How good it is
    on held-out rankings is `held_out_report`.

    Of `rankings` that are given a tenth is held out, and the shift is by their own responses, as there are no demonstrations.
    Raises ValueError where all of them are ties and the rule `drop` learns nothing from ties.
    """
    began, given = time.perf_counter(), rankings
    rankings = rankings_of_part(policy, tokenizer, settings, seed, "train", given)
    if given is not None:
        shift = [row for ranking in rankings for row in ranking["rows"]]
    else:
        shift = demonstration_rows(tokenizer, seed)
        if data is not None:
            writing.write_jsonl(data, [{key: value for key, value in ranking.items() if key != "rows"} for ranking in rankings])
    model = RewardModel(policy, seed_of(seed, "reward_model"))
    measured = train(model, tokenizer, rankings, settings, seed=seed, log=log)
    centre(model, tokenizer, shift)
    return model, {"loss": measured["loss"], "tokens": measured["tokens"], "rankings": len(rankings), "seconds": time.perf_counter() - began}


def rankings_of_part(policy: GPT, tokenizer, settings: Settings, seed: int, part: str, given: list[dict] | None = None) -> list[dict]:
    """The rankings that are trained on ("train") or held out ("test"): made with the policy's outputs, or nine tenths and a tenth of those given."""
    if given is None:
        prompts = {"train": settings.prompts, "test": settings.held_out}[part]
        return annotated_rankings(policy, tokenizer, prompts=prompts, outputs=settings.outputs, seed=seed, part=part)
    openings = [ranking["opening"] for ranking in given]
    trained_on, held_out = split("reward_model", given, openings, 10)
    return held_out if part == "test" else trained_on


# ---- how good it is ----

def held_out_report(model: RewardModel, policy: GPT, tokenizer, settings: Settings, *, seed: int, rankings: list[dict] | None = None) -> dict:
    """`report` on the rankings that `reward_model` has held out."""
    return report(model, tokenizer, rankings_of_part(policy, tokenizer, settings, seed, "test", rankings), settings.ties)


def report(model: RewardModel, tokenizer, rankings: list[dict], ties: str = "drop") -> dict:
    """Held-out accuracy by the annotator and by the true rubric, the annotator's agreement with itself, the ceiling (what a scorer
    that knows the truth reaches against the annotator), calibration, and accuracy by length."""
    scores = [predicted_reward(model, tokenizer, ranking["rows"]).tolist() for ranking in rankings]
    levels = [parse_ranking(ranking["ranking"], len(ranking["rows"])) for ranking in rankings]
    result = {"accuracy": pair_accuracy(scores, levels), "tie_width": float(model.tie_width.detach())}
    if "again" in rankings[0]:
        again = [[-float(level) for level in parse_ranking(ranking["again"], len(levels[0]))] for ranking in rankings]
        result["annotator_agreement"] = pair_accuracy(again, levels)
        result["ceiling"] = pair_accuracy([ranking["true"] for ranking in rankings], levels)
        result["true_accuracy"] = pair_accuracy(scores, [[round(-score) + 5 for score in ranking["true"]] for ranking in rankings])
    lengths = [[sum(mask) for _, mask in ranking["rows"]] for ranking in rankings]
    pairs = [(gap, lengths[n][i] - lengths[n][j]) for n in range(len(rankings)) for gap, i, j in pairs_of(scores[n], levels[n])]
    for name, gaps_here in (("longer_won", [gap for gap, more in pairs if more > 2]), ("same_length", [gap for gap, more in pairs if abs(more) <= 2]),
                         ("shorter_won", [gap for gap, more in pairs if more < -2])):
        right = sum(0.5 if gap == 0 else float(gap > 0) for gap in gaps_here)  # as in pair_accuracy
        result[f"accuracy_{name}"] = right / len(gaps_here) if gaps_here else None
    width = float(model.tie_width.detach()) if ties == "rao_kupper" else 0.0
    return result | {"calibration": calibration([gap for gap, _ in pairs], width)}


# ---- the robust reward system ----

# Ours, all of it: the rules below, their order and their numbers.
SHAPING = 0.2  # lambda: below 1/2, so that the best wrong answer (0.2) never beats the worst right one (0.8)
MISSING_END = -1.0  # "replace": a reply without its end mark gets this and nothing else (Huang et al., 2403.17031); none scores lower


def repetition_penalty(tokens: list[int], n: int = 3) -> float:
    """-(1 - distinct n-grams / n-grams), from -1 to 0; 0 for a text that has fewer than n tokens."""
    grams = [tuple(tokens[i:i + n]) for i in range(len(tokens) - n + 1)]
    return -(1 - len(set(grams)) / len(grams)) if grams else 0.0


def overlong_penalty(length: int, longest: int, margin: int) -> float:
    """0 up to longest - margin tokens, then linearly to -1 at longest, and -1 beyond (DAPO, 2503.14476, eq. 13)."""
    if length <= longest - margin:
        return 0.0
    return max(-1.0, (longest - margin - length) / margin) if margin else -1.0


def robust_reward(domain: str, *, verified: float | None, learned: float | None, complete: bool, truncated: bool, tokens: list[int],
                  longest: int, mask_truncated: bool = True) -> float | None:
    """The reward of one response; None masks it out of the loss.

    1. cut off by the length limit: masked, since nothing was finished that could be judged; without mask_truncated, rule 2
    2. no end mark, or marks out of order: MISSING_END, whatever it says
    3. math, STEM, code, agent: the verifier's 0 or 1 gates; not checked (None): masked, not punished
    4. chat: the reward model's score, squashed to (-1, 1), so that no single output dominates a batch
    5. shaping in [-1, 1], times SHAPING: repetition and length for every domain, the learned score where there is one
    """
    if truncated and mask_truncated:
        return None
    if truncated or not complete:
        return MISSING_END
    tidy = max(-1.0, repetition_penalty(tokens) + overlong_penalty(len(tokens), longest, longest // 4))
    if domain == "chat":
        # in this order a nan stays a nan
        return None if learned is None else max(math.tanh(learned / 2) + SHAPING * tidy, MISSING_END)
    if verified is None:
        return None
    liked = 0.0 if learned is None else math.tanh(learned / 2)
    return verified + SHAPING * min(max(tidy + liked, -1.0), 1.0)  # in this order a nan stays a nan


# ---- alone ----

def rank_by_hand(args, tokenizer, device) -> None:
    """A person ranks K outputs a prompt; every line typed is appended to the JSONL at once."""
    model, _ = load_checkpoint(args.rank, tokenizer, device)
    path = out_folder(args.out or "runs/reward_model") / "rankings_by_hand.jsonl"
    rng = world.generator(args.seed, "rank by hand", path.stat().st_size if path.exists() else 0)
    print(f"Type a ranking such as `D > C > A = B`, best first; an empty line skips, Ctrl-D ends. Kept in {path}.")
    for task in world.draw_tasks(rng, ("chat",), 1000):
        prompt = tokenizer.prompt(task.messages)
        rows = sample_outputs(model, tokenizer, [prompt], args.outputs, seed_of(args.seed, task.prompt))[0]
        texts = [tokenizer.read_reply(row[0][len(prompt):]).content for row in rows]
        print(f"\n{task.prompt}")
        for label, text in zip(string.ascii_uppercase, texts):
            print(f"  {label}: {text}")
        while True:
            try:
                line = ask("ranking> ").strip()
                if line:
                    parse_ranking(line, len(texts))
                    with open(path, "a", encoding="utf-8") as file:
                        file.write(formats.json.dumps({"prompt": task.messages, "responses": texts, "ranking": line}, ensure_ascii=False) + "\n")
                break
            except formats.DataError as error:
                print(f"  {error}")
            except (EOFError, KeyboardInterrupt):
                print()
                return


def main() -> None:
    parser = common_flags(__doc__, "runs/reward_model, runs/reward_model-smoke with --smoke")
    parser.add_argument("--init", default=None, help="checkpoint of the SFT model; default: a run's overall_sft, or SFT is done first")
    parser.add_argument("--ties", choices=TIES, default=Settings.ties, help="what a tie is worth")
    parser.add_argument("--outputs", type=int, default=Settings.outputs, help="outputs a prompt (K)")
    parser.add_argument("--rank", default=None, metavar="CHECKPOINT", help="be the annotator of this model's outputs")
    command(parser, run, "stopped; rankings typed by hand are kept, and so is a training that was finished")


def run(args) -> None:
    device = start(args)
    tokenizer = tokenizer_of(args.rank or args.init)
    if not 2 <= args.outputs <= 26:
        raise ValueError(f"--outputs {args.outputs}: a ranking has the labels A to Z, so 2 to 26 outputs a prompt")
    if args.rank:
        return rank_by_hand(args, tokenizer, device)
    settings = Settings(ties=args.ties, outputs=args.outputs)
    settings = sized(settings, "reward_model", args.size, args.smoke)
    trunk = starting_model(args, "student", tokenizer, device)
    out = out_folder(args.out or f"runs/reward_model{'-smoke' if args.smoke else ''}")
    rankings, dropped, notes = None, {}, []
    if args.data:
        rankings, dropped, notes = from_file(args.data, tokenizer, trunk.config.context)
    print("".join(f"{note}\n" for note in notes), end="")
    if dropped:
        print(formats.dropped_line(dropped))
    if rankings is not None:
        check_prompts(args.data, [ranking["opening"] for ranking in rankings], dropped)
    model, measured = once(out / "reward_model.pt", key_of_run(args, tokenizer, device, weights=trunk), lambda: RewardModel(trunk), tokenizer, "reward_model",
                      lambda: reward_model(trunk, tokenizer, settings, seed=args.seed, rankings=rankings, data=out / "rankings.jsonl",
                                           log=out / "reward_model.csv"), settings=asdict(settings))
    measured |= held_out_report(model, trunk, tokenizer, settings, seed=args.seed, rankings=rankings)
    for name, value in measured.items():
        if value is None or value == [] or name == "tie_width" and settings.ties in ("drop", "half"):
            continue
        if name == "accuracy" and math.isnan(value):
            print("no strict pair is held out, so no accuracy")
        elif name == "calibration":
            told = (f"{row['predicted']:.2f} predicted {row['observed']:.2f} observed ({row['pairs']} pairs)" for row in value)
            print("calibration           " + ", ".join(told))
        else:
            print(f"{name:22}" + (f"{value:.3f}" if isinstance(value, float) else str(value)))
    print(f"checkpoint {out / 'reward_model.pt'}, log {out / 'reward_model.csv'}")


if __name__ == "__main__":
    main()
