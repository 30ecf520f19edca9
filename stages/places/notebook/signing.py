"""Names of secrets in; their values in the environment of this kernel, and nowhere else, out."""

import getpass
import importlib
import os
from typing import Any

COLAB = "add it under Secrets (the key at the left), and switch its `Notebook access` on"
KAGGLE = "add it under Add-ons > Secrets, and tick it for this notebook; Internet must be on"
JUPYTER = "set it in the environment that starts Jupyter, or run this cell where it can ask you"


def fetch(names: list[str]) -> None:
    """Read each secret from where this service keeps them; end this cell where one is missing."""
    read, failures, how = store()
    missing = []
    for name in names:
        try:
            value, why = read(name), "it is empty"
        except failures as failure:
            value, why = os.environ.get(name, ""), f"{type(failure).__name__}"
        os.environ[name] = (value or "").strip()
        if os.environ[name]:
            print(name, "is set.")
        else:
            missing.append(f"{name} is missing ({why}): {how}.")
    if missing:
        raise SystemExit("\n".join([*missing, "Then Run all again. Nothing was run."]))


def store() -> tuple[Any, Any, str]:
    """What reads a secret here, what it raises where there is none, and how one is set."""
    try:
        colab = importlib.import_module("google.colab.userdata")
    except ImportError:
        pass
    else:
        known = (colab.SecretNotFoundError, colab.NotebookAccessError, colab.TimeoutException)
        return colab.get, known, COLAB
    try:
        kaggle = importlib.import_module("kaggle_secrets")
    except ImportError:
        # A notebook that nobody looks at has nobody to ask: NotImplementedError.
        return typed, (NotImplementedError, EOFError), JUPYTER
    known = (kaggle.BackendError, kaggle.CredentialError, ConnectionError)
    return lambda name: kaggle.UserSecretsClient().get_secret(name), known, KAGGLE


def typed(name: str) -> str:
    """The value that the environment has, else what is typed, which is not shown."""
    return os.environ.get(name) or getpass.getpass(f"{name}: ")
