"""Supervised fine-tuning: one masked cross-entropy and one loop, for pretraining and for SFT.

Step 1 of RLHF (demonstrations -> SFT LLM): stages 1 and 2 of the schedule, after pretraining:

    pretrain        every token of plain text                          -> a base model
    cold_start_sft  math, code and STEM, levels 1 to 3                 -> foundational reasoning
    overall_sft     chat, tools, judging, writing prompts, reasoning   -> a general model

    L = - sum_{i,t} m_it log p(y_it | y_i,<t) / sum_{i,t} m_it

y_i is a row; m_it is 1 on the assistant's tokens and end marks (pretraining: on all), else 0.

Details that matter ([1]: measured on the first version of the project):

1. The denominator counts the supervised tokens of the whole optimizer batch. A mean of the
   micro-batches' means would weigh a token more where its micro-batch has few. Not measured.
2. Logits are computed at supervised positions only: in SFT that saves most of the memory at a
   vocabulary of 50,000, and a tenth of a step's time at 768.
3. In SFT Muon's learning rate is 0.01; at 0.02 pretrained arithmetic is gone after 300 steps [1].
4. Batches are small. In the same time 16 or 20 rows score 2 to 6 points lower than 12 [1].
5. overall_sft orders reasoning by level, since the schedule does. Measured against a random order
   it COSTS 6 to 9 points of math, code and STEM, greedy; `curriculum=False` takes the random order.

Left out: packing dialogues into a row (like lengths share a batch), dropout, weight averaging.

    python sft.py                         cold-start SFT of a fresh tiny model
    python sft.py --pretrain              the base model; then --init runs/sft/pretrain.pt
    python sft.py --data FILE             on your own records (formats: data/files/formats.py)
    python sft.py --pretrain --data FILE  a base model of a plain text, with its own tokenizer
    python sft.py --show                  the loss of two made-up dialogues, token by token
    python sft.py --show-mask             dialogues with their supervised tokens marked

Watch (columns of the CSV): `loss` starts near ln 768 = 6.6 in a fresh tiny model and falls, as does
`held_out_loss`. With more steps on the same data the first goes on falling, the second rises. The
steps end before that, or the model is too sure of its words for RL to try others.
`grad_norm` is measured before it is cut to 1. `tokens` are those read so far, without padding.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data import world
from data.files.checkpoints import Resume
from data.runtime import lessons
from data.runtime.alone import Alone, sft_checkpoint
from data.runtime.command import STOPPED, chapter_flags, command
from data.runtime.devices import autocast, micro_batches, parallel, summed
from data.runtime.lessons import Schedule, development_rows, overall_rows, schedules, smoke
from data.runtime.log import Log
from data.runtime.room import fitting, forwards
from data.runtime.rows import Row, all_batches, in_rows, pad_batch, supervised_count, tokens_of
from data.runtime.told import sft_result, sft_summary
from model import GPT, Optimizers, fresh_model, learning_rate_scale, load_checkpoint, placed


@dataclass(frozen=True)
class Settings:
    steps: int
    rows: int = 12  # a batch; many small updates learn more in the same time than few large ones
    batch_tokens: int = 0  # if set, `in_rows` picks rows so that a batch holds about so many
    muon_lr: float = 0.01  # block matrices; twice as much wipes out the arithmetic of pretraining
    adam_lr: float = 0.005  # embedding, head and norms
    warmup: int = 10
    constant: float = 0.4  # share of the steps before the linear decay begins
    micro_tokens: int = 65536  # tokens of one forward; a larger batch is accumulated
    held_out_every: int = 0  # steps between looks at the held-out loss; 0: only at the end
    save_every: int = 0  # steps between saves from which a killed stage goes on; 0: none


SCHEDULES = schedules(Settings)  # {size: {"student": Schedule, "teacher": Schedule}}


# ---- the loss ----


def supervised_positions(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(select, targets) for ids and mask (N, S): the positions (N, S) whose logits predict a
    supervised token, and those tokens (supervised,). Position t predicts token t + 1."""
    select = F.pad(mask[:, 1:], (0, 1))  # (N, S)
    shifted = mask.clone()
    shifted[:, 0] = False  # nothing predicts the first token
    return select, ids[shifted]


