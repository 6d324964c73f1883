"""Every rule just inside and just outside of its threshold."""

import itertools

import pytest

from groundup.data.filters import FILTERS, Text
from groundup.data.filters.repetition import duplicates

STOP = ["the", "and"]
LONG = "All of the animals went to the river and that was what they have to do with it."


def words(count, start=0):
    """Different words of four letters."""
    letters = itertools.islice(itertools.product("bcdfghjk", repeat=4), start, start + count)
    return ["".join(four) for four in letters]


def reason(name, text):
    return FILTERS[name](Text(text))[1].removeprefix(f"{name}: ")


def prose(count):
    return " ".join([*STOP, *words(count - 2)])


GOPHER = {
    "words: fewest": (prose(50), prose(49), "fewer than 50 words"),
    "words: most": (
        " ".join(STOP + ["abcd"] * 99_998),
        " ".join(STOP + ["abcd"] * 99_999),
        "more than 100,000",
    ),
    "mean: shortest": ("the and " + "abc " * 58, "the and " + "abc " * 57 + "ab", "shorter than 3"),
    "mean: longest": (
        "the and " + " ".join(["abcdefghij"] * 48) + " abcdefghijklmnopqrstuvwx",
        "the and " + " ".join(["abcdefghij"] * 48) + " abcdefghijklmnopqrstuvwxy",
        "longer than 10",
    ),
    # the signs are words too: 10 of 100, 11 of 100
    "hash signs": (" ".join([prose(90), *"#" * 10]), " ".join([prose(89), *"#" * 11]), "hash signs"),
    "ellipses": (
        " ".join([prose(89), *["..."] * 10]) + " so",
        " ".join([prose(88), *["..."] * 11]) + " so",
        "ellipses a word",
    ),
    "bullets": (
        "\n".join(["- " + prose(9)] * 9 + [prose(9)]),
        "\n".join(["• " + prose(9)] * 10 + [prose(9)]),
        "begin with a bullet",
    ),
    "ends with ellipsis": (
        "\n".join([prose(20) + "..."] * 3 + [prose(20)] * 7),
        "\n".join([prose(20) + "…"] * 4 + [prose(20)] * 6),
        "end with an ellipsis",
    ),
    "letters": (prose(80) + " 1111" * 20, prose(79) + " 1111" * 21, "fewer than 80% of words have a letter"),
    "stop words": (
        " ".join(["the", "with", *words(60)]),
        " ".join(["the", *words(60)]),
        "English stop words",
    ),
}


@pytest.mark.parametrize("case", GOPHER)
def test_gopher(case):
    inside, outside, why = GOPHER[case]
    assert reason("gopher", inside) == ""
    assert why in reason("gopher", outside)


def test_gopher_lets_other_scripts_be_judged_by_what_holds_for_them():
    chinese = "床前明月光疑是地上霜举头望明月低头思故乡" * 3
    assert reason("gopher", chinese) == ""
    assert "50 words" in reason("gopher", chinese[:49])
    assert reason("gopher", "Однажды весною в час небывало жаркого заката " * 9) == ""
    assert reason("gopher", "Dem Volke ist es gleich was wir im Hause alle tun " * 9) != ""


def ngram_text(n, times, size):
    """`size` words of 4 letters, in which the same n words stand `times` times, never beside one another."""
    other = iter(words(size, 100))
    repeated = words(n)
    text = []
    for _ in range(times):
        text += [*repeated, next(other)]
    return " ".join(text + [next(other) for _ in range(size - len(text))])


# Characters: a text of W words has 5W-1; n words have 4n, and n-1 spaces where the most frequent n-gram is measured.
TOP = {2: (0.20, 9), 3: (0.18, 14), 4: (0.16, 19)}


@pytest.mark.parametrize("n", TOP)
def test_most_frequent_ngram(n):
    limit, chars = TOP[n]
    over = next(t for t in range(2, 90) if t * chars / (5 * 200 - 1) > limit)
    name = f"more than {limit:.0%} of characters are the same {n} words"
    assert name in reason("gopher_repetition", ngram_text(n, over, 200))
    assert name not in reason("gopher_repetition", ngram_text(n, over - 1, 200))


DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


@pytest.mark.parametrize("n", DUPLICATE)
def test_repeated_sequences(n):
    """The same n words, again and again among other words: each time but the first counts."""
    limit, size = DUPLICATE[n], 1000
    over = next(t for t in range(1, 90) if t * 4 * n / (5 * size - 1) > limit)
    name = f"more than {limit:.0%} of characters in repeated sequences of {n} words"
    assert name in reason("gopher_repetition", ngram_text(n, over + 1, size))
    assert name not in reason("gopher_repetition", ngram_text(n, over, size))


