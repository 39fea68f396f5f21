"""Supervised fine-tuning: one masked cross-entropy and one loop, for pretraining and for both SFT stages.

Step 1 of RLHF (Pretrained LLM -> finetune on human-written outputs -> SFT LLM), and stages 1 and 2 of the schedule:

    pretrain        every token of plain text is supervised                           -> a base model
    cold_start_sft  math, code and STEM, levels 1 to 3                                -> foundational reasoning skills
    overall_sft     chat, agent, judge, new_prompt, reasoning of levels 2 to 5, and a share of stage 1 kept
                                                                                      -> general, by a rising curriculum

    L = - sum_{i,t} m_it log p(y_it | x_i, y_i,<t) / sum_{i,t} m_it

m is 1 exactly on what the assistant writes, end marks included. The denominator counts the supervised tokens of the whole
optimizer batch, whatever the micro-batch, so accumulation changes nothing. Logits are computed at supervised positions
only: at a vocabulary of 768 that is a tenth of a step, at 50,000 it is most of the memory.

Left out: packing of several dialogues into one row (rows are sorted by length instead, so there is little padding to
fill), dropout, weight averaging.

    python sft.py                          cold-start SFT of a fresh tiny model, evaluated before and after
    python sft.py --pretrain               the base model instead; then --init runs/sft/pretrain.pt goes on with SFT
    python sft.py --data FILE              on your own records (formats: data/files/formats.py)
    python sft.py --pretrain --data FILE   a base model of a plain text, with a tokenizer of its own; reports nats a character
    python sft.py --show-mask              a dialogue with its supervised tokens marked

Watch: `loss` falls, and `held_out_loss` with it. With more steps on the same demonstrations the first goes on falling and the
second turns; the number of steps is fixed before that, because a model that has its demonstrations by heart has no entropy
left for the reinforcement learning that follows.
"""

import math
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data import world
from data.files import formats, hf_tokenizer
from data.files import tokenizer as tokenizers
from data.files.checkpoints import (
    Resume,
    kept_training,
    key_of,
    key_of_run,
    once,
    save_checkpoint,
    tokenizer_of,
)
from data.files.writing import write_csv
from data.runtime import sizes
from data.runtime.command import command, common_flags, made_folder, out_folder
from data.runtime.devices import (
    autocast,
    micro_batches,
    parallel,
    progress,
    seed_of,
    start,
    summed,
)
from data.runtime.evaluation import evaluate, table_head, table_line
from data.runtime.rows import (
    Row,
    batches_of,
    before_reply,
    check_prompts,
    dialogue_rows,
    document_rows,
    in_rows,
    interleave,
    pad_rows,
    repeated,
    split,
    supervised_count,
    tell_dropped,
    tokens_a_row,
)
from model import (
    GPT,
    Optimizers,
    fresh_model,
    learning_rate_scale,
    load_checkpoint,
    parameter_count,
    placed,
)


@dataclass(frozen=True)
class Settings:
    steps: int
    rows: int = 12  # a batch; many small updates learn more in the same time than few large ones at these sizes
    batch_tokens: int = 0  # a batch by its tokens: as many rows as hold that many on average (`in_rows`); 0: `rows`
    muon_lr: float = 0.01  # block matrices; twice as much wipes out the arithmetic that pretraining taught
    adam_lr: float = 0.005  # embedding, head and norms
    warmup: int = 10
    constant: float = 0.4  # share of the steps before the linear decay begins
    micro_tokens: int = 65536  # tokens of one forward; a larger batch is accumulated
    held_out_every: int = 0  # steps between looks at the held-out loss; 0: only at the end
    save_every: int = 0  # steps between saves in the middle of a stage, from which a killed one goes on; 0: none, for short ones


# ---- the loss ----