def masked_cross_entropy(logits: Tensor, targets: Tensor, count: int) -> Tensor:
    """Sum of -log p(target) over logits (supervised, V) and targets (supervised,), divided by
    `count`: the supervised tokens of the whole optimizer batch. With none of them it is 0."""
    return F.cross_entropy(logits.float(), targets, reduction="sum") / max(1, count)


# ---- the loop ----


def batch_loss(model, tokenizer, rows: list[Row], count: int, device) -> Tensor:
    """The masked cross-entropy of N rows, a scalar; `count` as in masked_cross_entropy."""
    ids, mask = pad_batch(rows, tokenizer.pad_id, device)  # (N, S) each
    select, targets = supervised_positions(ids, mask)
    with autocast(device):
        logits = model(ids, select=select)  # (supervised, V)
    return masked_cross_entropy(logits, targets, count)


def rehearse(model, tokenizer, rows: list[Row], coef: float, device, size: int) -> None:
    """Adds the gradient of coef times the cross-entropy of SFT rows, `size` rows a forward. Call it
    before the batch's own backward, whose last pass sums over the ranks (`micro_batches`)."""
    count = supervised_count(rows)
    for micro in micro_batches(rows, fitting(model, rows, size), model, last=False):
        (coef * batch_loss(model, tokenizer, micro, count, device)).backward()


@torch.no_grad()
def held_out_loss(model, tokenizer, rows: list[Row], device, micro_tokens: int = 65536) -> float:
    """Mean -log p of a supervised token over rows that are not trained on."""
    rows = sorted(rows, key=lambda row: len(row[0]))
    count = supervised_count(rows)
    micros = forwards(model, rows, 128, micro_tokens)
    return sum(float(batch_loss(model, tokenizer, micro, count, device)) for micro in micros)


def train(
    model: GPT,
    tokenizer,
    rows: list[Row],
    settings: Settings,
    *,
    seed: int,
    stage: str,
    device=torch.device("cpu"),
    held_out: list[Row] = (),
    log: Path | None = None,
) -> dict:
    """`settings.steps` updates on `rows`, in order, sorted by length within 8 batches, repeated.

    Returns {"loss" (of the last 20), "held_out_loss", "held_out_losses" (every look), "tokens",
    "seconds"}; writes a line a step to the CSV `log`. ValueError: fewer rows than a batch.
    FloatingPointError: the loss is not finite; the weights are then those of the step before.
    """
    batches = all_batches(rows, settings, seed, stage)
    network = parallel(model)
    optimizers = Optimizers(model, settings.adam_lr, settings.muon_lr)
    resume = Resume(log, settings.save_every, tokenizer, device, model=model, optimizers=optimizers)
    entering = {"stage": (stage, seed), "weights": model, "settings": settings, "rows": batches}
    state = resume.load({"lines": [], "tokens": 0}, **entering, held_out=list(held_out))
    history = Log(stage, log, state["lines"])
    tokens = state["tokens"]
    model.train()
    for step in history.steps(settings.steps):
        batch = batches[step]
        count = supervised_count(batch)
        size = fitting(model, batch, len(batch), settings.micro_tokens)
        loss = 0.0
        for micro in micro_batches(batch, size, network):
            micro_loss = batch_loss(network, tokenizer, micro, count, device)
            micro_loss.backward()
            loss += float(micro_loss.detach())
        loss = summed({"loss": loss})["loss"]
        history.check(loss, step)
        scale = learning_rate_scale(step, settings.steps, settings.warmup, settings.constant)
        norm = optimizers.step(scale)
        tokens += tokens_of(batch)
        line = {"step": step, "loss": loss, "grad_norm": norm, "lr_scale": scale, "tokens": tokens}
        every = settings.held_out_every
        if held_out and (step == settings.steps - 1 or every and step % every == every - 1):
            how = tokenizer, held_out, device, settings.micro_tokens
            line["held_out_loss"] = held_out_loss(model, *how)
        speed = f"{tokens / history.seconds():,.0f} tokens/s"
        history.line(line, f"loss {loss:.3f}, {speed}" if step % 20 == 0 else "")
        resume.save(step + 1, {"lines": history.lines, "tokens": tokens})
    model.eval()
    resume.done()
    history.write()
    looks = [line["held_out_loss"] for line in history.lines if "held_out_loss" in line]
    last = looks[-1] if looks else None
    measured = {"loss": history.mean("loss", 20), "held_out_loss": last, "held_out_losses": looks}
    return measured | {"tokens": tokens, "seconds": history.seconds()}


