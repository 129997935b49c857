"""Reading and writing the format of ovnkube.conf."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpu_operator.plan import conf
from dpu_shared.errors import UserError

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,15}", fullmatch=True)
VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x24F, exclude_characters="\x7f"), max_size=40
) | st.sampled_from(["", " ", "#", '"', "\\", 'a\\"b', "x;y", "tab\there", "  spaced  "])


def test_values_are_read_as_git_config_reads_them() -> None:
    text = (
        '; a comment\n[Default]\nMTU="1400"\nflag\nwith = a b  ; the rest\nquoted=" a ; b " # no\n'
        'escaped="x\\"y\\\\z"\nlong=one\\\n two\n[default]\nmtu=9000\n[sub "Part"]\nkey=v\r\n'
    )
    assert conf.values(conf.parse(text)) == {
        ("default", "mtu"): "9000",
        ("default", "flag"): "true",
        ("default", "with"): "a b",
        ("default", "quoted"): " a ; b ",
        ("default", "escaped"): 'x"y\\z',
        ("default", "long"): "one two",
        ("sub.Part", "key"): "v",
    }


@pytest.mark.parametrize(
    "text",
    [
        "key=before a section",
        "[open",
        "[two] [sections]",
        "[a]\nno equals sign",
        "[a]\n=value",
        '[a]\nk="open',
        "[a]\nk=bad \\q escape",
        "[a]\nk=\x00",
        "\x89PNG\r\n\x1a\n",
        '{"json": true}',
        "[a]\nk=\\",
    ],
)
def test_what_is_no_such_file_is_refused_in_two_sentences_with_its_line(text: str) -> None:
    with pytest.raises(UserError) as caught:
        conf.parse(text)
    assert caught.value.message.startswith("Line ")
    assert caught.value.hint.endswith(".")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, min_size=1), min_size=1))
def test_what_is_written_is_read_again_the_same(sections: dict[str, dict[str, str]]) -> None:
    text = conf.render((), sections)
    expected = {(section, key): value for section, settings in sections.items() for key, value in settings.items()}
    assert conf.values(conf.parse(text)) == expected


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, min_size=1), min_size=1), st.dictionaries(NAMES, VALUES))
def test_lines_that_are_kept_stay_as_they_were_and_additions_win(
    sections: dict[str, dict[str, str]], extra: dict[str, str]
) -> None:
    text = conf.render((), sections)
    again = conf.render(conf.parse(text), {"default": extra})
    assert again.startswith(text.rstrip("\n"))
    assert conf.values(conf.parse(again)) == conf.values(conf.parse(text)) | {
        ("default", k): v for k, v in extra.items()
    }


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_but_never_breaks(text: str) -> None:
    try:
        lines = conf.parse(text)
    except UserError:
        return
    assert "\n".join(line.text for line in lines) == text
