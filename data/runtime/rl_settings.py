"""What the settings of ppo.py may be."""

CHOICES = {
    "estimator": ("group", "gae"),
    "baseline": ("centre", "zscore", "leave_one_out"),
    "normalise": ("token", "sequence", "constant"),
    "ratio": ("token", "sequence"),
}
# 2507.18071, section 5.1: a geometric mean over a response lies much nearer 1 than a token's ratio
GSPO = {"ratio": "sequence", "normalise": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}


def check(settings) -> None:
    """Raises ValueError for an unknown choice, and for choices that together are no method that
    anybody published. `settings`: ppo.Settings."""
    for name, known in CHOICES.items():
        given = getattr(settings, name)
        if given not in known:
            raise ValueError(f"{name} is {given!r}; there is {', '.join(known)}")
    widest = max(settings.clip_low, settings.clip_high)
    whole = settings.normalise == "sequence" and settings.estimator == "group" and widest <= 0.01
    if settings.ratio == "sequence" and not whole:
        raise ValueError(
            "ratio 'sequence' is GSPO only with estimator 'group', normalise 'sequence' and a clip "
            f"range of its own (clip_low {GSPO['clip_low']}, clip_high {GSPO['clip_high']}; here "
            "at most 0.01)"
        )
    if settings.kl_target and not settings.kl_coef:
        told = "kl_target multiplies kl_coef, which is 0; give a kl_coef to begin with"
        raise ValueError(told)


def form_of(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    normalise: str = "token",
    ratio: str = "token",
    longest: int | None = None,
) -> tuple:
    """The options of `ppo.policy_loss` with their defaults.

    Raises ValueError for what it does not know, or for half of GSPO.
    """
    if normalise not in CHOICES["normalise"] or ratio not in CHOICES["ratio"]:
        raise ValueError(
            f"normalise is {normalise!r} and ratio {ratio!r}; there is token, sequence and "
            "constant, and token and sequence"
        )
    if ratio == "sequence" and normalise != "sequence":
        told = f"ratio 'sequence' (GSPO) needs normalise 'sequence', not {normalise!r}"
        raise ValueError(told)
    return clip_low, clip_high, normalise, ratio, longest


def loss_form(settings, tokens: int, responses: float) -> dict:
    """What `ppo.policy_loss` takes of the settings; `tokens`, `responses`: of the minibatch."""
    return {
        "clip_low": settings.clip_low,
        "clip_high": settings.clip_high,
        "normalise": settings.normalise,
        "ratio": settings.ratio,
        "longest": settings.max_new,
        "count": tokens if settings.normalise == "token" else responses,
    }


def begin_as(critic, reward_model, policy, stage: str) -> None:
    """The critic takes the weights of the reward model, where there is one.

    Raises ValueError where they do not fit.
    """
    if reward_model is None:
        return
    if reward_model.config != policy.config:
        told = "the reward model has another shape than the policy, so no critic can begin as it"
        raise ValueError(f"{stage}: {told}")
    critic.load_state_dict(reward_model.state_dict())