def train_in_passes(model, tokenizer, rows: list[Row], settings: Settings, **how) -> dict:
    """`train` on shuffled passes over the rows, the last one cut."""
    rows, settings = lessons.in_passes(rows, settings, how["seed"], how["stage"])
    return train(model, tokenizer, rows, settings, **how)


# ---- the stages: what each learns from is laid out in data/runtime/lessons.py ----


def pretrain(model, tokenizer, schedule: Schedule, **how) -> dict:
    """A base model: plain documents of the world, all tokens supervised."""
    rows, held_out = lessons.pretraining_rows(tokenizer, schedule, how["seed"])
    settings = in_rows(schedule.pretrain, rows)
    return train(model, tokenizer, rows, settings, stage="pretrain", held_out=held_out, **how)


def pretrain_on_text(model, tokenizer, text, settings, *, length: int = 128, **how) -> dict:
    """A base model of one plain text: its last tenth is the validation text.

    "losses_a_character" are nats a character of that, the sum of -log p over its tokens by the
    number of its characters. They do not depend on how the tokenizer cuts the text.
    """
    rows, held_out = lessons.text_rows(tokenizer, text, length, model.config.context)
    how |= {"stage": "pretrain", "held_out": held_out}
    measured = train_in_passes(model, tokenizer, rows, settings, **how)
    count = supervised_count(held_out)
    characters = lessons.characters_of(tokenizer, held_out)
    losses = [loss * count / characters for loss in measured["held_out_losses"]]
    return measured | {"losses_a_character": losses}


def cold_start_sft(model, tokenizer, schedule: Schedule, **how) -> dict:
    """Foundational reasoning skills: math, code and STEM of the lower levels."""
    context = model.config.context
    rows = lessons.cold_start_rows(tokenizer, schedule, how["seed"], context)
    held_out = development_rows(tokenizer, context, world.REASONING, schedule.cold_start_levels)
    how |= {"stage": "cold_start_sft", "held_out": held_out}
    return train_in_passes(model, tokenizer, rows, schedule.cold_start, **how)


def overall_sft(model, tokenizer, schedule: Schedule, curriculum: bool = True, **how) -> dict:
    """General conversation, agent, judging, asking, and the reasoning curriculum."""
    context = model.config.context
    rows, settings = overall_rows(tokenizer, schedule, how["seed"], context, curriculum)
    held_out = development_rows(tokenizer, context, world.DOMAINS[:5])  # all but judge
    return train(model, tokenizer, rows, settings, stage="overall_sft", held_out=held_out, **how)


def sft_on_rows(model, tokenizer, rows: list[Row], settings: Settings, **how) -> dict:
    """SFT on rows of somebody's own data. A twentieth is held out, at most 100: enough to see the
    loss turn. Rows of one prompt are never split; raises ValueError if all have the same."""
    rows, held_out = lessons.held_out_rows(how["stage"], rows)
    measured = train_in_passes(model, tokenizer, rows, settings, held_out=held_out, **how)
    return measured | {"rows": len(rows), "held_out_rows": len(held_out)}


def rehearsal_data(tokenizer, size: str, seed: int, context: int) -> list[Row]:
    """The student's demonstrations, without chat, for later stages that would forget them."""
    return lessons.rehearsal_rows(tokenizer, SCHEDULES[size]["student"], seed, context)


def chat_prompts(size: str, seed: int) -> list[str]:
    """The different one-turn chat prompts of the student's own demonstrations."""
    return lessons.one_turn_prompts(SCHEDULES[size]["student"], seed)


# ---- alone ----


def starting_model(args, who: str, tokenizer, device, path: str | None = None) -> GPT:
    """The SFT model that a chapter starts from; `sft_checkpoint` finds it, or has it trained."""
    schedule = SCHEDULES[args.size][who]
    schedule = smoke(schedule) if args.smoke else schedule
    fresh = partial(fresh_model, args.size, who, tokenizer, args.seed)
    stages = (pretrain, cold_start_sft, overall_sft)
    how = {"path": path, "schedule": schedule, "fresh": fresh, "stages": stages}
    path = sft_checkpoint(args, who, tokenizer, device, **how)
    return placed(load_checkpoint(path, tokenizer, device)[0], args, device)


