"""The place `hfjobs`: the real huggingface_hub client against the jobs API on 127.0.0.1."""

import base64
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_server import SECRET, point_client
from jobs_server import Jobs, serving
from pydantic import ValidationError

from stages.core import beginning, preparing
from stages.core import jobs as core
from stages.core.errors import TunesmithError
from stages.places import hfjobs
from stages.places.hfjobs import client

ENTRY: dict[str, Any] = {
    "kind": "hfjobs",
    "flavor": "a10g-small",
    "git": "https://example.test/me/project.git",
    "hours": 2.0,
}
OPTIONS = hfjobs.Options(**ENTRY)
SCRIPT = "import sys\nprint('begun', sys.version_info[:1])\n"
VALUE = "Zq8-the-value-of-the-secret-4711"
ADDRESS = "https://bucket.example.test"


def job(**changes: Any) -> core.Job:
    """A job of one stage; `changes` go before what is usual."""
    facts = {
        "id": "train-sibyl-3f2a",
        "attempt": 1,
        "place": "hub",
        "targets": ["train@sibyl"],
        "needed": [],
        "baseline": "0" * 40,
        "snapshot": "0" * 40,
        "prefix": "",
        "project": "tunesmith",
        "git": ENTRY["git"],
        "remote": {"url": ADDRESS},
        "secrets": [],
        **{
            name: getattr(OPTIONS, name)
            for name in (
                *("env_file", "settings", "setup", "python", "folder", "hours", "processes"),
                *("nodes", "shard", "checkpoints"),
            )
        },
    }
    return core.Job(**facts | changes)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """A hub without jobs, and the client's constants as its environment would set them."""
    huggingface_hub.close_session()
    with serving(Jobs(SECRET)) as server:
        point_client(server, tmp_path / "hf", monkeypatch)
        yield server
        huggingface_hub.close_session()


def test_a_start_asks_for_what_the_entry_says(hub: Jobs) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    (body,) = hub.posted
    assert body.pop("environment").keys() >= {"TUNESMITH_SCRIPT"}
    assert body == {
        "command": ["python3", "-c", hfjobs.BEGIN],
        "arguments": [],
        "flavor": "a10g-small",
        "timeoutSeconds": 7200 + 1800,
        "labels": {
            "name": "train-sibyl-3f2a",
            "tunesmith-job": "train-sibyl-3f2a",
            "tunesmith-attempt": "1",
        },
        "dockerImage": "python:3.12-bookworm",
    }
    assert "POST /api/jobs/me" in hub.asked


def test_an_organisation_pays_where_the_entry_names_it(hub: Jobs) -> None:
    hfjobs.start(job(), hfjobs.Options(**ENTRY, namespace="the-lab"), SCRIPT)
    assert hub.asked == ["GET /api/jobs/the-lab", "GET /api/jobs/the-lab", "POST /api/jobs/the-lab"]


