"""Labelled replies for the verifier `text`: what they are held to, some that are right, some that are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Group = tuple[str, Mapping[str, Any], Sequence[str], Sequence[str]]

_TAGS = ["think", "answer"]


def _ifeval(id: str, **kwargs: Any) -> dict[str, Any]:
    return {"instructions": [{"id": id, "kwargs": kwargs}]}


RULES: tuple[Group, ...] = (
    (
        "contains",
        {"contains": ["Paris", "France"]},
        ["Paris is in France.", "FRANCE has paris.", "It is **Paris**,\nin France."],
        ["Paris.", "Pa ris, France", ""],
    ),
    ("contains word", {"rules": [{"contains": "cat", "word": True}]}, ["The cat's tail."], ["A concatenation."]),
    ("contains case", {"rules": [{"contains": "NATO", "case": True}]}, ["It is NATO."], ["It is nato."]),
    (
        "contains times",
        {"rules": [{"contains": "very", "times": {"min": 1, "max": 2}}]},
        ["Very very nice."],
        ["very very very nice", "nice"],
    ),
    ("not", {"rules": [{"not": {"contains": "sorry"}}]}, ["I can do that."], ["I am SORRY.", ""]),
    ("any", {"rules": [{"any": [{"contains": "yes"}, {"contains": "aye"}]}]}, ["Aye."], ["No."]),
    (
        "all",
        {"rules": [{"not": {"all": [{"contains": "a"}, {"contains": "b"}]}}]},
        ["only a"],
        ["a and b"],
    ),
    ("regex", {"regex": r"^[A-Z]{2}-\d{4}$"}, ["AB-1234"], ["AB-123", "see AB-1234"]),
    ("regex times", {"rules": [{"regex": r"\d+", "times": 2}]}, ["1 and 22"], ["1", "1 2 3"]),
    ("regex whole", {"rules": [{"regex": "(a|b)+", "whole": True}]}, ["abba\n"], ["abca"]),
    ("exact", {"exact": "Paris"}, ["Paris", " Paris\n"], ["paris", "Paris.", "Paris\u200b"]),
    ("exact list", {"exact": ["yes", "no"]}, ["no"], ["yes no"]),
    ("exact answer", {"rules": [{"exact": True}], "answer": "42"}, ["42"], ["43"]),
    (
        "normalised",
        {"normalised": "São Paulo"},
        ["são paulo.", "**SÃO  PAULO**", "“São Paulo”", "Sa\u0303o Paulo"],
        ["Sao Paulo", "São Paulo, Brazil", "not São Paulo"],
    ),
    (
        "choice",
        {"choice": "B"},
        [
            "B",
            "(b)",
            "The answer is (B).",
            r"So \boxed{B}",
            "**B) Oslo**",
            "<answer>B</answer>",
            "A) no\nB) no\nAnswer: B",
        ],
        ["C", "A, B, C", "B or C", "The answer is not B.", "I do not know.", "The answer is B. The answer is C."],
    ),
    (
        "choice texts",
        {"choice": "B", "options": ["Rome", "Oslo"]},
        ["Oslo", "The answer is Oslo.", "B"],
        ["Rome", "C", "Rome or Oslo"],
    ),
    ("choice answer", {"rules": [{"choice": True}], "answer": "(C)"}, ["C."], ["D."]),
    ("words", {"words": {"min": 3, "max": 4}}, ["one two three", "It's a well-known"], ["one two", "a-b-c-d-e"]),
    (
        "sentences",
        {"sentences": 2},
        ["Dr. Lee came. She left.", "你好。再见。"],
        ["One sentence only", "A b. C d. E f."],
    ),
    ("paragraphs", {"paragraphs": {"min": 2}}, ["One.\n\nTwo."], ["One.\nTwo.", "One.\n\n\n"]),
    ("lines", {"lines": {"max": 2}}, ["a\n\nb"], ["a\nb\nc"]),
    ("characters", {"characters": {"max": 5}}, ["abcde", "e\u0301tude"], ["abcdef"]),
    ("starts", {"starts": "Dear"}, ["dear Sir,"], ["My dear"]),
    ("ends", {"ends": "Yours."}, ["So long.\nYours."], ["Yours. Bye"]),
    (
        "language",
        {"language": "de"},
        ["Das Wetter ist heute schön und wir gehen in den Park."],
        ["The weather is fine today and we go to the park.", "Погода сегодня очень хорошая.", "12345"],
    ),
    (
        "language by script",
        {"language": "ja"},
        ["今日はいい天気ですね。"],
        ["今天天气很好，我们去公园散步，然后回家吃饭，晚上一起看电影。", "Konnichiwa"],
    ),
    (
        "tags",
        {"tags": _TAGS},
        ["<think>2+2</think><answer>4</answer>", "<think>a\nb</think>\n\n<answer>4</answer>\n"],
        [
            "<answer>4</answer>",
            "<think>2+2</think>4",
            "<think>2+2</think><answer> </answer>",
            "x <think>a</think><answer>4</answer>",
        ],
    ),
    (
        "on answer",
        {"rules": [{"words": 1, "on": "answer"}, {"contains": "4", "on": "answer"}]},
        ["<think>It is four, I think.</think><answer>4</answer>"],
        ["4", "<answer>It is 4</answer>", "<answer>4</answer><answer>4</answer>"],
    ),
    (
        "on think",
        {"rules": [{"words": {"min": 2}, "on": "think"}]},
        ["<think>let me see</think>4"],
        ["<think>hm</think>4"],
    ),
    ("json", {"rules": [{"json": True}]}, ['{"a": 1}', "```json\n[1]\n```"], ["{'a': 1}", "5", '{"a": 1} ok']),
)

IFEVAL: tuple[Group, ...] = (
    ("existence", _ifeval("keywords:existence", keywords=["sun", "sea"]), ["The sunny seaside."], ["The sun."]),
    (
        "frequency",
        _ifeval("keywords:frequency", keyword="sea", frequency=2, relation="at least"),
        ["Sea after sea."],
        ["One sea."],
    ),
    (
        "frequency",
        _ifeval("keywords:frequency", keyword="sea", frequency=2, relation="less than"),
        ["One sea."],
        ["Sea after sea."],
    ),
    ("forbidden", _ifeval("keywords:forbidden_words", forbidden_words=["man"]), ["A manly woman."], ["A Man."]),
    (
        "letters",
        _ifeval("keywords:letter_frequency", letter="z", let_frequency=3, let_relation="at least"),
        ["Zigzag zoo."],
        ["A zoo."],
    ),
    (
        "language",
        _ifeval("language:response_language", language="fr"),
        ["Il fait beau aujourd'hui et nous allons au parc."],
        ["It is a fine day and we go to the park."],
    ),
    (
        "sentences",
        _ifeval("length_constraints:number_sentences", num_sentences=2, relation="at least"),
        ["One came. Two left."],
        ["One came"],
    ),
    (
        "paragraphs",
        _ifeval("length_constraints:number_paragraphs", num_paragraphs=2),
        ["One.\n***\nTwo.", "***\nOne.\n***\nTwo.\n***"],
        ["One.\n\nTwo.", "One.\n***\n***\nTwo."],
    ),
    (
        "words",
        _ifeval("length_constraints:number_words", num_words=3, relation="less than"),
        ["Two words."],
        ["Just three words."],
    ),
    (
        "first word",
        _ifeval("length_constraints:nth_paragraph_first_word", num_paragraphs=2, nth_paragraph=2, first_word="then"),
        ["One.\n\n**Then** two."],
        ["Then one.\n\nTwo.", "One.\n\nThen two.\n\nThree.", "One.\n\nThence two."],
    ),
    (
        "placeholders",
        _ifeval("detectable_content:number_placeholders", num_placeholders=2),
        ["Dear [name], of [city]."],
        ["Dear [name], of [].", "Dear [name]."],
    ),
    (
        "postscript",
        _ifeval("detectable_content:postscript", postscript_marker="P.S."),
        ["Bye.\n\nP.S. Write soon.", "Bye.\n**P.S.** Write."],
        ["Bye.", "Bye.\nP.P.S. Write.", "P.S. All of it.", "Bye.\nP.S."],
    ),
    (
        "bullets",
        _ifeval("detectable_format:number_bullet_lists", num_bullets=2),
        ["* one\n* two", "List:\n- one\n- two"],
        ["* one", "- one\n- two\n- three", "**one**\n**two**"],
    ),
    (
        "constrained",
        _ifeval("detectable_format:constrained_response"),
        ["My answer is no."],
        ["No.", "My answer is yes. My answer is no. My answer is maybe."],
    ),
    (
        "highlights",
        _ifeval("detectable_format:number_highlighted_sections", num_highlights=2),
        ["*one* and **two**"],
        ["*one* and two", "* one\n* two", "** **"],
    ),
    (
        "sections",
        _ifeval("detectable_format:multiple_sections", section_spliter="SECTION", num_sections=2),
        ["SECTION 1\none\nSECTION 2\ntwo", "**Section 1**\none\n\n**Section 2**\ntwo"],
        ["SECTION 1\none", "SECTION 1\nSECTION 2\ntwo", "See SECTION 1 and SECTION 2."],
    ),
    ("json", _ifeval("detectable_format:json_format"), ['{"a": [1, 2]}', '```json\n{"a": 1}\n```'], ["a: 1", "1"]),
    ("title", _ifeval("detectable_format:title"), ["<<Joy>>\nA poem."], ["<Joy>\nA poem.", "<< >>\nA poem."]),
    (
        "two",
        _ifeval("combination:two_responses"),
        ["Go.\n******\nStay."],
        ["Go. Stay.", "Go.\n******\nGo!", "a\n******\nb\n******\nc"],
    ),
    (
        "repeat",
        _ifeval("combination:repeat_prompt", prompt_to_repeat="Name a sea."),
        ["Name a sea.\nThe Baltic."],
        ["The Baltic.", "Name a sea."],
    ),
    ("end", _ifeval("startend:end_checker", end_phrase="That is all."), ["Bye. That is all."], ["That is all. Bye."]),
    ("quotation", _ifeval("startend:quotation"), ['"All of it."', "“All of it.”"], ['"Some" of it.', '""']),
    (
        "capital words",
        _ifeval("change_case:capital_word_frequency", capital_frequency=2, capital_relation="at least"),
        ["It is VERY GOOD."],
        ["It is VERY good."],
    ),
    (
        "capital",
        _ifeval("change_case:english_capital"),
        ["THE WEATHER IS FINE TODAY."],
        ["The weather is fine.", "DAS WETTER IST HEUTE SEHR SCHÖN"],
    ),
    ("lower case", _ifeval("change_case:english_lowercase"), ["the weather is fine today."], ["The weather is fine."]),
    ("no comma", _ifeval("punctuation:no_comma"), ["One and two."], ["One, two."]),
    (
        "columns",
        {
            "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
            "kwargs": [{}, {"num_words": None}],
        },
        ["<<Joy>> all day"],
        ["<<Joy>>, all day", "all day"],
    ),
    (
        "loose",
        {**_ifeval("startend:end_checker", end_phrase="Bye."), "loose": True},
        ["Well.\nBye.\nI hope this helps"],
        ["Well.\nBye.\nI hope\nthis helps"],
    ),
)

HACKS: tuple[tuple[str, Mapping[str, Any], Sequence[str]], ...] = (
    (
        "hidden",
        {"contains": "Paris"},
        [
            "<think>Paris</think>I do not know.",
            "<think>Paris, I do not close this",
            "<!-- Paris --> I do not know.",
            "I do not know.\n[//]: # (Paris)",
            "P\u0430ris",
            "<think>a</think>b<think>Paris</think>c",
        ],
    ),
    (
        "forbidden in disguise",
        {"rules": [{"not": {"contains": "password"}}]},
        [
            "the pass\u200bword",
            "the p\u0430ssword",
            "the pass\u00adword",
            "the ｐａｓｓｗｏｒｄ",
            "fine <!-- password -->",
            "\u200b\u200b",
            "<think>ok",
        ],
    ),
    (
        "forbidden in disguise",
        _ifeval("keywords:forbidden_words", forbidden_words=["secret"]),
        [
            "a s\u0435cret plan",
            "a se\u200bcret plan",
            "a \U0001d42c\U0001d41e\U0001d41c\U0001d42b\U0001d41e\U0001d42d plan",
        ],
    ),
    (
        "length in disguise",
        {"words": {"max": 4}},
        [
            "one-two-three-four-five",
            "one_two_three_four_five",
            "one\u00a0two\u2003three\u200a four five",
            "one.two.three.four.five",
            "ok <!-- one two three four five -->",
        ],
    ),
    (
        "length in disguise",
        {"words": {"min": 4}},
        ["one \u200b \u200b \u200b", "one <!-- two three four -->", "- - - -", "one\u2063two\u2063three\u2063four"],
    ),
    ("length in disguise", {"sentences": {"min": 3}}, ["Yes . . .", "Yes!!!", "1. 2. 3. 4.", "Yes.\n\n.\n\n."]),
    ("length in disguise", {"paragraphs": {"min": 3}}, ["One.\n\n\u200b\n\n\u200b", "One.\n\n---\n\n***"]),
    (
        "all choices",
        {"choice": "B"},
        [
            "A B C D",
            "A) x\nB) y\nC) z\nD) w",
            r"\boxed{A}\boxed{B}\boxed{C}",
            r"\boxed{A, B, C, D}",
            "<answer>A or B</answer>",
            "The answer is A. The answer is B. The answer is C.",
            "Answer: B\nAnswer: C",
            "It might be B.",
            "<think>The answer is B.</think>",
            "<think>The answer is B.",
            "<!-- The answer is B. -->",
            "The answer is B, C.",
            "Answer: A/B/C/D",
            "**A** **B** **C** **D**",
        ],
    ),
    (
        "tags",
        {"tags": _TAGS},
        [
            "<think><answer>4</answer></think><answer>4</answer>",
            "<think>a<answer>4</answer></think>",
            "<think>a</think><answer>4</answer><answer>5</answer>",
            "<think>a</think><answer><answer>4</answer></answer>",
            "<THINK>a</THINK><ANSWER>4</ANSWER>",
            "<think>a</think><answer>4</Answer>",
            "<think>a</think><answer>4",
            "<think>a</think><answer >4</answer>",
            "<answer>4</answer><think>a</think>",
            "<think>a</think>then<answer>4</answer>",
            "<think>a</think><answer>\u200b</answer>",
            "<think>a < answer > b</think><answer>4</answer>",
            "<think>a <\u200banswer>5</answer\u200b></think><answer>4</answer>",
            "<think></think><answer>4</answer>",
            "<think>a</think><think>b</think><answer>4</answer>",
            "<think>a</think><answer>4</answer>\u200b",
            "<think>＜answer＞5</think><answer>4</answer>",
        ],
    ),
    ("another comma", _ifeval("punctuation:no_comma"), ["one\uff0c two", "one\u060c two", "one\u201a two"]),
    (
        "empty marks",
        _ifeval("detectable_format:number_highlighted_sections", num_highlights=3),
        ["** ** ** ** **", "*** *** ***", "* * * * * *"],
    ),
    (
        "empty marks",
        _ifeval("detectable_content:number_placeholders", num_placeholders=3),
        ["[] [] []", "[ ][ ][ ]", "[[[ ]]]"],
    ),
    (
        "another language",
        {"language": "de"},
        ["Gut. " + "The weather is fine today and we go to the park with friends. " * 20],
    ),
    ("repeated", _ifeval("combination:two_responses"), ["Go now.\n******\nGo  now", "Go.\n******\n\u200b"]),
    (
        "JSON with more",
        _ifeval("detectable_format:json_format"),
        ['{"a": 1} {"a": 2}', '{"a": 1, "a": 2}', '{"a": NaN}', "// x\n{}"],
    ),
    ("invisible", _ifeval("startend:quotation"), ['"\u200b"', '" "']),
)

QUIET: tuple[tuple[Mapping[str, Any], str], ...] = (
    ({"rules": [{"not": {"contains": "sorry"}}]}, "I don't know."),
    ({"rules": [{"not": {"all": [{"contains": "a"}, {"contains": "b"}]}}]}, "I don't know."),
    ({"rules": [{"not": {"contains": "password"}}]}, "I don't know."),
    ({"words": {"min": 3, "max": 4}}, "I don't know."),
    ({"words": {"max": 4}}, "I don't know."),
    ({"words": {"min": 4}}, "As an AI language model, I cannot help with that."),
    ({"lines": {"max": 2}}, "I don't know."),
    ({"characters": {"max": 5}}, "..."),
    ({"language": "de"}, "Das weiß ich leider nicht so genau."),
    (_ifeval("language:response_language", language="fr"), "Je ne sais malheureusement pas."),
    (_ifeval("keywords:frequency", keyword="sea", frequency=2, relation="less than"), "I don't know."),
    (_ifeval("keywords:forbidden_words", forbidden_words=["man"]), "I don't know."),
    (_ifeval("keywords:forbidden_words", forbidden_words=["secret"]), "I don't know."),
    (_ifeval("length_constraints:number_words", num_words=3, relation="less than"), "..."),
    (
        _ifeval("change_case:capital_word_frequency", capital_frequency=2, capital_relation="at least"),
        "As an AI language model, I cannot help with that.",
    ),
    (_ifeval("punctuation:no_comma"), "I don't know."),
)
"""What a reply that says nothing may keep: rules that only forbid or limit, and languages too short to tell."""