def show() -> None:
    """The loss of two made-up dialogues over a vocabulary of four words, token by token."""
    words = ["say", "yes", "no", "<end>"]
    ids = torch.tensor([[0, 1, 3, 3], [0, 2, 2, 3]])  # (2, 4); row 0: its last 3 is padding
    mask = torch.tensor([[False, True, True, False], [False, True, True, True]])
    logits = torch.zeros(2, 4, 4)  # (rows, positions, words)
    logits[:, 0] = torch.tensor([0.0, 2.0, 1.0, 0.0])  # both rows begin alike
    logits[0, 1] = torch.tensor([0.0, 0.0, 0.0, 3.0])
    logits[1, 1:3] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    select, targets = supervised_positions(ids, mask)
    picked = logits[select]  # (5, 4)
    for row in range(2):
        marked = [f"[{words[k]}]" if on else words[k] for k, on in zip(ids[row], mask[row])]
        print(f"row {row}, supervised words in brackets: {' '.join(marked)}")
    print(f"logits of {words}; -log p = log(sum of exp(logits)) - the logit of the next word")
    costs = picked.logsumexp(1) - picked.gather(1, targets[:, None])[:, 0]  # (5,)
    for k, (row, t) in enumerate(select.nonzero().tolist()):
        print(f"row {row}, position {t}: {words[ids[row, t]]} is followed by {words[targets[k]]},")
        print(f"    logits {picked[k].tolist()}, -log p {costs[k]:.4f}")
    loss = masked_cross_entropy(picked, targets, len(targets))
    print(f"sum {costs.sum():.4f}, count {len(targets)}, loss = sum / count = {loss:.4f}")


def show_mask(tokenizer, record: dict) -> None:
    """The dialogue with every supervised token between brackets."""
    print(tokenizer.marked(*tokenizer.render(record["messages"])))


def main() -> None:
    parser = chapter_flags(__doc__, "sft", "checkpoint to start from; without it, a fresh model")
    told = "supervise every token of plain text instead of dialogues"
    parser.add_argument("--pretrain", action="store_true", help=told)
    told = "print a dialogue with its supervised tokens marked, and stop"
    parser.add_argument("--show-mask", action="store_true", help=told)
    parser.add_argument("--steps", type=int, default=None, help="updates; default: the schedule's")
    command(parser, run, STOPPED)


def run(args) -> None:
    if args.show:
        return show()
    alone = Alone(args, "sft")
    text = alone.text() if args.pretrain else None
    records, dropped = (None, {}) if args.pretrain else alone.records("instruction")
    schedule = SCHEDULES[args.size]["student"]
    schedule = smoke(schedule) if args.smoke else schedule
    tokenizer, device = alone.tokenizer, alone.device
    if args.show_mask:
        for record in lessons.examples(args, records, dropped, schedule):
            show_mask(tokenizer, record)
        return
    if args.init:
        model, _ = load_checkpoint(args.init, tokenizer, device)
    else:
        model = fresh_model(args.size, "student", tokenizer, args.seed)
    alone.tell_size(placed(model, args, device))
    out = alone.folder()
    field = "pretrain" if args.pretrain else "cold_start"
    settings = getattr(schedule, field)
    steps = args.steps or settings.steps
    settings = alone.batch(replace(settings, steps=steps, held_out_every=-(-steps // 4)))
    if records is not None:
        rows = alone.dialogues(records, dropped, model, held_out_loss)
    name = "pretrain" if args.pretrain else "sft"
    how = {"seed": args.seed, "device": device, "log": out / f"{name}.csv"}

    def training() -> tuple[GPT, dict]:
        if text is not None:
            measured = pretrain_on_text(model, tokenizer, text, settings, **how)
        elif records is not None:
            measured = sft_on_rows(model, tokenizer, rows, settings, stage=name, **how)
        else:
            stage = pretrain if args.pretrain else cold_start_sft
            measured = stage(model, tokenizer, replace(schedule, **{field: settings}), **how)
        return model, measured

    compared = not args.pretrain and (args.test or not args.data)
    if compared:
        alone.scores("before", model)
    _, measured = alone.once(out / f"{name}.pt", model, settings, training)
    if compared:
        alone.scores("after", model)
    alone.ends(f"{sft_result(args, measured)}\n{sft_summary(measured, out, name)}", **measured)


if __name__ == "__main__":
    main()
