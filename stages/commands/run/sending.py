"""A plan and a place in; the job that the place is told, its inputs and its commit sent, out."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from stages.commands.remote import failures, project, settings
from stages.commands.remote.sending import Sent, lacking, push
from stages.commands.remote.store import Store
from stages.commands.run.declared import Place
from stages.commands.run.planning import Plan
from stages.core import graph, params_text, repository, secrecy
from stages.core.cache import Cache
from stages.core.errors import TunesmithError
from stages.core.jobs import Job

NO_NAME = re.compile(r"[^a-z0-9_-]+")  # of a git reference, a folder and a rented machine


def job(found: Plan, place: Place, root: Path = Path()) -> Job:
    """The job of a plan with the files as they are now; nothing is sent yet.

    Raises:
        TunesmithError: no commit, or a remote that the place could not reach.
    """
    baseline, prefix = repository.head(root)
    tree = repository.tree(root, [graph.LOCK])  # a new one, in a project just built
    named = orjson.dumps([found.targets, baseline, tree, place.name])
    digest = hashlib.sha256(named).hexdigest()[:8]
    unchanged = tree == repository.git(root, "rev-parse", f"{baseline}^{{tree}}")
    options = place.options
    several = f"{len(found.targets)}-targets"  # by its stages, however they were typed
    name = found.targets[0].replace("@", "-") if len(found.targets) == 1 else several
    own = f"{NO_NAME.sub('-', name)[:40].strip('-')}-{digest}"
    snapshot = baseline if unchanged else repository.commit(root, tree, baseline, f"job {own}")
    return Job(
        id=own, attempt=1, place=place.name, targets=found.targets, needed=found.needed,
        baseline=baseline, snapshot=snapshot, prefix=prefix, project=project_name(root), git="",
        remote=remote(place), secrets=options.secrets, env_file=options.env_file,
        settings=options.settings, setup=options.setup, python=options.python,
        folder=options.folder, hours=options.hours, processes=options.processes,
        nodes=options.nodes, shard=options.shard, checkpoints=options.checkpoints,
    )  # fmt: skip


def project_name(root: Path) -> str:
    """The name of the project's folder elsewhere: of its folder here and of its first commit."""
    first = repository.git(root, "rev-list", "--max-parents=0", "HEAD").splitlines()[-1]
    name = params_text.KEY.findall(root.resolve().name.lower())
    return f"{'-'.join(name) or 'project'}-{first[:8]}"


def remote(place: Place) -> dict[str, str]:
    """The remote as the place is told of it: name, url and options, without secrets.

    Raises:
        TunesmithError: there is none, or one that only this machine sees.
    """
    config = settings.load()
    options = place.options
    name = settings.chosen(config, options.remote)
    values = config["remote"][name]
    url = options.remote_url or str(values["url"])
    if settings.kind(values) == "folder" and not options.remote_url:
        raise TunesmithError(
            f"The remote {name} is a folder of this machine: {url}",
            where=f"places.yaml: {place.name}.remote",
            why="Inputs and results meet in a remote that both sides reach.",
            do="tunesmith remote NAME ssh://me@machine/path    and remote: NAME; or, where the "
            "place sees that folder too, remote_url: PATH as it is called there",
        )
    shared = {k: str(v) for k, v in values.items() if k in ("endpointurl", "region", "port")}
    user = {"user": str(values["user"])} if "user" in values and not urlsplit(url).username else {}
    told = {"name": name, "url": url, **shared, **user, **options.remote_options}
    for key, value in told.items():
        if urlsplit(value).password or secrecy.found(value):
            raise TunesmithError(
                f"The {key} of the remote {name} holds a secret.",
                where=f"places.yaml: {place.name}, or the remote in .dvc/config",
                why="It would be sent in the open.",
                do="Leave it out, and let the place sign in by a key or by `secrets`.",
            )
    return told


def source(wanted: Job, place: Place, root: Path = Path()) -> str:
    """Where the commit is fetched from: sent there now, where a place does not bring it itself.

    Raises:
        TunesmithError: there is no git remote, or it refuses.
    """
    address: str = place.plugin.source(wanted, place.options)
    if not address:
        repository.git(root, "update-ref", wanted.reference, wanted.snapshot)
        return ""
    # The user's own hooks are about branches, and not about this reference.
    words = ("push", "--quiet", "--force", "--no-verify", address)
    repository.git(root, *words, f"{wanted.snapshot}:{wanted.reference}")
    return address


def needed(found: Plan, cache: Cache) -> project.Needed:
    """What the remote must have: what the stages read, and results of earlier settings."""
    wanted = project.Needed()
    wanted.add(cache, found.inputs)
    for name, outs in project.runs(cache) if found.takes else ():
        if outs and all(one.md5 in found.takes and cache.has(one.md5) for one in outs):
            wanted.add(cache, outs)
            wanted.runs.append(name)
    lists_last = sorted(wanted.objects.items(), key=lambda one: one[0].endswith(".dir"))
    wanted.objects = dict(lists_last)
    return wanted


def lacks(found: Plan, store: Store) -> list[int]:
    """Bytes of each file that would be sent.

    Raises:
        TunesmithError: something is neither here nor there.
    """
    cache = Cache()
    wanted = needed(found, cache)
    with failures.told(store.kind, store.url, "Looking at the remote", ""):
        send, absent = lacking(store, cache, wanted.objects)
    _require_had(absent, wanted, store)
    return [cache.path(md5).stat().st_size for md5 in send]


def inputs(found: Plan, store: Store) -> Sent:
    """Push what the stages read and the remote lacks, and results of earlier settings.

    Raises:
        TunesmithError: something of it is nowhere, or damaged here; the remote does not answer.
    """
    cache = Cache()
    wanted = needed(found, cache)
    with failures.told(store.kind, store.url, "Sending", "the same command"):
        done = push(store, cache, wanted)
    _require_had([*done.bad, *done.absent], wanted, store)
    return done


def _require_had(lost: Sequence[str], wanted: project.Needed, store: Store) -> None:
    if lost:
        raise TunesmithError(
            f"{len(lost)} files that it reads are neither whole here nor at {store.name}, such as "
            f"{wanted.objects[lost[0]]}.",
            where=store.url,
            why="The job could not run there.",
            do="dvc repro    builds them here; or, where they are: tunesmith push",
        )


def opened(name: str, doing: str, again: str) -> Store:
    """The remote, connected to.

    Raises:
        TunesmithError: it does not answer.
    """
    config = settings.load()
    values = config["remote"][settings.chosen(config, name)]
    with failures.told(settings.kind(values), settings.shown(values), doing, again):
        store = Store(settings.chosen(config, name), config)
        store.require()
        return store
