"""The phrasings of the STEM problems: data, no code.

Each tuple has five. The last is never trained on.
"""

UNIT_CONVERSION = (
    "Convert {amount} {unit} to {target}.",
    "How many {target} are {amount} {unit}?",
    "Write {amount} {unit} in {target}.",
    "{amount} {unit} = ? {target}",
    "Express {amount} {unit} as {target}.",
)

# of a formula z = x * y: what is asked for -> phrasings
FORCE = {
    "z": (
        "A mass of {mass} kg speeds up by {acceleration} m/s2. What is the force?",
        "What force gives {mass} kg an acceleration of {acceleration} m/s2?",
        "Find F for m = {mass} kg and a = {acceleration} m/s2.",
        "A cart of {mass} kg accelerates at {acceleration} m/s2. How strong is the push?",
        "How many N move {mass} kg at {acceleration} m/s2?",
    ),
    "x": (
        "A force of {force} N causes {acceleration} m/s2. What is the mass?",
        "Which mass gets {acceleration} m/s2 from {force} N?",
        "Find m for F = {force} N and a = {acceleration} m/s2.",
        "A push of {force} N gives a cart {acceleration} m/s2. How heavy is it?",
        "How many kg does {force} N move at {acceleration} m/s2?",
    ),
    "y": (
        "A force of {force} N acts on {mass} kg. What is the acceleration?",
        "Which acceleration does {force} N give to {mass} kg?",
        "Find a for F = {force} N and m = {mass} kg.",
        "A push of {force} N moves a cart of {mass} kg. How fast does it speed up?",
        "At what rate does {force} N speed up {mass} kg?",
    ),
}
DISTANCE = {
    "z": (
        "A car drives {speed} km/h for {time} h. How far does it go?",
        "How far is {time} h at {speed} km/h?",
        "Find d for v = {speed} km/h and t = {time} h.",
        "A train at {speed} km/h travels {time} h. What is the distance?",
        "What distance does a bus cover in {time} h at {speed} km/h?",
    ),
    "x": (
        "A car drives {distance} km in {time} h. What is its speed?",
        "Which speed covers {distance} km in {time} h?",
        "Find v for d = {distance} km and t = {time} h.",
        "A train travels {distance} km in {time} h. How fast is it?",
        "What speed does a bus need for {distance} km in {time} h?",
    ),
    "y": (
        "A car drives {distance} km at {speed} km/h. How long does it take?",
        "How long do {distance} km take at {speed} km/h?",
        "Find t for d = {distance} km and v = {speed} km/h.",
        "A train travels {distance} km at {speed} km/h. What is the time?",
        "What time does a bus need for {distance} km at {speed} km/h?",
    ),
}
DENSITY = {
    "z": (
        "A block has {density} g/cm3 and {volume} cm3. What is its mass?",
        "Which mass has a density of {density} g/cm3 at {volume} cm3?",
        "Find m for p = {density} g/cm3 and V = {volume} cm3.",
        "A stone of {volume} cm3 has a density of {density} g/cm3. How heavy is it?",
        "How many g are {volume} cm3 at {density} g/cm3?",
    ),
    "x": (
        "A block has {mass} g and {volume} cm3. What is its density?",
        "Which density has {mass} g in {volume} cm3?",
        "Find p for m = {mass} g and V = {volume} cm3.",
        "A stone of {volume} cm3 weighs {mass} g. How dense is it?",
        "How dense is a body of {mass} g and {volume} cm3?",
    ),
    "y": (
        "A block has {mass} g and {density} g/cm3. What is its volume?",
        "Which volume do {mass} g have at {density} g/cm3?",
        "Find V for m = {mass} g and p = {density} g/cm3.",
        "A stone of {density} g/cm3 weighs {mass} g. How big is it?",
        "What space do {mass} g of {density} g/cm3 fill?",
    ),
}
OHM = {
    "z": (
        "A current of {current} A flows through {resistance} Ohm. What is the voltage?",
        "Which voltage drives {current} A through {resistance} Ohm?",
        "Find U for R = {resistance} Ohm and I = {current} A.",
        "A lamp of {resistance} Ohm draws {current} A. How high is the voltage?",
        "How many V push {current} A through {resistance} Ohm?",
    ),
    "x": (
        "At {voltage} V a current of {current} A flows. What is the resistance?",
        "Which resistance draws {current} A at {voltage} V?",
        "Find R for U = {voltage} V and I = {current} A.",
        "A lamp draws {current} A at {voltage} V. How high is its resistance?",
        "How many Ohm let {current} A pass at {voltage} V?",
    ),
    "y": (
        "A voltage of {voltage} V lies on {resistance} Ohm. What is the current?",
        "Which current flows through {resistance} Ohm at {voltage} V?",
        "Find I for U = {voltage} V and R = {resistance} Ohm.",
        "A lamp of {resistance} Ohm hangs on {voltage} V. How much current does it draw?",
        "How many A pass {resistance} Ohm at {voltage} V?",
    ),
}

