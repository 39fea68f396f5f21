"""Our training steps and our generation beside those of TRL and `transformers`, where installed:
same work, one process.

    python -m tests.benchmarks.peers --out peers.json

Every figure is the median of 5 rounds after one warm-up round. In each round ours and theirs run
one after the other, so that a busy machine slows both. The peers are Qwen3 models of the same shape
with our weights copied over, on the same ids. How far logits and first losses lie apart is printed.
Nothing is asserted: speed belongs to the machine.

A step of TRL is all that its trainer does from one update to the next, its own metrics included.
Logging, saving, evaluation, mixed precision and gradient checkpointing are off (the last two are
its defaults, which ours does not have on a CPU). Its optimizer is its default, fused AdamW. Written
for TRL 1.16.

Left out: vLLM, GPUs, packing, and reference log-probabilities of DPO computed once before training,
which both sides offer.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from importlib import metadata, util
from types import SimpleNamespace

import torch

from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.runtime.command import fail, guarded
from data.runtime.decoding import generate
from data.runtime.evaluation import sampled_rows
from data.runtime.rollouts import entropy_of
from data.runtime.rows import pad_rows, supervised_count
from data.world import judge as world_judge
from dpo import dpo_loss, reference_logprobs, sequence_logprobs
from model import GPT, Config, Optimizers, load_checkpoint, parameter_count, token_logprobs
from ppo import group_advantages, policy_loss
from reward_model import RewardModel, ranking_loss, score_rows
from sft import batch_loss

STEPS = 10  # of one round
LR = 1e-4
LENGTH = 64  # tokens of a row of the training steps
RESPONSE = 26  # how many of them are the response
CPU = torch.device("cpu")
MISSING = [
    name
    for name in ("transformers", "trl", "datasets", "accelerate")
    if util.find_spec(name) is None
]


def peak_memory_mb() -> float:
    """As in pipeline.py, which is not imported because its plotting library would count."""
    if util.find_spec("resource") is None:
        return float("nan")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes or KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1024 * 1024)


def in_turn(functions: dict, rounds: int, trainer=None, steps: int = 1) -> dict:
    """{name: (median seconds, least, most)} of `rounds` rounds in which everyone runs once.

    A warm-up round comes before them. A trainer of TRL keeps its own loop: after every `steps` of
    its steps the others have their turn, and then it goes on.
    """
    seconds = {name: [] for name in functions}

    def turn():
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)

    if trainer is None:
        for _ in range(rounds + 1):
            turn()
    else:
        from transformers import TrainerCallback

        seconds["TRL"] = []

        class Turns(TrainerCallback):
            began = 0.0  # only the warm-up round, which does not count, starts from here

            def on_step_end(self, args, state, control, **_):
                if state.global_step % steps == 0:
                    seconds["TRL"].append(time.perf_counter() - self.began)
                    turn()
                    self.began = time.perf_counter()

        trainer.add_callback(Turns())
        trainer.train()
    return {
        name: (statistics.median(times[1:]), min(times[1:]), max(times[1:]))
        for name, times in seconds.items()
    }


def measure(
    steps_of: dict, rounds: int, trainer=None, loss=None, rows: int = 64, steps: int = STEPS
) -> float | None:
    """Prints a line for each {name: one step on `rows` rows}, ours first.

    Returns our speed divided by TRL's, None without a trainer.
    """
    if trainer is not None and loss is not None:
        batch = trainer.data_collator(
            [trainer.train_dataset[k] for k in range(trainer.args.per_device_train_batch_size)]
        )
        ours = loss().item()
        theirs = trainer.compute_loss(trainer.model, batch).item()
        print(f"  same weights: first losses {ours:.6f} and, TRL's, {theirs:.6f}")

    def repeated(step):
        return lambda: [step() for _ in range(steps)]

    functions = {name: repeated(step) for name, step in steps_of.items()}
    times = in_turn(functions, rounds, trainer, steps)
    for name, (median, least, most) in times.items():
        ratio = "" if name == "ours" else f"; ours is {median / times['ours'][0]:.2f} times as fast"
        print(
            f"  {name:13} {1000 * median / steps:7.2f} ms a step "
            f"({1000 * least / steps:.2f} to {1000 * most / steps:.2f}), "
            f"{rows * LENGTH * steps / median:9,.0f} tokens/s{ratio}"
        )
    return times["TRL"][0] / times["ours"][0] if trainer is not None else None


# ---- the peer: the same shape and the same weights ----


def qwen3(model: GPT | RewardModel):
    """transformers' Qwen3 with the weights of our model, which must have QK-norm as Qwen3 does.

    A reward model becomes a Qwen3ForSequenceClassification. Its score has no bias; ours cancels in
    a pair.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

    if isinstance(model, RewardModel):
        language = qwen3(model.trunk)
        language.config.num_labels = 1
        peer = Qwen3ForSequenceClassification(language.config)
        peer.model = language.model
        peer.score.load_state_dict({"weight": model.score.weight.detach().clone()})
        return peer
    c = model.config
    shape = Qwen3Config(
        vocab_size=c.vocab_size,
        hidden_size=c.width,
        intermediate_size=c.ffn,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_size,
        max_position_embeddings=c.context,
        rope_theta=c.rope_base,
        rms_norm_eps=c.norm_eps,
        tie_word_embeddings=c.tied,
        attention_bias=False,
        attention_dropout=0.0,
    )
    state = {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.head.weight,
    }
    for i, block in enumerate(model.blocks):
        attention = block.attention
        at = f"model.layers.{i}."
        sizes = [c.heads * c.head_size, c.kv_heads * c.head_size, c.kv_heads * c.head_size]
        for name, matrix in zip("qkv", attention.qkv.weight.split(sizes)):
            state[f"{at}self_attn.{name}_proj.weight"] = matrix
        for name, matrix in zip(("gate", "up"), block.gate_up.weight.chunk(2)):
            state[f"{at}mlp.{name}_proj.weight"] = matrix
        state |= {
            f"{at}self_attn.o_proj.weight": attention.out.weight,
            f"{at}mlp.down_proj.weight": block.down.weight,
            f"{at}self_attn.q_norm.weight": attention.query_norm.weight,
            f"{at}self_attn.k_norm.weight": attention.key_norm.weight,
            f"{at}input_layernorm.weight": block.attention_norm.weight,
            f"{at}post_attention_layernorm.weight": block.ffn_norm.weight,
        }
    peer = Qwen3ForCausalLM(shape)
    peer.load_state_dict({name: value.detach().clone() for name, value in state.items()})
    return peer


