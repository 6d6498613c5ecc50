"""What a reader of Markdown sees of a name is the name."""

from mmm.markdown import as_code, as_code_block, as_markdown


def test_markup_in_a_name_is_text() -> None:
    assert as_markdown("![x](http://y) <b>\n_a_") == r"!\[x\](http://y) \<b\> \_a\_"
    assert as_markdown("CC BY-NC 4.0; 3 + 4 (#1)") == "CC BY-NC 4.0; 3 + 4 (#1)"
    assert as_markdown("# a") == r"\# a"
    assert as_markdown("- a") == r"\- a"
    assert as_markdown("1. a") == r"1\. a"


def test_backticks_do_not_end_a_code_span_or_block() -> None:
    assert as_code("a.csv") == "`a.csv`"
    assert as_code("a`<img src=x>`\n`") == "`` a`<img src=x>` ` ``"
    assert as_code("a``b") == "```a``b```"
    assert as_code_block("a\n```\n<b>") == "````\na\n```\n<b>\n````"
