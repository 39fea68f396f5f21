"""Claims of a student's process against what the solution returns, and what is said of them."""

import math

import torch

from tests.classroom.cases import Case, computed, plain

RELATIVE = 1e-4
ABSOLUTE = 1e-5


def is_tensor(value) -> bool:
    return isinstance(value, dict) and set(value) == {"shape", "values"}


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def close(got, expected) -> bool:
    if is_number(got) and is_number(expected):
        if math.isnan(expected) or math.isinf(expected):
            return got == expected or math.isnan(got) and math.isnan(expected)
        return abs(got - expected) <= ABSOLUTE + RELATIVE * abs(expected)
    return type(got) is type(expected) and got == expected


def unwrapped(value):
    """A tensor of one number without dimensions as that number."""
    return value["values"][0] if is_tensor(value) and value["shape"] == [] else value


def difference(got: dict, expected: dict) -> str:
    """How an answer differs from the expected one, or ""; both of `cases.computed`."""
    try:
        return how_different(got, expected)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return "its answer cannot be read"  # of a process that wrote something of its own


def how_different(got: dict, expected: dict) -> str:
    if "raised" in expected:
        if got.get("raised") == expected["raised"]:
            return ""
        came = f"{got['raised']}: {got.get('told', '')}" if "raised" in got else "no error"
        return f"expected a {expected['raised']}, came {came}"
    if "raised" in got:
        if got["raised"] == "NotImplementedError":
            return "still blank: NotImplementedError"
        return f"raised {got['raised']}: {got.get('told', '')}"
    if "returned" not in got:
        return "its answer cannot be read"
    found = in_value(got["returned"], expected["returned"], "")
    if found:
        return found
    for name, gradient in expected["gradients"].items():
        came = (got.get("gradients") or {}).get(name)
        if came is None and gradient is not None and any(gradient["values"]):
            return f"the values are right, but no gradient reaches {name}: is something detached?"
        if gradient is None and came is not None and is_tensor(came) and any(came["values"]):
            return f"the values are right, but {name} should get no gradient"
        if gradient is not None and came is not None:
            found = in_value(came, gradient, f"gradient by {name}")
            if found:
                return f"the values are right, their gradient is not; {found}"
    return ""


def in_value(got, expected, where: str) -> str:
    got, expected = unwrapped(got), unwrapped(expected)
    prefix = f"{where}: " if where else ""
    if is_tensor(expected):
        if not is_tensor(got):
            return f"{prefix}expected a tensor {shown(expected)}, came {shown(got)}"
        if got["shape"] != expected["shape"]:
            return f"{prefix}expected the shape {expected['shape']}, came {got['shape']}"
        pairs = zip(got["values"], expected["values"], strict=True)
        if not all(close(*pair) for pair in pairs):
            return f"{prefix}expected {shown(expected)}, came {shown(got)}"
        return ""
    if isinstance(expected, list):
        if not isinstance(got, list) or len(got) != len(expected):
            return f"{prefix}expected {shown(expected)}, came {shown(got)}"
        for k, pair in enumerate(zip(got, expected)):
            found = in_value(*pair, f"{where} output {k}".strip() if len(expected) > 1 else where)
            if found:
                return found
        return ""
    if not close(got, expected):
        return f"{prefix}expected {shown(expected)}, came {shown(got)}"
    return ""


# ---- what is shown ----


def shown(value, most: int = 12) -> str:
    """A value in one line; of a long one its first numbers."""
    value = unwrapped(value)
    if is_tensor(value):
        numbers = ", ".join(shown(one) for one in value["values"][:most])
        rest = ", ..." if len(value["values"]) > most else ""
        shape = "" if len(value["shape"]) == 1 else f" of shape {tuple(value['shape'])}"
        return f"[{numbers}{rest}]{shape}"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, (list, tuple)):
        items = ", ".join(shown(one, most) for one in value[:most])
        return f"[{items}{', ...' if len(value) > most else ''}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(one)}" for name, one in value.items())
    return repr(value)[:200]


def shown_inputs(case: Case) -> str:
    """The inputs of a case, those that a line can hold."""
    parts = []
    for name, value in case.inputs.items():
        try:
            parts.append(f"{name} = {shown(plain(value))}")
        except TypeError:
            continue
    told = "input: " + "; ".join(parts)
    return told if len(told) < 500 else told[:500] + " ..."


# ---- the usual mistake ----


def usual_mistake(mistakes, chapter, right, cases, expected, found) -> str:
    """The mistake that gives what came, in the cases that went wrong and in those that went right.

    `mistakes`: [(what is wrong, a function that is handed the right one and then its arguments)].
    Where none fits everything, one that fits the first wrong case; else a sign or a factor; or "".
    """
    answered = [k for k, one in enumerate(found[: len(cases)]) if "returned" in one]
    answered = [k for k in answered if "returned" in expected[k]]
    wrong = [k for k in answered if difference(found[k], expected[k])]
    if not wrong:
        return ""
    fits_first = ""
    for told, mistaken in mistakes:

        def function(*inputs, mistaken=mistaken, **more):
            return mistaken(right, *inputs, **more)

        def fits(k: int) -> bool:
            torch.manual_seed(0)
            return not difference(found[k], computed(cases[k], chapter, function))

        if fits(wrong[0]):
            fits_first = fits_first or told
            if all(fits(k) for k in answered):
                return told
    if fits_first:
        return fits_first
    return scaled(found[wrong[0]]["returned"], expected[wrong[0]]["returned"])


def numbers_of(value) -> list[float]:
    value = unwrapped(value)
    if is_tensor(value):
        return [float(one) for one in value["values"] if is_number(one)]
    if isinstance(value, list):
        return [number for item in value for number in numbers_of(item)]
    return [float(value)] if is_number(value) else []


def scaled(got, expected) -> str:
    """The sign, or a factor, that all numbers have in common."""
    pairs = list(zip(numbers_of(got), numbers_of(expected)))
    pairs = [pair for pair in pairs if abs(pair[1]) > 1e-6]
    if not pairs or len(numbers_of(got)) != len(numbers_of(expected)):
        return ""
    factor = pairs[0][0] / pairs[0][1]
    if not all(math.isclose(a, factor * b, rel_tol=1e-3, abs_tol=1e-6) for a, b in pairs):
        return ""
    if math.isclose(factor, -1, rel_tol=1e-3):
        return "the sign is wrong"
    if math.isclose(factor, 1, rel_tol=1e-3):
        return ""  # it is the gradient that is wrong
    if math.isclose(factor, 0, abs_tol=1e-9):
        return "everything is 0"
    what = "a mean stands for a sum, or a sum for a mean, or a factor is missing"
    return f"every number is {factor:.4g} times the expected one: {what}"
