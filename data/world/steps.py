"""Worked steps of arithmetic, written the way one does them on paper.

Steps stand between the think marks: 47 + 38 is worked as `47+38: 7+8=15 4+3=7 7+1=8` and answered
`85`. Every step is small enough to be known by heart, and a test holds each of them true.
"""


def column_sum(first: int, second: int) -> str:
    """The steps of a sum, column by column from the right.

    A carry is added in a step of its own: 47 + 38 is `7+8=15 4+3=7 7+1=8`.
    """
    steps = []
    carry = 0
    while first or second:
        total = first % 10 + second % 10
        steps.append(f"{first % 10}+{second % 10}={total}")
        if carry:
            steps.append(f"{total}+1={total + 1}")
            total += 1
        carry = total // 10
        first //= 10
        second //= 10
    return " ".join(steps)


def column_difference(first: int, second: int) -> str:
    """The steps of first - second (first >= second), column by column from the right.

    A borrowed one is taken off in a step of its own: 52 - 38 is `12-8=4 5-1=4 4-3=1`.
    """
    if first < 20 and second < 10:
        return f"{first}-{second}={first - second}"
    steps = []
    borrow = False
    while first or second:
        top = first % 10
        bottom = second % 10
        if borrow:
            borrow = top == 0  # the 10 that this digit becomes is borrowed in turn
            top = top or 10
            steps.append(f"{top}-1={top - 1}")
            top -= 1
        if top < bottom:
            borrow = True
            top += 10
        steps.append(f"{top}-{bottom}={top - bottom}")
        first //= 10
        second //= 10
    return " ".join(steps)


def product_steps(first: int, second: int) -> str:
    """The steps of a product: tens and units of the larger factor apart, then their sum."""
    large = max(first, second)
    small = min(first, second)
    if large < 10 or large % 10 == 0 or small == 1:
        return f"{large}*{small}={large * small}"
    units = large % 10
    tens = large - units
    apart = f"{tens}*{small}={tens * small} {units}*{small}={units * small}"
    return f"{apart} {tens * small}+{units * small}={large * small}"


def quotient_steps(dividend: int, divisor: int) -> str:
    """The steps of a division, digit by digit from the left.

    Each quotient is a digit of the answer and is followed by its remainder: 144 / 8 is
    `14//8=1 14-8=6 64//8=8 64-64=0`.
    """
    steps = []
    rest = 0
    for digit in str(dividend):
        rest = 10 * rest + int(digit)
        if rest < divisor and not steps:
            continue
        whole = rest // divisor
        left = rest % divisor
        steps.append(f"{rest}//{divisor}={whole} {rest}-{whole * divisor}={left}")
        rest = left
    return " ".join(steps)


def quotient_text(dividend: int, divisor: int) -> str:
    """The quotient as a whole number or as a decimal that ends.

    The divisor is 2, 4, 5 or divides the dividend.
    """
    if dividend % divisor == 0:
        return str(dividend // divisor)
    return f"{dividend / divisor:.2f}".rstrip("0")


def sign(first: int, second: int) -> str:
    if first == second:
        return "="
    return ">" if first > second else "<"


def comparison(first: int, second: int) -> str:
    """`47>38`."""
    return f"{first}{sign(first, second)}{second}"


def compared(first: int, second: int) -> str:
    """The steps of comparing two numbers below 100.

    The tens come first, the units only where the tens are equal: 25 and 22 are `2=2 5>2 25>22`.
    """
    steps = []
    if max(first, second) > 9:
        steps.append(comparison(first // 10, second // 10))
        if first // 10 == second // 10:
            steps.append(comparison(first % 10, second % 10))
    steps.append(comparison(first, second))
    return " ".join(steps)


def gap_steps(first: int, second: int) -> str:
    """How far two numbers are apart: `41-38: 11-8=3 4-1=3 3-3=0`."""
    high = max(first, second)
    low = min(first, second)
    return f"{high}-{low}: {column_difference(high, low)}"