def supervised_positions(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(select, targets) for ids and mask (N, S): the positions (N, S) whose logits predict a supervised token, and those
    tokens (supervised,): position t predicts token t + 1 (model.token_logprobs shifts in the same way)."""
    select = F.pad(mask[:, 1:], (0, 1))
    shifted = mask.clone()
    shifted[:, 0] = False  # nothing predicts the first token
    return select, ids[shifted]


def masked_cross_entropy(logits: Tensor, targets: Tensor, count: int) -> Tensor:
    """Sum of -log p(target) over logits (supervised, V) and targets (supervised,), divided by `count`: the supervised
    tokens of the whole optimizer batch. Without any supervised token it is 0 and its gradients are finite."""
    return F.cross_entropy(logits.float(), targets, reduction="sum") / max(1, count)


# ---- the loop ----

def batch_loss(model, tokenizer, rows: list[Row], count: int, device) -> Tensor:
    """The masked cross-entropy of N rows, a scalar; `count` as in masked_cross_entropy."""
    ids = pad_rows([row[0] for row in rows], tokenizer.pad_id, device=device)  # (N, S)
    mask = pad_rows([row[1] for row in rows], False, device=device)  # (N, S)
    select, targets = supervised_positions(ids, mask)
    with autocast(device):
        logits = model(ids, select=select)  # (supervised, V)
    return masked_cross_entropy(logits, targets, count)


def rehearse(model, tokenizer, rows: list[Row], coef: float, device, micro: int) -> None:
    """The gradient of coef times the cross-entropy of SFT rows, `micro` of them a forward; that of a batch must follow
    (`micro_batches`), with which it is reduced."""
    for part in micro_batches(rows, micro, model, last=False):
        (coef * batch_loss(model, tokenizer, part, supervised_count(rows), device)).backward()


@torch.no_grad()
def held_out_loss(model, tokenizer, rows: list[Row], device, micro_tokens: int = 65536) -> float:
    """Mean -log p of a supervised token over rows that are not trained on."""
    rows, total = sorted(rows, key=lambda row: len(row[0])), supervised_count(rows)
    size = min(128, max(1, micro_tokens // len(rows[-1][0])))
    return sum(float(batch_loss(model, tokenizer, rows[i:i + size], total, device)) for i in range(0, len(rows), size))


def train(model: GPT, tokenizer, rows: list[Row], settings: Settings, *, seed: int, stage: str, device=torch.device("cpu"),
          held_out: list[Row] = (), log: Path | None = None) -> dict:
    """`settings.steps` updates on `rows`, which are taken in the given order and again from the start when they end.

    Returns {"loss", "held_out_loss", "held_out_losses" (every look), "tokens", "seconds"}; writes a line a step to the CSV `log`.
    Raises FloatingPointError when the loss is not finite: the weights are then those of the step before.
    """
    if settings.batch_tokens:
        raise ValueError(f"{stage}: train counts a batch in rows; give it in_rows(settings, rows)")
    if len(rows) < settings.rows:
        raise ValueError(f"{stage}: {len(rows)} rows are left to train on, fewer than one batch of {settings.rows}; give more data")
    rng = random.Random(seed_of(seed, stage, "batches"))
    needed = settings.steps * settings.rows
    taken = (rows * (needed // len(rows) + 1))[:needed]
    batches = batches_of(taken, settings.rows, rng)
    network, optimizers = parallel(model), Optimizers(model, settings.adam_lr, settings.muon_lr)
    resume = Resume(log, settings.save_every, tokenizer, device, model=model, optimizers=optimizers)
    state = resume.load({"step": 0, "lines": [], "tokens": 0}, stage=(stage, seed), weights=model, settings=settings, rows=taken,
                        held_out=list(held_out))
    lines, tokens, began, look = state["lines"], state["tokens"], time.perf_counter(), settings.held_out_every
    model.train()
    bar = progress(batches, stage)
    for step, batch in enumerate(bar):
        if step < state["step"]:
            continue
        count, loss, micro = supervised_count(batch), 0.0, max(1, settings.micro_tokens // max(len(row[0]) for row in batch))
        for part in micro_batches(batch, micro, network):
            part_loss = batch_loss(network, tokenizer, part, count, device)
            part_loss.backward()
            loss += float(part_loss.detach())
        loss = summed({"loss": loss})["loss"]
        if not math.isfinite(loss):
            raise FloatingPointError(f"{stage}: the loss is {loss} at step {step}")
        scale = learning_rate_scale(step, settings.steps, settings.warmup, settings.constant)
        norm = optimizers.step(scale)
        tokens += sum(len(row[0]) for row in batch)
        line = {"step": step, "loss": loss, "grad_norm": norm, "lr_scale": scale, "tokens": tokens}
        if held_out and (step == len(batches) - 1 or look and step % look == look - 1):
            line["held_out_loss"] = held_out_loss(model, tokenizer, held_out, device, settings.micro_tokens)
        lines.append(line)
        resume.save(step + 1, {"step": step + 1, "lines": lines, "tokens": tokens})
        if step % 20 == 0:
            bar.set_postfix_str(f"loss {loss:.3f}, {tokens / (time.perf_counter() - began):,.0f} tokens/s")
    model.eval()
    resume.done()
    if log is not None:
        write_csv(log, lines)
    recent = [line["loss"] for line in lines[-20:]]
    looks = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    return {"loss": sum(recent) / len(recent), "held_out_loss": looks[-1] if looks else None, "held_out_losses": looks, "tokens": tokens,
            "seconds": time.perf_counter() - began}


# ---- the three stages on the tiny world ----

@dataclass(frozen=True)
class Schedule:
    """How much of what each stage learns from. Numbers of demonstrations; the steps say how often they are seen."""

    pretrain: Settings
    cold_start: Settings
    overall: Settings
    documents: int
    cold_start_demonstrations: int
    demonstrations: dict  # overall_sft: how many of each kind; those of a small family recur
    shares: dict  # overall_sft: percent of each kind among the rows that are seen
    cold_start_levels: tuple = (1, 2, 3)
    curriculum_levels: tuple = (2, 3, 4, 5)  # of overall_sft's reasoning, in this order


# What a batch of overall_sft holds, in percent. The published recipe (Nanbeige4-3B) has 40 reasoning, 30 general, 20 agent
# and 10 code; here code is a third of the reasoning and of the kept cold-start data, and judging and asking are added,
# because the self-rewarding loop needs both.
SHARES = {"cold_start": 15,  # kept from stage 1, or its levels are forgotten
          "reasoning": 34, "chat": 15, "agent": 13, "judge": 11,
          "new_prompt": 12}  # with 4, nine in ten of the prompts that the self-rewarding loop writes are nonsense; with 12, half

# The student has few demonstrations and learns them until its held-out loss is lowest; the teacher is larger and has
# seen many more. What the student lacks is data, which is what a teacher can give (more updates it could take itself).
FROM_SCRATCH = {"rows": 8, "muon_lr": 0.02, "adam_lr": 0.02}  # rows of 96 tokens, all of them supervised
SCHEDULES = {
    "tiny": {
        "student": Schedule(pretrain=Settings(800, **FROM_SCRATCH), cold_start=Settings(400), overall=Settings(2000), documents=10000,
                            cold_start_demonstrations=2000, shares=SHARES,
                            demonstrations={"reasoning": 2000, "chat": 2000, "agent": 600, "judge": 1000, "new_prompt": 800}),
        "teacher": Schedule(pretrain=Settings(650, **FROM_SCRATCH), cold_start=Settings(300), overall=Settings(1000), documents=10000,
                            cold_start_demonstrations=6000, shares=SHARES,
                            demonstrations={"reasoning": 8000, "chat": 2000, "agent": 2000, "judge": 1800, "new_prompt": 800})},
}


def larger(size: str, who: str) -> Schedule:
    """The same schedule for a larger size: harder levels, and the demonstrations of each kind."""
    given = sizes.LARGER[size]
    counts = given["demonstrations"][who]
    return Schedule(
        pretrain=Settings(**given["pretrain"]),
        cold_start=Settings(**given["cold_start_sft"]),
        overall=Settings(**given["overall_sft"]),
        documents=given["documents"],
        cold_start_demonstrations=counts["reasoning"],
        demonstrations=counts,
        shares=SHARES,
        cold_start_levels=(1, 2, 3, 4),
        curriculum_levels=(3, 4, 5),
    )


for size in sizes.LARGER:
    SCHEDULES[size] = {who: larger(size, who) for who in ("student", "teacher")}


def smoke(schedule: Schedule) -> Schedule:
    """The same stages in a few steps, to see that everything runs."""
    few = {name: replace(getattr(schedule, name), steps=sizes.SMOKE["sft"]["steps"], rows=16, batch_tokens=0) for name in ("pretrain", "cold_start", "overall")}
    return replace(schedule, **few, documents=200, cold_start_demonstrations=sizes.SMOKE["sft"]["demonstrations"],
                   demonstrations={name: sizes.SMOKE["sft"]["demonstrations"] for name in schedule.demonstrations})


def pretrain(model, tokenizer, schedule: Schedule, **how) -> dict:
    """A base model: plain documents of the world, all tokens supervised."""
    rows = document_rows(tokenizer, world.documents(how["seed"], schedule.documents), 96)
    # other documents of the same world: their facts recur in what is trained on, as facts must
    held_out = document_rows(tokenizer, world.documents(seed_of(how["seed"], "held out"), 200), 96)
    random.Random(seed_of(how["seed"], "pretrain")).shuffle(rows)
    return train(model, tokenizer, rows, in_rows(schedule.pretrain, rows), stage="pretrain", held_out=held_out, **how)


def pretrain_on_text(model, tokenizer, text: str, settings: Settings, *, seed: int, length: int = 128, **how) -> dict:
    """A base model of one plain text: its first nine tenths are trained on, its last tenth is the validation text.

    "losses_a_character" are nats a character of the validation text, which do not depend on how the tokenizer cuts it: the sum
    of -log p over its tokens by the number of its characters. A character may be several tokens, and lie in two rows.
    """
    cut = len(text) * 9 // 10
    rows, held_out = (document_rows(tokenizer, [part], min(length, model.config.context)) for part in (text[:cut], text[cut:]))
    if not held_out:
        raise ValueError(f"pretrain: a text of {len(text)} characters is too short; its last tenth must fill a row of {length} tokens")
    rng = random.Random(seed_of(seed, "pretrain"))
    settings = in_rows(settings, rows)
    rows = repeated(rows, settings.steps * settings.rows, rng)
    measured = train(model, tokenizer, rows, settings, seed=seed, stage="pretrain", held_out=held_out, **how)
    told = b"".join(tokenizer.encoding.decode_bytes([i for i in ids[1:] if i not in tokenizer.mark_ids]) for ids, _ in held_out)
    characters = sum(byte & 0xC0 != 0x80 for byte in told)  # UTF-8: every byte but those that continue a character
    return measured | {"losses_a_character": [loss * supervised_count(held_out) / characters for loss in measured["held_out_losses"]]}


def development_rows(tokenizer, context: int, domains, levels=(1, 2, 3, 4, 5)) -> list[Row]:
    """Demonstrations of development contents: what the held-out loss is measured on."""
    rng = world.generator(world.WORLD_VERSION, "development rows", *domains)
    tasks = world.draw_tasks(rng, domains, 240, part="dev", levels=levels)
    records = [world.demonstration(task, rng) for task in tasks]
    rows, dropped = dialogue_rows(tokenizer, records, context)
    tell_dropped("held-out rows", dropped)
    return rows


def cold_start_sft(model, tokenizer, schedule: Schedule, **how) -> dict:
    """Foundational reasoning skills: math, code and STEM of the lower levels."""
    records = world.cold_start_demonstrations(how["seed"], schedule.cold_start_demonstrations, schedule.cold_start_levels)
    rows, dropped = dialogue_rows(tokenizer, records, model.config.context)
    tell_dropped("cold_start_sft", dropped)
    rng = random.Random(seed_of(how["seed"], "cold_start_sft"))
    settings = in_rows(schedule.cold_start, rows)
    rows = repeated(rows, settings.steps * settings.rows, rng)
    held_out = development_rows(tokenizer, model.config.context, world.REASONING, schedule.cold_start_levels)
    return train(model, tokenizer, rows, settings, stage="cold_start_sft", held_out=held_out, **how)


def overall_rows(tokenizer, schedule: Schedule, seed: int, context: int, curriculum: bool = True) -> tuple[list[Row], Settings]:
    """The rows of overall SFT in their order, and its settings in rows: reasoning rises level by level, the other kinds are spread evenly.

    With curriculum=False the same rows come in random order.
    """
    rng = random.Random(seed_of(seed, "overall_sft", "order"))
    records = world.overall_demonstrations(seed, schedule.demonstrations, schedule.curriculum_levels)
    records["cold_start"] = world.cold_start_demonstrations(seed, schedule.cold_start_demonstrations, schedule.cold_start_levels)
    kinds = {}
    for kind in schedule.shares:
        levels = records[kind] if kind == "reasoning" else [records[kind]]
        made = [dialogue_rows(tokenizer, level, context) for level in levels]
        kinds[kind] = [rows for rows, _ in made]
        left_out = sum((Counter(dropped) for _, dropped in made), Counter())
        tell_dropped(f"overall_sft, {kind}", left_out)
    mean = sum(percent * tokens_a_row(sum(kinds[kind], [])) for kind, percent in schedule.shares.items()) / 100
    settings = in_rows(schedule.overall, sum(sum(kinds.values(), []), []), mean)
    parts = []
    for kind, percent in schedule.shares.items():
        count = settings.steps * settings.rows * percent // 100 + 1
        parts.append([row for level in kinds[kind] for row in repeated(level, -(-count // len(kinds[kind])), rng)])
    rows = interleave(parts, rng)
    if not curriculum:
        rng.shuffle(rows)
    return rows, settings


def rehearsal_data(tokenizer, size: str, seed: int, context: int) -> list[Row]:
    """The student's own demonstrations again, for later stages that would forget what they do not train.

    Chat is left out: its demonstrations are of mixed quality, and preference learning is to leave them behind.
    """
    schedule = SCHEDULES[size]["student"]
    first = world.cold_start_demonstrations(seed, schedule.cold_start_demonstrations, schedule.cold_start_levels)
    kinds = world.overall_demonstrations(seed, schedule.demonstrations, schedule.curriculum_levels)
    first += sum(kinds["reasoning"], [])
    records = first + kinds["agent"] + kinds["judge"] + kinds["new_prompt"]
    rows, dropped = dialogue_rows(tokenizer, records, context)
    tell_dropped("rehearsal", dropped)
    return rows


def sft_on_rows(model, tokenizer, rows: list[Row], settings: Settings, *, seed: int, stage: str, **how) -> dict:
    """SFT on rows of somebody's own data, of which a twentieth is held out, but no more than 100:
    enough to see the loss turn.

    Rows with one prompt are on one side; raises ValueError where there is no other prompt.
    """
    rng = random.Random(seed_of(seed, stage))
    rows, held_out = split(stage, rows, [before_reply(row) for row in rows], 20, most=100)
    settings = in_rows(settings, rows)
    measured = train(model, tokenizer, repeated(rows, settings.steps * settings.rows, rng), settings, seed=seed, stage=stage, held_out=held_out, **how)
    return measured | {"rows": len(rows), "held_out_rows": len(held_out)}


def chat_prompts(size: str, seed: int) -> list[str]:
    """The different one-turn chat prompts of the student's own demonstrations."""
    records = world.overall_demonstrations(seed, SCHEDULES[size]["student"].demonstrations)["chat"]
    return list(dict.fromkeys(record["messages"][0]["content"] for record in records if len(record["messages"]) == 2))


def overall_sft(model, tokenizer, schedule: Schedule, curriculum: bool = True, **how) -> dict:
    """General conversation, agent, judging, asking, and the reasoning curriculum."""
    rows, settings = overall_rows(tokenizer, schedule, how["seed"], model.config.context, curriculum)
    held_out = development_rows(tokenizer, model.config.context, world.DOMAINS[:5])
    return train(model, tokenizer, rows, settings, stage="overall_sft", held_out=held_out, **how)


# ---- alone ----

def starting_model(args, who: str, tokenizer, device, path: str | None = None) -> GPT:
    """The SFT model that a concept file starts from: the checkpoint `path` (or --init for the student), else overall_sft
    of a run with this size and seed, else the SFT stages are run here and now and kept for the next time."""
    path = path or (args.init if who == "student" else None)
    if path is None:
        kept = Path(f"runs/sft-{args.size}{'-smoke' if args.smoke else ''}-seed{args.seed}/overall_sft.{who}.pt")
        left = Path(f"runs/{args.size}-seed{args.seed}/overall_sft.{who}.pt")
        path = left if left.exists() and not args.smoke else kept
        schedule = smoke(SCHEDULES[args.size][who]) if args.smoke else SCHEDULES[args.size][who]
        model = fresh_model(args.size, who, tokenizer, args.seed)
        key = key_of(tokenizer, device, weights=model, settings=(args.seed, schedule))
        if path == kept and kept_training(path, key) is None:
            made_folder(path.parent, "give --init CHECKPOINT")
            print(f"no {who} checkpoint of these settings yet: pretraining and SFT come first (a minute or two at size tiny)", flush=True)
            model = model.to(device)
            for stage in (pretrain, cold_start_sft, overall_sft):
                stage(model, tokenizer, schedule, seed=args.seed, device=device)
            save_checkpoint(path, model, tokenizer, "overall_sft", key=key)
    print(f"{who}: {path}")
    return placed(load_checkpoint(path, tokenizer, device)[0], args, device)


def show_mask(tokenizer, record: dict) -> None:
    """The dialogue with every supervised token between brackets."""
    ids, mask = tokenizer.render(record["messages"])
    print("".join(f"[{text}]" if on else text for text, on in zip(tokenizer.pieces(ids), mask)))


def main() -> None:
    parser = common_flags(__doc__, "runs/sft, runs/sft-smoke with --smoke")
    parser.add_argument("--init", default=None, help="checkpoint to start from; without it, a fresh model")
    parser.add_argument("--pretrain", action="store_true", help="supervise every token of plain text instead of dialogues")
    parser.add_argument("--show-mask", action="store_true", help="print a dialogue with its supervised tokens marked, and stop")
    parser.add_argument("--steps", type=int, default=None, help="updates; default: the schedule's")
    parser.add_argument("--eval-n", type=int, default=128, help="held-out prompts a domain")
    command(parser, run, "stopped; a training that was finished is kept, and the same command goes on after it")


def run(args) -> None:
    device = start(args)
    text, notes = formats.read_text(args.data) if args.pretrain and args.data else (None, [])
    learned = text is not None and args.init is None
    tokenizer = hf_tokenizer.portable(tokenizers.trained([text[:len(text) * 9 // 10]])) if learned else tokenizer_of(args.init)
    schedule = SCHEDULES[args.size]["student"]
    schedule = smoke(schedule) if args.smoke else schedule
    records, dropped = None, {}
    if args.data:
        if not args.pretrain:
            records, dropped, notes = formats.read_records(args.data, "instruction")
        print("".join(f"{note}\n" for note in notes), end="")
    if args.show_mask:
        few = world.overall_demonstrations(args.seed, dict.fromkeys(schedule.demonstrations, 4)).values()
        if records == []:
            raise ValueError(f"{args.data}: no record is left to show{formats.because(dropped)}")
        if records and len(records) > 3:
            print(f"3 of {len(records)} records")
        examples = records[:3] if records else [demo for kind in few for demo in (kind[0] if isinstance(kind[0], list) else kind)[:1]]
        for record in examples:
            show_mask(tokenizer, record)
        return
    if args.init:
        model, _ = load_checkpoint(args.init, tokenizer, device)
    else:
        model = fresh_model(args.size, "student", tokenizer, args.seed)
    placed(model, args, device)
    print(f"{parameter_count(model):,} parameters, {device}, {torch.get_num_threads()} threads")
    out = out_folder(args.out or f"runs/sft{'-smoke' if args.smoke else ''}")
    eval_n = min(4, args.eval_n) if args.smoke else args.eval_n
    settings = schedule.pretrain if args.pretrain else schedule.cold_start
    if args.steps is not None:
        settings = replace(settings, steps=args.steps)
    settings = replace(settings, held_out_every=-(-settings.steps // 4))
    name = "pretrain" if args.pretrain else "sft"
    how = {"seed": args.seed, "device": device, "log": out / f"{name}.csv"}
    key = key_of_run(args, tokenizer, device, weights=model)

    def trained(by, *what, **also) -> dict:
        """What a stage's function measured; the model is saved straight after it."""
        return once(out / f"{name}.pt", key, lambda: model, tokenizer, name, lambda: (model, by(model, tokenizer, *what, **also, **how)),
                    settings=asdict(settings))[1]
    if args.data:
        if args.pretrain:
            measured = trained(pretrain_on_text, text, settings)
            print("validation loss at each quarter, nats a character: " + ", ".join(f"{loss:.3f}" for loss in measured["losses_a_character"]))
        else:
            rows, left_out = dialogue_rows(tokenizer, records, model.config.context)
            if dropped := dropped | left_out:
                print(formats.dropped_line(dropped))
            check_prompts(args.data, [before_reply(row) for row in rows], dropped)
            measured = trained(sft_on_rows, rows, settings, stage=name)
            looks = ", ".join(f"{loss:.3f}" for loss in measured["held_out_losses"])
            print(f"held-out loss at each quarter: {looks}, on {measured['held_out_rows']} rows; {measured['rows']} rows trained on")
    elif args.pretrain:
        measured = trained(pretrain, replace(schedule, pretrain=settings))
        print(f"held-out loss {measured['held_out_loss']:.3f}")
    else:
        print(table_head())
        print(table_line("before", evaluate(model, tokenizer, eval_n, seed=args.seed)))
        measured = trained(cold_start_sft, replace(schedule, cold_start=settings))
        print(table_line("after", evaluate(model, tokenizer, eval_n, seed=args.seed)))
        print("held-out loss at each quarter: " + ", ".join(f"{loss:.3f}" for loss in measured["held_out_losses"]))
    print(f"{measured['tokens']:,} tokens in {measured['seconds']:.0f} s; checkpoint {out / name}.pt, log {out / name}.csv")


if __name__ == "__main__":
    main()
