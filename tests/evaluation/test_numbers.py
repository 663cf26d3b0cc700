from __future__ import annotations

import pytest

from harness.evaluation.numbers import ascii_digits, canonical, direct, direct_answers, reasoned, reasoned_answers


def test_digits_of_every_script_become_ascii():
    for digits in ("০১২৩৪৫৬৭৮৯", "౦౧౨౩౪౫౬౭౮౯", "０１２３４５６７８９"):
        assert ascii_digits(digits) == "0123456789"
    assert ascii_digits("１，２００．５ −3 五 ² ½") == "1,200.5 -3 五 ² ½"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("18", "18"),
        ("1,200", "1200"),
        ("1,00,000", "100000"),
        ("18.00", "18"),
        ("18.50", "18.5"),
        ("007", "7"),
        ("-5", "-5"),
        ("-0", "0"),
        ("0.5", "0.5"),
        ("১৮", "18"),
        ("１８", "18"),
    ],
)
def test_a_number_has_one_spelling(number, expected):
    assert canonical(number) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "She has 3 + 4 = 7 eggs. The answer is 7.", "7"),
        ("en", "The answer is $1,200.50.\n\n2 more words", "1200.5"),
        ("en", "3 * 4 = 12 #### 12 and 99", "12"),
        ("en", "The answer is -5", "-5"),
        ("en", "10-3 is left, 10-3", "3"),
        ("en", "no number", ""),
        ("sw", "Anabaki na mayai 9. Jibu ni 18. Siku 3 zimepita", "18"),
        ("sw", "Jibu: 18 (siku 3)", "18"),
        ("sw", "16 - 7 = 9, 9 * 2 = 18", "18"),
        ("sw", "The answer is 18. Siku 3", "18"),
        ("te", "౧౬ - ౭ = ౯. సమాధానం ౧౮. రోజులు ౩", "18"),
        ("te", "సమాధానం: 1,20,000 రోజులు 3", "120000"),
        ("bn", "উত্তর হল ১৮। দিন ৩", "18"),
        ("bn", "উত্তর: ৳১,২০০। দিন ৩", "1200"),
        ("bn", "মোট ৬", "6"),
        ("ja", "答えは１８です。３日", "18"),
        ("ja", "答えは：18ドルです。3日", "18"),
        ("ja", "３個から２個で１個", "1"),
        ("ja", "-３", "-3"),
    ],
)
def test_a_worked_answer_is_the_number_after_the_last_prefix_or_the_last_of_all(language, text, expected):
    assert reasoned(text, language) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(" 18\nSwali: 3", "18"), ("\n\n18 dola\n5", "18"), (" 5 + 13 = 18\n2", "18"), ("", ""), ("hakuna\n7", "")],
)
def test_a_bare_answer_stands_in_the_first_line(text, expected):
    assert direct(text, "sw") == expected


def test_filters_read_each_answer_in_its_documents_language():
    responses, docs = [["Jibu ni 1, 9"], ["答えは２です。9"]], [{"language": "sw"}, {"language": "ja"}]
    assert reasoned_answers(responses, docs) == [["1"], ["2"]]
    assert direct_answers([["4\n5"]], docs[:1]) == [["4"]]
