"""The phrasings of the math problems: data, no code.

Each tuple has five. The last is never trained on.
"""

SUM = (
    "What is {first} + {second}?",
    "Add {first} and {second}.",
    "Work out the sum of {first} and {second}.",
    "{first} + {second} = ?",
    "How much do {first} and {second} make together?",
)
DIFFERENCE = (
    "What is {first} - {second}?",
    "Subtract {second} from {first}.",
    "Take {second} away from {first}.",
    "{first} - {second} = ?",
    "How much is {first} minus {second}?",
)
PRODUCT = (
    "What is {first} * {second}?",
    "Multiply {first} by {second}.",
    "Work out {first} times {second}.",
    "{first} * {second} = ?",
    "Find the product of {first} and {second}.",
)
QUOTIENT = (
    "What is {dividend} / {divisor}?",
    "Divide {dividend} by {divisor}.",
    "Work out {dividend} divided by {divisor}.",
    "{dividend} / {divisor} = ?",
    "How often does {divisor} go into {dividend}?",
)
EXPRESSIONS = {
    "chain": "{first} + {second} - {third}",
    "product_first": "{first} + {second} * {third}",
    "less_product": "{first} - {second} * {third}",
    "bracket": "({first} + {second}) * {third}",
}
EXPRESSION_FRAMES = (
    "What is {}?",
    "Work out {}.",
    "Compute {} step by step.",
    "Find the value of {}.",
    "Tell me what {} equals.",
)
COMPARISON = {
    "two": (
        "Which is larger, {first} or {second}, and by how much?",
        "Pick the bigger number and say by how much: {first} or {second}.",
        "{first} or {second}: which one is more, and by how much?",
        "Compare {first} and {second}: which is larger, and by how much?",
        "Of {first} and {second}, name the greater and how far it is ahead.",
    ),
    "three": (
        "Take the smallest of {first}, {second} and {third} from the largest.",
        "What is the largest of {first}, {second} and {third} minus the smallest?",
        "Subtract the smallest of {first}, {second} and {third} from the largest.",
        "{first}, {second} and {third}: how far is the largest above the smallest?",
        "How much more than the least of {first}, {second} and {third} is the greatest?",
    ),
}
WORD_PROBLEM = {
    "more": (
        "{name} has {first} {thing}s and gets {second} more. "
        "How many {thing}s does {name} have now?",
        "There are {first} {thing}s in a bag. {name} puts in {second} more. "
        "How many are in the bag?",
        "{name} found {first} {thing}s today and {second} {thing}s yesterday. "
        "How many are that together?",
        "First {name} buys {first} {thing}s, then another {second}. How many {thing}s were bought?",
        "With {first} {thing}s at home and {second} at work, how many {thing}s does {name} own?",
    ),
    "fewer": (
        "{name} has {first} {thing}s and gives away {second}. How many {thing}s are left?",
        "There are {first} {thing}s in a box. {name} takes out {second}. How many stay in the box?",
        "{name} had {first} {thing}s but lost {second} of them. How many does {name} still have?",
        "Of {first} {thing}s, {name} sells {second}. How many {thing}s remain?",
        "From {first} {thing}s {name} removes {second}. What number of {thing}s is that now?",
    ),
    "boxes": (
        "{name} has {first} boxes with {second} {thing}s in each. How many {thing}s is that?",
        "Each of {first} bags holds {second} {thing}s. How many {thing}s does {name} carry?",
        "{name} buys {second} {thing}s on each of {first} days. "
        "How many {thing}s are that together?",
        "In a shop {name} sees {first} rows of {second} {thing}s. How many {thing}s are there?",
        "If {first} friends of {name} bring {second} {thing}s each, how many {thing}s are brought?",
    ),
    "shares": (
        "{name} shares {first} {thing}s among {second} friends. How many {thing}s does each get?",
        "{name} puts {first} {thing}s into {second} equal rows. How many {thing}s are in a row?",
        "There are {first} {thing}s for {second} children. "
        "How many does {name} give to each child?",
        "{name} has {second} boxes that hold {first} {thing}s in equal parts. "
        "How many {thing}s are in one box?",
        "Split {first} {thing}s of {name} evenly over {second} plates. What does one plate hold?",
    ),
}