def pieces(count, repeated, end):
    """`count` pieces of like length, of which `repeated` repeat an earlier one."""
    lines = [" ".join(words(4, 10 * i)) for i in range(count - repeated)]
    return end.join(lines + lines[:repeated])


@pytest.mark.parametrize(("name", "end"), [("paragraphs", "\n\n"), ("lines", "\n")])
def test_repeated_pieces(name, end):
    assert reason("gopher_repetition", pieces(30, 3, end)) == ""
    assert f"20% of characters in repeated {name}" in reason("gopher_repetition", pieces(30, 7, end))
    short = ["x"] * 11 + [" ".join(words(20, 20 * i)) for i in range(22)]  # 10 of 33 repeat, and are short
    assert f"30% of {name} are repeated" in reason("gopher_repetition", end.join(short))
    assert reason("gopher_repetition", end.join(short[2:])) == ""


def test_repetition_of_words_is_not_asked_of_chinese():
    assert reason("gopher_repetition", "人民共和国" * 40) == ""
    assert "lines are repeated" in reason("gopher_repetition", "人民共和国\n" * 40 + "完")


def test_duplicates():
    assert duplicates(["a", "bb", "a", "a", "cc"]) == (2, 2)
    assert duplicates(["a", "b"]) == (0, 0)


def test_c4_keeps_lines_that_are_sentences():
    lines = [
        (True, f"{LONG} It was so. They were glad."),
        (True, 'He said "come to the river!"'),
        (False, "Home | Contact | About us"),
        (False, "To be continued in a moment..."),
        (False, "Too short."),
        (True, "Three words here."),
        (False, "Please enable JavaScript to see this page."),
        (False, "This site uses cookies to please you."),
        (False, "x" * 1001 + " is a word of this line."),
        (True, "x" * 1000 + " is a word of this line."),
    ]
    document, why = FILTERS["c4"](Text("\n".join(line for _, line in lines)))
    assert why == ""
    assert document.text.split("\n") == [line for kept, line in lines if kept]


def test_c4_drops_documents():
    assert reason("c4", f"{LONG} " * 5) == ""
    assert "fewer than 5 sentences" in reason("c4", f"{LONG} " * 4)
    assert "lorem ipsum" in reason("c4", f"{LONG}\n" * 5 + "Lorem ipsum dolor sit amet.")
    assert "curly bracket" in reason("c4", f"{LONG}\n" * 5 + "if (x) { y.")
    assert FILTERS["c4"](Text(f"{LONG} It was so.[3]\n" * 5))[0].text.count("[3]") == 0
    assert reason("c4", "我们去河边。他们也去了！为什么？因为那里很美。大家都喜欢。") == ""
    assert "fewer than 5" in reason("c4", "Mr. Smith and Dr. J. Jones met. They talked. They ate. They left.")


def rated(good, bad, count, total):
    return "\n".join([good.format(i) for i in range(total - count)] + [bad.format(i) for i in range(count)])


FINEWEB = {
    "punctuation": (
        rated("{} " + LONG[:-1], "{} " + LONG, 12, 100),
        rated("{} " + LONG[:-1], "{} " + LONG, 11, 100),
    ),
    "short lines": (
        rated("{} " + LONG, "{:02} short one indeed.", 67, 100),
        rated("{} " + LONG, "{:02} short.", 68, 100),
    ),
}


@pytest.mark.parametrize("case", FINEWEB)
def test_fineweb_shares_of_lines(case):
    inside, outside = FINEWEB[case]
    assert "of lines" not in reason("fineweb", inside)
    assert "of lines" in reason("fineweb", outside)


def test_fineweb_length_of_a_short_line():
    assert "at most 30" in reason("fineweb", "\n".join(f"{i:02}{'x' * 27}." for i in range(50)))
    assert "at most 30" not in reason("fineweb", "\n".join(f"{i:02}{'x' * 28}." for i in range(50)))


def test_fineweb_repeated_lines():
    unique = "\n".join(f"{i:03} {LONG}" for i in range(101))  # each line is 1/102 or 1/101 of the characters
    assert reason("fineweb", unique + "\n" + f"{0:03} {LONG}") == ""
    unique = "\n".join(f"{i:03} {LONG}" for i in range(98))
    assert "more than 1% of characters" in reason("fineweb", unique + "\n" + f"{0:03} {LONG}")


def test_fineweb_line_ends():
    """A line of 3 long words has 2 or 3 marks and words more than it needs."""
    line = "{:04}" + "x" * 30
    assert "line ends a word" in reason("fineweb", "\n".join(line.format(i) + " y." for i in range(40)))
    assert reason("fineweb", "\n".join(line.format(i) + " y y." for i in range(40))) == ""


def test_fineweb_does_not_count_chinese_lines_as_short():
    assert reason("fineweb", "\n".join(f"{c}前明月光，疑是地上霜。" for c in "床窗门山水火风云雨雪")) == ""
