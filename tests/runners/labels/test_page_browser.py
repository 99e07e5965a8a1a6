"""The label page in headless Chromium: keys, saving, a server that is gone, two tabs, and its looks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.label_pages import PLANTED, QUESTIONS, LabelPageServer
from tests.support.limits import HANG_S

pytestmark = pytest.mark.engines

# Of keys that type nothing Chromium wants the number too.
CODES = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}


PROGRESS = "progress: { counts: '', position: '', finished: 'That is all.', more: true, meanings: {}, form: '', notes: [] }"


def wait(browser: Any, code: str) -> Any:
    """Wait until an expression of the page is true."""
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        if value := browser.js(code):
            return value
        time.sleep(0.02)
    raise AssertionError(f"never true: {code}\n{browser.js('document.body.innerText')}")


def press(browser: Any, *keys: str) -> None:
    """Press keys, one after the other."""
    for key in keys:
        text = {"text": "\r"} if key == "Enter" else {} if key in CODES else {"text": key}
        event = {"key": key, "windowsVirtualKeyCode": CODES.get(key, 0), **text}
        browser.call("Input.dispatchKeyEvent", type="keyDown", **event)
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def saved(browser: Any, what: str) -> None:
    """Wait until the page says that something is saved, and nothing waits."""
    wait(browser, f"{text_of('state')} === {json.dumps('Saved: ' + what)} && !pending.length")


def text_of(name: str) -> str:
    """The expression for the text of an element."""
    return f"document.getElementById('{name}').textContent"


def visible(name: str) -> str:
    """The expression for whether an element is shown."""
    return f"document.getElementById('{name}').getClientRects().length > 0"


def show_page(browser: Any, page: LabelPageServer, width: int = 1280, scheme: str = "light") -> None:
    """Open the page and wait for its first task."""
    browser.open("about:blank")  # a change of the fragment alone would not load the page again
    browser.open(page.url, width, scheme)
    wait(browser, visible("task"))


@pytest.fixture
def page(browser: Any, label_page: LabelPageServer) -> Iterator[Any]:
    """A browser that shows a question with two answers."""
    show_page(browser, label_page)
    yield browser
    browser.js("onbeforeunload = null; 0")  # it would ask whether to leave what is not saved, and wait


def test_everything_is_labelled_by_keys_alone(page: Any, label_page: LabelPageServer) -> None:
    first = page.js("task.key")
    assert page.js("document.querySelectorAll('.answer:not([hidden])').length") == 2
    press(page, "n")
    wait(page, f"{text_of('reason')}.startsWith('Grade both answers')")
    press(page, "1")
    saved(page, "answer A is right")
    press(page, "6")
    saved(page, "answer B is wrong")
    pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map(e => e.firstChild.data).join()"
    assert page.js(pressed) == "Right,Wrong"
    press(page, "a")
    saved(page, "A is better")
    press(page, "g", "H", "i", "Escape")
    saved(page, "gold answer")
    press(page, "m", "ArrowDown", "Home", "End")
    last = page.js("document.activeElement.textContent")
    press(page, "Enter")
    saved(page, "gold sentence")
    assert page.js("document.querySelector('[aria-selected=true]').textContent") == last
    assert page.js("document.activeElement.textContent") == last
    press(page, "n")
    wait(page, f"task.key !== {json.dumps(first)}")
    assert page.js("document.activeElement.id") == "question"
    second = page.js("task.key")
    press(page, "x")
    saved(page, "not answerable")
    press(page, "p")
    wait(page, f"task.key === {json.dumps(first)}")
    assert page.js(pressed) == "Right,Wrong,A"
    press(page, "u")
    wait(page, f"task.key === {json.dumps(second)} && task.answerable !== false")
    press(page, "s")
    wait(page, f"!task || task.key !== {json.dumps(second)}")
    (person,) = label_page.labels.people
    done = [labels for labels in person.questions.values() if not labels.skipped]
    assert [sorted(labels.grades.values()) for labels in done] == [["right", "wrong"]]
    assert (done[0].gold or "").endswith(" berthsHi")
    assert done[0].sentence is not None
    assert done[0].sentence.text == last
    assert sum(labels.skipped for labels in person.questions.values()) == 1


def test_buttons_are_reached_by_tab_and_pressed_by_enter(page: Any) -> None:
    press(page, "?")
    wait(page, "document.getElementById('help').open")
    page.js("document.getElementById('single-keys').click()")
    press(page, "Escape")
    wait(page, "!document.getElementById('help').open")
    press(page, "1", "s", "q")
    assert page.js("pending.length || document.getElementById('leave').open || visited.length") == 0
    page.js("document.getElementById('question').focus()")
    reached = []
    for _ in range(40):
        press(page, "Tab")
        reached.append(page.js("document.activeElement.id || document.activeElement.textContent"))
        if reached[-1] == "Wrong6":
            break
    assert [name for name in reached if name[:-1] in ("Right", "Partly", "Wrong")] == [
        "Right1", "Partly2", "Wrong3", "Right4", "Partly5", "Wrong6",
    ]  # fmt: skip
    press(page, "Enter")
    saved(page, "answer B is wrong")


def test_no_other_host_is_asked_and_no_request_has_the_token_in_its_address(
    page: Any, label_page: LabelPageServer
) -> None:
    press(page, "2")
    saved(page, "answer A is partly right")
    sent = [e["params"]["request"] for e in page.events if e.get("method") == "Network.requestWillBeSent"]
    addresses = {request["url"] for request in sent}
    assert {url for url in addresses if not url.startswith((f"{label_page.address}/", "data:"))} == set()
    assert f"{label_page.address}/labels" in addresses
    assert not [url for url in addresses if label_page.token in url]
    assert page.js("location.href") == f"{label_page.address}/"
    assert page.js("document.cookie") == ""
    assert not [e for e in page.events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    page.open(f"{label_page.address}/")  # a reload knows the token still
    wait(page, visible("task"))


def test_answers_are_shown_as_text_and_scripts_are_blocked(page: Any) -> None:
    shown = page.js("[...document.querySelectorAll('.answer .text')].map(e => e.textContent)")
    assert len(shown) == 2
    assert all(text.endswith(PLANTED) for text in shown)
    assert page.js("window.ran") is None
    assert page.js("document.querySelectorAll('main img, main script').length") == 0
    page.js(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 9'; document.body.append(s) })()"
    )
    assert page.js("window.ran") is None


def test_equal_answers_are_shown_once(page: Any) -> None:
    one = "task: { ...task, answers: task.answers.slice(0, 1), grades: [null] }"
    page.js(f"show({{ revision, {one}, {PROGRESS} }})")
    assert page.js("document.querySelectorAll('.answer:not([hidden])').length") == 1
    assert page.js(visible("preference")) is False
    press(page, "4", "b")
    assert page.js("pending.length") == 0
    assert page.js("lacking()") == "Grade the answer"


def test_what_is_special_about_a_task_is_said(page: Any) -> None:
    special: dict[str, Any] = {
        "notice": "Finished: this one.",
        "cut": [True, False],
        "graded_before": [False, True],
    }
    special |= {
        "by_file": True,
        "assumed": True,
        "answerable": False,
        "done": True,
        "consequence": "B counts as right",
    }
    page.js(f"show({{ revision, task: {{ ...task, ...{json.dumps(special)}, key: 'other' }}, {PROGRESS} }})")
    assert page.js(visible("notice")) is True
    assert page.js("document.activeElement.id") == "notice"
    remarks = page.js("[...document.querySelectorAll('.remark')].map(e => e.textContent)")
    assert remarks == ["Cut at the limit of length.", "You graded this answer before, beside another one."]
    assert page.js("document.getElementById('unanswerable').getAttribute('aria-pressed')") == "true"
    assert page.js(text_of("unanswerable-note")) == "B counts as right"
    press(page, "x")
    wait(page, f"{text_of('state')}.startsWith('It is not answerable already, by the file')")
    assert page.js("pending.length") == 0
    page.js(f"show({{ revision, task: null, {PROGRESS} }})")
    assert page.js(text_of("finished-text")) == "That is all."
    press(page, "o")  # this run has two arms, so there is a task of the pair again
    wait(page, visible("task"))


def test_what_cannot_be_sent_is_said_kept_and_sent_again(page: Any, label_page: LabelPageServer) -> None:
    press(page, "1")
    saved(page, "answer A is right")
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.emulateNetworkConditions", offline=True, **network)
    press(page, "5", "g", "Z", "Escape")
    wait(page, f"{text_of('reason')}.includes('answer B is partly right; gold answer')")
    assert page.js(visible("again")) is True
    assert page.js("document.querySelectorAll('[data-side=second] [aria-pressed=true]').length") == 0
    assert "Z" in page.js("document.getElementById('gold').value")
    assert page.js("dispatchEvent(new Event('beforeunload', { cancelable: true }))") is False
    page.call("Network.emulateNetworkConditions", offline=False, **network)
    page.js("document.getElementById('again').click()")
    wait(page, f"!pending.length && !({visible('trouble')})")
    assert page.js("document.querySelectorAll('[data-side=second] [aria-pressed=true]').length") == 1
    (person,) = label_page.labels.people
    (labels,) = person.questions.values()
    assert sorted(labels.grades.values()) == ["partly", "right"]
    assert "Z" in (labels.gold or "")


def test_server_that_is_gone_is_noticed_and_what_was_typed_stays(
    page: Any, label_page: LabelPageServer
) -> None:
    press(page, "g", "Z")
    label_page.stop()
    wait(page, f"{text_of('reason')}.includes('The server does not answer')")
    press(page, "Escape", "3")
    wait(page, f"{text_of('reason')}.startsWith('Not saved: gold answer; answer A is wrong')")
    assert "Z" in page.js("document.getElementById('gold').value")
    assert page.js("document.querySelectorAll('[aria-pressed=true]').length") == 0


def test_change_in_another_tab_is_shown_and_not_overwritten(page: Any, label_page: LabelPageServer) -> None:
    wait(page, "!pump")
    body = {"kind": "grade", "key": page.js("task.key"), "revision": 0, "side": "first", "grade": "right"}
    with label_page.client() as other:
        assert other.post("/labels", json=body).status_code == 200
    press(page, "3")
    wait(page, f"{text_of('reason')}.includes('in another tab?')")
    pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map(e => e.firstChild.data).join()"
    assert page.js(pressed) == "Right"
    (person,) = label_page.labels.people
    assert [list(labels.grades.values()) for labels in person.questions.values()] == [["right"]]
    press(page, "3")
    saved(page, "answer A is wrong")
    with label_page.client() as other:
        assert other.post("/undo", json={"revision": 2}).status_code == 200
    wait(page, f"{text_of('state')} === 'Shown is what is saved now'")  # without a click
    assert page.js(pressed) == "Right"


def test_address_without_the_token_says_where_to_get_it(browser: Any, label_page: LabelPageServer) -> None:
    browser.open("about:blank")
    browser.open(f"{label_page.address}/#wrong")
    wait(browser, f"{text_of('reason')}.includes('open the one that the terminal shows')")
    assert browser.js(visible("task")) is False


def test_blank_gold_is_refused_and_the_old_one_stays(page: Any) -> None:
    gold = page.js("document.getElementById('gold').value")
    page.js("document.getElementById('gold').value = ' '; saveGold(); 0")
    assert page.js("document.getElementById('gold').value") == gold
    assert page.js(text_of("reason")) == "The gold answer cannot be empty: it is as it was."


def test_done_ends_the_server_and_says_what_to_run(page: Any, label_page: LabelPageServer) -> None:
    assert "wrong:the rest, and a refusal of a question that has an answer" in page.js(text_of("meanings"))
    press(page, "1", "6")
    saved(page, "answer B is wrong")
    press(page, "q")
    wait(page, "document.getElementById('leave').open")
    assert page.js("document.activeElement.id") == "leave-yes"
    press(page, "Enter")
    wait(page, visible("ended"))
    text = page.js("document.body.innerText")
    assert f"tunewise run {label_page.run} --resume" in text
    assert f"hybrid against rag: too few labels to say which is better (1 of {QUESTIONS} labels" in text
    assert page.js(visible("task") + " || " + visible("bar")) is False
    label_page.thread.join(HANG_S)
    assert not label_page.thread.is_alive()


@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_every_width_and_names_its_controls(
    browser: Any, label_page: LabelPageServer, tmp_path: Path, width: int
) -> None:
    for scheme in ("light", "dark"):
        show_page(browser, label_page, width, scheme)
        assert browser.js("document.documentElement.scrollWidth") <= width
        cards = "[...document.querySelectorAll('.answer')].map(e => e.getBoundingClientRect().top)"
        first, second = browser.js(cards)
        assert (first == second) is (width == 1280)
        browser.shoot(tmp_path / f"label-{width}-{scheme}.png")
        press(browser, "?")
        browser.shoot(tmp_path / f"label-keys-{width}-{scheme}.png")
        assert browser.js("document.getElementById('help').getBoundingClientRect().right") <= width
        press(browser, "Escape")
    named = "[...document.querySelectorAll('button')].filter(b => !b.textContent.trim()).length"
    assert browser.js(named) == 0
    assert (
        browser.js("[...document.querySelectorAll('textarea, input')].filter(f => !f.labels.length).length")
        == 0
    )
    # What the browser tells a screen reader.
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if "role" in node
    }
    for role, name in (
        ("group", "Grade of answer A"),
        ("textbox", "Gold answer: what a right answer says"),
        ("status", ""),
        ("main", ""),
    ):
        assert any(role == seen and named.startswith(name) for seen, named in roles), (role, name)
    assert any(role == "listbox" and name.startswith("Passages found") for role, name in roles)
    assert not [name for role, name in roles if role in ("button", "option") and not name.strip()]
