"""A plan and a place in; the job that the place is told, its inputs and its commit sent, out."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from stages.commands.remote import failures, project, settings
from stages.commands.remote.sending import Sent, push
from stages.commands.remote.store import Store
from stages.commands.run.declared import Place
from stages.commands.run.planning import Plan
from stages.core import graph, params_text, repository
from stages.core.cache import Cache
from stages.core.errors import TunesmithError
from stages.core.jobs import Job


def job(targets: Sequence[str], found: Plan, place: Place, root: Path = Path()) -> Job:
    """The job of these targets with the files as they are now; nothing is sent yet.

    Raises:
        TunesmithError: no commit, or a remote that the place could not reach.
    """
    baseline, prefix = repository.head(root)
    tree = repository.tree(root, [graph.LOCK])  # a new one, in a project just built
    digest = hashlib.sha256(orjson.dumps([list(targets), baseline, tree, place.name])).hexdigest()[
        :8
    ]
    unchanged = tree == repository.git(root, "rev-parse", f"{baseline}^{{tree}}")
    options = place.options
    name = "-".join(targets[0].split("@")) if len(targets) == 1 else f"{len(targets)}-targets"
    own = f"{name.replace('/', '-').replace('.', '-')[:40]}-{digest}"
    snapshot = baseline if unchanged else repository.commit(root, tree, baseline, f"job {own}")
    return Job(
        id=own, attempt=1, place=place.name, targets=list(targets), needed=found.needed,
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
    parts = urlsplit(url)
    if parts.password:
        raise TunesmithError(
            f"The address of the remote {name} holds a password.",
            where=f"places.yaml: {place.name}.remote_url",
            why="It would be sent in the open.",
            do="Leave it out, and let the place sign in by a key or by `secrets`.",
        )
    shared = {k: str(v) for k, v in values.items() if k in ("endpointurl", "region", "port")}
    user = {"user": str(values["user"])} if "user" in values and not parts.username else {}
    return {"name": name, "url": url, **shared, **user, **options.remote_options}


def source(wanted: Job, place: Place, root: Path = Path()) -> str:
    """Where the commit is fetched from: sent there now, where a place does not bring it itself.

    Raises:
        TunesmithError: there is no git remote, or it refuses.
    """
    address: str = place.plugin.source(wanted, place.options)
    if not address:
        repository.git(root, "update-ref", wanted.reference, wanted.snapshot)
        return ""
    repository.git(root, "push", "--quiet", "--force", address,
                   f"{wanted.snapshot}:{wanted.reference}")  # fmt: skip
    return address


def inputs(found: Plan, store: Store) -> Sent:
    """Push what the stages read and the remote lacks, and results of earlier settings.

    Raises:
        TunesmithError: something of it is nowhere, or damaged here.
    """
    cache = Cache()
    needed = project.Needed()
    needed.add(cache, found.inputs)
    if found.restored:
        more = project.needed(found.restored, cache, here=True)
        needed.objects = more.objects | needed.objects
        needed.runs += more.runs
    needed.objects = dict(sorted(needed.objects.items(), key=lambda one: one[0].endswith(".dir")))
    done = push(store, cache, needed)
    lost: list[Any] = [*done.bad, *(md5 for md5 in done.absent if _is_input(md5, found))]
    if lost:
        raise TunesmithError(
            f"{len(lost)} files that it reads are neither whole here nor at {store.name}, such as "
            f"{needed.objects[lost[0]]}.",
            where=store.url,
            why="The job could not run there.",
            do="dvc repro    builds them here; or, where they are: tunesmith push",
        )
    return done


def _is_input(md5: str, found: Plan) -> bool:
    """Whether an object is one of the inputs; what is only remembered of earlier is not needed."""
    cache = Cache()
    inner = {one for made in found.inputs for one in (cache.tree(made.md5) or {}).values()}
    return md5 in inner or any(made.md5 == md5 for made in found.inputs)


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
