"""What chat is about: facts, words and set phrases. Data, no code."""

CAPITALS = {
    "France": "Paris",
    "Spain": "Madrid",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Peru": "Lima",
    "Norway": "Oslo",
    "Greece": "Athens",
    "Cuba": "Havana",
    "Kenya": "Nairobi",
    "China": "Beijing",
    "Chile": "Santiago",
    "Austria": "Vienna",
    "Poland": "Warsaw",
    "Iran": "Tehran",
    "Ghana": "Accra",
}
# animal -> what it does to be heard
SOUNDS = {
    "dog": "barks",
    "cat": "meows",
    "cow": "moos",
    "sheep": "bleats",
    "lion": "roars",
    "duck": "quacks",
    "bee": "buzzes",
    "snake": "hisses",
    "wolf": "howls",
    "frog": "croaks",
    "mouse": "squeaks",
    "horse": "neighs",
}
COLOURS = {
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "the sky": "blue",
    "a lemon": "yellow",
    "a carrot": "orange",
    "chocolate": "brown",
    "milk": "white",
    "a tomato": "red",
    "the sea": "blue",
    "a plum": "purple",
}
GROUPS = {
    "fruits": "apple pear plum cherry lemon banana grape melon",
    "animals": "dog cat cow lion horse wolf frog sheep",
    "colours": "red blue green yellow white black brown orange",
    "tools": "hammer saw drill rake shovel axe file wrench",
    "drinks": "water tea milk coffee juice cocoa soda cider",
    "trees": "oak pine birch maple willow elm cedar palm",
    "birds": "duck owl crow swan robin hawk goose raven",
    "toys": "doll ball kite puzzle robot train top yoyo",
}
GROUPS = {group: words.split() for group, words in GROUPS.items()}
OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "fast": "slow",
    "old": "new",
    "brave": "afraid",
    "light": "dark",
    "hard": "soft",
    "wet": "dry",
    "high": "low",
    "full": "empty",
    "rich": "poor",
    "strong": "weak",
    "early": "late",
    "open": "closed",
    "long": "short",
    "loud": "quiet",
    "clean": "dirty",
    "deep": "shallow",
    "wide": "narrow",
    "sweet": "sour",
}
OPPOSITES |= {opposite: word for word, opposite in OPPOSITES.items()}
# thing -> what it is, and a detail
DESCRIPTIONS = {
    "a cat": ("a small animal", "soft fur"),
    "a dog": ("a loyal animal", "a wet nose"),
    "a horse": ("a large animal", "strong legs"),
    "an owl": ("a night bird", "big eyes"),
    "a swan": ("a white bird", "a long neck"),
    "an oak": ("a tall tree", "hard wood"),
    "a pine": ("a green tree", "thin needles"),
    "a lemon": ("a yellow fruit", "sour juice"),
    "a melon": ("a big fruit", "sweet juice"),
    "a hammer": ("a simple tool", "a heavy head"),
    "a saw": ("a sharp tool", "many teeth"),
    "a kite": ("a light toy", "a long string"),
    "a doll": ("a small toy", "painted eyes"),
    "a lion": ("a wild animal", "a golden mane"),
    "a frog": ("a green animal", "long legs"),
    "a bee": ("a small insect", "clear wings"),
    "a train": ("a fast vehicle", "many wagons"),
    "a bike": ("a simple vehicle", "two wheels"),
    "a lamp": ("a useful thing", "a bright bulb"),
    "a book": ("a useful thing", "many pages"),
}
# goal -> two tips
ADVICE = {
    "sleep better": ("go to bed early", "turn off the screen"),
    "get fit": ("walk every day", "eat less sugar"),
    "learn piano": ("practise every day", "start with easy songs"),
    "save money": ("make a budget", "cook at home"),
    "make friends": ("join a club", "smile at people"),
    "pass the test": ("study a little each day", "solve old exams"),
    "stay calm": ("breathe slowly", "take a short walk"),
    "read more": ("carry a book", "read before bed"),
    "grow plants": ("water them often", "give them light"),
    "cook well": ("use fresh food", "taste as you go"),
    "run faster": ("train twice a week", "rest between runs"),
    "write well": ("read good books", "use short sentences"),
    "wake up early": ("set an alarm", "sleep before ten"),
    "speak clearly": ("talk slowly", "open your mouth"),
    "draw better": ("sketch every day", "look at real things"),
    "eat healthy": ("buy more fruit", "drink more water"),
}
PEOPLE = "I, my brother, my friend, my mother, a child, my boss, my uncle, a student".split(", ")
VERBS = [f"{verb} me" for verb in "give bring show send lend find buy hand".split()]
OBJECTS = (
    "the book, a pen, the keys, some water, the map, a cup of tea, the report, a chair, "
    "your phone, the salt, a towel, the ticket, some paper, the bill, an apple, the door code, "
    "the hammer, your coat, a ladder, the letter, a blanket, the menu, an umbrella, the lamp, "
    "a plate, the camera, some soap, a candle, the newspaper, your pencil, the basket, a spoon"
).split(", ")
LIKES = (
    "tea, music, chess, football, apples, trains, old books, long walks, cats, boats, pizza, rain"
).split(", ")
GREETINGS = ["Hello", "Hi", "Good morning", "Good evening", "Hey", "Good day"]

# what makes a response polite, impolite, or wordy
OPENINGS = ("Sure!", "Of course!", "Happy to help!", "Gladly!", "With pleasure!")
POLITE = (
    "sure",
    "of course",
    "happy to help",
    "gladly",
    "with pleasure",
    "please",
    "thank you",
    "welcome",
    "nice to meet you",
)
RUDE = ("whatever", "go away", "who cares", "obviously")
FILLERS = (
    "That is really all I can say about it.",
    "There is so much more to say about this.",
    "People talk about this all the time, you know.",
)