ELEMENT = {
    "symbol": (
        "What is the symbol of {element}?",
        "Give the chemical symbol for {element}.",
        "Which symbol stands for {element}?",
        "{element}: what is its symbol?",
        "How is {element} written in chemistry?",
    ),
    "name": (
        "Which element has the symbol {symbol}?",
        "Name the element {symbol}.",
        "What element is {symbol}?",
        "{symbol}: which element is it?",
        "What does {symbol} stand for in chemistry?",
    ),
    "number": (
        "What is the atomic number of {element}?",
        "Give the atomic number of {element}.",
        "Which atomic number belongs to {element}?",
        "{element}: what is its atomic number?",
        "How many protons does {element} have?",
    ),
    "heavier": (
        "Which has the higher atomic number, {element} or {other}, and by how much?",
        "Which element is heavier, {element} or {other}, and by how many protons?",
        "Name the heavier element and by how many protons: {element} or {other}.",
        "{element} or {other}: which has more protons, and how many more?",
        "Of {element} and {other}, which stands later in the table, and by how many places?",
    ),
}
PLANET = {
    "place": (
        "In what place from the Sun is {planet}?",
        "Give the place of {planet} from the Sun.",
        "Counted from the Sun, which planet is {planet}?",
        "{planet}: what is its place from the Sun?",
        "At what place does {planet} circle the Sun?",
    ),
    "nth": (
        "Which planet is the {ordinal} from the Sun?",
        "Name the {ordinal} planet.",
        "What is the {ordinal} planet from the Sun?",
        "The {ordinal} planet: what is it called?",
        "What do we call the {ordinal} planet?",
    ),
    "after": (
        "Which planet comes after {planet}?",
        "Name the planet that follows {planet}.",
        "What planet is next after {planet}?",
        "{planet}: which planet is next?",
        "Going outwards, what follows {planet}?",
    ),
    "farther": (
        "Which is farther from the Sun, {planet} or {other}, and by how many places?",
        "Name the farther planet and by how many places: {planet} or {other}.",
        "{planet} or {other}: which lies farther out, and by how many places?",
        "Compare {planet} and {other}: which is farther out, and by how many places?",
        "Of {planet} and {other}, which circles farther from the Sun, and by how many places?",
    ),
    "later": (
        "Which planet comes {places} places after {planet}?",
        "Name the planet {places} places after {planet}.",
        "What planet is {places} places farther out than {planet}?",
        "{planet}, then {places} places on: which planet is it?",
        "Going {places} places outwards from {planet}, which planet do we reach?",
    ),
    "earlier": (
        "Which planet comes {places} places before {planet}?",
        "Name the planet {places} places before {planet}.",
        "What planet is {places} places nearer to the Sun than {planet}?",
        "{planet}, then {places} places back: which planet is it?",
        "Going {places} places inwards from {planet}, which planet do we reach?",
    ),
}

GEOMETRY = {
    "area": (
        "What is the area of a rectangle of {length} cm by {width} cm?",
        "Find the area of a {length} cm by {width} cm rectangle.",
        "A rectangle is {length} cm long and {width} cm wide. What is its area?",
        "Rectangle, {length} cm and {width} cm: area?",
        "How much does a sheet of {length} cm by {width} cm cover?",
    ),
    "perimeter": (
        "What is the perimeter of a rectangle of {length} cm by {width} cm?",
        "Find the perimeter of a {length} cm by {width} cm rectangle.",
        "A rectangle is {length} cm long and {width} cm wide. What is its perimeter?",
        "Rectangle, {length} cm and {width} cm: perimeter?",
        "How long is the edge around a sheet of {length} cm by {width} cm?",
    ),
    "triangle": (
        "What is the area of a triangle with base {base} cm and height {height} cm?",
        "Find the area of a triangle, base {base} cm, height {height} cm.",
        "A triangle has a base of {base} cm and is {height} cm high. What is its area?",
        "Triangle, base {base} cm, height {height} cm: area?",
        "How much does a triangle of base {base} cm and height {height} cm cover?",
    ),
    "square": (
        "What is the area of a square with sides of {side} cm?",
        "Find the area of a {side} cm square.",
        "A square has sides of {side} cm. What is its area?",
        "Square, side {side} cm: area?",
        "How much does a square of {side} cm cover?",
    ),
}