def test_a_secret_is_in_the_store_of_secrets_and_nowhere_else(
    hub: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REMOTE_LOGIN", VALUE)
    one = job(secrets=["REMOTE_LOGIN"])
    hub.logs["6a2b" + "0" * 20] = ["opened", f"with {VALUE}"]
    hfjobs.require(one, OPTIONS)
    hfjobs.start(one, OPTIONS, SCRIPT)
    told = [hfjobs.said(one, OPTIONS), hfjobs.describe(OPTIONS), json.dumps(one.facts())]
    hfjobs.stop(one, OPTIONS)
    assert hub.posted[0].pop("secrets") == {"REMOTE_LOGIN": VALUE}
    assert [VALUE in text for text in hub.raw].count(True) == 1
    read = capfd.readouterr()
    texts = [json.dumps(hub.posted), *told, read.out, read.err]
    texts += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    packed = zlib.decompress(base64.b64decode(hub.posted[0]["environment"]["TUNESMITH_SCRIPT"]))
    assert not [text for text in [*texts, packed.decode()] if VALUE in text]
    assert told[0].startswith("opened\nwith [redacted]\n")


def test_a_secret_that_is_not_set_here_is_refused_before_anything_is_asked(
    hub: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REMOTE_LOGIN", raising=False)
    for act in (
        lambda: hfjobs.require(job(secrets=["REMOTE_LOGIN"]), OPTIONS),
        lambda: hfjobs.start(job(secrets=["REMOTE_LOGIN"]), OPTIONS, SCRIPT),
    ):
        with pytest.raises(TunesmithError, match="Not set here: REMOTE_LOGIN"):
            act()
    assert hub.asked == []


def test_what_is_posted_runs_the_script_unharmed(hub: Jobs, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    text = "$(HOME) $$ `id` ' \" \\n é \N{SNOWMAN}"
    script = f"import os, sys\nopen('made.txt', 'w', encoding='utf-8').write({text!r})\n"
    script += "open('left.txt', 'w').write(str('TUNESMITH_SCRIPT' in os.environ))\nsys.exit(7)\n"
    hfjobs.start(job(), OPTIONS, script)
    (body,) = hub.posted
    words = [sys.executable, *body["command"][1:]]
    env = {"PATH": os.environ["PATH"], **body["environment"]}
    assert subprocess.run(words, cwd=folder, env=env).returncode == 7
    assert (folder / "made.txt").read_text(encoding="utf-8") == text
    assert (folder / "left.txt").read_text() == "False"
    assert "$" not in json.dumps([body["command"], body["environment"]])


def test_what_is_posted_fetches_the_commit_and_prepares_it(hub: Jobs, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        return subprocess.check_output(["git", *words], cwd=tmp_path / "from", text=True).strip()

    (tmp_path / "from").mkdir()
    (tmp_path / "home").mkdir()
    git("init", "--quiet")
    (tmp_path / "from" / "kept.txt").write_text("of the commit")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@example.test", "commit", "--quiet", "-m", "one")
    commit = git("rev-parse", "HEAD")
    one = job(
        git=str(tmp_path / "from"),
        baseline=commit,
        snapshot=commit,
        setup=["cat kept.txt > ~/seen.txt"],
        python="true",
    )
    git("update-ref", one.reference, commit)
    hfjobs.start(one, OPTIONS, beginning.text(one.facts()))
    (body,) = hub.posted
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), **body["environment"]}
    words = [sys.executable, *body["command"][1:]]
    assert subprocess.run(words, cwd=tmp_path / "home", env=env).returncode == 0
    assert (tmp_path / "home" / "seen.txt").read_text() == "of the commit"


def test_a_start_that_was_cut_off_after_the_request_is_found_and_not_begun_twice(
    hub: Jobs,
) -> None:
    hub.cut = True
    with pytest.raises(TunesmithError, match="none is begun twice"):
        hfjobs.start(job(), OPTIONS, SCRIPT)
    assert hfjobs.state(job(), OPTIONS) == core.RUNNING
    hfjobs.start(job(), OPTIONS, SCRIPT)
    assert len(hub.posted) == 1


def test_an_attempt_that_has_ended_is_not_begun_again_but_the_next_one_is(hub: Jobs) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.held[0]["status"]["stage"] = "ERROR"
    hfjobs.start(job(), OPTIONS, SCRIPT)
    assert len(hub.posted) == 1
    assert hfjobs.state(job(), OPTIONS) == core.ENDED
    assert hfjobs.state(job().again(), OPTIONS) == core.NONE
    hfjobs.start(job().again(), OPTIONS, SCRIPT)
    assert len(hub.posted) == 2
    assert hfjobs.state(job().again(), OPTIONS) == core.RUNNING


def test_an_attempt_that_still_runs_ends_before_the_next_one_begins(hub: Jobs) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.lag = 2
    hfjobs.start(job().again(), OPTIONS, SCRIPT)
    assert hub.stages() == ["CANCELED", "RUNNING"]
    assert hub.held[0]["lag"] == 0  # it was asked until the first one had ended


def test_what_is_said_is_of_the_last_attempt(hub: Jobs) -> None:
    for number, one in enumerate((job(), job().again(), job().again().again())):
        hfjobs.start(one, OPTIONS, SCRIPT)
        hub.logs[hub.held[number]["id"]] = [f"attempt {one.attempt}"]
    hub.held.reverse()
    assert hfjobs.said(job(), OPTIONS).startswith("attempt 3\n")


@pytest.mark.parametrize(
    ("stage", "state"),
    [
        ("SCHEDULING", core.RUNNING),
        ("RUNNING", core.RUNNING),
        ("A_NEW_ONE", core.RUNNING),
        ("COMPLETED", core.ENDED),
        ("CANCELED", core.ENDED),
        ("ERROR", core.ENDED),
        ("DELETED", core.ENDED),
    ],
)
def test_the_stages_of_the_hub_are_states(hub: Jobs, stage: str, state: str) -> None:
    assert hfjobs.state(job(), OPTIONS) == core.NONE
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.held[0]["status"]["stage"] = stage
    assert hfjobs.state(job(), OPTIONS) == state


def test_a_job_is_found_among_many_pages_of_others(hub: Jobs) -> None:
    hub.page, hub.filters = 2, False
    for number in range(5):
        hub.add({"labels": {"tunesmith-job": f"other-{number}"} if number else None})
    hfjobs.start(job(), OPTIONS, SCRIPT)
    assert hfjobs.state(job(), OPTIONS) == core.RUNNING


def test_stop_waits_until_the_hub_says_so_and_can_be_called_again(hub: Jobs) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.lag = 3
    hfjobs.stop(job(), OPTIONS)
    assert hub.stages() == ["CANCELED"]
    assert hub.held[0]["lag"] == 0
    before = len(hub.asked)
    hfjobs.stop(job(), OPTIONS)
    assert hub.asked[before:] == ["GET /api/jobs/me"]
    hfjobs.stop(job(id="never-begun"), OPTIONS)


def test_stop_ends_no_run_of_another_job_where_the_hub_filters_nothing(hub: Jobs) -> None:
    hub.filters = False
    hub.add({"labels": {"tunesmith-job": "another"}})
    hub.add({"labels": None})
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hfjobs.stop(job(), OPTIONS)
    assert hub.stages() == ["RUNNING", "RUNNING", "CANCELED"]


def test_a_hub_that_does_not_end_a_job_is_told_with_what_to_type(
    hub: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.lag = 1000
    monkeypatch.setattr(hfjobs, "DEADLINE", 0.0)
    with pytest.raises(TunesmithError, match=r"hf jobs cancel 6a2b0+\s.*/jobs/me/6a2b0+"):
        hfjobs.stop(job(), OPTIONS)


def test_a_job_that_the_hub_has_lost_leaves_no_trace_and_stops(hub: Jobs) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.held.clear()
    assert hfjobs.state(job(), OPTIONS) == core.NONE
    assert hfjobs.said(job(), OPTIONS) == ""
    hfjobs.stop(job(), OPTIONS)


def test_a_run_that_ends_while_it_is_cancelled_is_no_mistake(
    hub: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.refuse["/cancel"] = 409
    done = iter([False, True])

    def pass_by(_: float) -> None:
        hub.held[0]["status"]["stage"] = "COMPLETED" if next(done) else "RUNNING"

    monkeypatch.setattr("time.sleep", pass_by)
    hfjobs.stop(job(), OPTIONS)
    assert hub.asked.count(f"POST /api/jobs/me/{hub.held[0]['id']}/cancel") == 2


def test_said_ends_with_why_the_hub_ended_it(hub: Jobs) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    run = hub.held[0]
    hub.logs[run["id"]] = ["> make it", "error: no git"]
    run["status"] = {"stage": "ERROR", "message": "Job timeout"}
    page = f"{hub.url}/jobs/me/{run['id']}"
    told = f"> make it\nerror: no git\n{page}: ERROR, Job timeout"
    assert hfjobs.said(job(), OPTIONS) == told
    hub.refuse["/logs"] = 404
    assert hfjobs.said(job(), OPTIONS) == f"{page}: ERROR, Job timeout"


def test_the_log_of_a_job_that_goes_on_does_not_hold_the_terminal(
    hub: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "QUIET", 0.05)
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.logs[hub.held[0]["id"]], hub.open = ["so far"], True
    assert hfjobs.said(job(), OPTIONS).startswith("so far\n")
    assert not hub.gave_up


REFUSALS = {
    401: "does not accept the token",
    402: "paid in advance for your jobs",
    403: "may not start your jobs",
    404: "does not know your jobs, the flavor or the image",
    422: r"refused what was asked of it \(422\)",
    429: "answered 429 for now",
    503: "answered 503 for now",
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_one_screen_without_the_hubs_words(
    hub: Jobs, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("REMOTE_LOGIN", VALUE)
    hub.refuse["POST /api/jobs/me"] = status
    with pytest.raises(TunesmithError, match=REFUSALS[status]) as caught:
        hfjobs.start(job(secrets=["REMOTE_LOGIN"]), OPTIONS, SCRIPT)
    screen = caught.value.screen()
    assert caught.value.where
    assert caught.value.do
    assert len(screen.splitlines()) <= 6
    assert not [secret for secret in (SECRET, VALUE) if secret in screen]


@pytest.mark.parametrize(
    ("status", "state"), [(429, core.UNKNOWN), (503, core.UNKNOWN), (401, ""), (403, "")]
)
def test_a_hub_that_cannot_be_asked_now_leaves_the_state_unknown(
    hub: Jobs, status: int, state: str
) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.refuse["GET /api/jobs/me"] = status
    if state:
        assert hfjobs.state(job(), OPTIONS) == state
    else:
        with pytest.raises(TunesmithError, match="token"):
            hfjobs.state(job(), OPTIONS)


def test_a_hub_that_hangs_up_leaves_the_state_unknown(hub: Jobs) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hub.deaf = True
    assert hfjobs.state(job(), OPTIONS) == core.UNKNOWN
    with pytest.raises(TunesmithError, match="broke off"):
        hfjobs.stop(job(), OPTIONS)


def test_no_token_and_a_wrong_one_are_told_apart(
    hub: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(TunesmithError, match="does not accept the token"):
        hfjobs.require(job(), OPTIONS)
    monkeypatch.delenv("HF_TOKEN")
    for options in (OPTIONS, hfjobs.Options(**ENTRY, namespace="the-lab")):
        with pytest.raises(TunesmithError, match="There is no token") as caught:
            hfjobs.require(job(), options)
        assert "HF_TOKEN=" in caught.value.do


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"nodes": 2}, "gives a job one machine, and nodes is 2"),
        ({"flavor": "a10g-smal"}, r"no flavor 'a10g-smal'\.\n(.*\n)*.*Did you mean 'a10g-small'"),
        ({"processes": 2}, "GPUs of a10g-small: 1, and processes is 2"),
        ({"settings": {"TUNESMITH_LAUNCH": "container"}}, "No container can run there"),
    ],
)
def test_what_cannot_work_there_is_refused_and_nothing_is_begun(
    hub: Jobs, entry: dict[str, Any], told: str
) -> None:
    with pytest.raises(TunesmithError, match=told):
        hfjobs.require(job(), hfjobs.Options(**ENTRY | entry))
    assert not [asked for asked in hub.asked if asked.startswith("POST")]


def test_a_remote_in_a_folder_of_this_machine_is_refused(hub: Jobs) -> None:
    with pytest.raises(TunesmithError, match=r"a folder of this machine: \.\./store"):
        hfjobs.require(job(remote={"url": "../store"}), OPTIONS)
    assert hub.asked == []
    there = hfjobs.Options(**ENTRY, remote_url=ADDRESS)
    hfjobs.require(job(remote={"url": "../store"}), there)


def test_several_processes_fit_a_flavor_of_several_gpus(hub: Jobs) -> None:
    hfjobs.require(job(), hfjobs.Options(**ENTRY | {"flavor": "a10g-largex2", "processes": 2}))
    hfjobs.require(job(), hfjobs.Options(**ENTRY | {"flavor": "cpu-basic", "processes": 2}))


def test_a_hub_that_lists_no_hardware_leaves_flavor_and_price_open(hub: Jobs) -> None:
    hub.hardware = None
    hfjobs.require(job(), hfjobs.Options(**ENTRY | {"flavor": "a-new-one"}))
    assert hfjobs.price(OPTIONS) is None
    hub.deaf = True
    assert hfjobs.price(OPTIONS) is None


@pytest.mark.parametrize(
    ("unit", "usd"), [("minute", 1.0), ("hour", 0.02), ("second", 60.0), ("fortnight", None)]
)
def test_the_price_is_in_dollars_an_hour(hub: Jobs, unit: str, usd: float | None) -> None:
    assert hub.hardware
    hub.hardware[1]["unitLabel"] = unit
    assert hfjobs.price(OPTIONS) == usd


def test_the_price_of_the_entry_goes_before_the_hubs(hub: Jobs) -> None:
    assert hfjobs.price(hfjobs.Options(**ENTRY, usd_per_hour=0.5)) == 0.5
    assert hub.asked == []


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"hours": 0.0}, "never end a machine that is paid for"),
        ({"git": "git@example.test:me/project.git"}, "no key for ssh"),
        ({"git": "https://me:word@example.test/project.git"}, "name GIT_TOKEN in `secrets`"),
        ({"env_file": "~/secrets.env"}, "the Hub keeps the secrets"),
        ({"flavor": ""}, "at least 1 character"),
        ({"namespace": "the/lab"}, "match pattern"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        hfjobs.Options(**ENTRY | entry)


def test_every_run_has_an_end_of_its_own(hub: Jobs) -> None:
    usual = {key: value for key, value in ENTRY.items() if key != "hours"}
    hfjobs.start(job(), hfjobs.Options(**usual), SCRIPT)
    hfjobs.start(job(id="short"), hfjobs.Options(**ENTRY | {"hours": 0.0001}), SCRIPT)
    assert [body["timeoutSeconds"] for body in hub.posted] == [6 * 3600 + 1800, 1801]
    assert "ended after 6 h, by the Hub after 6.5" in hfjobs.describe(hfjobs.Options(**usual))


def test_a_machine_that_is_not_prepared_otherwise_is_prepared_by_the_locks() -> None:
    assert OPTIONS.setup == preparing.setup()
    assert OPTIONS.python == preparing.PYTHON
    assert hfjobs.source(job(), OPTIONS) == ENTRY["git"]


@pytest.mark.parametrize("name", ["train@sibyl.3", "a" * 61, "größe"])
def test_an_id_that_can_be_no_label_is_found_by_its_digest(hub: Jobs, name: str) -> None:
    hfjobs.start(job(id=name), OPTIONS, SCRIPT)
    label = hub.held[0]["labels"]["tunesmith-job"]
    assert set(label) <= set("0123456789abcdef")
    assert hfjobs.state(job(id=name), OPTIONS) == core.RUNNING


def test_a_script_that_no_machine_could_be_told_is_refused(hub: Jobs) -> None:
    noise = base64.b64encode(os.urandom(200_000)).decode()
    with pytest.raises(TunesmithError, match="too large to send"):
        hfjobs.start(job(), OPTIONS, noise)
    assert hub.asked == []


def test_the_owners_name_is_asked_for_once(hub: Jobs) -> None:
    hfjobs.start(job(), OPTIONS, SCRIPT)
    hfjobs.state(job(), OPTIONS)
    hfjobs.stop(job(), OPTIONS)
    assert hub.asked.count("GET /api/whoami-v2") == 1