@torch.no_grad()
def logit_difference(model: GPT, peer, ids) -> float:
    return float((model(ids) - peer(input_ids=ids).logits).abs().max())


def fresh(seed: int = 0) -> GPT:
    """A new model with random weights also where a new one has zeros.

    So attention and FFN take part when logits are compared.
    """
    model = GPT(Config(768, 256, 4, 96, 4, 2, 256, tied=False)).init_weights(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


# ---- TRL ----


def letters(ids) -> str:
    """Ids as text: one letter for each, which the trainer's tokenizer turns back into the ids."""
    return "".join(chr(0x4E00 + i) for i in ids)


def trl_trainer(
    kind: str,
    model,
    tokenizer,
    columns: dict,
    *,
    steps: int,
    batch: int,
    settings: dict,
    reference: GPT | None = None,
    **more,
):
    """TRL's trainer of this kind for `steps` steps; None without TRL.

    Each step sees the rows of `columns` in their order.
    """
    if MISSING:
        return None
    import datasets
    import transformers
    import trl
    from tokenizers import Tokenizer, models

    datasets.disable_progress_bars()
    args = getattr(trl, f"{kind}Config")(
        output_dir=tempfile.gettempdir(),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=LR,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        **settings,
    )
    rows = datasets.Dataset.from_dict({name: column * steps for name, column in columns.items()})
    vocabulary = {letters([i]): i for i in range(tokenizer.vocab_size)}
    symbols = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab=vocabulary, merges=[])),
        eos_token=letters([tokenizer.end_id]),
        pad_token=letters([tokenizer.pad_id]),
    )
    more |= {} if reference is None else {"ref_model": qwen3(reference)}
    trainer = getattr(trl, f"{kind}Trainer")(
        model=qwen3(model), args=args, train_dataset=rows, processing_class=symbols, **more
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


# ---- training steps ----


def random_pairs(tokenizer, count: int = 32) -> list:
    """Pairs of rows with one prompt and two responses that end with the end mark."""
    rng = random.Random(0)
    prompt = LENGTH - RESPONSE
    mask = [False] * prompt + [True] * RESPONSE
    pairs = []
    for _ in range(count):
        ids = rng.choices(range(min(tokenizer.mark_ids)), k=prompt + 2 * (RESPONSE - 1))
        responses = (ids[prompt : 1 - RESPONSE], ids[1 - RESPONSE :])
        pairs.append(
            tuple((ids[:prompt] + half + [tokenizer.end_id], list(mask)) for half in responses)
        )
    return pairs


def step_of(model, loss):
    optimizers = Optimizers(model.train(), LR)
    return lambda: (loss().backward(), optimizers.step(1.0))


def sft_step(tokenizer, rounds: int) -> float | None:
    rows = [chosen for chosen, _ in random_pairs(tokenizer)]
    model = fresh()
    ids = [row[0] for row in rows]
    labels = [[i if on else -100 for i, on in zip(*row)] for row in rows]
    print(
        f"SFT step: {len(rows)} rows of {LENGTH} tokens, {RESPONSE} of them supervised, AdamW, "
        f"{parameter_count(model):,} parameters"
    )

    def loss():
        return batch_loss(model, tokenizer, rows, supervised_count(rows), CPU)

    steps_of = {"ours": step_of(model, loss)}
    if "transformers" not in MISSING:
        peer = qwen3(model)
        apart = logit_difference(model, peer, torch.tensor(ids))
        print(
            f"  logits differ by at most {apart:.1e}, "
            f"the peer has {parameter_count(peer):,} parameters"
        )

        def their_loss():
            batch = {"input_ids": pad_rows(ids, 0), "labels": pad_rows(labels, -100)}
            return peer(**batch, use_cache=False).loss

        steps_of["transformers"] = step_of(peer, their_loss)
    trainer = trl_trainer(
        "SFT",
        model,
        tokenizer,
        {"input_ids": ids, "labels": labels},
        steps=(rounds + 1) * STEPS,
        batch=len(rows),
        settings={"dataset_kwargs": {"skip_prepare_dataset": True}},
    )
    return measure(steps_of, rounds, trainer, loss, len(rows))


def reward_model_step(tokenizer, rounds: int) -> float | None:
    pairs = random_pairs(tokenizer)
    model = RewardModel(fresh())
    print(f"reward model step: {len(pairs)} pairs of rows of {LENGTH} tokens")

    def loss():
        scores = score_rows(model, tokenizer, [row for pair in pairs for row in pair]).view(-1, 2)
        return ranking_loss(scores, torch.tensor([[0, 1]] * len(pairs)))

    columns = {
        "chosen_ids": [chosen[0] for chosen, _ in pairs],
        "rejected_ids": [rejected[0] for _, rejected in pairs],
    }
    how = {"steps": (rounds + 1) * STEPS, "batch": len(pairs), "settings": {}}
    trainer = trl_trainer("Reward", model, tokenizer, columns, **how)
    return measure({"ours": step_of(model, loss)}, rounds, trainer, loss)


def dpo_step(tokenizer, rounds: int) -> float | None:
    pairs = random_pairs(tokenizer)
    model = fresh()
    reference = fresh(1).eval().requires_grad_(False)
    print(
        f"DPO step: {len(pairs)} pairs of rows of {LENGTH} tokens, "
        "with the reference's log-probabilities in every step"
    )

    def loss():
        rows = [row for pair in pairs for row in pair]
        logps = sequence_logprobs(model, tokenizer, rows, CPU).view(-1, 2)  # (pairs, 2)
        before = reference_logprobs(reference, tokenizer, pairs, CPU)
        return dpo_loss(logps[:, 0], logps[:, 1], *before)[0].mean()

    columns = {
        "prompt": [letters(chosen[0][:-RESPONSE]) for chosen, _ in pairs],
        "chosen": [letters(chosen[0][-RESPONSE:]) for chosen, _ in pairs],
        "rejected": [letters(rejected[0][-RESPONSE:]) for _, rejected in pairs],
    }
    how = {"steps": (rounds + 1) * STEPS, "batch": len(pairs), "settings": {}}
    trainer = trl_trainer("DPO", model, tokenizer, columns, reference=reference, **how)
    return measure({"ours": step_of(model, loss)}, rounds, trainer, loss)


def group_rl_step(
    tokenizer, rounds: int, samples: int = 8, max_new: int = 40, steps: int = 3
) -> float | None:
    """One generation and one update.

    Neither side needs a forward for old log-probabilities. "as in ppo.py" adds that forward and the
    one for the entropy, which `ppo.rollout` does. The end mark is one that no model here can write,
    so that every completion has `max_new` tokens.
    """
    prompts = [chosen[0][: LENGTH - max_new] for chosen, _ in random_pairs(tokenizer, 8)]
    model = fresh()
    lengths = set()
    endless = SimpleNamespace(
        pad_id=tokenizer.pad_id,
        end_id=tokenizer.vocab_size,
        runtime_ids=set(),
        vocab_size=tokenizer.vocab_size + 1,
    )
    print(
        f"group RL step: {len(prompts)} prompts of {LENGTH - max_new} tokens, "
        f"{samples} completions each, one update, no reference"
    )

    def reward(completion_ids, **_):
        lengths.update(map(len, completion_ids))
        return [sum(token % 2 for token in row) / len(row) for row in completion_ids]

    def loss(as_in_ppo=False):
        how = {"n": samples, "max_new": max_new, "seed": random.randrange(1 << 30)}
        drawn = generate(model, endless, prompts, **how)
        rows = sampled_rows(prompts, drawn)
        scores = torch.tensor(reward(drawn.lists())).view(-1, samples)  # (prompts, samples)
        ids = pad_rows([row[0] for row in rows], endless.pad_id)  # (rows, tokens)
        mask = pad_rows([row[1] for row in rows], False)
        if as_in_ppo:
            with torch.no_grad():
                token_logprobs(model, ids, mask)
                entropy_of(model, ids, mask, 1.0)
        logprobs = token_logprobs(model, ids, mask)
        finished = torch.ones_like(scores, dtype=torch.bool)
        advantages = group_advantages(scores, finished, "zscore").view(-1, 1) * mask
        return policy_loss(logprobs, logprobs.detach(), advantages, mask)[0]

    trainer = trl_trainer(
        "GRPO",
        model,
        endless,
        {"prompt": [letters(prompt) for prompt in prompts]},
        steps=(rounds + 1) * steps,
        batch=len(prompts) * samples,
        settings={"num_generations": samples, "max_completion_length": max_new},
        reward_funcs=reward,
    )
    steps_of = {
        "ours": step_of(model, loss),
        "as in ppo.py": step_of(model, lambda: loss(as_in_ppo=True)),
    }
    ratio = measure(steps_of, rounds, trainer, rows=len(prompts) * samples, steps=steps)
    print(f"  new tokens of a completion, on all sides: {', '.join(map(str, sorted(lengths)))}")
    return ratio


# ---- generation ----


def real_prompts(tokenizer, count: int = 192) -> list[list[int]]:
    """Evaluation prompts of all six domains in equal parts."""
    each = count // len(world.DOMAINS)
    messages = [
        task.messages
        for domain in world.DOMAINS[:5]
        for task in world.evaluation_tasks(domain, each)
    ]
    messages += [
        [{"role": "user", "content": world_judge.judge_prompt(task.prompt, response)}]
        for task, *responses in world.evaluation_judge_pairs(each // 2)
        for response in responses
    ]
    return [tokenizer.prompt(dialogue) for dialogue in messages]


def useful(row: list[int], ends: set) -> int:
    """Tokens up to and including the first one that ends the row."""
    return next((k + 1 for k, token in enumerate(row) if token in ends), len(row))


def generation(
    tokenizer, model: GPT, trained: bool, rounds: int, max_new: int = 64
) -> float | None:
    """Greedy decoding of evaluation prompts; our useful tokens a second divided by theirs."""
    prompts = real_prompts(tokenizer)
    ends = {tokenizer.end_id, *tokenizer.runtime_ids}
    lengths = [len(prompt) for prompt in prompts]
    weights = "checkpoint" if trained else "random weights"
    print(
        f"generation: {len(prompts)} evaluation prompts of {min(lengths)} to {max(lengths)} tokens "
        f"in one batch, greedy, natural stops, up to {max_new} new tokens, "
        f"{parameter_count(model):,} parameters, {weights}"
    )
    rows = {}
    peers = "transformers" not in MISSING

    def ours():
        drawn = generate(model, tokenizer, prompts, max_new=max_new, temperature=0.0)
        rows["ours"] = drawn.lists()

    functions = {"ours": ours}
    if peers:
        peer = qwen3(model).eval()
        ids = pad_rows(prompts, tokenizer.pad_id, left=True)
        real = pad_rows([[1] * len(prompt) for prompt in prompts], 0, left=True)
        same = torch.tensor([prompt[: min(lengths)] for prompt in prompts])
        print(f"  same weights: logits differ by at most {logit_difference(model, peer, same):.1e}")

        def theirs():
            out = peer.generate(
                input_ids=ids,
                attention_mask=real,
                max_new_tokens=max_new,
                do_sample=False,
                eos_token_id=sorted(ends),
                pad_token_id=tokenizer.pad_id,
            )
            rows["transformers"] = out[:, ids.shape[1] :].tolist()

        functions["transformers"] = theirs
    times = in_turn(functions, rounds)
    speed = {}
    for name, (median, least, most) in times.items():
        written = [useful(row, ends) for row in rows[name]]
        stopped = sum(row[k - 1] in ends for row, k in zip(rows[name], written))
        speed[name] = sum(written) / median
        print(
            f"  {name:13} {median:6.2f} s ({least:.2f} to {most:.2f}), "
            f"{sum(written):,} useful tokens, {stopped} of {len(written)} rows stopped, "
            f"{speed[name]:9,.0f} useful tokens/s"
        )
    if not peers:
        return None
    equal = sum(
        a[: useful(a, ends)] == b[: useful(b, ends)]
        for a, b in zip(rows["ours"], rows["transformers"])
    )
    ratio = speed["ours"] / speed["transformers"]
    print(
        f"  ours is {ratio:.2f} times as fast as transformers; "
        f"{equal} of {len(prompts)} replies are equal"
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--checkpoint",
        default=None,
        help="one of our checkpoints with QK-norm and no smear, for generation; "
        "without it, random weights",
    )
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads of both"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds that the median is taken of")
    parser.add_argument(
        "--out",
        default=None,
        metavar="FILE",
        help="JSON of our speed divided by theirs (TRL's; generation: transformers')",
    )
    args = parser.parse_args()
    if args.rounds < 1 or args.threads < 1:
        fail("--rounds and --threads need at least 1")
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    try:
        model = load_checkpoint(args.checkpoint, tokenizer)[0] if args.checkpoint else fresh()
    except ValueError as error:
        fail(error)
    if model.config.smear:
        fail(f"{args.checkpoint}: has smear, which Qwen3 lacks; give another checkpoint, or none")
    if not model.config.qk_norm:
        fail(f"{args.checkpoint}: has no QK-norm, which Qwen3 has; give another checkpoint")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # no server is asked
    # TRL's and transformers' settings that are going to be renamed
    warnings.filterwarnings("ignore", category=FutureWarning)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"median of {args.rounds} after a warm-up; memory {peak_memory_mb():.0f} MB"
    )
    if "transformers" not in MISSING:
        import transformers

        transformers.logging.set_verbosity_error()
        version = transformers.__version__
        print(f"transformers {version}; peak memory with it {peak_memory_mb():.0f} MB")
    left_out = "the steps of TRL"
    if "transformers" in MISSING:
        left_out += ", and the SFT step and the generation of transformers"
    if MISSING:
        print(f"not measured: {left_out}; not installed: {', '.join(MISSING)}")
    else:
        print(f"TRL {metadata.version('trl')}")
    ratios = {
        "sft": sft_step(tokenizer, args.rounds),
        "reward_model": reward_model_step(tokenizer, args.rounds),
        "dpo": dpo_step(tokenizer, args.rounds),
        "group_rl": group_rl_step(tokenizer, args.rounds),
    }
    ratios["generation"] = generation(tokenizer, model, args.checkpoint is not None, args.rounds)
    print(f"  peak memory {peak_memory_mb():.0f} MB")
    if args.out:
        ratios |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
        writing.write_json(args.out, ratios)


if __name__ == "__main__":
    guarded(main)
