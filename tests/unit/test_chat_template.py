"""Chat templates: Jinja as transformers runs it, kept from doing anything but text."""

from __future__ import annotations

import pytest

from cluster.checkpoints.chat_template import ChatTemplate
from node.errors import InputError

HELLO = [{"role": "user", "content": "a < b\n"}]


def _rendered(source: str, words: dict[str, str] | None = None) -> str:
    return ChatTemplate("m.gguf", source, words or {}).render(HELLO)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for m in messages %}\n  {% if true %}\n{{ m['content'] }}\n  {% endif %}\n{% endfor %}\n", "a < b\n\n"),
        ("{{ bos_token }}{{ messages[0].role }}{{ eos_token }}", "<s>user"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "a < b\\n"}'),
        ("{% if add_generation_prompt %}go{% endif %}", "go"),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% set s = namespace(n=0) %}{% for m in messages %}{% set s.n = s.n + 1 %}{% endfor %}{{ s.n }}", "1"),
        ("{{ 'dated' if strftime_now is defined else 'same every day' }}", "same every day"),
        ("{{ messages[0]['content'] | trim }}|{{ tools }}", "a < b|"),
    ],
)
def test_what_templates_use(source: str, expected: str) -> None:
    assert _rendered(source, {"bos_token": "<s>"}) == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('roles must\n alternate') }}", "roles must alternate"),
        ("{{ messages[0].content.nothing.at_all }}", "has no attribute 'nothing'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ [] + 1 }}", "can only concatenate list"),
        ("{{ messages[0].__class__.__mro__ }}", "__class__"),
        ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
        ("{{ range(1000000000) | list }}", "Range too big"),
        ("{{ strftime_now('%d') }}", "'strftime_now' is undefined"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_what_templates_may_not(source: str, reason: str) -> None:
    with pytest.raises(InputError, match=r"^m\.gguf: its chat template refuses the messages: ") as refused:
        _rendered(source)
    assert reason in str(refused.value) and "\n" not in str(refused.value)


def test_a_template_that_is_none() -> None:
    with pytest.raises(InputError, match=r"^m\.gguf: its chat template cannot be read: ") as refused:
        _rendered("{% for m in %}")
    assert "\n" not in str(refused.value)
